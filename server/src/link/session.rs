//! The session of one link, sans-IO: `(state, event, now) → effects`. Handshake → Active, and perhaps leaving → Closed. It
//! knows neither sockets nor the store; what it wants done it says.

mod hello;
mod intake;
mod words;

use std::sync::Arc;

use muster_proto::{
    ids::AgentId,
    v1::{self, AgentConfig, ConnectRequest, ConnectResponse, connect_request, connect_response::Frame},
};
use prost::Message as _;

use self::intake::Intake;
pub use self::words::{Admission, Admitted, Close, Effect, Event, Received};
use super::{draining::Telling, policy_sync};
use crate::{
    agents::{OnClone, Report},
    clock::{self, Micros, SECOND},
    disk::Level,
    ingest::Share,
    policies::PolicySet,
};

/// Capability of agents that answer a heartbeat at once when it asks for that.
const ANSWER_NOW: &str = "answer-now";
const TRUST_BUNDLE: &str = "trust-bundle";
/// Of agents that send again what an Ack says was given up.
const RESEND: &str = "resend";
/// Capability of agents that leave when they are told to.
const DRAIN: &str = "drain";
/// Frames before Welcome, which an agent waits for.
const MAX_EARLY: usize = 64;
const MAX_EARLY_BYTES: usize = 1 << 20;
/// What frames without records cost of an agent's time, each and for its bytes: so many a second, after a while of silence a
/// thousand at once, and beyond that the link ends.
const FRAME: Micros = SECOND / 50;
const BYTES_PER_SECOND: i64 = 1 << 20;
const FRAMES_BURST: Micros = 20 * SECOND;
const MAX_FACTS: usize = 1_000;
/// Digests are "sha256:<hex>".
const MAX_DIGEST: usize = 128;
/// Encoded; lists of agents hold the facts of each.
const MAX_FACTS_BYTES: usize = 64 << 10;

#[derive(Clone, Debug)]
pub struct Config {
    pub heartbeat: Micros,
    pub controller_name: String,
    /// What happens to copies, unless the token or an operator says otherwise.
    pub on_clone: OnClone,
}

#[derive(Debug)]
enum State {
    Handshake,
    /// `Hello` was accepted, the register has not answered yet. Frames that come early wait.
    Admitting {
        held_digest: String,
        early: Vec<ConnectRequest>,
        early_bytes: usize,
    },
    Active(Active),
    Closed,
}

#[derive(Debug)]
struct Active {
    /// The set that was sent last; none until the first.
    policies: Option<Arc<PolicySet>>,
    config: AgentConfig,
    /// When the agent is to be told again that somebody is here.
    heartbeat_due: Micros,
    probe: Option<Asked>,
}

/// The clock in the heartbeat that asked, which comes back in the answer.
#[derive(Clone, Copy, Debug)]
struct Asked(Micros);

#[derive(Debug)]
pub struct Session {
    agent: AgentId,
    config: Config,
    intake: Intake,
    /// When the certificate ends that the link was made with. Who has renewed it makes another link.
    expires: Micros,
    state: State,
    last_heard: Micros,
    ignored_frames: u64,
    /// Until when frames without records are paid for.
    frames_paid: Micros,
    /// With the capability "trust-bundle": the version that the agent holds, or that is on its way to it.
    bundle: Option<i64>,
    /// The agent has the capability "answer-now".
    answers_now: bool,
    /// The agent has the capability "resend".
    resends: bool,
    /// How full the disk is.
    room: Level,
    /// The agent has the capability "drain".
    drains: bool,
}

impl Session {
    pub fn new(agent: AgentId, config: Config, expires: Micros, share: Share, now: Micros) -> Self {
        Self {
            agent,
            config,
            intake: Intake::new(share),
            expires,
            state: State::Handshake,
            last_heard: now,
            ignored_frames: 0,
            frames_paid: now - FRAMES_BURST,
            bundle: None,
            answers_now: false,
            resends: false,
            room: Level::Ample,
            drains: false,
        }
    }

    /// When [`Event::Tick`] is wanted.
    pub fn deadline(&self) -> Micros {
        let ends = self.expires.min(self.silent_at());
        match &self.state {
            State::Active(active) => [Some(active.heartbeat_due), self.intake.deadline()]
                .into_iter()
                .flatten()
                .fold(ends, Micros::min),
            _ => ends,
        }
    }

    fn silent_at(&self) -> Micros {
        self.last_heard.saturating_add(4 * self.config.heartbeat)
    }

    /// Frames of a kind that is not known here.
    pub fn ignored_frames(&self) -> u64 {
        self.ignored_frames
    }

