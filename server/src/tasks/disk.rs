//! Looks at the disk each second, says what is taken of agents for it, keeps the ballast, and tells of every change. What the
//! rules are is `crate::disk`.

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use muster_proto::v1::EventSeverity;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    clock::{self, Micros},
    disk::{Disk, Judge, Level, Limits, Space, ballast::Ballast, space::size_text},
    events::{self, Event},
    ingest::LANES,
    store::Db,
    telemetry::Telemetry,
};

const EVERY: Duration = Duration::from_secs(1);
/// Events that could not be stored yet; of more, the oldest are given up.
const MAX_UNTOLD: usize = 16;

/// What the keeper works with.
#[derive(Debug)]
pub struct Deps {
    pub disk: Disk,
    pub data_dir: PathBuf,
    pub limits: Limits,
    /// Bytes of the ballast.
    pub ballast: u64,
    pub telemetry: Telemetry,
}

#[derive(Debug)]
pub struct Keeper {
    deps: Deps,
    judge: Judge,
    ballast: Ballast,
    level: Level,
    /// A write has failed since the disk was well.
    write_failed: bool,
    /// The ballast could not be made, and that was said.
    no_ballast: bool,
    untold: VecDeque<Event>,
}

impl Keeper {
    /// Looks for the first time, before anything is opened: on a full disk not even a database could be.
    pub fn start(deps: Deps, now: Micros) -> Self {
        let mut keeper = Self {
            judge: Judge::new(deps.limits),
            ballast: Ballast::new(&deps.data_dir, deps.ballast),
            deps,
            level: Level::Ample,
            write_failed: false,
            no_ballast: false,
            untold: VecDeque::new(),
        };
        keeper.look(now);
        keeper
    }

