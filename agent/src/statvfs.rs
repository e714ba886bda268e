//! Asks file systems how full they are without ever hanging on one. A file system that has not answered yet is not asked
//! again, so that a server that is away costs one thread, not one for each question.
//! Knows no mounts and no thresholds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{StatVfs, StatVfsMountFlags};
use rustix::io::Errno;
use tokio::sync::watch;
use tokio::time;

use crate::detached;

/// How full a file system is. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub size: u64,
    pub free: u64,
    /// What of `free` users other than root may take.
    pub available: u64,
    /// Inodes; 0 where the file system does not count them.
    pub files: u64,
    pub files_free: u64,
    pub read_only: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it does not answer")]
    Stuck,
    #[error("{0}")]
    System(Errno),
    #[error(transparent)]
    Call(#[from] detached::Error),
}

type Answer = Result<Space, Errno>;

struct Question {
    since: Instant,
    answer: watch::Receiver<Option<Answer>>,
}

/// One for the process, like the threads that hang.
static OPEN: Mutex<BTreeMap<PathBuf, Question>> = Mutex::new(BTreeMap::new());

/// The space of the file system that `path` is on. `Stuck` after `patience`, or at once when it has been asked longer ago
/// than that and has not answered since.
pub async fn ask(path: &Path, patience: Duration) -> Result<Space, Error> {
    ask_with(path, patience, |path| {
        rustix::fs::statvfs(path).map(|answer| space(&answer))
    })
    .await
}

async fn ask_with(
    path: &Path,
    patience: Duration,
    call: impl FnOnce(&Path) -> Answer + Send + 'static,
) -> Result<Space, Error> {
    let mut answer = question(path, patience, call)?;
    let answer = match time::timeout(patience, answer.wait_for(Option::is_some)).await {
        Ok(Ok(answer)) => *answer,
        // The thread is gone without an answer, or there is none in time.
        Ok(Err(_)) | Err(_) => None,
    };
    answer.ok_or(Error::Stuck)?.map_err(Error::System)
}

/// Puts the question, unless it is open already.
fn question(
    path: &Path,
    patience: Duration,
    call: impl FnOnce(&Path) -> Answer + Send + 'static,
) -> Result<watch::Receiver<Option<Answer>>, Error> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(question) = open.get(path) {
        return if question.since.elapsed() > patience {
            Err(Error::Stuck)
        } else {
            Ok(question.answer.clone())
        };
    }
    let (sender, receiver) = watch::channel(None);
    let owned = path.to_owned();
    detached::call(move || {
        let answer = call(&owned);
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&owned);
        sender.send_replace(Some(answer));
    })?;
    open.insert(
        path.to_owned(),
        Question {
            since: Instant::now(),
            answer: receiver.clone(),
        },
    );
    Ok(receiver)
}

fn space(answer: &StatVfs) -> Space {
    let bytes = |blocks: u64| blocks.saturating_mul(answer.f_frsize);
    Space {
        size: bytes(answer.f_blocks),
        free: bytes(answer.f_bfree),
        available: bytes(answer.f_bavail),
        files: answer.f_files,
        files_free: answer.f_ffree,
        read_only: answer.f_flag.contains(StatVfsMountFlags::RDONLY),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const EMPTY: Space = Space {
        size: 1,
        free: 1,
        available: 1,
        files: 0,
        files_free: 0,
        read_only: false,
    };

    #[tokio::test]
    async fn a_real_file_system_answers() {
        let space = ask(Path::new("/"), Duration::from_secs(60)).await.unwrap();
        assert!(space.size >= space.free && space.free >= space.available, "{space:?}");
    }

    #[tokio::test]
    async fn a_path_that_does_not_exist_is_the_systems_error() {
        let error = ask(Path::new("/no/such/path"), Duration::from_secs(60))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::System(Errno::NOENT)), "{error}");
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_is_asked_once_and_again_only_after_it_has_answered() {
        let path = Path::new("/test/hangs");
        let short = Duration::from_millis(20);
        let (release, hang) = mpsc::sync_channel::<()>(0);
        let first = ask_with(path, short, move |_| {
            hang.recv().unwrap();
            Ok(EMPTY)
        });
        assert!(matches!(first.await, Err(Error::Stuck)));
        let second = ask_with(path, short, |_| panic!("asked while the first question is open"));
        assert!(matches!(second.await, Err(Error::Stuck)));
        release.send(()).unwrap();
        let third = async {
            loop {
                if let Ok(space) = ask_with(path, short, |_| Ok(EMPTY)).await {
                    return space;
                }
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(time::timeout(Duration::from_secs(60), third).await, Ok(EMPTY));
    }

    #[tokio::test]
    async fn two_that_ask_at_once_share_the_answer() {
        let path = Path::new("/test/shared");
        let patience = Duration::from_secs(60);
        let (release, wait) = mpsc::sync_channel::<()>(0);
        let first = ask_with(path, patience, move |_| {
            wait.recv().unwrap();
            Ok(EMPTY)
        });
        let second = async {
            let answer = question(path, patience, |_| panic!("asked twice")).unwrap();
            release.send(()).unwrap();
            let mut answer = answer;
            answer.wait_for(Option::is_some).await.unwrap().unwrap()
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!((first.unwrap(), second.unwrap()), (EMPTY, EMPTY));
    }
}
