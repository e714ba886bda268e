//! The name of a DNS SRV record, as `server.srv` holds it.

use std::{fmt, str::FromStr};

/// `_service._tcp.domain`, in lower case and without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name of an SRV record is like _muster._tcp.example.com")]
pub struct Error;

impl SrvName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SrvName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let labels: Vec<&str> = text.split('.').collect();
        let is_label = |label: &&str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let is_service = |label: &str| label.len() > 1 && label.starts_with('_');
        match labels.as_slice() {
            [service, protocol, _, ..]
                if text.len() <= 253 && is_service(service) && *protocol == "_tcp" && labels.iter().all(is_label) =>
            {
                Ok(SrvName(text))
            }
            _ => Err(Error),
        }
    }
}

impl fmt::Display for SrvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_a_protocol_and_a_domain_make_a_name() {
        for text in ["_muster._tcp.example.com", "_Muster._TCP.example.com.", "_m._tcp.lan"] {
            let name: SrvName = text.parse().unwrap();
            assert!(name.as_str().starts_with("_m"), "{name}");
        }
        let long = format!("_muster._tcp.{}", "a.".repeat(130));
        for text in [
            "",
            "example.com",
            "_muster._tcp",
            "_muster._udp.example.com",
            "_._tcp.a",
            "_a._tcp.b c",
            "_a._tcp..b",
            &long,
        ] {
            assert_eq!(text.parse::<SrvName>(), Err(Error), "{text:?}");
        }
    }
}
