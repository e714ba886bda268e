//! The I/O of one link: reads frames, feeds the session, does what it says. Owns everything of its link; ends with it.

use std::{sync::Arc, time::Duration};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesOrdered},
};
use muster_proto::{
    ids::AgentId,
    v1::{AckedSpool, AgentConfig, ConnectRequest, ConnectResponse, Lane, connect_response},
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{
    Close, Config, Links, Registered,
    probe::{Probe, Verdict},
    session::{Admission, Admitted, Effect, Event, Session},
};
use crate::{
    agents::{Agents, Connection, Entry},
    clock::{self, MINUTE, Micros},
    clones::{self, Decision, Live, Party},
    ingest::{self, Done, Job, SpoolId},
    pki::Pki,
    policies::{Compiled, Policies},
    telemetry::Telemetry,
};

/// After a change of the CA, within which all agents renew; a tenth of a certificate's life when that is less.
const RENEW_WITHIN: Micros = 10 * MINUTE;

/// What a link works with.
#[derive(Clone, Debug)]
pub struct Deps {
    pub config: Config,
    pub agents: Arc<Agents>,
    pub policies: Arc<Policies>,
    pub pki: Arc<Pki>,
    pub ingest: ingest::Handle,
    pub links: Arc<Links>,
    pub telemetry: Telemetry,
    pub shutdown: CancellationToken,
}

/// The frames of the agent; an error is the end of the stream. It says what is wrong with a frame that cannot be read, and
/// nothing when it is the connection that broke.
pub type Inbound = BoxStream<'static, Result<ConnectRequest, Option<String>>>;

/// The answer to one frame of records, when it is committed.
type Pending = BoxFuture<'static, (Lane, SpoolId, u64, Result<Done, oneshot::error::RecvError>)>;

struct Link {
    deps: Deps,
    agent: AgentId,
    remote: String,
    serial: String,
    session_id: String,
    session: Session,
    /// Until it is let in, while the session before it is asked.
    newcomer: Option<Newcomer>,
    outbound: mpsc::Sender<Result<ConnectResponse, Close>>,
    registered: Option<Registered>,
    policies: watch::Receiver<Arc<Compiled>>,
    /// Told when the CAs change.
    trust: watch::Receiver<()>,
    /// Acknowledgements go out in order within a lane.
    results: FuturesOrdered<Pending>,
    metrics: FuturesOrdered<Pending>,
    /// Records of this link could not be stored.
    lost: CancellationToken,
    on_active: Option<Box<dyn FnOnce() + Send>>,
    /// Why it ends; when it breaks down, as if the stream had ended.
    close: Close,
}

/// An agent that has said Hello while another session of it may be live.
struct Newcomer {
    admission: Admission,
    party: Party,
    /// What the session of this id says to a probe.
    answer: BoxFuture<'static, (String, Verdict)>,
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

/// Runs one link to its end. `on_active` is called when the agent is admitted.
pub async fn run(
    deps: Deps,
    agent: AgentId,
    shown: Shown,
    inbound: Inbound,
    outbound: mpsc::Sender<Result<ConnectResponse, Close>>,
    on_active: Box<dyn FnOnce() + Send>,
) {
    let session = Session::new(agent, deps.config.clone(), shown.not_after, clock::now());
    let mut link = Link {
        policies: deps.policies.watch(),
        trust: deps.pki.watch(),
        deps,
        agent,
        remote: shown.remote,
        serial: shown.serial,
        newcomer: None,
        session_id: uuid::Uuid::new_v4().simple().to_string(),
        session,
        outbound,
        registered: None,
        results: FuturesOrdered::new(),
        metrics: FuturesOrdered::new(),
        lost: CancellationToken::new(),
        on_active: Some(on_active),
        close: Close::Ended,
    };
    link.close = link.drive(inbound).await;
}

impl Link {
    async fn drive(&mut self, mut inbound: Inbound) -> Close {
        let heartbeat = Duration::from_micros(self.deps.config.heartbeat.max(1) as u64);
        // A fraction of the heartbeat, so that it goes out on time.
        let mut ticks = tokio::time::interval(heartbeat / 4);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let changed = self.registered.as_ref().map(|registered| registered.changed.clone());
            let replaced = self.registered.as_ref().map(|registered| registered.replaced.clone());
            let probe = self.registered.as_ref().map(|registered| registered.probe.clone());
            let event = tokio::select! {
                biased;
                () = self.deps.shutdown.cancelled() => Event::ShuttingDown,
                () = until(replaced) => self.ended_by_another(),
                () = asked(probe) => Event::Probe,
                answered = answered(&mut self.newcomer) => match self.decide(answered) {
                    Some(event) => event,
                    None => continue,
                },
                Some(committed) = self.results.next() => to_event(committed),
                Some(committed) = self.metrics.next() => to_event(committed),
                Ok(()) = self.trust.changed(), if self.registered.is_some() => {
                    if let Some((config, _)) = self.current()
                        && let Some(close) = self.step(Event::Inventory(config)).await
                    {
                        return close;
                    }
                    Event::TrustBundle(self.deps.pki.trust_bundle_version())
                }
                Ok(()) = self.policies.changed() => match self.current() {
                    Some((_, policies)) => Event::Policies(policies),
                    None => continue,
                },
                () = notified(changed) => match self.current() {
                    Some((config, policies)) => {
                        if let Some(close) = self.step(Event::Inventory(config)).await {
                            return close;
                        }
                        Event::Policies(policies)
                    }
                    None => continue,
                },
                frame = inbound.next() => match frame {
                    Some(Ok(frame)) => Event::Frame(Box::new(frame)),
                    Some(Err(Some(what))) => Event::Unreadable(what),
                    Some(Err(None)) | None => Event::Ended,
                },
                _ = ticks.tick() => Event::Tick,
            };
            if let Some(close) = self.step(event).await {
                return close;
            }
        }
    }

    /// One event with all that follows from it.
    async fn step(&mut self, event: Event) -> Option<Close> {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.session.handle(event, clock::now()) {
                match effect {
                    Effect::Send(frame) => {
                        if !self.send(frame).await {
                            return Some(Close::Timeout);
                        }
                    }
                    Effect::Admit(admission) => {
                        let party = Party::new(admission.fingerprint.clone(), &self.serial, &self.remote);
                        events.extend(self.consider(*admission, party, None));
                    }
                    Effect::Answered => {
                        if let Some(registered) = &self.registered {
                            registered.probe.answered();
                        }
                    }
                    Effect::Ingest {
                        lane,
                        spool,
                        first_seq,
                        records,
                        bytes,
                    } => {
                        let (done, wait) = oneshot::channel();
                        let received_at = clock::now();
                        let job = Job {
                            agent: self.agent,
                            spool: spool.clone(),
                            first_seq,
                            records,
                            received_at,
                            bytes: bytes as usize,
                            lost: self.lost.clone(),
                            done,
                        };
                        if !self.submit(lane, job).await {
                            return Some(Close::ShuttingDown);
                        }
                        let telemetry = self.deps.telemetry.clone();
                        let pending = wait.map(move |done| {
                            let took = Duration::from_micros((clock::now() - received_at).max(0) as u64);
                            telemetry.ack_latency(ingest::lane_name(lane), took);
                            (lane, spool, bytes, done)
                        });
                        let queue = if lane == Lane::Metrics {
                            &mut self.metrics
                        } else {
                            &mut self.results
                        };
                        queue.push_back(pending.boxed());
                    }
                    Effect::Facts(facts) => {
                        self.deps.agents.set_facts(self.agent, facts.facts, facts.digest);
                        if let Some((_, policies)) = self.current() {
                            events.push_back(Event::Policies(policies));
                        }
                    }
                    Effect::PolicyStatus(status) => self.deps.agents.set_policy_status(self.agent, status),
                    Effect::Report(report) => self.deps.agents.heartbeat(self.agent, &self.session_id, report),
                    Effect::Seen => self.deps.agents.seen(self.agent, clock::now()),
                    Effect::SendTrustBundle => {
                        let bundle = self.deps.pki.signed_trust_bundle();
                        let frame = Some(connect_response::Frame::TrustBundle(bundle));
                        if !self.send(ConnectResponse { frame }).await {
                            return Some(Close::Timeout);
                        }
                    }
                    Effect::TrustBundleHeld(version) => self.deps.agents.set_bundle_version(self.agent, version),
                    Effect::PolicySyncSent => self.deps.telemetry.policy_sync(),
                    Effect::Close(close) => return Some(close),
                }
            }
        }
        None
    }

    /// False when the controller is stopping. While a full queue keeps the link from being read, the agent's silence is not
    /// its own.
    async fn submit(&mut self, lane: Lane, job: Job) -> bool {
        let submitted = self.deps.ingest.submit(lane, job);
        tokio::pin!(submitted);
        let heartbeat = Duration::from_micros(self.deps.config.heartbeat.max(1) as u64);
        loop {
            tokio::select! {
                taken = &mut submitted => return taken,
                () = self.deps.shutdown.cancelled() => return false,
                () = tokio::time::sleep(heartbeat) => self.deps.agents.seen(self.agent, clock::now()),
            }
        }
    }

    fn ended_by_another(&self) -> Event {
        match self.registered.as_ref().and_then(|registered| registered.cut.get()) {
            Some(why) => Event::Cut(why.clone()),
            None => Event::Replaced,
        }
    }

    /// The live session has said something to its probe, or nothing.
    fn decide(&mut self, (session_id, verdict): (String, Verdict)) -> Option<Event> {
        let Newcomer { admission, party, .. } = self.newcomer.take()?;
        self.consider(admission, party, Some((session_id, verdict)))
    }

    /// Whether the agent may come in; none: another session of it is asked first.
    fn consider(
        &mut self,
        admission: Admission,
        party: Party,
        mut verdict: Option<(String, Verdict)>,
    ) -> Option<Event> {
        let absence = self.deps.links.absence();
        loop {
            let now = clock::now();
            let live = self.deps.links.live(self.agent);
            let live_party = live.as_ref().map(|live| &*live.party);
            let probe = match (&live, verdict.take()) {
                // What another session has said is of no use.
                (Some(live), Some((session_id, verdict))) if session_id == live.session_id => match verdict {
                    Verdict::Answered => clones::Probe::Answered,
                    Verdict::Silent | Verdict::Ended => clones::Probe::Silent,
                },
                _ => clones::Probe::Open,
            };
            let on_file = live_party.map(|party| Live { party, probe });
            let Some(decision) = self.deps.agents.judge(self.agent, on_file, &party, absence, now) else {
                return Some(Event::Unknown);
            };
            match decision {
                Decision::Probe => {
                    let live = live?;
                    let answer = self.deps.links.question(live.clone(), &party);
                    self.newcomer = Some(Newcomer {
                        admission,
                        party,
                        answer: answer.map(move |verdict| (live.session_id, verdict)).boxed(),
                    });
                    return None;
                }
                Decision::Refuse => {
                    let configured = self.deps.config.on_clone;
                    let refusal = self
                        .deps
                        .agents
                        .clone_refused(self.agent, live_party, &party, configured, now);
                    self.deps.telemetry.clone_seen("refused");
                    return Some(refusal.map_or(Event::Unknown, |refusal| Event::Refused(Box::new(refusal))));
                }
                Decision::Admit | Decision::Displace => {
                    let expected = live.as_ref().map(|live| live.session_id.as_str());
                    if self.register(&admission, &party, expected, now) {
                        self.deps
                            .agents
                            .machine_admitted(self.agent, decision, live_party, &party, now);
                        if decision == Decision::Displace {
                            self.deps.telemetry.clone_seen("displaced");
                        }
                        // Trust may have ended since the door let it in; whoever ends it from here on finds the link.
                        let serial = &party.serial;
                        let counts = |entry: &Entry| entry.is_trusted() && entry.certificate_of(serial).is_some();
                        if self.deps.agents.with(self.agent, counts) != Some(true) {
                            return Some(Event::Cut(Close::Revoked));
                        }
                        return Some(match self.admit(admission) {
                            Some(admitted) => Event::Admitted(Box::new(admitted)),
                            None => Event::Unknown,
                        });
                    }
                }
            }
        }
    }

    /// False when another newcomer was faster.
    fn register(&mut self, admission: &Admission, party: &Party, expected: Option<&str>, now: Micros) -> bool {
        let connection = Connection {
            session_id: self.session_id.clone(),
            connected_at: now,
            remote: self.remote.clone(),
            report: None,
        };
        let hello = admission.hello.clone();
        let connected = || self.deps.agents.connected(self.agent, connection, hello, now);
        let links = &self.deps.links;
        self.registered = links.register(self.agent, &self.session_id, party.clone(), expected, connected);
        if self.registered.is_some() {
            self.deps.telemetry.link_opened();
        }
        self.registered.is_some()
    }

    /// It is registered: what is read after that cannot miss a change.
    fn admit(&mut self, admission: Admission) -> Option<Admitted> {
        let named: Vec<SpoolId> = admission.spools.iter().map(|(spool, _)| spool.clone()).collect();
        let highest_generation = self.deps.ingest.highest_generation(self.agent, &named);
        let acked = admission
            .spools
            .into_iter()
            .map(|(spool, lane)| AckedSpool {
                through_seq: self.deps.ingest.mark(self.agent, lane, &spool),
                spool_id: spool.to_string(),
                lane: lane as i32,
            })
            .collect();
        let (config, policies) = self.current()?;
        let (facts_digest, policy_status_digest) = self.deps.agents.with(self.agent, |entry| {
            (entry.facts_digest.clone(), entry.policy_status.digest.clone())
        })?;
        if let Some(on_active) = self.on_active.take() {
            on_active();
        }
        info!(agent.id = %self.agent, session.id = self.session_id, remote = self.remote, "agent connected");
        let session_id = self.session_id.clone();
        Some(Admitted {
            session_id,
            acked,
            facts_digest,
            policy_status_digest,
            config,
            policies,
            highest_generation,
            trust_bundle: self.deps.pki.trust_bundle_version(),
        })
    }

    /// What the inventory and the policies say of the agent now.
    fn current(&mut self) -> Option<(AgentConfig, Arc<crate::policies::PolicySet>)> {
        let compiled = self.policies.borrow_and_update().clone();
        let pki = self.deps.pki.clone();
        self.deps.agents.with(self.agent, |entry| {
            (to_config(entry, &pki), compiled.set_for(|key| entry.value(key)))
        })
    }

    /// False when the agent does not read.
    async fn send(&mut self, frame: ConnectResponse) -> bool {
        let patience = Duration::from_micros(4 * self.deps.config.heartbeat.max(1) as u64);
        matches!(
            tokio::time::timeout(patience, self.outbound.send(Ok(frame))).await,
            Ok(Ok(()))
        )
    }
}

