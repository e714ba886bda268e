//! What can happen to the two ends, and how often it does.

use muster_server::disk::Level;
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub enum Step {
    /// Lanes by their place.
    Record {
        lane: usize,
        bytes: usize,
    },
    /// Frames go on their way, arrive, are stored and acknowledged: so many of each.
    AgentSends(usize),
    ControllerHears(usize),
    Commits(usize),
    AgentHears(usize),
    /// The connection is gone with all that is on its way, and there is another one.
    Cut,
    /// The agent is killed and starts again.
    AgentKilled,
    /// As well, and of its newest file this part is left.
    PowerLost(f64),
    /// The disk of the agent's machine is remembered, and put back.
    Snapshot,
    PutBack,
    /// The controller is killed: what it has not committed is gone.
    ControllerKilled,
    /// On the controller, for acknowledgements that wait since the agent is beyond its limits: so many milliseconds.
    TimePasses(i64),
    /// Its database is remembered, and restored.
    Backup,
    Restored,
    /// The disk of the agent's machine is full, and has room again.
    DiskFills,
    DiskHasRoom,
    /// The keeper of the queue finds that a disk does not sync, and tries one that has failed.
    SyncFails {
        lane: usize,
    },
    DiskTried,
    /// One of the files that are not written any longer is destroyed, or is something else.
    FileDamaged {
        which: usize,
        is_gone: bool,
    },
    /// The agent is back by another connection before the controller has noticed that the first is gone: what was on its way by
    /// that one arrives all the same, late.
    CutUnnoticed,
    OldOneHears(usize),
    /// The disk of the controller fills, or has room.
    Room(Level),
    /// A write of the controller finds no room.
    NoRoom,
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (0usize..3, prop_oneof![9 => 0usize..2_000, 1 => 20_000usize..60_000])
            .prop_map(|(lane, bytes)| Step::Record { lane, bytes }),
        20 => (1usize..6).prop_map(Step::AgentSends),
        20 => (1usize..6).prop_map(Step::ControllerHears),
        20 => (1usize..6).prop_map(Step::Commits),
        20 => (1usize..6).prop_map(Step::AgentHears),
        4 => Just(Step::Cut),
        2 => Just(Step::AgentKilled),
        1 => (0.0..1.0).prop_map(Step::PowerLost),
        1 => Just(Step::Snapshot),
        1 => Just(Step::PutBack),
        2 => Just(Step::ControllerKilled),
        4 => (1i64..5_000).prop_map(Step::TimePasses),
        1 => Just(Step::Backup),
        1 => Just(Step::Restored),
        2 => Just(Step::DiskFills),
        2 => Just(Step::DiskHasRoom),
        1 => (0usize..3).prop_map(|lane| Step::SyncFails { lane }),
        2 => Just(Step::DiskTried),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, is_gone)| Step::FileDamaged { which, is_gone }),
        3 => Just(Step::CutUnnoticed),
        6 => (1usize..6).prop_map(Step::OldOneHears),
        3 => prop_oneof![Just(Level::Ample), Just(Level::Low), Just(Level::Full)].prop_map(Step::Room),
        2 => Just(Step::NoRoom),
    ]
}
