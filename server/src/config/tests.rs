use super::*;

const MINIMAL: &str = "name: controller1\ntrust_domain: example.muster\ndata_dir: /var/lib/muster\n";

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse("server.yaml", text)
}

fn mistakes(text: &str) -> Vec<String> {
    match parse(text) {
        Err(Error::Invalid(mistakes)) => mistakes.iter().map(ToString::to_string).collect(),
        other => panic!("not a list of mistakes: {other:?}"),
    }
}

/// The only mistake when this follows the minimal configuration.
fn mistake(more: &str) -> String {
    match mistakes(&format!("{MINIMAL}{more}")).as_slice() {
        [one] => one.clone(),
        several => panic!("{several:?}"),
    }
}

#[test]
fn three_keys_are_enough() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.agent_listen.to_string(), "0.0.0.0:8443");
    assert_eq!(config.api_listen.to_string(), "127.0.0.1:9443");
    assert_eq!(config.database, Database::Sqlite);
    assert_eq!(config.retention.results.age, Duration::from_secs(30 * 86_400));
}

#[test]
fn every_key_is_taken() {
    let config = parse(
        "name: c1\ntrust_domain: example.muster\ndata_dir: /srv/muster\n\
         agent_listen: \"[::]:18443\"\napi_listen: 192.0.2.1:19443\nadvertise: [muster.example.com:8443]\nagent_proxy_protocol: [10.0.0.0/8, 192.0.2.7]\n\
         database: postgres://muster@db/muster\nlink: { heartbeat: 10s }\n\
         limits: { connections: 5, connections_per_source: 4, handshakes: 3, links_per_second: 50, reads_per_second: 7, changes_per_second: 8, watches_per_second: 9, ingest_bytes: 64MiB, \
         agent_records_per_second: 70, agent_bytes_per_second: 80KiB, agent_new_series_per_minute: 90 }\n\
         retention:\n  results: { age: 1d, bytes: 1GiB }\n  events: { age: 2d, bytes: 2GiB }\n  metrics: { age: 3h, bytes: 3MiB }\n  logs: { age: 4h, bytes: 4MiB }\n  deleted_agents: 30d\n  audit: 31d\n\
         certificates: { agent: 24h, user: 7d, controller: 14d }\n\
         enrollment: { on_clone: fork }\nlogging: { level: debug, format: json }\n\
         api_certificate: { certificate: /srv/api.pem, key: /srv/api-key.pem }\n",
    )
    .unwrap();
    assert_eq!(config.agent_listen.port(), 18443);
    assert_eq!(config.api_listen.to_string(), "192.0.2.1:19443");
    let proxies: Vec<String> = config.agent_proxy_protocol.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.7/32"]);
    assert_eq!(config.advertise, ["muster.example.com:8443"]);
    assert!(matches!(config.source(), store::Source::Postgres(url) if url == "postgres://muster@db/muster"));
    assert_eq!(config.link.heartbeat, Duration::from_secs(10));
    assert_eq!(
        (
            config.agent_limits().max_connections,
            config.api_limits().max_per_source
        ),
        (5, 4)
    );
    assert_eq!(config.agent_limits().max_handshakes, 3);
    assert_eq!(config.limits.links_per_second, 50);
    let calls = config.limits.calls;
    assert_eq!((calls.reads, calls.changes, calls.watches), (7, 8, 9));
    assert_eq!(config.retention.audit, Duration::from_secs(31 * 86_400));
    let ingest = config.limits.ingest;
    assert_eq!(
        (
            ingest.bytes,
            ingest.agent_records_per_second,
            ingest.agent_bytes_per_second,
            ingest.agent_new_series_per_minute
        ),
        (64 << 20, 70, 80 << 10, 90)
    );
    assert_eq!(
        config.retention.metrics,
        Keep {
            age: Duration::from_secs(3 * 3600),
            bytes: 3 << 20
        }
    );
    assert_eq!(
        config.retention.logs,
        Keep {
            age: Duration::from_secs(4 * 3600),
            bytes: 4 << 20
        }
    );
    assert_eq!(config.certificates.user, Duration::from_secs(7 * 86_400));
    assert_eq!(config.enrollment.on_clone, OnClone::Fork);
    let api = config.api_certificate.unwrap();
    assert_eq!(
        (api.certificate, api.key),
        ("/srv/api.pem".into(), "/srv/api-key.pem".into())
    );
    assert_eq!(
        config.logging,
        Logging {
            level: tracing::Level::DEBUG,
            format: LogFormat::Json
        }
    );
}

