//! Calls that may hang in the kernel for ever: a file system whose server is away, the command line of a process that is
//! stuck. Each gets a thread of its own, which nobody waits for at exit, as a runtime does for its own blocking threads.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::sync::oneshot;

/// So many may run or hang at once; then new ones are refused.
const MAX_THREADS: usize = 64;

static THREADS: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{MAX_THREADS} earlier calls into the kernel still hang; see `ps -eLo pid,tid,stat,wchan,comm` for state D"
    )]
    TooMany,
    #[error("failed to start a thread")]
    Start(#[source] io::Error),
}

/// Starts `work`. What it returns comes through the receiver, which is closed without a value only if `work` panics.
pub fn call<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<oneshot::Receiver<T>, Error> {
    let place = Place::take()?;
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name("kernel-call".to_owned())
        .spawn(move || {
            let answer = work();
            drop(place);
            // Nobody is waiting any longer: then nobody wants it.
            let _ = sender.send(answer);
        })
        .map_err(Error::Start)?;
    Ok(receiver)
}

/// One of the threads there may be.
struct Place;

impl Place {
    fn take() -> Result<Place, Error> {
        let taken = THREADS.fetch_add(1, Ordering::Relaxed);
        let place = Place;
        if taken < MAX_THREADS {
            Ok(place)
        } else {
            Err(Error::TooMany)
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_answer_of_a_call_comes_back() {
        assert_eq!(call(|| 7).unwrap().await, Ok(7));
    }

    #[tokio::test]
    async fn a_call_that_panics_closes_its_receiver() {
        assert!(call(|| panic!("on purpose")).unwrap().await.is_err());
    }
}
