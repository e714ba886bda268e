//! What an enrolled agent trusts: CAs for connections, keys for policies. Kept as `trust.json`, the trust bundle in the JSON
//! dialect of the API. Verifies no policy itself.

use std::{collections::BTreeMap, io, path::Path};

use muster_certs::{
    CertificateDer, file,
    identity::{self, TrustDomain},
    sign,
};
use muster_proto::{json, v1};
use prost_reflect::DynamicMessage;

const MAX_BYTES: usize = 1024 * 1024;

/// The kind of a trust bundle in its signature.
pub const KIND: &str = "TrustBundle";

#[derive(Debug, Clone)]
pub struct Trust {
    version: i64,
    trust_domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    /// SubjectPublicKeyInfo by key id.
    policy_keys: BTreeMap<String, Vec<u8>>,
}

/// Why a bundle cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("not a trust bundle in JSON")]
    Json(#[source] io::Error),
    #[error("its trust domain is not one")]
    TrustDomain(#[source] identity::Error),
    #[error("it holds no CA certificate")]
    NoRoots,
    #[error("it holds no key that signs policies")]
    NoPolicyKeys,
    #[error("the id of its policy key {0:?} is not that of the key")]
    PolicyKey(String),
}

impl Trust {
    pub fn new(bundle: &v1::TrustBundle) -> Result<Trust, Error> {
        let trust_domain = bundle.trust_domain.parse().map_err(Error::TrustDomain)?;
        if bundle.roots.is_empty() {
            return Err(Error::NoRoots);
        }
        if bundle.policy_keys.is_empty() {
            return Err(Error::NoPolicyKeys);
        }
        let mut policy_keys = BTreeMap::new();
        for key in &bundle.policy_keys {
            if sign::key_id(&key.public_key) != key.key_id {
                return Err(Error::PolicyKey(key.key_id.clone()));
            }
            policy_keys.insert(key.key_id.clone(), key.public_key.clone());
        }
        let roots = bundle.roots.iter().cloned().map(CertificateDer::from).collect();
        Ok(Trust {
            version: bundle.version,
            trust_domain,
            roots,
            policy_keys,
        })
    }

    pub(super) fn load(path: &Path) -> Result<Trust, super::Error> {
        let failed = |source| super::Error::Trust {
            path: path.to_owned(),
            source,
        };
        let bytes = file::read_secret(path, MAX_BYTES).map_err(|error| failed(error.into()))?;
        let bundle = parse(&bytes).map_err(failed)?;
        Trust::new(&bundle).map_err(failed)
    }

    pub(super) fn save(bundle: &v1::TrustBundle, path: &Path) -> Result<(), file::Error> {
        file::write_secret(path, format!("{:#}\n", json::to_json(bundle)).as_bytes())
    }

    /// Grows with every bundle of an installation.
    pub fn version(&self) -> i64 {
        self.version
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The key with this id, if policies signed by it are good.
    pub fn policy_key(&self, key_id: &str) -> Option<&[u8]> {
        self.policy_keys.get(key_id).map(Vec::as_slice)
    }
}

fn parse(bytes: &[u8]) -> Result<v1::TrustBundle, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let message = DynamicMessage::deserialize(json::descriptor::<v1::TrustBundle>(), &mut deserializer)
        .and_then(|message| deserializer.end().map(|()| message))
        .map_err(|error| Error::Json(error.into()))?;
    message
        .transcode_to()
        .map_err(|error| Error::Json(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> v1::TrustBundle {
        let key = sign::SigningKey::generate().unwrap();
        v1::TrustBundle {
            version: 7,
            trust_domain: "example.muster".into(),
            roots: vec![vec![1, 2, 3]],
            policy_keys: vec![v1::PolicyKey {
                key_id: key.key_id(),
                public_key: key.public_key_der(),
            }],
        }
    }

    #[test]
    fn a_bundle_survives_the_file_it_is_kept_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trust.json");
        let bundle = bundle();
        Trust::save(&bundle, &path).unwrap();
        let trust = Trust::load(&path).unwrap();
        assert_eq!(trust.trust_domain().as_str(), "example.muster");
        assert_eq!(trust.roots()[0].as_ref(), [1, 2, 3]);
        let key = &bundle.policy_keys[0];
        assert_eq!(trust.policy_key(&key.key_id), Some(&*key.public_key));
        assert_eq!(trust.policy_key("sha256:other"), None);
    }

    #[test]
    fn a_bundle_that_could_not_be_used_is_refused_whole() {
        let mut other = bundle();
        other.policy_keys[0].key_id = bundle().policy_keys[0].key_id.clone();
        assert!(matches!(Trust::new(&other), Err(Error::PolicyKey(_))));
        assert!(matches!(
            Trust::new(&v1::TrustBundle {
                roots: vec![],
                ..bundle()
            }),
            Err(Error::NoRoots)
        ));
        assert!(matches!(
            Trust::new(&v1::TrustBundle {
                policy_keys: vec![],
                ..bundle()
            }),
            Err(Error::NoPolicyKeys)
        ));
        let nowhere = v1::TrustBundle {
            trust_domain: "Not a domain".into(),
            ..bundle()
        };
        assert!(matches!(Trust::new(&nowhere), Err(Error::TrustDomain(_))));
    }

    #[test]
    fn a_file_with_something_after_the_bundle_or_another_shape_is_refused() {
        for text in ["", "{", "[]", "{} {}", "{\"roots\": 1}", "{\"unknown\": 1}"] {
            assert!(matches!(parse(text.as_bytes()), Err(Error::Json(_))), "{text}");
        }
    }
}
