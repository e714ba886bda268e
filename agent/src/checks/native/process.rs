//! `run.process`: how many processes there are that match all that is given.
//!
//! | parameter | |
//! |---|---|
//! | `name` | the name of the program: as the kernel has it, or the file name of the first argument |
//! | `commandContains` | a text in the command line, its arguments joined by spaces |
//! | `user` | the effective user, by name (in /etc/passwd) or number |
//! | `warning`, `critical` | ranges of the plugin API; a count outside is a problem; critical is `1:` by default |

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use muster_proto::threshold::Range;
use muster_proto::v1::{Perfdata, ProcessRun};

use super::{CheckState, Finding, threshold, value, worse};
use crate::detached;

const KIND: &str = "PROCS";

pub(super) async fn run(run: &ProcessRun) -> Finding {
    let unknown = |error: String| Finding::new(KIND, CheckState::Unknown, error);
    let wanted = match Wanted::parse(run) {
        Ok(wanted) => wanted,
        Err(error) => return unknown(error),
    };
    // The kernel reads a command line from the memory of its process, and waits if that is locked.
    let count = match detached::call(move || count(&wanted)) {
        Ok(answer) => answer.await,
        Err(error) => return unknown(error.to_string()),
    };
    match count {
        Ok(Ok(count)) => judge(run, count).unwrap_or_else(unknown),
        Ok(Err(error)) => unknown(format!("failed to list processes: {error}")),
        Err(_) => unknown("failed to list processes".to_owned()),
    }
}

fn judge(run: &ProcessRun, count: u64) -> Result<Finding, String> {
    let warning: Option<Range> = threshold("warning", &run.warning)?;
    let critical: Option<Range> = threshold("critical", &run.critical)?;
    let alerts = |range: Option<Range>| range.is_some_and(|range| range.alerts(count as f64));
    let values = vec![Perfdata {
        warning: run.warning.clone(),
        critical: run.critical.clone(),
        min: Some(0.0),
        ..value("procs", count as f64, "")
    }];
    let noun = if count == 1 { "process" } else { "processes" };
    let text = format!("{count} {noun}{}", description(run));
    Ok(Finding::new(KIND, worse(alerts(critical), alerts(warning)), text).with(values))
}

fn description(run: &ProcessRun) -> String {
    let parts = [
        ("name", &run.name),
        ("command containing", &run.command_contains),
        ("user", &run.user),
    ];
    let given: Vec<String> = parts
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(what, text)| format!("{what} '{text}'"))
        .collect();
    if given.is_empty() {
        String::new()
    } else {
        format!(" with {}", given.join(", "))
    }
}

/// What a process must be like.
#[derive(Debug, Clone)]
struct Wanted {
    name: Option<String>,
    command_contains: Option<String>,
    user: Option<u32>,
}

/// What is known of a process. The rest is read only if it is needed.
trait Process {
    fn uid(&self) -> Option<u32>;
    /// Cut after 15 bytes by the kernel.
    fn comm(&self) -> Option<String>;
    /// Empty for threads of the kernel.
    fn arguments(&self) -> Option<Vec<String>>;
}

impl Wanted {
    fn parse(run: &ProcessRun) -> Result<Wanted, String> {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let user = given(&run.user).map(|user| user_id(&user)).transpose()?;
        Ok(Wanted {
            name: given(&run.name),
            command_contains: given(&run.command_contains),
            user,
        })
    }

    /// A process that goes away meanwhile does not match.
    fn matches(&self, process: &impl Process) -> bool {
        self.user.is_none_or(|user| process.uid() == Some(user))
            && self.name.as_ref().is_none_or(|name| has_name(process, name))
            && self.command_contains.as_ref().is_none_or(|text| {
                process
                    .arguments()
                    .is_some_and(|arguments| arguments.join(" ").contains(text))
            })
    }
}

fn has_name(process: &impl Process, name: &str) -> bool {
    process.comm().is_some_and(|comm| comm == name)
        || process.arguments().is_some_and(|arguments| {
            let program = arguments.first().map(Path::new);
            program.and_then(Path::file_name).is_some_and(|file| file == name)
        })
}

fn count(wanted: &Wanted) -> io::Result<u64> {
    let mut count = 0;
    // What cannot be looked at is gone, or hidden from this user.
    for process in procfs::process::all_processes().map_err(io::Error::other)?.flatten() {
        count += u64::from(wanted.matches(&process));
    }
    Ok(count)
}

impl Process for procfs::process::Process {
    /// Not the owner of the process' directory, which is root for what may not be traced.
    fn uid(&self) -> Option<u32> {
        Some(self.status().ok()?.euid)
    }

    fn comm(&self) -> Option<String> {
        Some(self.stat().ok()?.comm)
    }

    fn arguments(&self) -> Option<Vec<String>> {
        self.cmdline().ok()
    }
}

