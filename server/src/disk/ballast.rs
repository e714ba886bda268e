//! A file that takes room for nothing, so that there is some to give when a disk is full: operators can still revoke and delete
//! then. Knows no database, and not when.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rand::Rng as _;
use rustix::{fs::FallocateFlags, io::Errno};

use super::Space;

/// In the data directory.
pub const FILE: &str = "ballast";

#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    /// As configured; 0: none.
    wanted: u64,
    /// What was made and not released: some file systems say only later what a file takes, or never.
    made: AtomicU64,
}

impl Ballast {
    pub fn new(data_dir: &Path, wanted: u64) -> Self {
        Self {
            path: data_dir.join(FILE),
            wanted,
            made: AtomicU64::new(0),
        }
    }

    /// What it takes on this file system: never more than a hundredth of it.
    pub fn target(&self, space: Space) -> u64 {
        self.wanted.min(space.size / 100)
    }

    /// What it takes of the disk now.
    pub fn held(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| {
            let made = self.made.load(Ordering::Relaxed);
            taken(&file).max(made.min(file.len()))
        })
    }

    /// Makes it as large as this. Without enough room there is none afterwards.
    pub fn make(&self, bytes: u64) -> io::Result<()> {
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)
            .and_then(|file| allocate(file, bytes));
        self.made.store(if made.is_ok() { bytes } else { 0 }, Ordering::Relaxed);
        if made.is_err() {
            // What there is of it is of no use to anybody.
            let _ = fs::remove_file(&self.path);
        }
        made
    }

    /// Gives the room back. The number of bytes, 0: there was none.
    pub fn release(&self) -> io::Result<u64> {
        let bytes = self.held();
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// What the ballast at `path` takes of the disk, 0: there is none.
pub fn held(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| taken(&found))
}

/// In blocks of 512 bytes, whatever those of the file system are.
fn taken(file: &Metadata) -> u64 {
    file.blocks().saturating_mul(512)
}

/// Blocks of its own, not a hole.
fn allocate(file: File, bytes: u64) -> io::Result<()> {
    let is_taken = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // ZFS looks whether there is room, and takes none.
        Ok(()) => taken(&file.metadata()?) >= bytes,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => false,
        Err(error) => return Err(error.into()),
    };
    if !is_taken {
        fill(&file, bytes)?;
    }
    file.sync_all()
}

/// Of what no file system can compress.
fn fill(mut file: &File, bytes: u64) -> io::Result<()> {
    let mut block = vec![0; 64 * 1024];
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    while left > 0 {
        rand::rng().fill_bytes(&mut block);
        let part = left.min(block.len());
        file.write_all(&block[..part])?;
        left -= part;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn it_takes_what_it_says_of_the_disk_and_gives_all_of_it_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let ballast = Ballast::new(dir.path(), MIB);
        assert_eq!((ballast.held(), ballast.release().expect("nothing")), (0, 0));
        ballast.make(MIB).expect("there is room");
        assert!(ballast.held() >= MIB, "{}", ballast.held());
        // As on a file system that does not say what a file takes.
        File::create(ballast.path.clone())
            .and_then(|file| file.set_len(MIB))
            .expect("a hole");
        assert_eq!((held(&ballast.path), ballast.held()), (0, MIB));
        ballast.make(MIB).expect("there is room");
        assert!(ballast.release().expect("it is there") >= MIB);
        assert!(!dir.path().join(FILE).exists());
    }

    #[test]
    fn without_allocation_it_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        let file = File::create(&path).expect("a file");
        fill(&file, 100_000).expect("there is room");
        file.sync_all().expect("synced");
        assert!(held(&path) >= 100_000, "{}", held(&path));
    }

    #[test]
    fn it_never_takes_more_than_a_hundredth_of_the_disk() {
        let ballast = Ballast::new(Path::new("/nowhere"), 64 * MIB);
        let of = |size| ballast.target(Space { size, free: 0 });
        assert_eq!((of(100 * MIB), of(1 << 40)), (MIB, 64 * MIB));
    }

    #[test]
    fn what_has_no_room_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let ballast = Ballast::new(dir.path(), MIB);
        // More than there is on any disk.
        ballast.make(1 << 60).expect_err("there is no room");
        assert!(!dir.path().join(FILE).exists());
    }
}
