//! `node_pressure_*` from /proc/pressure: for how long tasks waited because something was short. A kernel may not have it.

use super::families::Families;
use super::source::{self, Error};

/// Resource, line, name: "some" is time in which any task waited, "full" time in which all did.
const TOTALS: [(&str, &str, &str); 6] = [
    ("cpu", "some", "node_pressure_cpu_waiting_seconds_total"),
    ("io", "some", "node_pressure_io_waiting_seconds_total"),
    ("io", "full", "node_pressure_io_stalled_seconds_total"),
    ("memory", "some", "node_pressure_memory_waiting_seconds_total"),
    ("memory", "full", "node_pressure_memory_stalled_seconds_total"),
    ("irq", "full", "node_pressure_irq_stalled_seconds_total"),
];

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    for (resource, line, name) in TOTALS {
        let text = source::read_if_there(format!("/proc/pressure/{resource}"));
        if let Some(micros) = text.and_then(|text| total(&text, line)) {
            families.counter(name, &[], micros as f64 / 1e6);
        }
    }
    Ok(())
}

/// Microseconds.
fn total(text: &str, line: &str) -> Option<u64> {
    let columns = text.lines().find_map(|found| found.strip_prefix(line))?;
    columns
        .split_ascii_whitespace()
        .find_map(|column| column.strip_prefix("total="))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "some avg10=0.01 avg60=0.53 avg300=1.24 total=19493875\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";

    #[test]
    fn the_total_of_a_line_is_taken() {
        assert_eq!((total(TEXT, "some"), total(TEXT, "full")), (Some(19_493_875), Some(7)));
    }

    #[test]
    fn a_line_that_is_not_there_or_odd_gives_nothing() {
        assert_eq!(total("some avg10=0.01", "some"), None);
        assert_eq!(total("some total=x", "some"), None);
        assert_eq!(total("", "full"), None);
    }
}
