//! Manifests as people write them, right and wrong.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::duration;

const DISK_ROOT: &str = r#"apiVersion: muster/v1
kind: Check
metadata: { name: disk-root, labels: { team: base } }
spec:
  description: Root file system has room
  selector: "env=prod"
  schedule: { interval: 60s, retryInterval: 15s, attempts: 3 }
  timeout: 20s
  parameters: { warn: "20%", crit: "10%", path: / }
  run:
    command: [/usr/lib/nagios/plugins/check_disk, -w, "${warn}", -c, "${crit}", -p, "${path}"]
"#;

fn check(manifest: &Manifest) -> &v1::Check {
    match &manifest.document.spec {
        Some(Spec::Check(check)) => check,
        _ => panic!("{manifest:?}"),
    }
}

fn read(text: &str) -> Vec<Manifest> {
    parse("test.yaml", text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"))
}

/// The errors of a text as lines.
fn errors(text: &str) -> Vec<String> {
    parse("f", text)
        .expect_err(text)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The errors of a check with this spec; line 1 is the first line of the spec.
fn spec_errors(spec: &str) -> Vec<String> {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: x }}\nspec:\n{spec}");
    errors(&text)
        .iter()
        .map(|error| {
            let mut parts = error.splitn(4, ':');
            let line: usize = parts.nth(1).unwrap().parse().unwrap();
            format!("{}:{}", line.saturating_sub(4), parts.nth(1).unwrap())
        })
        .collect()
}

#[test]
fn a_manifest_becomes_a_policy_that_knows_its_lines() {
    let manifests = read(DISK_ROOT);
    let [manifest] = manifests.as_slice() else {
        panic!("{manifests:?}")
    };
    assert_eq!((manifest.source.as_str(), manifest.line), ("test.yaml", 1));
    let metadata = manifest.document.metadata.as_ref().unwrap();
    assert_eq!(
        (manifest.document.kind.as_str(), metadata.name.as_str()),
        ("Check", "disk-root")
    );
    assert_eq!(metadata.labels["team"], "base");
    let check = check(manifest);
    assert_eq!(check.selector, "env=prod");
    let schedule = check.schedule.unwrap();
    assert_eq!(
        schedule.retry_interval.as_ref().and_then(duration::from_proto),
        Some(Duration::from_secs(15))
    );
    assert_eq!((schedule.attempts, check.parameters["path"].as_str()), (3, "/"));
    assert_eq!(check.run.as_ref().unwrap().command.len(), 7);

    assert_eq!(manifest.place("check.selector"), Place { line: 6, column: 13 });
    assert_eq!(manifest.place("check.schedule.retryInterval").line, 7);
    assert_eq!(manifest.place("check.run.command[2]"), Place { line: 11, column: 55 });
    assert_eq!(
        manifest.place("check.run.disk.path").line,
        11,
        "what is not there is where it would stand"
    );
    assert_eq!(manifest.place("metadata.name").line, 3);
    assert_eq!(manifest.place("nonsense").line, 1);
}

#[test]
fn a_file_holds_several_documents_and_reads_as_json_too() {
    let json = r#"{"apiVersion": "muster/v1", "kind": "Check", "metadata": {"name": "b"},
        "spec": {"selector": "*", "timeout": "1.5s", "run": {"load": {"warning": "4", "perCpu": true}}}}"#;
    let manifests = read(&format!("---\n{DISK_ROOT}---\n# nothing\n---\n{json}\n"));
    assert_eq!(manifests.len(), 2);
    let run = check(&manifests[1]).run.as_ref().unwrap();
    assert!(run.load.as_ref().unwrap().per_cpu);
    assert_eq!(manifests[1].line, 16);
    assert_eq!(read("# nothing\n"), []);
}

#[test]
fn the_example_policies_are_good() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let manifests = parse(&path.to_string_lossy(), &text);
        let manifests = manifests.unwrap_or_else(|errors| panic!("{errors:#?}"));
        assert!(!manifests.is_empty(), "{} holds no policy", path.display());
        count += manifests.len();
    }
    assert!(count >= 5, "{count}");
}

