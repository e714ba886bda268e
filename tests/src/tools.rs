//! Programs of others that tests use when they are installed. A test that has to do without one says so.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::{binaries, settings};

/// The folder of Debian's monitoring plugins.
pub const PLUGINS: &str = "/usr/lib/nagios/plugins";

/// A program on the path.
pub fn find(name: &str) -> Option<PathBuf> {
    settings::path()
        .split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

/// The `buf` that `tests/run.sh` installs.
pub fn buf() -> Option<PathBuf> {
    let path = binaries::workspace().join("target/tools/node_modules/.bin/buf");
    path.is_file().then_some(path)
}

/// A program of the Python that `tests/run.sh` sets up: `python`, `schemathesis`.
pub fn python(program: &str) -> Option<PathBuf> {
    let venv = binaries::workspace().join("target/tools/python");
    // Written when all is there.
    venv.join("versions").is_file().then(|| venv.join("bin").join(program))
}

/// A plugin of `monitoring-plugins-basic`.
pub fn plugin(name: &str) -> Option<PathBuf> {
    let path = Path::new(PLUGINS).join(name);
    path.is_file().then_some(path)
}

/// The library of `libfaketime`, which shifts the clock of a process.
pub fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
}

/// What shifts the clock of a process so far, as its environment; none: there is nothing to do that with.
pub fn clock(offset: &str) -> Option<Vec<(String, String)>> {
    let library = faketime()?;
    let variables = [
        ("LD_PRELOAD", library.to_str()?),
        ("FAKETIME", offset),
        // What only measures how long something takes is right on such a host as well.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    Some(
        variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    )
}

/// Says that something was not tested here, past the capture of the test runner; `tests/run.sh` counts these lines.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {why}");
}
