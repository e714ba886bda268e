//! What is printed, and that nothing of what people wrote gets out of its comment.

use std::collections::BTreeMap;

use muster_proto::document::{self, Node, Value};
use proptest::prelude::*;

use super::*;

const SECRET: &str = "mst_0123456789abcdef_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ID: &str = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
const FORMATS: [Format; 5] = [
    Format::Raw,
    Format::Env,
    Format::CloudInit,
    Format::Shell,
    Format::Terraform,
];

fn response(description: &str, labels: &[(&str, &str)]) -> v1::CreateTokenResponse {
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    v1::CreateTokenResponse {
        token: Some(v1::Token {
            id: "0123456789abcdef".to_owned(),
            uses: 1,
            agent_id: ID.to_owned(),
            description: description.to_owned(),
            labels: labels.collect::<BTreeMap<_, _>>(),
            expire_time: Some(prost_types::Timestamp {
                seconds: 1_795_003_600,
                nanos: 0,
            }),
            ..Default::default()
        }),
        secret: SECRET.to_owned(),
        ca_pins: vec![format!("sha256:{}", "ab".repeat(32))],
        endpoints: vec![
            "controller.example.com:8443".to_owned(),
            "[2001:db8::1]:8443".to_owned(),
        ],
    }
}

fn options(format: Format, install: Option<&str>) -> Options {
    let install: Option<Source> = install.map(|text| text.parse().unwrap());
    let sha256 = matches!(install, Some(Source::Url(_))).then(|| "CD".repeat(32).parse().unwrap());
    Options {
        format: Some(format),
        install,
        sha256,
        endpoints: Vec::new(),
    }
}

fn rendered(format: Format, install: Option<&str>, response: &v1::CreateTokenResponse) -> String {
    let bootstrap = options(format, install).checked().unwrap().unwrap();
    bootstrap.render(response).unwrap()
}

fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
}

fn text(node: &Node) -> &str {
    match &node.value {
        Value::String(text) => text,
        other => panic!("{other:?} is no text"),
    }
}

/// Path and content of each file of user data.
fn files(user_data: &str) -> BTreeMap<String, (String, String)> {
    let documents = document::parse(user_data).unwrap();
    let Value::Seq(files) = &field(&documents[0], "write_files").unwrap().value else {
        panic!("write_files is no list")
    };
    let part = |file: &Node, name: &str| text(field(file, name).unwrap()).to_owned();
    let file = |file| (part(file, "path"), (part(file, "permissions"), part(file, "content")));
    files.iter().map(file).collect()
}

#[test]
fn the_raw_format_is_the_token_alone() {
    assert_eq!(rendered(Format::Raw, None, &response("", &[])), format!("{SECRET}\n"));
}

#[test]
fn the_lines_of_the_environment() {
    insta::assert_snapshot!(rendered(Format::Env, None, &response("", &[])));
}

#[test]
fn user_data_for_cloud_init() {
    insta::assert_snapshot!(rendered(
        Format::CloudInit,
        None,
        &response("web servers", &[("env", "prod")])
    ));
}

#[test]
fn a_script_that_installs_from_a_url() {
    let url = Some("https://files.example.com/muster-agent");
    insta::assert_snapshot!(rendered(Format::Shell, url, &response("", &[])));
}

#[test]
fn a_terraform_file() {
    insta::assert_snapshot!(rendered(Format::Terraform, Some("apt"), &response("", &[])));
}

#[test]
fn the_token_and_the_id_are_in_files_of_their_own_with_the_modes_that_the_agent_wants() {
    let files = files(&rendered(Format::CloudInit, None, &response("", &[])));
    let file = |path: &str| {
        files
            .get(path)
            .unwrap_or_else(|| panic!("no {path} in {files:?}"))
            .clone()
    };
    assert_eq!(file(files::TOKEN), ("0600".to_owned(), format!("{SECRET}\n")));
    assert_eq!(file(files::AGENT_ID), ("0644".to_owned(), format!("{ID}\n")));
    assert!(file(files::CONFIG).1.contains("[2001:db8::1]:8443"));
}

#[test]
fn the_last_command_waits_until_the_machine_is_enrolled() {
    for install in [None, Some("apt"), Some("https://files.example.com/a")] {
        let text = rendered(Format::CloudInit, install, &response("", &[]));
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            r#"  - ["muster-agent", "wait", "--for=enrolled", "--timeout", "5m"]"#
        );
        let text = rendered(Format::Shell, install, &response("", &[]));
        assert_eq!(
            text.lines().last(),
            Some("muster-agent wait --for=enrolled --timeout 5m")
        );
    }
}

