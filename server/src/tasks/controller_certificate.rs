//! The controller's own certificate: a new key and leaf at each start, and another one at half of its life, which the
//! listeners serve from the next handshake on. The CAs above it are not renewed here.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_certs::tls::{self, ServerCertificate};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::pki::{self, Pki};

/// How often it looks at the clock; one long sleep would not notice that the machine was suspended.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to issue the controller's certificate")]
    Issue(#[from] pki::Error),
    #[error("failed to serve the controller's certificate")]
    Serve(#[from] tls::Error),
}

/// Owns the certificate that the listeners serve.
#[derive(Debug)]
pub struct ControllerCertificate {
    pki: Arc<Pki>,
    name: String,
    served: ServerCertificate,
    /// From when it was issued until when it is good.
    life: Range<SystemTime>,
}

impl ControllerCertificate {
    /// Issues the first certificate of this process.
    pub fn issue(pki: Arc<Pki>, name: &str, now: SystemTime) -> Result<Self, Error> {
        let credentials = pki.issue_controller(name, now)?;
        let life = now..credentials.issued.not_after;
        let served = ServerCertificate::new(credentials.chain, &credentials.key)?;
        Ok(Self {
            pki,
            name: name.to_owned(),
            served,
            life,
        })
    }

    /// For the listeners; always shows the newest.
    pub fn served(&self) -> &ServerCertificate {
        &self.served
    }

    /// Renews it whenever it is time, until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut authorities = self.pki.watch();
        loop {
            let now = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = looks.tick() => self.renew_when_due(SystemTime::now()),
                // Another CA issues now, or other roots are shown.
                Ok(()) = authorities.changed() => self.renew(SystemTime::now()).map(|()| true),
            };
            match now {
                Ok(false) => {}
                Ok(true) => tracing::info!(good_until = %until(&self.life), "the controller's certificate was renewed"),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, good_until = %until(&self.life), "cannot renew the controller's certificate; trying again");
                }
            }
        }
    }

    /// Whether there is a new one.
    fn renew_when_due(&mut self, now: SystemTime) -> Result<bool, Error> {
        let half = self.life.end.duration_since(self.life.start).unwrap_or_default() / 2;
        // A clock that was set back before the start makes it due too: the leaf might not be good yet.
        let age = now.duration_since(self.life.start);
        if age.is_ok_and(|age| age < half) {
            return Ok(false);
        }
        self.renew(now).map(|()| true)
    }

    fn renew(&mut self, now: SystemTime) -> Result<(), Error> {
        let credentials = self.pki.issue_controller(&self.name, now)?;
        self.served.replace(credentials.chain, &credentials.key)?;
        self.life = now..credentials.issued.not_after;
        Ok(())
    }
}

fn until(life: &Range<SystemTime>) -> String {
    crate::clock::to_text(crate::clock::from_system(life.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn the_certificate_is_renewed_at_half_of_its_life_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let pki = Pki::create(&folder.path().join("pki"), &"example.muster".parse().unwrap(), start).unwrap();
        let mut certificate = ControllerCertificate::issue(Arc::new(pki), "controller1", start).unwrap();

        assert!(!certificate.renew_when_due(start + 14 * DAY).unwrap());
        assert!(certificate.renew_when_due(start + 15 * DAY).unwrap());
        assert!(!certificate.renew_when_due(start + 29 * DAY).unwrap());
        assert!(certificate.renew_when_due(start + 30 * DAY).unwrap());
    }

    #[test]
    fn a_clock_that_was_set_back_gets_a_certificate_that_is_good_then() {
        let folder = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let pki = Pki::create(
            &folder.path().join("pki"),
            &"example.muster".parse().unwrap(),
            start - 2 * DAY,
        )
        .unwrap();
        let mut certificate = ControllerCertificate::issue(Arc::new(pki), "controller1", start).unwrap();
        assert!(certificate.renew_when_due(start - DAY).unwrap());
        assert!(!certificate.renew_when_due(start).unwrap());
    }
}
