//! The identity that the agent has now, for all that use it: renewed and trusting others while it runs. Whoever only uses it
//! follows; the parts that learn something of it say so here.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use muster_certs::sign;
use muster_proto::{error::Problem, policy_set, v1};
use prost::Message as _;
use tokio::sync::{OwnedMutexGuard, watch};

use super::{
    Identity, Trust,
    renewal::{ControllerClock, Life},
    trust,
};
use crate::{config::Endpoint, state_dir::StateDir};

/// Why a trust bundle that came is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("no key that this agent trusts has signed it")]
    Signature,
    #[error("it cannot be read")]
    Unreadable(#[source] prost::DecodeError),
    #[error(transparent)]
    Trust(#[from] trust::Error),
    #[error("it is of trust domain {0}")]
    TrustDomain(String),
    #[error("no TLS can be set up with it")]
    Tls(#[source] muster_certs::tls::Error),
    #[error("failed to keep it")]
    File(#[from] muster_certs::file::Error),
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Holder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    identity: watch::Sender<Arc<Identity>>,
    /// Serial of the certificate that did not open the link; empty: none.
    refused: watch::Sender<String>,
    /// Until when the controller wants the certificate renewed; 0: as usual.
    renew_by: watch::Sender<i64>,
    clock: ControllerClock,
    /// A renewal was refused since another machine is this agent.
    copy: Mutex<Option<(Problem, Endpoint)>>,
    /// The controller took this machine for a copy, and has not let it in since.
    was_refused: AtomicBool,
    /// Held while a bundle is taken over.
    taking: Mutex<()>,
    /// Held from when a link is begun until the controller has let it in, and while a new certificate is proved.
    opening: Arc<tokio::sync::Mutex<()>>,
}

impl Holder {
    pub fn new(identity: Identity) -> Holder {
        Holder(Arc::new(Shared {
            identity: watch::Sender::new(Arc::new(identity)),
            refused: watch::Sender::new(String::new()),
            renew_by: watch::Sender::new(0),
            clock: ControllerClock::default(),
            copy: Mutex::default(),
            was_refused: AtomicBool::new(false),
            taking: Mutex::default(),
            opening: Arc::default(),
        }))
    }

    pub fn current(&self) -> Arc<Identity> {
        self.0.identity.borrow().clone()
    }

    pub fn follow(&self) -> watch::Receiver<Arc<Identity>> {
        self.0.identity.subscribe()
    }

    /// The first use of a new certificate ends the one before: never while a link with that one is on its way, which would be
    /// refused.
    pub async fn opening(&self) -> OwnedMutexGuard<()> {
        self.0.opening.clone().lock_owned().await
    }

    pub fn clock(&self) -> &ControllerClock {
        &self.0.clock
    }

    /// Whether the certificate should have been renewed by now.
    pub fn is_behind(&self, now: SystemTime) -> bool {
        Life::of_identity(&self.current()).is_behind(self.clock().at(now))
    }

    /// The link was refused for what the certificate is: it is time to see to it.
    pub fn refused(&self, serial: &str) {
        self.0.refused.send_replace(serial.to_owned());
    }

    /// Returns when the link was refused with the certificate that is held now.
    pub(super) async fn was_refused(&self) {
        let mut refused = self.0.refused.subscribe();
        // The sender is here, so it cannot be gone.
        let _ = refused.wait_for(|serial| serial == self.current().serial()).await;
    }

    pub fn renew_by(&self, at: i64) {
        self.0.renew_by.send_if_modified(|by| std::mem::replace(by, at) != at);
    }

    pub(super) fn follow_renew_by(&self) -> watch::Receiver<i64> {
        self.0.renew_by.subscribe()
    }

    /// The same agent with another key and certificate.
    pub(super) fn renewed_to(&self, next: &Identity) {
        self.renew_by(0);
        // It is no copy after all.
        self.take_copy();
        self.0
            .identity
            .send_modify(|identity| *identity = Arc::new(identity.with_file(next.file.clone())));
    }

    /// The same agent, enrolled anew.
    pub(super) fn reenrolled(&self, identity: Identity) {
        self.renew_by(0);
        self.take_copy();
        self.0.identity.send_replace(Arc::new(identity));
    }

    pub(super) fn is_copy(&self, problem: Problem, endpoint: Endpoint) {
        self.set_refused(true);
        *self.lock_copy() = Some((problem, endpoint));
    }

    pub fn set_refused(&self, was_refused: bool) {
        self.0.was_refused.store(was_refused, Ordering::Relaxed);
    }

    /// The machine as it shows itself now.
    pub fn fingerprint(&self, of_machine: &v1::Fingerprint) -> v1::Fingerprint {
        v1::Fingerprint {
            was_refused: self.0.was_refused.load(Ordering::Relaxed),
            ..of_machine.clone()
        }
    }

    /// What a renewal was told of another machine that is this agent, once.
    pub fn take_copy(&self) -> Option<(Problem, Endpoint)> {
        self.lock_copy().take()
    }

    /// Takes over a trust bundle that is newer than the one that is held: it is on disk when this returns. The version that
    /// is held then.
    pub fn take_bundle(&self, signed: &v1::Signed, state: &StateDir) -> Result<i64, BundleError> {
        let _taking = self.0.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current();
        let trusted = current.trust();
        let key = trusted.policy_key(&signed.key_id).ok_or(BundleError::Signature)?;
        sign::verify(
            key,
            &policy_set::dsse_type(trust::KIND),
            &signed.payload,
            &signed.signature,
        )
        .map_err(|_| BundleError::Signature)?;
        let bundle = v1::TrustBundle::decode(signed.payload.clone()).map_err(BundleError::Unreadable)?;
        if bundle.version <= trusted.version() {
            return Ok(trusted.version());
        }
        let trust = Trust::new(&bundle)?;
        if trust.trust_domain() != trusted.trust_domain() {
            return Err(BundleError::TrustDomain(trust.trust_domain().to_string()));
        }
        current.with_trust(trust.clone()).tls().map_err(BundleError::Tls)?;
        Trust::save(&bundle, &state.trust())?;
        self.0
            .identity
            .send_modify(|identity| *identity = Arc::new(identity.with_trust(trust.clone())));
        tracing::info!(
            version = bundle.version,
            roots = bundle.roots.len(),
            "the trust bundle has changed"
        );
        Ok(bundle.version)
    }

    /// The controller has told its time.
    pub fn time_told(&self, unix_micros: i64) {
        self.0.clock.told(unix_micros, SystemTime::now());
    }

    fn lock_copy(&self) -> std::sync::MutexGuard<'_, Option<(Problem, Endpoint)>> {
        self.0.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
