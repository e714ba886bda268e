//! Threads on which connections live, one for each core. The tasks of one connection hand each other every frame; on one
//! thread that wakes nobody else, while a runtime of several threads would wake another for most of them.

use std::{
    io,
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The threads end when the last copy of this is gone, with all that still runs on them.
#[derive(Debug, Clone)]
pub struct Threads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runtimes: Vec<Handle>,
    dealt: AtomicUsize,
    _ended: DropGuard,
}

impl Threads {
    /// As many as the machine has cores.
    pub fn start(name: &str) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let ended = CancellationToken::new();
        let runtimes = (0..count).map(|number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, ended) = (runtime.handle().clone(), ended.clone());
            thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || runtime.block_on(ended.cancelled()))?;
            Ok(handle)
        });
        let runtimes = runtimes.collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Inner {
            runtimes,
            dealt: AtomicUsize::new(0),
            _ended: ended.drop_guard(),
        })))
    }

    /// Where the next connection lives: each thread in turn.
    pub(super) fn next(&self) -> &Handle {
        let Inner { runtimes, dealt, .. } = &*self.0;
        &runtimes[dealt.fetch_add(1, Ordering::Relaxed) % runtimes.len()]
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, future::pending};

    use futures_util::future::join_all;
    use tokio::sync::oneshot;
    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test]
    async fn each_thread_has_its_turn_and_ends_with_the_last_copy() {
        let (threads, tasks) = (Threads::start("test").unwrap(), TaskTracker::new());
        let count = threads.0.runtimes.len();
        let here = async || thread::current().name().map(str::to_owned);
        let names = join_all((0..3 * count).map(|_| tasks.spawn_on(here(), threads.next()))).await;
        let mut turns = BTreeMap::new();
        for name in names {
            *turns.entry(name.unwrap().expect("a name")).or_default() += 1;
        }
        let wanted = (0..count).map(|number| (format!("test-{number}"), 3)).collect();
        assert_eq!(turns, wanted);

        let (held, gone) = oneshot::channel::<()>();
        let waits = async move {
            let _held = held;
            pending::<()>().await;
        };
        tasks.spawn_on(waits, threads.next());
        let copy = threads.clone();
        drop(threads);
        assert_eq!(tasks.spawn_on(async { 7 }, copy.next()).await.unwrap(), 7);
        drop(copy);
        assert!(gone.await.is_err());
    }
}
