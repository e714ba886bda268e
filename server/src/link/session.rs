//! The session of one link, sans-IO: `(state, event, now) → effects`. Handshake → Active → Closed. It knows neither sockets
//! nor the store; what it wants done it says.

use std::{collections::BTreeMap, sync::Arc};

use muster_proto::{
    ids::AgentId,
    label,
    v1::{
        self, AckedSpool, AgentConfig, ConnectRequest, ConnectResponse, Lane, LaneWindow, connect_request,
        connect_response::Frame,
    },
};
use prost::Message as _;

use super::policy_sync;
use crate::{
    agents::{Hello, OnClone, Report, liveness},
    clock::Micros,
    clones::Refusal,
    ingest::{Done, SpoolId},
    policies::PolicySet,
    tokens,
};

/// Capability of agents that answer a heartbeat at once when it asks for that.
const ANSWER_NOW: &str = "answer-now";
const TRUST_BUNDLE: &str = "trust-bundle";
/// The only version of the protocol there is.
const PROTOCOL_VERSION: u32 = 1;
/// Bytes of records that an agent may have unacknowledged in a lane.
const WINDOW_BYTES: u64 = 1 << 20;
const MAX_SPOOLS: usize = 64;
const MAX_FACTS: usize = 1_000;
const MAX_WARNINGS: usize = 32;
const MAX_CAPABILITIES: usize = 64;
const MAX_WARNING: usize = 1_024;
/// Of an agent's version; digests are "sha256:<hex>".
const MAX_VERSION: usize = 64;
const MAX_DIGEST: usize = 128;
/// Encoded; lists of agents hold the facts of each.
const MAX_FACTS_BYTES: usize = 64 << 10;
/// Records of one frame; an agent's frame of 64 KiB holds far fewer.
const MAX_RECORDS: usize = 8_192;
/// What a record counts in the window beside its bytes: an empty one is two bytes on the wire and hundreds in memory.
const RECORD_COST: u64 = 32;

#[derive(Clone, Debug)]
pub struct Config {
    pub heartbeat: Micros,
    pub controller_name: String,
    /// What happens to copies, unless the token or an operator says otherwise.
    pub on_clone: OnClone,
}

#[derive(Debug)]
pub enum Event {
    Frame(Box<ConnectRequest>),
    /// The register has taken the session; what it needs for `Welcome`.
    Admitted(Box<Admitted>),
    /// Records were committed.
    Committed {
        lane: Lane,
        spool: SpoolId,
        bytes: u64,
        done: Done,
    },
    /// Records could not be stored: without an acknowledgement the link has to begin anew.
    StoreFailed,
    /// The set the agent shall have, when it may have changed.
    Policies(Arc<PolicySet>),
    /// What the inventory says of the agent, when it may have changed.
    Inventory(AgentConfig),
    /// The version of the trust bundle there is, when it may have changed.
    TrustBundle(i64),
    Tick,
    /// A frame came that is no frame, or is too large for one; nothing can come after it.
    Unreadable(String),
    /// The stream has ended.
    Ended,
    /// The agent is not on file any longer.
    Unknown,
    /// Another machine is this agent.
    Refused(Box<Refusal>),
    /// Somebody wants to know whether the agent is still there.
    Probe,
    Replaced,
    /// Somebody has ended the link, and says why.
    Cut(Close),
    ShuttingDown,
}

#[derive(Debug)]
pub struct Admitted {
    pub session_id: String,
    pub acked: Vec<AckedSpool>,
    pub facts_digest: String,
    pub policy_status_digest: String,
    pub config: AgentConfig,
    pub policies: Arc<PolicySet>,
    /// Of the agent's other spools; 0: there are none.
    pub highest_generation: i64,
    /// Version of the trust bundle there is.
    pub trust_bundle: i64,
}

#[derive(Debug)]
pub enum Effect {
    Send(ConnectResponse),
    /// Register the agent and answer with `Event::Admitted`.
    Admit(Box<Admission>),
    Ingest {
        lane: Lane,
        spool: SpoolId,
        first_seq: u64,
        records: Vec<v1::Record>,
        bytes: u64,
    },
    Facts(v1::Facts),
    PolicyStatus(v1::PolicyStatus),
    Report(Report),
    /// The agent has been heard of.
    Seen,
    PolicySyncSent,
    /// Send the trust bundle as it is now.
    SendTrustBundle,
    /// The agent has taken over this version.
    TrustBundleHeld(i64),
    /// The agent has answered a probe.
    Answered,
    Close(Close),
}

#[derive(Debug)]
pub struct Admission {
    pub hello: Hello,
    /// The spools it has unacknowledged records in, and their lanes.
    pub spools: Vec<(SpoolId, Lane)>,
    pub fingerprint: Option<v1::Fingerprint>,
}

