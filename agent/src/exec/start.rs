//! Starts a program in its own process group with a fixed environment, or says in words why that was not possible.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::Access;
use tokio::process::{Child, Command};
use tokio::time;

/// All that a child gets of the environment: these, and `INHERITED` where the agent itself has them. Anything else of the
/// agent's, and so any secret, stays out.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    // Plugins print decimal points and English then.
    ("LC_ALL", "C"),
    ("LANG", "C"),
];
const INHERITED: [&str; 2] = ["HOME", "TZ"];

/// A program is busy for a moment while it is being written, as in an upgrade of its package.
const BUSY_RETRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Why a program was not started, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot run {program}: {why}; {action}")]
pub struct NotStarted {
    pub program: String,
    pub why: String,
    pub action: &'static str,
}

/// Must be called within a tokio runtime.
pub(super) async fn start(argv: &[String]) -> Result<Child, NotStarted> {
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let refuse = |why: &str, action| NotStarted {
        program: quoted(program),
        why: why.to_owned(),
        action,
    };
    if !program.starts_with('/') {
        return Err(refuse(
            "not an absolute path",
            "name the program with its whole path in run.command",
        ));
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(refuse(
            "an argument contains a NUL byte",
            "take it out of run.command or the parameters",
        ));
    }
    #[expect(clippy::disallowed_methods, reason = "this is the one door to child processes")]
    let mut command = Command::new(program);
    command
        .args(&argv[1..])
        .env_clear()
        .envs(ENVIRONMENT)
        .envs(inherited())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut retries = 0;
    loop {
        match command.spawn() {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && retries < BUSY_RETRIES => {
                retries += 1;
                time::sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(explain(program, &error)),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a child gets what the agent has of exactly these, and of nothing else"
)]
fn inherited() -> impl Iterator<Item = (&'static str, OsString)> {
    INHERITED.iter().filter_map(|&key| Some((key, std::env::var_os(key)?)))
}

/// The system's errors name neither the program nor the reason: EACCES is a directory, a missing bit or a mount option.
fn explain(program: &str, error: &io::Error) -> NotStarted {
    let path = Path::new(program);
    let (why, action) = match (error.kind(), path.metadata()) {
        (io::ErrorKind::NotFound, Err(_)) => (
            "no such file".to_owned(),
            "install the plugin on this machine or correct run.command",
        ),
        (io::ErrorKind::NotFound, Ok(_)) => (
            "the interpreter or loader that it names does not exist".to_owned(),
            "correct its first line (#!) or install the interpreter",
        ),
        (io::ErrorKind::PermissionDenied, Ok(found)) if found.is_dir() => (
            "it is a directory".to_owned(),
            "name the program inside it in run.command",
        ),
        (io::ErrorKind::PermissionDenied, Ok(_)) if rustix::fs::access(path, Access::EXEC_OK).is_err() => (
            "not executable for the agent's user".to_owned(),
            "chmod +x it, or check the mount option noexec",
        ),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => (
            "neither a binary of this machine's kind nor a script with a first line #!".to_owned(),
            "add the line #!/bin/sh, or install the right build",
        ),
        _ if error.raw_os_error() == Some(rustix::io::Errno::TOOBIG.raw_os_error()) => (
            "its arguments are too long".to_owned(),
            "shorten run.command or the parameters",
        ),
        _ => (
            error.to_string(),
            "see that the agent's user may run it and that the machine has room for a process",
        ),
    };
    NotStarted {
        program: quoted(program),
        why,
        action,
    }
}

fn quoted(program: &str) -> String {
    let printable = |c: char| !c.is_whitespace() && !c.is_control();
    if !program.is_empty() && program.chars().all(printable) {
        program.to_owned()
    } else {
        format!("{program:?}")
    }
}
