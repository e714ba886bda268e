//! The agent's end of the link as a state machine: Handshake → Active → Closed. It is given frames, the queue and the time,
//! and says what to send and what to do. Knows no socket, no clock and no task.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use muster_proto::v1::{self, connect_request::Frame as Out, connect_response::Frame as In};
use prost::Message as _;

use self::{flow::Flow, latest::Latest, leave::Leave};
use super::queue::{Lanes, NeverSent, generation};
use crate::{clock::Now, config::Endpoint};

mod flow;
mod latest;
mod leave;

pub const PROTOCOL_VERSION: u32 = 1;

/// What this agent does beyond version 1.
pub const CAPABILITIES: &[&str] = &["answer-now", "trust-bundle", "resend", "drain"];

/// From Hello to Welcome.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// Nothing heard for this many heartbeat intervals: the controller is gone, or the way to it.
const SILENT_INTERVALS: u32 = 3;

/// Used when Welcome names no window for a lane.
const DEFAULT_WINDOW: u64 = 64 * 1024;

/// What may wait in the spool that grows when a link comes up, and what is recorded then goes behind it all the same.
const BACKLOG: usize = 64 * 1024;

/// Policies that may arrive before the PolicySync they belong to.
const BODIES_BYTES: usize = 32 * 1024 * 1024;

#[derive(Debug)]
pub enum Event {
    Received(v1::ConnectResponse),
    /// [`Session::deadline`] has come, or any other time.
    Tick,
    Facts(Arc<v1::Facts>),
    PolicyStatus(Arc<v1::PolicyStatus>),
    /// The policy set that the controller sent does not come out as it said.
    PolicySetDiffers(String),
    /// A trust bundle of this version is on disk and used.
    TrustBundleHeld(i64),
    /// Leave: send the results that are pending, say goodbye.
    Stop,
    /// The same, to go back to an endpoint that comes before this one.
    Return(Endpoint),
}

/// What the owner of the session has to do; frames to send come from [`Session::next_frame`].
#[derive(Debug, PartialEq)]
pub enum Effect {
    Welcomed(Box<v1::Welcome>),
    /// `added` includes the bodies that came before.
    ApplyPolicies(v1::PolicySync),
    Configure(v1::AgentConfig),
    /// The controller wants the agent elsewhere; the session ends after this time by itself.
    SentAway {
        leaves_in: Duration,
        reason: String,
    },
    TrustBundle(v1::Signed),
    /// Go on under a new spool of a higher generation than this. Much waits in the present one, and what is recorded now shall
    /// not wait behind it; or, above 0, the controller knows results that a spool of this start would come behind: the state
    /// directory is older than the agent, as after a snapshot was put back. What waits keeps its numbers, since another
    /// snapshot may hold it too.
    StartSpool {
        above: u64,
    },
    Rejected {
        lane: v1::Lane,
        seq: u64,
        reason: String,
    },
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("the agent leaves")]
    Stopped,
    /// Connect to these first, then to all others.
    #[error("the controller has sent the agent elsewhere: {reason}")]
    Drained { to: Vec<Endpoint>, reason: String },
    #[error("{0} answers again, which comes first")]
    Returning(Endpoint),
    #[error("the controller did not welcome the agent within {} s", HANDSHAKE.as_secs())]
    HandshakeTimeout,
    #[error("nothing was heard from the controller for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the controller broke the protocol: {0}")]
    Violation(String),
    /// The controller knows more of this spool than the agent does: go on under a new one.
    #[error("the controller speaks of records that this agent never sent: {0}")]
    ForeignSpool(NeverSent),
    /// Connect again without a digest, so that the controller sends the whole set.
    #[error("the policy set did not come out as the controller said: {0}")]
    PolicySetDiffers(String),
}

#[derive(Debug)]
pub struct Session {
    state: State,
    facts: Latest<v1::Facts>,
    policy_status: Latest<v1::PolicyStatus>,
    results: Flow,
    metrics: Flow,
    logs: Flow,
    /// Version of a trust bundle to be acknowledged.
    bundle: Option<i64>,
    /// In `0..1`; chooses the moment at which the agent leaves when it is sent away.
    random: f64,
    /// Frames of a kind that this agent does not know.
    pub unknown_frames: u64,
}

#[derive(Debug)]
enum State {
    Handshake {
        hello: Option<Box<v1::Hello>>,
        deadline: Instant,
    },
    Active(Active),
    Closed(Closed),
}

#[derive(Debug)]
struct Active {
    interval: Duration,
    heartbeat_due: Instant,
    heard: Instant,
    /// The controller's clock in its last heartbeat, and when that came.
    echo: Option<(i64, Instant)>,
    bodies: Vec<v1::Signed>,
    bodies_bytes: usize,
    leave: Option<Leave>,
}

