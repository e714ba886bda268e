//! Agents that may have to run other checks now, or whose states may be worth more or less than before: states follow.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use muster_proto::ids::AgentId;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Assignments {
    changed: Mutex<BTreeSet<AgentId>>,
    waiting: Notify,
}

impl Assignments {
    /// Labels, facts or the status of an agent are others.
    pub(crate) fn changed(&self, ids: impl IntoIterator<Item = AgentId>) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
        self.waiting.notify_one();
    }

    /// Those that have changed since the last call; waits until there are any.
    pub async fn next(&self) -> BTreeSet<AgentId> {
        loop {
            self.waiting.notified().await;
            let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
            if !changed.is_empty() {
                return changed;
            }
        }
    }
}
