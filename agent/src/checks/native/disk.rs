//! `run.disk`: free space, and if asked for free inodes, of the file system that a path is on.
//!
//! | parameter | |
//! |---|---|
//! | `path` | any path on the file system, `/` by default |
//! | `warning`, `critical` | a problem when less is free for others than root: `20%` or `5GiB`; `20%` and `10%` by default |
//! | `inodesWarning`, `inodesCritical` | the same for inodes, in percent; not looked at by default |
//!
//! Percentages are of what others than root can use, like in `df`. Performance data is of what is used, like that of
//! check_disk. A file system that does not answer in time is critical.

use std::path::Path;
use std::time::Duration;

use muster_proto::threshold::Amount;
use muster_proto::v1::{CheckState, DiskRun, Perfdata};

use super::{Finding, binary_size, percent, plain, threshold, value, worse};
use crate::statvfs::{self, Error, Space};

const KIND: &str = "DISK";

pub(super) async fn run(run: &DiskRun, limit: Duration) -> Finding {
    let answer = statvfs::ask(Path::new(&run.path), limit).await;
    let finding = match answer {
        Ok(space) => judge(run, &space),
        Err(Error::Stuck) => Ok(Finding::new(
            KIND,
            CheckState::Critical,
            format!("{} does not answer; its server is away or its disk hangs", run.path),
        )),
        Err(error @ Error::System(_)) => Ok(Finding::new(
            KIND,
            CheckState::Critical,
            format!("{} is not accessible: {}", run.path, plain(error)),
        )),
        Err(error @ Error::Call(_)) => Err(error.to_string()),
    };
    finding.unwrap_or_else(|error| Finding::new(KIND, CheckState::Unknown, error))
}

fn judge(run: &DiskRun, space: &Space) -> Result<Finding, String> {
    let bytes = Limits::parse("warning", &run.warning, "critical", &run.critical)?;
    let inodes = Limits::parse(
        "inodesWarning",
        &run.inodes_warning,
        "inodesCritical",
        &run.inodes_critical,
    )?;
    let used = space.size.saturating_sub(space.free);
    let usable = used.saturating_add(space.available);
    let mut details = format!("{:.0}%", percent(space.available, usable));
    let mut values = vec![bytes.value(&run.path, used, usable, "B")];
    let mut states = vec![bytes.state(space.available, usable)];
    if inodes.are_given() {
        details.push_str(&format!(" inode={:.0}%", percent(space.files_free, space.files)));
        let used = space.files.saturating_sub(space.files_free);
        values.push(inodes.value(&format!("{} inodes", run.path), used, space.files, ""));
        states.push(inodes.state(space.files_free, space.files));
    }
    let state = worse(
        states.contains(&CheckState::Critical),
        states.contains(&CheckState::Warning),
    );
    let text = format!("free space: {} {} ({details})", run.path, binary_size(space.available));
    Ok(Finding::new(KIND, state, text).with(values))
}

struct Limits {
    warning: Option<Amount>,
    critical: Option<Amount>,
}

impl Limits {
    fn parse(warning_name: &str, warning: &str, critical_name: &str, critical: &str) -> Result<Limits, String> {
        Ok(Limits {
            warning: threshold(warning_name, warning)?,
            critical: threshold(critical_name, critical)?,
        })
    }

    fn are_given(&self) -> bool {
        self.warning.is_some() || self.critical.is_some()
    }

    fn state(&self, free: u64, total: u64) -> CheckState {
        let short = |limit: Option<Amount>| limit.is_some_and(|limit| limit.is_short(free, total));
        worse(short(self.critical), short(self.warning))
    }

    fn value(&self, label: &str, used: u64, total: u64, unit: &str) -> Perfdata {
        Perfdata {
            warning: used_at(self.warning, total),
            critical: used_at(self.critical, total),
            min: Some(0.0),
            max: Some(total as f64),
            ..value(label, used as f64, unit)
        }
    }
}

/// How much may be used before less than `limit` is free.
fn used_at(limit: Option<Amount>, total: u64) -> String {
    match limit {
        Some(Amount::Percent(percent)) => (total as f64 * (1.0 - percent / 100.0)).floor().to_string(),
        Some(Amount::Bytes(bytes)) => total.saturating_sub(bytes).to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::perfdata;

    const SPACE: Space = Space {
        size: 100 << 30,
        free: 30 << 30,
        available: 20 << 30,
        files: 1000,
        files_free: 120,
        read_only: false,
    };

    fn disk(warning: &str, critical: &str) -> DiskRun {
        DiskRun {
            path: "/srv".to_owned(),
            warning: warning.to_owned(),
            critical: critical.to_owned(),
            ..DiskRun::default()
        }
    }

    #[test]
    fn space_is_judged_by_percentages_and_by_bytes() {
        let cases = [
            ("20%", "10%", CheckState::Ok),
            ("23%", "10%", CheckState::Warning),
            ("50%", "23%", CheckState::Critical),
            ("20GiB", "10GiB", CheckState::Ok),
            ("21GiB", "10GiB", CheckState::Warning),
            ("1%", "21GiB", CheckState::Critical),
            ("", "", CheckState::Ok),
        ];
        for (warning, critical, state) in cases {
            assert_eq!(
                judge(&disk(warning, critical), &SPACE).unwrap().state,
                state,
                "{warning} {critical}"
            );
        }
    }

    #[test]
    fn the_text_and_the_values_are_like_those_of_check_disk() {
        let finding = judge(&disk("20%", "10GiB"), &SPACE).unwrap();
        assert_eq!(finding.summary, "DISK OK - free space: /srv 20.0 GiB (22%)");
        assert_eq!(
            perfdata::render(&finding.perfdata),
            "/srv=75161927680B;77309411328;85899345920;0;96636764160"
        );
    }

    #[test]
    fn inodes_count_when_thresholds_for_them_are_given() {
        let run = DiskRun {
            inodes_warning: "20%".to_owned(),
            inodes_critical: "5%".to_owned(),
            ..disk("1%", "1%")
        };
        let finding = judge(&run, &SPACE).unwrap();
        assert_eq!(
            finding.summary,
            "DISK WARNING - free space: /srv 20.0 GiB (22% inode=12%)"
        );
        assert_eq!(
            perfdata::render(&finding.perfdata[1..]),
            "'/srv inodes'=880;800;950;0;1000"
        );
        let none = Space {
            files: 0,
            files_free: 0,
            ..SPACE
        };
        assert_eq!(judge(&run, &none).unwrap().state, CheckState::Ok);
    }

    #[test]
    fn an_empty_file_system_has_no_shortage() {
        let none = Space {
            size: 0,
            free: 0,
            available: 0,
            ..SPACE
        };
        assert_eq!(judge(&disk("20%", "10%"), &none).unwrap().state, CheckState::Ok);
    }

    #[test]
    fn a_threshold_that_is_none_is_named() {
        let error = judge(&disk("20", "10%"), &SPACE).unwrap_err();
        assert!(error.starts_with("warning: expected a percentage"), "{error}");
    }

    #[tokio::test]
    async fn a_path_that_does_not_exist_is_critical() {
        let run = DiskRun {
            path: "/no/such/path".to_owned(),
            ..disk("20%", "10%")
        };
        let finding = super::run(&run, Duration::from_secs(60)).await;
        assert_eq!(finding.state, CheckState::Critical);
        assert_eq!(
            finding.summary,
            "DISK CRITICAL - /no/such/path is not accessible: No such file or directory"
        );
    }
}
