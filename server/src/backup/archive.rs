//! The file itself: a tar, encrypted to a passphrase as `age` does it, so that `age --decrypt` and `tar` can open it too. It
//! appears whole under its name or not at all. What the parts mean is not known here; how large they may be is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use age::{
    DecryptError, Decryptor, Encryptor, scrypt,
    stream::{StreamReader, StreamWriter},
};
use zeroize::Zeroizing;

use super::{
    Error, damaged,
    format::{MAX_PART, MAX_PARTS, Part},
    passphrase::Passphrase,
    read, written,
};

/// Of scrypt: 128 MiB and a fraction of a second, which OWASP recommends.
const WORK: u8 = 17;
/// What is worked for a file of unknown origin: 1 GiB.
const MAX_WORK: u8 = 20;
/// Of the head that is read before anything is known to be genuine.
const MAX_HEAD: u64 = 64 << 10;
const BLOCK: usize = 512;
/// Behind the last part.
const MAX_TAIL: usize = 1 << 20;

/// A part: its name and its bytes, which may be a key.
pub type Named = (String, Zeroizing<Vec<u8>>);

/// A backup that is being written.
pub struct Writer {
    goal: PathBuf,
    temporary: Temporary,
    tar: tar::Builder<StreamWriter<BufWriter<File>>>,
    parts: Vec<Part>,
}

/// Goes with the value, unless it has become what it was for.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is gone already when all went well.
        let _ = fs::remove_file(&self.0);
    }
}

impl Writer {
    pub fn create(goal: &Path, passphrase: &Passphrase) -> Result<Self, Error> {
        if fs::symlink_metadata(goal).is_ok() {
            return Err(Error::Exists(goal.to_owned()));
        }
        let Some(name) = goal.file_name() else {
            return Err(written(goal)(io::Error::other("the path names no file")));
        };
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
        let temporary = Temporary(folder_of(goal).join(temporary));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary.0)
            .map_err(written(goal))?;
        let mut recipient = scrypt::Recipient::new(passphrase.secret());
        recipient.set_work_factor(WORK);
        let encryptor = Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
            .map_err(|error| written(goal)(io::Error::other(error)))?;
        let stream = encryptor.wrap_output(BufWriter::new(file)).map_err(written(goal))?;
        Ok(Self {
            goal: goal.to_owned(),
            temporary,
            tar: tar::Builder::new(stream),
            parts: Vec::new(),
        })
    }

    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() as u64 > MAX_PART || self.parts.len() >= MAX_PARTS {
            let problem = format!("{name} does not fit into a backup");
            return Err(written(&self.goal)(io::Error::other(problem)));
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        self.tar
            .append_data(&mut header, name, bytes)
            .map_err(written(&self.goal))?;
        self.parts.push(Part::of(name, bytes));
        Ok(())
    }

    /// Those that were added so far.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// It is on disk under its name when this returns.
    pub fn finish(self) -> Result<(), Error> {
        let failed = || written(&self.goal);
        let stream = self.tar.into_inner().map_err(failed())?;
        let file = stream.finish().map_err(failed())?;
        let file = file.into_inner().map_err(|error| failed()(error.into_error()))?;
        file.sync_all().map_err(failed())?;
        // A link, unlike a rename, does not overwrite what has appeared there meanwhile.
        match fs::hard_link(&self.temporary.0, &self.goal) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Error::Exists(self.goal.clone())),
            // Not every file system has links.
            Err(_) if fs::symlink_metadata(&self.goal).is_err() => {
                fs::rename(&self.temporary.0, &self.goal).map_err(failed())?;
            }
            Err(_) => return Err(Error::Exists(self.goal.clone())),
        }
        drop(self.temporary);
        let folder = File::open(folder_of(&self.goal)).map_err(failed())?;
        folder.sync_all().map_err(failed())
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A backup that is being read.
pub struct Reader {
    path: PathBuf,
    stream: StreamReader<Bounded>,
    parts: usize,
}

