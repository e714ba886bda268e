use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Config {
    Config::parse("agent.yaml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn errors(text: &str) -> Vec<String> {
    match Config::parse("agent.yaml", text) {
        Err(Error::Invalid(findings)) => findings.iter().map(Finding::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn warnings(text: &str) -> Vec<String> {
    parse(text).warnings.iter().map(Finding::to_string).collect()
}

#[test]
fn the_example_file_parses_without_a_warning_and_gives_the_defaults_it_speaks_of() {
    let config = parse(include_str!("../../../deploy/config/agent.yaml"));
    assert_eq!(config.warnings, []);
    let default = Config::default();
    assert_eq!(config.checks, default.checks);
    assert_eq!(config.queue, default.queue);
    assert_eq!(config.logging, default.logging);
    assert_eq!(config.allow, default.allow);
    assert_eq!(config.agent.id_file, default.agent.id_file);
    assert_eq!(config.agent.state_dir, default.agent.state_dir);
    assert_eq!(config.agent.name, default.agent.name);
    assert_eq!(config.server.token_file, default.server.token_file);
    assert_eq!(config.server.ca_cert, default.server.ca_cert);
    assert_eq!(config.server.srv, default.server.srv);
    assert_eq!(config.server.proxying, default.server.proxying);
    assert_eq!(config.server.fail_back, default.server.fail_back);
    assert_eq!(config.server.endpoints[0].to_string(), "controller.example.com:8443");
    assert_eq!(config.agent.labels["datacenter"], "dc1");
}

#[test]
fn an_empty_file_and_empty_sections_are_the_defaults() {
    for text in ["", "# nothing\n", "server:\nallow:\n"] {
        let config = parse(text);
        assert!(config.server.endpoints.is_empty() && config.allow.checks, "{text:?}");
    }
}

#[test]
fn every_key_is_read() {
    let config = parse(
        "server:  { endpoints: [\"a:1\", \"[::1]:2\"], ca_cert: /ca.pem, token_file: \"\", fail_back: 2m,\n\
         \x20          srv: _muster._tcp.lan, proxy: \"http://p:3128\", proxy_credentials_file: /p, no_proxy: [lan, \"10.0.0.0/8\"] }\n\
         agent:   { id_file: /id, state_dir: /state, name: db-01, labels: { env: prod } }\n\
         checks:  { default_timeout: 1m30s, max_concurrent: 3 }\n\
         queue:   { results: 2MiB, metrics: 3MiB, logs: 4MiB, max_age: 1h, sync: second }\n\
         logs:    { agent: off }\n\
         logging: { level: debug, format: json }\n\
         allow:   { checks: false, endpoints: false }\n",
    );
    assert_eq!(
        config.queue,
        Queue {
            results: 2 << 20,
            metrics: 3 << 20,
            logs: 4 << 20,
            max_age: Duration::from_secs(3600),
            sync: Sync::Second,
        }
    );
    assert_eq!(config.logs.agent, tracing::level_filters::LevelFilter::OFF);
    assert_eq!(config.server.endpoints.len(), 2);
    assert_eq!(config.server.fail_back, Duration::from_secs(120));
    assert_eq!(config.server.srv.unwrap().as_str(), "_muster._tcp.lan");
    let proxying = &config.server.proxying;
    assert_eq!(proxying.proxy.as_ref().unwrap().to_string(), "http://p:3128");
    assert_eq!(proxying.credentials_file, Some("/p".into()));
    assert_eq!(proxying.no_proxy.len(), 2);
    assert_eq!(config.server.ca_cert, Some("/ca.pem".into()));
    assert_eq!(config.server.token_file, None);
    assert_eq!(
        (config.agent.id_file, config.agent.state_dir),
        ("/id".into(), "/state".into())
    );
    assert_eq!((&*config.agent.name, &*config.agent.labels["env"]), ("db-01", "prod"));
    assert_eq!(
        config.checks,
        Checks {
            default_timeout: Duration::from_secs(90),
            max_concurrent: 3
        }
    );
    assert_eq!(
        config.logging,
        Logging {
            level: tracing::Level::DEBUG,
            format: Format::Json
        }
    );
    assert!(!config.allow.checks && !config.allow.endpoints);
}

#[test]
fn an_unknown_key_is_a_warning_with_its_line_and_a_suggestion() {
    assert_eq!(
        warnings("server:\n  endpoint: [\"a:1\"]\nlog: {}\n"),
        [
            "agent.yaml:2: unknown key \"endpoint\" in \"server\"; did you mean \"endpoints\"?",
            "agent.yaml:3: unknown key \"log\"; did you mean \"logs\"?",
        ]
    );
}

#[test]
fn an_unknown_key_under_allow_is_an_error() {
    assert_eq!(
        errors("allow:\n  check: false\n"),
        ["agent.yaml:2: unknown key \"check\" in \"allow\"; did you mean \"checks\"?"]
    );
}

#[test]
fn a_wrong_value_is_an_error_with_its_line_and_what_was_expected() {
    for (text, error) in [
        (
            "checks: { default_timeout: 30 }",
            "checks.default_timeout: expected a time from 1 s to 3600 s with its unit, as 30s or 1m30s, found the number 30",
        ),
        (
            "checks: { default_timeout: 2h }",
            "checks.default_timeout: expected a time from 1 s to 3600 s with its unit, as 30s or 1m30s, found the text \"2h\"",
        ),
        (
            "checks: { max_concurrent: 0 }",
            "checks.max_concurrent: expected a number from 1 to 1000, found the number 0",
        ),
        (
            "logging: { level: loud }",
            "logging.level: expected one of error, warn, info, debug, trace, found the text \"loud\"",
        ),
        (
            "allow: { checks: \"no\" }",
            "allow.checks: expected true or false, found the text \"no\"",
        ),
        (
            "agent: { state_dir: state }",
            "agent.state_dir: expected an absolute path, found the text \"state\"",
        ),
        (
            "agent: { id_file: \"\" }",
            "agent.id_file: expected an absolute path, found the text \"\"",
        ),
        (
            "server: []",
            "server: expected keys with values (key: value), found a list",
        ),
        (
            "server: { endpoints: \"a:1\" }",
            "server.endpoints: expected a list of texts ([\"...\", \"...\"]), found the text \"a:1\"",
        ),
    ] {
        assert_eq!(
            errors(&format!("# first line\n{text}\n")),
            [format!("agent.yaml:2: {error}")],
            "{text}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_order_of_lines() {
    let told = errors("logging: { level: 1 }\nserfer: {}\nserver: { ca_pin: [\"sha256:12\"] }\n");
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("agent.yaml:1: logging.level"), "{told:?}");
    assert!(told[1].starts_with("agent.yaml:2: unknown key"), "{told:?}");
    assert!(
        told[2].starts_with("agent.yaml:3: server.ca_pin: \"sha256:12\":"),
        "{told:?}"
    );
}

#[test]
fn a_label_that_no_selector_could_match_is_an_error() {
    assert_eq!(errors("agent:\n  labels: { \"a b\": x }\n").len(), 1);
    assert_eq!(errors("agent:\n  labels: { build: 7 }\n").len(), 1);
}

#[test]
fn a_second_document_and_broken_yaml_are_errors() {
    assert_eq!(errors("agent: {}\n---\nagent: {}\n").len(), 1);
    assert_eq!(errors("agent: {\n").len(), 1);
}

#[test]
fn a_missing_file_is_told_from_one_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Config::load(&dir.path().join("agent.yaml")).unwrap_err().is_missing());
    assert!(!Config::load(dir.path()).unwrap_err().is_missing());
}

#[test]
fn a_file_that_is_too_large_is_not_parsed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.yaml");
    fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert!(matches!(Config::load(&path), Err(Error::TooLarge { .. })));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(server|agent|allow|checks|[a-z]{1,5}|[:{}\\[\\],\"\\n #&*-]|[0-9]){0,60}") {
        let _ = Config::parse("agent.yaml", &text);
    }
}

#[test]
fn a_password_in_the_url_of_a_proxy_is_refused_and_not_repeated() {
    let told = errors("server:\n  proxy: http://me:secret@proxy.example:3128\n");
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("agent.yaml:2: server.proxy: ") && told[0].contains("proxy_credentials_file"));
    assert!(!told[0].contains("secret"), "{told:?}");
}
