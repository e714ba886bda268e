//! The keys of one installation in `DATA_DIR/pki`: the CAs, of which `authorities` knows the phases, and the key that signs
//! policies. Makes certificates for whoever the caller says; who may have one is decided
//! elsewhere.

mod authorities;
pub mod import;
mod phases;
mod reload;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use bytes::Bytes;
use muster_certs::ca::foreign::Chain;
use muster_certs::ca::{self, Issued};
use muster_certs::identity::{self, Identity, TrustDomain};
use muster_certs::key::{self, KeyPair, PublicKey};
use muster_certs::pin::Pin;
use muster_certs::sign::{self, SigningKey};
use muster_certs::tls::ClientAuthorities;
use muster_certs::token::{self, Seed};
use muster_certs::{CertificateDer, certificate, file};
use muster_proto::{policy_set, v1};
use prost::Message as _;
use tokio::sync::watch;
use uuid::Uuid;

pub use authorities::{Authorities, Authority, Phase};
pub use import::Imported;
use reload::Stamp;
pub use reload::{Alone, Reloaded};

use crate::clock;

/// The kind of a trust bundle in its signature.
const TRUST_BUNDLE: &str = "TrustBundle";
const POLICY_KEY: &str = "policy-key.pem";
/// None of these files is larger.
const MAX_BYTES: usize = 64 * 1024;