#[test]
fn a_misspelt_key_is_found_with_its_line_and_the_one_that_was_meant() {
    assert_eq!(
        mistake("retension: {}\n"),
        "server.yaml:4: unknown key `retension`; did you mean `retention`?"
    );
    let nested = mistake("retention:\n  results:\n    agee: 1d\n");
    assert_eq!(
        nested,
        "server.yaml:6: unknown key `retention.results.agee`; did you mean `age`?"
    );
    let far = mistake("link: { colour: red }\n");
    assert_eq!(far, "server.yaml:4: unknown key `link.colour`; known here: heartbeat");
}

#[test]
fn all_mistakes_are_told_at_once_in_order_of_lines() {
    let found = mistakes("nam: x\ntrust_domain: UPPER\ndata_dir: relative\nlogging: { level: loud }\n");
    let lines: Vec<_> = found.iter().map(|m| m.split(": ").next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "server.yaml:1",
            "server.yaml:1",
            "server.yaml:2",
            "server.yaml:3",
            "server.yaml:4"
        ],
        "{found:#?}"
    );
}

#[test]
fn a_value_that_cannot_be_meant_is_refused_with_what_is_expected() {
    for (more, expected) in [
        ("agent_listen: 8443\n", "agent_listen"),
        ("agent_listen: example.com:8443\n", "0.0.0.0:8443"),
        ("advertise: controller.example.com:8443\n", "list"),
        ("advertise: [controller.example.com]\n", "host:port"),
        ("database: mysql://db\n", "postgres://"),
        ("link: { heartbeat: 30 }\n", "unit"),
        ("link: { heartbeat: 10ms }\n", "at least 1s"),
        ("limits: { connections: 0 }\n", "from 1"),
        ("limits: { connections: many }\n", "whole number"),
        ("retention: { events: { bytes: 10 } }\n", "unit"),
        ("retention: { events: { bytes: 1kB } }\n", "at least 1MiB"),
        ("retention: 30d\n", "mapping"),
        ("certificates: { user: 100000d }\n", "at most"),
        (
            "api_certificate: { certificate: /srv/api.pem }\n",
            "`api_certificate.key` is missing",
        ),
        (
            "api_certificate: { certificate: api.pem, key: /srv/k.pem }\n",
            "absolute path",
        ),
        ("enrollment: { on_clone: ignore }\n", "neither `refuse` nor `fork`"),
        ("enrollment: { on_clone: \"\" }\n", "`refuse` or `fork`"),
        ("logging: { format: xml }\n", "text or json"),
        ("database: sqlite\ndatabase_url_file: /nonexistent\n", "/nonexistent"),
    ] {
        let found = mistake(more);
        assert!(found.contains(expected), "{more}: {found}");
    }
}

#[test]
fn a_section_without_keys_keeps_its_defaults() {
    let config = parse(&format!("{MINIMAL}link:\n# heartbeat: 30s\n")).unwrap();
    assert_eq!(config.link.heartbeat, Duration::from_secs(30));
}

#[test]
fn the_password_of_a_database_comes_from_a_file_of_its_own_and_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    muster_certs::file::write_secret(&path, b"postgres://muster:geheim@db/muster\n").unwrap();
    let config = parse(&format!("{MINIMAL}database_url_file: {}\n", path.display())).unwrap();
    assert!(matches!(config.source(), store::Source::Postgres(url) if url == "postgres://muster:geheim@db/muster"));
    assert!(!format!("{config:?}").contains("geheim"));
}

#[test]
fn a_password_in_a_url_is_noticed_wherever_it_stands() {
    let has = |url: &str| DatabaseUrl::parse(url).unwrap().has_password();
    assert!(has("postgres://muster:geheim@db/muster"));
    assert!(has("postgres:///muster?host=/run/postgresql&password=geheim"));
    assert!(!has("postgres://muster@db:5432/muster"));
    assert!(!has("postgres:///muster?host=/run/postgresql"));
}

