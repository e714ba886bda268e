//! Consecutive records of one spool: in memory, in a file, or both. The newest segment of a spool grows; the others lie in
//! their files alone until they are sent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::io::Errno;

use super::frame;

/// What a file begins with: the kind of file and the version of its layout.
const MAGIC: &[u8; 8] = b"MSTSEG\x01\n";

/// The largest file that is read: a segment is closed when it has grown to its size, so it is one record longer at most.
const MAX_FILE: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
pub struct Segment {
    pub first_seq: u64,
    /// Records.
    pub count: u64,
    /// Of the frames.
    pub bytes: usize,
    /// When the first and the last record were recorded, in microseconds since 1970.
    pub oldest_at: i64,
    pub newest_at: i64,
    content: Option<Content>,
    file: Option<SegmentFile>,
    /// A file that has its records under other numbers, and goes as soon as they are in its own.
    superseded: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// Where each frame begins.
    starts: Vec<usize>,
}

#[derive(Debug)]
struct SegmentFile {
    path: PathBuf,
    /// None: closed.
    file: Option<Arc<File>>,
    /// Bytes of the frames that are in it, from the first on.
    whole: usize,
    /// Something in it may not have reached the disk itself.
    is_unsynced: bool,
    /// Somebody was given it in order to sync it.
    is_syncing: bool,
}

/// Whether files have reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    All,
    /// Not all. A second attempt would not find what the system has dropped: what memory has is written anew.
    Failed,
    /// Nobody has tried, or it is not known how far one came.
    Unknown,
}

/// What there is of a segment that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Salvage {
    /// All of it after all, or it is not known yet.
    Whole,
    /// The first records.
    Part,
    Nothing,
}

/// Whether it is the process or the system that lacks something now, and nothing is known of the file.
pub fn may_pass(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN | Errno::STALE)
    )
}

/// A file of which a part could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    pub bytes: u64,
}

impl Segment {
    pub fn in_memory(first_seq: u64) -> Self {
        Self {
            first_seq,
            count: 0,
            bytes: 0,
            oldest_at: 0,
            newest_at: 0,
            content: Some(Content::default()),
            file: None,
            superseded: None,
        }
    }

    /// An empty one in a new file.
    pub fn create(path: PathBuf, first_seq: u64) -> io::Result<Self> {
        let file = Some(SegmentFile::create(path, &[])?);
        Ok(Self {
            file,
            ..Self::in_memory(first_seq)
        })
    }

    /// One that an earlier process has written. What follows its last whole frame is cut off.
    pub fn open(path: PathBuf, first_seq: u64) -> io::Result<(Self, Option<Torn>)> {
        let (content, torn) = Content::read(&path)?;
        // A disk that takes nothing keeps nobody from reading what is whole.
        if let Some(torn) = torn
            && let Err(error) = cut_off(&path, torn)
        {
            tracing::warn!(path = %path.display(), %error, "the torn end of a file could not be cut off");
        }
        let segment = Self {
            first_seq,
            count: content.starts.len() as u64,
            bytes: content.bytes.len(),
            oldest_at: content.at(0),
            newest_at: content.at(content.starts.len().saturating_sub(1)),
            content: None,
            file: Some(SegmentFile {
                path,
                file: None,
                whole: content.bytes.len(),
                is_unsynced: false,
                is_syncing: false,
            }),
            superseded: None,
        };
        Ok((segment, torn))
    }

    /// 0: empty, and nothing before it.
    pub fn last_seq(&self) -> u64 {
        (self.first_seq + self.count).saturating_sub(1)
    }

    /// Keeps the record in any case; an error says that the file could not take it, and that memory alone has it.
    pub fn append(&mut self, at: i64, record: &[u8]) -> io::Result<()> {
        if self.content.is_none() {
            self.load()?;
        }
        let content = self.content.get_or_insert_default();
        let start = content.bytes.len();
        content.starts.push(start);
        frame::append(&mut content.bytes, at, record);
        self.count += 1;
        self.bytes = content.bytes.len();
        if self.count == 1 {
            self.oldest_at = at;
        }
        self.newest_at = at;
        match &mut self.file {
            Some(file) if file.whole == start => file.write(&content.bytes[start..], start),
            _ => Ok(()),
        }
    }

