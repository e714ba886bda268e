use std::{collections::BTreeSet, fs, path::Path};

use muster_proto::json::descriptor;
use muster_proto::v1;

use super::*;
use crate::access::Rest;

fn api() -> Value {
    serde_json::from_str(text()).expect("it is JSON")
}

#[test]
fn the_committed_description_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    #[expect(clippy::disallowed_methods, reason = "the variable by which snapshots are renewed")]
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        fs::write(&path, text()).expect("it is written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(text().lines()).position(|(a, b)| a != b);
    assert!(
        committed == text(),
        "docs/openapi.json is not what is served (from line {}); to renew it:\n  \
         INSTA_UPDATE=always cargo test -p muster-server openapi",
        differs.map_or(1, |line| line + 1)
    );
}

#[test]
fn every_route_is_described_once_and_every_plain_path_too() {
    let api = api();
    let mut ids = BTreeSet::new();
    for ways in api["paths"].as_object().expect("paths").values() {
        for operation in ways.as_object().expect("operations").values() {
            assert!(
                ids.insert(operation["operationId"].as_str().expect("an id").to_owned()),
                "{operation}"
            );
            assert!(
                !operation["description"].as_str().expect("a text").is_empty(),
                "{operation}"
            );
        }
    }
    let plain: BTreeSet<&str> = PLAIN.iter().map(|plain| plain.path).collect();
    let rows = METHODS.iter().filter(|row| row.rest == Rest::Plain).map(|row| row.path);
    assert_eq!(plain, rows.collect());
    assert_eq!(ids.len(), Routes::of_contract().iter().count() + plain.len());
}

#[test]
fn an_operation_says_what_it_needs_and_where_everything_goes() {
    let api = api();
    let labels = &api["paths"]["/v1/agents/{agent}/labels"]["patch"];
    assert!(
        labels["description"]
            .as_str()
            .expect("a text")
            .contains("`agents.label`"),
        "{labels}"
    );
    assert_eq!(labels["parameters"][0]["name"], "agent");
    let body = &labels["requestBody"]["content"]["application/json"]["schema"];
    let names: Vec<&String> = body["properties"].as_object().expect("fields").keys().collect();
    assert_eq!(
        names,
        ["remove", "revision", "set"],
        "what the path holds the body does not"
    );
    let watch = &api["paths"]["/v1/agents:watch"]["get"];
    let answers = watch["responses"]["200"]["content"].as_object().expect("answers");
    assert!(answers.contains_key("application/x-ndjson") && answers.contains_key("text/event-stream"));
    assert!(
        api["paths"]["/healthz"]["get"]["security"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
}

#[test]
fn what_is_sent_and_what_is_accepted_are_told_as_they_are() {
    let mut schemas = Schemas::default();
    schemas.sent(&descriptor::<v1::ListPoliciesResponse>());
    let apply = descriptor::<v1::ApplyPoliciesRequest>();
    let fields: Vec<FieldDescriptor> = apply.fields().collect();
    in_body(&apply, &fields, &mut schemas);
    let all = schemas.finish();
    assert_eq!(all["ListPoliciesResponse"]["required"], json!(["items", "revision"]));
    let version = |name: &str| all[name]["properties"]["version"]["type"].clone();
    assert_eq!(version("PolicyMetadata"), json!("string"));
    assert_eq!(version("PolicyMetadataInput"), json!(["integer", "string", "null"]));
    assert_eq!(
        all["Policy"]["additionalProperties"],
        Value::Null,
        "later releases send more"
    );
    assert_eq!(all["PolicyInput"]["additionalProperties"], json!(false));
    let timeout = &all["CheckInput"]["properties"]["timeout"];
    assert_eq!(timeout["type"], json!(["string", "null"]));
    assert!(
        timeout["description"]
            .as_str()
            .is_some_and(|text| text.starts_with("The run is killed"))
    );
}

#[test]
fn every_reference_leads_somewhere() {
    let api = api();
    let text = text();
    for reference in text.split("\"$ref\": \"#").skip(1) {
        let pointer = reference.split('"').next().expect("an end");
        assert!(api.pointer(pointer).is_some(), "{pointer}");
    }
    assert!(!text.contains(": null"), "nothing is left open");
}