/// Ends after so many bytes, however many there are.
struct Bounded {
    inner: BufReader<File>,
    left: Arc<AtomicU64>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Bounded {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = usize::try_from(self.left.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let available = self.inner.fill_buf()?;
        Ok(&available[..available.len().min(left)])
    }

    fn consume(&mut self, count: usize) {
        self.left.fetch_sub(count as u64, Ordering::Relaxed);
        self.inner.consume(count);
    }
}

impl Reader {
    pub fn open(path: &Path, passphrase: &Passphrase) -> Result<Self, Error> {
        let no_backup = |why| Error::NotABackup {
            path: path.to_owned(),
            why,
        };
        // Looked at before it is opened, because opening a FIFO would wait for ever.
        if !fs::metadata(path).map_err(read(path))?.is_file() {
            return Err(no_backup("it is not a file"));
        }
        let file = File::open(path).map_err(read(path))?;
        let left = Arc::new(AtomicU64::new(MAX_HEAD));
        let bounded = Bounded {
            inner: BufReader::new(file),
            left: left.clone(),
        };
        let decryptor = Decryptor::new_buffered(bounded).map_err(|_| no_backup(""))?;
        if !decryptor.is_scrypt() {
            return Err(no_backup("it is not encrypted to a passphrase"));
        }
        left.store(u64::MAX, Ordering::Relaxed);
        let mut identity = scrypt::Identity::new(passphrase.secret());
        identity.set_max_work_factor(MAX_WORK);
        let stream = decryptor
            .decrypt(std::iter::once(&identity as &dyn age::Identity))
            .map_err(|error| match error {
                DecryptError::DecryptionFailed => Error::WrongPassphrase(path.to_owned()),
                DecryptError::ExcessiveWork { .. } => no_backup("its passphrase asks for more work than any of ours"),
                DecryptError::Io(error) => broken(path, error),
                _ => damaged(path, "its head was changed"),
            })?;
        Ok(Self {
            path: path.to_owned(),
            stream,
            parts: 0,
        })
    }

    /// The name and the bytes of the next part, not larger than `max` says of the name; none: that was the last, and the file
    /// ends as it was written.
    pub fn next(&mut self, max: impl FnOnce(&str) -> u64) -> Result<Option<Named>, Error> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return self.end().map(|()| None);
        }
        let wrong = |problem: &str| damaged(&self.path, problem);
        let header = tar::Header::from_byte_slice(&block);
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(index, byte)| u32::from(if (148..156).contains(&index) { b' ' } else { *byte }))
            .sum();
        let name = str::from_utf8(&header.path_bytes()).map(str::to_owned);
        let (Ok(size), Ok(said), Ok(name)) = (header.entry_size(), header.cksum(), name) else {
            return Err(wrong("a part of it has no name or no size"));
        };
        if said != sum || !header.entry_type().is_file() {
            return Err(wrong("a part of it is none of ours"));
        }
        self.parts += 1;
        if size > max(&name).min(MAX_PART) || self.parts > MAX_PARTS + 1 {
            return Err(wrong("a part of it is larger than any may be"));
        }
        let size = usize::try_from(size).map_err(|_| wrong("a part of it is larger than any may be"))?;
        let mut bytes = Zeroizing::new(vec![0; size]);
        self.fill(&mut bytes)?;
        let mut padding = [0; BLOCK];
        self.fill(&mut padding[..(BLOCK - size % BLOCK) % BLOCK])?;
        Ok(Some((name, bytes)))
    }

    /// Whether what was written last is there tells whether it is whole.
    fn end(&mut self) -> Result<(), Error> {
        let mut tail = Vec::new();
        let read = (&mut self.stream).take(MAX_TAIL as u64).read_to_end(&mut tail);
        read.map_err(|error| broken(&self.path, error))?;
        if tail.len() == MAX_TAIL || tail.iter().any(|byte| *byte != 0) {
            return Err(damaged(&self.path, "there is something behind its end"));
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        self.stream
            .read_exact(buffer)
            .map_err(|error| broken(&self.path, error))
    }
}

/// Where bytes that do not decrypt are an error of reading as well.
fn broken(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        _ if error.raw_os_error().is_some() => read(path)(error),
        io::ErrorKind::UnexpectedEof => damaged(path, "it ends too early"),
        _ => damaged(path, "it was changed after it was written, or it is not whole"),
    }
}
