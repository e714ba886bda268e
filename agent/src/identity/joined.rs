//! `server.json`: what `muster-agent enroll` was told by flags, so that `run` finds the controller without a configuration
//! file. What `agent.yaml` says always wins.

use std::{collections::BTreeMap, io, path::Path};

use muster_certs::file;
use serde::{Deserialize, Serialize};

use crate::config::Config;

const MAX_BYTES: usize = 64 * 1024;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub endpoints: Vec<String>,
    pub ca_pin: Vec<String>,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Joined {
    /// None when there is no such file. One that cannot be read is as good as none, with a warning: it is a convenience.
    pub fn load(path: &Path) -> Option<Joined> {
        let bytes = match file::read_secret(path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(
                    error = crate::dial::causes(&error),
                    "what enroll remembered cannot be read"
                );
                return None;
            }
        };
        serde_json::from_slice(&bytes)
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "what enroll remembered cannot be read"),
            )
            .ok()
    }

    pub fn save(&self, path: &Path) -> Result<(), file::Error> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        file::write_secret(path, text.as_bytes())
    }

    /// Fills in what the configuration leaves open.
    pub fn complete(&self, config: &mut Config) {
        if config.server.endpoints.is_empty() {
            config.server.endpoints = self.endpoints.iter().filter_map(|text| text.parse().ok()).collect();
        }
        if config.server.ca_pin.is_empty() && config.server.ca_cert.is_none() {
            config.server.ca_pin = self.ca_pin.iter().filter_map(|text| text.parse().ok()).collect();
        }
        if config.agent.name.is_empty() {
            config.agent.name.clone_from(&self.name);
        }
        if config.agent.labels.is_empty() {
            config.agent.labels.clone_from(&self.labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_enroll_was_told_completes_a_configuration_but_never_overrides_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.json");
        assert_eq!(Joined::load(&path), None);
        let joined = Joined {
            endpoints: vec!["a:1".into()],
            ca_pin: vec![format!("sha256:{}", "0".repeat(64))],
            name: "db-01".into(),
            labels: BTreeMap::from([("env".into(), "prod".into())]),
        };
        joined.save(&path).unwrap();
        let loaded = Joined::load(&path).unwrap();
        assert_eq!(loaded, joined);

        let mut empty = Config::default();
        loaded.complete(&mut empty);
        assert_eq!(empty.server.endpoints[0].to_string(), "a:1");
        assert_eq!(empty.server.ca_pin.len(), 1);
        assert_eq!((&*empty.agent.name, empty.agent.labels.len()), ("db-01", 1));

        let text = "server: { endpoints: [\"b:2\"], ca_cert: /ca.pem }\nagent: { name: web, labels: { zone: eu } }";
        let mut full = Config::parse("agent.yaml", text).unwrap();
        loaded.complete(&mut full);
        assert_eq!(full.server.endpoints[0].to_string(), "b:2");
        assert!(full.server.ca_pin.is_empty());
        assert_eq!((&*full.agent.name, &*full.agent.labels["zone"]), ("web", "eu"));
    }

    #[test]
    fn a_broken_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.json");
        file::write_secret(&path, b"{").unwrap();
        assert_eq!(Joined::load(&path), None);
    }
}
