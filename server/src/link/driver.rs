//! The I/O of one link: reads frames, feeds the session, does what it says. Owns everything of its link; ends with it.

mod agent_config;
mod door;
mod notices;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
    vec,
};

use futures_channel::mpsc;
use futures_util::{
    FutureExt as _, SinkExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use muster_proto::{
    ids::AgentId,
    v1::{AgentConfig, ConnectRequest, ConnectResponse, Lane, connect_response},
};
use tokio::sync::{SetOnce, oneshot};
use tracing::{debug, info};

use self::{
    door::{Newcomer, answered},
    notices::{Notice, Sources},
};
use super::{
    Close, Config, Links, Registered,
    arrivals::Arrivals,
    bulletin::Bulletins,
    draining::Due,
    session::{Effect, Event, Received, Session},
};
use crate::{
    agents::{Agents, Entry},
    aside::Aside,
    clock::{self, Micros},
    clones::Party,
    ingest::{self, Job, Lost, Refused, Why},
    pki::Pki,
    policies::{Policies, PolicySet},
    telemetry::Telemetry,
};

/// From where on a link's next moment is one for all links.
const FAR: Micros = 8 * clock::SECOND;

/// What a link works with.
#[derive(Clone, Debug)]
pub struct Deps {
    pub config: Config,
    /// Where agents reach controllers, when that is configured.
    pub advertise: Arc<[String]>,
    pub agents: Arc<Agents>,
    pub policies: Arc<Policies>,
    pub pki: Arc<Pki>,
    pub ingest: ingest::Handle,
    pub links: Arc<Links>,
    pub arrivals: Arc<Arrivals>,
    pub telemetry: Telemetry,
    pub bulletins: Arc<Bulletins>,
}

/// The frames of the agent; an error is the end of the stream. It says what is wrong with a frame that cannot be read, and
/// nothing when it is the connection that broke.
pub type Inbound = BoxStream<'static, Result<ConnectRequest, Option<String>>>;

/// Frames for the agent, and why there are no more. Of a kind of queue that takes memory for what is in it, and next to none when
/// it is empty, as it is nearly always.
pub type Outbound = mpsc::Sender<Unsent>;

/// The answer to one frame of records, when it is committed.
type Pending = BoxFuture<'static, Event>;

struct Link {
    deps: Deps,
    agent: AgentId,
    remote: String,
    serial: String,
    session_id: String,
    session: Session,
    /// Until it is let in, while the session before it is asked.
    newcomer: Option<Box<Newcomer>>,
    outbound: Outbound,
    registered: Arc<SetOnce<Registered>>,
    /// Among all links, for what they do one after the other.
    place: u64,
    /// Of a spool they come in its order, since that is the one in which they are stored.
    pending: FuturesUnordered<Pending>,
    /// Whether records of this link could not be stored, by lane, and for how many times that the lane was sent again.
    lost: BTreeMap<Lane, (u32, Lost)>,
    on_active: Option<Box<dyn FnOnce() + Send>>,
    /// Why it ends; when it breaks down, as if the stream had ended.
    close: Close,
}

/// What follows from an effect that was carried out.
enum Next {
    Nothing,
    Event(Event),
    Send(ConnectResponse),
}

/// What is still to be done of something that has happened.
struct Work {
    events: VecDeque<Event>,
    effects: vec::IntoIter<Effect>,
}

/// A frame as [`Outbound`] takes it.
type Unsent = Result<Box<ConnectResponse>, Close>;

impl From<Option<Event>> for Next {
    fn from(event: Option<Event>) -> Self {
        event.map_or(Next::Nothing, Next::Event)
    }
}

/// What the connection of a link has shown.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Address.
    pub remote: String,
    /// Of the certificate.
    pub serial: String,
    pub not_after: Micros,
}

