//! Keeps the queue on disk as it should be: what was written reaches the disk itself, old records go, the whole of it leaves
//! room for others, and a disk that failed is tried again.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_proto::v1::Lane;
use tokio::{
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Lanes, Queue, segment::Synced};
use crate::{
    clock::unix_micros,
    config::{self, Config},
    detached,
    statvfs::{self, Space},
};

/// What was written within it may be lost when power is; results are synced at once, unless the configuration says otherwise.
const SYNC: Duration = Duration::from_secs(1);
/// How often the room is measured and a failed disk is tried.
const LOOK: Duration = Duration::from_secs(30);
/// A disk that has not synced for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least that a lane may hold, however full the disk; on a tiny one its part of the twentieth.
const LEAST: u64 = 1024 * 1024;

/// What did not reach the disk.
type Failed = Vec<(Lane, io::Error)>;

#[derive(Debug)]
pub struct Keeper {
    queue: Arc<Queue>,
    directory: PathBuf,
    config: watch::Receiver<Arc<Config>>,
    /// How a file reaches the disk.
    sync_file: fn(&File) -> io::Result<()>,
}

impl Keeper {
    pub fn new(queue: Arc<Queue>, directory: PathBuf, config: watch::Receiver<Arc<Config>>) -> Self {
        Self {
            queue,
            directory,
            config,
            sync_file: File::sync_data,
        }
    }

    /// Before anything is sent: what is too old is dropped, since the controller may not know any longer whether it has it.
    pub fn begin(&self) {
        let mut lanes = self.queue.lock();
        self.drop_old(&mut lanes, unix_micros(SystemTime::now()));
    }

    /// Until `stop`; what was recorded before is on disk then.
    pub async fn run(self, stop: CancellationToken) {
        let mut config = self.config.clone();
        let mut sync = interval(SYNC);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut syncing = None;
        loop {
            let at_once = self.limits().sync == config::Sync::Always;
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = config.changed() => self.look().await,
                () = self.queue.unsynced(), if at_once => self.sync(&mut syncing).await,
                _ = sync.tick() => self.sync(&mut syncing).await,
                _ = look.tick() => self.look().await,
            }
        }
        // What is on its way, and what was recorded since.
        self.sync(&mut syncing).await;
        self.sync(&mut syncing).await;
    }

    /// Off the runtime, since a disk may take its time. What it takes longer for than one waits is in `syncing`, and nothing else
    /// is begun meanwhile.
    async fn sync(&self, syncing: &mut Option<oneshot::Receiver<Failed>>) {
        if syncing.is_none() {
            *syncing = self.begin_sync();
        }
        let Some(answer) = syncing else { return };
        let Ok(answer) = timeout(PATIENCE, answer).await else {
            return;
        };
        *syncing = None;
        let mut lanes = self.queue.lock();
        for lane in Lanes::ALL {
            let Ok(failed) = &answer else {
                lanes.lane_mut(lane).synced(Synced::Unknown);
                continue;
            };
            match failed.iter().find(|(of, _)| *of == lane) {
                None => lanes.lane_mut(lane).synced(Synced::All),
                Some((_, error)) => lanes.sync_failed(lane, error, unix_micros(SystemTime::now())),
            }
        }
    }

    fn begin_sync(&self) -> Option<oneshot::Receiver<Failed>> {
        let files: Vec<_> = {
            let mut lanes = self.queue.lock();
            Lanes::ALL
                .into_iter()
                .flat_map(|lane| lanes.lane_mut(lane).written().into_iter().map(move |file| (lane, file)))
                .collect()
        };
        if files.is_empty() {
            return None;
        }
        let sync_file = self.sync_file;
        let begun = detached::call(move || {
            let failed = files.into_iter().map(|(lane, file)| (lane, sync_file(&file)));
            failed
                .filter_map(|(lane, it)| it.err().map(|error| (lane, error)))
                .collect::<Vec<_>>()
        });
        match begun {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::error!(%error, "the queue cannot be synced to the disk now");
                let mut lanes = self.queue.lock();
                for lane in Lanes::ALL {
                    lanes.lane_mut(lane).synced(Synced::Unknown);
                }
                None
            }
        }
    }

    async fn look(&self) {
        let space = statvfs::ask(&self.directory, PATIENCE).await;
        let now = unix_micros(SystemTime::now());
        let limits = self.limits();
        let mut lanes = self.queue.lock();
        // A disk that does not answer now may be full.
        if let Ok(space) = space {
            let wanted = Lanes::ALL.map(|lane| limits.of(lane)).iter().sum();
            let total = room(space, used(&lanes), wanted);
            for lane in Lanes::ALL {
                let limit = limits.of(lane);
                let least = LEAST.min(limit).min(share(space.size / 20, 1, Lanes::ALL.len() as u64));
                let part = share(total, limit, wanted).clamp(least, limit.max(least));
                lanes
                    .lane_mut(lane)
                    .set_limit(usize::try_from(part).unwrap_or(usize::MAX));
            }
        }
        lanes.settle(now);
        self.drop_old(&mut lanes, now);
    }

    fn limits(&self) -> config::Queue {
        self.config.borrow().queue
    }

    fn drop_old(&self, lanes: &mut Lanes, now: i64) {
        let age = i64::try_from(self.limits().max_age.as_micros()).unwrap_or(i64::MAX);
        for lane in Lanes::ALL {
            lanes.lane_mut(lane).drop_older(now.saturating_sub(age));
        }
        lanes.tell_losses(now);
    }
}

fn used(lanes: &Lanes) -> u64 {
    Lanes::ALL.map(|lane| lanes.lane(lane).bytes() as u64).iter().sum()
}

/// What all lanes may hold together of `wanted`: never over a twentieth of the file system, and from where a tenth of it is
/// free on less and less, down to nothing on a full one. All of it where the file system does not say how large it is.
fn room(space: Space, used: u64, wanted: u64) -> u64 {
    if space.size == 0 {
        return wanted;
    }
    let at_most = wanted.min(space.size / 20);
    let scarce = space.size / 10;
    // What the queue holds itself is not what keeps others from having room.
    let free = space.available.saturating_add(used).min(space.size);
    if free >= scarce {
        at_most
    } else {
        share(at_most, free, scarce)
    }
}

/// `total` times `part` of `whole`.
fn share(total: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(total) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
