//! JSON and YAML. The dialect is that of the proto3 JSON mapping, made by `muster_proto::json`; here it is only written.

use serde_json::{Value, json};

/// A list as every `-o json` and `-o yaml` prints it.
pub fn list(items: Vec<Value>, revision: i64) -> Value {
    json!({ "items": items, "revision": revision.to_string() })
}

/// Indented, ends with a line break.
pub fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// On one line: an object of a stream.
pub fn json_line(value: &Value) -> String {
    format!("{value}\n")
}

/// Long texts are not folded: a line of a value is a line of the output.
pub fn yaml(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: 1 << 30 };
    let mut text = serde_saphyr::to_string_with_options(value, options)
        .expect("a JSON value holds nothing that YAML cannot say, and a String takes all that is written");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_items_and_a_revision_even_when_empty() {
        assert_eq!(
            json(&list(vec![], 7)),
            "{\n  \"items\": [],\n  \"revision\": \"7\"\n}\n"
        );
        assert_eq!(yaml(&list(vec![], 7)), "items: []\nrevision: \"7\"\n");
    }

    #[test]
    fn yaml_says_exactly_what_json_says() {
        let value = json!({
            "texts": ["yes", "no", "null", "~", "1", "0x1f", "1e3", "2026-11-18", "a: b", "- x", "#c", "", " lead", "trail ",
                      "two\nlines", "two\nlines\n", "tab\there", "quote'\"", "{}", "&a", "*", "!x", "%", "@", "`", "é", "\u{1b}",
                      "on", ".inf", ".nan", "12:30:45", "<<", "=", "---", "...", "long ".repeat(60)],
            "numbers": [1, -1, 0.5, 1e300],
            "nested": {"empty": {}, "list": [[], [1, [2]], {"a": null}], "flag": true},
        });
        let back: Value = serde_saphyr::from_str(&yaml(&value)).unwrap();
        assert_eq!(back, value);
    }

    #[test]
    fn a_long_text_stays_on_one_line() {
        let text = yaml(&json!({ "output": "word ".repeat(50).trim_end() }));
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
