//! The keys of one installation in `DATA_DIR/pki`: the root (made here, then never read again by a running controller), the
//! issuing CA, and the key that signs policies. Makes certificates for whoever the caller says; who may have one is decided
//! elsewhere.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use bytes::Bytes;
use muster_certs::ca::{self, Ca, Issued};
use muster_certs::identity::{self, Identity, TrustDomain};
use muster_certs::key::{self, KeyPair, PublicKey};
use muster_certs::pin::Pin;
use muster_certs::sign::{self, SigningKey};
use muster_certs::{CertificateDer, certificate, file, pem};
use muster_proto::{policy_set, v1};
use prost::Message as _;
use uuid::Uuid;

const ROOT: &str = "root.pem";
const ROOT_KEY: &str = "root-key.pem";
const ISSUING: &str = "issuing.pem";
const ISSUING_KEY: &str = "issuing-key.pem";
/// The kind of a trust bundle in its signature.
const TRUST_BUNDLE: &str = "TrustBundle";
const POLICY_KEY: &str = "policy-key.pem";
/// None of these files is larger.
const MAX_BYTES: usize = 64 * 1024;

/// What a running controller signs with.
#[derive(Debug)]
pub struct Pki {
    issuing: Ca,
    root: CertificateDer<'static>,
    pin: Pin,
    policy_key: SigningKey,
    lifetimes: Lifetimes,
}

/// How long certificates are good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetimes {
    pub agent: Duration,
    /// How long after its end an agent's certificate still renews.
    pub grace: Duration,
    pub user: Duration,
    pub controller: Duration,
}

