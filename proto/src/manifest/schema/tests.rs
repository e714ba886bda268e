//! What the schema says. That a validator agrees with the reader is a test of the whole.

use std::{fs, path::Path};

use super::*;

fn text() -> String {
    format!("{:#}\n", schema())
}

#[test]
fn the_committed_schema_is_the_one_that_is_printed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/manifest.schema.json");
    let text = text();
    #[expect(clippy::disallowed_methods, reason = "the variable by which snapshots are renewed")]
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        fs::write(&path, &text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(text.lines()).position(|(a, b)| a != b);
    assert!(
        committed == text,
        "docs/manifest.schema.json is another one (from line {}); to renew it:\n  \
         INSTA_UPDATE=always cargo test --workspace --lib schema",
        differs.map_or(1, |line| line + 1)
    );
}

#[test]
fn its_kinds_are_those_that_are_read() {
    let schema = schema();
    let kinds = schema["else"]["properties"]["kind"]["enum"].as_array().unwrap().clone();
    assert!(
        kinds.contains(&json!("Check")) && kinds.contains(&json!("Grant")),
        "{kinds:?}"
    );
    assert_eq!(schema["else"]["allOf"].as_array().unwrap().len(), kinds.len());
    for kind in kinds {
        let text = json!({ "apiVersion": API_VERSION, "kind": kind, "spec": 5 }).to_string();
        let errors = crate::manifest::parse("f", &text).unwrap_err();
        assert!(
            errors.iter().all(|error| !error.message.contains("expected a kind")),
            "{errors:?}"
        );
    }
}

#[test]
fn what_the_rules_miss_is_required() {
    let defs = &schema()["$defs"];
    assert_eq!(defs["Check"]["required"], json!(["selector", "run"]));
    assert_eq!(defs["HttpRun"]["required"], json!(["url"]));
    assert_eq!(defs["RoleSpec"]["required"], json!(["permissions"]));
    assert_eq!(defs["GrantSpec"]["required"], json!(["role"]));
    assert_eq!(defs["DiskRun"].get("required"), None);
    assert_eq!(
        defs["Run"]["oneOf"].as_array().unwrap().len(),
        defs["Run"]["properties"].as_object().unwrap().len()
    );
}

#[test]
fn every_field_has_its_comment_and_every_reference_an_end() {
    let schema = schema();
    assert_eq!(
        schema["$defs"]["Schedule"]["properties"]["interval"]["description"],
        "From one run to the next: 1 s to 24 h; default 60 s."
    );
    let text = text();
    for reference in text.split("\"$ref\": \"#/").skip(1) {
        let pointer = format!("/{}", reference.split('"').next().unwrap());
        assert!(
            schema.pointer(&pointer).is_some_and(|found| !found.is_null()),
            "{pointer}"
        );
    }
}

#[test]
fn an_enum_is_taken_by_its_short_name_in_any_case_and_in_full() {
    let label = json::descriptor::<v1::Label>();
    let Kind::Enum(source) = label.get_field_by_name("source").unwrap().kind() else {
        panic!("no enum")
    };
    let schema = enumeration(&source);
    assert_eq!(schema["anyOf"][0]["enum"][0], "agent");
    assert_eq!(schema["anyOf"][1]["enum"][1], "LABEL_SOURCE_AGENT");
    let pattern = schema["anyOf"][2]["pattern"].as_str().unwrap();
    assert!(pattern.contains("[aA][gG][eE][nN][tT]"), "{pattern}");
}
