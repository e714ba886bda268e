//! What a check must be like, what it becomes and when it runs.

mod runs;

use proptest::prelude::*;

use super::*;
use crate::error::FieldViolation;

fn seconds(seconds: u64) -> Option<prost_types::Duration> {
    Some(duration::to_proto(Duration::from_secs(seconds)))
}

fn check(run: v1::Run) -> v1::Check {
    v1::Check {
        selector: "*".to_owned(),
        run: Some(run),
        ..Default::default()
    }
}

fn command(elements: &[&str]) -> v1::Run {
    v1::Run {
        command: elements.iter().map(|element| (*element).to_owned()).collect(),
        ..Default::default()
    }
}

fn disk(warning: &str, critical: &str) -> v1::Run {
    let disk = v1::DiskRun {
        warning: warning.to_owned(),
        critical: critical.to_owned(),
        ..Default::default()
    };
    v1::Run {
        disk: Some(disk),
        ..Default::default()
    }
}

fn parameters<const N: usize>(pairs: [(&str, &str); N]) -> std::collections::BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The one thing that is wrong.
fn problem(check: &v1::Check) -> (String, String) {
    let mut found = validate(check);
    assert_eq!(found.len(), 1, "{found:#?}");
    let FieldViolation { field, description } = found.remove(0);
    (field, description)
}

fn expect(check: &v1::Check, field: &str, text: &str) {
    let (found, description) = problem(check);
    assert_eq!(found, field, "{description}");
    assert!(description.contains(text), "{field}: {description}");
}

fn with(change: impl FnOnce(&mut v1::Check)) -> v1::Check {
    let mut check = check(command(&["/bin/true"]));
    change(&mut check);
    check
}

