//! What the keeper makes of the disk that it finds.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use muster_proto::v1;

use super::*;
use crate::link::queue::{Directory, Limits};

const GIB: u64 = 1 << 30;

fn space(size: u64, available: u64) -> Space {
    Space {
        size,
        free: available,
        available,
        files: 0,
        files_free: 0,
        read_only: false,
    }
}

#[test]
fn the_queue_takes_what_it_wants_of_a_large_disk_and_a_twentieth_of_a_small_one() {
    assert_eq!(room(space(100 * GIB, 50 * GIB), 0, GIB), GIB);
    assert_eq!(room(space(2 * GIB, GIB), 0, GIB), GIB / 10);
}

#[test]
fn it_shrinks_with_what_is_free_below_a_tenth() {
    let of = |available| room(space(100 * GIB, available), 0, GIB);
    assert_eq!(of(10 * GIB), GIB);
    assert_eq!(of(5 * GIB), GIB / 2);
    assert_eq!(of(0), 0);
    assert_eq!(room(space(0, 0), 0, GIB), GIB, "it does not say");
}

#[test]
fn what_it_holds_itself_does_not_make_it_shrink() {
    assert_eq!(room(space(100 * GIB, 9 * GIB), GIB, GIB), GIB);
}

/// The queue in a new directory, and its keeper, which syncs like this.
fn keeper(sync_file: fn(&File) -> io::Result<()>) -> (tempfile::TempDir, watch::Sender<Arc<Config>>, Keeper) {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::new(dir.path().join("queue"));
    let lanes = directory.open("agent", "1-a", |_| Limits::default()).unwrap();
    let (sender, config) = watch::channel(Arc::default());
    let keeper = Keeper {
        sync_file,
        ..Keeper::new(Arc::new(Queue::new(lanes)), directory.path().to_owned(), config)
    };
    (dir, sender, keeper)
}

fn record(keeper: &Keeper, lane: Lane, message: &str) {
    let event = v1::AgentEvent {
        message: message.to_owned(),
        ..Default::default()
    };
    let record = v1::Record {
        time_unix_micros: 1,
        body: Some(v1::record::Body::Event(event)),
    };
    keeper.queue.recorder().record(lane, record);
}

fn broken(keeper: &Keeper, lane: Lane) -> Option<String> {
    keeper.queue.lock().lane(lane).depth(0).broken
}

#[tokio::test]
async fn a_disk_that_fails_its_syncs_is_told_of_and_all_is_written_to_it_when_it_is_back() {
    static FAILS: AtomicBool = AtomicBool::new(true);
    let (dir, _config, keeper) = keeper(|file| match FAILS.load(Ordering::SeqCst) {
        // What the system does with what it could not write.
        true => file.set_len(8).and(Err(io::Error::from_raw_os_error(5))),
        false => file.sync_data(),
    });
    let mut syncing = None;
    record(&keeper, Lane::Metrics, "first");
    keeper.sync(&mut syncing).await;
    assert!(syncing.is_none());
    let why = broken(&keeper, Lane::Metrics).expect("it is known");
    assert!(why.contains("Input/output error"), "{why}");
    assert_eq!(broken(&keeper, Lane::Logs), None, "of that nothing was written");
    record(&keeper, Lane::Metrics, "second");

    FAILS.store(false, Ordering::SeqCst);
    keeper.look().await;
    keeper.sync(&mut syncing).await;
    assert_eq!(Lanes::ALL.map(|lane| broken(&keeper, lane)), [None, None, None]);
    drop(keeper);
    let again = Directory::new(dir.path().join("queue"));
    let lanes = again.open("agent", "2-b", |_| Limits::default()).unwrap();
    assert_eq!(lanes.lane(Lane::Metrics).depth(0).records, 2);
    // That it stayed in memory, and that it is on disk again.
    assert!(lanes.lane(Lane::Results).depth(0).records >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_long_to_sync_is_not_waited_for_and_asked_once_at_a_time() {
    static SYNCS: AtomicUsize = AtomicUsize::new(0);
    static SLOW: AtomicBool = AtomicBool::new(true);
    let (_dir, _config, keeper) = keeper(|file| {
        SYNCS.fetch_add(1, Ordering::SeqCst);
        while SLOW.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        file.sync_data()
    });
    let mut syncing = None;
    record(&keeper, Lane::Results, "first");
    keeper.sync(&mut syncing).await;
    assert!(syncing.is_some(), "it was left to itself");
    while SYNCS.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    record(&keeper, Lane::Results, "second");
    keeper.sync(&mut syncing).await;
    assert!(syncing.is_some());
    assert_eq!(SYNCS.load(Ordering::SeqCst), 1, "one at a time");
    assert_eq!(broken(&keeper, Lane::Results), None, "it is not known to have failed");

    SLOW.store(false, Ordering::SeqCst);
    while syncing.is_some() {
        keeper.sync(&mut syncing).await;
    }
    let before = SYNCS.load(Ordering::SeqCst);
    while SYNCS.load(Ordering::SeqCst) == before || syncing.is_some() {
        keeper.sync(&mut syncing).await;
    }
    assert!(keeper.begin_sync().is_none(), "all is on the disk");
}

#[tokio::test]
async fn other_limits_hold_as_soon_as_they_are_read() {
    let (_dir, config, keeper) = keeper(File::sync_data);
    for _ in 0..100 {
        record(&keeper, Lane::Metrics, &"x".repeat(10_000));
    }
    let queue = keeper.queue.clone();
    let stop = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(keeper.run(stop.clone()));
    let depth = || queue.lock().lane(Lane::Metrics).depth(0);
    // The second one, after it has looked for the first time by itself.
    for limit in [900_000, 500_000] {
        config.send_modify(|config| {
            let mut changed = Config::clone(config);
            changed.queue.metrics = limit;
            *config = Arc::new(changed);
        });
        let dropped = async {
            while depth().bytes as u64 > limit {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LOOK / 2, dropped)
            .await
            .expect("it has dropped what is over the limit");
    }
    assert_eq!(depth().records + depth().dropped, 100);
    stop.cancel();
    running.join_all().await;
}
