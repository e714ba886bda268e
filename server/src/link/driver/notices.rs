//! What comes to a link from elsewhere in the controller, at any time and rarely. It says that there is something; the link
//! looks what, when it can write.

use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::{
    select,
    sync::{SetOnce, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    disk::Level,
    link::{
        Registered,
        draining::{Due, Follower},
    },
    policies::Compiled,
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
    pub shutdown: CancellationToken,
    pub registered: Arc<SetOnce<Registered>>,
    pub drain: Follower,
    pub room: watch::Receiver<Level>,
    pub trust: watch::Receiver<()>,
    pub policies: watch::Receiver<Arc<Compiled>>,
}

impl Sources {
    pub fn notices(mut self) -> impl Stream<Item = Notice> {
        self.room.mark_changed();
        // In a box, since what is handed to a future lies in it twice.
        stream::unfold(Box::new(self), async |mut sources| {
            Some((sources.next().await, sources))
        })
    }

    async fn next(&mut self) -> Notice {
        select! {
            biased;
            () = self.shutdown.cancelled() => Notice::ShuttingDown,
            notice = of_session(&self.registered) => notice,
            due = self.drain.due() => Notice::Drain(due),
            Ok(()) = self.room.changed() => Notice::Room(*self.room.borrow_and_update()),
            Ok(()) = self.trust.changed() => Notice::Trust,
            Ok(()) = self.policies.changed() => Notice::Policies,
        }
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
