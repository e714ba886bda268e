//! From the text of `server.yaml` to a `Config`: every key, its bounds and what to say when it is wrong. All mistakes are
//! found in one go, each with its line and, for a misspelt key, the one that was probably meant.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_certs::identity::TrustDomain;
use muster_proto::document::{self, Node, Value};
use muster_proto::duration;
use muster_proto::threshold::Amount;

use crate::agents::OnClone;
use crate::net;

use super::{ApiCertificate, Config, Database, DatabaseUrl, Keep, LogFormat, Mistake, value};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

pub(super) fn parse(file: &str, text: &str) -> Result<Config, Vec<Mistake>> {
    let mistake = |line, message: String| {
        vec![Mistake {
            file: file.to_owned(),
            line,
            message,
        }]
    };
    let documents = document::parse(text).map_err(|error| mistake(error.line, error.message))?;
    let [root] = documents.as_slice() else {
        return Err(match documents.as_slice() {
            [] => mistake(1, "the file is empty; `muster-server init` writes one".to_owned()),
            [_, second, ..] => mistake(
                second.line,
                "a configuration is one document, and here a second begins".to_owned(),
            ),
            [_] => unreachable!("matched above"),
        });
    };
    let reader = Reader {
        file,
        mistakes: RefCell::default(),
    };
    let config = reader.config(root);
    let mut mistakes = reader.mistakes.into_inner();
    mistakes.sort_by_key(|mistake| mistake.line);
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(mistakes),
    }
}

struct Reader<'a> {
    file: &'a str,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'a> Reader<'a> {
    /// `None` when a mistake left no value for something that has no default.
    fn config(&'a self, root: &'a Node) -> Option<Config> {
        let mut top = Section::new(self, "", root)?;
        let name = top.required("name", name);
        let trust_domain = top.required("trust_domain", trust_domain);
        let data_dir = top.required("data_dir", absolute_path);
        let (Some(name), Some(trust_domain), Some(data_dir)) = (name, trust_domain, data_dir) else {
            // The keys that follow are known all the same.
            top.read_rest(&mut Config::new(
                "",
                "placeholder.invalid".parse().ok()?,
                PathBuf::new(),
            ));
            top.finish();
            return None;
        };
        let mut config = Config::new(name, trust_domain, data_dir);
        top.read_rest(&mut config);
        top.finish();
        Some(config)
    }

    fn mistake(&self, line: usize, message: String) {
        self.mistakes.borrow_mut().push(Mistake {
            file: self.file.to_owned(),
            line,
            message,
        });
    }
}