#[test]
fn the_token_is_no_word_of_a_command() {
    for (format, install) in FORMATS
        .into_iter()
        .zip([None, None, Some("apt"), Some("apt"), Some("apt")])
    {
        let text = rendered(format, install, &response("", &[]));
        assert_eq!(text.matches("mst_0123").count(), 1, "{text}");
        let line = text.lines().find(|line| line.contains("mst_0123")).unwrap();
        let alone = [
            SECRET.to_owned(),
            format!("MUSTER_TOKEN={SECRET}"),
            format!("    content: \"{SECRET}\\n\""),
            format!("  default     = \"{SECRET}\""),
        ];
        assert!(alone.iter().any(|alone| alone == line), "{line}");
    }
}

#[test]
fn everything_fits_into_the_user_data_of_every_cloud() {
    let long = "x".repeat(4000);
    let url = format!("https://files.example.com/{}", "a".repeat(900));
    for format in [Format::CloudInit, Format::Shell, Format::Terraform] {
        let text = rendered(format, Some(&url), &response(&long, &[("key", &long)]));
        assert!(text.len() < MAX_BYTES / 2, "{format:?} has {} bytes", text.len());
    }
}

#[test]
fn what_is_given_instead_of_the_advertised_endpoints_is_used() {
    let mut options = options(Format::Env, None);
    options.endpoints = vec!["10.0.0.1:443".parse().unwrap()];
    let text = options.checked().unwrap().unwrap().render(&response("", &[])).unwrap();
    assert!(text.contains("MUSTER_SERVER=10.0.0.1:443\n"), "{text}");
}

#[test]
fn options_that_do_not_fit_are_refused_before_a_token_is_made() {
    let url: Source = "https://files.example.com/a".parse().unwrap();
    let sha256: Sha256 = "ab".repeat(32).parse().unwrap();
    for (format, install, sha256) in [
        (Format::CloudInit, Some(url), None),
        (Format::CloudInit, Some(Source::Apt), Some(sha256.clone())),
        (Format::CloudInit, None, Some(sha256)),
        (Format::Env, Some(Source::Apt), None),
    ] {
        let options = Options {
            format: Some(format),
            install,
            sha256,
            endpoints: Vec::new(),
        };
        assert_eq!(options.clone().checked().unwrap_err().exit, Exit::Usage, "{options:?}");
    }
}

#[test]
fn an_answer_that_is_no_token_is_not_put_into_a_file() {
    let bootstrap = options(Format::Shell, None).checked().unwrap().unwrap();
    let change: [fn(&mut v1::CreateTokenResponse); 4] = [
        |response| response.secret = "mst_'; reboot; '".to_owned(),
        |response| response.ca_pins = vec!["sha256:\nMUSTER_END\n".to_owned()],
        |response| response.endpoints = vec!["a\"b:1".to_owned()],
        |response| response.token.as_mut().unwrap().agent_id = "$(reboot)".to_owned(),
    ];
    for change in change {
        let mut response = response("", &[]);
        change(&mut response);
        let problem = bootstrap.render(&response).unwrap_err();
        assert_eq!(problem.exit, Exit::Failure, "{problem:?}");
        assert!(!format!("{problem:?}").contains("reboot"), "{problem:?}");
    }
}

/// Mostly what has a meaning for YAML, sh or HCL.
fn wild() -> impl Strategy<Value = String> {
    let bad = prop::sample::select(vec![
        "'",
        "\"",
        "$",
        "${",
        "%{",
        "`",
        "$(reboot)",
        "\n",
        "\r",
        "\u{85}",
        "\u{2028}",
        "\u{2029}",
        "\\",
        "\0",
        "#",
        ": ",
        "- ",
        "MUSTER_END\n",
        "EOT\n",
        "\nruncmd:\n",
        "&a",
        "*a",
        "!!",
        "|",
        ">",
        "\u{feff}",
        "\u{1b}[2J",
        "<token>",
        "é",
    ]);
    prop::collection::vec(prop_oneof![bad.prop_map(str::to_owned), any::<String>()], 0..12)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn what_people_wrote_changes_one_comment_and_nothing_else(description in wild(), key in wild(), value in wild()) {
        for format in FORMATS {
            let plain = rendered(format, None, &response("", &[]));
            let with = rendered(format, None, &response(&description, &[(&key, &value)]));
            let changed: Vec<(&str, &str)> = plain.split('\n').zip(with.split('\n')).filter(|(a, b)| a != b).collect();
            prop_assert_eq!(plain.split('\n').count(), with.split('\n').count());
            prop_assert!(changed.len() <= 1, "{:?}", changed);
            for (_, line) in changed {
                prop_assert!(line.starts_with("# Muster token 0123456789abcdef"), "{}", line);
                let breaks = |c: char| c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
                prop_assert!(!line.contains(breaks), "{:?}", line);
            }
        }
    }

    #[test]
    fn a_url_that_is_taken_needs_no_quotes(text in prop_oneof![wild(), wild().prop_map(|text| format!("https://{text}"))]) {
        if let Ok(Source::Url(url)) = text.parse::<Source>() {
            let clean = |c: char| c.is_ascii_alphanumeric() || "-._~:/?=&%+@,".contains(c);
            prop_assert!(url.to_string().chars().all(clean), "{}", url);
        }
    }
}
