//! Most tests wait most of their time, so that many fit beside each other. Those that fill the machine take turns.

use std::sync::{Mutex, MutexGuard, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// Until it is dropped, no other test that asks for it has begun.
pub fn of_heavy_tests() -> MutexGuard<'static, ()> {
    // One that failed is over too.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
