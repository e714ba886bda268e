//! The one door to child processes: an argument vector in, what the program did out. No shell is involved, nothing of the
//! agent's environment gets in, nothing of the program's process group outlives its run, and no amount of output takes
//! memory. A descendant that makes a session of its own (`setsid`) leaves the group and is not followed.
//! Knows nothing of checks, plugins or policies.

mod capture;
mod group;
mod start;

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{self, Either};
use rustix::process::Signal;
use tokio::time;

pub use capture::Capture;
use group::Group;
pub use start::NotStarted;

/// What is kept of standard output: half of it from the start, half from the end.
pub const STDOUT_BYTES: usize = 64 * 1024;
/// The same for standard error.
pub const STDERR_BYTES: usize = 16 * 1024;

/// How long a program may take to leave after SIGTERM, before SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long a killed program is waited for. One that hangs in the kernel does not die even of SIGKILL; it is left to the
/// runtime, which reaps it when it goes.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// How long the pipes are read on after the program is gone: only a process that left the group still holds them.
const PIPE_GRACE: Duration = Duration::from_millis(500);

/// How a run ended.
#[derive(Debug)]
pub enum End {
    Exited(i32),
    /// By a signal that was not ours.
    Signaled(i32),
    /// Killed by us at its time limit.
    TimedOut,
    NotStarted(NotStarted),
}

/// All there is to say of one run.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub stdout: Capture,
    pub stderr: Capture,
    pub duration: Duration,
}

/// Runs `argv[0]`, an absolute path, with the rest of `argv` as its arguments, and kills it with all its group after
/// `limit`. Dropping the future kills the group as well.
pub async fn run(argv: &[String], limit: Duration) -> Outcome {
    let started = Instant::now();
    let mut stdout = Capture::new(STDOUT_BYTES);
    let mut stderr = Capture::new(STDERR_BYTES);
    let end = match start::start(argv).await {
        Ok(child) => watch(child, limit, &mut stdout, &mut stderr).await,
        Err(reason) => End::NotStarted(reason),
    };
    Outcome {
        end,
        stdout,
        stderr,
        duration: started.elapsed(),
    }
}

async fn watch(mut child: tokio::process::Child, limit: Duration, stdout: &mut Capture, stderr: &mut Capture) -> End {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut group = Group::new(child);
    let supervise = pin!(supervise(&mut group, limit));
    let drain = pin!(future::join(stdout.drain(out), stderr.drain(err)));
    match future::select(supervise, drain).await {
        Either::Left((end, drain)) => {
            let _ = time::timeout(PIPE_GRACE, drain).await;
            end
        }
        Either::Right((_, supervise)) => supervise.await,
    }
}

async fn supervise(group: &mut Group, limit: Duration) -> End {
    if time::timeout(limit, group.leader_exit()).await.is_ok() {
        return group.finish().await;
    }
    group.signal(Signal::TERM);
    if time::timeout(TERM_GRACE, group.leader_exit()).await.is_err() {
        group.signal(Signal::KILL);
        if time::timeout(KILL_GRACE, group.leader_exit()).await.is_err() {
            return End::TimedOut;
        }
    }
    group.finish().await;
    End::TimedOut
}

#[cfg(test)]
mod tests;