/// One link, which runs to its end when it is awaited. `on_active` is called when the agent is admitted.
pub fn run(
    deps: Deps,
    agent: AgentId,
    shown: Shown,
    inbound: Inbound,
    outbound: Outbound,
    on_active: Box<dyn FnOnce() + Send>,
) -> impl Future<Output = ()> + Send {
    let now = clock::now();
    let share = deps.ingest.quotas().share(agent, deps.agents.count(), now);
    let session = Session::new(agent, deps.config.clone(), shown.not_after, share, now);
    let session_id = uuid::Uuid::new_v4();
    let mut link = Link {
        deps,
        agent,
        remote: shown.remote,
        serial: shown.serial,
        newcomer: None,
        session_id: session_id.simple().to_string(),
        session,
        outbound,
        registered: Arc::default(),
        // As good as drawn by lot.
        place: session_id.as_u64_pair().0,
        pending: FuturesUnordered::new(),
        lost: BTreeMap::new(),
        on_active: Some(on_active),
        close: Close::Ended,
    };
    async move {
        link.close = link.drive(inbound).await;
        drop(link);
    }
}

impl Link {
    async fn drive(&mut self, mut inbound: Inbound) -> Close {
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let mut armed = None;
        let sources = Sources::new(self.deps.bulletins.follow(), self.registered.clone(), self.place);
        let mut notices = Aside::new(sources.notices());
        loop {
            // However much an agent has sent at once, others live on this thread too.
            tokio::task::consume_budget().await;
            let deadline = self.session.deadline();
            if armed != Some(deadline) {
                armed = Some(deadline);
                timer.as_mut().reset(self.wake(deadline));
            }
            let events = tokio::select! {
                biased;
                Some(notice) = notices.next() => self.noticed(notice),
                answered = answered(&mut self.newcomer) => self.decide(answered).into_iter().collect(),
                Some(answer) = self.pending.next() => vec![answer],
                frame = inbound.next() => vec![match frame {
                    Some(Ok(frame)) => Event::Frame(Box::new(frame)),
                    Some(Err(Some(what))) => Event::Unreadable(what),
                    Some(Err(None)) | None => Event::Ended,
                }],
                () = timer.as_mut() => {
                    armed = None;
                    vec![Event::Tick]
                }
            };
            let mut work = Work {
                events: events.into(),
                effects: Vec::new().into_iter(),
            };
            loop {
                match self.go_on(&mut work) {
                    Ok(None) => break,
                    Ok(Some(unsent)) => {
                        // In a box, since it is rare that one has to wait.
                        if let Err(close) = Box::pin(self.send_when_there_is_room(unsent)).await {
                            return close;
                        }
                    }
                    Err(close) => return close,
                }
            }
        }
    }

    fn noticed(&mut self, notice: Notice) -> Vec<Event> {
        match notice {
            Notice::ShuttingDown => vec![Event::ShuttingDown],
            Notice::Replaced => vec![self.ended_by_another()],
            Notice::Probe => vec![Event::Probe],
            Notice::Drain(Due::Tell(telling)) => vec![Event::Drain(telling)],
            Notice::Drain(Due::End { stops }) => vec![Event::Overstayed { stops }],
            Notice::Room(level) => vec![Event::Room(level)],
            // Whoever is not registered yet reads it afterwards.
            Notice::Trust if !self.registered.initialized() => Vec::new(),
            Notice::Trust => {
                let config = self.current().map(|(config, _)| Event::Inventory(config));
                let bundle = Event::TrustBundle(self.deps.pki.trust_bundle_version());
                config.into_iter().chain([bundle]).collect()
            }
            Notice::Policies => self.assigned().map(Event::Policies).into_iter().collect(),
            Notice::Inventory => match self.current() {
                Some((config, policies)) => {
                    let policies = policies.map(Event::Policies);
                    [Event::Inventory(config)].into_iter().chain(policies).collect()
                }
                None => Vec::new(),
            },
        }
    }

