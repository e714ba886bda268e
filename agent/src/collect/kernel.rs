//! Of the kernel as a whole: what /proc/stat counts beside CPU times, `node_uname_info`, `node_filefd_*`,
//! `node_entropy_*` and `node_schedstat_*`.

use super::families::Families;
use super::source::{self, Error};

const STAT: &str = "/proc/stat";
const FILE_NR: &str = "/proc/sys/fs/file-nr";
const SCHEDSTAT: &str = "/proc/schedstat";

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    add_stat(&source::read(STAT)?, families)?;
    add_uname(families);
    if let Some(text) = source::read_if_there(FILE_NR) {
        add_file_nr(&text, families)?;
    }
    for (name, file) in [
        ("node_entropy_available_bits", "/proc/sys/kernel/random/entropy_avail"),
        ("node_entropy_pool_size_bits", "/proc/sys/kernel/random/poolsize"),
    ] {
        if let Some(text) = source::read_if_there(file) {
            families.gauge(name, &[], source::number::<u64>(file, text.trim())? as f64);
        }
    }
    source::read_if_there(SCHEDSTAT).map_or(Ok(()), |text| add_schedstat(&text, families))
}

fn add_stat(stat: &str, families: &mut Families) -> Result<(), Error> {
    for line in stat.lines() {
        let Some((name, rest)) = line.split_once(' ') else {
            continue;
        };
        let first = rest.split_ascii_whitespace().next().unwrap_or_default();
        let value = || source::number::<u64>(STAT, first).map(|value| value as f64);
        match name {
            // The sum comes first, then each interrupt.
            "intr" => families.counter("node_intr_total", &[], value()?),
            "ctxt" => families.counter("node_context_switches_total", &[], value()?),
            "processes" => families.counter("node_forks_total", &[], value()?),
            "procs_running" => families.gauge("node_procs_running", &[], value()?),
            "procs_blocked" => families.gauge("node_procs_blocked", &[], value()?),
            _ => {}
        }
    }
    Ok(())
}

fn add_uname(families: &mut Families) {
    let uname = rustix::system::uname();
    let labels = [
        ("sysname", uname.sysname()),
        ("release", uname.release()),
        ("version", uname.version()),
        ("machine", uname.machine()),
        ("nodename", uname.nodename()),
        ("domainname", uname.domainname()),
    ]
    .map(|(name, value)| (name, value.to_string_lossy()));
    families.gauge(
        "node_uname_info",
        &labels.each_ref().map(|(name, value)| (*name, value.as_ref())),
        1.0,
    );
}

fn add_file_nr(text: &str, families: &mut Families) -> Result<(), Error> {
    let mut columns = text.split_ascii_whitespace();
    let allocated = source::expect(FILE_NR, "the first column", columns.next())?;
    let maximum = source::expect(FILE_NR, "the third column", columns.nth(1))?;
    families.gauge(
        "node_filefd_allocated",
        &[],
        source::number::<u64>(FILE_NR, allocated)? as f64,
    );
    families.gauge(
        "node_filefd_maximum",
        &[],
        source::number::<u64>(FILE_NR, maximum)? as f64,
    );
    Ok(())
}

/// Per CPU: time with a task running, time of tasks waiting, both in nanoseconds, and time slices, in columns 7 to 9.
fn add_schedstat(text: &str, families: &mut Families) -> Result<(), Error> {
    for line in text.lines() {
        let Some((cpu, columns)) = line.strip_prefix("cpu").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let mut columns = columns.split_ascii_whitespace().skip(6);
        let mut next = || -> Result<f64, Error> {
            let column = source::expect(SCHEDSTAT, "a column", columns.next())?;
            Ok(source::number::<u64>(SCHEDSTAT, column)? as f64)
        };
        families.counter("node_schedstat_running_seconds_total", &[("cpu", cpu)], next()? / 1e9);
        families.counter("node_schedstat_waiting_seconds_total", &[("cpu", cpu)], next()? / 1e9);
        families.counter("node_schedstat_timeslices_total", &[("cpu", cpu)], next()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::*;

    #[test]
    fn the_counters_of_stat_have_their_names() {
        let mut families = Families::default();
        let stat = "cpu0 1 2\nintr 270042 0 1 5\nctxt 372261\nbtime 5\nprocesses 15065\nprocs_running 2\nprocs_blocked 1\nsoftirq 5 1\n";
        add_stat(stat, &mut families).unwrap();
        let samples = samples(&families);
        assert_eq!(samples["node_intr_total"], 270042.0);
        assert_eq!(samples["node_context_switches_total"], 372261.0);
        assert_eq!(samples["node_forks_total"], 15065.0);
        assert_eq!(
            (samples["node_procs_running"], samples["node_procs_blocked"]),
            (2.0, 1.0)
        );
        assert_eq!(samples.len(), 5);
    }

    #[test]
    fn open_files_are_the_first_and_the_third_column() {
        let mut families = Families::default();
        add_file_nr("1184\t0\t9223372036854775807\n", &mut families).unwrap();
        assert_eq!(samples(&families)["node_filefd_allocated"], 1184.0);
        assert_eq!(samples(&families)["node_filefd_maximum"], 9223372036854775807.0);
        assert!(add_file_nr("1184", &mut families).is_err());
    }

    #[test]
    fn the_schedulers_times_are_in_seconds_by_cpu() {
        let mut families = Families::default();
        let text = "version 16\ntimestamp 1\ncpu0 0 0 0 0 0 0 2500000000 500000000 42\ndomain0 3 1\n";
        add_schedstat(text, &mut families).unwrap();
        let samples = samples(&families);
        assert_eq!(samples["node_schedstat_running_seconds_total{cpu=0}"], 2.5);
        assert_eq!(samples["node_schedstat_waiting_seconds_total{cpu=0}"], 0.5);
        assert_eq!(samples["node_schedstat_timeslices_total{cpu=0}"], 42.0);
    }

    #[test]
    fn uname_tells_of_this_machine() {
        let mut families = Families::default();
        add_uname(&mut families);
        let key = samples(&families).into_keys().next().unwrap();
        assert!(
            key.starts_with("node_uname_info{") && key.contains("sysname=Linux"),
            "{key}"
        );
    }
}
