//! The agent's directory of state: where each file lies, that nobody else can read it, and that one agent at a time uses
//! it. What is in the files is known to those who write them.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use muster_certs::file;

use crate::{dial::causes, status};

#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// Held as long as the agent runs; the kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("failed to lock {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("another agent is running with the state directory {}{}", path.display(), holder(pid))]
    InUse { path: PathBuf, pid: Option<u32> },
}

impl StateDir {
    /// Made with mode 0700 when it is not there; refused when others may enter it.
    pub fn create(path: &Path) -> Result<StateDir, Error> {
        file::create_private_dir(path)?;
        Ok(StateDir { path: path.to_owned() })
    }

    /// For commands that only look.
    pub fn at(path: &Path) -> StateDir {
        StateDir { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Key and certificate; that it is there is what "enrolled" means.
    pub fn identity(&self) -> PathBuf {
        self.path.join("identity.pem")
    }

    /// The key of an enrollment that has begun.
    pub fn enroll_key(&self) -> PathBuf {
        self.path.join("enroll.key.pem")
    }

    /// Key, and then key and certificate, of a renewal that is under way.
    pub fn next_identity(&self) -> PathBuf {
        self.path.join("identity.next.pem")
    }

    /// The id and the key of a copy that is about to become an agent of its own.
    pub fn fork_id(&self) -> PathBuf {
        self.path.join("fork-id")
    }

    pub fn fork_key(&self) -> PathBuf {
        self.path.join("fork.key.pem")
    }

    pub fn trust(&self) -> PathBuf {
        self.path.join("trust.json")
    }

    pub fn joined(&self) -> PathBuf {
        self.path.join("server.json")
    }

    /// Where controllers are, as the controller said.
    pub fn endpoints(&self) -> PathBuf {
        self.path.join("endpoints.json")
    }

    pub fn policies(&self) -> PathBuf {
        self.path.join("policies.pb")
    }

    /// The records that the controller does not have yet.
    pub fn queue(&self) -> PathBuf {
        self.path.join("queue")
    }

    pub fn status(&self) -> PathBuf {
        self.path.join("status.json")
    }

    /// Everything that may be here, the identity first: what is left when only a part of it is gone is no agent.
    pub fn files(&self) -> Vec<PathBuf> {
        vec![
            self.identity(),
            self.next_identity(),
            self.enroll_key(),
            self.fork_key(),
            self.fork_id(),
            self.trust(),
            self.joined(),
            self.endpoints(),
            self.policies(),
            self.generation(),
            self.status(),
            status::temporary(&self.status()),
            self.lock_file(),
        ]
    }

    fn generation(&self) -> PathBuf {
        self.path.join("generation")
    }

    fn lock_file(&self) -> PathBuf {
        self.path.join("agent.lock")
    }

    /// Whoever has it is the only one who writes here. What a process that was killed while it wrote has left is gone then.
    pub fn lock(&self) -> Result<Lock, Error> {
        let path = self.lock_file();
        let failed = |source| Error::Lock {
            path: path.clone(),
            source,
        };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let mut file = match opened {
            // As one that is full, it keeps nobody from starting who has been here before.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
            opened => opened,
        }
        .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.take(32).read_to_string(&mut text);
                return Err(Error::InUse {
                    path: self.path.clone(),
                    pid: text.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Only for the message of a second agent: a full disk keeps nobody from starting.
        if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
            tracing::warn!(path = %path.display(), %error, "a second agent would not be told which one holds this");
        }
        for path in self.files() {
            if let Err(error) = file::remove_leftovers(&path) {
                tracing::warn!(path = %self.path.display(), %error, "half-written files could not be removed");
            }
        }
        Ok(Lock { _file: file })
    }

    /// Whether an agent holds the lock now.
    pub fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.lock_file()) else {
            return false;
        };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// A spool id that was never used before: "<generation>-<random>", of a generation above this one. The generation is on
    /// disk before it is used, and grows with every call; where that is not possible, the clock tells it.
    pub fn next_spool_id(&self, above: u64, now: SystemTime) -> String {
        let generation = self.next_generation(above, now).unwrap_or_else(|error| {
            tracing::error!(
                error = causes(&error),
                "the spools of the agent cannot be counted; the clock does it"
            );
            clock_generation(now).max(above.saturating_add(1))
        });
        format!("{generation}-{:016x}", rand::random::<u64>())
    }

    fn next_generation(&self, above: u64, now: SystemTime) -> Result<u64, Error> {
        let path = self.generation();
        let last = match file::read_secret_text(&path, 64) {
            Ok(text) => text.trim().parse::<u64>().ok(),
            Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Some(0),
            Err(file::Error::TooLong { .. } | file::Error::NotText { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let generation = last.and_then(|last| last.max(above).checked_add(1)).unwrap_or_else(|| {
            tracing::warn!(path = %path.display(), "the file holds no generation; it goes on from the clock");
            clock_generation(now)
        });
        file::write_secret(&path, format!("{generation}\n").as_bytes())?;
        Ok(generation)
    }
}

fn clock_generation(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH)
        // 0 is no generation: of a machine that knows no time yet.
        .map_or(1, |since| since.as_secs().max(1))
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

    use super::*;

    fn state_dir() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    fn generation(spool_id: &str) -> u64 {
        spool_id.split_once('-').unwrap().0.parse().unwrap()
    }

    #[test]
    fn a_second_agent_on_the_same_directory_is_told_who_has_it() {
        let (_dir, state) = state_dir();
        assert!(!state.is_locked());
        let lock = state.lock().unwrap();
        assert!(state.is_locked());
        match state.lock() {
            Err(Error::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(lock);
        assert!(!state.is_locked());
        state.lock().unwrap();
    }

    #[test]
    fn a_lock_on_a_full_disk_is_a_lock() {
        let (_dir, state) = state_dir();
        // Takes no byte, as a file on a full disk.
        std::os::unix::fs::symlink("/dev/full", state.path().join("agent.lock")).unwrap();
        state.lock().unwrap();
    }

    #[test]
    fn what_a_killed_agent_left_half_written_is_gone_for_who_has_the_lock() {
        let (_dir, state) = state_dir();
        let left = state.path().join(".identity.next.pem.0123456789abcdef.tmp");
        fs::write(&left, "half a key").unwrap();
        fs::write(state.identity(), "a key").unwrap();
        let _lock = state.lock().unwrap();
        assert!(!left.exists());
        assert!(state.identity().exists());
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let (_dir, state) = state_dir();
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let error = StateDir::create(state.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn spool_ids_are_never_the_same_and_their_generations_grow() {
        let (_dir, state) = state_dir();
        let ids: Vec<String> = (0..3).map(|_| state.next_spool_id(0, SystemTime::UNIX_EPOCH)).collect();
        assert_eq!(ids.iter().map(|id| generation(id)).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_spool_id_above_what_the_controller_knows_is_kept_and_grown_from() {
        let (_dir, state) = state_dir();
        let id = |above| generation(&state.next_spool_id(above, SystemTime::UNIX_EPOCH));
        assert_eq!([id(0), id(40), id(7), id(0)], [1, 41, 42, 43]);
    }

    #[test]
    fn where_spools_cannot_be_counted_the_clock_tells_their_generation() {
        let (_dir, state) = state_dir();
        // No file can be put in its place.
        fs::create_dir(state.path().join("generation")).unwrap();
        let id = |above, seconds| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            generation(&state.next_spool_id(above, now))
        };
        assert_eq!(id(7, 1_800_000_000), 1_800_000_000);
        assert_eq!(id(1_900_000_000, 1_800_000_000), 1_900_000_001);
        assert_eq!(
            id(0, 0),
            1,
            "a machine that knows no time has one that the controller takes"
        );
    }

    #[test]
    fn a_broken_generation_file_goes_on_from_the_clock_and_grows_from_there() {
        let (_dir, state) = state_dir();
        let path = state.path().join("generation");
        for broken in ["", "seven", "18446744073709551615"] {
            file::write_secret(&path, broken.as_bytes()).unwrap();
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            assert_eq!(generation(&state.next_spool_id(0, now)), 1_800_000_000, "{broken:?}");
            assert_eq!(generation(&state.next_spool_id(0, now)), 1_800_000_001, "{broken:?}");
        }
    }
}
