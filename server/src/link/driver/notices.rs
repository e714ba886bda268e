//! What comes to a link from elsewhere in the controller, at any time and rarely. It says that there is something; the link
//! looks what, when it can write.

use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::{
    select,
    sync::{SetOnce, watch},
};

use crate::{
    disk::Level,
    link::{
        Registered,
        bulletin::Bulletin,
        draining::{Due, Follower},
    },
};

pub(super) enum Notice {
    ShuttingDown,
    /// Somebody has taken over, or ended this session.
    Replaced,
    /// Somebody wants to know whether the agent answers.
    Probe,
    Drain(Due),
    /// Of the disk; the first comes at once.
    Room(Level),
    /// The CAs.
    Trust,
    Policies,
    /// What the inventory says of the agent.
    Inventory,
}

pub(super) struct Sources {
    bulletin: watch::Receiver<Bulletin>,
    registered: Arc<SetOnce<Registered>>,
    heard: Heard,
}

/// What has been told of the bulletin.
struct Heard {
    shutting_down: bool,
    drain: Follower,
    room: Option<Level>,
    trust: u64,
    policies: u64,
}

impl Sources {
    /// `place` is the link's among all links.
    pub fn new(bulletin: watch::Receiver<Bulletin>, registered: Arc<SetOnce<Registered>>, place: u64) -> Self {
        let (trust, policies) = {
            let bulletin = bulletin.borrow();
            (bulletin.trust, bulletin.policies)
        };
        Self {
            bulletin,
            registered,
            heard: Heard {
                shutting_down: false,
                drain: Follower::new(place),
                room: None,
                trust,
                policies,
            },
        }
    }

    pub fn notices(self) -> impl Stream<Item = Notice> {
        // In a box, since what is handed to a future lies in it twice.
        stream::unfold(Box::new(self), async |mut sources| {
            Some((sources.next().await, sources))
        })
    }

    async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.heard.next(&self.bulletin.borrow_and_update()) {
                return notice;
            }
            select! {
                biased;
                notice = of_session(&self.registered) => return notice,
                due = self.heard.drain.due() => return Notice::Drain(due),
                Ok(()) = self.bulletin.changed() => {}
            }
        }
    }
}

impl Heard {
    /// The first thing that is not as it was.
    fn next(&mut self, bulletin: &Bulletin) -> Option<Notice> {
        self.drain.hear(bulletin.plan.as_ref());
        if bulletin.shutting_down && !std::mem::replace(&mut self.shutting_down, true) {
            return Some(Notice::ShuttingDown);
        }
        if self.room.replace(bulletin.room) != Some(bulletin.room) {
            return Some(Notice::Room(bulletin.room));
        }
        if std::mem::replace(&mut self.trust, bulletin.trust) != bulletin.trust {
            return Some(Notice::Trust);
        }
        if std::mem::replace(&mut self.policies, bulletin.policies) != bulletin.policies {
            return Some(Notice::Policies);
        }
        None
    }
}

async fn of_session(registered: &SetOnce<Registered>) -> Notice {
    let session = registered.wait().await;
    select! {
        biased;
        () = session.replaced.cancelled() => Notice::Replaced,
        () = session.probe.asked() => Notice::Probe,
        () = session.changed.notified() => Notice::Inventory,
    }
}