#[test]
fn a_minimal_check_of_each_kind_is_good() {
    let runs = [
        command(&["/bin/true"]),
        disk("", ""),
        v1::Run {
            load: Some(v1::LoadRun {
                warning: "5".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        },
        v1::Run {
            memory: Some(v1::MemoryRun::default()),
            ..Default::default()
        },
        v1::Run {
            process: Some(v1::ProcessRun::default()),
            ..Default::default()
        },
        v1::Run {
            tcp: Some(v1::TcpRun {
                address: "db:5432".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        },
        v1::Run {
            http: Some(v1::HttpRun {
                url: "https://[::1]:8443/x?y".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        },
    ];
    for (run, kind) in runs.into_iter().zip(super::runs::KINDS) {
        let mut check = check(run);
        assert_eq!(validate(&check), [], "{kind}");
        assert_eq!(features(&check), ["check".to_owned(), format!("run.{kind}")]);
        normalize(&mut check);
        assert_eq!(validate(&check), [], "{kind} after its defaults were written in");
        let once = check.clone();
        normalize(&mut check);
        assert_eq!(check, once);
    }
}

#[test]
fn defaults_are_what_the_proto_files_say() {
    let mut check = check(disk("", ""));
    normalize(&mut check);
    let schedule = check.schedule.unwrap();
    assert_eq!(
        (schedule.interval, schedule.retry_interval, schedule.attempts),
        (seconds(60), seconds(60), 1)
    );
    assert_eq!(check.timeout, seconds(30));
    let disk = check.run.unwrap().disk.unwrap();
    assert_eq!(
        (&*disk.path, &*disk.warning, &*disk.critical, &*disk.inodes_warning),
        ("/", "20%", "10%", "")
    );
}

#[test]
fn a_timeout_that_is_not_given_is_never_longer_than_the_interval() {
    let check = with(|check| {
        check.schedule = Some(v1::Schedule {
            interval: seconds(10),
            ..Default::default()
        })
    });
    assert_eq!(timings(&check).timeout, Duration::from_secs(10));
    assert_eq!(validate(&check), []);
}

#[test]
fn a_state_is_stale_after_two_intervals_and_the_timeout() {
    let check = with(|check| {
        check.schedule = Some(v1::Schedule {
            interval: seconds(60),
            retry_interval: seconds(15),
            attempts: 3,
        });
        check.timeout = seconds(20);
    });
    let timings = timings(&check);
    let expected = [60, 15, 20].map(Duration::from_secs);
    assert_eq!([timings.interval, timings.retry_interval, timings.timeout], expected);
    assert_eq!(timings.attempts, 3);
    assert_eq!(stale_after(&timings), Duration::from_secs(140));
}

#[test]
fn nonsense_timings_never_make_a_scheduler_spin() {
    let negative = Some(prost_types::Duration { seconds: -5, nanos: 0 });
    let schedule = v1::Schedule {
        interval: seconds(0),
        retry_interval: negative,
        attempts: 0,
    };
    let timings = timings(&with(|check| check.schedule = Some(schedule)));
    assert_eq!(
        (timings.interval, timings.retry_interval),
        (Duration::from_secs(1), Duration::from_secs(1))
    );
}

#[test]
fn selector_and_timing_are_within_their_limits() {
    expect(&with(|check| check.selector.clear()), "selector", "`*` is every agent");
    expect(
        &with(|check| check.selector = "env:prod".to_owned()),
        "selector",
        "did you mean `=`?",
    );
    expect(
        &with(|check| check.description = "x".repeat(1_025)),
        "description",
        "at most 1024",
    );

    let schedule = |interval, retry_interval, attempts| {
        with(|check| {
            check.schedule = Some(v1::Schedule {
                interval,
                retry_interval,
                attempts,
            })
        })
    };
    expect(
        &schedule(seconds(0), None, 0),
        "schedule.interval",
        "expected a duration of 1s to 1d, found 0s",
    );
    expect(&schedule(seconds(86_401), None, 0), "schedule.interval", "found 1d1s");
    expect(
        &schedule(seconds(60), seconds(61), 0),
        "schedule.retryInterval",
        "longer than the interval (1m)",
    );
    expect(
        &schedule(None, None, 101),
        "schedule.attempts",
        "expected 1 to 100, found 101",
    );
    let negative = prost_types::Duration { seconds: 1, nanos: -1 };
    expect(
        &schedule(Some(negative), None, 0),
        "schedule.interval",
        "found a negative one",
    );
    expect(
        &with(|check| check.timeout = seconds(61)),
        "timeout",
        "runs would overlap",
    );
    expect(&with(|check| check.timeout = seconds(0)), "timeout", "1s to 1h");
    assert_eq!(validate(&with(|check| check.timeout = seconds(60))), []);
}

#[test]
fn exactly_one_kind_of_run_is_given() {
    expect(
        &with(|check| check.run = None),
        "run",
        "exactly one of command, disk, load, memory, process, tcp, http",
    );
    expect(&check(v1::Run::default()), "run", "found none");
    let both = v1::Run {
        command: vec!["/bin/true".to_owned()],
        ..disk("", "")
    };
    expect(&check(both), "run", "found command and disk");
}

#[test]
fn a_program_is_given_by_its_absolute_path() {
    for (program, text) in [
        ("", "found nothing"),
        ("check_disk", "`command -v NAME`"),
        ("./check_disk", "absolute path"),
        (
            "sh -c 'echo hi'",
            "no shell splits it: write each argument as an element of its own, [\"/path/to/sh\", ...]",
        ),
        ("/usr/bin/", "that of a folder"),
        ("/bin/a\0", "NUL"),
    ] {
        expect(&check(command(&[program])), "run.command[0]", text);
    }
    expect(&check(command(&["/bin/true"; 65])), "run.command", "more than the 64");
    expect(
        &check(command(&["/bin/echo", &"x".repeat(4_097)])),
        "run.command[1]",
        "at most 4096",
    );
    let large = vec!["x".repeat(4_096); 20];
    let large: Vec<&str> = std::iter::once("/bin/echo")
        .chain(large.iter().map(String::as_str))
        .collect();
    expect(&check(command(&large)), "", "at most 65536 are allowed");
}

#[test]
fn a_parameter_stays_inside_its_element_and_is_looked_at_once() {
    let mut check = check(command(&[
        "/bin/x",
        "-w=${warn}",
        "$${warn}",
        "${a}${b}",
        "$HOME $ $$ 5$",
        "$$${warn}",
    ]));
    check.parameters = parameters([("warn", "1 2; rm -rf /"), ("a", "${b}"), ("b", "$${x}")]);
    assert_eq!(validate(&check), []);
    let expected = [
        "/bin/x",
        "-w=1 2; rm -rf /",
        "${warn}",
        "${b}$${x}",
        "$HOME $ $$ 5$",
        "$${warn}",
    ];
    assert_eq!(expand(&check).command, expected);
}

#[test]
fn a_reference_to_no_parameter_says_which_was_meant() {
    let mut check = check(command(&["/bin/x", "${wran}"]));
    check.parameters = parameters([("warn", "1"), ("unused", "2")]);
    expect(
        &check,
        "run.command[1]",
        "there is no parameter `wran`; did you mean `${warn}`?",
    );
    check.run = Some(command(&["/bin/x", "${HOME}"]));
    expect(
        &check,
        "run.command[1]",
        "the parameters are unused, warn (where `${` itself is meant, write `$${`)",
    );
    check.run = Some(command(&["/bin/x", "${warn"]));
    expect(&check, "run.command[1]", "never closed");
    check.parameters.clear();
    check.run = Some(disk("${w}", "5%"));
    expect(&check, "run.disk.warning", "the check has no parameters");
}

#[test]
fn parameters_have_names_and_are_few_and_short() {
    for name in ["", "1a", "a b", "a}", "ä", &"x".repeat(64)] {
        let check = with(|check| check.parameters = parameters([(name, "")]));
        assert!(problem(&check).1.contains("a parameter's name starts with"), "{name}");
    }
    let many: Vec<String> = (0..65).map(|n| format!("p{n}")).collect();
    let check = with(|check| check.parameters = many.iter().map(|name| (name.clone(), String::new())).collect());
    expect(&check, "parameters", "65 parameters are more than the 64");
    expect(
        &with(|check| check.parameters = parameters([("a", "x\0")])),
        "parameters[a]",
        "NUL",
    );
}

#[test]
fn thresholds_are_looked_at_after_parameters_were_put_in() {
    let mut good = check(disk("${w}%", "${c}"));
    good.parameters = parameters([("w", "20"), ("c", "5%")]);
    assert_eq!(validate(&good), []);
    good.parameters = parameters([("w", "x"), ("c", "5%")]);
    expect(
        &good,
        "run.disk.warning",
        "expected a percentage like `20%` or bytes like `5GiB`, found `x%`",
    );
}

#[test]
fn several_problems_are_told_at_once() {
    let check = v1::Check {
        selector: "=".to_owned(),
        timeout: seconds(0),
        ..check(command(&["x"]))
    };
    let fields: Vec<String> = validate(&check).into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["selector", "timeout", "run.command[0]"]);
}

proptest! {
    #[test]
    fn no_text_makes_validation_panic(text in any::<String>(), near in "[$\\{}a-c/:\\[\\]%0-9. ]{0,24}") {
        for text in [&text, &near] {
            let run = v1::Run {
                command: vec![text.clone()],
                disk: Some(v1::DiskRun { path: text.clone(), warning: text.clone(), ..Default::default() }),
                ..Default::default()
            };
            let mut all = v1::Check { selector: text.clone(), parameters: parameters([("a", text)]), ..check(run) };
            validate(&all);
            expand(&all);
            let tcp = v1::TcpRun { address: text.clone(), ..Default::default() };
            all.run = Some(v1::Run { tcp: Some(tcp), ..Default::default() });
            validate(&all);
            let http = v1::HttpRun { url: text.clone(), headers: parameters([(text, text)]), ..Default::default() };
            all.run = Some(v1::Run { http: Some(http), ..Default::default() });
            validate(&all);
        }
    }

    #[test]
    fn an_escaped_text_comes_out_as_it_was(text in "[$\\{}ab]{0,16}") {
        let escaped = text.replace("${", "$${");
        let check = check(command(&["/bin/echo", &escaped]));
        prop_assert_eq!(&expand(&check).command[1], &text);
    }
}
