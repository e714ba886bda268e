//! `node_disk_*` from /proc/diskstats, for whole disks: partitions, loop devices and the like are left out as in
//! node_exporter.

use procfs::DiskStat;

use super::families::Families;
use super::source::{self, Error};

const FILE: &str = "/proc/diskstats";
/// Of this file, whatever the device's own sectors are.
const SECTOR: f64 = 512.0;

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    add(&source::read(FILE)?, families);
    Ok(())
}

/// A line that is odd is one device's: some drivers have printed negative numbers.
fn add(diskstats: &str, families: &mut Families) {
    for disk in diskstats.lines().filter_map(|line| DiskStat::from_line(line).ok()) {
        if !is_ignored(&disk.name) {
            add_disk(&disk, families);
        }
    }
}

fn add_disk(disk: &DiskStat, families: &mut Families) {
    let device = [("device", disk.name.as_str())];
    let seconds = |millis: u64| millis as f64 / 1000.0;
    let mut counter = |name: &str, value: f64| families.counter(&format!("node_disk_{name}_total"), &device, value);
    counter("reads_completed", disk.reads as f64);
    counter("reads_merged", disk.merged as f64);
    counter("read_bytes", disk.sectors_read as f64 * SECTOR);
    counter("read_time_seconds", seconds(disk.time_reading));
    counter("writes_completed", disk.writes as f64);
    counter("writes_merged", disk.writes_merged as f64);
    counter("written_bytes", disk.sectors_written as f64 * SECTOR);
    counter("write_time_seconds", seconds(disk.time_writing));
    counter("io_time_seconds", seconds(disk.time_in_progress));
    counter("io_time_weighted_seconds", seconds(disk.weighted_time_in_progress));
    // What newer kernels have.
    let mut newer = |name: &str, value: Option<u64>, scale: fn(u64) -> f64| {
        if let Some(value) = value {
            counter(name, scale(value));
        }
    };
    newer("discards_completed", disk.discards, |count| count as f64);
    newer("discards_merged", disk.discards_merged, |count| count as f64);
    newer("discarded_sectors", disk.sectors_discarded, |count| count as f64);
    newer("discard_time_seconds", disk.time_discarding, |millis| {
        millis as f64 / 1000.0
    });
    newer("flush_requests", disk.flushes, |count| count as f64);
    newer("flush_requests_time_seconds", disk.time_flushing, |millis| {
        millis as f64 / 1000.0
    });
    families.gauge("node_disk_io_now", &device, disk.in_progress as f64);
}

/// `^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`
fn is_ignored(name: &str) -> bool {
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if base.len() == name.len() {
        return false;
    }
    let is_disk_letter = |rest: &str| rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_lowercase());
    matches!(base, "ram" | "zram" | "loop" | "fd")
        || ["hd", "sd", "vd", "xvd"]
            .iter()
            .any(|kind| base.strip_prefix(kind).is_some_and(is_disk_letter))
        || is_nvme_partition(base)
}

/// `^nvme\d+n\d+p$`
fn is_nvme_partition(base: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    base.strip_prefix("nvme")
        .and_then(|rest| rest.strip_suffix('p'))
        .and_then(|rest| rest.split_once('n'))
        .is_some_and(|(controller, namespace)| is_number(controller) && is_number(namespace))
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::*;

    #[test]
    fn a_disk_has_all_its_counters_in_bytes_and_seconds() {
        let mut families = Families::default();
        add(
            "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n\
             254       0 vda 16497 5912 3087482 15564 5726 48700 6216488 27300 3 5192 43698 8157 28 1190416 830 50 1\n",
            &mut families,
        );
        let samples = samples(&families);
        let expected = [
            ("reads_completed_total", 16497.0),
            ("reads_merged_total", 5912.0),
            ("read_bytes_total", 3087482.0 * 512.0),
            ("read_time_seconds_total", 15.564),
            ("writes_completed_total", 5726.0),
            ("writes_merged_total", 48700.0),
            ("written_bytes_total", 6216488.0 * 512.0),
            ("write_time_seconds_total", 27.3),
            ("io_now", 3.0),
            ("io_time_seconds_total", 5.192),
            ("io_time_weighted_seconds_total", 43.698),
            ("discards_completed_total", 8157.0),
            ("discards_merged_total", 28.0),
            ("discarded_sectors_total", 1190416.0),
            ("discard_time_seconds_total", 0.83),
            ("flush_requests_total", 50.0),
            ("flush_requests_time_seconds_total", 0.001),
        ];
        for (name, value) in expected {
            assert_eq!(samples[&format!("node_disk_{name}{{device=vda}}")], value, "{name}");
        }
        assert_eq!(samples.len(), expected.len());
    }

    #[test]
    fn old_kernels_have_no_discards_and_odd_lines_are_skipped() {
        let mut families = Families::default();
        add(
            "8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n8 16 sdb 1 2 3 4 5 6 7 8 -1 10 11\nnonsense\n",
            &mut families,
        );
        assert_eq!(samples(&families).len(), 11);
    }

    #[test]
    fn partitions_and_virtual_devices_are_left_out() {
        for name in [
            "ram0",
            "zram1",
            "loop12",
            "fd0",
            "hda1",
            "sda12",
            "vdb3",
            "xvda1",
            "nvme0n1p2",
            "nvme10n2p15",
        ] {
            assert!(is_ignored(name), "{name}");
        }
        for name in [
            "sda", "sdaa1", "vda", "xvdb", "nvme0n1", "dm-0", "md127", "mmcblk0", "sr0", "loop", "nvmep1",
        ] {
            assert!(!is_ignored(name), "{name}");
        }
    }
}
