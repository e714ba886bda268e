//! One active controller for each database. A second one waits here as standby and goes on when the first is gone; one that
//! loses the lease has to stop at once. Not an election between equals: whoever asks first, works.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::{
    self,
    lease::{Holder, Mandate},
};

/// How often a standby asks.
const STANDBY_INTERVAL: Duration = Duration::from_secs(1);
/// How often the connection that holds the lock is looked at, and how long an answer may take.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to lock {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to ask the database for the lease")]
    Database(#[from] store::Error),
}

/// The right to be the active controller. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease(Held);

#[derive(Debug)]
enum Held {
    /// The lock ends with the file handle, however the process ends.
    File {
        _file: File,
    },
    Postgres {
        holder: Holder,
        mandate: Mandate,
    },
}

/// Waits until the lease is ours. `None`: `shutdown` came first.
pub async fn acquire(source: &store::Source, shutdown: &CancellationToken) -> Result<Option<Lease>, Error> {
    let waiting = async {
        match source {
            store::Source::Sqlite(folder) => lock_file(&lock_path(folder)).await,
            store::Source::Postgres(url) => lock_database(url).await,
        }
    };
    shutdown.run_until_cancelled(waiting).await.transpose()
}

/// Where the lock of a SQLite database is.
pub fn lock_path(data_dir: &Path) -> PathBuf {
    data_dir.join("controller.lock")
}

/// Whether somebody holds the lock of this data directory now. Takes it for no longer than it looks.
pub fn is_held(data_dir: &Path) -> io::Result<bool> {
    let file = match File::open(lock_path(data_dir)) {
        Ok(file) => file,
        // Nobody has ever run here.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Lease {
    /// What connections to PostgreSQL are opened under.
    pub fn mandate(&self) -> Option<Mandate> {
        match &self.0 {
            Held::File { .. } => None,
            Held::Postgres { mandate, .. } => Some(*mandate),
        }
    }

    /// Resolves when the lease is lost. It is watched only while this is polled; cancelling it is harmless.
    pub async fn lost(&mut self) {
        let Held::Postgres { holder, .. } = &mut self.0 else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            match tokio::time::timeout(CHECK_TIMEOUT, holder.check()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "lost the lease: the connection that held it is gone");
                    return;
                }
                Err(_) => {
                    tracing::error!(
                        timeout_s = CHECK_TIMEOUT.as_secs(),
                        "lost the lease: the database does not answer"
                    );
                    return;
                }
            }
        }
    }
}

async fn lock_file(path: &Path) -> Result<Lease, Error> {
    let failed = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let mut standby = Standby::default();
    loop {
        match file.try_lock() {
            Ok(()) => {
                standby.over();
                return Ok(Lease(Held::File { _file: file }));
            }
            Err(TryLockError::WouldBlock) => standby.wait().await,
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}

async fn lock_database(url: &str) -> Result<Lease, Error> {
    // The first failure is told to whoever starts the process; as standby it is something to sit out.
    let mut holder = Some(Holder::connect(url).await?);
    let mut standby = Standby::default();
    loop {
        if let Some(connected) = &mut holder {
            match connected.try_take().await {
                Ok(true) => {
                    let ended = connected.end_others().await?;
                    if ended > 0 {
                        tracing::warn!(
                            ended,
                            "the controller before had connections to the database; they were ended"
                        );
                    }
                    let mandate = connected.mandate().await?;
                    let holder = holder.take().expect("is connected");
                    standby.over();
                    return Ok(Lease(Held::Postgres { holder, mandate }));
                }
                Ok(false) => {}
                Err(error) if standby.waiting => {
                    tracing::warn!(%error, "lost the connection to the database while on standby");
                    holder = None;
                }
                Err(error) => return Err(error.into()),
            }
        } else {
            holder = Holder::connect(url).await.ok();
        }
        standby.wait().await;
    }
}

/// Says once that it waits, and once that it is over.
#[derive(Default)]
struct Standby {
    waiting: bool,
}

impl Standby {
    async fn wait(&mut self) {
        if !std::mem::replace(&mut self.waiting, true) {
            tracing::info!("another controller is active on this database; waiting as standby");
        }
        tokio::time::sleep(STANDBY_INTERVAL).await;
    }

    fn over(&self) {
        if self.waiting {
            tracing::info!("this controller is active now");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_controller_waits_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let source = store::Source::Sqlite(folder.path().to_owned());
        let shutdown = CancellationToken::new();
        let first = acquire(&source, &shutdown).await.unwrap().unwrap();

        let mut second = Box::pin(acquire(&source, &shutdown));
        assert!(
            tokio::time::timeout(Duration::from_secs(60), &mut second)
                .await
                .is_err(),
            "two are active"
        );
        drop(first);
        assert!(second.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn whoever_looks_sees_who_holds_it_and_takes_it_from_nobody() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_held(folder.path()).unwrap(), "nobody has ever run here");
        let source = store::Source::Sqlite(folder.path().to_owned());
        let shutdown = CancellationToken::new();
        let lease = acquire(&source, &shutdown).await.unwrap();
        assert!(is_held(folder.path()).unwrap());
        drop(lease);
        assert!(!is_held(folder.path()).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_standby_that_is_told_to_stop_stops() {
        let folder = tempfile::tempdir().unwrap();
        let source = store::Source::Sqlite(folder.path().to_owned());
        let shutdown = CancellationToken::new();
        let _first = acquire(&source, &shutdown).await.unwrap().unwrap();
        let (second, ()) = tokio::join!(acquire(&source, &shutdown), async { shutdown.cancel() });
        assert!(second.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_lock_file_that_cannot_be_made_is_named() {
        let source = store::Source::Sqlite("/nonexistent".into());
        let error = acquire(&source, &CancellationToken::new()).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/controller.lock"), "{error}");
    }
}
