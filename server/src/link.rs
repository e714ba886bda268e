//! Links: the stream of each connected agent and its session. The session decides and does no I/O; the driver does the I/O
//! and decides nothing; here is the register of who is connected. Knows frames, but no gRPC.

pub mod arrivals;
pub mod bulletin;
pub mod draining;
mod driver;
mod policy_sync;
mod probe;
pub mod session;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use muster_proto::ids::AgentId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use driver::{Deps, Inbound, Shown, run};
pub use session::{Close, Config};

use self::{
    draining::Draining,
    probe::{Probe, Verdict},
};
use crate::{
    clock::{self, Micros},
    clones::Party,
};

/// Who is connected. One session for each agent: a newer one replaces the older, when it may (`clones`).
#[derive(Debug)]
pub struct Links {
    sessions: Mutex<HashMap<AgentId, Registered>>,
    /// How long a session may take to answer a probe.
    patience: Duration,
    heartbeat: Duration,
    draining: Draining,
    /// Told when the last one is gone.
    emptied: Notify,
}

/// How others reach a session.
#[derive(Clone, Debug)]
struct Registered {
    session_id: String,
    /// Who holds it.
    party: Arc<Party>,
    probe: Arc<Probe>,
    /// A newer session has taken over.
    replaced: CancellationToken,
    /// Why somebody else ended it; none: by taking over.
    cut: Arc<OnceLock<Close>>,
    /// Labels or name have changed. Carries no data: the link looks when it can write.
    changed: Arc<Notify>,
}

impl Links {
    /// A session that is probed has a heartbeat's time to answer, but no less than two seconds and no more than five.
    pub fn new(heartbeat: Duration) -> Self {
        Self {
            sessions: Mutex::default(),
            patience: heartbeat.clamp(Duration::from_secs(2), Duration::from_secs(5)),
            heartbeat,
            draining: Draining::new(),
            emptied: Notify::new(),
        }
    }

    /// Whether links are taken.
    pub fn draining(&self) -> &Draining {
        &self.draining
    }

    /// Returns when there is no link.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // From here on nothing is missed.
            emptied.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// The session of an agent that is live now.
    fn live(&self, agent: AgentId) -> Option<Registered> {
        self.lock().get(&agent).cloned()
    }

    /// None when the agent's session is not `expected` any longer: whoever decided on the newcomer has to decide again.
    /// `connected` tells the inventory: in the order of the register, so that both know the same session as the newest.
    fn register(
        &self,
        agent: AgentId,
        session_id: &str,
        party: Party,
        expected: Option<&str>,
        connected: impl FnOnce(),
    ) -> Option<Registered> {
        let registered = Registered {
            session_id: session_id.to_owned(),
            party: Arc::new(party),
            probe: Arc::default(),
            replaced: CancellationToken::new(),
            cut: Arc::default(),
            changed: Arc::new(Notify::new()),
        };
        let mut sessions = self.lock();
        let current = sessions.get(&agent).map(|older| older.session_id.as_str());
        if current != expected {
            return None;
        }
        if let Some(older) = sessions.insert(agent, registered.clone()) {
            older.probe.ended();
            older.replaced.cancel();
        }
        connected();
        Some(registered)
    }

    /// Whether the agent holds a link that answers now: it is asked over the link. Who asks at the same time shares one
    /// question.
    pub async fn probe(&self, agent: AgentId) -> bool {
        match self.live(agent) {
            Some(live) => live.probe.ask(self.patience).await == Verdict::Answered,
            None => false,
        }
    }

    /// An agent that was not heard of for so long has no place that its copies have to leave it.
    pub fn absence(&self) -> Micros {
        clock::from_duration(4 * self.heartbeat)
    }

    /// Asks a session for a newcomer.
    fn question(&self, live: Registered, newcomer: &Party) -> impl Future<Output = Verdict> + Send + 'static {
        // A process that comes again has left its session, whatever that said a moment ago.
        let is_again = live.party.is_same_process(newcomer);
        let patience = self.patience;
        async move {
            match is_again {
                true => live.probe.ask_anew(patience).await,
                false => live.probe.ask(patience).await,
            }
        }
    }

    /// The machine that holds the agent's link.
    pub fn holder(&self, agent: AgentId) -> Option<Arc<Party>> {
        self.live(agent).map(|live| live.party)
    }

    fn unregister(&self, agent: AgentId, session_id: &str) {
        let mut sessions = self.lock();
        if sessions
            .get(&agent)
            .is_some_and(|registered| registered.session_id == session_id)
            && let Some(ended) = sessions.remove(&agent)
        {
            ended.probe.ended();
            if sessions.is_empty() {
                self.emptied.notify_waiters();
            }
        }
    }

    /// Tells an agent's link, if there is one, that the inventory says something new of it.
    pub fn nudge(&self, agent: AgentId) {
        if let Some(registered) = self.lock().get(&agent) {
            registered.changed.notify_one();
        }
    }

    /// Ends an agent's link, if there is one. Whoever ends the trust in an agent tells the inventory first: a link that is
    /// registered after this call finds it there.
    pub fn cut(&self, agent: AgentId, why: Close) {
        if let Some(registered) = self.lock().get(&agent) {
            // The first reason stands.
            let _ = registered.cut.set(why);
            registered.replaced.cancel();
        }
    }

    /// As `cut`, when the link was made with this certificate.
    pub fn cut_certificate(&self, agent: AgentId, serial: &str, why: Close) {
        if self.holder(agent).is_some_and(|party| party.serial == serial) {
            self.cut(agent, why);
        }
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    // Insertion and removal leave the map whole at any point, so a poisoned lock is taken all the same.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AgentId, Registered>> {
        self.sessions.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
