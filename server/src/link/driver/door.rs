//! A newcomer at the register: whether it may come in while another session of its agent may be live, and what it is told
//! when it is in.

use futures_util::{FutureExt as _, future::BoxFuture};
use muster_proto::v1::AckedSpool;
use tracing::info;

use super::{super::probe::Verdict, Link};
use crate::{
    agents::{Connection, Entry},
    clock::{self, Micros},
    clones::{self, Decision, Live, Party},
    ingest::SpoolId,
    link::{
        Close,
        session::{Admission, Admitted, Event},
    },
};

/// An agent that has said Hello while another session of it may be live.
pub(super) struct Newcomer {
    admission: Admission,
    party: Party,
    /// What the session of this id says to a probe.
    answer: BoxFuture<'static, (String, Verdict)>,
}

impl Link {
    /// The live session has said something to its probe, or nothing.
    pub(super) fn decide(&mut self, (session_id, verdict): (String, Verdict)) -> Option<Event> {
        let Newcomer { admission, party, .. } = *self.newcomer.take()?;
        self.consider(admission, party, Some((session_id, verdict)))
    }

    /// Whether the agent may come in; none: another session of it is asked first.
    pub(super) fn consider(
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
                    self.newcomer = Some(Box::new(Newcomer {
                        admission,
                        party,
                        answer: answer.map(move |verdict| (live.session_id, verdict)).boxed(),
                    }));
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
        let connection = Connection::new(&self.session_id, &self.remote, now);
        let hello = admission.hello.clone();
        let connected = || self.deps.agents.connected(self.agent, connection, hello, now);
        let links = &self.deps.links;
        let registered = links.register(self.agent, &self.session_id, party.clone(), expected, connected);
        let is_in = registered.is_some_and(|registered| self.registered.set(registered).is_ok());
        if is_in {
            self.deps.telemetry.link_opened();
        }
        is_in
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
}

pub(super) async fn answered(newcomer: &mut Option<Box<Newcomer>>) -> (String, Verdict) {
    match newcomer {
        Some(newcomer) => (&mut newcomer.answer).await,
        None => std::future::pending().await,
    }
}
