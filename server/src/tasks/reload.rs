//! Looks after files that may change while a controller runs: the CAs in its data directory and the certificate of the
//! listener of operators. What is good is taken over, what is not is told once, and what was in use stays. SIGHUP makes it
//! look at once.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_certs::{
    file, pem,
    tls::{self, NamedCertificate, NamedError},
};
use muster_proto::v1::EventSeverity;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    clock,
    config::ApiCertificate,
    events::{self, Event},
    pki::{Authorities, Authority, Phase, Pki, Reloaded},
    store::Db,
    telemetry::Telemetry,
};

const EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Reload {
    pub db: Db,
    pub pki: Arc<Pki>,
    pub telemetry: Telemetry,
    pub api: Option<Api>,
}

/// The certificate of the listener of operators.
#[derive(Debug)]
pub struct Api {
    files: ApiCertificate,
    served: tls::ApiCertificate,
    /// What the files were when they were last taken over.
    good: Option<Stamp>,
    /// What they were when they were found to be no good, why, and whether it was told.
    bad: Option<(Stamp, String, bool)>,
}

type Stamp = [Option<(Option<SystemTime>, u64, u64)>; 2];

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to read {path}")]
    Read { path: String, source: io::Error },
    #[error("failed to read the key")]
    Key(#[from] file::Error),
    #[error("{certificate} and {key} cannot be served")]
    Unusable {
        certificate: String,
        key: String,
        source: NamedError,
    },
}

impl Reload {
    /// Looks now and again, until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hangups = signal(SignalKind::hangup())
            .inspect_err(|error| warn!(%error, "SIGHUP cannot be followed; files that change are seen within seconds"))
            .ok();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                () = next(&mut hangups) => {
                    info!("SIGHUP: looking at the files");
                    if let Some(api) = &mut self.api {
                        (api.good, api.bad) = (None, None);
                    }
                }
            }
            self.look(SystemTime::now()).await;
        }
    }

    pub async fn look(&mut self, now: SystemTime) {
        let mut events = Vec::new();
        match self.pki.reload() {
            Ok(None) => {}
            Ok(Some(reloaded)) => events.push(self.taken_over(&reloaded)),
            Err(error) => {
                let why = chain(&error);
                error!(error = why, "the CAs on disk are not taken over");
                let text = format!("the CAs on disk are not taken over: {why}");
                events.push(failure("CA_RELOAD_FAILED", text));
            }
        }
        if let Some(api) = &mut self.api {
            events.extend(api.look(&self.telemetry, now));
        }
        if !events.is_empty() {
            events::record(&self.db, events).await;
        }
    }

    fn taken_over(&self, reloaded: &Reloaded) -> Event {
        let prepared = |of: &Authorities| of.prepared().map(Authority::id);
        let id = prepared(&reloaded.after).filter(|id| prepared(&reloaded.before).as_ref() != Some(id));
        let active = reloaded.after.active();
        info!(
            active = active.id(),
            prepared = id,
            trust_bundle = reloaded.after.bundle_version,
            "the CAs on disk are taken over"
        );
        let (reason, text, ca) = match id {
            Some(id) => (
                "CA_PREPARED",
                format!("the CA {id} was brought on the controller's host"),
                id,
            ),
            None => {
                let count = reloaded
                    .after
                    .all()
                    .iter()
                    .filter(|it| it.phase() != Phase::Retired)
                    .count();
                (
                    "CA_RELOADED",
                    format!("{count} CAs on disk were taken over"),
                    active.id(),
                )
            }
        };
        Event::new(reason, None, text, clock::now())
            .severity(EventSeverity::Warning)
            .with("ca", ca)
    }
}

impl Api {
    pub fn new(files: ApiCertificate, served: tls::ApiCertificate) -> Self {
        Self {
            files,
            served,
            good: None,
            bad: None,
        }
    }

    /// Certificate and key are two files: what does not fit may do so a moment later, and is told at the second look.
    fn look(&mut self, telemetry: &Telemetry, now: SystemTime) -> Option<Event> {
        let stamp: Stamp = [stamp(&self.files.certificate), stamp(&self.files.key)];
        if self.good == Some(stamp) {
            return None;
        }
        if let Some((bad, why, told)) = &mut self.bad
            && *bad == stamp
        {
            if std::mem::replace(told, true) {
                return None;
            }
            error!(error = %why, "the certificate of the API is not taken over");
            let text = format!("the certificate of the API is not taken over: {why}");
            return Some(failure("API_CERTIFICATE_FAILED", text));
        }
        match self.read(now) {
            Ok(named) => {
                let hosts = named.hosts.join(", ");
                let until = clock::to_text(clock::from_system(named.not_after));
                info!(hosts, good_until = until, "the API shows its own certificate");
                telemetry.api_certificate_expiry(clock::from_system(named.not_after));
                self.served.set_named(named);
                (self.good, self.bad) = (Some(stamp), None);
                let text = format!("the API shows a certificate for {hosts}, good until {until}");
                Some(Event::new("API_CERTIFICATE_LOADED", None, text, clock::now()))
            }
            Err(error) => {
                self.bad = Some((stamp, chain(&error), false));
                None
            }
        }
    }

    fn read(&self, now: SystemTime) -> Result<NamedCertificate, Error> {
        let (certificate, key) = (&self.files.certificate, &self.files.key);
        let mut text = String::new();
        File::open(certificate)
            .and_then(|file| file.take(pem::MAX_BYTES as u64 + 1).read_to_string(&mut text))
            .map_err(|source| Error::Read {
                path: certificate.display().to_string(),
                source,
            })?;
        let key_text = file::read_secret_text(key, pem::MAX_BYTES)?;
        NamedCertificate::from_pem(&text, &key_text, now).map_err(|source| Error::Unusable {
            certificate: certificate.display().to_string(),
            key: key.display().to_string(),
            source,
        })
    }
}

fn stamp(path: &Path) -> Option<(Option<SystemTime>, u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok(), metadata.len(), metadata.ino()))
}

fn failure(reason: &str, text: String) -> Event {
    Event::new(reason, None, text, clock::now()).severity(EventSeverity::Error)
}

/// Without signals it waits for ever.
async fn next(hangups: &mut Option<Signal>) {
    let came = match hangups {
        Some(hangups) => hangups.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
