//! `node_cpu_*`: from /proc/stat what the CPUs spent their time on, from /sys how fast they run. The rest of /proc/stat is
//! `kernel`'s and `uptime`'s.

use std::path::Path;

use super::families::Families;
use super::source::{self, Error};

const FILE: &str = "/proc/stat";
/// Of a second; USER_HZ is 100 on every architecture that Linux still runs on.
const TICKS: f64 = 100.0;
/// In the order of the columns.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
/// The columns after them, which are part of "user" and "nice" as well.
const GUEST_MODES: [&str; 2] = ["user", "nice"];

const SYS: &str = "/sys/devices/system/cpu";
/// The files of a CPU's frequencies, which are in kHz.
const FREQUENCIES: [(&str, &str); 3] = [
    ("scaling_cur_freq", "node_cpu_scaling_frequency_hertz"),
    ("scaling_max_freq", "node_cpu_scaling_frequency_max_hertz"),
    ("scaling_min_freq", "node_cpu_scaling_frequency_min_hertz"),
];

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    let stat = source::read(FILE)?;
    add(&stat, families)?;
    for (cpu, _) in cpus(&stat) {
        add_frequencies(Path::new(SYS), cpu, families);
    }
    Ok(())
}

/// How many CPUs are online.
pub fn count() -> Result<usize, Error> {
    Ok(cpus(&source::read(FILE)?).count())
}

fn add(stat: &str, families: &mut Families) -> Result<(), Error> {
    for (cpu, columns) in cpus(stat) {
        for (at, column) in columns.split_ascii_whitespace().enumerate() {
            let seconds = source::number::<u64>(FILE, column)? as f64 / TICKS;
            if let Some(mode) = MODES.get(at) {
                families.counter("node_cpu_seconds_total", &[("cpu", cpu), ("mode", mode)], seconds);
            } else if let Some(mode) = GUEST_MODES.get(at - MODES.len()) {
                families.counter("node_cpu_guest_seconds_total", &[("cpu", cpu), ("mode", mode)], seconds);
            }
        }
    }
    Ok(())
}

/// Virtual machines have none.
fn add_frequencies(sys: &Path, cpu: &str, families: &mut Families) {
    for (file, metric) in FREQUENCIES {
        let text = source::read_if_there(sys.join(format!("cpu{cpu}/cpufreq/{file}")));
        if let Some(khz) = text.and_then(|text| text.trim().parse::<u64>().ok()) {
            families.gauge(metric, &[("cpu", cpu)], khz as f64 * 1000.0);
        }
    }
}

/// Number and columns of each; numbers may be missing in between, where a CPU is offline.
fn cpus(stat: &str) -> impl Iterator<Item = (&str, &str)> {
    stat.lines().filter_map(|line| {
        let (cpu, columns) = line.strip_prefix("cpu")?.split_once(' ')?;
        (!cpu.is_empty()).then_some((cpu, columns))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::*;

    const STAT: &str = "cpu  39891 0 7556 137336 275 0 48 44 5 6\n\
        cpu0 17064 1 3284 72116 66 2 8 19 5 6\n\
        cpu3 22826 0 4271 65220 208 0 39 25 0 0\n\
        intr 270042 0 1\nctxt 372261\n";

    #[test]
    fn times_are_in_seconds_by_cpu_and_mode() {
        let mut families = Families::default();
        add(STAT, &mut families).unwrap();
        let samples = samples(&families);
        assert_eq!(samples["node_cpu_seconds_total{cpu=0,mode=user}"], 170.64);
        assert_eq!(samples["node_cpu_seconds_total{cpu=3,mode=idle}"], 652.2);
        assert_eq!(samples["node_cpu_seconds_total{cpu=0,mode=steal}"], 0.19);
        assert_eq!(samples["node_cpu_guest_seconds_total{cpu=0,mode=nice}"], 0.06);
        assert_eq!(samples.len(), 2 * 10);
    }

    #[test]
    fn old_kernels_have_fewer_columns() {
        let mut families = Families::default();
        add("cpu0 1 2 3 4\n", &mut families).unwrap();
        assert_eq!(samples(&families).len(), 4);
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        let error = add("cpu0 1 x\n", &mut Families::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/proc/stat is not as expected: \"x\" is not a number"
        );
    }

    #[test]
    fn frequencies_are_in_hertz_where_there_are_any() {
        let sys = tempfile::tempdir().unwrap();
        let directory = sys.path().join("cpu1/cpufreq");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("scaling_cur_freq"), "1699981\n").unwrap();
        std::fs::write(directory.join("scaling_max_freq"), "<unknown>\n").unwrap();
        let mut families = Families::default();
        add_frequencies(sys.path(), "0", &mut families);
        add_frequencies(sys.path(), "1", &mut families);
        let expected = [("node_cpu_scaling_frequency_hertz{cpu=1}".to_owned(), 1_699_981_000.0)];
        assert_eq!(samples(&families), expected.into());
    }

    #[test]
    fn the_number_of_cpus_is_that_of_their_lines() {
        assert_eq!(cpus(STAT).count(), 2);
        assert!(count().unwrap() >= 1);
    }
}