/// One mapping of the file. Keys are taken out of it; what is left in the end is unknown.
struct Section<'a> {
    reader: &'a Reader<'a>,
    /// "" or "retention.results".
    path: String,
    line: usize,
    entries: &'a [(document::Key, Node)],
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    fn new(reader: &'a Reader<'a>, path: &str, node: &'a Node) -> Option<Self> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            // A section of which every key is commented out.
            Value::Null => &[],
            _ => {
                let subject = if path.is_empty() { "the configuration" } else { path };
                reader.mistake(node.line, format!("{subject} must be a mapping of keys to values"));
                return None;
            }
        };
        Some(Self {
            reader,
            path: path.to_owned(),
            line: node.line,
            entries,
            known: Vec::new(),
        })
    }

    fn read_rest(&mut self, config: &mut Config) {
        self.set("agent_listen", &mut config.agent_listen, |node| {
            value::listen_address(text(node)?)
        });
        self.set("api_listen", &mut config.api_listen, |node| {
            value::listen_address(text(node)?)
        });
        self.set("agent_proxy_protocol", &mut config.agent_proxy_protocol, networks);
        self.set("advertise", &mut config.advertise, endpoints);
        let url = self.optional("database", database);
        let file = self.optional("database_url_file", database_url_file);
        match (url, file) {
            (Some(_), Some(_)) => {
                self.reader.mistake(
                    self.line,
                    "`database` and `database_url_file` exclude each other".to_owned(),
                );
            }
            (Some(database), None) | (None, Some(database)) => config.database = database,
            (None, None) => {}
        }
        self.section("link", |link| {
            link.set(
                "heartbeat",
                &mut config.link.heartbeat,
                between(Duration::from_secs(1), 5 * MINUTE),
            );
        });
        self.section("limits", |limits| {
            limits.set("connections", &mut config.limits.connections, count);
            limits.set(
                "connections_per_source",
                &mut config.limits.connections_per_source,
                count,
            );
            limits.set("handshakes", &mut config.limits.handshakes, count);
            limits.set("links_per_second", &mut config.limits.links_per_second, up_to(10_000));
            let calls = &mut config.limits.calls;
            limits.set("reads_per_second", &mut calls.reads, rate);
            limits.set("changes_per_second", &mut calls.changes, rate);
            limits.set("watches_per_second", &mut calls.watches, rate);
            let ingest = &mut config.limits.ingest;
            limits.set("ingest_bytes", &mut ingest.bytes, at_least(16 << 20));
            limits.set(
                "agent_records_per_second",
                &mut ingest.agent_records_per_second,
                |node| up_to(1_000_000)(node).map(|count| count as u64),
            );
            limits.set(
                "agent_bytes_per_second",
                &mut ingest.agent_bytes_per_second,
                at_least(1 << 10),
            );
            limits.set(
                "agent_new_series_per_minute",
                &mut ingest.agent_new_series_per_minute,
                |node| up_to(1_000_000)(node).map(|count| count as u64),
            );
        });
        self.section("disk", |disk| {
            disk.set("refuse_metrics_below", &mut config.disk.limits.metrics, free);
            disk.set("refuse_results_below", &mut config.disk.limits.results, free);
            disk.set("ballast", &mut config.disk.ballast, ballast);
            let is_above = match (config.disk.limits.results, config.disk.limits.metrics) {
                (Amount::Percent(results), Amount::Percent(metrics)) => results > metrics,
                (Amount::Bytes(results), Amount::Bytes(metrics)) => results > metrics,
                // Which is more, depends on the disk.
                _ => false,
            };
            if is_above {
                let text =
                    "disk.refuse_results_below must not be above disk.refuse_metrics_below: metrics are refused first";
                disk.reader.mistake(disk.line, text.to_owned());
            }
        });
        self.section("retention", |retention| {
            retention.keep("results", &mut config.retention.results);
            retention.keep("events", &mut config.retention.events);
            retention.keep("metrics", &mut config.retention.metrics);
            retention.keep("logs", &mut config.retention.logs);
            retention.set(
                "deleted_agents",
                &mut config.retention.deleted_agents,
                between(HOUR, 20 * YEAR),
            );
            retention.set("audit", &mut config.retention.audit, between(DAY, 20 * YEAR));
        });
        self.section("certificates", |certificates| {
            certificates.set(
                "agent",
                &mut config.certificates.agent,
                between(Duration::from_secs(10), 5 * YEAR),
            );
            certificates.set(
                "grace",
                &mut config.certificates.grace,
                between(Duration::ZERO, 5 * YEAR),
            );
            certificates.set("user", &mut config.certificates.user, between(5 * MINUTE, 5 * YEAR));
            certificates.set("controller", &mut config.certificates.controller, between(HOUR, YEAR));
        });
        self.section("enrollment", |enrollment| {
            enrollment.set("on_clone", &mut config.enrollment.on_clone, on_clone);
        });
        self.section("api_certificate", |files| {
            let certificate = files.required("certificate", absolute_path);
            let key = files.required("key", absolute_path);
            if let (Some(certificate), Some(key)) = (certificate, key) {
                config.api_certificate = Some(ApiCertificate { certificate, key });
            }
        });
        self.section("logging", |logging| {
            logging.set("level", &mut config.logging.level, level);
            logging.set("format", &mut config.logging.format, format);
        });
    }

    fn keep(&mut self, key: &'static str, keep: &mut Keep) {
        self.section(key, |section| {
            section.set("age", &mut keep.age, between(MINUTE, 20 * YEAR));
            section.set("bytes", &mut keep.bytes, at_least(1 << 20));
        });
    }

    fn set<T>(&mut self, key: &'static str, target: &mut T, read: impl FnOnce(&Node) -> Result<T, String>) {
        if let Some(value) = self.optional(key, read) {
            *target = value;
        }
    }

    fn required<T>(&mut self, key: &'static str, read: impl FnOnce(&Node) -> Result<T, String>) -> Option<T> {
        if self.find(key).is_none() {
            self.reader
                .mistake(self.line, format!("`{}` is missing", self.full(key)));
        }
        self.optional(key, read)
    }

    fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(&Node) -> Result<T, String>) -> Option<T> {
        self.known.push(key);
        let node = self.find(key)?;
        match read(node) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.reader.mistake(node.line, format!("{}: {problem}", self.full(key)));
                None
            }
        }
    }

    fn section(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'a>)) {
        self.known.push(key);
        let Some(node) = self.find(key) else { return };
        if let Some(mut section) = Section::new(self.reader, &self.full(key), node) {
            read(&mut section);
            section.finish();
        }
    }

    /// Everything that was not asked for is a mistake.
    fn finish(&self) {
        for (key, _) in self
            .entries
            .iter()
            .filter(|(key, _)| !self.known.contains(&key.text.as_str()))
        {
            let hint = match document::suggest(&key.text, self.known.iter().copied()) {
                Some(meant) => format!("; did you mean `{meant}`?"),
                None => format!("; known here: {}", self.known.join(", ")),
            };
            self.reader
                .mistake(key.line, format!("unknown key `{}`{hint}", self.full(&key.text)));
        }
    }

    fn find(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

fn text(node: &Node) -> Result<&str, String> {
    match &node.value {
        Value::String(text) => Ok(text),
        Value::Int(_) => Err("must be a text with a unit or in quotes, not a bare number".to_owned()),
        _ => Err("must be a text".to_owned()),
    }
}

fn on_clone(node: &Node) -> Result<OnClone, String> {
    let text = text(node)?;
    OnClone::parse(text)?.ok_or_else(|| "must be `refuse` or `fork`".to_owned())
}

fn count(node: &Node) -> Result<usize, String> {
    up_to(1_000_000)(node)
}

fn rate(node: &Node) -> Result<u32, String> {
    up_to(1_000_000)(node).map(|count| count as u32)
}

fn up_to(most: usize) -> impl FnOnce(&Node) -> Result<usize, String> {
    move |node| match node.value {
        Value::Int(n) if usize::try_from(n).is_ok_and(|n| (1..=most).contains(&n)) => Ok(n as usize),
        _ => Err(format!("must be a whole number from 1 to {most}")),
    }
}

fn at_least(least: u64) -> impl FnOnce(&Node) -> Result<u64, String> {
    move |node| match value::bytes(text(node)?)? {
        bytes if bytes < least && least >= 1 << 20 => Err(format!("must be at least {}MiB", least >> 20)),
        bytes if bytes < least => Err(format!("must be at least {}KiB", least >> 10)),
        bytes => Ok(bytes),
    }
}

/// What has to be free of a disk.
fn free(node: &Node) -> Result<Amount, String> {
    match text(node)?.parse::<Amount>().map_err(|error| error.to_string())? {
        Amount::Percent(percent) if !(0.0..=90.0).contains(&percent) => Err("must be from 0% to 90%".to_owned()),
        amount => Ok(amount),
    }
}

fn ballast(node: &Node) -> Result<u64, String> {
    match text(node)? {
        "none" => Ok(0),
        size => value::bytes(size).map_err(|problem| format!("{problem}, or `none`")),
    }
}

fn between(least: Duration, most: Duration) -> impl FnOnce(&Node) -> Result<Duration, String> {
    move |node| match duration::parse(text(node)?).map_err(|error| error.to_string())? {
        length if length < least => Err(format!("must be at least {}", duration::format(least))),
        length if length > most => Err(format!("must be at most {}", duration::format(most))),
        length => Ok(length),
    }
}

fn name(node: &Node) -> Result<String, String> {
    let name = text(node)?;
    if muster_proto::ids::name_is_valid(name) {
        Ok(name.to_owned())
    } else {
        Err("must be 1 to 63 of a-z, 0-9, `-`, `_` and `.`, with a letter or digit at both ends".to_owned())
    }
}

fn trust_domain(node: &Node) -> Result<TrustDomain, String> {
    text(node)?
        .parse()
        .map_err(|error: muster_certs::identity::Error| error.to_string())
}

fn absolute_path(node: &Node) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(node)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("must be an absolute path".to_owned())
    }
}