/// Names are looked up in the file alone: a directory service may take longer than a check has.
fn user_id(user: &str) -> Result<u32, String> {
    if let Ok(id) = user.parse() {
        return Ok(id);
    }
    let failed = |error: io::Error| format!("failed to read /etc/passwd: {error}");
    for line in BufReader::new(File::open("/etc/passwd").map_err(failed)?).lines() {
        let line = line.map_err(failed)?;
        let mut fields = line.split(':');
        if fields.next() == Some(user)
            && let Some(Ok(id)) = fields.nth(1).map(str::parse)
        {
            return Ok(id);
        }
    }
    Err(format!(
        "user: '{user}' is not in /etc/passwd; give the number of a user that is known elsewhere only"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::perfdata;

    struct Fake(u32, &'static str, &'static [&'static str]);

    impl Process for Fake {
        fn uid(&self) -> Option<u32> {
            Some(self.0)
        }

        fn comm(&self) -> Option<String> {
            Some(self.1.to_owned())
        }

        fn arguments(&self) -> Option<Vec<String>> {
            Some(self.2.iter().map(|argument| (*argument).to_owned()).collect())
        }
    }

    const PROCESSES: [Fake; 4] = [
        Fake(0, "kworker/0:1", &[]),
        Fake(0, "sshd", &["/usr/sbin/sshd", "-D"]),
        Fake(1000, "sshd", &["sshd: somebody@pts/0"]),
        Fake(
            1000,
            "a-very-long-nam",
            &["/opt/a-very-long-name-indeed", "--config", "x.yaml"],
        ),
    ];

    fn matching(name: &str, command_contains: &str, user: &str) -> Vec<usize> {
        let run = ProcessRun {
            name: name.to_owned(),
            command_contains: command_contains.to_owned(),
            user: user.to_owned(),
            ..ProcessRun::default()
        };
        let wanted = Wanted::parse(&run).unwrap();
        (0..PROCESSES.len())
            .filter(|&at| wanted.matches(&PROCESSES[at]))
            .collect()
    }

    #[test]
    fn a_process_must_match_all_that_is_given() {
        assert_eq!(matching("", "", ""), [0, 1, 2, 3]);
        assert_eq!(matching("sshd", "", ""), [1, 2]);
        assert_eq!(matching("sshd", "", "root"), [1]);
        assert_eq!(matching("sshd", "", "1000"), [2]);
        assert_eq!(matching("", "--config x", ""), [3]);
        assert_eq!(matching("sshd", "--config x", ""), Vec::<usize>::new());
        assert_eq!(matching("kworker/0:1", "", ""), [0]);
    }

    #[test]
    fn a_name_that_the_kernel_cut_is_found_by_the_first_argument() {
        assert_eq!(matching("a-very-long-name-indeed", "", ""), [3]);
    }

    #[test]
    fn the_count_is_judged_by_ranges() {
        let cases = [
            ("", "1:", 0, CheckState::Critical),
            ("", "1:", 1, CheckState::Ok),
            ("1:5", "1:10", 6, CheckState::Warning),
            ("1:5", "1:10", 11, CheckState::Critical),
            ("", "@0:2", 2, CheckState::Critical),
        ];
        for (warning, critical, count, state) in cases {
            let run = ProcessRun {
                warning: warning.to_owned(),
                critical: critical.to_owned(),
                ..ProcessRun::default()
            };
            assert_eq!(
                judge(&run, count).unwrap().state,
                state,
                "{count} with {warning} {critical}"
            );
        }
    }

    #[test]
    fn the_text_says_what_was_looked_for() {
        let run = ProcessRun {
            name: "sshd".to_owned(),
            user: "root".to_owned(),
            critical: "1:".to_owned(),
            ..ProcessRun::default()
        };
        let finding = judge(&run, 0).unwrap();
        assert_eq!(
            finding.summary,
            "PROCS CRITICAL - 0 processes with name 'sshd', user 'root'"
        );
        assert_eq!(perfdata::render(&finding.perfdata), "procs=0;;1:;0");
    }

    #[tokio::test]
    async fn this_test_is_a_process() {
        let me = procfs::process::Process::myself().unwrap().stat().unwrap().comm;
        let run = ProcessRun {
            name: me,
            critical: "1:".to_owned(),
            ..ProcessRun::default()
        };
        let finding = super::run(&run).await;
        assert_eq!(finding.state, CheckState::Ok, "{finding:?}");
    }

    #[tokio::test]
    async fn a_user_that_does_not_exist_is_unknown() {
        let run = ProcessRun {
            user: "no-such-user".to_owned(),
            ..ProcessRun::default()
        };
        let finding = super::run(&run).await;
        assert_eq!(finding.state, CheckState::Unknown);
        assert!(
            finding.summary.contains("'no-such-user' is not in /etc/passwd"),
            "{finding:?}"
        );
    }
}