    /// Goes on until all is done, or with a frame for which there is no room now.
    fn go_on(&mut self, work: &mut Work) -> Result<Option<Unsent>, Close> {
        loop {
            for effect in work.effects.by_ref() {
                match self.carry_out(effect)? {
                    Next::Nothing => {}
                    Next::Event(event) => work.events.push_back(event),
                    Next::Send(frame) => {
                        if let Some(unsent) = self.send(frame)? {
                            return Ok(Some(unsent));
                        }
                    }
                }
            }
            match work.events.pop_front() {
                Some(event) => work.effects = self.session.handle(event, clock::now()).into_iter(),
                None => return Ok(None),
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Result<Next, Close> {
        let agents = &self.deps.agents;
        match effect {
            Effect::Send(frame) => return Ok(Next::Send(frame)),
            Effect::SendTrustBundle => {
                let bundle = self.deps.pki.signed_trust_bundle();
                let frame = Some(connect_response::Frame::TrustBundle(bundle));
                return Ok(Next::Send(ConnectResponse { frame }));
            }
            Effect::Admit(admission) => {
                let party = Party::new(admission.fingerprint.clone(), &self.serial, &self.remote);
                return Ok(self.consider(*admission, party, None).into());
            }
            Effect::Facts(facts) => {
                agents.set_facts(self.agent, facts.facts, facts.digest);
                return Ok(self.assigned().map(Event::Policies).into());
            }
            Effect::Ingest(frame) => self.ingest(*frame)?,
            Effect::Answered => {
                if let Some(registered) = self.registered.get() {
                    registered.probe.answered();
                }
            }
            Effect::PolicyStatus(status) => agents.set_policy_status(self.agent, status),
            Effect::Report(report) => agents.heartbeat(self.agent, &self.session_id, report, clock::now()),
            Effect::Seen => agents.seen(self.agent, clock::now()),
            Effect::TrustBundleHeld(version) => agents.set_bundle_version(self.agent, version),
            Effect::Leaving => agents.leaving(self.agent, &self.session_id),
            Effect::Throttled(lane) => {
                let lane = ingest::lane_name(lane);
                self.deps.telemetry.throttled(lane);
                agents.throttled(self.agent, lane, clock::now());
            }
            Effect::PolicySyncSent => self.deps.telemetry.policy_sync(),
            Effect::Close(close) => return Err(close),
        }
        Ok(Next::Nothing)
    }

    /// Hands a frame of records in; its answer comes as an event.
    fn ingest(&mut self, frame: Received) -> Result<(), Close> {
        let Received {
            lane,
            spool,
            first_seq,
            records,
            bytes,
            has_waited,
            resends,
            held,
        } = frame;
        let (done, wait) = oneshot::channel();
        let received_at = clock::now();
        let lost = self.lost(lane, resends);
        let job = Job {
            agent: self.agent,
            spool: spool.clone(),
            first_seq,
            records,
            received_at,
            bytes: bytes as usize,
            has_waited,
            lost: lost.clone(),
            held,
            done,
        };
        self.deps.ingest.submit(lane, job).map_err(|refused| match refused {
            Refused::Full => Close::Overloaded,
            Refused::Stopping => Close::ShuttingDown,
        })?;
        let telemetry = self.deps.telemetry.clone();
        let pending = wait.map(move |done| {
            let took = Duration::from_micros((clock::now() - received_at).max(0) as u64);
            telemetry.ack_latency(ingest::lane_name(lane), took);
            match (done, lost.why()) {
                (Ok(done), _) => Event::Committed {
                    lane,
                    spool,
                    bytes,
                    done,
                },
                (Err(_), Some(Why::NoRoom)) => Event::NotTaken { lane, bytes, resends },
                (Err(_), _) => Event::StoreFailed,
            }
        });
        self.pending.push(pending.boxed());
        Ok(())
    }

    /// What tells whether records were lost that those of this lane come behind.
    fn lost(&mut self, lane: Lane, resends: u32) -> Lost {
        let of_lane = self.lost.entry(lane).or_default();
        if of_lane.0 != resends {
            *of_lane = (resends, Lost::default());
        }
        of_lane.1.clone()
    }

    fn ended_by_another(&self) -> Event {
        match self.registered.get().and_then(|registered| registered.cut.get()) {
            Some(why) => Event::Cut(why.clone()),
            None => Event::Replaced,
        }
    }

    /// What the inventory and the policies say of the agent now.
    fn current(&self) -> Option<(AgentConfig, Option<Arc<PolicySet>>)> {
        let policies = self.assigned();
        let Deps { pki, advertise, .. } = &self.deps;
        let config = |entry: &Entry| agent_config::of(entry, pki, advertise);
        Some((self.deps.agents.with(self.agent, config)?, policies))
    }

    /// The policies that it shall be told now.
    fn assigned(&self) -> Option<Arc<PolicySet>> {
        let compiled = self.deps.policies.current();
        self.deps
            .agents
            .with(self.agent, |entry| compiled.delivered_to(entry))?
    }

    /// Within two heartbeats in any case, since the clock may be set meanwhile.
    fn wake(&self, deadline: Micros) -> tokio::time::Instant {
        let now = clock::now();
        let wait = deadline.saturating_sub(now).clamp(0, 2 * self.deps.config.heartbeat);
        tokio::time::Instant::now() + Duration::from_micros(in_step(now, wait).unsigned_abs())
    }

    /// Gives the frame back when there is no room for it now. Fails when the agent is gone.
    fn send(&mut self, frame: ConnectResponse) -> Result<Option<Unsent>, Close> {
        match self.outbound.try_send(Ok(Box::new(frame))) {
            Ok(()) => Ok(None),
            Err(full) if full.is_full() => Ok(Some(full.into_inner())),
            Err(_) => Err(Close::Ended),
        }
    }

    /// Fails when the agent does not read, or is gone.
    async fn send_when_there_is_room(&mut self, frame: Unsent) -> Result<(), Close> {
        let patience = Duration::from_micros(4 * self.deps.config.heartbeat.max(1) as u64);
        match tokio::time::timeout(patience, self.outbound.feed(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Close::Ended),
            Err(_) => Err(Close::Timeout),
        }
    }
}

/// What is far away is due at a whole second, so that one awakening of the thread does for all links that have nothing to do but
/// to look at the time.
fn in_step(now: Micros, wait: Micros) -> Micros {
    match wait {
        FAR.. => wait + (-(now + wait)).rem_euclid(clock::SECOND),
        _ => wait,
    }
}

/// Whatever ends the link, nobody takes it for connected afterwards.
impl Drop for Link {
    fn drop(&mut self) {
        if self.registered.initialized() {
            self.deps.links.unregister(self.agent, &self.session_id);
            let reason = self.close.status_reason();
            self.deps.telemetry.link_closed(reason);
            self.deps
                .agents
                .disconnected(self.agent, &self.session_id, reason, clock::now());
            info!(agent.id = %self.agent, session.id = self.session_id, reason = ?self.close, "agent disconnected");
        } else {
            debug!(agent.id = %self.agent, reason = ?self.close, "link ended before it was active");
        }
        if self.session.ignored_frames() > 0 {
            debug!(agent.id = %self.agent, count = self.session.ignored_frames(), "frames of unknown kinds were ignored");
        }
        // The receiver may be gone, and a peer that does not read is not waited for.
        let _ = self.outbound.try_send(Err(self.close.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_away_is_due_at_a_whole_second_and_never_early() {
        let now = 1_000 * clock::SECOND + 300_000;
        for wait in [0, 1, clock::SECOND, FAR - 1] {
            assert_eq!(in_step(now, wait), wait);
        }
        assert_eq!(in_step(now, FAR), FAR + 700_000);
        assert_eq!(in_step(now, FAR + 700_000), FAR + 700_000);
        assert_eq!(in_step(now, FAR + 700_001), FAR + 1_700_000);
    }
}
