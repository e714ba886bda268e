//! A child and the process group it leads: waits for the leader, signals the group, and leaves nothing behind.
//!
//! The number of a group is free for others once its leader is reaped and its members are gone. So the leader's exit is
//! noticed through a pidfd, which does not reap it; the rest of the group is killed while the dead leader still holds the
//! number; then it is reaped.

use std::future;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

use super::End;

#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    /// The leader's pid, which is the group's number. None once the leader is reaped.
    id: Option<Pid>,
    /// Absent on kernels before 5.3, where the leader is reaped when it exits and the group is killed right after.
    pidfd: Option<AsyncFd<OwnedFd>>,
}

impl Group {
    /// `child` must have been started as the leader of a group of its own.
    pub(super) fn new(child: Child) -> Group {
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pidfd = id.and_then(|id| {
            let fd = rustix::process::pidfd_open(id, PidfdFlags::NONBLOCK)
                .or_else(|_| rustix::process::pidfd_open(id, PidfdFlags::empty()))
                .ok()?;
            #[expect(
                deprecated,
                reason = "it is unsound only for what closes its descriptor early, as an OwnedFd cannot"
            )]
            AsyncFd::with_interest(fd, Interest::READABLE).ok()
        });
        Group { child, id, pidfd }
    }

    /// Until the leader has exited. May be dropped and called again.
    pub(super) async fn leader_exit(&mut self) {
        match &self.pidfd {
            Some(fd) if fd.readable().await.is_ok() => {}
            _ => {
                if self.child.wait().await.is_err() {
                    // Nobody can say when it exits; the time limit ends this.
                    future::pending::<()>().await;
                }
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // The one error that can come says that nobody is left, which is what is wanted.
            let _ = rustix::process::kill_process_group(id, signal);
        }
    }

    /// After `leader_exit`: kills what is left of the group, then reaps the leader.
    pub(super) async fn finish(&mut self) -> End {
        self.signal(Signal::KILL);
        let status = self.child.wait().await;
        self.id = None;
        match status {
            Ok(status) => match status.code() {
                Some(code) => End::Exited(code),
                None => End::Signaled(status.signal().unwrap_or_default()),
            },
            // Somebody else reaped it: nothing is known of how it ended.
            Err(_) => End::Signaled(0),
        }
    }
}

impl Drop for Group {
    /// The leader itself is killed and reaped by tokio's `kill_on_drop`, after this.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
