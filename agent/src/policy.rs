//! The policies of this agent: what the controller sent, what of it was found good, and what the checks follow. Kept on disk
//! with their signatures, so that they are verified again at every start and run while the controller is away. Knows no
//! connection.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use muster_proto::v1;
use tokio::sync::watch;

use self::set::Set;
use crate::{config::Allow, identity::Trust};

mod judge;
mod keep;
mod set;
mod unknown;

pub use self::{judge::FEATURES, set::Differs};

/// One check that was found good.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveCheck {
    pub name: String,
    pub version: i64,
    /// With its defaults written in.
    pub check: v1::Check,
}

/// What the scheduler follows, by name.
pub type ActiveChecks = BTreeMap<String, Arc<ActiveCheck>>;

/// The one owner of the set. Cheap to share; each call is short.
#[derive(Debug)]
pub struct Policies {
    set: Mutex<Set>,
    path: PathBuf,
    active: watch::Sender<Arc<ActiveChecks>>,
    status: watch::Sender<Arc<v1::PolicyStatus>>,
}

impl Policies {
    /// What is on disk, verified anew. A file that cannot be used is as good as none: the controller sends all of it again.
    pub fn load(path: PathBuf, trust: Trust, allow: Allow) -> Policies {
        let kept = keep::load(&path).unwrap_or_else(|error| {
            tracing::error!(
                error = crate::dial::causes(&error),
                "the policies on disk cannot be used; the controller will send them again"
            );
            keep::Kept::default()
        });
        let set = Set::restore(trust, allow, kept);
        let (active, _) = watch::channel(Arc::new(set.active()));
        let (status, _) = watch::channel(Arc::new(set.status()));
        Policies {
            set: Mutex::new(set),
            path,
            active,
            status,
        }
    }

    /// For Hello; empty when the whole set is wanted.
    pub fn digest(&self) -> String {
        self.lock().digest().to_owned()
    }

    /// Changes the set as the controller says. When it does not come out as it should, all stays as it was, save that the
    /// next Hello asks for the whole set.
    pub fn apply(&self, sync: v1::PolicySync) -> Result<(), Differs> {
        let mut set = self.lock();
        set.apply(sync)?;
        if let Err(error) = keep::save(&self.path, &set.kept()) {
            tracing::error!(
                error = crate::dial::causes(&error),
                "the policies run, but could not be written to disk; after a restart they come from the controller only"
            );
        }
        self.publish(&set);
        Ok(())
    }

    /// The local ceiling has changed.
    pub fn set_allow(&self, allow: Allow) {
        let mut set = self.lock();
        set.set_allow(allow);
        self.publish(&set);
    }

    pub fn active(&self) -> watch::Receiver<Arc<ActiveChecks>> {
        self.active.subscribe()
    }

    pub fn status(&self) -> watch::Receiver<Arc<v1::PolicyStatus>> {
        self.status.subscribe()
    }

    fn publish(&self, set: &Set) {
        let active = Arc::new(set.active());
        self.active.send_if_modified(|current| {
            let changed = *current != active;
            *current = active;
            changed
        });
        let status = Arc::new(set.status());
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
