//! One connection of a simulated agent: what the driver of the real agent does, without identity, configuration and status
//! board, and with a clock on every frame of records.

use std::{
    collections::VecDeque,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use http::Uri;
use muster_agent::link::session::{Closed, Effect, Event, Session};
use muster_proto::{
    error::Problem,
    v1::{
        self, ConnectRequest, ConnectResponse, Lane, connect_request::Frame as Out, connect_response::Frame as In,
        link_service_client::LinkServiceClient,
    },
};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Agent;
use crate::swarm::{
    fleet::Fleet,
    policies::Sets,
    wire::{self, Wire},
};

const FRAME_BYTES: usize = 1024 * 1024 + 1024;
/// As in the agent.
const OUTGOING: usize = 2;
const ANSWER: Duration = Duration::from_secs(15);
const LINGER: Duration = Duration::from_millis(500);

/// How a connection, or the attempt at one, has ended.
#[derive(Debug)]
pub enum Ended {
    /// As it was told to.
    Stopped,
    /// The controller wants it to connect again.
    SentAway,
    /// The controller has said why.
    Refused {
        active_for: Duration,
        problem: Box<Problem>,
    },
    Broken {
        active_for: Duration,
        why: String,
    },
}

impl Ended {
    fn early(why: impl ToString) -> Self {
        Ended::Broken {
            active_for: Duration::ZERO,
            why: why.to_string(),
        }
    }
}

impl Agent {
    pub(super) async fn connect(&self, fleet: &Fleet, cut: CancellationToken) -> Ended {
        let opened = fleet
            .stop
            .run_until_cancelled(wire::open(&self.route, cut.clone(), &fleet.tasks));
        let (wire, running) = match opened.await {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => return Ended::early(error),
            None => return Ended::Stopped,
        };
        let mut link = Link {
            agent: self,
            fleet,
            session: Session::new(self.hello(fleet, self.now()), self.now()),
            sent: VecDeque::new(),
            welcomed: None,
        };
        let ended = tokio::select! {
            ended = link.run(wire) => ended,
            () = running => link.broken("the connection ended"),
            // The connection sees it too, and where it is busy does so later.
            () = cut.cancelled() => link.broken("cut"),
        };
        if link.welcomed.is_some() {
            fleet.counts.up.fetch_sub(1, Ordering::Relaxed);
        }
        ended
    }
}

struct Link<'a> {
    agent: &'a Agent,
    fleet: &'a Fleet,
    session: Session,
    /// Frames of records that are not acknowledged.
    sent: VecDeque<Sent>,
    /// When, and what the agent's clock was.
    welcomed: Option<(Instant, i64)>,
}

struct Sent {
    lane: Lane,
    spool: String,
    last_seq: u64,
    at: Instant,
    /// When the first of its records was recorded, if that was since Welcome.
    live_since: Option<i64>,
}

