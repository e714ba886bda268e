//! `node_load1`, `node_load5` and `node_load15` from /proc/loadavg.

use super::families::Families;
use super::source::{self, Error};

const FILE: &str = "/proc/loadavg";

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    let [one, five, fifteen] = averages()?;
    families.gauge("node_load1", &[], one);
    families.gauge("node_load5", &[], five);
    families.gauge("node_load15", &[], fifteen);
    Ok(())
}

/// Over 1, 5 and 15 minutes.
pub fn averages() -> Result<[f64; 3], Error> {
    parse(&source::read(FILE)?)
}

fn parse(text: &str) -> Result<[f64; 3], Error> {
    let mut columns = text.split_ascii_whitespace();
    let mut next = || source::number(FILE, source::expect(FILE, "an average", columns.next())?);
    Ok([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_columns_are_the_averages() {
        assert_eq!(parse("0.52 1.58 10.00 1/93 15065\n").unwrap(), [0.52, 1.58, 10.0]);
    }

    #[test]
    fn what_is_missing_or_no_number_is_an_error() {
        assert_eq!(
            parse("0.1 0.2").unwrap_err().to_string(),
            "/proc/loadavg is not as expected: an average is missing"
        );
        assert!(parse("0.1 x 0.2").is_err());
    }
}
