//! The first `server.yaml`, as `init` writes it: what was decided is set, everything else stands there as a comment with its
//! default, so that the file explains itself.

use std::fmt::Write;
use std::path::Path;

use super::{Config, Database};

/// `url_file` is where the database URL was put when it holds a password.
pub fn render(config: &Config, url_file: Option<&Path>) -> String {
    let advertise = if config.advertise.is_empty() {
        "# advertise: [\"controller.example.com:8443\"]".to_owned()
    } else {
        format!(
            "advertise: [{}]",
            config
                .advertise
                .iter()
                .map(|e| quoted(e))
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    let database = match (&config.database, url_file) {
        (Database::Sqlite, _) => "database: sqlite".to_owned(),
        (Database::Postgres(_), Some(file)) => format!("database_url_file: {}", quoted(&file.display().to_string())),
        (Database::Postgres(url), None) => format!("database: {}", quoted(url.expose())),
    };
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        r#"# Configuration of muster-server. What is commented out shows the default.
# `muster-server config check --config FILE` tells what is wrong with it.

# Who this controller is. Neither can change later: agents and operators know the controller by it.
name: {name}
trust_domain: {trust_domain}

# Keys, lock and, with SQLite, the database.
data_dir: {data_dir}

# Where agents connect, and where operators do.
agent_listen: {agent_listen}
api_listen: {api_listen}

# Proxies in front of agent_listen that say by the PROXY protocol, version 1 or 2, whose connection they pass on: networks
# like 10.0.0.0/8. From them such a header is demanded, from others none is read.
# agent_proxy_protocol: []

# How agents reach this controller; goes into the join command. Default: agent_listen, or the name of this machine.
{advertise}

# `sqlite`, or postgres://user@host/database. A URL with a password belongs into a file of mode 0600:
# database_url_file: /etc/muster/database-url
{database}

# link:
#   heartbeat: 30s               # an agent is late after two of these and offline after four

# Docs: docs/operations.md. The first three are of each listener; connections of agents count until they are links.
# limits:
#   connections: 8192
#   connections_per_source: 1024
#   handshakes: 256
#   links_per_second: 2500             # agents beyond that are told when to come
#   reads_per_second: 500              # calls of each operator: those that change nothing, those that do,
#   changes_per_second: 100            # and those that stay open
#   watches_per_second: 20
#   ingest_bytes: 256MiB               # received and not stored yet, of all agents; at least 20KiB for each
#   agent_records_per_second: 2000     # of each agent and queue; what is beyond is taken later
#   agent_bytes_per_second: 4MiB
#   agent_new_series_per_minute: 1000  # of each agent; samples of more are not stored

# When the file system of data_dir fills: less than this free, and metrics and logs stay with the agents, then everything does. Percent
# or bytes. The ballast is a file that is given up for operators' changes on a full disk; at most 1% of the file system, or none.
# disk:
#   refuse_metrics_below: 10%
#   refuse_results_below: 5%
#   ballast: 64MiB

# What is older goes, and what is more than that.
# retention:
#   results: {{ age: 30d, bytes: 4GiB }}
#   events:  {{ age: 90d, bytes: 1GiB }}
#   metrics: {{ age: 2d, bytes: 4GiB }}
#   logs:    {{ age: 14d, bytes: 2GiB }}
#   deleted_agents: 365d         # how long their ids stay taken
#   audit: 400d                  # what was done, and who was refused

# How long certificates are good for.
# certificates:
#   agent: 24h                   # renewed at half of it
#   grace: 90d                   # how long after its end an agent's certificate still renews
#   user: 30d
#   controller: 30d

# What happens to a copy of a machine that shows the identity of an agent that is connected: it is refused, or it becomes
# an agent of its own.
# enrollment:
#   on_clone: refuse             # refuse, fork

# A certificate with host names for api_listen, for browsers and other tools; musterctl does without. Both files are read
# again when they change.
# api_certificate:
#   certificate: /etc/muster/api.pem
#   key: /etc/muster/api-key.pem # for its owner alone

# logging:
#   level: info                  # error, warn, info, debug, trace
#   format: text                 # text, json
"#,
        name = quoted(&config.name),
        trust_domain = quoted(&config.trust_domain.to_string()),
        data_dir = quoted(&config.data_dir.display().to_string()),
        agent_listen = quoted(&config.agent_listen.to_string()),
        api_listen = quoted(&config.api_listen.to_string()),
    );
    out
}

/// A YAML string; JSON's strings are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
