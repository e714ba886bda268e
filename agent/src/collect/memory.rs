//! `node_memory_*` from /proc/meminfo, all of its fields, and `node_vmstat_*`, those of /proc/vmstat about paging.

use super::families::Families;
use super::source::{self, Error};

const MEMINFO: &str = "/proc/meminfo";
const VMSTAT: &str = "/proc/vmstat";

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// What programs can still get without swapping, as the kernel estimates it.
    pub available: u64,
}

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    add_meminfo(&source::read(MEMINFO)?, families)?;
    source::read_if_there(VMSTAT).map_or(Ok(()), |vmstat| add_vmstat(&vmstat, families))
}

/// How much memory there is and how much of it is available.
pub fn available() -> Result<Memory, Error> {
    parse_available(&source::read(MEMINFO)?)
}

fn parse_available(meminfo: &str) -> Result<Memory, Error> {
    let mut found = [("MemTotal", None), ("MemAvailable", None)];
    for field in fields(meminfo) {
        let (name, value, _) = field?;
        for (wanted, slot) in &mut found {
            if name == *wanted {
                *slot = Some(value);
            }
        }
    }
    let [total, available] = found;
    Ok(Memory {
        total: source::expect(MEMINFO, total.0, total.1)?,
        available: source::expect(MEMINFO, available.0, available.1)?,
    })
}

fn add_meminfo(meminfo: &str, families: &mut Families) -> Result<(), Error> {
    for field in fields(meminfo) {
        let (name, value, in_bytes) = field?;
        // "Active(anon)" is node_memory_Active_anon_bytes.
        let name = name.replace('(', "_").replace(')', "");
        let unit = if in_bytes { "_bytes" } else { "" };
        families.gauge(&format!("node_memory_{name}{unit}"), &[], value as f64);
    }
    Ok(())
}

/// Name, value, and whether that is in bytes.
fn fields(meminfo: &str) -> impl Iterator<Item = Result<(&str, u64, bool), Error>> {
    meminfo.lines().filter(|line| !line.trim().is_empty()).map(|line| {
        let (name, rest) = source::expect(MEMINFO, "a colon", line.split_once(':'))?;
        let mut words = rest.split_ascii_whitespace();
        let value: u64 = source::number(MEMINFO, words.next().unwrap_or_default())?;
        Ok(match words.next() {
            // "kB", which are KiB.
            Some(_) => (name, value.saturating_mul(1024), true),
            None => (name, value, false),
        })
    })
}

fn add_vmstat(vmstat: &str, families: &mut Families) -> Result<(), Error> {
    for line in vmstat.lines() {
        let Some((name, value)) = line.split_once(' ').filter(|(name, _)| is_about_paging(name)) else {
            continue;
        };
        families.counter(
            &format!("node_vmstat_{name}"),
            &[],
            source::number::<u64>(VMSTAT, value.trim())? as f64,
        );
    }
    Ok(())
}

/// What node_exporter takes by default.
fn is_about_paging(name: &str) -> bool {
    ["oom_kill", "pgpg", "pswp"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || (name.starts_with("pg") && name.contains("fault"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::*;

    const TEXT: &str = "MemTotal:       16303104 kB\nMemAvailable:    8123456 kB\nActive(anon):     1000 kB\n\
        HugePages_Total:       2\nHugepagesize:       2048 kB\nDirectMap2M:     4194304 kB\n";

    #[test]
    fn all_fields_are_taken_those_in_kb_as_bytes() {
        let mut families = Families::default();
        add_meminfo(TEXT, &mut families).unwrap();
        let samples = samples(&families);
        assert_eq!(samples["node_memory_MemTotal_bytes"], 16303104.0 * 1024.0);
        assert_eq!(samples["node_memory_Active_anon_bytes"], 1024000.0);
        assert_eq!(samples["node_memory_HugePages_Total"], 2.0);
        assert_eq!(samples["node_memory_Hugepagesize_bytes"], 2097152.0);
        assert_eq!(samples.len(), 6);
    }

    #[test]
    fn available_memory_is_the_kernels_estimate() {
        let expected = Memory {
            total: 16303104 * 1024,
            available: 8123456 * 1024,
        };
        assert_eq!(parse_available(TEXT).unwrap(), expected);
        let error = parse_available("MemTotal: 1 kB\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "/proc/meminfo is not as expected: MemAvailable is missing"
        );
    }

    #[test]
    fn of_vmstat_only_paging_is_taken() {
        let mut families = Families::default();
        let vmstat = "nr_free_pages 123\npgpgin 5\npswpout 6\npgfault 7\npgmajfault 8\noom_kill 1\npgalloc_dma 9\nthp_fault_alloc 3\n";
        add_vmstat(vmstat, &mut families).unwrap();
        let names: Vec<String> = samples(&families).into_keys().collect();
        let expected =
            ["oom_kill", "pgfault", "pgmajfault", "pgpgin", "pswpout"].map(|name| format!("node_vmstat_{name}"));
        assert_eq!(names, expected);
    }
}
