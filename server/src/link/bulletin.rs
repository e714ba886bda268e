//! What concerns every link, on the thread that the link lives on: one signal instead of one of each source, and a change wakes
//! each thread once, where it would wake it anew for each of its links.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    runtime::{self, Handle},
    select,
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::draining::Plan;
use crate::{disk::Level, policies::Compiled};

/// As it stands, or did a moment ago.
#[derive(Clone, Debug)]
pub struct Bulletin {
    pub shutting_down: bool,
    /// That links shall go.
    pub plan: Option<Arc<Plan>>,
    /// Of the disk.
    pub room: Level,
    /// How often the CAs have changed.
    pub trust: u64,
    /// How often the policies have changed.
    pub policies: u64,
}

/// Whose changes are told.
#[derive(Clone, Debug)]
pub struct Sources {
    pub shutdown: CancellationToken,
    pub plan: watch::Receiver<Option<Arc<Plan>>>,
    pub room: watch::Receiver<Level>,
    pub trust: watch::Receiver<()>,
    pub policies: watch::Receiver<Arc<Compiled>>,
}

/// One bulletin for each runtime that links live on.
#[derive(Debug)]
pub struct Bulletins {
    sources: Sources,
    boards: Mutex<HashMap<runtime::Id, watch::Receiver<Bulletin>>>,
    tasks: TaskTracker,
}

impl Bulletins {
    /// What follows the sources runs in `tasks`, until the shutdown.
    pub fn new(sources: Sources, tasks: TaskTracker) -> Self {
        Self {
            sources,
            boards: Mutex::default(),
            tasks,
        }
    }

    /// The bulletin of the runtime on which this is called.
    pub fn follow(&self) -> watch::Receiver<Bulletin> {
        let mut boards = self.boards.lock().unwrap_or_else(PoisonError::into_inner);
        let board = boards.entry(Handle::current().id()).or_insert_with(|| {
            let mut sources = self.sources.clone();
            let (board, follower) = watch::channel(sources.bulletin());
            self.tasks.spawn(relay(sources, board));
            follower
        });
        board.clone()
    }
}

impl Sources {
    /// The first; whatever comes later is a change.
    fn bulletin(&mut self) -> Bulletin {
        self.trust.mark_unchanged();
        self.policies.mark_unchanged();
        Bulletin {
            shutting_down: self.shutdown.is_cancelled(),
            plan: self.plan.borrow_and_update().clone(),
            room: *self.room.borrow_and_update(),
            trust: 0,
            policies: 0,
        }
    }
}

async fn relay(mut sources: Sources, board: watch::Sender<Bulletin>) {
    loop {
        select! {
            biased;
            () = sources.shutdown.cancelled() => {
                board.send_modify(|bulletin| bulletin.shutting_down = true);
                return;
            }
            Ok(()) = sources.plan.changed() => {
                let plan = sources.plan.borrow_and_update().clone();
                board.send_modify(|bulletin| bulletin.plan = plan);
            }
            Ok(()) = sources.room.changed() => {
                let room = *sources.room.borrow_and_update();
                board.send_modify(|bulletin| bulletin.room = room);
            }
            Ok(()) = sources.trust.changed() => board.send_modify(|bulletin| bulletin.trust += 1),
            Ok(()) = sources.policies.changed() => board.send_modify(|bulletin| bulletin.policies += 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::link::draining::Draining;

    struct Told {
        shutdown: CancellationToken,
        draining: Draining,
        room: watch::Sender<Level>,
        trust: watch::Sender<()>,
        policies: watch::Sender<Arc<Compiled>>,
    }

    /// What changes, and whether that is told.
    type Change<'a> = (&'a dyn Fn(), fn(&Bulletin) -> bool);

    impl Told {
        fn new() -> Self {
            Self {
                shutdown: CancellationToken::new(),
                draining: Draining::new(),
                room: watch::Sender::new(Level::Ample),
                trust: watch::Sender::new(()),
                policies: watch::Sender::default(),
            }
        }

        fn bulletins(&self) -> Arc<Bulletins> {
            let sources = Sources {
                shutdown: self.shutdown.clone(),
                plan: self.draining.plans(),
                room: self.room.subscribe(),
                trust: self.trust.subscribe(),
                policies: self.policies.subscribe(),
            };
            Arc::new(Bulletins::new(sources, TaskTracker::new()))
        }
    }

    #[tokio::test]
    async fn each_change_is_told_and_what_was_before_is_there_at_once() {
        let told = Told::new();
        told.room.send_replace(Level::Low);
        told.trust.send_replace(());
        let bulletins = told.bulletins();
        let mut follower = bulletins.follow();
        assert_eq!((follower.borrow().room, follower.borrow().trust), (Level::Low, 0));
        assert!(!follower.borrow().shutting_down && follower.borrow().plan.is_none());

        let lower_room = || {
            told.room.send_replace(Level::Full);
        };
        let change_policies = || {
            told.policies.send_replace(Arc::default());
        };
        let drain = || {
            told.draining.begin(Duration::ZERO, Vec::new(), "ann", 5);
        };
        let changes: [Change<'_>; 6] = [
            (&lower_room, |now| now.room == Level::Full),
            (&|| told.trust.send_replace(()), |now| now.trust == 1),
            (&change_policies, |now| now.policies == 1),
            (&drain, |now| now.plan.is_some()),
            (&|| assert!(told.draining.cancel()), |now| now.plan.is_none()),
            (&|| told.shutdown.cancel(), |now| now.shutting_down),
        ];
        for (change, is_told) in changes {
            assert!(!is_told(&follower.borrow_and_update()));
            change();
            follower.changed().await.expect("somebody tells");
            assert!(is_told(&follower.borrow()));
        }
        let late = bulletins.follow();
        assert!(late.borrow().shutting_down && late.borrow().trust == 1);
        bulletins.tasks.close();
        bulletins.tasks.wait().await;
    }

    #[test]
    fn each_runtime_is_told_by_a_task_of_its_own() {
        let told = Told::new();
        let bulletins = told.bulletins();
        let runtimes = [(); 2].map(|()| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
        });
        let mut followers = runtimes.each_ref().map(|runtime| {
            let _here = runtime.enter();
            (bulletins.follow(), bulletins.follow())
        });
        assert_eq!(bulletins.tasks.len(), 2);
        told.policies.send_replace(Arc::default());
        for (runtime, (one, other)) in runtimes.iter().zip(&mut followers) {
            assert!(!one.has_changed().expect("somebody tells"), "told from elsewhere");
            runtime.block_on(async {
                one.changed().await.expect("somebody tells");
                other.changed().await.expect("somebody tells");
            });
            assert_eq!((one.borrow().policies, other.borrow().policies), (1, 1));
        }
    }
}