#[test]
fn what_is_shown_reads_back_as_the_same_policy() {
    let mut policy = to_policy(read(DISK_ROOT).remove(0).document).unwrap();
    let metadata = policy.metadata.as_mut().unwrap();
    metadata.version = 1_795_216_811_000_000;
    metadata.revision = 42;
    metadata.scope = "env=prod".to_owned();
    metadata.create_time = Some(prost_types::Timestamp {
        seconds: 1_795_216_811,
        nanos: 0,
    });
    policy.counts = Some(v1::PolicyCounts {
        assigned: 3,
        applied: 2,
        refused: 0,
    });

    let shown = render_policy(&policy);
    assert_eq!(shown["metadata"]["version"], "1795216811000000");
    assert_eq!(shown["metadata"]["createTime"], "2026-11-20T23:20:11Z");
    assert_eq!(shown["status"], json!({"assigned": 3, "applied": 2, "refused": 0}));
    assert_eq!(shown["spec"]["schedule"]["retryInterval"], "15s");

    let back = read(&shown.to_string());
    assert_eq!(check(&back[0]), check(&read(DISK_ROOT)[0]));
    assert_eq!(
        back[0].document.metadata.as_ref().unwrap().version,
        0,
        "what the controller says is not sent back"
    );

    assert_eq!(
        back[0].document.metadata.as_ref().unwrap().scope,
        "env=prod",
        "what it belongs to is"
    );

    let list = json!({"items": [shown], "revision": "7"});
    assert_eq!(check(&read(&list.to_string())[0]).selector, "env=prod");
}

#[test]
fn a_scope_that_is_no_selector_is_told_with_its_place() {
    let text = |scope: &str| {
        format!(
            "apiVersion: muster/v1\nkind: Check\nmetadata:\n  name: x\n  scope: {scope}\nspec:\n  selector: \"*\"\n  run: {{disk: {{}}}}\n"
        )
    };
    let [error] = <[String; 1]>::try_from(errors(&text("env="))).unwrap();
    assert!(error.starts_with("f:5:10: scope: "), "{error}");
    for nothing in ["", "\"\"", "null"] {
        let metadata = read(&text(nothing)).remove(0).document.metadata.unwrap();
        assert_eq!(metadata.scope, "", "{nothing:?}");
    }
}

#[test]
fn a_misspelt_field_is_told_with_its_place_and_what_was_meant() {
    let table = [
        (
            "selctor: \"*\"\nrun: {disk: {}}",
            "1:3: unknown field `selctor`; did you mean `selector`?",
        ),
        (
            "selector: \"*\"\nschedule:\n  retry_interval: 5s\nrun: {disk: {}}",
            "3:5: unknown field `retry_interval`; did you mean `retryInterval`?",
        ),
        (
            "selector: \"*\"\ninterval: 5s\nrun: {disk: {}}",
            "2:3: unknown field `interval` at this level; did you mean `schedule.interval`?",
        ),
        (
            "selector: \"*\"\ncommand: [/bin/true]",
            "2:3: unknown field `command` at this level; did you mean `run.command`?",
        ),
        (
            "selector: \"*\"\nrun:\n  dsk: {}",
            "3:5: unknown field `dsk`; did you mean `disk`?",
        ),
        (
            "selector: \"*\"\nrun: {disk: {}}\nowner: me",
            "3:3: unknown field `owner`; the fields are description, selector, schedule, timeout, parameters, run",
        ),
    ];
    for (spec, expected) in table {
        let text: String = spec.lines().map(|line| format!("  {line}\n")).collect();
        let text = format!("apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: x }}\nspec:\n{text}");
        let (line, rest) = expected.split_once(':').unwrap();
        let line: usize = line.parse().unwrap();
        assert_eq!(errors(&text), [format!("f:{}:{rest}", line + 4)], "{spec}");
    }
}