    /// Until `shutdown`.
    pub async fn run(mut self, db: Db, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let disk = self.deps.disk.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = disk.has_failed() => self.failed(clock::now()),
                _ = ticks.tick() => self.look(clock::now()),
            }
            self.tell(&db).await;
        }
    }

    fn failed(&mut self, now: Micros) {
        self.write_failed = true;
        let level = self.judge.failed(now);
        let space = Space::of(&self.deps.data_dir).ok();
        self.release();
        self.change(level, space, now);
    }

    fn look(&mut self, now: Micros) {
        let space = match Space::of(&self.deps.data_dir) {
            Ok(space) => space,
            Err(error) => {
                warn!(path = %self.deps.data_dir.display(), %error, "the disk does not say how full it is");
                return;
            }
        };
        let (target, held) = (self.ballast.target(space), self.ballast.held());
        if held > 0 && space.free < target {
            self.release();
        }
        // Room that the ballast has given is not there for agents.
        let owed = target.saturating_sub(self.ballast.held());
        let judged = Space {
            free: space.free.saturating_sub(owed),
            ..space
        };
        let level = self.judge.look(judged, now);
        if level < Level::Full {
            self.write_failed = false;
        }
        if held < target && self.judge.has_room_for(target, space) {
            self.make(target);
        }
        self.change(level, Some(space), now);
        let telemetry = &self.deps.telemetry;
        telemetry.disk(space, self.ballast.held());
    }

    fn make(&mut self, bytes: u64) {
        match self.ballast.make(bytes) {
            Ok(()) => {
                self.no_ballast = false;
                info!(bytes, "room is set aside for operators' changes on a full disk");
            }
            Err(error) if !self.no_ballast => {
                self.no_ballast = true;
                warn!(bytes, %error, "no room can be set aside for operators' changes on a full disk");
            }
            Err(_) => {}
        }
    }

    fn release(&mut self) {
        match self.ballast.release() {
            Ok(0) => {}
            Ok(bytes) => warn!(
                bytes,
                "the disk is full: the room that was set aside is given to operators' changes"
            ),
            Err(error) => error!(%error, "the room that was set aside cannot be given back"),
        }
    }

    fn change(&mut self, level: Level, space: Option<Space>, now: Micros) {
        self.deps.disk.set(level);
        for lane in LANES {
            self.deps.telemetry.lane_refused(lane, !level.takes(lane));
        }
        let before = std::mem::replace(&mut self.level, level);
        if before == level {
            return;
        }
        let event = self.event(level, before, space, now);
        match level {
            Level::Ample => info!("{}", event.message()),
            _ => warn!("{}", event.message()),
        }
        if self.untold.len() == MAX_UNTOLD {
            self.untold.pop_front();
        }
        self.untold.push_back(event);
    }

    fn event(&self, level: Level, before: Level, space: Option<Space>, now: Micros) -> Event {
        let place = self.deps.data_dir.display();
        let free = match space {
            Some(space) => format!("{} free on the file system of {place}", space.to_text()),
            None => format!("the file system of {place} does not say how full it is"),
        };
        let (reason, severity, what) = match level {
            Level::Ample => ("DISK_OK", EventSeverity::Info, "everything is taken of agents again"),
            Level::Low if before == Level::Full => (
                "DISK_LOW",
                EventSeverity::Warning,
                "results are taken again, metrics and logs wait with the agents",
            ),
            Level::Low => (
                "DISK_LOW",
                EventSeverity::Warning,
                "metrics and logs are not taken of agents and wait with them",
            ),
            Level::Full if self.write_failed => (
                "DISK_FULL",
                EventSeverity::Error,
                "a write found no room; nothing is taken of agents, and all waits with them",
            ),
            Level::Full => (
                "DISK_FULL",
                EventSeverity::Error,
                "nothing is taken of agents, and all waits with them",
            ),
        };
        let advice = match level {
            Level::Ample => "",
            _ => "; `muster-server doctor` says what uses the space",
        };
        let event = Event::new(reason, None, format!("{free}: {what}{advice}"), now).severity(severity);
        match space {
            Some(space) => event
                .with("free_bytes", space.free)
                .with("size_bytes", space.size)
                .with("ballast", size_text(self.ballast.held())),
            None => event,
        }
    }

    /// What cannot be stored now is tried again at the next look.
    async fn tell(&mut self, db: &Db) {
        if self.untold.is_empty() {
            return;
        }
        match events::store(db, self.untold.iter().cloned().collect()).await {
            Ok(()) => self.untold.clear(),
            Err(error) if error.is_full() => self.release(),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "failed to store what happened to the disk; trying again"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::Lane;

    use super::*;

    fn keeper(dir: &std::path::Path, limits: Limits, ballast: u64) -> Keeper {
        let deps = Deps {
            disk: Disk::default(),
            data_dir: dir.to_owned(),
            limits,
            ballast,
            telemetry: Telemetry::new(),
        };
        Keeper::start(deps, 0)
    }

    #[test]
    fn ballast_is_there_after_the_first_look_and_given_when_a_write_fails() {
        use muster_proto::threshold::Amount;
        let dir = tempfile::tempdir().expect("a directory");
        let limits = Limits {
            metrics: Amount::Bytes(2),
            results: Amount::Bytes(1),
        };
        let mut keeper = keeper(dir.path(), limits, 1 << 20);
        assert!(keeper.ballast.held() >= 1 << 20);
        assert!(keeper.untold.is_empty());

        keeper.failed(0);
        assert_eq!(keeper.ballast.held(), 0);
        assert!(!keeper.deps.disk.lane_open(Lane::Results));
        keeper.look(clock::SECOND);
        assert!(!keeper.deps.disk.lane_open(Lane::Results), "it is not tried again yet");
        keeper.look(10 * clock::SECOND);
        assert!(keeper.deps.disk.lane_open(Lane::Metrics));
        assert!(keeper.ballast.held() >= 1 << 20);
        let told: Vec<String> = keeper.untold.into_iter().map(|event| event.into_row().reason).collect();
        assert_eq!(told, ["DISK_FULL", "DISK_OK"]);
    }

    #[test]
    fn a_disk_that_is_low_at_the_start_is_known_before_anything_is_taken() {
        use muster_proto::threshold::Amount;
        let dir = tempfile::tempdir().expect("a directory");
        let limits = Limits {
            metrics: Amount::Percent(100.0),
            results: Amount::Bytes(1),
        };
        let keeper = keeper(dir.path(), limits, 0);
        assert!(keeper.deps.disk.lane_open(Lane::Results) && !keeper.deps.disk.lane_open(Lane::Metrics));
        assert_eq!(keeper.untold.len(), 1);
    }
}
