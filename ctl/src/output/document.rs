//! JSON and YAML. The dialect is that of the proto3 JSON mapping, made by `muster_proto::json`; here it is only written.

use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use serde_json::{Value, json};

use super::text;

/// A list as every `-o json` and `-o yaml` prints it.
pub fn list(items: Vec<Value>, revision: i64) -> Value {
    json!({ "items": items, "revision": revision.to_string() })
}

/// The same list, of items that are made as they are written: the documents of a fleet at once take longer than all else.
#[derive(Debug)]
pub struct List<'a, T> {
    pub items: &'a [T],
    pub document: fn(&T) -> Value,
    pub revision: i64,
}

impl<T> Serialize for List<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_struct("List", 2)?;
        list.serialize_field("items", &Items(self))?;
        list.serialize_field("revision", &self.revision.to_string())?;
        list.end()
    }
}

#[derive(Debug)]
struct Items<'a, T>(&'a List<'a, T>);

impl<T> Serialize for Items<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.items.iter().map(self.0.document))
    }
}

/// Indented, ends with a line break.
pub fn json(value: &impl Serialize) -> String {
    inert(serde_json::to_string_pretty(value).expect(SAYABLE) + "\n")
}

/// On one line: an object of a stream.
pub fn json_line(value: &impl Serialize) -> String {
    inert(serde_json::to_string(value).expect(SAYABLE) + "\n")
}

const SAYABLE: &str = "what is printed has names for keys, and a String takes all that is written";

/// The same document with what a terminal would act on escaped. JSON asks for that below U+0020 only, but U+009B begins a
/// command to a terminal just as well. Outside of strings there is nothing of the kind.
fn inert(document: String) -> String {
    // JSON itself leaves nothing below U+0020 but line breaks.
    let acts = |character: char| character >= '\u{7f}' && (character.is_control() || text::reorders(character));
    // Most documents are ASCII, and as they shall be.
    if document.is_ascii() && !document.contains('\u{7f}') {
        return document;
    }
    let mut inert = String::with_capacity(document.len());
    let mut rest = document.as_str();
    while let Some((before, found)) = rest.find(acts).map(|at| rest.split_at(at)) {
        inert.push_str(before);
        let mut found = found.chars();
        if let Some(character) = found.next() {
            inert.push_str(&format!("\\u{:04x}", u32::from(character)));
        }
        rest = found.as_str();
    }
    inert + rest
}

/// Long texts are not folded: a line of a value is a line of the output.
pub fn yaml(value: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: 1 << 30 };
    let mut text = serde_saphyr::to_string_with_options(value, options).expect(SAYABLE);
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
    fn a_list_that_is_made_as_it_is_written_is_the_same() {
        let items = ["a", "\u{9b}31m é"];
        let document = |item: &&str| json!({ "name": item, "none": {} });
        for count in 0..=items.len() {
            let items = &items[..count];
            let made = list(items.iter().map(document).collect(), 7);
            let lazy = List {
                items,
                document,
                revision: 7,
            };
            assert_eq!(json(&lazy), json(&made));
            assert_eq!(yaml(&lazy), yaml(&made));
        }
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
    fn what_a_terminal_would_act_on_is_escaped_and_means_the_same() {
        let value = json!({ "output": "a\u{1b}[2J\u{7f}\u{9b}31m\u{202e}b é\t\n日" });
        for document in [json(&value), json_line(&value), yaml(&value)] {
            let acts = |c: char| c != '\n' && c.is_control();
            assert!(!document.contains(acts), "{document:?}");
            let back: Value = serde_saphyr::from_str(&document).unwrap();
            assert_eq!(back, value);
        }
        assert!(!json(&value).contains(text::reorders));
        assert_eq!(serde_json::from_str::<Value>(&json(&value)).unwrap(), value);
    }

    #[test]
    fn a_long_text_stays_on_one_line() {
        let text = yaml(&json!({ "output": "word ".repeat(50).trim_end() }));
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