#[test]
fn what_a_full_disk_means_is_a_part_of_it_or_a_size_and_metrics_go_first() {
    use muster_proto::threshold::Amount;
    let config = parse(&format!(
        "{MINIMAL}disk: {{ refuse_metrics_below: 2GiB, refuse_results_below: 0.5%, ballast: none }}\n"
    ))
    .unwrap();
    assert_eq!(config.disk.limits.metrics, Amount::Bytes(2 << 30));
    assert_eq!(config.disk.limits.results, Amount::Percent(0.5));
    assert_eq!(config.disk.ballast, 0);
    for (wrong, why) in [
        ("disk: { refuse_metrics_below: 95% }", "from 0% to 90%"),
        ("disk: { refuse_metrics_below: 2 }", "must be a text"),
        ("disk: { refuse_results_below: 20% }", "metrics are refused first"),
        ("disk: { ballast: much }", "or `none`"),
        ("disk: { balast: 1MiB }", "did you mean `ballast`"),
    ] {
        let text = mistake(wrong);
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn what_is_rendered_is_what_is_read_back() {
    let mut config = Config::new("c1", "example.muster".parse().unwrap(), "/srv/odd \"name\"".into());
    config.advertise = vec!["muster.example.com:8443".to_owned()];
    let read = parse(&render(&config, None)).unwrap();
    assert_eq!(format!("{read:?}"), format!("{config:?}"));
}

#[test]
fn the_defaults_that_the_rendered_file_shows_are_the_defaults() {
    let config = Config::new("c1", "example.muster".parse().unwrap(), "/srv/muster".into());
    let text = render(&config, None);
    // What looks like configuration behind a `#` is made configuration.
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let uncommented = uncommented.replace("database_url_file: /etc/muster/database-url\n", "");
    let mut read = parse(&uncommented).unwrap_or_else(|error| panic!("{error}\n{uncommented}"));
    assert_eq!(
        std::mem::take(&mut read.advertise),
        ["controller.example.com:8443"],
        "the example is shown"
    );
    let example = read.api_certificate.take().expect("the example is shown");
    assert_eq!(example.certificate, PathBuf::from("/etc/muster/api.pem"));
    assert_eq!(format!("{read:?}"), format!("{config:?}"));
    for key in [
        "heartbeat",
        "connections_per_source",
        "handshakes",
        "metrics",
        "controller: 30d",
        "format",
    ] {
        assert!(uncommented.contains(key));
    }
}

#[test]
fn the_file_in_the_packages_has_every_key_with_its_default() {
    let text = include_str!("../../../deploy/config/server.yaml");
    let mut read = Config::parse("deploy/config/server.yaml", text).unwrap();
    assert_eq!(
        std::mem::take(&mut read.advertise),
        ["controller.example.com:8443"],
        "the example is shown"
    );
    let config = Config::new(
        "controller1",
        "example.muster".parse().unwrap(),
        "/var/lib/muster".into(),
    );
    assert_eq!(format!("{read:?}"), format!("{config:?}"));
    // What `init` writes names every key, in comments or not.
    for line in render(&config, None).lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if is_setting(line) {
            let key = line.split(':').next().unwrap();
            assert!(text.contains(&format!("{key}:")), "{key} is missing");
        }
    }
}

fn is_setting(line: &str) -> bool {
    let Some((key, _)) = line.trim_start().split_once(':') else {
        return false;
    };
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

#[test]
fn what_agents_are_told_to_connect_to_is_an_address_that_can_be_reached() {
    let mut config = parse(MINIMAL).unwrap();
    assert_eq!(config.endpoints("127.0.0.1:4711".parse().unwrap()), ["127.0.0.1:4711"]);
    let [by_name] = config.endpoints("0.0.0.0:4711".parse().unwrap()).try_into().unwrap();
    assert!(
        by_name.ends_with(":4711") && !by_name.starts_with("0.0.0.0"),
        "{by_name}"
    );
    config.advertise = vec!["muster.example.com:8443".to_owned()];
    assert_eq!(
        config.endpoints("127.0.0.1:4711".parse().unwrap()),
        ["muster.example.com:8443"]
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/server.yaml")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/server.yaml"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z_:{}\\[\\]#\\n \"0-9-]{0,200}") {
        let _ = parse(&text);
    }
}