impl Link<'_> {
    async fn run(&mut self, wire: Wire) -> Ended {
        let facts = Event::Facts(self.agent.facts.clone());
        let status = Event::PolicyStatus(self.agent.set().status.clone());
        self.handle(facts);
        self.handle(status);
        let (outgoing, frames) = mpsc::channel(OUTGOING);
        if let Some(hello) = self.next_frame() {
            // The channel is new and has room.
            let _ = outgoing.try_send(hello);
        }
        let mut client = LinkServiceClient::with_origin(wire, Uri::from_static("http://controller"))
            .max_decoding_message_size(FRAME_BYTES)
            .max_encoding_message_size(FRAME_BYTES);
        let mut incoming = match timeout(ANSWER, client.connect(ReceiverStream::new(frames))).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return self.ended_by(&status),
            Err(_) => return self.broken("no answer"),
        };
        let ended = self.drive(&outgoing, &mut incoming).await;
        if matches!(ended, Ended::Stopped | Ended::SentAway) {
            drop(outgoing);
            let _ = timeout(LINGER, async { while let Ok(Some(_)) = incoming.message().await {} }).await;
        }
        ended
    }

    async fn drive(
        &mut self,
        outgoing: &mpsc::Sender<ConnectRequest>,
        incoming: &mut Streaming<ConnectResponse>,
    ) -> Ended {
        let mut frame = None;
        let mut stopping = false;
        loop {
            if frame.is_none() {
                frame = self.next_frame();
            }
            if frame.is_none()
                && let Some(closed) = self.session.closed()
            {
                return match closed.clone() {
                    Closed::Stopped => Ended::Stopped,
                    Closed::Drained { .. } => Ended::SentAway,
                    closed => self.closed(&closed),
                };
            }
            let deadline = self
                .session
                .deadline(frame.is_some())
                .unwrap_or_else(|| Instant::now() + LINGER);
            tokio::select! {
                biased;
                () = self.fleet.stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.handle(Event::Stop);
                }
                permit = outgoing.reserve(), if frame.is_some() => match (permit, frame.take()) {
                    (Ok(permit), Some(request)) => {
                        self.sends(&request);
                        permit.send(request);
                    }
                    _ => return match incoming.message().await {
                        Err(status) => self.ended_by(&status),
                        Ok(_) => self.broken("the stream ended"),
                    },
                },
                message = incoming.message() => match message {
                    Ok(Some(response)) => self.receive(response),
                    _ if stopping => return Ended::Stopped,
                    Ok(None) => return self.broken("the controller closed the link"),
                    Err(status) => return self.ended_by(&status),
                },
                // What could not be sent before the session was over is not waited for.
                () = sleep_until(deadline.into()) => match self.session.closed() {
                    Some(_) => frame = None,
                    None => self.handle(Event::Tick),
                },
                () = self.agent.queue.recorded(), if frame.is_none() => {}
            }
        }
    }

    fn next_frame(&mut self) -> Option<ConnectRequest> {
        self.session.next_frame(&mut self.agent.queue.lock(), self.agent.now())
    }

    fn sends(&mut self, request: &ConnectRequest) {
        match &request.frame {
            Some(Out::PolicyStatus(_)) => self.fleet.counts.answered.happened(self.fleet.started),
            Some(Out::Records(records)) => {
                let since = self.welcomed.map_or(i64::MAX, |(_, at)| at);
                let first = records.records.first().map(|record| record.time_unix_micros);
                self.sent.push_back(Sent {
                    lane: records.lane(),
                    spool: records.spool_id.clone(),
                    last_seq: records.first_seq + records.records.len() as u64 - 1,
                    at: Instant::now(),
                    live_since: first.filter(|first| *first >= since),
                });
            }
            _ => {}
        }
    }

    fn receive(&mut self, response: ConnectResponse) {
        if let Some(In::Ack(ack)) = &response.frame {
            let now = self.agent.now().unix_micros;
            let counts = &self.fleet.counts;
            self.sent.retain(|sent| {
                let is_acked =
                    sent.lane == ack.lane() && sent.spool == ack.spool_id && sent.last_seq <= ack.through_seq;
                if is_acked {
                    counts.acks.add(sent.at.elapsed());
                    if let Some(since) = sent.live_since {
                        let late = u64::try_from(now - since).unwrap_or(0);
                        counts.lateness.add(Duration::from_micros(late));
                    }
                }
                !is_acked
            });
        }
        self.handle(Event::Received(response));
    }

    fn handle(&mut self, event: Event) {
        let now = self.agent.now();
        let effects = self.session.handle(event, &mut self.agent.queue.lock(), now);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let counts = &self.fleet.counts;
        match effect {
            Effect::Welcomed(_) => {
                self.welcomed = Some((Instant::now(), self.agent.now().unix_micros));
                counts.up.fetch_add(1, Ordering::Relaxed);
                counts.welcomes.happened(self.fleet.started);
            }
            Effect::ApplyPolicies(sync) => {
                let applied = self.fleet.sets.apply(&self.agent.set(), &sync);
                let event = match applied {
                    Ok(set) => {
                        counts.synced.happened(self.fleet.started);
                        *self.agent.lock_set() = set.clone();
                        Event::PolicyStatus(set.status.clone())
                    }
                    Err(differs) => {
                        *self.agent.lock_set() = Sets::none();
                        Event::PolicySetDiffers(differs)
                    }
                };
                self.handle(event);
            }
            Effect::StartSpool { above } => {
                let id = self.agent.next_spool(above);
                self.agent.queue.lock().start_spool(&id);
            }
            Effect::TrustBundle(signed) => {
                if let Ok(bundle) = v1::TrustBundle::decode(&*signed.payload) {
                    self.handle(Event::TrustBundleHeld(bundle.version));
                }
            }
            Effect::Rejected { .. } => {
                counts.rejected.fetch_add(1, Ordering::Relaxed);
            }
            // Names, labels and endpoints are nothing to it.
            _ => {}
        }
    }

    fn ended_by(&self, status: &Status) -> Ended {
        match Problem::from_status(status) {
            Some(problem) => Ended::Refused {
                active_for: self.active_for(),
                problem: Box::new(problem),
            },
            None => self.broken(&format!("{:?}: {}", status.code(), status.message())),
        }
    }

    fn closed(&self, closed: &Closed) -> Ended {
        if let Closed::ForeignSpool(_) = closed {
            let id = self.agent.next_spool(0);
            let now = self.agent.now().unix_micros;
            self.agent.queue.renumber(&id, now);
        }
        self.broken(&closed.to_string())
    }

    fn broken(&self, why: &str) -> Ended {
        Ended::Broken {
            active_for: self.active_for(),
            why: why.to_owned(),
        }
    }

    fn active_for(&self) -> Duration {
        self.welcomed.map_or(Duration::ZERO, |(at, _)| at.elapsed())
    }
}
