//! What an editor is told of manifests: the schema that `musterctl validate --schema` prints, with a validator of others. It takes
//! all that `validate` takes. The reverse does not hold, since rules about values are not told in it.

use std::fs;

use muster_proto::{document, manifest};
use muster_tests::{binaries, ctl::Outcome, process, tools};
use serde_json::{Map, Value, json};

/// Which of the cases the schema takes; a case is the documents of a text.
const VALIDATE: &str = "\
import json, sys, jsonschema_rs
schema, cases = (json.load(open(path)) for path in sys.argv[1:])
jsonschema_rs.meta.validate(schema)
validator = jsonschema_rs.Draft202012Validator(schema)
print(json.dumps([all(map(validator.is_valid, case)) for case in cases]))
";

/// What the pages do not show.
const GOOD: &[&str] = &[
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}}}",
    "apiVersion: muster/v1\nkind: Check\nmetadata: { name: 7, labels: { tier: 1, none: no }, owner: team-base, scope: env=prod }\n\
     spec:\n  description:\n  selector: '*'\n  schedule: { interval: 1h30m, retryInterval: 1.5h, attempts: '3' }\n  timeout: 1m0.5s\n  \
     parameters: { warn: 20, low: -5, none: no }\n  run: { tcp: { address: 'db:5432', send: x, expect: y, warning: 500ms, critical: 2s } }\n",
    "apiVersion: muster/v1\nkind: Check\nmetadata:\n  name: x\n  labels:\n  owner: ''\n  version: '12'\n  revision: 7\n  \
     createTime: 2026-11-20T23:20:11Z\n  updateTime: whenever\nspec:\n  selector: '*'\n  schedule:\n  run:\n    disk:\n    http: \
     { url: 'http://x/', method: HEAD, headers: { Host: y }, expectStatus: [200, 3xx], expectBody: ok, insecure: true, warning: 1s, critical: 2s }\n\
     status: { assigned: 3 }\n",
    "apiVersion: muster/v1\nkind: Check\nmetadata: { name: p }\nspec:\n  selector: '*'\n  run: { command: [], process: { name: sshd, \
     commandContains: -D, user: 0, warning: '1:5', critical: '1:' } }\n",
    "apiVersion: muster/v1\nkind: Check\nmetadata: { name: l }\nspec: { selector: '*', run: { load: { warning: 4, critical: '8,7,6', perCpu: true } } }\n\
     ---\napiVersion: muster/v1\nkind: Check\nmetadata: { name: m }\nspec: { selector: '*', run: { memory: { warning: 512MiB, critical: 5% } } }\n\
     ---\napiVersion: muster/v1\nkind: Check\nmetadata: { name: d }\nspec: { selector: '*', run: { disk: { path: /, warning: 5GiB, critical: 1GiB, \
     inodesWarning: 20%, inodesCritical: 10% } } }\n",
    "apiVersion: muster/v1\nkind: Role\nmetadata: { name: on-call, owner: team }\nspec: { description: x, permissions: ['agents.*', '*'] }\n",
    "apiVersion: muster/v1\nkind: Grant\nspec: { apiKey: 5f1e0c7b8d213a4b, role: viewer }\n",
    "apiVersion: muster/v1\nkind: Grant\nmetadata: { name: 3f9c2a7d-10e4-4b85-9f0e-a3a15e1f0c7b, owner: team }\nspec: { user: mira, role: viewer, scope: 'env=dev', apiKey: }\n",
    "apiVersion: muster/v1\nkind: TokenTemplate\nmetadata: { name: t }\nspec:\n",
    "apiVersion: muster/v1\nkind: TokenTemplate\nmetadata: { name: t, labels: { a: b }, scope: env=prod }\nspec: { ttl: 1h30m, uses: '10', \
     labels: { env: prod, tier: 1 }, description: x, source: 10.1.0.0/16, allowReenroll: true, ephemeral: 1d, onClone: Fork }\n",
    "apiVersion: muster/v1\nkind: TokenTemplate\nmetadata: { name: t }\nspec: { onClone: ON_CLONE_REFUSE }\n",
    "items: []\n",
    "items:\n  - { apiVersion: muster/v1, kind: Grant, spec: { user: mira, role: admin } }\n  - items: []\nrevision: '7'\n",
];

