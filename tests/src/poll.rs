//! Waiting for a condition, which is the only way a system test waits. What the condition last said is in the panic.
#![expect(
    clippy::disallowed_methods,
    reason = "the one sleep of the tests, between two looks at a condition"
)]

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

pub const SECOND: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the answer is `Ok`, which is returned. `Err` is the status so far.
///
/// # Panics
/// When `patience` is over, with the last status.
#[track_caller]
pub fn until<T, E: Display>(what: &str, patience: Duration, condition: impl FnMut() -> Result<T, E>) -> T {
    match attempt(patience, condition) {
        Ok(value) => value,
        Err(status) => panic!("waited {patience:?} for: {what}\nlast status: {status}"),
    }
}

/// The same for whoever goes on without: the last status, when `patience` is over.
pub fn attempt<T, E: Display>(patience: Duration, mut condition: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(status) if start.elapsed() >= patience => return Err(status),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Looks again and again for as long as `period` takes.
///
/// # Panics
/// As soon as the condition says `Err`.
#[track_caller]
pub fn all_through<E: Display>(what: &str, period: Duration, mut condition: impl FnMut() -> Result<(), E>) {
    let start = Instant::now();
    while start.elapsed() < period {
        if let Err(status) = condition() {
            panic!("not so after {:?}: {what}\nstatus: {status}", start.elapsed());
        }
        thread::sleep(PAUSE);
    }
}
