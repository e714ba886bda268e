//! Files with secrets: written whole or not at all, with mode 0600 in directories of mode 0700, and refused when others
//! could read them. What is in the files is the caller's affair.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::fingerprint;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} is longer than {max} bytes", path.display())]
    TooLong { path: PathBuf, max: usize },
    #[error("{} is not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    #[error("{path} holds a secret and is open to other users (mode {mode:04o}); run: chmod 600 {path}", path = path.display())]
    FileTooOpen { path: PathBuf, mode: u32 },
    #[error("{path} holds secrets and is open to other users (mode {mode:04o}); run: chmod 700 {path}", path = path.display())]
    DirectoryTooOpen { path: PathBuf, mode: u32 },
}

/// Replaces the file in one step, readable by its owner only. After a crash there is the old content or the new.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes, 0o600).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// As [`write_secret`], readable by everyone.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes, 0o644).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// Refuses a file that group or others have any access to, and one of more than `max` bytes.
pub fn read_secret(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened, because opening a FIFO would wait for ever.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    // The mode that counts is that of the file that was opened, whatever the path means by now.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(Error::FileTooOpen {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    // Room for all of it at once: a growing buffer would leave copies of the secret behind.
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.min(max).saturating_add(1)));
    file.take((max as u64).saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > max {
        return Err(Error::TooLong {
            path: path.to_owned(),
            max,
        });
    }
    Ok(bytes)
}

/// As [`read_secret`], for text.
pub fn read_secret_text(path: &Path, max: usize) -> Result<Zeroizing<String>, Error> {
    let bytes = read_secret(path, max)?;
    let text = str::from_utf8(&bytes).map_err(|_| Error::NotText { path: path.to_owned() })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Makes the directory, and those above it that are missing, with mode 0700. One that is there already is checked as by
/// [`check_private_dir`].
pub fn create_private_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })?;
    check_private_dir(path)
}

/// Refuses a directory that group or others have any access to.
pub fn check_private_dir(path: &Path) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    if !metadata.is_dir() {
        return Err(Error::NotADirectory { path: path.to_owned() });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(Error::DirectoryTooOpen {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    Ok(())
}

/// Removes what writers of this file have left beside it that were killed half-way: copies, secret or not, that nobody knows
/// of. Only for whom no other writes the file.
pub fn remove_leftovers(path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(());
    };
    let entries = match fs::read_dir(directory_of(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|file| is_temporary(file, name)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("the path names no file"))?;
    let directory = directory_of(path);
    let temporary = directory.join(temporary_name(name)?);
    let result = write_new(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(directory)?.sync_all());
    if result.is_err() {
        // Gone already if it was renamed; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Hidden, beside its goal so that the rename stays within one file system, and new, so that two writers never share one.
fn temporary_name(name: &std::ffi::OsStr) -> io::Result<OsString> {
    let mut random = [0; 8];
    rand::fill(&mut random).map_err(|_| io::Error::other("failed to draw random bits"))?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", fingerprint::hex(&random)));
    Ok(temporary)
}

/// Whether `file` is a name that [`temporary_name`] gives for `name`.
fn is_temporary(file: &str, name: &str) -> bool {
    let random = file
        .strip_prefix('.')
        .and_then(|rest| rest.strip_prefix(name))
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|rest| rest.strip_suffix(".tmp"));
    random.is_some_and(|random| random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The umask may have taken bits away.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