impl Session {
    pub fn new(hello: v1::Hello, now: Now) -> Self {
        let state = State::Handshake {
            hello: Some(Box::new(hello)),
            deadline: now.instant + HANDSHAKE,
        };
        Self {
            state,
            facts: Latest::default(),
            policy_status: Latest::default(),
            results: Flow::default(),
            metrics: Flow::default(),
            logs: Flow::default(),
            bundle: None,
            random: 0.0,
            unknown_frames: 0,
        }
    }

    /// Agents of a fleet have different ones, so that they do not leave all at once.
    pub fn with_random(self, random: f64) -> Self {
        Self { random, ..self }
    }

    /// Set once the session is over; nothing can be sent or received after that.
    pub fn closed(&self) -> Option<&Closed> {
        match &self.state {
            State::Closed(closed) => Some(closed),
            _ => None,
        }
    }

    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Active(_))
    }

    /// How it will end, when the agent is about to leave: so it counts also when the controller ends it before.
    pub fn leaving(&self) -> Option<&Closed> {
        match &self.state {
            State::Active(active) => active.leave.as_ref().map(Leave::why),
            _ => None,
        }
    }

    /// When to come back with [`Event::Tick`] if nothing else happens before. While a frame is held up, what would be sent then
    /// counts for nothing.
    pub fn deadline(&self, is_held_up: bool) -> Option<Instant> {
        match &self.state {
            State::Handshake { deadline, .. } => Some(*deadline),
            State::Active(active) if is_held_up => {
                let leave = active.leave.as_ref().map(Leave::held_up_deadline);
                Some(leave.into_iter().fold(active.silent_at(), Instant::min))
            }
            State::Active(active) => {
                let leave = active.leave.as_ref().map(Leave::deadline);
                let flows = [&self.results, &self.metrics, &self.logs].map(Flow::deadline);
                let next = active.heartbeat_due.min(active.silent_at());
                Some(flows.into_iter().chain([leave]).flatten().fold(next, Instant::min))
            }
            State::Closed(_) => None,
        }
    }

    pub fn handle(&mut self, event: Event, lanes: &mut Lanes, now: Now) -> Vec<Effect> {
        if self.closed().is_some() {
            return Vec::new();
        }
        let outcome = match event {
            Event::Received(response) => self.receive(response.frame, lanes, now),
            Event::Tick => self.tick(now).map(|()| Vec::new()),
            Event::Facts(facts) => {
                self.facts.value = Some(facts);
                Ok(Vec::new())
            }
            Event::PolicyStatus(status) => {
                self.policy_status.value = Some(status);
                Ok(Vec::new())
            }
            Event::PolicySetDiffers(how) => Err(Closed::PolicySetDiffers(how)),
            Event::TrustBundleHeld(version) => {
                self.bundle = Some(version);
                Ok(Vec::new())
            }
            Event::Stop => {
                self.leave(Closed::Stopped, now);
                Ok(Vec::new())
            }
            Event::Return(endpoint) => {
                if self.leaving().is_none() {
                    self.leave(Closed::Returning(endpoint), now);
                }
                Ok(Vec::new())
            }
        };
        outcome.unwrap_or_else(|closed| {
            self.state = State::Closed(closed);
            Vec::new()
        })
    }

    /// The next frame to send, if there is one now: control frames first, then results, metrics and logs. Ask again after
    /// every event, as long as the connection takes frames.
    pub fn next_frame(&mut self, lanes: &mut Lanes, now: Now) -> Option<v1::ConnectRequest> {
        let frame = match &mut self.state {
            State::Handshake { hello, .. } => hello.take().map(|hello| Out::Hello(*hello)),
            State::Active(active) => match &active.leave {
                Some(Leave::By(by, why)) if now.instant >= *by || lanes.lane(v1::Lane::Results).is_empty() => {
                    let why = why.clone();
                    let reason = why.goodbye().unwrap_or_default().into();
                    self.state = State::Closed(why);
                    Some(Out::Goodbye(v1::Goodbye { reason }))
                }
                leave => {
                    let has_begun = leave.as_ref().is_some_and(Leave::has_begun);
                    active
                        .heartbeat(lanes, now)
                        .or_else(|| {
                            let version = self.bundle.take()?;
                            Some(Out::TrustBundleStatus(v1::TrustBundleStatus { version }))
                        })
                        .or_else(|| self.policy_status.changed().map(Out::PolicyStatus))
                        .or_else(|| self.facts.changed().map(Out::Facts))
                        .or_else(|| self.results.next(v1::Lane::Results, lanes, now.instant))
                        .or_else(|| (!has_begun).then(|| self.metrics.next(v1::Lane::Metrics, lanes, now.instant))?)
                        .or_else(|| (!has_begun).then(|| self.logs.next(v1::Lane::Logs, lanes, now.instant))?)
                }
            },
            State::Closed(_) => None,
        };
        frame.map(|frame| v1::ConnectRequest { frame: Some(frame) })
    }

    fn receive(&mut self, frame: Option<In>, lanes: &mut Lanes, now: Now) -> Result<Vec<Effect>, Closed> {
        let active = match (&mut self.state, frame) {
            (State::Handshake { .. }, Some(In::Welcome(welcome))) => return self.welcome(welcome, lanes, now),
            (State::Handshake { .. }, _) => return Err(violation("its first frame is not Welcome")),
            (State::Active(active), Some(frame)) => {
                active.heard = now.instant;
                (active, frame)
            }
            (State::Active(active), None) => {
                active.heard = now.instant;
                self.unknown_frames += 1;
                return Ok(Vec::new());
            }
            (State::Closed(_), _) => return Ok(Vec::new()),
        };
        match active {
            (_, In::Welcome(_)) => Err(violation("a second Welcome")),
            (active, In::Heartbeat(heartbeat)) => {
                active.echo = Some((heartbeat.time_unix_micros, now.instant));
                if heartbeat.answer_now {
                    active.heartbeat_due = now.instant;
                }
                Ok(Vec::new())
            }
            (_, In::Ack(ack)) => self.ack(ack, lanes, now),
            (_, In::AgentConfig(config)) => Ok(vec![Effect::Configure(config)]),
            (active, In::PolicyBody(body)) => active.collect(body).map(|()| Vec::new()),
            (active, In::PolicySync(mut sync)) => {
                let mut added = std::mem::take(&mut active.bodies);
                active.bodies_bytes = 0;
                added.append(&mut sync.added);
                sync.added = added;
                Ok(vec![Effect::ApplyPolicies(sync)])
            }
            (_, In::TrustBundle(bundle)) => Ok(vec![Effect::TrustBundle(bundle)]),
            (active, In::Drain(drain)) => Ok(active.sent_away(drain, self.random, now).into_iter().collect()),
        }
    }

    fn welcome(&mut self, welcome: v1::Welcome, lanes: &mut Lanes, now: Now) -> Result<Vec<Effect>, Closed> {
        for acked in &welcome.acked {
            if acked.lane() != v1::Lane::Unspecified {
                lanes
                    .lane_mut(acked.lane())
                    .ack(&acked.spool_id, acked.through_seq)
                    .map_err(Closed::ForeignSpool)?;
            }
        }
        for lane in Lanes::ALL {
            let window = welcome.windows.iter().find(|window| window.lane() == lane);
            if let Some(flow) = self.flow(lane) {
                // An older controller, which does not know logs, names none for them, and would end the link for one.
                let default = if lane == v1::Lane::Logs { 0 } else { DEFAULT_WINDOW };
                flow.window = window.map_or(default, |window| window.window_bytes);
            }
        }
        self.facts.held = welcome.facts_digest.clone();
        self.policy_status.held = welcome.policy_status_digest.clone();

        let interval = heartbeat_interval(welcome.heartbeat_interval_micros);
        self.state = State::Active(Active {
            interval,
            heartbeat_due: now.instant + interval,
            heard: now.instant,
            echo: None,
            bodies: Vec::new(),
            bodies_bytes: 0,
            leave: None,
        });
        // Of those that Hello named the controller says nothing: it may have states of them all the same.
        let highest = u64::try_from(welcome.highest_generation).unwrap_or(0);
        let highest = highest.max(lanes.highest_generation_before());
        let is_behind = highest > 0 && generation(lanes.spool_id()).unwrap_or(0) <= highest;
        let mut effects = vec![Effect::Welcomed(Box::new(welcome))];
        if is_behind {
            effects.push(Effect::StartSpool { above: highest });
        } else if Lanes::ALL.iter().any(|lane| lanes.lane(*lane).live_bytes() > BACKLOG) {
            effects.push(Effect::StartSpool { above: 0 });
        }
        Ok(effects)
    }

    fn ack(&mut self, ack: v1::Ack, lanes: &mut Lanes, now: Now) -> Result<Vec<Effect>, Closed> {
        let lane = ack.lane();
        let Some(flow) = self.flow(lane) else {
            return Ok(Vec::new());
        };
        if ack.spool_id.is_empty() {
            flow.window = ack.window_bytes;
            flow.given_up(ack.resends);
            return Ok(Vec::new());
        }
        // Of a spool that nobody here knows: nothing to do.
        if !flow.knows(&ack.spool_id) && !lanes.lane(lane).has(&ack.spool_id) {
            return Ok(Vec::new());
        }
        flow.acked(&ack.spool_id, ack.through_seq, now.instant);
        flow.window = ack.window_bytes;
        flow.given_up(ack.resends);
        lanes
            .lane_mut(lane)
            .ack(&ack.spool_id, ack.through_seq)
            .map_err(Closed::ForeignSpool)?;
        let rejected = ack.rejected.into_iter().map(|rejected| {
            lanes.lane_mut(lane).count_rejected();
            Effect::Rejected {
                lane,
                seq: rejected.seq,
                reason: rejected.reason,
            }
        });
        Ok(rejected.collect())
    }

    fn tick(&mut self, now: Now) -> Result<(), Closed> {
        self.results.tick(now.instant);
        self.metrics.tick(now.instant);
        self.logs.tick(now.instant);
        match &mut self.state {
            State::Handshake { deadline, .. } if now.instant >= *deadline => Err(Closed::HandshakeTimeout),
            State::Active(active) if now.instant >= active.silent_at() => {
                Err(Closed::Silent(now.instant.saturating_duration_since(active.heard)))
            }
            State::Active(active) => {
                if let Some(Leave::At(at, why)) = &active.leave
                    && now.instant >= *at
                {
                    active.leave = Some(Leave::now(why.clone(), now.instant));
                }
                match &active.leave {
                    // There is no way to say goodbye.
                    Some(leave @ Leave::By(_, why)) if now.instant >= leave.held_up_deadline() => Err(why.clone()),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// To stop comes before all other reasons to leave.
    fn leave(&mut self, why: Closed, now: Now) {
        match &mut self.state {
            State::Handshake { .. } => self.state = State::Closed(why),
            State::Active(active) => match &mut active.leave {
                Some(Leave::By(_, before)) => *before = why,
                leave => *leave = Some(Leave::now(why, now.instant)),
            },
            State::Closed(_) => {}
        }
    }

    fn flow(&mut self, lane: v1::Lane) -> Option<&mut Flow> {
        match lane {
            v1::Lane::Results => Some(&mut self.results),
            v1::Lane::Metrics => Some(&mut self.metrics),
            v1::Lane::Logs => Some(&mut self.logs),
            v1::Lane::Unspecified => None,
        }
    }
}

impl Active {
    fn silent_at(&self) -> Instant {
        self.heard + self.interval * SILENT_INTERVALS
    }

    /// Another word on it replaces the one before, unless the agent is leaving already.
    fn sent_away(&mut self, drain: v1::Drain, random: f64, now: Now) -> Option<Effect> {
        if self.leave.as_ref().is_some_and(Leave::has_begun) {
            return None;
        }
        let leave = self.leave.insert(Leave::drained(drain, random, now.instant));
        let leaves_in = leave.deadline().saturating_duration_since(now.instant);
        let reason = leave.why().to_string();
        Some(Effect::SentAway { leaves_in, reason })
    }

    fn heartbeat(&mut self, lanes: &Lanes, now: Now) -> Option<Out> {
        if now.instant < self.heartbeat_due {
            return None;
        }
        self.heartbeat_due = now.instant + self.interval;
        let depth = |lane: v1::Lane| {
            let depth = lanes.lane(lane).depth(now.unix_micros);
            v1::LaneDepth {
                lane: lane.into(),
                records: depth.records,
                bytes: depth.bytes as u64,
                dropped: depth.dropped,
                acknowledged: depth.acknowledged,
                oldest_age_micros: depth.oldest_age,
            }
        };
        let (echo_unix_micros, received) = self.echo.unwrap_or((0, now.instant));
        Some(Out::Heartbeat(v1::Heartbeat {
            echo_unix_micros,
            echo_age_micros: micros(now.instant.saturating_duration_since(received)),
            time_unix_micros: now.unix_micros,
            lanes: Lanes::ALL.map(depth).into(),
        }))
    }

    fn collect(&mut self, body: v1::PolicyBody) -> Result<(), Closed> {
        let policy = body.policy.ok_or_else(|| violation("a PolicyBody without a policy"))?;
        self.bodies_bytes += size_of::<v1::Signed>() + policy.encoded_len();
        if self.bodies_bytes > BODIES_BYTES {
            return Err(violation("more policies than an agent holds before their PolicySync"));
        }
        self.bodies.push(policy);
        Ok(())
    }
}

fn heartbeat_interval(micros: i64) -> Duration {
    let asked = u64::try_from(micros)
        .ok()
        .filter(|micros| *micros > 0)
        .map(Duration::from_micros);
    asked.map_or(Duration::from_secs(30), |asked| {
        asked.clamp(Duration::from_millis(50), Duration::from_secs(3600))
    })
}

fn violation(how: &str) -> Closed {
    Closed::Violation(how.to_owned())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
