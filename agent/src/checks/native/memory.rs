//! `run.memory`: memory that programs can still get, as the kernel estimates it (MemAvailable of /proc/meminfo).
//!
//! | parameter | |
//! |---|---|
//! | `warning`, `critical` | a problem when less is available: `10%` or `512MiB`; `10%` and `5%` by default |

use muster_proto::threshold::Amount;
use muster_proto::v1::{MemoryRun, Perfdata};

use super::{CheckState, Finding, binary_size, percent, threshold, value, worse};
use crate::collect::memory;

const KIND: &str = "MEMORY";

pub(super) fn run(run: &MemoryRun) -> Finding {
    memory::available()
        .map_err(|error| error.to_string())
        .and_then(|memory| judge(run, memory.available, memory.total))
        .unwrap_or_else(|error| Finding::new(KIND, CheckState::Unknown, error))
}

fn judge(run: &MemoryRun, available: u64, total: u64) -> Result<Finding, String> {
    let warning: Option<Amount> = threshold("warning", &run.warning)?;
    let critical: Option<Amount> = threshold("critical", &run.critical)?;
    let short = |limit: Option<Amount>| limit.is_some_and(|limit| limit.is_short(available, total));
    let state = worse(short(critical), short(warning));
    let text = format!(
        "available: {} of {} ({:.0}%)",
        binary_size(available),
        binary_size(total),
        percent(available, total)
    );
    let values = vec![
        Perfdata {
            warning: at_least(warning, total),
            critical: at_least(critical, total),
            min: Some(0.0),
            max: Some(total as f64),
            ..value("available", available as f64, "B")
        },
        Perfdata {
            min: Some(0.0),
            max: Some(total as f64),
            ..value("used", total.saturating_sub(available) as f64, "B")
        },
    ];
    Ok(Finding::new(KIND, state, text).with(values))
}

/// The range of the plugin API that alerts below `limit`.
fn at_least(limit: Option<Amount>, total: u64) -> String {
    match limit {
        Some(Amount::Percent(percent)) => format!("{}:", (total as f64 * percent / 100.0).ceil()),
        Some(Amount::Bytes(bytes)) => format!("{bytes}:"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::perfdata;

    fn judged(warning: &str, critical: &str) -> Finding {
        let run = MemoryRun {
            warning: warning.to_owned(),
            critical: critical.to_owned(),
        };
        judge(&run, 2 << 30, 16 << 30).unwrap()
    }

    #[test]
    fn memory_is_judged_by_percentages_and_by_bytes() {
        let cases = [
            ("10%", "5%", CheckState::Ok),
            ("12.5%", "5%", CheckState::Ok),
            ("13%", "5%", CheckState::Warning),
            ("3GiB", "512MiB", CheckState::Warning),
            ("3GiB", "3GiB", CheckState::Critical),
            ("", "", CheckState::Ok),
        ];
        for (warning, critical, state) in cases {
            assert_eq!(judged(warning, critical).state, state, "{warning} {critical}");
        }
    }

    #[test]
    fn the_text_and_the_values_say_how_much_there_is() {
        let finding = judged("10%", "1GiB");
        assert_eq!(finding.summary, "MEMORY OK - available: 2.0 GiB of 16.0 GiB (12%)");
        assert_eq!(
            perfdata::render(&finding.perfdata),
            "available=2147483648B;1717986919:;1073741824:;0;17179869184 used=15032385536B;;;0;17179869184"
        );
    }

    #[test]
    fn this_machine_has_memory() {
        let run = MemoryRun {
            warning: String::new(),
            critical: String::new(),
        };
        assert_eq!(super::run(&run).state, CheckState::Ok);
    }
}
