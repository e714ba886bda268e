//! How full the controller's disk is, and what is therefore taken of agents: metrics and logs not any more when little is free,
//! nothing when next to nothing is. What is not taken waits in the queues of the agents. The state alone is here; who looks at the disk
//! is `tasks/disk`, who tells the agents is `link`.

pub mod ballast;
pub mod judge;
pub mod space;

use std::sync::Arc;

use muster_proto::v1::Lane;
use tokio::sync::{Notify, watch};

pub use self::{
    judge::{Judge, Limits},
    space::Space,
};

/// How full the disk is, for those who write to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Ample,
    /// Neither metrics nor logs are taken.
    Low,
    /// Nor are results.
    Full,
}

impl Level {
    pub fn takes(self, lane: Lane) -> bool {
        match lane {
            Lane::Metrics | Lane::Logs => self == Self::Ample,
            _ => self != Self::Full,
        }
    }
}

/// What is known of the disk. Cheap to clone; asking costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    level: watch::Sender<Level>,
    failed: Notify,
}

impl Disk {
    /// Whether records of this lane are taken now.
    pub fn lane_open(&self, lane: Lane) -> bool {
        self.0.level.borrow().takes(lane)
    }

    /// Told at every change.
    pub fn follow(&self) -> watch::Receiver<Level> {
        self.0.level.subscribe()
    }

    /// A write found no room, whatever the file system says of itself: nothing more is tried until somebody has looked.
    pub fn failed(&self) {
        self.set(Level::Full);
        self.0.failed.notify_one();
    }

    /// Returns when a write has failed since the last call.
    pub async fn has_failed(&self) {
        self.0.failed.notified().await;
    }

    pub fn set(&self, level: Level) {
        self.0
            .level
            .send_if_modified(|current| std::mem::replace(current, level) != level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_refused_before_results_are() {
        let takes = |level: Level| [Lane::Results, Lane::Metrics, Lane::Logs].map(|lane| level.takes(lane));
        assert_eq!(takes(Level::Ample), [true, true, true]);
        assert_eq!(takes(Level::Low), [true, false, false]);
        assert_eq!(takes(Level::Full), [false, false, false]);
    }

    #[test]
    fn a_write_that_fails_closes_every_lane_at_once_and_is_told_once() {
        let disk = Disk::default();
        let mut told = disk.follow();
        told.mark_unchanged();
        disk.failed();
        assert!(!disk.lane_open(Lane::Results) && !disk.lane_open(Lane::Metrics));
        assert!(told.has_changed().expect("the disk is there"));
        told.mark_unchanged();
        disk.failed();
        assert!(!told.has_changed().expect("the disk is there"));
    }
}
