//! Thresholds as they are written in checks: ranges of the Nagios plugin API, amounts, load triples, durations. Parsed and
//! compared here, so that controller, agent and command line mean the same by a text.

use std::{fmt, str::FromStr};

use crate::excerpt::excerpt;

/// Longer texts are no thresholds.
const MAX_LEN: usize = 64;

/// A range of the plugin API, `[@]start:end`: `10` is 0 to 10, `10:` is 10 and more, `~:10` is 10 and less, `@10:20` alerts
/// inside of 10 to 20. Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Negative infinity for `~`.
    pub start: f64,
    /// Infinity when left out.
    pub end: f64,
    /// Alert inside of it, not outside.
    pub inside: bool,
}

/// A part of a whole, or so many bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Percent(f64),
    Bytes(u64),
}

/// Values for the averages over 1, 5 and 15 minutes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadTriple(pub [f64; 3]);

/// Why a text is no threshold: what was expected, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Range {
    /// Whether a value is one to alert about. What is no number is in no range.
    pub fn alerts(&self, value: f64) -> bool {
        (self.start <= value && value <= self.end) == self.inside
    }
}

impl FromStr for Range {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = |problem: &str| {
            Error(format!(
                "expected a range like `10` (0 to 10), `1:` (1 or more), `~:10` (10 or less) or `@10:20` (not 10 to 20), found `{}`{problem}",
                excerpt(text)
            ))
        };
        if text.len() > MAX_LEN {
            return Err(error(", which is too long"));
        }
        let (inside, ends) = match text.strip_prefix('@') {
            Some(ends) => (true, ends),
            None => (false, text),
        };
        let (start, end) = match ends.split_once(':') {
            None => (0.0, number(ends).ok_or_else(|| error(""))?),
            Some((start, end)) => (
                match start {
                    "~" => f64::NEG_INFINITY,
                    "" => 0.0,
                    start => number(start).ok_or_else(|| error(""))?,
                },
                match end {
                    "" => f64::INFINITY,
                    end => number(end).ok_or_else(|| error(""))?,
                },
            ),
        };
        if ends == ":" {
            return Err(error("; give a start or an end"));
        }
        if start > end {
            return Err(error(", which starts after its end; write the smaller number first"));
        }
        Ok(Self { start, end, inside })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inside {
            f.write_str("@")?;
        }
        if self.start == f64::NEG_INFINITY {
            f.write_str("~:")?;
        } else if self.start != 0.0 || self.end == f64::INFINITY {
            write!(f, "{}:", self.start)?;
        }
        if self.end == f64::INFINITY {
            Ok(())
        } else {
            write!(f, "{}", self.end)
        }
    }
}

const UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl Amount {
    /// Whether `free` out of `total` is less than this. Nothing is short of a part of nothing.
    pub fn is_short(self, free: u64, total: u64) -> bool {
        match self {
            Self::Percent(_) if total == 0 => false,
            Self::Percent(percent) => (free as f64) * 100.0 / (total as f64) < percent,
            Self::Bytes(bytes) => free < bytes,
        }
    }
}

impl FromStr for Amount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = |problem: &str| {
            Error(format!(
                "expected a percentage like `20%` or bytes like `5GiB`, found `{}`{problem}",
                excerpt(text)
            ))
        };
        if text.len() > MAX_LEN {
            return Err(error(", which is too long"));
        }
        let digits = text
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
            .count();
        let (value, unit) = text.split_at(digits);
        let unit = unit.strip_prefix(' ').unwrap_or(unit);
        let value = number(value).ok_or_else(|| error(""))?;
        if unit == "%" {
            return if value <= 100.0 {
                Ok(Self::Percent(value))
            } else {
                Err(error("; a percentage is at most 100"))
            };
        }
        if unit.is_empty() {
            let whole = &text[..digits];
            return Err(error(&format!(
                ", which has no unit; did you mean `{whole}%`, or `{whole}B` for bytes?"
            )));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let known = "the units are %, B, KiB, MiB, GiB, TiB, KB, MB, GB and TB";
            let meant = UNITS.iter().rev().find(|(name, _)| {
                name.eq_ignore_ascii_case(unit) || name.len() == 3 && name[..1].eq_ignore_ascii_case(unit)
            });
            return Err(error(&match meant {
                Some((meant, _)) => format!("; did you mean `{}{meant}`? ({known})", &text[..digits]),
                None => format!("; {known}"),
            }));
        };
        let bytes = value * (*factor as f64);
        // 2^63: far beyond any disk, and exact enough as a float.
        if bytes < 9_223_372_036_854_775_808.0 {
            Ok(Self::Bytes(bytes as u64))
        } else {
            Err(error("; that is more than 8 EiB"))
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => {
                let (unit, factor) = UNITS
                    .iter()
                    .rev()
                    .find(|(_, factor)| bytes != 0 && bytes % factor == 0)
                    .unwrap_or(&UNITS[0]);
                write!(f, "{}{unit}", bytes / factor)
            }
        }
    }
}

impl LoadTriple {
    /// Whether an average is at or above its value.
    pub fn is_reached(&self, averages: [f64; 3]) -> bool {
        averages.iter().zip(self.0).any(|(average, limit)| *average >= limit)
    }
}

impl FromStr for LoadTriple {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = |problem: &str| {
            Error(format!(
                "expected load averages over 1, 5 and 15 minutes like `15,10,5`, or one number for all three, found `{}`{problem}",
                excerpt(text)
            ))
        };
        if text.len() > MAX_LEN {
            return Err(error(", which is too long"));
        }
        let values: Option<Vec<f64>> = text.split(',').map(|value| number(value.trim_matches(' '))).collect();
        match values.ok_or_else(|| error(""))?.as_slice() {
            values if values.iter().any(|value| *value < 0.0) => Err(error("; a load average is never negative")),
            &[all] => Ok(Self([all; 3])),
            &[one, five, fifteen] => Ok(Self([one, five, fifteen])),
            values => Err(error(&format!("; that is {} numbers", values.len()))),
        }
    }
}

impl fmt::Display for LoadTriple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, five, fifteen] = self.0;
        write!(f, "{one},{five},{fifteen}")
    }
}

/// A finite decimal number. Stricter than Rust's own parser, which also takes `inf`, `NaN` and `+1`.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let starts = digits.starts_with(|c: char| c.is_ascii_digit()) || digits.starts_with('.');
    let shape = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'));
    let value: f64 = (starts && shape).then(|| text.parse().ok())??;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests;