fn list<'a>(node: &'a Node, example: &str) -> Result<&'a [Node], String> {
    match &node.value {
        Value::Seq(items) if items.len() > 32 => Err("has more than 32 elements".to_owned()),
        Value::Seq(items) => Ok(items),
        _ => Err(format!("must be a list: [\"{example}\"]")),
    }
}

fn networks(node: &Node) -> Result<Vec<net::Network>, String> {
    let network = |item| {
        let text = text(item)?;
        text.parse()
            .map_err(|error| format!("`{}` {error}", value::shown(text)))
    };
    list(node, "10.0.0.0/8")?.iter().map(network).collect()
}

fn endpoints(node: &Node) -> Result<Vec<String>, String> {
    let items = list(node, "controller.example.com:8443")?;
    let endpoint = |item| {
        let text = text(item)?;
        value::check_endpoint(text).map(|()| text.to_owned())
    };
    items.iter().map(endpoint).collect()
}

fn database(node: &Node) -> Result<Database, String> {
    match text(node)? {
        "sqlite" => Ok(Database::Sqlite),
        url => DatabaseUrl::parse(url).map(Database::Postgres),
    }
}

fn database_url_file(node: &Node) -> Result<Database, String> {
    let path = absolute_path(node)?;
    read_url(&path).map(Database::Postgres)
}

fn read_url(path: &Path) -> Result<DatabaseUrl, String> {
    let text = muster_certs::file::read_secret_text(path, 4096).map_err(|error| error.to_string())?;
    DatabaseUrl::parse(&text).map_err(|_| {
        format!(
            "{} does not hold a URL like postgres://user@host/database",
            path.display()
        )
    })
}

fn level(node: &Node) -> Result<tracing::Level, String> {
    match text(node)? {
        "error" => Ok(tracing::Level::ERROR),
        "warn" => Ok(tracing::Level::WARN),
        "info" => Ok(tracing::Level::INFO),
        "debug" => Ok(tracing::Level::DEBUG),
        "trace" => Ok(tracing::Level::TRACE),
        _ => Err("must be error, warn, info, debug or trace".to_owned()),
    }
}

fn format(node: &Node) -> Result<LogFormat, String> {
    match text(node)? {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be text or json".to_owned()),
    }
}
