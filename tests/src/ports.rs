//! Ports that stay the same when a process starts again. Below the range from which the kernel takes the ports of
//! outgoing connections, so that none of them is lost while its process is down.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A free port on 127.0.0.1.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test runs that are under way at the same moment begin at different places.
    let offset = (std::process::id() % 200) as u16 * 100;
    (0..COUNT)
        .map(|_| FIRST + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}