/// What an editor underlines, each with the rest of it right.
const BAD: &[&str] = &[
    "[]",
    "text",
    "{kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}}}",
    "{apiVersion: muster/v2, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}}}",
    "{apiVersion: muster/v1, kind: Chek, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}}}",
    "{apiVersion: muster/v1, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}}}",
    "{apiVersion: muster/v1, kind: Check, spec: {selector: '*', run: {disk: {}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {}, spec: {selector: '*', run: {disk: {}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: Disk Root}, spec: {selector: '*', run: {disk: {}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a, lables: {a: b}}, spec: {selector: '*', run: {disk: {}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a, labels: [b]}, spec: {selector: '*', run: {disk: {}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {run: {disk: {}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*'}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}, memory: {}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {dsk: {}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {http: {}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {load: {}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {load: {warning: 1, perCpu: yes}}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {command: /bin/true}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}, timeout: 60}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}, timeout: 5min}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}, timeout: 30m1h}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}, schedule: {attempts: -1}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}, schedule: {retry_interval: 5s}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}, parameters: {v: 1.1}}}",
    "{apiVersion: muster/v1, kind: Check, metadata: {name: a}, spec: {selector: '*', run: {disk: {}}, owner: me}}",
    "{apiVersion: muster/v1, kind: Role, metadata: {name: a}, spec: {description: x}}",
    "{apiVersion: muster/v1, kind: Role, spec: {permissions: ['*']}}",
    "{apiVersion: muster/v1, kind: Grant, spec: {role: viewer}}",
    "{apiVersion: muster/v1, kind: Grant, spec: {user: mira}}",
    "{apiVersion: muster/v1, kind: Grant, spec: {user: mira, apiKey: 5f1e0c7b8d213a4b, role: viewer}}",
    "{apiVersion: muster/v1, kind: TokenTemplate, metadata: {name: a}, spec: {onClone: clone}}",
    "{apiVersion: muster/v1, kind: TokenTemplate, metadata: {name: a}, spec: {onClone: on_clone_fork}}",
    "{apiVersion: muster/v1, kind: TokenTemplate, metadata: {name: a}, spec: {ttl: 3600}}",
    "{items: [{kind: Check}]}",
];

#[test]
fn an_editor_takes_what_validate_takes_and_underlines_what_is_misspelt() {
    let Some(python) = tools::python("python") else {
        return tools::skipped("the schema of manifests", "tests/run.sh has not installed Python");
    };
    let shown = shown();
    let names = schema()["else"]["properties"]["kind"]["enum"].clone();
    for kind in names.as_array().expect("kinds").iter().filter_map(Value::as_str) {
        let is_shown = shown.iter().any(|text| text.contains(&format!("kind: {kind}\n")));
        assert!(is_shown, "no page shows a {kind}");
    }
    let good: Vec<&str> = shown.iter().map(String::as_str).chain(GOOD.iter().copied()).collect();
    let verdicts = taken(&python, &good);
    for (text, is_taken) in good.iter().zip(verdicts) {
        manifest::parse("good", text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
        assert!(is_taken, "the schema refuses\n{text}");
    }
    for (text, is_taken) in BAD.iter().zip(taken(&python, BAD)) {
        assert!(manifest::parse("bad", text).is_err(), "validate takes\n{text}");
        assert!(!is_taken, "the schema takes\n{text}");
    }
}

/// Each value of each good manifest is left out and replaced by others, and each map gets one more field.
#[test]
fn nothing_that_validate_takes_is_refused_by_the_schema() {
    let Some(python) = tools::python("python") else {
        return tools::skipped(
            "the schema of manifests that are changed",
            "tests/run.sh has not installed Python",
        );
    };
    let mut texts = Vec::new();
    for text in shown().iter().map(String::as_str).chain(GOOD.iter().copied()) {
        for document in document::parse(text).expect("it is YAML") {
            let document = document.to_json();
            changed(&document, &mut |text| texts.push(text.to_string()));
        }
    }
    let verdicts = taken(&python, &texts);
    let mut counts = [0; 3];
    for (text, is_taken) in texts.iter().zip(verdicts) {
        match (manifest::parse("changed", text), is_taken) {
            (Ok(_), true) => counts[0] += 1,
            (Ok(_), false) => panic!("the schema refuses what validate takes:\n{text}"),
            (Err(_), true) => counts[1] += 1,
            (Err(_), false) => counts[2] += 1,
        }
    }
    let [both, validate, neither] = counts;
    println!("{both} are taken, {neither} refused by both, {validate} refused by validate alone");
    assert!(both > 500 && neither > 1_000, "{counts:?}");
}

/// All manifests of the pages and of the examples.
fn shown() -> Vec<String> {
    let root = binaries::workspace();
    let files = |folder: &str, ending: &str| -> Vec<String> {
        let folder = fs::read_dir(root.join(folder)).expect("a folder");
        let paths = folder.map(|entry| entry.expect("an entry").path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|is| is == ending))
            .collect();
        paths.sort();
        paths
            .iter()
            .map(|path| fs::read_to_string(path).expect("a file"))
            .collect()
    };
    let mut all = files("deploy/policies", "yaml");
    for page in files("docs", "md").into_iter().chain(files("", "md")) {
        let blocks = page.split("```").skip(1).step_by(2);
        for block in blocks.filter(|block| block.contains("apiVersion: muster/")) {
            let begin = block.find("apiVersion:").expect("it is there");
            // Of what a shell is given, up to the word that ends it.
            all.push(block[begin..].split("\nEND\n").next().unwrap_or_default().to_owned());
        }
    }
    assert!(all.len() > 10, "{all:?}");
    all
}

