//! Renews the certificate for as long as the agent runs: when it is time, when the controller wants it, and when the link was
//! refused for it. Never gives up and never needs a restart. When a renewal is out of the question, a token that somebody
//! has put there enrolls the same agent anew.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_certs::{CertificateDer, csr, identity_file::IdentityFile, rustls::ClientConfig, tls};
use muster_proto::{
    error::{Problem, reason_name},
    v1::{self, ErrorReason, enrollment_service_client::EnrollmentServiceClient},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::Status;

use super::{
    Enrollment, Holder, enroll, id_file,
    next::{self, Next},
    renewal::Life,
};
use crate::{
    backoff::Backoff,
    config::{Config, Endpoint},
    dial::{self, causes, dial},
    endpoints::{Candidate, Endpoints},
    state_dir::StateDir,
    status::{self, Board},
};

/// From a request to its answer, on an open connection.
const CALL: Duration = Duration::from_secs(30);
/// Longer than this it does not sleep: a machine that was suspended, or whose clock was set, has to notice.
const LOOK: Duration = Duration::from_secs(30);

/// All that renewing takes.
#[derive(Debug)]
pub struct Renewer {
    pub holder: Holder,
    pub state: StateDir,
    pub config: watch::Receiver<Arc<Config>>,
    pub endpoints: Endpoints,
    pub board: Board,
    pub fingerprint: v1::Fingerprint,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Next(#[from] next::Error),
    #[error("failed to make a certificate request")]
    Request(#[from] csr::Error),
    #[error("failed to set up TLS")]
    Tls(#[from] tls::Error),
    #[error("no endpoint of a controller is configured")]
    NoEndpoint,
    #[error(transparent)]
    Dial(#[from] dial::Error),
    #[error("{endpoint}: {}", said(problem))]
    Refused { endpoint: Endpoint, problem: Box<Problem> },
    #[error("{endpoint} does not take certificates of the CA that this agent's is from")]
    Distrusted { endpoint: Endpoint },
    #[error("the answer of {endpoint} cannot be used: {why}")]
    Answer { endpoint: Endpoint, why: String },
}

impl Renewer {
    /// What has to be done before the link can open: a renewal that a crash has cut short is finished, since its certificate may
    /// have superseded the one that is held, and one that has expired is renewed. Tries once: without the controller there is
    /// no link either.
    pub async fn settle(&self) {
        let current = self.holder.current();
        let settled = match next::load(&self.state, &current) {
            Ok(Some(Next::Complete(file))) => self.prove(*file).await,
            Ok(_) if current.expires() <= SystemTime::now() => self.renew().await,
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = settled {
            tracing::warn!(
                why = error.why(),
                "the certificate could not be renewed before the link"
            );
        }
    }

    /// Never returns.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut renew_by = self.holder.follow_renew_by();
        let mut random: f64 = rand::random();
        let mut tried = false;
        self.note(None);
        loop {
            if !std::mem::take(&mut tried) {
                self.until_due(random, &mut renew_by).await;
            }
            let serial = self.holder.current().serial().to_owned();
            match self.renew().await {
                Ok(()) => {
                    let current = self.holder.current();
                    tracing::info!(
                        old = serial,
                        serial = current.serial(),
                        expires = status::time(current.expires()),
                        "the certificate was renewed"
                    );
                    backoff = Backoff::default();
                    random = rand::random();
                    self.board.renewed();
                    self.note(None);
                }
                Err(error) => {
                    tried = true;
                    if error.needs_a_token() && self.enroll_again().await {
                        tried = false;
                        self.note(None);
                        continue;
                    }
                    let delay = self.delay(&error, &mut backoff);
                    let why = error.why();
                    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                    tracing::warn!(why, delay_ms, "the certificate could not be renewed");
                    self.note(Some(&why));
                    tokio::select! {
                        () = sleep(delay) => {}
                        Ok(()) = self.config.changed() => {}
                    }
                }
            }
        }
    }

    /// Returns when the certificate shall be renewed.
    async fn until_due(&mut self, random: f64, renew_by: &mut watch::Receiver<i64>) {
        let mut clock = self.holder.clock().follow();
        loop {
            let current = self.holder.current();
            clock.mark_unchanged();
            let due = Life::of_identity(&current).due(random, *renew_by.borrow_and_update());
            let now = self.holder.clock().at(SystemTime::now());
            if now >= due {
                return;
            }
            self.board.renews_at(self.local(due));
            let wait = Duration::from_micros((due - now).unsigned_abs()).min(LOOK);
            tokio::select! {
                () = sleep(wait) => {}
                () = self.holder.was_refused() => return,
                _ = renew_by.changed() => {}
                _ = clock.changed() => {}
            }
        }
    }

    async fn renew(&self) -> Result<(), Error> {
        let current = self.holder.current();
        let file = match next::load_or_make(&self.state, &current)? {
            Next::Complete(file) => *file,
            Next::Key(key) => {
                let request = v1::RenewRequest {
                    csr: csr::create(&key)?,
                    fingerprint: Some(self.holder.fingerprint(&self.fingerprint)),
                    agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                };
                let tls = current.tls()?;
                let (endpoint, answer) = self
                    .first(&tls, |mut client| {
                        let request = request.clone();
                        Box::pin(async move { client.renew(request).await })
                    })
                    .await?;
                self.holder.time_told(answer.time_unix_micros);
                if let Some(bundle) = &answer.trust_bundle
                    && let Err(error) = self.holder.take_bundle(bundle, &self.state)
                {
                    tracing::warn!(error = causes(&error), "a trust bundle was not taken over");
                }
                let useless = |why: String| Error::Answer {
                    endpoint: endpoint.clone(),
                    why,
                };
                let chain = answer.certificates.into_iter().map(CertificateDer::from).collect();
                let file = IdentityFile::new(key, chain).map_err(|error| useless(causes(&error)))?;
                if file.identity() != current.file().identity() {
                    return Err(useless(format!("it names {}", file.identity())));
                }
                next::keep(&self.state, &file)?;
                file
            }
        };
        self.prove(file).await
    }

    /// A second connection shows that the new identity works; only then it takes the place of the old one.
    async fn prove(&self, file: IdentityFile) -> Result<(), Error> {
        let _opening = self.holder.opening().await;
        let next = self.holder.current().with_file(Arc::new(file));
        let tls = next.tls()?;
        let proved = self
            .first(&tls, |mut client| {
                Box::pin(async move { client.get_trust_bundle(v1::GetTrustBundleRequest {}).await })
            })
            .await;
        let answer = match proved {
            Ok((_, answer)) => answer,
            Err(error) => {
                // What the controller does not know, it never will.
                if error.is_refused() {
                    next::drop(&self.state);
                }
                return Err(error);
            }
        };
        next::promote(&self.state)?;
        self.holder.renewed_to(&next);
        self.holder.time_told(answer.time_unix_micros);
        if let Some(bundle) = &answer.trust_bundle
            && let Err(error) = self.holder.take_bundle(bundle, &self.state)
        {
            tracing::warn!(error = causes(&error), "a trust bundle was not taken over");
        }
        Ok(())
    }

    /// The answer of the first endpoint that gives one; a refusal ends the search.
    async fn first<T>(
        &self,
        tls: &Arc<ClientConfig>,
        call: impl Fn(Client) -> Call<T>,
    ) -> Result<(Endpoint, T), Error> {
        let config = self.config.borrow().clone();
        // Who connects tells of it.
        let _ = self.endpoints.look_up(&config).await;
        let mut worst = Error::NoEndpoint;
        for Candidate { endpoint, .. } in self.endpoints.all(&config) {
            let channel = match dial(&endpoint, &config.server.proxying, tls.clone()).await {
                Ok(channel) => channel,
                Err(error) => {
                    worst = error.into();
                    continue;
                }
            };
            let answer = timeout(CALL, call(Client::new(channel))).await;
            match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer within 30 s"))) {
                Ok(answer) => return Ok((endpoint, answer.into_inner())),
                Err(status) if tls::is_refusal(&status) => return Err(Error::Distrusted { endpoint }),
                Err(status) => {
                    let problem = dial::problem(&status);
                    if problem.reason == ErrorReason::CloneDetected {
                        self.holder.is_copy(problem.clone(), endpoint.clone());
                    }
                    let error = Error::Refused {
                        endpoint,
                        problem: Box::new(problem),
                    };
                    if error.is_refused() {
                        return Err(error);
                    }
                    worst = error;
                }
            }
        }
        Err(worst)
    }

    /// The way back of an agent whose certificates are of no use any longer: a token that somebody has put into its place.
    async fn enroll_again(&self) -> bool {
        let config = self.config.borrow().clone();
        let id = self.holder.current().id();
        // Another id would be another agent.
        if !matches!(id_file::read(&config.agent.id_file), Ok(Some(on_file)) if on_file == id) {
            return false;
        }
        let enrollment = Enrollment {
            config: &config,
            state: &self.state,
            fingerprint: self.fingerprint.clone(),
        };
        match enroll(&enrollment).await {
            Ok(identity) => {
                tracing::info!(agent.id = %id, "enrolled again");
                next::drop(&self.state);
                self.holder.reenrolled(identity);
                true
            }
            Err(error) => {
                if !error.is_incomplete() {
                    let failure = error.failure();
                    tracing::warn!(why = failure.why, "{}", failure.summary);
                }
                false
            }
        }
    }

    fn delay(&self, error: &Error, backoff: &mut Backoff) -> Duration {
        let life = Life::of_identity(&self.holder.current());
        match error {
            error if error.needs_a_token() => life.patience_when_refused(rand::random()),
            // As long as the controller says, though the certificate be short-lived.
            Error::Refused { problem, .. } if problem.retry_after.is_some() => backoff.after(problem, rand::random()),
            _ => life.patience(backoff.next(rand::random())),
        }
    }

    /// Tells people how the certificate stands.
    fn note(&self, last_error: Option<&str>) {
        let current = self.holder.current();
        let life = Life::of_identity(&current);
        let behind = self.holder.is_behind(SystemTime::now());
        self.board.certificate(status::Certificate {
            serial: current.serial().to_owned(),
            issued: status::time(self.local(life.issued)),
            expires: status::time(current.expires()),
            behind_since: if behind {
                status::time(self.local(life.behind_from()))
            } else {
                String::new()
            },
            last_error: last_error.unwrap_or_default().to_owned(),
            ..Default::default()
        });
    }

    /// A time of the controller's clock by ours.
    fn local(&self, micros: i64) -> SystemTime {
        let local = micros.saturating_sub(self.holder.clock().ahead()).max(0);
        SystemTime::UNIX_EPOCH + Duration::from_micros(local.unsigned_abs())
    }
}

type Call<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;
type Client = EnrollmentServiceClient<tonic::transport::Channel>;

impl Error {
    /// Whether the certificate is of no use, so that the same call cannot succeed unless somebody does something.
    fn is_refused(&self) -> bool {
        let problem = match self {
            Error::Refused { problem, .. } => problem,
            Error::Distrusted { .. } => return true,
            _ => return false,
        };
        matches!(
            problem.reason,
            ErrorReason::CertificateExpired
                | ErrorReason::CertificateSuperseded
                | ErrorReason::CertificateRevoked
                | ErrorReason::CertificateUnknown
                | ErrorReason::CloneDetected
        )
    }

    /// Whether all that is left is to enroll again. A controller that is not trusted may stand on another CA than any that
    /// this agent has heard of; the token is shown to whom the configuration has a pin of, and to nobody else.
    fn needs_a_token(&self) -> bool {
        self.is_refused() || matches!(self, Error::Dial(error) if error.is_distrust())
    }

    fn why(&self) -> String {
        match self {
            Error::Dial(error) => match error.advice() {
                Some(advice) => format!("{error}: {}; {advice}", error.cause()),
                None => format!("{error}: {}", error.cause()),
            },
            error => causes(error),
        }
    }
}

/// The reason, the words and, when clocks may have to do with it, both of them.
fn said(problem: &Problem) -> impl fmt::Display {
    let mut text = format!("{}: {}", reason_name(problem.reason), problem.message);
    if problem.reason == ErrorReason::CertificateExpired
        && let Some(controller) = problem.metadata.get("controller_time")
    {
        let ours = status::time(SystemTime::now());
        text.push_str(&format!(
            " (the controller's clock says {controller}, this machine's {ours})"
        ));
    }
    text
}
