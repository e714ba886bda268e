//! What a link hears from outside of its connection. It waits in a place of its own beside the answers to the link's records: who
//! is woken there is asked, and nobody else, while a frame that comes would ask all of them. A fleet sends hundreds of heartbeats
//! a second, and all of this is rare.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Deps, Due, Follower};
use crate::{
    disk::Level,
    link::{Registered, session::Event},
    policies::Compiled,
};

/// Something that was waited for, with who waits for the next.
pub(super) enum Heard {
    /// The answer to a frame of records.
    Answer(Event),
    Controller(Event, Controller),
    Register(Said, Register),
}

/// What concerns every link, from its first moment on.
pub(super) struct Controller {
    shutdown: CancellationToken,
    drain: Follower,
    /// How full the disk is.
    room: watch::Receiver<Level>,
}

impl Controller {
    /// How full the disk is comes at once.
    pub(super) fn new(deps: &Deps, place: u64) -> Self {
        let mut room = deps.disk.follow();
        room.mark_changed();
        Self {
            shutdown: deps.shutdown.clone(),
            drain: deps.links.draining().follow(place),
            room,
        }
    }

    pub(super) async fn next(mut self) -> Heard {
        let event = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Event::ShuttingDown,
            due = self.drain.due() => match due {
                Due::Tell(telling) => Event::Drain(telling),
                Due::End { stops } => Event::Overstayed { stops },
            },
            Ok(()) = self.room.changed() => Event::Room(*self.room.borrow_and_update()),
        };
        Heard::Controller(event, self)
    }
}

/// What is said of a link that is in the register.
pub(super) enum Said {
    EndedByAnother,
    Probe,
    TrustChanged,
    PoliciesChanged,
    InventoryChanged,
}

pub(super) struct Register {
    registered: Registered,
    trust: watch::Receiver<()>,
    policies: watch::Receiver<Arc<Compiled>>,
}

impl Register {
    /// Of changes from here on.
    pub(super) fn new(deps: &Deps, registered: Registered) -> Self {
        Self {
            registered,
            trust: deps.pki.watch(),
            policies: deps.policies.watch(),
        }
    }

    pub(super) async fn next(mut self) -> Heard {
        let Registered {
            replaced,
            probe,
            changed,
            ..
        } = &self.registered;
        let said = tokio::select! {
            biased;
            () = replaced.cancelled() => Said::EndedByAnother,
            () = probe.asked() => Said::Probe,
            Ok(()) = self.trust.changed() => Said::TrustChanged,
            Ok(()) = self.policies.changed() => Said::PoliciesChanged,
            () = changed.notified() => Said::InventoryChanged,
        };
        Heard::Register(said, self)
    }
}
