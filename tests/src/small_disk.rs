//! Small disks for tests that fill them: file systems in memory, mounted where only the test and its children see them, and
//! gone with these. Not for anything that has to outlive its test.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    panic,
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    thread::UnshareFlags,
};

use crate::{
    ctl::Outcome,
    poll::{self, SECOND},
    process, tools,
};

/// Runs `test` where mounts are its own. `what` is what cannot be tested where this host does not permit that.
pub fn alone(what: &'static str, test: impl FnOnce() + Send + 'static) {
    // What a thread sees of mounts, those see that it starts; no other thread of this process is concerned.
    let thread = thread::Builder::new()
        .name(what.to_owned())
        .spawn(move || match enter() {
            Ok(()) => test(),
            Err(why) => tools::skipped(what, &format!("no mounts of its own: {why}")),
        });
    if let Err(panicked) = thread.expect("a thread").join() {
        panic::resume_unwind(panicked);
    }
}

/// The same for a test that can go on without: it is told whether mounts are its own.
pub fn alone_or_not(what: &'static str, test: impl FnOnce(bool) + Send + 'static) {
    let thread = thread::Builder::new().name(what.to_owned()).spawn(move || {
        let entered = enter();
        if let Err(why) = &entered {
            tools::skipped(what, &format!("no mounts of its own: {why}"));
        }
        test(entered.is_ok());
    });
    if let Err(panicked) = thread.expect("a thread").join() {
        panic::resume_unwind(panicked);
    }
}

#[expect(
    deprecated,
    reason = "what makes it unsafe is the table of open files, which is not what is unshared here"
)]
fn enter() -> Result<(), String> {
    rustix::thread::unshare(UnshareFlags::NEWNS).map_err(|error| error.to_string())?;
    mount(&["--make-rprivate".as_ref(), "/".as_ref()])?;
    // Whether it is permitted at all.
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    mount(&[
        "-t".as_ref(),
        "tmpfs".as_ref(),
        "tmpfs".as_ref(),
        dir.path().as_os_str(),
    ])?;
    unmount(dir.path());
    Ok(())
}

/// A disk that is mounted at a folder. Unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// At this folder, which is made where there is none; `options` are those of tmpfs, such as `size=32m`.
    pub fn at(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).expect("a folder");
        let options = format!("mode=0700,{options}");
        let arguments: [&OsStr; 6] = [
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            "tmpfs".as_ref(),
            path.as_os_str(),
        ];
        mount(&arguments).expect("a disk is mounted");
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("a mode");
        Self { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size and what is free, in bytes.
    pub fn space(&self) -> (u64, u64) {
        let answer = statvfs(&self.path).expect("the disk answers");
        (answer.f_blocks * answer.f_frsize, answer.f_bavail * answer.f_frsize)
    }

    /// Fills it with something of others', so that this part of it is free, in percent.
    pub fn leave_free(&self, percent: f64) {
        let file = File::options()
            .create(true)
            .append(true)
            .open(self.filler())
            .expect("the filler opens");
        let taken = poll::until("the disk is filled", SECOND, || {
            let length = file.metadata().expect("its length").len();
            let (size, free) = self.space();
            let wanted = (size as f64 * percent / 100.0) as u64;
            let length = (length + free).saturating_sub(wanted);
            file.set_len(length.min(file.metadata().expect("its length").len()))
                .expect("the filler shrinks");
            // Others may have taken some of it since it was asked for.
            fallocate(&file, FallocateFlags::empty(), 0, length.max(1)).map(|()| length)
        });
        assert!(taken > 0, "others take more than that");
    }

    /// Others leave the disk.
    pub fn make_room(&self) {
        // Emptied before it is removed: a child that another test has just started holds every file that was open here,
        // and so the room it takes, until its program begins.
        let _ = File::options().write(true).truncate(true).open(self.filler());
        let _ = fs::remove_file(self.filler());
    }

    /// As `mount -o remount`.
    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        mount(&["-o".as_ref(), options.as_ref(), self.path.as_os_str()]).expect("it is mounted anew");
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}

fn mount(arguments: &[&OsStr]) -> Result<(), String> {
    let program = tools::find("mount").ok_or("mount is not installed")?;
    let mut command = process::clean_command(program, Path::new("/"));
    command.args(arguments);
    let outcome = Outcome::of(command);
    match outcome.code {
        0 => Ok(()),
        _ => Err(outcome.stderr.trim().to_owned()),
    }
}

/// Once nobody uses it any longer.
fn unmount(path: &Path) {
    if let Some(program) = tools::find("umount") {
        let mut command = process::clean_command(program, Path::new("/"));
        command.arg("--lazy").arg(path);
        Outcome::of(command);
    }
}
