//! The broadcaster: follows the table of changes and tells everyone who watches. A notice names what changed; whoever gets
//! it reads the resource as it is then. A watcher that falls too far behind is told so and lists again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, RwLock, RwLockReadGuard, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::store::{self, Change, Db};

/// Changes that a watcher may be behind before it is cut.
const BACKLOG: usize = 16_384;
/// Changes read from the table at once.
const PAGE: i64 = 1_000;

#[derive(Clone, Debug)]
pub struct Changes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Db,
    nudge: Notify,
    /// See `hold`.
    held: RwLock<()>,
    revision: watch::Sender<i64>,
    sender: broadcast::Sender<Arc<Change>>,
    /// Held while somebody begins to follow.
    beginning: Mutex<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("changes after revision {0} are no longer on file")]
    Gone(i64),
    #[error("the watcher was too slow and fell behind revision {0}")]
    TooSlow(i64),
    #[error("the controller is shutting down")]
    Closed,
    #[error("failed to read the changes")]
    Store(#[from] store::Error),
}

impl Changes {
    pub async fn new(db: Db) -> Result<Self, store::Error> {
        let revision = db.revision_current().await?;
        let (sender, _) = broadcast::channel(BACKLOG);
        let inner = Inner {
            db,
            nudge: Notify::new(),
            held: RwLock::new(()),
            revision: watch::Sender::new(revision),
            sender,
            beginning: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// To be kept from before a transaction that adds changes begins until memory follows it: nobody is told of a change
    /// that cannot be read yet, though the nudge of another commit may come between. Taken last, after every other lock.
    pub async fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.inner.held.read().await
    }

    /// To be called after a commit that added changes, and after what is kept in memory was brought up to date.
    pub fn committed(&self) {
        self.inner.nudge.notify_one();
    }

    /// The revision up to which watchers have been told. Whatever is read after this call is at least that new.
    pub fn revision(&self) -> i64 {
        *self.inner.revision.borrow()
    }

    /// Follows the table until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.inner.nudge.notified() => {}
            }
            if let Err(error) = self.publish().await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to read the changes; watchers are late"
                );
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(std::time::Duration::from_secs(1)) => self.inner.nudge.notify_one(),
                }
            }
        }
    }

    async fn publish(&self) -> Result<(), store::Error> {
        if self.pass_over().await? {
            return Ok(());
        }
        loop {
            let changes = self.inner.db.changes_after(self.revision(), PAGE).await?;
            if changes.is_empty() {
                return Ok(());
            }
            // Whoever has committed one of these lets go when it can be read.
            drop(self.inner.held.write().await);
            for change in changes {
                // Before the change itself, so that who begins to follow now gets it or has it as seen.
                self.inner.revision.send_replace(change.revision);
                // No receiver is no error: nobody watches.
                let _ = self.inner.sender.send(Arc::new(change));
            }
        }
    }

    /// Where nobody follows, what has changed need not be read; false: somebody does.
    async fn pass_over(&self) -> Result<bool, store::Error> {
        if self.inner.sender.receiver_count() > 0 {
            return Ok(false);
        }
        let revision = self.inner.db.revision_current().await?;
        // As for changes that are told.
        drop(self.inner.held.write().await);
        let _beginning = self.beginning();
        // Who has begun meanwhile is told all after the revision that it began at.
        if self.inner.sender.receiver_count() > 0 {
            return Ok(false);
        }
        self.inner.revision.send_replace(revision);
        Ok(true)
    }

    fn beginning(&self) -> MutexGuard<'_, ()> {
        self.inner.beginning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the changes from now on.
    pub fn follow(&self) -> Follower {
        let _beginning = self.beginning();
        // The receiver first: what comes between the two lines is delivered twice rather than never.
        let receiver = self.inner.sender.subscribe();
        Follower {
            changes: self.clone(),
            receiver,
            backlog: Vec::new().into_iter(),
            last: self.revision(),
        }
    }

    /// Follows the changes after `revision`, as far back as the table goes.
    pub async fn follow_after(&self, revision: i64) -> Result<Follower, Error> {
        let mut follower = self.follow();
        if revision > self.inner.db.revision_current().await? || revision + 1 < self.inner.db.changes_oldest().await? {
            return Err(Error::Gone(revision));
        }
        let mut backlog = Vec::new();
        let mut last = revision;
        while last < follower.last {
            let page = self.inner.db.changes_after(last, PAGE).await?;
            let Some(change) = page.last() else { break };
            last = change.revision;
            backlog.extend(page.into_iter().map(Arc::new));
            if backlog.len() > BACKLOG {
                return Err(Error::Gone(revision));
            }
        }
        follower.backlog = backlog.into_iter();
        follower.last = revision;
        Ok(follower)
    }
}

/// One watcher's place in the changes.
#[derive(Debug)]
pub struct Follower {
    changes: Changes,
    receiver: broadcast::Receiver<Arc<Change>>,
    backlog: std::vec::IntoIter<Arc<Change>>,
    last: i64,
}

impl Follower {
    /// The revision up to which everything has been seen.
    pub fn revision(&self) -> i64 {
        self.last
    }

    /// The next change; waits for it.
    pub async fn next(&mut self) -> Result<Arc<Change>, Error> {
        loop {
            let change = match self.backlog.next() {
                Some(change) => change,
                None => match self.receiver.recv().await {
                    Ok(change) => change,
                    Err(broadcast::error::RecvError::Lagged(_)) => return Err(Error::TooSlow(self.last)),
                    Err(broadcast::error::RecvError::Closed) => return Err(Error::Closed),
                },
            };
            if change.revision > self.last {
                self.last = change.revision;
                return Ok(change);
            }
        }
    }

    /// Changes that are there already, so that a watcher may send several at once.
    pub fn is_behind(&self) -> bool {
        self.last < self.changes.revision()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ChangeKind, Op, Source};

    async fn change(changes: &Changes, id: &str) {
        let mut tx = changes.inner.db.begin().await.unwrap();
        tx.change_add(1, ChangeKind::Agent, id, Op::Put).await.unwrap();
        tx.commit().await.unwrap();
        changes.publish().await.unwrap();
    }

    #[tokio::test]
    async fn who_begins_to_follow_gets_all_from_then_on_though_nobody_did_before() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
        let changes = Changes::new(db).await.unwrap();
        change(&changes, "a").await;
        assert_eq!(changes.revision(), 1, "nobody followed");
        let mut follower = changes.follow();
        change(&changes, "b").await;
        let next = follower.next().await.unwrap();
        assert_eq!((next.revision, next.id.as_str()), (2, "b"));
        drop(follower);
        change(&changes, "c").await;
        let mut all = changes.follow_after(0).await.unwrap();
        for (revision, id) in [(1, "a"), (2, "b"), (3, "c")] {
            let next = all.next().await.unwrap();
            assert_eq!((next.revision, next.id.as_str()), (revision, id));
        }
        assert!(!all.is_behind());
    }
}