    /// A record and what it takes; none: it is not in here. Reads the file where that is needed.
    pub fn get(&mut self, seq: u64) -> io::Result<Option<&[u8]>> {
        let Some(index) = seq.checked_sub(self.first_seq).filter(|index| *index < self.count) else {
            return Ok(None);
        };
        if self.content.is_none() {
            self.load()?;
        }
        let content = self.content.get_or_insert_default();
        Ok(usize::try_from(index).ok().and_then(|index| content.record(index)))
    }

    /// What the record takes in here, without reading it where the file alone has it.
    pub fn bytes_before(&self, seq: u64) -> usize {
        let index = usize::try_from(seq.saturating_sub(self.first_seq)).unwrap_or(usize::MAX);
        let start = self.content.as_ref().map(|content| content.starts.get(index));
        start.map_or(0, |start| start.copied().unwrap_or(self.bytes))
    }

    /// Leaves the frames to the file, which is closed as soon as it is synced.
    pub fn unload(&mut self) {
        if let Some(file) = &mut self.file
            && file.whole == self.bytes
        {
            if !file.is_unsynced {
                file.file = None;
            }
            self.content = None;
        }
    }

    /// Whether memory alone has some of it.
    pub fn is_volatile(&self) -> bool {
        self.file.as_ref().is_none_or(|file| file.whole < self.bytes)
    }

    /// Writes to disk what memory alone has. `path` is for one that has no file yet.
    pub fn settle(&mut self, path: PathBuf) -> io::Result<()> {
        let content = self.content.get_or_insert_default();
        if let Some(file) = &mut self.file {
            match file.complete(&content.bytes) {
                // Somebody has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                settled => return settled,
            }
        }
        self.file = None;
        self.file = Some(SegmentFile::create(path, &content.bytes)?);
        self.superseded.take().into_iter().for_each(remove_file);
        Ok(())
    }

    /// Gives its file, if it has one, this name.
    pub fn rename(&mut self, path: &Path) -> io::Result<()> {
        let Some(file) = self.file.as_mut().filter(|file| file.path != path) else {
            return Ok(());
        };
        match fs::rename(&file.path, path) {
            // Somebody has removed it. What memory has of it can be written anew, and the rest is missed when it is read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        file.path = path.to_owned();
        Ok(())
    }

    /// Leaves out the records before `seq`. The others go into the file `path` before the one that has them is removed; until
    /// that is possible, memory has them as well. Fails when they cannot be read.
    pub fn forget_before(&mut self, seq: u64, path: Option<PathBuf>) -> io::Result<()> {
        if self.content.is_none() {
            self.load()?;
        }
        let content = self.content.get_or_insert_default();
        let index = content
            .starts
            .len()
            .min(usize::try_from(seq - self.first_seq).unwrap_or(usize::MAX));
        content.forget(index);
        self.first_seq = seq;
        self.count = content.starts.len() as u64;
        self.bytes = content.bytes.len();
        self.oldest_at = content.at(0);
        let (Some(old), Some(path)) = (self.file.take(), path) else {
            return Ok(());
        };
        match SegmentFile::create(path, &content.bytes) {
            Ok(file) => {
                self.file = Some(file);
                remove_file(old.path);
            }
            Err(error) => {
                tracing::warn!(%error, "a file of the queue cannot be written anew now");
                self.superseded = Some(old.path);
            }
        }
        Ok(())
    }

    /// The file, if it was written to since it was given out last: whoever takes it syncs it.
    pub fn take_unsynced(&mut self) -> Option<Arc<File>> {
        let file = self.file.as_mut().filter(|file| file.is_unsynced)?;
        let opened = file.open().ok()?;
        file.is_unsynced = false;
        file.is_syncing = true;
        if self.content.is_none() {
            file.file = None;
        }
        Some(opened)
    }

    /// What became of it when it was given out to be synced.
    pub fn synced(&mut self, how: Synced) {
        let Some(file) = self.file.as_mut().filter(|file| file.is_syncing) else {
            return;
        };
        file.is_syncing = false;
        file.is_unsynced |= how != Synced::All;
        if how == Synced::Failed && self.content.is_some() {
            file.whole = 0;
        }
    }

    /// Goes on with the whole frames that a damaged file begins with.
    pub fn salvage(&mut self) -> Salvage {
        let Some(file) = &mut self.file else {
            return Salvage::Nothing;
        };
        let content = match Content::read(&file.path) {
            Ok((content, _)) => content,
            Err(error) if may_pass(&error) => return Salvage::Whole,
            Err(_) => return Salvage::Nothing,
        };
        match content.starts.len() as u64 {
            0 => return Salvage::Nothing,
            count if count == self.count => return Salvage::Whole,
            // More than was written is somebody else's.
            count if count > self.count => return Salvage::Nothing,
            _ => {}
        }
        self.count = content.starts.len() as u64;
        self.bytes = content.bytes.len();
        self.newest_at = content.at(content.starts.len() - 1);
        file.whole = self.bytes;
        self.content = Some(content);
        Salvage::Part
    }

    /// Best effort: what stays is sent again, and known to the controller.
    pub fn remove(self) {
        let file = self.file.map(|file| file.path);
        file.into_iter().chain(self.superseded).for_each(remove_file);
    }

    fn load(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let (content, _) = Content::read(&file.path)?;
        if content.starts.len() as u64 != self.count {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} has changed or is damaged", file.path.display()),
            ));
        }
        self.content = Some(content);
        Ok(())
    }
}