#[test]
fn all_errors_are_told_at_once_and_in_order() {
    let told = errors(
        "apiVersion: muster/v2\nkind: Check\nmetadata: { name: Disk Root }\nspec:\n  selector: env=\n  timeout: 2h\n  run: { disk: { warning: 20 } }\n---\nkind: check\n",
    );
    let lines: Vec<&str> = told.iter().map(|error| error.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["1", "3", "5", "6", "7", "9", "9", "9"], "{told:#?}");
    assert!(told[0].contains("expected apiVersion `muster/v1`"), "{told:#?}");
    assert!(told[1].contains("did you mean `disk-root`?"), "{told:#?}");
    assert!(told[2].contains("expected a value"), "{told:#?}");
}

#[test]
fn a_value_of_the_wrong_type_says_what_was_expected() {
    let base = "selector: \"*\"\nrun: {disk: {}}\n";
    let table = [
        (
            "schedule: 60s",
            "expected a map with interval, retryInterval, attempts, found the text \"60s\"",
        ),
        ("schedule: {interval: 60}", "did you mean `60s`?"),
        ("schedule: {interval: 5min}", "did you mean the unit `m`?"),
        (
            "schedule: {attempts: three}",
            "expected a whole number, found the text \"three\"",
        ),
        (
            "schedule: {attempts: 3.5}",
            "expected a whole number, found the number 3.5",
        ),
        ("schedule: {attempts: 010}", "some read as octal"),
        (
            "schedule: {attempts: -1}",
            "expected a whole number of 0 to 4294967295, found -1",
        ),
        (
            "schedule: {attempts: 99999999999999999999}",
            "expected a whole number of 0",
        ),
        ("schedule: {attempts: 101}", "expected 1 to 100, found 101"),
        ("timeout: [1]", "expected a duration like `90s`"),
        ("timeout: 1d", "found 1d"),
        ("parameters: [a]", "expected a map like `{ name: value }`, found a list"),
        ("parameters: {v: 1.10}", "write \"1.10\" in quotes"),
        ("parameters: {v: 010}", "write \"010\" in quotes"),
        ("parameters: {v: 0x1F}", "write \"0x1F\" in quotes"),
        ("parameters: {v: true}", "write \"true\" in quotes"),
        ("parameters: {v: ~}", "expected text, found nothing"),
        ("parameters: {v: [1]}", "expected text, found a list"),
        ("description: [a]", "description: expected text, found a list"),
    ];
    for (line, expected) in table {
        let told = spec_errors(&format!("{base}{line}"));
        assert_eq!(told.len(), 1, "{line}: {told:#?}");
        assert!(
            told[0].contains(expected) && told[0].starts_with("3:"),
            "{line}: {told:#?}"
        );
    }
    for (run, expected) in [
        (
            "command: /bin/true",
            "run.command: expected a list, found the text \"/bin/true\"; write it in brackets",
        ),
        (
            "command: [/bin/x, 1.10]",
            "run.command[1]: expected text, found the number 1.10",
        ),
        (
            "http: {url: \"http://x\", insecure: no}",
            "expected `true` or `false`, found the text \"no\"; did you mean `false`?",
        ),
        (
            "http: {url: \"http://x\", insecure: 1}",
            "expected `true` or `false`, found the number 1",
        ),
        ("load: {warning: \"5\", perCpu: yes}", "did you mean `true`?"),
        ("disk: /", "expected a map with path, warning"),
    ] {
        let told = spec_errors(&format!("selector: \"*\"\nrun: {{{run}}}"));
        assert_eq!(told.len(), 1, "{run}: {told:#?}");
        assert!(told[0].contains(expected), "{run}: {told:#?}");
    }
}

#[test]
fn of_fields_that_exclude_each_other_the_second_is_told() {
    let grant = |spec: &str| format!("apiVersion: muster/v1\nkind: Grant\nspec:\n  role: viewer\n{spec}");
    let told = errors(&grant("  user: mira\n  apiKey: 5f1e0c7b8d213a4b\n"));
    assert_eq!(told, ["f:6:3: apiKey: only one of it and user may be there"]);
    assert_eq!(
        read(&grant("  user: mira\n  apiKey:\n")).len(),
        1,
        "what is empty is not there"
    );
}