/// Why a link ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    Clone(Box<Refusal>),
    Goodbye,
    Ended,
    /// Nothing was heard for four heartbeats, or nothing could be sent.
    Timeout,
    Replaced,
    /// The trust in the agent, or in its certificate, has ended.
    Revoked,
    /// The certificate has expired, and the agent has not renewed it.
    Expired,
    ShuttingDown,
    StoreFailed,
    Version {
        wanted: u32,
    },
    Protocol(String),
}

impl Close {
    /// The reason of the agent's status.
    pub fn status_reason(&self) -> &'static str {
        match self {
            Self::Goodbye => liveness::GOODBYE,
            Self::Timeout => liveness::TIMEOUT,
            Self::Expired => liveness::EXPIRED,
            _ => liveness::EOF,
        }
    }
}

#[derive(Debug)]
enum State {
    Handshake,
    /// `Hello` was accepted, the register has not answered yet. Frames that come early wait.
    Admitting {
        held_digest: String,
        early: Vec<ConnectRequest>,
    },
    Active(Active),
    Closed,
}

#[derive(Debug)]
struct Active {
    /// The set that was sent last; none until the first.
    policies: Option<Arc<PolicySet>>,
    config: AgentConfig,
    unacked: BTreeMap<i32, u64>,
    last_sent: Micros,
    probe: Option<Asked>,
}

/// The clock in the heartbeat that asked, which comes back in the answer.
#[derive(Clone, Copy, Debug)]
struct Asked(Micros);

#[derive(Debug)]
pub struct Session {
    agent: AgentId,
    config: Config,
    /// When the certificate ends that the link was made with. Who has renewed it makes another link.
    expires: Micros,
    state: State,
    last_heard: Micros,
    ignored_frames: u64,
    /// With the capability "trust-bundle": the version that the agent holds, or that is on its way to it.
    bundle: Option<i64>,
    /// The agent has the capability "answer-now".
    answers_now: bool,
}