    pub fn handle(&mut self, event: Event, now: Micros) -> Vec<Effect> {
        if matches!(self.state, State::Closed) {
            return Vec::new();
        }
        let mut effects = match event {
            Event::Frame(frame) => {
                self.last_heard = now;
                self.frame(*frame, now)
            }
            Event::Admitted(admitted) => self.admitted(*admitted, now),
            Event::Committed {
                lane,
                spool,
                bytes,
                done,
            } => self.intake(|intake| intake.committed(lane, spool, bytes, done, now)),
            Event::NotTaken { lane, bytes, resends } => {
                self.intake(|intake| intake.not_taken(lane, bytes, resends, now))
            }
            Event::Room(level) => {
                self.room = level;
                self.intake(|intake| intake.room(level, now))
            }
            Event::StoreFailed => vec![Effect::Close(Close::StoreFailed)],
            Event::Policies(policies) => self.policies(policies),
            Event::Inventory(config) => self.inventory(config),
            Event::TrustBundle(version) => self.trust_bundle(version).into_iter().collect(),
            Event::Tick => self.tick(now),
            Event::Unreadable(what) => protocol(&format!("a frame cannot be read: {what}")),
            Event::Ended => vec![Effect::Close(Close::Ended)],
            Event::Unknown => protocol("the agent is not on file"),
            Event::Refused(refusal) => vec![Effect::Close(Close::Clone(refusal))],
            Event::Probe => self.probe(now),
            Event::Replaced => vec![Effect::Close(Close::Replaced)],
            Event::Cut(why) => vec![Effect::Close(why)],
            Event::Drain(telling) => self.drain(telling),
            Event::Overstayed { stops } => vec![Effect::Close(leave(stops))],
            Event::ShuttingDown => vec![Effect::Close(Close::ShuttingDown)],
        };
        if let Some(index) = effects.iter().position(|effect| matches!(effect, Effect::Close(_))) {
            effects.truncate(index + 1);
            self.state = State::Closed;
        }
        effects
    }

    fn frame(&mut self, request: ConnectRequest, now: Micros) -> Vec<Effect> {
        use connect_request::Frame;
        let has_records = matches!(&request.frame, Some(Frame::Records(records)) if !records.records.is_empty());
        if !has_records && !self.affords(&request, now) {
            return protocol("more frames without records than an agent has reason to send");
        }
        let Some(frame) = request.frame else {
            self.ignored_frames += 1;
            return Vec::new();
        };
        let active = match (&mut self.state, &frame) {
            (State::Handshake, Frame::Hello(_)) => {
                let Frame::Hello(hello) = frame else { return Vec::new() };
                return self.hello(hello);
            }
            (State::Handshake, _) => return protocol("the first frame must be Hello"),
            (_, Frame::Hello(_)) => return protocol("Hello came twice"),
            (State::Admitting { early, early_bytes, .. }, _) => {
                let frame = ConnectRequest { frame: Some(frame) };
                *early_bytes += frame.encoded_len();
                if early.len() >= MAX_EARLY || *early_bytes > MAX_EARLY_BYTES {
                    return protocol("too many frames before Welcome");
                }
                early.push(frame);
                return Vec::new();
            }
            (State::Active(active), _) => active,
            (State::Closed, _) => return Vec::new(),
        };
        let mut effects = vec![Effect::Seen];
        if active.answers(&frame, self.answers_now) {
            effects.push(Effect::Answered);
        }
        match frame {
            Frame::Hello(_) => {}
            Frame::Heartbeat(heartbeat) => {
                effects.push(Effect::Report(report(heartbeat, now)));
                effects.extend(active.answer(self.config.heartbeat, now));
                effects.extend(self.intake.take_back(now));
            }
            Frame::Records(records) => match self.intake.records(records, now) {
                Ok(effect) => effects.extend(effect),
                Err(close) => effects.push(Effect::Close(close)),
            },
            Frame::PolicyStatus(status) if status.digest.len() > MAX_DIGEST => {
                return protocol("the digest of the policy status is not one");
            }
            Frame::PolicyStatus(status) => effects.push(Effect::PolicyStatus(status)),
            Frame::Facts(facts) if facts.facts.len() > MAX_FACTS || facts.encoded_len() > MAX_FACTS_BYTES => {
                return protocol(&format!(
                    "more than {MAX_FACTS} facts, or than {} KiB of them",
                    MAX_FACTS_BYTES >> 10
                ));
            }
            Frame::Facts(facts) if facts.digest.len() > MAX_DIGEST => {
                return protocol("the digest of the facts is not one");
            }
            Frame::Facts(facts) => effects.push(Effect::Facts(facts)),
            Frame::Goodbye(goodbye) => effects.push(Effect::Close(match goodbye.reason() {
                v1::GoodbyeReason::Drained => Close::Left,
                v1::GoodbyeReason::Restarting => Close::Restarting,
                _ => Close::Goodbye,
            })),
            Frame::TrustBundleStatus(status) => effects.push(Effect::TrustBundleHeld(status.version)),
        }
        effects
    }

