//! SIGTERM and SIGINT: the first one asks the process to stop in order, the second ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Watches for signals from now on; the token is cancelled by the first. The task ends with the process.
pub fn install(tracker: &TaskTracker) -> io::Result<CancellationToken> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tracker.spawn(async move {
        let (name, _) = signals.next().await;
        tracing::info!(signal = name, "stopping; a second signal ends the process at once");
        token.cancel();
        let (name, code) = signals.next().await;
        tracing::warn!(signal = name, "ended by a second signal");
        std::process::exit(code);
    });
    Ok(shutdown)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// The name of the next signal, and the exit code of a process that it ends.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 128 + 15),
            _ = self.interrupt.recv() => ("SIGINT", 128 + 2),
        }
    }
}