/// Whatever ends the link, nobody takes it for connected afterwards.
impl Drop for Link {
    fn drop(&mut self) {
        if self.registered.is_some() {
            self.deps.links.unregister(self.agent, &self.session_id);
            self.deps.telemetry.link_closed();
            self.deps
                .agents
                .disconnected(self.agent, &self.session_id, self.close.status_reason(), clock::now());
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

fn to_config(entry: &Entry, pki: &Pki) -> AgentConfig {
    AgentConfig {
        name: entry.name.clone(),
        labels: entry.authoritative_labels(),
        revision: entry.revision,
        renew_after_unix_micros: renew_after(entry, pki),
        endpoints: Vec::new(),
    }
}

/// When an agent shall renew that still has a certificate of the CA before: soon after the change, but not all at once.
fn renew_after(entry: &Entry, pki: &Pki) -> i64 {
    let authorities = pki.authorities();
    let active = &authorities.active().entry;
    let certificate = &entry.certificate;
    if certificate.ca == active.id || certificate.ca.is_empty() || active.activated_at == 0 {
        return 0;
    }
    let life = (certificate.not_after - certificate.issued_at).max(0);
    let spread = (life / 10).clamp(1, RENEW_WITHIN);
    let place = entry.id.uuid().as_u128() % spread.unsigned_abs() as u128;
    active.activated_at + i64::try_from(place).unwrap_or_default()
}

fn to_event((lane, spool, bytes, done): (Lane, SpoolId, u64, Result<Done, oneshot::error::RecvError>)) -> Event {
    match done {
        Ok(done) => Event::Committed {
            lane,
            spool,
            bytes,
            done,
        },
        Err(_) => Event::StoreFailed,
    }
}

async fn until(token: Option<CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

async fn asked(probe: Option<Arc<Probe>>) {
    match probe {
        Some(probe) => probe.asked().await,
        None => std::future::pending().await,
    }
}

async fn answered(newcomer: &mut Option<Newcomer>) -> (String, Verdict) {
    match newcomer {
        Some(newcomer) => (&mut newcomer.answer).await,
        None => std::future::pending().await,
    }
}

async fn notified(notify: Option<Arc<tokio::sync::Notify>>) {
    match notify {
        Some(notify) => notify.notified().await,
        None => std::future::pending().await,
    }
}