impl Content {
    fn read(path: &Path) -> io::Result<(Self, Option<Torn>)> {
        let mut bytes = Vec::new();
        let mut file = File::open(path)?;
        (&mut file).take(MAX_FILE).read_to_end(&mut bytes)?;
        if !bytes.starts_with(MAGIC) {
            // Nothing was in it when power was lost, or it is not ours.
            let torn = Torn {
                bytes: bytes.len() as u64,
            };
            return Ok((Self::default(), Some(torn).filter(|torn| torn.bytes > 0)));
        }
        bytes.drain(..MAGIC.len());
        let mut content = Self {
            starts: Vec::new(),
            bytes,
        };
        let mut start = 0;
        while let Some(frame) = frame::read(&content.bytes[start..]) {
            let size = frame.size();
            content.starts.push(start);
            start += size;
        }
        let torn = (content.bytes.len() - start) as u64;
        content.bytes.truncate(start);
        Ok((content, (torn > 0).then_some(Torn { bytes: torn })))
    }

    /// The first so many.
    fn forget(&mut self, records: usize) {
        let end = self.starts.get(records).copied().unwrap_or(self.bytes.len());
        self.bytes.drain(..end);
        self.starts.drain(..records);
        self.starts.iter_mut().for_each(|start| *start -= end);
    }

    fn frame(&self, index: usize) -> Option<frame::Frame<'_>> {
        frame::read(self.bytes.get(*self.starts.get(index)?..)?)
    }

    fn record(&self, index: usize) -> Option<&[u8]> {
        self.frame(index).map(|frame| frame.record)
    }

    fn at(&self, index: usize) -> i64 {
        self.frame(index).map_or(0, |frame| frame.at)
    }
}

impl SegmentFile {
    fn create(path: PathBuf, frames: &[u8]) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        let written = (&file).write_all(MAGIC).and_then(|()| (&file).write_all(frames));
        if let Err(error) = written {
            // Half a file is worse than none.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self {
            path,
            file: Some(Arc::new(file)),
            whole: frames.len(),
            is_unsynced: true,
            is_syncing: false,
        })
    }

    /// Writes what it lacks of `frames`. What it has is not touched: a disk that fails once more must not cost that.
    fn complete(&mut self, frames: &[u8]) -> io::Result<()> {
        // Opened again, in case that the disk has been replaced.
        self.file = None;
        let length = (MAGIC.len() + self.whole) as u64;
        if self.open()?.metadata()?.len() < length {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.write(frames.get(self.whole..).unwrap_or_default(), self.whole)
    }

    /// `start`: where the frame begins among the frames.
    fn write(&mut self, frame: &[u8], start: usize) -> io::Result<()> {
        let written = self.open().and_then(|file| {
            let offset = (MAGIC.len() + start) as u64;
            file.write_all_at(frame, offset).inspect_err(|_| {
                // A torn frame would be cut off at the next start just as well.
                let _ = file.set_len(offset);
            })
        });
        if written.is_ok() {
            self.whole = start + frame.len();
            self.is_unsynced = true;
        }
        written
    }

    fn open(&mut self) -> io::Result<Arc<File>> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let file = Arc::new(OpenOptions::new().write(true).open(&self.path)?);
        self.file = Some(file.clone());
        Ok(file)
    }
}

