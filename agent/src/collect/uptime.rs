//! `node_boot_time_seconds` from /proc/stat, and `node_time_seconds`, this machine's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use super::families::Families;
use super::source::{self, Error};

const FILE: &str = "/proc/stat";

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    families.gauge("node_time_seconds", &[], now.as_secs_f64());
    families.gauge("node_boot_time_seconds", &[], boot_time()? as f64);
    Ok(())
}

/// Seconds since 1970.
pub fn boot_time() -> Result<u64, Error> {
    parse(&source::read(FILE)?)
}

fn parse(stat: &str) -> Result<u64, Error> {
    let found = stat.lines().find_map(|line| line.strip_prefix("btime "));
    source::number(FILE, source::expect(FILE, "btime", found)?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_time_has_a_line_of_its_own() {
        assert_eq!(parse("cpu 1\nbtime 1763679000\nprocesses 5\n").unwrap(), 1_763_679_000);
        assert_eq!(
            parse("cpu 1\n").unwrap_err().to_string(),
            "/proc/stat is not as expected: btime is missing"
        );
    }
}
