//! Links: the stream of each connected agent and its session. The session decides and does no I/O; the driver does the I/O
//! and decides nothing; here is the register of who is connected. Knows frames, but no gRPC.

mod driver;
mod policy_sync;
mod session;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use muster_proto::ids::AgentId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use driver::{Deps, Inbound, run};
pub use session::{Close, Config};

/// Who is connected. One session for each agent: a newer one replaces the older.
#[derive(Debug, Default)]
pub struct Links {
    sessions: Mutex<HashMap<AgentId, Registered>>,
}

/// How others reach a session.
#[derive(Clone, Debug)]
struct Registered {
    session_id: String,
    /// A newer session has taken over.
    replaced: CancellationToken,
    /// Labels or name have changed. Carries no data: the link looks when it can write.
    changed: Arc<Notify>,
}

impl Links {
    /// `connected` tells the inventory: in the order of the register, so that both know the same session as the newest.
    fn register(&self, agent: AgentId, session_id: &str, connected: impl FnOnce()) -> Registered {
        let registered = Registered {
            session_id: session_id.to_owned(),
            replaced: CancellationToken::new(),
            changed: Arc::new(Notify::new()),
        };
        let mut sessions = self.lock();
        if let Some(older) = sessions.insert(agent, registered.clone()) {
            older.replaced.cancel();
        }
        connected();
        registered
    }

    fn unregister(&self, agent: AgentId, session_id: &str) {
        let mut sessions = self.lock();
        if sessions
            .get(&agent)
            .is_some_and(|registered| registered.session_id == session_id)
        {
            sessions.remove(&agent);
        }
    }

    /// Tells an agent's link, if there is one, that the inventory says something new of it.
    pub fn nudge(&self, agent: AgentId) {
        if let Some(registered) = self.lock().get(&agent) {
            registered.changed.notify_one();
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
