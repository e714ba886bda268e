//! Who a peer is: one SPIFFE URI, `spiffe://<trust domain>/(agent|controller|user)/<name>`, the one URI SAN of its
//! certificate. Parsing is as strict as the SPIFFE standard and stricter: lower case, nothing optional. Says nothing about
//! what an identity may do.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::certificate::{self, Certificate};

/// The longest SPIFFE ID that the standard lets an implementation count on.
pub const MAX_BYTES: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;
const MAX_NAME: usize = 253;
const SCHEME: &str = "spiffe://";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    Agent { trust_domain: TrustDomain, id: Uuid },
    Controller { trust_domain: TrustDomain, name: Name },
    User { trust_domain: TrustDomain, name: Name },
}

/// The namespace of one installation: 1 to 255 of `a-z 0-9 . - _`. It looks like a host name and is never resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

/// The last segment of a controller's or user's identity: 1 to 253 of `A-Z a-z 0-9 . - _`, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("an identity is at most {MAX_BYTES} bytes long")]
    TooLong,
    #[error("an identity starts with \"spiffe://\"")]
    NotSpiffe,
    #[error("a trust domain is 1 to {MAX_TRUST_DOMAIN} lower-case letters, digits, dots, hyphens and underscores")]
    TrustDomain,
    #[error("a name is 1 to {MAX_NAME} letters, digits, dots, hyphens and underscores")]
    Name,
    #[error("the id of an agent is a UUID in lower case, with hyphens")]
    AgentId,
    #[error("an identity ends in \"/agent/<uuid>\", \"/controller/<name>\" or \"/user/<name>\"")]
    Kind,
    #[error("an identity certificate has exactly one URI, this one has {0}")]
    UriCount(usize),
    #[error("failed to read the certificate")]
    Certificate(#[from] certificate::Error),
}

impl Identity {
    pub fn agent(trust_domain: &TrustDomain, id: Uuid) -> Identity {
        Identity::Agent {
            trust_domain: trust_domain.clone(),
            id,
        }
    }

    pub fn controller(trust_domain: &TrustDomain, name: &str) -> Result<Identity, Error> {
        Ok(Identity::Controller {
            trust_domain: trust_domain.clone(),
            name: name.parse()?,
        })
    }

    pub fn user(trust_domain: &TrustDomain, name: &str) -> Result<Identity, Error> {
        Ok(Identity::User {
            trust_domain: trust_domain.clone(),
            name: name.parse()?,
        })
    }

    /// The identity that a certificate states: its only URI SAN. That the certificate is genuine, is not checked here.
    pub fn from_certificate(der: &[u8]) -> Result<Identity, Error> {
        Identity::of(&Certificate::parse(der)?)
    }

    pub(crate) fn of(certificate: &Certificate) -> Result<Identity, Error> {
        match certificate.uris.as_slice() {
            [uri] => uri.parse(),
            uris => Err(Error::UriCount(uris.len())),
        }
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        match self {
            Identity::Agent { trust_domain, .. }
            | Identity::Controller { trust_domain, .. }
            | Identity::User { trust_domain, .. } => trust_domain,
        }
    }

    /// "agent", "controller" or "user".
    pub fn kind(&self) -> &'static str {
        match self {
            Identity::Agent { .. } => "agent",
            Identity::Controller { .. } => "controller",
            Identity::User { .. } => "user",
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.trust_domain().uri(), self.kind())?;
        match self {
            Identity::Agent { id, .. } => write!(f, "{}", id.hyphenated()),
            Identity::Controller { name, .. } | Identity::User { name, .. } => f.write_str(name.as_str()),
        }
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Identity, Error> {
        if text.len() > MAX_BYTES {
            return Err(Error::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(Error::NotSpiffe)?;
        let (trust_domain, path) = rest.split_once('/').ok_or(Error::Kind)?;
        let trust_domain: TrustDomain = trust_domain.parse()?;
        let (kind, name) = path.split_once('/').ok_or(Error::Kind)?;
        match kind {
            "agent" => {
                let id = Uuid::try_parse(name).map_err(|_| Error::AgentId)?;
                if id.hyphenated().to_string() != name {
                    return Err(Error::AgentId);
                }
                Ok(Identity::Agent { trust_domain, id })
            }
            "controller" => Ok(Identity::Controller {
                trust_domain,
                name: name.parse()?,
            }),
            "user" => Ok(Identity::User {
                trust_domain,
                name: name.parse()?,
            }),
            _ => Err(Error::Kind),
        }
    }
}

impl TrustDomain {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a CA certificate states: the trust domain without a path.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }

    pub(crate) fn from_uri(uri: &str) -> Result<TrustDomain, Error> {
        uri.strip_prefix(SCHEME).ok_or(Error::NotSpiffe)?.parse()
    }
}

impl FromStr for TrustDomain {
    type Err = Error;

    fn from_str(text: &str) -> Result<TrustDomain, Error> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.bytes().all(allowed) {
            return Err(Error::TrustDomain);
        }
        Ok(TrustDomain(text.to_owned()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Name, Error> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        let dots = text == "." || text == "..";
        if text.is_empty() || dots || text.len() > MAX_NAME || !text.bytes().all(allowed) {
            return Err(Error::Name);
        }
        Ok(Name(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