/// A new key with its certificate and those above it.
#[derive(Debug)]
pub struct Credentials {
    pub key: KeyPair,
    pub issued: Issued,
    /// Leaf first, root last.
    pub chain: Vec<CertificateDer<'static>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} exists already; keys are never overwritten", .0.display())]
    Exists(PathBuf),
    #[error("failed to write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to write or read a key file")]
    File(#[from] file::Error),
    #[error("failed to read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("failed to make a CA or a certificate")]
    Ca(#[from] ca::Error),
    #[error("failed to read the root's certificate")]
    Root(#[from] certificate::Error),
    #[error("the configuration says trust domain {configured}, the keys are for {actual}; it cannot change after init")]
    TrustDomain {
        configured: TrustDomain,
        actual: TrustDomain,
    },
    #[error("failed to make a key")]
    Key(#[from] key::Error),
    #[error("failed to make the key that signs policies")]
    PolicyKey(#[from] sign::Error),
    #[error("not a name for an identity")]
    Identity(#[from] identity::Error),
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            agent: DAY,
            grace: 90 * DAY,
            user: 30 * DAY,
            controller: 30 * DAY,
        }
    }
}

impl Pki {
    /// Makes all keys, in a folder that appears whole or not at all.
    pub fn create(dir: &Path, trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, Error> {
        if fs::symlink_metadata(dir).is_ok() {
            return Err(Error::Exists(dir.to_owned()));
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
        };
        let parts = dir.with_extension("incomplete");
        match fs::remove_dir_all(&parts) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&parts)(error)),
            _ => {}
        }
        file::create_private_dir(&parts)?;

        let root = Ca::create_root(trust_domain, now)?;
        let issuing = Ca::create_issuing(&root, now)?;
        let policy_key = SigningKey::generate()?;
        for (name, content) in [
            (ROOT, root.certificate_pem().as_bytes()),
            (ROOT_KEY, root.key_pem().as_bytes()),
            (ISSUING, issuing.certificate_pem().as_bytes()),
            (ISSUING_KEY, issuing.key_pem().as_bytes()),
            (POLICY_KEY, policy_key.to_pem().as_bytes()),
        ] {
            file::write_secret(&parts.join(name), content)?;
        }
        fs::rename(&parts, dir).map_err(failed(dir))?;
        if let Some(parent) = dir.parent() {
            fs::File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(failed(parent))?;
        }
        Self::new(root.certificate_der().clone(), issuing, policy_key)
    }

    /// Reads everything but the root's key.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let root = read(&dir.join(ROOT), |text| {
            let [root] = <[_; 1]>::try_from(pem::certificates(text)?).map_err(|_| pem::Error::TooManyCertificates)?;
            Ok::<_, pem::Error>(root)
        })?;
        let issuing_key = file::read_secret_text(&dir.join(ISSUING_KEY), MAX_BYTES)?;
        let issuing = read(&dir.join(ISSUING), |text| Ca::load(text, &issuing_key))?;
        let policy_key = read(&dir.join(POLICY_KEY), SigningKey::from_pem)?;
        Self::new(root, issuing, policy_key)
    }

    fn new(root: CertificateDer<'static>, issuing: Ca, policy_key: SigningKey) -> Result<Self, Error> {
        let pin = Pin::of_certificate(&root)?;
        Ok(Self {
            issuing,
            root,
            pin,
            policy_key,
            lifetimes: Lifetimes::default(),
        })
    }

    /// Refuses keys that were made for another trust domain than the one that was configured.
    pub fn of_domain(self, configured: &TrustDomain) -> Result<Self, Error> {
        if self.trust_domain() == configured {
            return Ok(self);
        }
        Err(Error::TrustDomain {
            configured: configured.clone(),
            actual: self.trust_domain().clone(),
        })
    }

    /// With other lifetimes than the default ones.
    pub fn with_lifetimes(self, lifetimes: Lifetimes) -> Self {
        Self { lifetimes, ..self }
    }

    pub fn lifetimes(&self) -> &Lifetimes {
        &self.lifetimes
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        self.issuing.trust_domain()
    }

    pub fn roots(&self) -> &[CertificateDer<'static>] {
        std::slice::from_ref(&self.root)
    }

    /// Id of the CA that issues now.
    pub fn active_id(&self) -> String {
        self.issuing.id()
    }

    /// The CAs that clients' certificates must come from.
    pub fn issuing(&self) -> &[CertificateDer<'static>] {
        std::slice::from_ref(self.issuing.certificate_der())
    }

    /// What a joining machine knows this controller by: the pins of the roots.
    pub fn pins(&self) -> &[Pin] {
        std::slice::from_ref(&self.pin)
    }

    /// What an agent is to trust.
    pub fn trust_bundle(&self) -> v1::TrustBundle {
        v1::TrustBundle {
            // There is no operation yet that changes it.
            version: 1,
            trust_domain: self.trust_domain().to_string(),
            roots: self.roots().iter().map(|root| root.to_vec()).collect(),
            policy_keys: vec![v1::PolicyKey {
                key_id: self.policy_key.key_id(),
                public_key: self.policy_key.public_key_der(),
            }],
        }
    }

    /// The trust bundle, signed by a key that agents trust already.
    pub fn signed_trust_bundle(&self) -> v1::Signed {
        let payload = Bytes::from(self.trust_bundle().encode_to_vec());
        let signature = self.policy_key.sign(&policy_set::dsse_type(TRUST_BUNDLE), &payload);
        v1::Signed {
            payload,
            key_id: self.policy_key.key_id(),
            signature,
        }
    }

    /// A certificate for an agent that has proved to hold `key`.
    pub fn issue_agent(&self, id: Uuid, key: &PublicKey, now: SystemTime) -> Result<Issued, Error> {
        let identity = Identity::agent(self.trust_domain(), id);
        Ok(self
            .issuing
            .issue(&identity, key, ca::backdated(now, self.lifetimes.agent))?)
    }

    /// What an enrolled agent is given: its certificate and the CA that issued it.
    pub fn agent_chain(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        vec![leaf, self.issuing.certificate_der().clone()]
    }

    /// A new key and certificate for the controller itself.
    pub fn issue_controller(&self, name: &str, now: SystemTime) -> Result<Credentials, Error> {
        self.issue(
            &Identity::controller(self.trust_domain(), name)?,
            now,
            self.lifetimes.controller,
        )
    }

    /// A new key and certificate for an operator.
    pub fn issue_user(&self, name: &str, now: SystemTime, lifetime: Duration) -> Result<Credentials, Error> {
        self.issue(&Identity::user(self.trust_domain(), name)?, now, lifetime)
    }

    /// Signs the payload of a policy.
    pub fn sign_policy(&self, kind: &str, payload: Bytes) -> v1::Signed {
        let signature = self.policy_key.sign(&policy_set::dsse_type(kind), &payload);
        v1::Signed {
            payload,
            key_id: self.policy_key.key_id(),
            signature,
        }
    }

    fn issue(&self, identity: &Identity, now: SystemTime, lifetime: Duration) -> Result<Credentials, Error> {
        let key = KeyPair::generate()?;
        let issued = self
            .issuing
            .issue(identity, &key.public_key(), ca::backdated(now, lifetime))?;
        let mut chain = self.agent_chain(issued.der.clone());
        chain.push(self.root.clone());
        Ok(Credentials { key, issued, chain })
    }
}

fn read<T, E>(path: &Path, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text = file::read_secret_text(path, MAX_BYTES)?;
    parse(&text).map_err(|source| Error::Read {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests;
