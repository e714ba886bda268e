//! What is read, what is refused, and where it says so.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn one(text: &str) -> Node {
    let mut documents = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

#[test]
fn a_tree_knows_the_lines_and_columns_of_keys_and_values() {
    let node = one("# comment\na: 1\nb:\n  - x\n  - {c: ä, d: y}\n");
    let Value::Map(entries) = &node.value else {
        panic!("{node:?}")
    };
    let (key, list) = &entries[1];
    assert_eq!((key.text.as_str(), key.line, key.column), ("b", 3, 1));
    let Value::Seq(items) = &list.value else {
        panic!("{list:?}")
    };
    assert_eq!((items[0].line, items[0].column), (4, 5));
    let d = items[1].get("d").unwrap();
    assert_eq!((d.line, d.column, &d.value), (5, 15, &Value::String("y".to_owned())));
}

#[test]
fn scalars_have_the_types_of_yaml_1_2() {
    let table = [
        ("no", json!("no")),
        ("yes", json!("yes")),
        ("on", json!("on")),
        ("y", json!("y")),
        ("True", json!(true)),
        ("false", json!(false)),
        ("tRUE", json!("tRUE")),
        ("~", json!(null)),
        ("null", json!(null)),
        ("20", json!(20)),
        ("-7", json!(-7)),
        ("+7", json!(7)),
        ("010", json!(10)),
        ("0o10", json!(8)),
        ("0x1F", json!(31)),
        ("1_000", json!("1_000")),
        ("0b11", json!("0b11")),
        ("1.10", json!(1.1)),
        ("1e3", json!(1000.0)),
        (".5", json!(0.5)),
        ("1.", json!(1.0)),
        (".", json!(".")),
        ("e3", json!("e3")),
        ("1e", json!("1e")),
        (".inf", json!(".inf")),
        (".NaN", json!(".NaN")),
        ("inf", json!("inf")),
        ("99999999999999999999", json!(1e20)),
        ("12:30:45", json!("12:30:45")),
        ("2026-11-20", json!("2026-11-20")),
        ("20%", json!("20%")),
        ("'20'", json!("20")),
        ("\"true\"", json!("true")),
        ("!!str 20", json!("20")),
        ("! 20", json!("20")),
        ("!!int 20", json!(20)),
        ("|\n  20\n", json!("20\n")),
    ];
    for (text, expected) in table {
        let text = format!("a: {text}\n");
        assert_eq!(one(&text).get("a").unwrap().to_json(), expected, "{text}");
    }
}

#[test]
fn a_number_keeps_its_text() {
    let node = one("a: 1.10\nb: 0x1F\nc: '1.10'\n");
    assert_eq!(node.get("a").unwrap().plain.as_deref(), Some("1.10"));
    assert_eq!(node.get("b").unwrap().plain.as_deref(), Some("0x1F"));
    assert_eq!(node.get("c").unwrap().plain, None);
}

#[test]
fn empty_documents_are_left_out() {
    assert_eq!(parse("").unwrap(), []);
    assert_eq!(parse("# nothing\n").unwrap(), []);
    assert_eq!(parse("---\n---\n# nothing\n---\na: 1\n---\n...\n").unwrap().len(), 1);
    let documents = parse("\u{feff}a: 1\r\n---\r\nb: 2\r\n").unwrap();
    assert_eq!((documents.len(), documents[1].line), (2, 3));
}

#[test]
fn what_is_not_read_is_refused_with_its_place() {
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    let table = [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "`a` stands here twice, first in line 1"),
        ("x: {a: 1, a: 2}\n", 1, 11, "`a` stands here twice"),
        ("a: &x 1\nb: *x\n", 2, 4, "aliases"),
        ("a: *x\n", 1, 4, ""),
        ("a:\n\tb: 1\n", 2, 0, "spaces alone"),
        ("a:\n  b: x\n\tc: 1\n", 3, 1, "spaces alone"),
        ("a: !vault x\n", 1, 0, "the tag `!vault` means nothing here"),
        ("a: !spot\n", 1, 0, "put it into quotes"),
        ("a: !gpu,env=prod\n", 1, 4, "`!` at the start"),
        (
            "a: *\n",
            1,
            4,
            "`*` at the start means something of its own in YAML; put the text into double quotes",
        ),
        ("a: *,env=prod\n", 1, 4, "`*` at the start"),
        ("a: @x\n", 1, 4, "`@` at the start"),
        ("a: Free: space\n", 1, 8, "put the text into double quotes"),
        ("a: !!seq {}\n", 1, 0, "`!!seq` does not fit"),
        ("a: {{ name }}\n", 1, 0, "put it into quotes"),
        ("? [a, b]\n: 1\n", 1, 0, "a key must be text"),
        ("\"\": 1\n", 1, 1, "a key is missing"),
        ("a: [1, 2\n", 0, 0, ""),
        ("a: \"x\n", 0, 0, ""),
        ("a: b: c\n", 1, 0, ""),
        (deep.as_str(), 1, 0, "nest"),
    ];
    for (text, line, column, message) in table {
        let error = parse(text).expect_err(text);
        assert!(error.message.contains(message), "{text}: {error}");
        assert!(!error.message.is_empty(), "{text}");
        assert!(line == 0 || error.line == line, "{text}: {error}");
        assert!(column == 0 || error.column == column, "{text}: {error}");
    }
}

#[test]
fn large_input_is_refused_before_it_is_read() {
    let error = parse(&" ".repeat(MAX_BYTES + 1)).unwrap_err();
    assert!(error.message.contains("at most 1048576"), "{error}");
    let error = parse(&"- 1\n".repeat(MAX_NODES + 1)).unwrap_err();
    assert!(error.message.contains("more than 100000 values"), "{error}");
}

#[test]
fn nesting_is_read_up_to_its_limit() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert!(parse(&nested(MAX_DEPTH + 1)).is_err());
}

/// Text that is likelier to get past the first character than random characters are.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z]{1,4}",
        Just(": ".to_owned()),
        Just("\n".to_owned()),
        Just("\n  ".to_owned()),
        Just("- ".to_owned()),
        Just("? ".to_owned()),
        "[\\[\\]{},'\"|>&*!%@#~\t-]",
        "[0-9.xoe+-]{1,6}",
        Just("---\n".to_owned()),
        Just("...\n".to_owned()),
        Just("<<".to_owned()),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(random in any::<String>(), text in yaml_like()) {
        for text in [random, text] {
            if let Err(error) = parse(&text) {
                prop_assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty(), "{error:?}");
            }
        }
    }

    #[test]
    fn json_reads_as_itself(text in any::<String>(), number: i64, truth: bool) {
        let value = json!({"text": text, "list": [number, truth, null], "map": {"a": {}}});
        let documents = parse(&value.to_string()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(documents[0].to_json(), value);
    }
}
