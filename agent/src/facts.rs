//! What is true of this machine, for selectors (`fact.os.id=debian`) and for people, and what tells it from another.
//! Measurements are not facts: nothing here changes while the machine runs as it does. What cannot be found out is absent.

mod fingerprint;
mod host_name;
mod virtualization;

use std::collections::BTreeMap;

use sysinfo::{Product, System};

use crate::{
    collect::{cpu, memory, uptime},
    policy::FEATURES,
};

pub use fingerprint::fingerprint;
pub use host_name::host_name;

/// All facts by name.
pub fn gather() -> BTreeMap<String, String> {
    let host_name = host_name();
    let mut facts = BTreeMap::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.insert(name.to_owned(), value);
        }
    };
    put("agent.features", Some(FEATURES.join(",")));
    put("agent.version", Some(env!("CARGO_PKG_VERSION").to_owned()));
    put("arch", Some(System::cpu_arch()));
    put("boot.time", uptime::boot_time().ok().and_then(utc));
    put("cpu.count", cpu::count().ok().map(|count| count.to_string()));
    put("fqdn", host_name::fqdn(&host_name));
    put("hardware.product", Product::name().ok());
    put("hardware.vendor", Product::vendor_name().ok());
    put("hostname", Some(host_name));
    put(
        "kernel.name",
        Some(rustix::system::uname().sysname().to_string_lossy().into_owned()),
    );
    put("kernel.release", System::kernel_version().ok());
    put(
        "memory.bytes",
        memory::available().ok().map(|memory| memory.total.to_string()),
    );
    put("os.id", Some(System::distribution_id()));
    put("os.like", Some(System::distribution_id_like().join(" ")));
    put("os.name", System::name().ok());
    put("os.version", System::os_version().ok());
    put("virtualization", virtualization::kind());
    facts
}

/// "2026-11-18T22:40:11Z". The kernel works the boot time out from the clock, which may be set; to the minute it stays.
fn utc(seconds: u64) -> Option<String> {
    let minute = i64::try_from(seconds / 60 * 60).ok()?;
    Some(jiff::Timestamp::from_second(minute).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_the_facts_that_every_machine_has() {
        let facts = gather();
        for name in [
            "agent.features",
            "agent.version",
            "arch",
            "boot.time",
            "cpu.count",
            "hostname",
            "kernel.release",
            "memory.bytes",
            "os.id",
        ] {
            assert!(facts.contains_key(name), "{name} is missing of {facts:?}");
        }
        assert_eq!(facts["kernel.name"], "Linux");
        assert!(facts["memory.bytes"].parse::<u64>().unwrap() > 1 << 20);
        assert_eq!(facts, gather(), "facts do not change from one look to the next");
    }

    #[test]
    fn the_boot_time_is_told_to_the_minute() {
        assert_eq!(utc(1_763_679_059).as_deref(), utc(1_763_679_000).as_deref());
        assert_eq!(utc(1_763_679_000).as_deref(), Some("2025-11-20T22:50:00Z"));
    }
}