    fn affords(&mut self, frame: &ConnectRequest, now: Micros) -> bool {
        let cost = FRAME + frame.encoded_len() as i64 * SECOND / BYTES_PER_SECOND;
        let free = now - FRAMES_BURST;
        // When it is further ahead than it gets, the clock was set back.
        let is_ahead = self.frames_paid > now;
        let before = if is_ahead { free } else { self.frames_paid.max(free) };
        let after = before + cost;
        if after <= now {
            self.frames_paid = after;
        }
        after <= now
    }

    fn hello(&mut self, hello: v1::Hello) -> Vec<Effect> {
        self.answers_now = hello.capabilities.iter().any(|known| known == ANSWER_NOW);
        self.resends = hello.capabilities.iter().any(|known| known == RESEND);
        self.drains = hello.capabilities.iter().any(|known| known == DRAIN);
        let knows_bundles = hello.capabilities.iter().any(|known| known == TRUST_BUNDLE);
        self.bundle = knows_bundles.then_some(hello.trust_bundle_version);
        let held_digest = hello.policy_set_digest.clone();
        match hello::check(hello, self.agent) {
            Ok(admission) => {
                self.state = State::Admitting {
                    held_digest,
                    early: Vec::new(),
                    early_bytes: 0,
                };
                vec![Effect::Admit(Box::new(admission))]
            }
            Err(close) => vec![Effect::Close(close)],
        }
    }

    fn admitted(&mut self, admitted: Admitted, now: Micros) -> Vec<Effect> {
        let State::Admitting { held_digest, early, .. } = std::mem::replace(&mut self.state, State::Closed) else {
            return Vec::new();
        };
        let welcome = v1::Welcome {
            session_id: admitted.session_id,
            heartbeat_interval_micros: self.config.heartbeat,
            acked: admitted.acked,
            windows: self.intake.begin(self.room, self.resends, now),
            capabilities: Vec::new(),
            facts_digest: admitted.facts_digest,
            policy_status_digest: admitted.policy_status_digest,
            time_unix_micros: now,
            controller_version: env!("CARGO_PKG_VERSION").into(),
            controller_name: self.config.controller_name.clone(),
            highest_generation: admitted.highest_generation,
        };
        let mut effects = vec![
            send(Frame::Welcome(welcome)),
            send(Frame::AgentConfig(admitted.config.clone())),
        ];
        let held = admitted
            .policies
            .clone()
            .filter(|policies| held_digest == policies.digest);
        self.state = State::Active(Active {
            policies: held,
            config: admitted.config,
            heartbeat_due: now + self.config.heartbeat,
            probe: None,
        });
        effects.extend(self.bundle.map(Effect::TrustBundleHeld));
        effects.extend(self.trust_bundle(admitted.trust_bundle));
        if let Some(policies) = admitted.policies {
            effects.extend(self.policies(policies));
        }
        for frame in early {
            effects.extend(self.frame(frame, now));
        }
        effects
    }

    /// Before the link is active nothing has come that this could be about.
    fn intake(&mut self, on: impl FnOnce(&mut Intake) -> Vec<Effect>) -> Vec<Effect> {
        match &self.state {
            State::Active(_) => on(&mut self.intake),
            _ => Vec::new(),
        }
    }

    fn policies(&mut self, policies: Arc<PolicySet>) -> Vec<Effect> {
        let State::Active(active) = &mut self.state else {
            return Vec::new();
        };
        if active
            .policies
            .as_ref()
            .is_some_and(|sent| sent.digest == policies.digest)
        {
            return Vec::new();
        }
        let frames = policy_sync::frames(active.policies.as_deref(), &policies);
        active.policies = Some(policies);
        frames
            .into_iter()
            .map(Effect::Send)
            .chain([Effect::PolicySyncSent])
            .collect()
    }

    fn trust_bundle(&mut self, version: i64) -> Option<Effect> {
        if !matches!(self.state, State::Active(_)) || self.bundle? >= version {
            return None;
        }
        self.bundle = Some(version);
        Some(Effect::SendTrustBundle)
    }

