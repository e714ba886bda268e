//! What a watch has seen and what to do when it ends: `(state, event) → effects`. Waits for nothing, prints nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_proto::{error::ErrorReason, v1::WatchEventType};
use tonic::{Code, Status};

use super::{Event, LONGEST_PAUSE};
use crate::problem::status;

/// A call that was open this long starts the pauses from the beginning.
const STABLE: Duration = Duration::from_secs(60);

/// After a watch call has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Open it again after this long; `first`: the user does not know of a cut yet.
    Resume { after: Duration, first: bool },
    /// Open it again at once, from the beginning.
    Relist,
    /// Trying again would not help.
    Refused,
}

#[derive(Debug)]
pub struct Follower<E: Event> {
    /// The last revision seen; 0: everything is to be listed.
    revision: i64,
    /// While a listing runs: what has been in it.
    listed: Option<BTreeSet<String>>,
    /// What the user was shown and is still there, with the revision of its last change.
    known: BTreeMap<String, (i64, E::Item)>,
    ever_synced: bool,
    failures: u32,
    /// The user was told of a cut, and not yet of its end.
    cut: bool,
}

impl<E: Event> Default for Follower<E> {
    fn default() -> Self {
        Follower {
            revision: 0,
            listed: Some(BTreeSet::new()),
            known: BTreeMap::new(),
            ever_synced: false,
            failures: 0,
            cut: false,
        }
    }
}

impl<E: Event> Follower<E> {
    /// For the request.
    pub fn resume_from(&self) -> i64 {
        self.revision
    }

    /// The call was accepted; whether that ends a cut the user was told of.
    pub fn opened(&mut self) -> bool {
        std::mem::take(&mut self.cut)
    }

    /// What of an event is new to the user. A listing after the first shows only what changed meanwhile, and as deleted
    /// what is no longer in it.
    pub fn take(&mut self, event: E) -> Vec<E> {
        match event.kind() {
            WatchEventType::Put => {
                let Some(item) = event.item() else { return Vec::new() };
                let (key, revision) = (E::key(item), E::item_revision(item));
                let known = self.known.insert(key.clone(), (revision, E::named(item)));
                match &mut self.listed {
                    Some(listed) => {
                        listed.insert(key);
                        if known.is_some_and(|(before, _)| before == revision && revision != 0) {
                            return Vec::new();
                        }
                    }
                    None => self.revision = self.revision.max(event.revision()),
                }
                vec![event]
            }
            WatchEventType::Delete => {
                if self.listed.is_none() {
                    self.revision = self.revision.max(event.revision());
                }
                let known = event.item().and_then(|item| self.known.remove(&E::key(item)));
                // After a resume the controller does not know what was shown, and tells of all that might have been.
                let Some((_, item)) = known else { return Vec::new() };
                vec![E::new(WatchEventType::Delete, Some(item), event.revision())]
            }
            WatchEventType::Synced => self.synced(event),
            WatchEventType::Unspecified => Vec::new(),
        }
    }

    fn synced(&mut self, event: E) -> Vec<E> {
        self.revision = self.revision.max(event.revision());
        self.ever_synced = true;
        let Some(listed) = self.listed.take() else {
            return vec![event];
        };
        let mut news = Vec::new();
        let revision = self.revision;
        self.known.retain(|key, (_, item)| {
            let there = listed.contains(key);
            if !there {
                news.push(E::new(WatchEventType::Delete, Some(item.clone()), revision));
            }
            there
        });
        news.push(event);
        news
    }

    /// `lasted` is how long the call was open, `jitter` a random number of 0 to 1: pauses double from one second, and any
    /// part of a pause may be taken off.
    pub fn end(&mut self, status: Option<&Status>, lasted: Duration, jitter: f64) -> Ended {
        let has = |reason| status.is_some_and(|status| status::has_reason(status, reason));
        let gone = has(ErrorReason::RevisionGone);
        if gone && self.revision != 0 {
            self.list_again();
            return Ended::Relist;
        }
        // What the caller sees now may have been there all the time.
        let other_rights = has(ErrorReason::RightsChanged);
        if other_rights {
            self.revision = 0;
        }
        let again = gone || other_rights;
        if status.is_some_and(|status| !again && (!self.ever_synced || !may_pass(status.code()))) {
            return Ended::Refused;
        }
        if self.revision == 0 {
            self.list_again();
        }
        if lasted >= STABLE {
            self.failures = 0;
        }
        let first = !std::mem::replace(&mut self.cut, true);
        let longest = Duration::from_secs(1 << self.failures.min(5)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        Ended::Resume {
            after: longest.mul_f64(jitter.clamp(0.0, 1.0)),
            first,
        }
    }

    fn list_again(&mut self) {
        self.revision = 0;
        self.listed = Some(BTreeSet::new());
    }
}

/// Whether a call that ended so may go well later.
fn may_pass(code: Code) -> bool {
    !matches!(
        code,
        Code::InvalidArgument | Code::NotFound | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
    )
}

#[cfg(test)]
mod tests;
