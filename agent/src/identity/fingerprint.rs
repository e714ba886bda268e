//! What tells this machine and this start of the agent from others. Whatever cannot be read stays empty.

use std::{fs::File, io::Read as _};

use muster_proto::v1;

/// `process_nonce` differs with every start; make it once and keep it.
pub fn fingerprint(process_nonce: &str) -> v1::Fingerprint {
    v1::Fingerprint {
        machine_id: first_line("/etc/machine-id"),
        product_uuid: first_line("/sys/class/dmi/id/product_uuid").to_ascii_lowercase(),
        boot_id: first_line("/proc/sys/kernel/random/boot_id"),
        process_nonce: process_nonce.to_owned(),
    }
}

/// The host's own name, which an agent has unless its configuration gives another.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

fn first_line(path: &str) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(256).read_to_string(&mut text));
    match read {
        Ok(_) => text.lines().next().unwrap_or_default().trim().to_owned(),
        Err(_) => String::new(),
    }
}