fn schema() -> Value {
    let mut command = process::clean_command(binaries::path("musterctl"), "/".as_ref());
    command.args(["validate", "--schema"]);
    serde_json::from_str(&Outcome::of(command).expect_code(0).stdout).expect("a schema")
}

/// Whether the schema takes each of these texts.
fn taken<T: AsRef<str>>(python: &std::path::Path, texts: &[T]) -> Vec<bool> {
    let dir = tempfile::tempdir().expect("a directory");
    let documents = |text: &T| -> Value {
        let documents = document::parse(text.as_ref()).unwrap_or_else(|error| panic!("{error}: {}", text.as_ref()));
        documents.iter().map(document::Node::to_json).collect()
    };
    let cases: Value = texts.iter().map(documents).collect();
    let write = |name: &str, value: &Value| {
        let path = dir.path().join(name);
        fs::write(&path, value.to_string()).expect("a file");
        path
    };
    let mut command = process::clean_command(python, dir.path());
    command
        .args(["-c", VALIDATE])
        .arg(write("schema.json", &schema()))
        .arg(write("cases.json", &cases));
    let verdicts = Outcome::of(command).expect_code(0).stdout;
    serde_json::from_str(&verdicts).unwrap_or_else(|error| panic!("{error}: {verdicts}"))
}

/// The document with one thing about it changed, in turn.
fn changed(document: &Value, visit: &mut dyn FnMut(&Value)) {
    let others = [
        json!(null),
        json!(true),
        json!(7),
        json!(-1),
        json!(1.5),
        json!(""),
        json!("x"),
        json!("60s"),
        json!("1h30m"),
        json!("12"),
        json!([]),
        json!(["x"]),
        json!({}),
        json!({ "x": "y" }),
    ];
    for other in &others {
        visit(other);
    }
    match document {
        Value::Object(fields) => {
            let with = |key: &str, value: Option<&Value>| -> Value {
                let mut fields: Map<String, Value> = fields.clone();
                match value {
                    Some(value) => drop(fields.insert(key.to_owned(), value.clone())),
                    None => drop(fields.remove(key)),
                }
                Value::Object(fields)
            };
            visit(&with("unheard-of", Some(&json!("x"))));
            for (key, value) in fields {
                visit(&with(key, None));
                changed(value, &mut |value| visit(&with(key, Some(value))));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                changed(item, &mut |value| {
                    let mut items = items.clone();
                    items[index] = value.clone();
                    visit(&Value::Array(items));
                });
            }
        }
        _ => {}
    }
}
