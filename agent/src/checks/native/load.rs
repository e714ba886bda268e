//! `run.load`: the load averages over 1, 5 and 15 minutes.
//!
//! | parameter | |
//! |---|---|
//! | `warning`, `critical` | a problem when an average is at or above: `15,10,5`, or one number for all three |
//! | `perCpu` | divide the averages by the number of CPUs first |

use muster_proto::threshold::LoadTriple;
use muster_proto::v1::{LoadRun, Perfdata};

use super::{CheckState, Finding, threshold, value, worse};
use crate::collect;

const KIND: &str = "LOAD";

pub(super) fn run(run: &LoadRun) -> Finding {
    let cpus = if run.per_cpu {
        collect::cpu::count().map(Some)
    } else {
        Ok(None)
    };
    collect::load::averages()
        .and_then(|averages| Ok((averages, cpus?)))
        .map_err(|error| error.to_string())
        .and_then(|(averages, cpus)| judge(run, averages, cpus))
        .unwrap_or_else(|error| Finding::new(KIND, CheckState::Unknown, error))
}

/// With a number of CPUs, the averages for each of them are judged.
fn judge(run: &LoadRun, total: [f64; 3], cpus: Option<usize>) -> Result<Finding, String> {
    let warning: Option<LoadTriple> = threshold("warning", &run.warning)?;
    let critical: Option<LoadTriple> = threshold("critical", &run.critical)?;
    let judged = match cpus {
        Some(cpus) => total.map(|average| average / cpus.max(1) as f64),
        None => total,
    };
    let reached = |limits: &Option<LoadTriple>| limits.as_ref().is_some_and(|limits| limits.is_reached(judged));
    let state = worse(reached(&critical), reached(&warning));
    let text = |[one, five, fifteen]: [f64; 3]| format!("load average: {one:.2}, {five:.2}, {fifteen:.2}");
    let text = match cpus {
        Some(_) => format!("scaled {} - total {}", text(judged), text(total)),
        None => format!("total {}", text(total)),
    };
    let mut values = Vec::new();
    for (at, minutes) in [1, 5, 15].into_iter().enumerate() {
        let limit = |limits: &Option<LoadTriple>| limits.map(|limits| limits.0[at].to_string()).unwrap_or_default();
        let limited = |label: &str, average| Perfdata {
            warning: limit(&warning),
            critical: limit(&critical),
            min: Some(0.0),
            ..value(label, average, "")
        };
        if cpus.is_some() {
            values.push(Perfdata {
                min: Some(0.0),
                ..value(&format!("load{minutes}"), total[at], "")
            });
            values.push(limited(&format!("scaled_load{minutes}"), round(judged[at])));
        } else {
            values.push(limited(&format!("load{minutes}"), total[at]));
        }
    }
    Ok(Finding::new(KIND, state, text).with(values))
}

/// The kernel's averages have two decimals; a third is all that dividing adds.
fn round(average: f64) -> f64 {
    (average * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::perfdata;

    const AVERAGES: [f64; 3] = [4.6, 2.95, 2.0];

    fn load(warning: &str, critical: &str) -> LoadRun {
        LoadRun {
            warning: warning.to_owned(),
            critical: critical.to_owned(),
            per_cpu: false,
        }
    }

    #[test]
    fn an_average_at_its_threshold_is_a_problem() {
        let cases = [
            ("15,10,5", "30,25,20", CheckState::Ok),
            ("4.6,10,5", "30,25,20", CheckState::Warning),
            ("15,10,5", "30,25,2", CheckState::Critical),
            ("5", "10", CheckState::Ok),
            ("2", "10", CheckState::Warning),
            ("0,0,0", "0,0,0", CheckState::Critical),
            ("", "", CheckState::Ok),
        ];
        for (warning, critical, state) in cases {
            assert_eq!(
                judge(&load(warning, critical), AVERAGES, None).unwrap().state,
                state,
                "{warning} {critical}"
            );
        }
    }

    #[test]
    fn the_text_and_the_values_are_like_those_of_check_load() {
        let finding = judge(&load("15,10,5", "30,25,20"), AVERAGES, None).unwrap();
        assert_eq!(finding.summary, "LOAD OK - total load average: 4.60, 2.95, 2.00");
        assert_eq!(
            perfdata::render(&finding.perfdata),
            "load1=4.6;15;30;0 load5=2.95;10;25;0 load15=2;5;20;0"
        );
    }

    #[test]
    fn averages_for_each_cpu_are_judged_when_asked_for() {
        let run = LoadRun {
            per_cpu: true,
            ..load("1", "2")
        };
        let finding = judge(&run, AVERAGES, Some(2)).unwrap();
        assert_eq!(
            finding.summary,
            "LOAD CRITICAL - scaled load average: 2.30, 1.48, 1.00 - total load average: 4.60, 2.95, 2.00"
        );
        assert_eq!(
            perfdata::render(&finding.perfdata),
            "load1=4.6;;;0 scaled_load1=2.3;1;2;0 load5=2.95;;;0 scaled_load5=1.475;1;2;0 load15=2;;;0 scaled_load15=1;1;2;0"
        );
    }
}
