//! Removes history that is too old or too much, and forgets changes, marks and what deleted resources were that nobody asks for any
//! more.

use std::time::Duration;

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clock::{self, DAY, Micros},
    config::{Keep, Retention},
    disk::Level,
    store::{self, Db, History},
};

const EVERY: Duration = Duration::from_secs(60);
const CHANGES: Micros = DAY;
/// Twice as long as any agent may keep a record (`queue.max_age`, at most 30 days; an agent drops what is older before it sends
/// anything): whoever asks for a mark that is gone has nothing that it spoke for.
const MARKS: Micros = 60 * DAY;
/// Watchers that come back find their place among the last of these.
const MAX_CHANGES: i64 = 1_000_000;
/// Of an agent, in each lane.
const MAX_MARKS: i64 = 64;
/// Steps of one kind in one round, so that a round is bounded; the next goes on.
const STEPS: usize = 200;

/// Steps in which space is given back in one round while the disk is not well.
const RELEASES: usize = 100;

/// A disk that gets fuller is a reason to look at once, and to give back all that is free.
pub async fn run(db: Db, retention: Retention, mut disk: watch::Receiver<Level>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
            Ok(()) = disk.changed() => {}
        }
        let level = *disk.borrow_and_update();
        if let Err(error) = round(&db, &retention, level, clock::now(), &shutdown).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "failed to remove old history; trying again"
            );
        }
    }
}

/// One round over everything.
pub async fn round(
    db: &Db,
    retention: &Retention,
    disk: Level,
    now: Micros,
    shutdown: &CancellationToken,
) -> Result<(), store::Error> {
    let kinds = [
        (History::Results, retention.results),
        (History::Events, retention.events),
        (History::Metrics, retention.metrics),
        (History::Logs, retention.logs),
    ];
    for (history, keep) in kinds {
        trim(db, history, keep, now, shutdown).await?;
    }
    // Who did it is known for as long, too.
    db.manifest_version_trim(now - clock::from_duration(retention.audit))
        .await?;
    db.changes_trim(now - CHANGES).await?;
    db.changes_trim_to(MAX_CHANGES).await?;
    db.mark_trim(now - MARKS).await?;
    db.mark_trim_to(MAX_MARKS).await?;
    if disk == Level::Ample {
        return db.history_release().await.map(|_| ());
    }
    for _ in 0..RELEASES {
        if shutdown.is_cancelled() || !db.history_release().await? {
            break;
        }
    }
    db.history_release_log().await
}

async fn trim(
    db: &Db,
    history: History,
    keep: Keep,
    now: Micros,
    shutdown: &CancellationToken,
) -> Result<(), store::Error> {
    let limit = i64::try_from(keep.bytes).unwrap_or(i64::MAX);
    let mut removed = 0;
    for _ in 0..STEPS {
        if shutdown.is_cancelled() {
            break;
        }
        let usage = db.history_usage(history).await?;
        let excess = usage.byte_count - limit;
        // What is too much goes oldest first, whatever its age, and about as many rows as hold it.
        let (before, rows) = if excess > 0 {
            let row = (usage.byte_count / usage.row_count.max(1)).max(1);
            (now + 1, excess / row + 1)
        } else {
            (now - clock::from_duration(keep.age), i64::MAX)
        };
        let step = db.history_trim(history, before, rows).await?;
        if step.row_count == 0 {
            break;
        }
        removed += step.row_count;
    }
    if removed > 0 {
        info!(?history, rows = removed, "old history removed");
    }
    Ok(())
}
