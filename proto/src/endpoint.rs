//! `host:port` of a controller. Whether anything answers there is not known here.

use std::{fmt, net::Ipv6Addr, str::FromStr};

/// A host name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("an endpoint is host:port without a scheme, as controller.example.com:8443")]
    Scheme,
    #[error("an endpoint is host:port, as controller.example.com:8443; the port is missing")]
    Port,
    #[error("the port of an endpoint is a number from 1 to 65535")]
    PortNumber,
    #[error("the host of an endpoint is a name, an IPv4 address or an IPv6 address in brackets")]
    Host,
}

impl Endpoint {
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains("://") {
            return Err(Error::Scheme);
        }
        let (host, port) = text.rsplit_once(':').ok_or(Error::Port)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().map_err(|_| Error::Host)?.to_string(),
            None if is_name(host) => host.to_owned(),
            None => return Err(Error::Host),
        };
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::PortNumber);
        }
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(Error::PortNumber)?;
        Ok(Endpoint { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Letters, digits, dots, hyphens and, as some resolvers allow, underscores.
fn is_name(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && !host.starts_with('-')
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_addresses_of_both_families_are_endpoints() {
        for (text, host, port) in [
            ("controller.example.com:8443", "controller.example.com", 8443),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:65535", "::1", 65535),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port));
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn what_is_not_host_and_port_says_what_is_wrong() {
        for (text, error) in [
            ("https://controller:8443", Error::Scheme),
            ("controller", Error::Port),
            ("controller:", Error::PortNumber),
            ("controller:0", Error::PortNumber),
            ("controller:+80", Error::PortNumber),
            ("controller:70000", Error::PortNumber),
            (":8443", Error::Host),
            ("::1:8443", Error::Host),
            ("[127.0.0.1]:8443", Error::Host),
            ("a b:8443", Error::Host),
            ("-v:8443", Error::Host),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_being_shown(text in "[a-z0-9:.\\[\\]/_ -]{0,40}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            }
        }
    }
}