#[test]
fn integers_are_taken_as_text_where_text_is_expected() {
    let manifests = read(&DISK_ROOT.replace("warn: \"20%\"", "warn: 20, low: -5, none: no, zero: 0"));
    let parameters = &check(&manifests[0]).parameters;
    assert_eq!(
        [
            &parameters["warn"],
            &parameters["low"],
            &parameters["none"],
            &parameters["zero"]
        ],
        ["20", "-5", "no", "0"]
    );
}

#[test]
fn the_rules_of_a_check_are_told_at_the_line_that_breaks_them() {
    let told = spec_errors(
        "selector: \"env=prod,\"\nparameters: {warn: 20%}\nrun:\n  command:\n    - check_disk\n    - \"${wran}\"",
    );
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[0].starts_with("1:") && told[0].contains("selector: expected another term after `,`"),
        "{told:#?}"
    );
    assert!(
        told[1].starts_with("6:") && told[1].contains("did you mean `${warn}`?"),
        "{told:#?}"
    );

    let told = spec_errors("run: {}");
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[0].contains("selector: it is required") || told[1].contains("selector: it is required"),
        "{told:#?}"
    );
    assert!(
        told.iter()
            .any(|error| error.contains("run: exactly one of command, disk")),
        "{told:#?}"
    );
}

#[test]
fn what_is_around_the_spec_is_looked_at() {
    let spec = "spec: {selector: \"*\", run: {disk: {}}}\n";
    let head = "apiVersion: muster/v1\nkind: Check\n";
    let table = [
        ("- a\n".to_owned(), "expected a manifest, a map with apiVersion"),
        ("just text\n".to_owned(), "found the text \"just text\""),
        (
            format!("kind: Check\nmetadata: {{name: a}}\n{spec}"),
            "the manifest has no apiVersion; add `apiVersion: muster/v1`",
        ),
        (
            format!("apiversion: muster/v1\nkind: Check\nmetadata: {{name: a}}\n{spec}"),
            "did you mean `apiVersion`?",
        ),
        (
            format!("apiVersion: muster/v1\nmetadata: {{name: a}}\n{spec}"),
            "the manifest has no kind",
        ),
        (
            format!("apiVersion: muster/v1\nkind: Chek\nmetadata: {{name: a}}\n{spec}"),
            "did you mean `Check`?",
        ),
        (format!("{head}{spec}"), "the manifest has no metadata"),
        (format!("{head}metadata: {{}}\n{spec}"), "metadata has no name"),
        (
            format!("{head}metadata: disk\n{spec}"),
            "expected a map like `{ name: disk-root }`",
        ),
        (format!("{head}metadata: {{nmae: a}}\n{spec}"), "did you mean `name`?"),
        (
            format!("{head}metadata: {{name: 1.5}}\n{spec}"),
            "write \"1.5\" in quotes",
        ),
        (
            format!("{head}metadata: {{name: a, labels: {{-x: y}}}}\n{spec}"),
            "invalid label key `-x`",
        ),
        (
            format!("{head}metadata: {{name: a, labels: [x]}}\n{spec}"),
            "expected a map like `{ team: base }`",
        ),
        (format!("{head}metadata: {{name: a}}\n"), "the manifest has no spec"),
        (
            format!("{head}metadata: {{name: a}}\nspecs: {{}}\n"),
            "did you mean `spec`?",
        ),
        ("a: [\n".to_owned(), "f:"),
    ];
    for (text, expected) in table {
        let told = errors(&text);
        assert_eq!(told.len(), 1, "{text}: {told:#?}");
        assert!(told[0].contains(expected), "{text}: {told:#?}");
    }
}

#[test]
fn one_name_stands_for_one_policy_in_a_file() {
    let told = errors(&format!("{DISK_ROOT}---\n{DISK_ROOT}"));
    assert_eq!(told, ["f:15:19: there is a Check `disk-root` in line 1 already"]);
}

