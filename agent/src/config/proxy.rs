//! `server.proxy` and what belongs to it: which endpoints are reached through which HTTP proxy. Reads the file with user and
//! password when it is asked for; connects to nothing.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use muster_certs::file;

use super::Endpoint;

/// Of the file with user and password.
const MAX_CREDENTIALS: usize = 1024;

/// Through what the controllers are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxying {
    pub proxy: Option<Proxy>,
    /// `user:password`, mode 0600.
    pub credentials_file: Option<PathBuf>,
    /// Reached without it.
    pub no_proxy: Vec<Exempt>,
}

/// `http://host:port` of a proxy that takes CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy(Endpoint);

/// One entry of `server.no_proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exempt {
    All,
    /// This host and every one below it; in lower case, without a dot at its start.
    Domain(String),
    /// For endpoints that are addresses.
    Net(IpNet),
}

/// Ready to be sent: `Basic ...`.
#[derive(Clone)]
pub struct Credentials(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a proxy is http://host:port, as http://proxy.example.com:3128")]
    Form,
    #[error("only http:// proxies are known; what goes through one is encrypted from end to end all the same")]
    Scheme,
    #[error("user and password belong into a file of mode 0600 (server.proxy_credentials_file)")]
    Credentials,
    #[error("not a host, a domain, an address or a network (10.0.0.0/8)")]
    Exempt,
}

/// Why the file with user and password cannot be used. Never holds what is in it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("{} does not hold one line user:password", .0.display())]
    Content(PathBuf),
}

impl Proxying {
    /// What leads to an endpoint; none: the way is direct.
    pub fn of(&self, endpoint: &Endpoint) -> Option<&Proxy> {
        let is_exempt = self.no_proxy.iter().any(|exempt| exempt.covers(endpoint.host()));
        self.proxy.as_ref().filter(|_| !is_exempt)
    }

    /// Read each time: somebody may have changed them.
    pub fn credentials(&self) -> Result<Option<Credentials>, CredentialsError> {
        self.credentials_file.as_deref().map(Credentials::read).transpose()
    }
}

impl Proxy {
    pub fn endpoint(&self) -> &Endpoint {
        &self.0
    }
}

impl FromStr for Proxy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (scheme, rest) = text.split_once("://").ok_or(Error::Form)?;
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(Error::Scheme);
        }
        if rest.contains('@') {
            return Err(Error::Credentials);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        Ok(Proxy(rest.parse().map_err(|_| Error::Form)?))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl Exempt {
    fn covers(&self, host: &str) -> bool {
        match self {
            Exempt::All => true,
            Exempt::Domain(domain) => {
                let host = host.to_ascii_lowercase();
                let host = host.strip_suffix('.').unwrap_or(&host);
                match host.strip_suffix(domain.as_str()) {
                    Some(above) => above.is_empty() || above.ends_with('.'),
                    None => false,
                }
            }
            Exempt::Net(net) => host.parse::<IpAddr>().is_ok_and(|address| net.contains(&address)),
        }
    }
}

impl FromStr for Exempt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "*" {
            return Ok(Exempt::All);
        }
        if let Ok(net) = text.parse() {
            return Ok(Exempt::Net(net));
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Exempt::Net(address.into()));
        }
        let domain = text.strip_prefix("*.").or(text.strip_prefix('.')).unwrap_or(text);
        let is_domain = (1..=253).contains(&domain.len())
            && !domain.starts_with(['.', '-'])
            && !domain.ends_with('.')
            && domain
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        if is_domain {
            Ok(Exempt::Domain(domain.to_ascii_lowercase()))
        } else {
            Err(Error::Exempt)
        }
    }
}

impl Credentials {
    fn read(path: &Path) -> Result<Credentials, CredentialsError> {
        let text = file::read_secret_text(path, MAX_CREDENTIALS)?;
        let line = text.trim_end_matches(['\n', '\r']);
        if !line.contains(':') || line.chars().any(char::is_control) {
            return Err(CredentialsError::Content(path.to_owned()));
        }
        Ok(Credentials(format!("Basic {}", STANDARD.encode(line))))
    }

    /// The value of `Proxy-Authorization`.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use proptest::prelude::*;

    use super::*;

    fn through(no_proxy: &[&str], host: &str) -> bool {
        let proxying = Proxying {
            proxy: Some("http://proxy.example:3128".parse().unwrap()),
            no_proxy: no_proxy.iter().map(|entry| entry.parse().unwrap()).collect(),
            ..Proxying::default()
        };
        proxying.of(&format!("{host}:8443").parse().unwrap()).is_some()
    }

    #[test]
    fn a_proxy_is_a_url_without_a_password() {
        for (text, shown) in [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("HTTP://proxy.example:3128/", "http://proxy.example:3128"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(text.parse::<Proxy>().unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("proxy.example:3128", Error::Form),
            ("http://proxy.example", Error::Form),
            ("http://proxy.example:3128/path", Error::Form),
            ("https://proxy.example:3128", Error::Scheme),
            ("socks5://proxy.example:1080", Error::Scheme),
            ("http://me:secret@proxy.example:3128", Error::Credentials),
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_domain_exempts_its_hosts_and_no_other_that_ends_alike() {
        for entry in ["example.com", ".example.com", "*.Example.COM"] {
            assert!(!through(&[entry], "example.com"), "{entry}");
            assert!(!through(&[entry], "muster.EXAMPLE.com"), "{entry}");
            assert!(through(&[entry], "notexample.com"), "{entry}");
            assert!(through(&[entry], "example.com.net"), "{entry}");
        }
    }

    #[test]
    fn addresses_are_exempted_by_themselves_and_by_their_networks() {
        assert!(!through(&["10.0.0.0/8"], "10.1.2.3"));
        assert!(through(&["10.0.0.0/8"], "11.1.2.3"));
        assert!(!through(&["192.0.2.7"], "192.0.2.7"));
        assert!(!through(&["2001:db8::/32"], "[2001:db8::1]"));
        assert!(!through(&["[::1]"], "[::1]"));
        assert!(
            through(&["10.0.0.0/8"], "ten.example.com"),
            "names are not looked up for this"
        );
        assert!(!through(&["*"], "anything"));
        assert!(through(&[], "anything"));
    }

    #[test]
    fn credentials_are_private_and_of_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy");
        let put = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Credentials::read(&path)
        };
        let good = put("Aladdin:open sesame\n", 0o600).unwrap();
        // The example of RFC 7617.
        assert_eq!(good.expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(format!("{good:?}"), "Credentials([redacted])");
        assert!(matches!(put("a:b\n", 0o640), Err(CredentialsError::File(_))));
        for text in ["", "nobody", "a:b\nc:d\n", "a:b\r\nX: y"] {
            let error = put(text, 0o600).unwrap_err();
            assert!(matches!(error, CredentialsError::Content(_)), "{text:?}");
            assert!(!error.to_string().contains("a:b"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_being_shown(text in "(http://)?[a-z0-9:./@\\[\\]-]{0,40}") {
            if let Ok(proxy) = text.parse::<Proxy>() {
                prop_assert_eq!(proxy.to_string().parse(), Ok(proxy));
            }
            let _ = text.parse::<Exempt>();
        }
    }
}
