//! One connection: turns frames, timers and changes into events for the session, and carries out what the session says. It
//! decides nothing about the protocol, and nothing about what comes after the connection.

use std::{
    fmt,
    future::pending,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use muster_proto::{
    error::{Problem, reason_name},
    v1::{self, ErrorReason, connect_response::Frame},
};
use tokio::{
    sync::{OwnedMutexGuard, mpsc, watch},
    time::{sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};

use super::{
    Link, copy,
    fail_back::FailBack,
    session::{Closed, Effect, Event, Session},
};
use crate::{
    backoff,
    clock::Now,
    config::{Config, Endpoint, proxy::Proxying},
    dial,
    endpoints::Candidate,
    identity::Identity,
    status::State,
};

/// A frame is at most 1 MiB; what gRPC puts around it comes on top.
const FRAME_BYTES: usize = 1024 * 1024 + 1024;

/// Frames that wait for HTTP/2 to take them. Few, so that a heartbeat never waits behind much.
const OUTGOING: usize = 2;

/// From the call to the headers of its answer.
const ANSWER: Duration = Duration::from_secs(15);

/// How long the last frames may take to leave.
const LINGER: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) enum Reason {
    Dial(dial::Error),
    Closed(Closed),
    Status(Box<Status>),
    /// The controller ended the stream without a word.
    Eof,
    /// What Hello said is no longer so.
    Reloaded,
    /// There is a newer certificate.
    Renewed,
}

#[derive(Debug)]
pub(super) struct Ended {
    pub reason: Reason,
    pub was_active: bool,
    /// Since Welcome.
    pub active_for: Duration,
}

impl Ended {
    pub fn early(reason: Reason) -> Ended {
        Ended {
            reason,
            was_active: false,
            active_for: Duration::ZERO,
        }
    }
}

impl Reason {
    pub fn is_stop(&self) -> bool {
        matches!(self, Reason::Closed(Closed::Stopped))
    }

    pub fn is_planned(&self) -> bool {
        matches!(
            self.problem(),
            Some(ErrorReason::ShuttingDown | ErrorReason::ControllerDraining)
        ) || self.is_busy()
    }

    /// Whether it is the certificate that the controller does not take, or that of the controller that is not taken here.
    pub fn is_of_certificate(&self) -> bool {
        match self {
            Reason::Dial(error) if error.is_distrust() => return true,
            Reason::Status(status) if muster_certs::tls::is_refusal(status.as_ref()) => return true,
            _ => {}
        }
        matches!(
            self.problem(),
            Some(
                ErrorReason::CertificateExpired
                    | ErrorReason::CertificateSuperseded
                    | ErrorReason::CertificateRevoked
                    | ErrorReason::CertificateUnknown
            )
        )
    }

    /// Whether the controller is the right one and has only too much to do now.
    pub fn is_busy(&self) -> bool {
        self.refusal()
            .is_some_and(|problem| backoff::told_by_busy(&problem).is_some())
    }

    /// What only a person can mend.
    pub fn advice(&self) -> Option<String> {
        if let Reason::Dial(error) = self {
            return error.advice();
        }
        let advice = match self.problem()? {
            ErrorReason::CertificateRevoked => Some(
                "the controller does not trust this agent any longer; to come back it needs a token in its token file, made with: musterctl token create --agent-id",
            ),
            ErrorReason::CloneDetected => Some(copy::ADVICE),
            ErrorReason::VersionUnsupported => {
                Some("this release of the agent is too old or too new for its controller")
            }
            _ => None,
        };
        advice.map(str::to_owned)
    }

    fn problem(&self) -> Option<ErrorReason> {
        self.refusal().map(|problem| problem.reason)
    }

    /// What the controller said, when it was that which ended the link.
    pub fn refusal(&self) -> Option<Problem> {
        match self {
            Reason::Status(status) => Problem::from_status(status),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Dial(error) => write!(f, "{error}: {}", error.cause()),
            Reason::Closed(closed) => closed.fmt(f),
            Reason::Status(status) => match Problem::from_status(status) {
                Some(problem) => write!(f, "{}: {}", reason_name(problem.reason), problem.message),
                None => f.write_str(&broken(status)),
            },
            Reason::Eof => f.write_str("the controller closed the link"),
            Reason::Reloaded => f.write_str("the configuration changed"),
            Reason::Renewed => f.write_str("the certificate was renewed"),
        }
    }
}

/// A connection that broke comes as a status made by tonic, whose text says less than what caused it.
fn broken(status: &Status) -> String {
    let source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    match source {
        Some(source) => muster_certs::tls::describe(source).unwrap_or_else(|| dial::causes(source)),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// From Hello until the link is over.
pub(super) async fn drive(
    link: &mut Link,
    candidate: &Candidate,
    channel: Channel,
    serial: &str,
    opening: OwnedMutexGuard<()>,
    stop: &CancellationToken,
) -> Ended {
    // Renewed since the connection was made: that is noticed as the first thing.
    let mut identity = link.identity.follow();
    identity.mark_changed();
    let started = Now::read();
    let mut session = Session::new(link.hello(started), started).with_random(rand::random());
    session.handle(
        Event::Facts(link.facts.borrow_and_update().clone()),
        &mut link.queue.lock(),
        started,
    );
    let (outgoing, frames) = mpsc::channel(OUTGOING);
    let hello = session.next_frame(&mut link.queue.lock(), started);
    if let Some(hello) = hello {
        // The channel is new and has room.
        let _ = outgoing.try_send(hello);
    }
    let mut client = v1::link_service_client::LinkServiceClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES)
        .max_encoding_message_size(FRAME_BYTES);
    let answer = tokio::select! {
        answer = timeout(ANSWER, client.connect(ReceiverStream::new(frames))) => answer,
        () = stop.cancelled() => return Ended::early(Reason::Closed(Closed::Stopped)),
    };
    let incoming = match answer {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Ended::early(Reason::Status(Box::new(status))),
        Err(_) => return Ended::early(Reason::Closed(Closed::HandshakeTimeout)),
    };
    let said = Said::of(&link.config.borrow(), candidate);
    let status = link.policies.status();
    let mut driver = Driver {
        session,
        outgoing,
        incoming,
        candidate,
        status,
        said,
        better: Box::pin(pending()),
        identity,
        serial,
        opening: Some(opening),
        welcomed: None,
    };
    let reason = driver.run(link, stop).await;
    let active_for = driver.welcomed.map(|at| at.elapsed());
    if matches!(&reason, Reason::Closed(closed) if closed.goodbye().is_some()) {
        let Driver { outgoing, incoming, .. } = driver;
        linger(outgoing, incoming).await;
    }
    Ended {
        reason,
        was_active: active_for.is_some(),
        active_for: active_for.unwrap_or_default(),
    }
}

struct Driver<'a> {
    session: Session,
    outgoing: mpsc::Sender<v1::ConnectRequest>,
    incoming: Streaming<v1::ConnectResponse>,
    candidate: &'a Candidate,
    status: watch::Receiver<Arc<v1::PolicyStatus>>,
    said: Said,
    /// Ready with an endpoint that comes before this one and answers.
    better: Pin<Box<dyn Future<Output = Endpoint> + Send>>,
    identity: watch::Receiver<Arc<Identity>>,
    /// Of the certificate that this connection was made with.
    serial: &'a str,
    /// Until the controller has let this link in.
    opening: Option<OwnedMutexGuard<()>>,
    welcomed: Option<Instant>,
}

/// What of the configuration this connection stands on.
#[derive(PartialEq)]
struct Said {
    labels: std::collections::BTreeMap<String, String>,
    warnings: Vec<String>,
    proxying: Proxying,
    allows_endpoints: bool,
    /// Whether the endpoint is one of the file's.
    is_configured: bool,
}

impl Said {
    fn of(config: &Config, candidate: &Candidate) -> Said {
        let warnings = config.warnings.iter().map(ToString::to_string).collect();
        Said {
            labels: config.agent.labels.clone(),
            warnings,
            proxying: config.server.proxying.clone(),
            allows_endpoints: config.allow.endpoints,
            is_configured: config.server.endpoints.contains(&candidate.endpoint),
        }
    }
}

enum Input {
    Sent,
    Frame(Result<Option<v1::ConnectResponse>, Status>),
    Event(Event),
    Config,
    Identity,
    Records,
}

impl Driver<'_> {
    async fn run(&mut self, link: &mut Link, stop: &CancellationToken) -> Reason {
        let mut stopping = false;
        let mut leaving = false;
        let mut frame: Option<v1::ConnectRequest> = None;
        let first = self.status.borrow_and_update().clone();
        self.session
            .handle(Event::PolicyStatus(first), &mut link.queue.lock(), Now::read());
        loop {
            if frame.is_none() {
                frame = self.session.next_frame(&mut link.queue.lock(), Now::read());
            }
            if frame.is_none()
                && let Some(closed) = self.session.closed()
            {
                return Reason::Closed(closed.clone());
            }
            leaving |= self.session.leaving().is_some();
            let deadline = self
                .session
                .deadline(frame.is_some())
                .unwrap_or_else(|| Instant::now() + LINGER);
            let input = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    Input::Event(Event::Stop)
                }
                permit = self.outgoing.reserve(), if frame.is_some() => match (permit, frame.take()) {
                    (Ok(permit), Some(frame)) => {
                        permit.send(frame);
                        Input::Sent
                    }
                    // The stream is over; why, comes from the other direction.
                    _ => Input::Frame(self.incoming.message().await),
                },
                message = self.incoming.message() => Input::Frame(message),
                () = sleep_until(deadline.into()) => {
                    if let Some(closed) = self.session.closed() {
                        return Reason::Closed(closed.clone());
                    }
                    Input::Event(Event::Tick)
                }
                Ok(()) = link.facts.changed() => Input::Event(Event::Facts(link.facts.borrow_and_update().clone())),
                Ok(()) = self.status.changed() => {
                    Input::Event(Event::PolicyStatus(self.status.borrow_and_update().clone()))
                }
                endpoint = &mut self.better, if !leaving => Input::Event(Event::Return(endpoint)),
                Ok(()) = link.config.changed(), if !stopping => Input::Config,
                Ok(()) = self.identity.changed(), if !stopping => Input::Identity,
                () = link.queue.recorded(), if frame.is_none() => Input::Records,
            };
            match input {
                Input::Sent | Input::Records => {}
                Input::Event(event) => self.handle(link, event),
                Input::Frame(Ok(Some(response))) => self.receive(link, response),
                Input::Frame(_) if stopping => return Reason::Closed(Closed::Stopped),
                Input::Frame(Ok(None)) => return self.ended(Reason::Eof),
                Input::Frame(Err(status)) => return self.ended(Reason::Status(Box::new(status))),
                Input::Identity => {
                    if self.identity.borrow_and_update().serial() != self.serial {
                        return Reason::Renewed;
                    }
                }
                Input::Config => {
                    let config = link.config.borrow_and_update();
                    if Said::of(&config, self.candidate) != self.said {
                        return Reason::Reloaded;
                    }
                }
            }
        }
    }

    /// The controller was faster than the agent that it has sent away: that goes where it was sent all the same.
    fn ended(&self, reason: Reason) -> Reason {
        match self.session.leaving() {
            Some(closed) if reason.refusal().is_none() || reason.is_planned() => Reason::Closed(closed.clone()),
            _ => reason,
        }
    }

    fn receive(&mut self, link: &mut Link, response: v1::ConnectResponse) {
        if let Some(Frame::Ack(_)) = &response.frame {
            link.board.acknowledged(SystemTime::now());
        }
        if response.frame.is_none() && self.session.unknown_frames == 0 {
            tracing::info!("the controller sends frames that this release does not know; they are ignored");
        }
        self.handle(link, Event::Received(response));
    }

    fn handle(&mut self, link: &mut Link, event: Event) {
        let effects = self.session.handle(event, &mut link.queue.lock(), Now::read());
        for effect in effects {
            self.carry_out(link, effect);
        }
    }

    fn carry_out(&mut self, link: &mut Link, effect: Effect) {
        match effect {
            Effect::Welcomed(welcome) => {
                let endpoint = &self.candidate.endpoint;
                tracing::info!(
                    endpoint = %endpoint,
                    controller = welcome.controller_name,
                    controller.version = welcome.controller_version,
                    session = welcome.session_id,
                    "connected"
                );
                self.welcomed = Some(Instant::now());
                self.opening = None;
                link.identity.set_refused(false);
                link.identity.time_told(welcome.time_unix_micros);
                link.board.enter(State::Connected, SystemTime::now(), |connection| {
                    connection.lead_to(endpoint, &link.config.borrow());
                    connection.controller = welcome.controller_name;
                    connection.session = welcome.session_id;
                    connection.last_error.clear();
                });
                let fail_back = FailBack {
                    identity: link.identity.clone(),
                    endpoints: link.endpoints.clone(),
                    config: link.config.clone(),
                    current: endpoint.clone(),
                };
                self.better = Box::pin(fail_back.found());
            }
            Effect::ApplyPolicies(sync) => {
                let (added, removed) = (sync.added.len(), sync.removed.len());
                match link.policies.apply(sync) {
                    Ok(()) => tracing::info!(added, removed, "the policy set has changed"),
                    Err(differs) => {
                        let event = Event::PolicySetDiffers(dial::causes(&differs));
                        self.session.handle(event, &mut link.queue.lock(), Now::read());
                    }
                }
            }
            Effect::StartSpool { above } => {
                let id = link.next_spool(above);
                if above > 0 {
                    tracing::warn!(
                        above,
                        spool = id,
                        "the controller has results of a later spool: the state directory was put back; going on above it"
                    );
                } else {
                    tracing::info!(
                        spool = id,
                        "much waits in the queue; it is sent behind what is recorded now"
                    );
                }
                link.queue.lock().start_spool(&id);
            }
            Effect::Configure(config) => {
                link.board.named(&config.name);
                link.identity.renew_by(config.renew_after_unix_micros);
                link.endpoints.told(&config.endpoints);
                link.board.endpoints(&link.endpoints.all(&link.config.borrow()));
            }
            Effect::SentAway { leaves_in, reason } => {
                let leaves_in_ms = u64::try_from(leaves_in.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(leaves_in_ms, "{reason}");
            }
            Effect::TrustBundle(bundle) => match link.identity.take_bundle(&bundle, &link.state) {
                Ok(version) => self.handle(link, Event::TrustBundleHeld(version)),
                Err(error) => tracing::error!(
                    error = dial::causes(&error),
                    "the controller sent a trust bundle that this agent does not take over"
                ),
            },
            Effect::Rejected { lane, seq, reason } => {
                tracing::warn!(
                    lane = lane.as_str_name(),
                    seq,
                    reason,
                    "the controller cannot store a record"
                );
            }
        }
    }
}

/// After goodbye: closes this direction and waits for the other, so that the goodbye arrives before the connection ends.
async fn linger(outgoing: mpsc::Sender<v1::ConnectRequest>, mut incoming: Streaming<v1::ConnectResponse>) {
    drop(outgoing);
    let _ = timeout(LINGER, async { while let Ok(Some(_)) = incoming.message().await {} }).await;
}