    fn inventory(&mut self, config: AgentConfig) -> Vec<Effect> {
        let State::Active(active) = &mut self.state else {
            return Vec::new();
        };
        // All but the revision, which every change in the inventory moves.
        let same = AgentConfig {
            revision: active.config.revision,
            ..config.clone()
        };
        if same == active.config {
            return Vec::new();
        }
        active.config = config.clone();
        vec![send(Frame::AgentConfig(config))]
    }

    fn probe(&mut self, now: Micros) -> Vec<Effect> {
        let State::Active(active) = &mut self.state else {
            return Vec::new();
        };
        active.probe = Some(Asked(now));
        active.heartbeat_due = now + self.config.heartbeat;
        vec![heartbeat(now, self.answers_now)]
    }

    /// Whoever does not know the frame, or is not yet there, can only be shown out.
    fn drain(&mut self, telling: Telling) -> Vec<Effect> {
        if !self.drains || !matches!(self.state, State::Active(_)) {
            return vec![Effect::Close(leave(telling.stops))];
        }
        let reason = if telling.stops {
            "the controller stops"
        } else {
            "the controller sends its agents away"
        };
        let drain = v1::Drain {
            within_micros: clock::from_duration(telling.within),
            endpoints: telling.endpoints,
            reason: reason.to_owned(),
        };
        vec![send(Frame::Drain(drain)), Effect::Leaving]
    }

    fn tick(&mut self, now: Micros) -> Vec<Effect> {
        if now >= self.silent_at() {
            return vec![Effect::Close(Close::Silent)];
        }
        if now >= self.expires {
            return vec![Effect::Close(Close::Expired)];
        }
        let State::Active(active) = &mut self.state else {
            return Vec::new();
        };
        let mut effects = self.intake.acknowledge(now);
        // Also when the clock was set back behind the last one.
        if now >= active.heartbeat_due || active.heartbeat_due - now > 2 * self.config.heartbeat {
            active.heartbeat_due = now + self.config.heartbeat;
            effects.extend(self.intake.take_back(now));
            effects.push(heartbeat(now, false));
        }
        effects
    }
}

impl Active {
    /// A heartbeat for a heartbeat: one time at which there is something to do for both. As long as the agent's come, there is
    /// no other.
    fn answer(&mut self, interval: Micros, now: Micros) -> Option<Effect> {
        let is_soon_due = self.heartbeat_due - now <= interval / 4 * 3;
        is_soon_due.then(|| {
            self.heartbeat_due = now + interval + interval / 4;
            heartbeat(now, false)
        })
    }

    /// Whether a frame answers the probe. What was on its way already says nothing: an agent that died has sent it too. Of
    /// one that cannot answer at once any word has to do.
    fn answers(&mut self, frame: &connect_request::Frame, answers_now: bool) -> bool {
        let Some(Asked(at)) = self.probe else { return false };
        let is_answer = match frame {
            connect_request::Frame::Heartbeat(heartbeat) => heartbeat.echo_unix_micros >= at,
            connect_request::Frame::Goodbye(_) => false,
            _ => !answers_now,
        };
        if is_answer {
            self.probe = None;
        }
        is_answer
    }
}

fn report(heartbeat: v1::Heartbeat, now: Micros) -> Report {
    // What an agent says of time may be anything, so nothing here may overflow.
    let has_echo = heartbeat.echo_unix_micros > 0 && heartbeat.echo_age_micros >= 0;
    let round_trip = has_echo.then(|| {
        now.saturating_sub(heartbeat.echo_unix_micros)
            .saturating_sub(heartbeat.echo_age_micros)
            .max(0)
    });
    let skew = round_trip.map(|round_trip| heartbeat.time_unix_micros.saturating_sub(now - round_trip / 2));
    let mut lanes = heartbeat.lanes;
    lanes.truncate(8);
    Report {
        round_trip,
        skew,
        lanes,
    }
}

fn leave(stops: bool) -> Close {
    match stops {
        true => Close::ShuttingDown,
        false => Close::Draining,
    }
}

fn heartbeat(now: Micros, answer_now: bool) -> Effect {
    send(Frame::Heartbeat(v1::ControllerHeartbeat {
        time_unix_micros: now,
        answer_now,
    }))
}

fn send(frame: Frame) -> Effect {
    Effect::Send(ConnectResponse { frame: Some(frame) })
}

fn protocol(what: &str) -> Vec<Effect> {
    vec![Effect::Close(Close::Protocol(what.to_owned()))]
}