#[test]
fn enum_values_are_read_by_short_and_full_name() {
    let read = |text: &str| {
        let node = crate::document::parse(&format!("source: {text}")).unwrap().remove(0);
        let (mut found, mut fields) = (envelope::Found::default(), BTreeMap::new());
        let mut walker = walk::Walker {
            found: &mut found,
            fields: &mut fields,
        };
        let message = walker
            .message(&json::descriptor::<v1::Label>(), &node, "label")
            .unwrap();
        (message.transcode_to::<v1::Label>().unwrap().source(), found)
    };
    for text in ["operator", "OPERATOR", "LABEL_SOURCE_OPERATOR"] {
        assert_eq!(read(text).0, v1::LabelSource::Operator, "{text}");
    }
    assert_eq!(read("oprator").0, v1::LabelSource::Unspecified);
    let (_, found) = read("oprator");
    assert_eq!(found.suggestions(), ["operator"]);
}

#[test]
fn errors_beyond_any_use_are_not_told() {
    let text: String = (0..1_000).map(|n| format!("x{n}: 1\n")).collect();
    assert_eq!(errors(&text).len(), MAX_ERRORS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>(), at in 0..DISK_ROOT.len(), cut in 0..20usize, put in "[ -~\n\t]{0,8}") {
        let _ = parse("f", &text);
        let end = (at + cut).min(DISK_ROOT.len());
        let changed = format!("{}{put}{}", &DISK_ROOT[..at], &DISK_ROOT[end..]);
        if let Err(errors) = parse("f", &changed) {
            prop_assert!(!errors.is_empty());
            let lines = changed.lines().count() + 1;
            for error in errors {
                prop_assert!((1..=lines).contains(&error.line), "{error}");
            }
        }
    }
}

/// With these as further lines.
fn token_template(spec: &str) -> String {
    format!("apiVersion: muster/v1\nkind: TokenTemplate\nmetadata: {{ name: web, scope: env=prod }}\nspec:\n{spec}")
}

#[test]
fn a_template_of_tokens_is_read_and_shown_as_it_is_written() {
    let text = token_template(
        "  ttl: 1h30m\n  uses: 10\n  labels: { env: prod }\n  source: 10.1.0.0/16\n  allowReenroll: true\n  onClone: fork\n",
    );
    let document = read(&text).remove(0).document;
    let Some(Spec::TokenTemplate(spec)) = &document.spec else {
        panic!("{document:?}")
    };
    assert_eq!(spec.ttl, Some(duration::to_proto(Duration::from_secs(5_400))));
    assert_eq!((spec.uses, spec.on_clone()), (10, v1::OnClone::Fork));
    assert_eq!(document.metadata.as_ref().unwrap().scope, "env=prod");
    let shown = render(&document);
    assert_eq!(shown["kind"], TOKEN_TEMPLATE);
    assert_eq!(read(&shown.to_string()).remove(0).document, document);
}

#[test]
fn what_no_token_can_be_is_shown_with_its_line() {
    let found = errors(&token_template(
        "  ttl: 5s\n  uses: -1\n  labels:\n    env: prod\n    fact.os: x\n  source: 10.1.0.0/40\n",
    ));
    let places: Vec<&str> = found.iter().map(|error| &error[..error.find(": ").unwrap()]).collect();
    assert_eq!(places, ["f:5:8", "f:6:9", "f:9:14", "f:10:11"], "{found:#?}");
    let found = errors(&token_template("  secret: x\n"));
    assert!(found[0].contains("unknown field `secret`"), "{found:#?}");
}

#[test]
fn every_kind_has_labels_and_those_without_a_scope_have_none() {
    for (kind, spec) in [
        (ROLE, "{ permissions: [agents.read] }"),
        (GRANT, "{ user: mira, role: on-call }"),
        (TOKEN_TEMPLATE, "{}"),
    ] {
        let text = |more: &str| {
            format!("apiVersion: muster/v1\nkind: {kind}\nmetadata: {{ name: x, {more} }}\nspec: {spec}\n")
        };
        let document = read(&text("labels: { team: base }")).remove(0).document;
        assert_eq!(document.metadata.unwrap().labels["team"], "base", "{kind}");
        let wrong = errors(&text("labels: { 'a b': base }"));
        assert!(wrong[0].starts_with("f:3:"), "{wrong:#?}");
        let scoped = parse("f", &text("scope: env=dev"));
        assert_eq!(scoped.is_ok(), kind == TOKEN_TEMPLATE, "{kind}");
    }
}
