//! What is true of this machine, for selectors (`fact.os.id=debian`) and for people, and what tells it from another.
//! Measurements are not facts: nothing here changes while the machine runs as it does. What cannot be found out is absent.

mod fingerprint;
mod host_name;
mod virtualization;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::collect::{cpu, memory, uptime};

pub use fingerprint::fingerprint;
pub use host_name::host_name;

/// All facts by name.
pub fn gather() -> BTreeMap<String, String> {
    let uname = rustix::system::uname();
    let host_name = host_name();
    let mut facts = BTreeMap::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.insert(name.to_owned(), value);
        }
    };
    put("agent.version", Some(env!("CARGO_PKG_VERSION").to_owned()));
    put("arch", Some(uname.machine().to_string_lossy().into_owned()));
    put("boot.time", uptime::boot_time().ok().and_then(utc));
    put("cpu.count", cpu::count().ok().map(|count| count.to_string()));
    put("fqdn", host_name::fqdn(&host_name));
    put("hostname", Some(host_name));
    put("kernel.name", Some(uname.sysname().to_string_lossy().into_owned()));
    put("kernel.release", Some(uname.release().to_string_lossy().into_owned()));
    put(
        "memory.bytes",
        memory::available().ok().map(|memory| memory.total.to_string()),
    );
    put("virtualization", virtualization::kind());
    let os = os_release(Path::new("/"));
    for (fact, key) in [
        ("os.id", "ID"),
        ("os.like", "ID_LIKE"),
        ("os.version", "VERSION_ID"),
        ("os.codename", "VERSION_CODENAME"),
    ] {
        put(fact, os.get(key).cloned());
    }
    put("os.name", os.get("PRETTY_NAME").or_else(|| os.get("NAME")).cloned());
    facts
}

/// "2026-11-18T22:40:11Z". The kernel works the boot time out from the clock, which may be set; to the minute it stays.
fn utc(seconds: u64) -> Option<String> {
    let minute = i64::try_from(seconds / 60 * 60).ok()?;
    Some(jiff::Timestamp::from_second(minute).ok()?.to_string())
}

/// The pairs of os-release(5).
fn os_release(root: &Path) -> BTreeMap<String, String> {
    let read = |file| fs::read_to_string(root.join(file)).ok();
    let text = read("etc/os-release")
        .or_else(|| read("usr/lib/os-release"))
        .unwrap_or_default();
    text.lines().filter_map(assignment).collect()
}

/// `KEY="value"`, quoted as a shell would.
fn assignment(line: &str) -> Option<(String, String)> {
    let (key, value) = line.trim().split_once('=').filter(|(key, _)| !key.starts_with('#'))?;
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let value = match (quoted('\''), quoted('"')) {
        (Some(literal), _) => literal.to_owned(),
        (None, Some(text)) => unescape(text),
        (None, None) => unescape(value),
    };
    Some((key.to_owned(), value))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_the_facts_that_every_machine_has() {
        let facts = gather();
        for name in [
            "agent.version",
            "arch",
            "boot.time",
            "cpu.count",
            "hostname",
            "kernel.release",
            "memory.bytes",
        ] {
            assert!(facts.contains_key(name), "{name} is missing of {facts:?}");
        }
        assert_eq!(facts["kernel.name"], "Linux");
        assert!(facts["memory.bytes"].parse::<u64>().unwrap() > 1 << 20);
        assert_eq!(facts, gather(), "facts do not change from one look to the next");
    }

    #[test]
    fn os_release_is_read_with_its_quotes() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        let text = "# comment=x\nID=debian\nPRETTY_NAME=\"Debian \\\"12\\\" GNU/Linux\"\nVERSION_ID='12'\n\nnonsense\n";
        fs::write(root.path().join("usr/lib/os-release"), text).unwrap();
        let os = os_release(root.path());
        assert_eq!(os["ID"], "debian");
        assert_eq!(os["PRETTY_NAME"], "Debian \"12\" GNU/Linux");
        assert_eq!(os["VERSION_ID"], "12");
        assert_eq!(os.len(), 3);
    }

    #[test]
    fn a_machine_without_os_release_has_no_os() {
        assert!(os_release(Path::new("/no/such/root")).is_empty());
    }

    #[test]
    fn the_boot_time_is_told_to_the_minute() {
        assert_eq!(utc(1_763_679_059).as_deref(), utc(1_763_679_000).as_deref());
        assert_eq!(utc(1_763_679_000).as_deref(), Some("2025-11-20T22:50:00Z"));
    }
}