fn remove_file(path: PathBuf) {
    if let Err(error) = fs::remove_file(&path) {
        tracing::warn!(path = %path.display(), %error, "a file of the queue could not be removed");
    }
}

fn cut_off(path: &Path, torn: Torn) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(file.metadata()?.len().saturating_sub(torn.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(path: &Path, records: &[&[u8]]) -> Segment {
        let mut segment = Segment::create(path.to_owned(), 5).expect("a file");
        for (at, record) in (10..).zip(records) {
            segment.append(at, record).expect("it is written");
        }
        segment
    }

    #[test]
    fn what_is_in_a_file_is_read_back_after_it_was_unloaded_and_by_the_next_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("segment");
        let mut segment = filled(&path, &[b"one", b"", b"three"]);
        segment.unload();
        assert_eq!(segment.get(7).expect("read"), Some(&b"three"[..]));
        assert_eq!(segment.get(8).expect("read"), None);
        assert_eq!(segment.get(4).expect("read"), None);
        let (mut again, torn) = Segment::open(path, 5).expect("it opens");
        assert_eq!(torn, None);
        assert_eq!((again.count, again.bytes, again.last_seq()), (3, segment.bytes, 7));
        assert_eq!((again.oldest_at, again.newest_at), (10, 12));
        assert_eq!(again.get(5).expect("read"), Some(&b"one"[..]));
    }

    #[test]
    fn wherever_a_file_was_torn_the_whole_frames_before_are_kept_and_more_can_follow() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("segment");
        filled(&path, &[b"one", b"two", b"three"]);
        let whole = fs::read(&path).expect("the file");
        let ends = [8, 8 + 19, 8 + 38, 8 + 59];
        assert_eq!(whole.len(), ends[3]);
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("written");
            let (segment, torn) = Segment::open(path.clone(), 5).expect("it opens");
            let kept = ends.iter().filter(|end| **end <= length).count().saturating_sub(1);
            assert_eq!(segment.count, kept as u64, "{length}");
            let is_clean = length == 0 || ends.contains(&length);
            assert_eq!(torn.is_none(), is_clean, "{length}");
            // Cut off for good.
            assert_eq!(Segment::open(path.clone(), 5).expect("it opens").1, None, "{length}");
        }
    }

    #[test]
    fn a_record_that_the_file_cannot_take_stays_in_memory_and_can_be_settled() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("segment");
        let mut segment = filled(&path, &[b"one"]);
        // A file that is open for reading alone takes nothing, as one on a full disk.
        if let Some(file) = &mut segment.file {
            file.file = Some(Arc::new(File::open(&path).expect("the file")));
        }
        segment.append(20, b"two").expect_err("it takes nothing");
        segment.append(21, b"three").expect("memory has it");
        assert!(segment.is_volatile());
        segment.unload();
        assert_eq!(segment.get(6).expect("read"), Some(&b"two"[..]));
        let (on_disk, _) = Segment::open(path.clone(), 5).expect("it opens");
        assert_eq!(on_disk.count, 1);
        segment.settle(path.clone()).expect("it is written");
        assert!(!segment.is_volatile());
        let (on_disk, _) = Segment::open(path, 5).expect("it opens");
        assert_eq!(on_disk.count, 3);
    }

    #[test]
    fn settling_writes_what_the_file_lacks_and_all_of_it_where_the_file_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("segment");
        let mut segment = filled(&path, &[b"one"]);
        let fail = |segment: &mut Segment, record: &[u8]| {
            if let Some(file) = &mut segment.file {
                file.file = Some(Arc::new(File::open(&path).expect("the file")));
            }
            segment.append(20, record).expect_err("it takes nothing");
        };
        fail(&mut segment, b"two");
        // Whoever writes the first frame once more takes this back.
        let file = OpenOptions::new().write(true).open(&path).expect("the file");
        file.write_all_at(b"O", 8 + 16).expect("written");
        segment.settle(path.clone()).expect("it is written");
        let bytes = fs::read(&path).expect("the file");
        assert_eq!((bytes.len(), &bytes[24..27]), (8 + 38, &b"One"[..]));

        fail(&mut segment, b"three");
        fs::remove_file(&path).expect("removed");
        segment.settle(path.clone()).expect("it is written");
        assert_eq!(Segment::open(path, 5).expect("it opens").0.count, 3);
    }

    #[test]
    fn a_file_is_given_out_to_be_synced_once_for_what_was_written_also_when_it_is_full() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("segment");
        let mut segment = filled(&path, &[b"one"]);
        assert!(segment.take_unsynced().is_some());
        assert!(segment.take_unsynced().is_none(), "nothing was written since");
        segment.append(20, b"two").expect("it is written");
        segment.unload();
        let file = segment.take_unsynced().expect("it was not synced when it was full");
        assert_eq!(Arc::strong_count(&file), 1, "nobody else holds it open");
        assert!(segment.take_unsynced().is_none());
        let (mut segment, _) = Segment::open(path, 5).expect("it opens");
        assert!(segment.take_unsynced().is_none(), "what an earlier process has written");
    }

    #[test]
    fn what_did_not_reach_the_disk_is_written_again_or_synced_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("segment");
        let mut segment = filled(&path, &[b"one", b"two"]);
        segment.take_unsynced().expect("it was written to");
        segment.synced(Synced::All);
        assert!(segment.take_unsynced().is_none() && !segment.is_volatile());

        segment.append(30, b"three").expect("it is written");
        segment.take_unsynced().expect("it was written to");
        segment.synced(Synced::Unknown);
        segment.take_unsynced().expect("it was not even tried");
        segment.synced(Synced::Failed);
        assert!(segment.is_volatile(), "memory alone is known to have it");
        // What a system does that drops what it could not write.
        OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("the file")
            .set_len(8)
            .expect("cut");
        segment.settle(path.clone()).expect("it is written anew");
        segment.take_unsynced().expect("it was written to");
        let (mut again, _) = Segment::open(path, 5).expect("it opens");
        assert_eq!(again.get(7).expect("read"), Some(&b"three"[..]));

        segment.unload();
        segment.synced(Synced::Failed);
        assert!(!segment.is_volatile(), "the file alone has it");
        segment.take_unsynced().expect("it is tried again");
    }

    #[test]
    fn of_a_damaged_file_the_whole_frames_before_the_damage_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("segment");
        let mut segment = filled(&path, &[b"one", b"two", b"three"]);
        segment.unload();
        assert_eq!(segment.salvage(), Salvage::Whole);
        let file = OpenOptions::new().write(true).open(&path).expect("the file");
        file.write_all_at(b"T", 8 + 19 + 16).expect("written");
        segment.get(5).expect_err("it is damaged");
        assert_eq!(segment.salvage(), Salvage::Part);
        assert_eq!((segment.count, segment.last_seq(), segment.newest_at), (1, 5, 10));
        segment.unload();
        assert_eq!(segment.get(5).expect("read"), Some(&b"one"[..]));
        assert_eq!(segment.get(6).expect("read"), None);
    }

    #[test]
    fn a_file_that_changed_under_the_agent_is_not_taken_for_what_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("segment");
        let mut segment = filled(&path, &[b"one", b"two"]);
        segment.unload();
        fs::write(&path, "something else").expect("written");
        let error = segment.get(5).expect_err("it is not read").to_string();
        assert!(error.contains("damaged"), "{error}");
    }
}