impl Session {
    pub fn new(agent: AgentId, config: Config, expires: Micros, now: Micros) -> Self {
        Self {
            agent,
            config,
            expires,
            state: State::Handshake,
            last_heard: now,
            ignored_frames: 0,
            bundle: None,
            answers_now: false,
        }
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
            } => self.committed(lane, &spool, bytes, done),
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
            (State::Admitting { early, .. }, _) => {
                if early.len() >= 64 {
                    return protocol("too many frames before Welcome");
                }
                early.push(ConnectRequest { frame: Some(frame) });
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
            Frame::Heartbeat(heartbeat) => effects.push(Effect::Report(report(heartbeat, now))),
            Frame::Records(records) => effects.extend(active.records(records)),
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
            Frame::Goodbye(_) => effects.push(Effect::Close(Close::Goodbye)),
            Frame::TrustBundleStatus(status) => effects.push(Effect::TrustBundleHeld(status.version)),
        }
        effects
    }

    fn hello(&mut self, hello: v1::Hello) -> Vec<Effect> {
        if hello.protocol_version != PROTOCOL_VERSION {
            return vec![Effect::Close(Close::Version {
                wanted: hello.protocol_version,
            })];
        }
        if hello.agent_id.parse() != Ok(self.agent) {
            return protocol("the agent id of Hello is not that of the certificate");
        }
        if hello.spools.len() > MAX_SPOOLS || hello.warnings.len() > MAX_WARNINGS {
            return protocol("Hello has too many spools or warnings");
        }
        if hello.capabilities.len() > MAX_CAPABILITIES {
            return protocol("Hello has too many capabilities");
        }
        let has_version = hello.agent_version.len() <= MAX_VERSION && label::value_is_valid(&hello.agent_version);
        if !tokens::label_violations("labels", &hello.labels).is_empty() || !has_version {
            return protocol("the labels or the version of Hello are not valid");
        }
        let mut spools = Vec::new();
        for spool in &hello.spools {
            match spool.spool_id.parse::<SpoolId>() {
                Ok(id) => spools.push((id, spool.lane())),
                Err(error) => return protocol(&error.to_string()),
            }
        }
        self.answers_now = hello.capabilities.iter().any(|known| known == ANSWER_NOW);
        let knows_bundles = hello.capabilities.iter().any(|known| known == TRUST_BUNDLE);
        self.bundle = knows_bundles.then_some(hello.trust_bundle_version);
        let fingerprint = hello.fingerprint;
        self.state = State::Admitting {
            held_digest: hello.policy_set_digest,
            early: Vec::new(),
        };
        let hello = Hello {
            version: hello.agent_version,
            labels: hello.labels,
            warnings: hello.warnings.into_iter().map(|text| cut(text, MAX_WARNING)).collect(),
        };
        vec![Effect::Admit(Box::new(Admission {
            hello,
            spools,
            fingerprint,
        }))]
    }

    fn admitted(&mut self, admitted: Admitted, now: Micros) -> Vec<Effect> {
        let State::Admitting { held_digest, early } = std::mem::replace(&mut self.state, State::Closed) else {
            return Vec::new();
        };
        let window = |lane: Lane| LaneWindow {
            lane: lane as i32,
            window_bytes: WINDOW_BYTES,
        };
        let welcome = v1::Welcome {
            session_id: admitted.session_id,
            heartbeat_interval_micros: self.config.heartbeat,
            acked: admitted.acked,
            windows: vec![window(Lane::Results), window(Lane::Metrics)],
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
        let is_held = held_digest == admitted.policies.digest;
        self.state = State::Active(Active {
            policies: is_held.then(|| admitted.policies.clone()),
            config: admitted.config,
            unacked: BTreeMap::new(),
            last_sent: now,
            probe: None,
        });
        effects.extend(self.bundle.map(Effect::TrustBundleHeld));
        effects.extend(self.trust_bundle(admitted.trust_bundle));
        effects.extend(self.policies(admitted.policies));
        for frame in early {
            effects.extend(self.frame(frame, now));
        }
        effects
    }

    fn committed(&mut self, lane: Lane, spool: &SpoolId, bytes: u64, done: Done) -> Vec<Effect> {
        let State::Active(active) = &mut self.state else {
            return Vec::new();
        };
        let unacked = active.unacked.entry(lane as i32).or_default();
        *unacked = unacked.saturating_sub(bytes);
        vec![send(Frame::Ack(v1::Ack {
            lane: lane as i32,
            spool_id: spool.to_string(),
            through_seq: done.through_seq,
            rejected: done.rejected,
            window_bytes: WINDOW_BYTES,
        }))]
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
        let same = |of: &AgentConfig| (of.name.clone(), of.labels.clone(), of.renew_after_unix_micros);
        if same(&active.config) == same(&config) {
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
        active.last_sent = now;
        vec![send(Frame::Heartbeat(v1::ControllerHeartbeat {
            time_unix_micros: now,
            answer_now: self.answers_now,
        }))]
    }

    fn tick(&mut self, now: Micros) -> Vec<Effect> {
        if now - self.last_heard >= 4 * self.config.heartbeat {
            return vec![Effect::Close(Close::Timeout)];
        }
        if now >= self.expires {
            return vec![Effect::Close(Close::Expired)];
        }
        match &mut self.state {
            // Also when the clock was set back behind the last one.
            State::Active(active) if (now - active.last_sent).abs() >= self.config.heartbeat => {
                active.last_sent = now;
                vec![send(Frame::Heartbeat(v1::ControllerHeartbeat {
                    time_unix_micros: now,
                    answer_now: false,
                }))]
            }
            _ => Vec::new(),
        }
    }
}

impl Active {
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

    fn records(&mut self, records: v1::Records) -> Vec<Effect> {
        let lane = records.lane();
        if !matches!(lane, Lane::Results | Lane::Metrics) {
            return protocol("records of a lane that does not exist");
        }
        let Ok(spool) = records.spool_id.parse::<SpoolId>() else {
            return protocol("records without a valid spool id");
        };
        if records.records.is_empty() {
            return Vec::new();
        }
        if records.first_seq == 0 || records.first_seq.checked_add(records.records.len() as u64).is_none() {
            return protocol("sequence numbers are from 1 to 2^64 - 1");
        }
        if records.records.len() > MAX_RECORDS {
            return protocol(&format!("more than {MAX_RECORDS} records in one frame"));
        }
        let bytes = records.encoded_len() as u64 + RECORD_COST * records.records.len() as u64;
        let unacked = self.unacked.entry(lane as i32).or_default();
        // A frame may lie over the edge of the window, but not windows of them.
        if *unacked > 2 * WINDOW_BYTES {
            return protocol("more records than the window allows");
        }
        *unacked += bytes;
        vec![Effect::Ingest {
            lane,
            spool,
            first_seq: records.first_seq,
            records: records.records,
            bytes,
        }]
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

/// At most `max` bytes of a text.
fn cut(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}

fn send(frame: Frame) -> Effect {
    Effect::Send(ConnectResponse { frame: Some(frame) })
}

fn protocol(what: &str) -> Vec<Effect> {
    vec![Effect::Close(Close::Protocol(what.to_owned()))]
}
