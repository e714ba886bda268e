//! How far a swarm is, for whoever waits for it: lines on standard error.

use std::{sync::OnceLock, time::Instant};

pub fn say(what: &str) {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    let elapsed = STARTED.get_or_init(Instant::now).elapsed();
    eprintln!("swarm {:>6.1} s  {what}", elapsed.as_secs_f64());
}
