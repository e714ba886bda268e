//! From the tree of a YAML document to settings, collecting every mistake on the way instead of stopping at the first.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

use muster_proto::{
    document::{self, Node, Value, suggest},
    duration, label,
    threshold::Amount,
};
use tracing::level_filters::LevelFilter;

use super::{Agent, Allow, Checks, Config, Finding, Format, Logging, Logs, Queue, Server, Sync};

const MAX_ENDPOINTS: usize = 32;
const MAX_PINS: usize = 32;
const MAX_EXEMPT: usize = 256;
const QUEUE_LEAST: u64 = 1 << 20;
const QUEUE_MOST: u64 = 1 << 40;

/// All settings, or all that is wrong in order of lines.
pub(super) fn config(source: &str, text: &str) -> Result<Config, Vec<Finding>> {
    let mut reader = Reader {
        source,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let mut config = Config::default();
    match document::parse(text) {
        Ok(documents) => match documents.as_slice() {
            [] => {}
            [root] => reader.root(root, &mut config),
            [_, second, ..] => reader.error(second.line, "a second document; the file is one"),
        },
        Err(error) => reader.error(error.line, error.message),
    }
    if !reader.errors.is_empty() {
        reader.errors.append(&mut reader.warnings);
        reader.errors.sort_by_key(|finding| finding.line);
        return Err(reader.errors);
    }
    config.warnings = reader.warnings;
    Ok(config)
}

struct Reader<'a> {
    source: &'a str,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Reader<'_> {
    fn root(&mut self, root: &Node, config: &mut Config) {
        const KEYS: [&str; 7] = ["server", "agent", "checks", "queue", "logs", "logging", "allow"];
        for (key, line, node) in self.entries(root, "the file") {
            match key {
                "server" => self.server(node, &mut config.server),
                "agent" => self.agent(node, &mut config.agent),
                "checks" => self.checks(node, &mut config.checks),
                "queue" => self.queue(node, &mut config.queue),
                "logs" => self.logs(node, &mut config.logs),
                "logging" => self.logging(node, &mut config.logging),
                "allow" => self.allow(node, &mut config.allow),
                _ => self.unknown(key, line, "", &KEYS),
            }
        }
    }

    fn server(&mut self, node: &Node, server: &mut Server) {
        const KEYS: [&str; 9] = [
            "endpoints",
            "srv",
            "proxy",
            "proxy_credentials_file",
            "no_proxy",
            "fail_back",
            "ca_pin",
            "ca_cert",
            "token_file",
        ];
        let proxying = &mut server.proxying;
        for (key, line, node) in self.entries(node, "server") {
            match key {
                "endpoints" => self.parsed_list(node, "server.endpoints", MAX_ENDPOINTS, &mut server.endpoints),
                "srv" => self.parsed(node, "server.srv", &mut server.srv),
                "proxy" => self.parsed(node, "server.proxy", &mut proxying.proxy),
                "proxy_credentials_file" => {
                    self.path(node, "server.proxy_credentials_file", &mut proxying.credentials_file);
                }
                "no_proxy" => self.parsed_list(node, "server.no_proxy", MAX_EXEMPT, &mut proxying.no_proxy),
                "fail_back" => {
                    if let Some(after) = self.duration(node, "server.fail_back", 1..=7 * 24 * 3600) {
                        server.fail_back = after;
                    }
                }
                "ca_pin" => self.parsed_list(node, "server.ca_pin", MAX_PINS, &mut server.ca_pin),
                "ca_cert" => self.path(node, "server.ca_cert", &mut server.ca_cert),
                "token_file" => self.path(node, "server.token_file", &mut server.token_file),
                _ => self.unknown(key, line, "server", &KEYS),
            }
        }
    }

    fn agent(&mut self, node: &Node, agent: &mut Agent) {
        const KEYS: [&str; 4] = ["id_file", "state_dir", "name", "labels"];
        for (key, line, node) in self.entries(node, "agent") {
            match key {
                "id_file" => self.needed_path(node, "agent.id_file", &mut agent.id_file),
                "state_dir" => self.needed_path(node, "agent.state_dir", &mut agent.state_dir),
                "name" => {
                    if let Some(name) = self.text(node, "agent.name") {
                        match check_name(name) {
                            Ok(()) => name.clone_into(&mut agent.name),
                            Err(why) => self.error(node.line, format!("agent.name: {why}")),
                        }
                    }
                }
                "labels" => agent.labels = self.labels(node),
                _ => self.unknown(key, line, "agent", &KEYS),
            }
        }
    }

    fn checks(&mut self, node: &Node, checks: &mut Checks) {
        const KEYS: [&str; 2] = ["default_timeout", "max_concurrent"];
        for (key, line, node) in self.entries(node, "checks") {
            match key {
                "default_timeout" => {
                    if let Some(timeout) = self.duration(node, "checks.default_timeout", 1..=3600) {
                        checks.default_timeout = timeout;
                    }
                }
                "max_concurrent" => match node.value {
                    Value::Int(count @ 1..=1000) => checks.max_concurrent = usize::try_from(count).unwrap_or(1),
                    _ => self.wrong(node, "checks.max_concurrent", "a number from 1 to 1000"),
                },
                _ => self.unknown(key, line, "checks", &KEYS),
            }
        }
    }

    fn queue(&mut self, node: &Node, queue: &mut Queue) {
        const KEYS: [&str; 5] = ["results", "metrics", "logs", "max_age", "sync"];
        const SYNCS: [(&str, Sync); 2] = [("always", Sync::Always), ("second", Sync::Second)];
        for (key, line, node) in self.entries(node, "queue") {
            match key {
                "results" => self.bytes(node, "queue.results", &mut queue.results),
                "metrics" => self.bytes(node, "queue.metrics", &mut queue.metrics),
                "logs" => self.bytes(node, "queue.logs", &mut queue.logs),
                "max_age" => {
                    if let Some(age) = self.duration(node, "queue.max_age", 60..=30 * 24 * 3600) {
                        queue.max_age = age;
                    }
                }
                "sync" => self.choice(node, "queue.sync", &SYNCS, &mut queue.sync),
                _ => self.unknown(key, line, "queue", &KEYS),
            }
        }
    }

    fn logs(&mut self, node: &Node, logs: &mut Logs) {
        const KEYS: [&str; 1] = ["agent"];
        const LEVELS: [(&str, LevelFilter); 4] = [
            ("off", LevelFilter::OFF),
            ("error", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
        ];
        for (key, line, node) in self.entries(node, "logs") {
            match key {
                "agent" => self.choice(node, "logs.agent", &LEVELS, &mut logs.agent),
                _ => self.unknown(key, line, "logs", &KEYS),
            }
        }
    }

    fn logging(&mut self, node: &Node, logging: &mut Logging) {
        const KEYS: [&str; 2] = ["level", "format"];
        const LEVELS: [(&str, tracing::Level); 5] = [
            ("error", tracing::Level::ERROR),
            ("warn", tracing::Level::WARN),
            ("info", tracing::Level::INFO),
            ("debug", tracing::Level::DEBUG),
            ("trace", tracing::Level::TRACE),
        ];
        const FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];
        for (key, line, node) in self.entries(node, "logging") {
            match key {
                "level" => self.choice(node, "logging.level", &LEVELS, &mut logging.level),
                "format" => self.choice(node, "logging.format", &FORMATS, &mut logging.format),
                _ => self.unknown(key, line, "logging", &KEYS),
            }
        }
    }

    /// A key that is not understood here may be meant to forbid something: it is an error.
    fn allow(&mut self, node: &Node, allow: &mut Allow) {
        const KEYS: [&str; 2] = ["checks", "endpoints"];
        for (key, line, node) in self.entries(node, "allow") {
            match (key, &node.value) {
                ("checks", Value::Bool(checks)) => allow.checks = *checks,
                ("endpoints", Value::Bool(endpoints)) => allow.endpoints = *endpoints,
                ("checks" | "endpoints", _) => self.wrong(node, &format!("allow.{key}"), "true or false"),
                _ => {
                    self.unknown(key, line, "allow", &KEYS);
                    self.errors.extend(self.warnings.pop());
                }
            }
        }
    }

    /// The entries of a map; none for a key with nothing behind it, which is how YAML writes an empty section.
    fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Vec<(&'n str, usize, &'n Node)> {
        match &node.value {
            Value::Map(entries) => entries.iter().map(|(key, node)| (&*key.text, key.line, node)).collect(),
            Value::Null => Vec::new(),
            _ => {
                self.wrong(node, what, "keys with values (key: value)");
                Vec::new()
            }
        }
    }

    fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::String(text) => Some(text),
            Value::Null => Some(""),
            _ => {
                self.wrong(node, what, "a text (in quotes if it looks like a number)");
                None
            }
        }
    }

    fn path(&mut self, node: &Node, what: &str, target: &mut Option<PathBuf>) {
        let Some(text) = self.text(node, what) else { return };
        if text.is_empty() {
            *target = None;
        } else if text.starts_with('/') {
            *target = Some(text.into());
        } else {
            self.wrong(node, what, "an absolute path");
        }
    }

    fn needed_path(&mut self, node: &Node, what: &str, target: &mut PathBuf) {
        let mut path = None;
        let errors = self.errors.len();
        self.path(node, what, &mut path);
        match path {
            Some(path) => *target = path,
            None if errors == self.errors.len() => self.wrong(node, what, "an absolute path"),
            None => {}
        }
    }

    /// Empty: none.
    fn parsed<T>(&mut self, node: &Node, what: &str, target: &mut Option<T>)
    where
        T: FromStr<Err: std::fmt::Display>,
    {
        match self.text(node, what).map(|text| (text, text.parse())) {
            Some(("", _)) => *target = None,
            Some((_, Ok(value))) => *target = Some(value),
            // What was meant for another place may be in it, as a password in a URL: it is not repeated.
            Some((_, Err(why))) => self.error(node.line, format!("{what}: {why}")),
            None => {}
        }
    }

    fn parsed_list<T>(&mut self, node: &Node, what: &str, max: usize, target: &mut Vec<T>)
    where
        T: FromStr<Err: std::fmt::Display>,
    {
        let items = match &node.value {
            Value::Seq(items) if items.len() <= max => items,
            Value::Seq(_) => return self.error(node.line, format!("{what}: more than {max} entries")),
            Value::Null => return target.clear(),
            _ => return self.wrong(node, what, "a list of texts ([\"...\", \"...\"])"),
        };
        let mut values = Vec::new();
        for item in items {
            let Some(text) = self.text(item, what) else { continue };
            match text.parse() {
                Ok(value) => values.push(value),
                Err(why) => self.error(item.line, format!("{what}: \"{}\": {why}", shown(text))),
            }
        }
        *target = values;
    }

    fn labels(&mut self, node: &Node) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (key, line, node) in self.entries(node, "agent.labels") {
            let Some(value) = self.text(node, &format!("agent.labels.{}", shown(key))) else {
                continue;
            };
            match label::check(key, value) {
                Ok(()) => drop(labels.insert(key.to_owned(), value.to_owned())),
                Err(error) => self.error(line, error.to_string()),
            }
        }
        if labels.len() > label::MAX_COUNT {
            self.error(
                node.line,
                format!("agent.labels: more than {} labels", label::MAX_COUNT),
            );
        }
        labels
    }

    fn duration(&mut self, node: &Node, what: &str, seconds: std::ops::RangeInclusive<u64>) -> Option<Duration> {
        let expected = format!(
            "a time from {} s to {} s with its unit, as 30s or 1m30s",
            seconds.start(),
            seconds.end()
        );
        let duration = match &node.value {
            Value::String(text) => duration::parse(text).ok(),
            _ => None,
        };
        let range = Duration::from_secs(*seconds.start())..=Duration::from_secs(*seconds.end());
        let duration = duration.filter(|duration| range.contains(duration));
        if duration.is_none() {
            self.wrong(node, what, &expected);
        }
        duration
    }

    fn bytes(&mut self, node: &Node, what: &str, target: &mut u64) {
        let bytes = match &node.value {
            Value::String(text) => text.parse::<Amount>().ok(),
            _ => None,
        };
        match bytes {
            Some(Amount::Bytes(bytes @ QUEUE_LEAST..=QUEUE_MOST)) => *target = bytes,
            _ => self.wrong(node, what, "a size from 1MiB to 1TiB with its unit, as 64MiB"),
        }
    }

    fn choice<T: Copy>(&mut self, node: &Node, what: &str, choices: &[(&str, T)], target: &mut T) {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let found = match &node.value {
            Value::String(text) => choices.iter().find(|(word, _)| word == text),
            _ => None,
        };
        match found {
            Some((_, value)) => *target = *value,
            None => self.wrong(node, what, &format!("one of {}", words.join(", "))),
        }
    }

    fn unknown(&mut self, key: &str, line: usize, section: &str, known: &[&str]) {
        let place = if section.is_empty() {
            String::new()
        } else {
            format!(" in \"{section}\"")
        };
        self.warnings.push(Finding {
            source: self.source.to_owned(),
            line,
            message: format!("unknown key \"{}\"{place}", shown(key)),
            suggestion: suggest(key, known.iter().copied()).map(str::to_owned),
        });
    }

    fn wrong(&mut self, node: &Node, what: &str, expected: &str) {
        self.error(
            node.line,
            format!("{what}: expected {expected}, found {}", node.describe()),
        );
    }

    fn error(&mut self, line: usize, message: impl Into<String>) {
        let source = self.source.to_owned();
        self.errors.push(Finding {
            source,
            line,
            message: message.into(),
            suggestion: None,
        });
    }
}

/// Names of agents are shown in tables and put into labels of metrics.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.chars().count() > 253 {
        Err("a name has at most 253 characters")
    } else if name.chars().any(char::is_control) || name.trim() != name {
        Err("a name holds no control characters and no blanks at its ends")
    } else {
        Ok(())
    }
}

/// A text from the file as it may stand in a message.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}