/// What a running controller signs with. Which CAs there are may change while it runs; whoever asks gets what is so now.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    trust_domain: TrustDomain,
    policy_key: SigningKey,
    lifetimes: Lifetimes,
    authorities: RwLock<Arc<Authorities>>,
    /// What the files were that the authorities are from.
    stamp: Mutex<Stamp>,
    /// Told when the authorities change.
    changed: watch::Sender<()>,
    /// Told when certificates that opened connections no longer count.
    distrusted: watch::Sender<()>,
    agents_clients: ClientAuthorities,
    users_clients: ClientAuthorities,
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
    /// Leaf first, roots last.
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
    #[error("{} does not say which CAs there are: {problem}", path.display())]
    Authorities { path: PathBuf, problem: String },
    #[error("failed to set up the verification of client certificates")]
    Tls(#[from] muster_certs::tls::Error),
    #[error("{0}")]
    Import(String),
    #[error(
        "the CA is from your own PKI; make the next one there and bring it: muster-server ca import --ca-cert FILE --ca-key FILE"
    )]
    External,
    #[error("the root's key is not at {}; put it there for the time that this takes", .0.display())]
    RootKeyOffline(PathBuf),
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
        let first = Authority::create(trust_domain, now)?;
        Self::create_with(dir, |parts| first.write(parts))
    }

    /// The same with a CA of another PKI, which this is.
    pub fn create_external(dir: &Path, chain: &Chain) -> Result<Self, Error> {
        Self::create_with(dir, |parts| {
            import::write(chain, parts)?;
            Authorities::first_external(parts, chain.issuing.trust_domain())
        })
    }

    fn create_with(dir: &Path, write_ca: impl FnOnce(&Path) -> Result<(), Error>) -> Result<Self, Error> {
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

        let policy_key = SigningKey::generate()?;
        write_ca(&parts)?;
        file::write_secret(&parts.join(POLICY_KEY), policy_key.to_pem().as_bytes())?;
        fs::rename(&parts, dir).map_err(failed(dir))?;
        if let Some(parent) = dir.parent() {
            fs::File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(failed(parent))?;
        }
        Self::load(dir)
    }

    /// Reads everything but the roots' keys.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let stamp = Stamp::of(dir).map_err(|source| Error::Read {
            path: dir.to_owned(),
            source: source.into(),
        })?;
        let authorities = Authorities::load(dir)?;
        let policy_key = read(&dir.join(POLICY_KEY), SigningKey::from_pem)?;
        Ok(Self {
            dir: dir.to_owned(),
            trust_domain: authorities.trust_domain.clone(),
            policy_key,
            lifetimes: Lifetimes::default(),
            agents_clients: ClientAuthorities::new(&authorities.accepted_from_agents())?,
            users_clients: ClientAuthorities::new(&authorities.accepted_from_users())?,
            authorities: RwLock::new(Arc::new(authorities)),
            stamp: Mutex::new(stamp),
            changed: watch::Sender::new(()),
            distrusted: watch::Sender::new(()),
        })
    }

    /// The CAs as they are now.
    pub fn authorities(&self) -> Arc<Authorities> {
        self.authorities.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other authorities on disk and into use. The caller sees to it that nobody else does.
    pub fn set_authorities(&self, authorities: Authorities) -> Result<(), Error> {
        authorities.save(&self.dir)?;
        if let Ok(stamp) = Stamp::of(&self.dir) {
            *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        }
        self.put(authorities)
    }

    fn put(&self, authorities: Authorities) -> Result<(), Error> {
        self.agents_clients.replace(&authorities.accepted_from_agents())?;
        self.users_clients.replace(&authorities.accepted_from_users())?;
        let compromised = |of: &Authorities| of.all().iter().filter(|it| it.entry.compromised).count();
        let is_distrust = compromised(&authorities) > compromised(&self.authorities());
        *self.authorities.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authorities);
        self.changed.send_replace(());
        if is_distrust {
            self.distrusted.send_replace(());
        }
        Ok(())
    }

    /// Where the keys are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Told when a CA is found to be in other hands: what was verified by it before no longer counts.
    pub fn watch_distrust(&self) -> watch::Receiver<()> {
        self.distrusted.subscribe()
    }

    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
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
        &self.trust_domain
    }

    /// The roots that are trusted now, the newest first.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        let mut roots = Vec::new();
        for authority in self.authorities().trusted() {
            // Several CAs of another PKI may stand on one root.
            if !roots.contains(&authority.root) {
                roots.push(authority.root.clone());
            }
        }
        roots
    }

    /// Id of the CA that issues now.
    pub fn active_id(&self) -> String {
        self.authorities().active().id()
    }

    /// Whose certificates count at the listener of agents.
    pub fn agents_clients(&self) -> &ClientAuthorities {
        &self.agents_clients
    }

    /// Whose certificates count at the listener of operators.
    pub fn users_clients(&self) -> &ClientAuthorities {
        &self.users_clients
    }

    /// What a joining machine knows this controller by: the pin of the root, and that of the one that comes after it.
    pub fn pins(&self) -> Vec<Pin> {
        let authorities = self.authorities();
        let mut pins: Vec<Pin> = [Some(authorities.active()), authorities.prepared()]
            .into_iter()
            .flatten()
            .map(|it| it.pin)
            .collect();
        pins.dedup();
        pins
    }

    /// Ids of the CAs that `pins` stands for, separated by blanks.
    pub fn pinned(&self) -> String {
        let authorities = self.authorities();
        let ids = [Some(authorities.active()), authorities.prepared()];
        ids.into_iter()
            .flatten()
            .map(Authority::id)
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub fn trust_bundle_version(&self) -> i64 {
        self.authorities().bundle_version
    }

    /// What an agent is to trust.
    pub fn trust_bundle(&self) -> v1::TrustBundle {
        v1::TrustBundle {
            version: self.trust_bundle_version(),
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
        let validity = ca::backdated(now, self.lifetimes.agent);
        Ok(self.authorities().active().issuing.issue(&identity, key, validity)?)
    }

    /// What an enrolled agent is given: its certificate and the CA that issued it.
    pub fn agent_chain(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        // A repeated answer may hold a certificate of the CA before.
        let issuing = self.authorities().issuer_of(&leaf).issuing.certificate_der().clone();
        vec![leaf, issuing]
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

    /// A certificate for an operator who has proved to hold `key`.
    pub fn issue_user_key(
        &self,
        name: &str,
        key: &PublicKey,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Issued, Error> {
        let identity = Identity::user(self.trust_domain(), name)?;
        let validity = ca::backdated(now, lifetime);
        Ok(self.authorities().active().issuing.issue(&identity, key, validity)?)
    }

    /// What an operator shows: the certificate and the CA that issued it.
    pub fn user_chain(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        self.agent_chain(leaf)
    }

    /// By which signatures of `sign_policy` are verified, DER.
    pub fn policy_public_key(&self) -> Vec<u8> {
        self.policy_key.public_key_der()
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

    /// What this installation alone can derive, from a key that is in no database.
    pub fn seed(&self, label: &str, parts: &[&[u8]]) -> Result<Seed, token::Error> {
        self.policy_key.seed(label, parts)
    }

    fn issue(&self, identity: &Identity, now: SystemTime, lifetime: Duration) -> Result<Credentials, Error> {
        let key = KeyPair::generate()?;
        let authorities = self.authorities();
        let issued = authorities
            .active()
            .issuing
            .issue(identity, &key.public_key(), ca::backdated(now, lifetime))?;
        let chain = authorities.chain(issued.der.clone(), clock::from_system(now));
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
