//! Runs of real plugins (monitoring-plugins 2.3.3) and the odd corners of the API.

use proptest::prelude::*;

use super::*;
use crate::exec::Capture;

async fn outcome(end: End, stdout: &str, stderr: &str) -> Outcome {
    let mut captures = [Capture::new(64 * 1024), Capture::new(16 * 1024)];
    for (capture, text) in captures.iter_mut().zip([stdout, stderr]) {
        capture.drain(Some(text.as_bytes())).await;
    }
    let [stdout, stderr] = captures;
    Outcome {
        end,
        stdout,
        stderr,
        duration: Duration::from_millis(9),
    }
}

async fn exited(code: i32, stdout: &str, stderr: &str) -> CheckResult {
    result(
        &outcome(End::Exited(code), stdout, stderr).await,
        Duration::from_secs(20),
    )
}

fn labels(result: &CheckResult) -> Vec<&str> {
    result.metrics.iter().map(|value| value.label.as_str()).collect()
}

#[tokio::test]
async fn recorded_runs_give_the_state_text_and_perfdata_that_a_terminal_shows() {
    let load = "load1=4.600;15.000;30.000;0; load5=2.950;10.000;25.000;0; load15=2.000;5.000;20.000;0;";
    let disk = "/=24318574592B;243497277849;257024904396;0;270552530944";
    let cases = [
        (0, "OK\n".to_owned(), CheckState::Ok, "OK", "", ""),
        (
            1,
            "WARNING: warn text\n".to_owned(),
            CheckState::Warning,
            "WARNING: warn text",
            "",
            "",
        ),
        (
            2,
            "CRITICAL: CRITICAL: disk | used=97%;80;90;0;100\n".to_owned(),
            CheckState::Critical,
            "CRITICAL: CRITICAL: disk",
            "",
            "used=97%;80;90;0;100",
        ),
        (
            0,
            format!("LOAD OK - total load average: 4.60, 2.95, 2.00|{load} \n"),
            CheckState::Ok,
            "LOAD OK - total load average: 4.60, 2.95, 2.00",
            "",
            load,
        ),
        (
            0,
            format!("DISK OK - free space: / 69859MiB (75% inode=97%);| {disk}\n"),
            CheckState::Ok,
            "DISK OK - free space: / 69859MiB (75% inode=97%);",
            "",
            disk,
        ),
        (
            3,
            "check_dummy: Could not parse arguments\nUsage:\n check_dummy <integer state> [optional text]\n".to_owned(),
            CheckState::Unknown,
            "check_dummy: Could not parse arguments",
            "Usage:\n check_dummy <integer state> [optional text]",
            "",
        ),
        // check_smtp prints so when the connection is refused: the summary with its values comes second.
        (
            2,
            "connect to address 127.0.0.1 and port 25: Connection refused\nSMTP CRITICAL - 0.000 sec|time=0.000s;;;0\n"
                .to_owned(),
            CheckState::Critical,
            "connect to address 127.0.0.1 and port 25: Connection refused",
            "SMTP CRITICAL - 0.000 sec",
            "time=0.000s;;;0",
        ),
    ];
    for (code, stdout, state, output, long_output, perfdata) in cases {
        let result = exited(code, &stdout, "").await;
        assert_eq!(result.state(), state, "{stdout}");
        assert_eq!((result.end(), result.exit_code), (RunEnd::Exited, code), "{stdout}");
        assert_eq!(result.output, output);
        assert_eq!(result.long_output, long_output, "{stdout}");
        assert_eq!(result.perfdata, perfdata, "{stdout}");
    }
}

#[tokio::test]
async fn long_text_and_perfdata_on_later_lines_are_told_apart() {
    let stdout = "DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968\n\
        / 15272 MB (77%);\n\n/boot 68 MB (69%);\n/var/log 819 MB (84%); | /boot=68MB;88;93;0;98\n\
        /home=69357MB;253404;253409;0;253414 \n/var/log=818MB;970;975;0;980\n";
    let result = exited(0, stdout, "").await;
    assert_eq!(result.output, "DISK OK - free space: / 3326 MB (56%);");
    assert_eq!(
        result.long_output,
        "/ 15272 MB (77%);\n\n/boot 68 MB (69%);\n/var/log 819 MB (84%);"
    );
    assert_eq!(
        result.perfdata,
        "/=2643MB;5948;5958;0;5968 /boot=68MB;88;93;0;98/home=69357MB;253404;253409;0;253414 /var/log=818MB;970;975;0;980"
    );
    assert_eq!(labels(&result), ["/", "/boot", "/home", "/var/log"]);
    assert_eq!(result.metrics[1].max, Some(98.0));
}

#[tokio::test]
async fn perfdata_may_come_on_later_lines_only() {
    let result = exited(0, "OK\nall is well\n|a=1\nb=2\n", "").await;
    assert_eq!(
        (result.output.as_str(), result.long_output.as_str()),
        ("OK", "all is well")
    );
    assert_eq!(labels(&result), ["a", "b"]);
}

#[tokio::test]
async fn only_the_first_bar_of_a_line_divides_it() {
    let result = exited(0, "OK|a=1|b=2\n", "").await;
    assert_eq!((result.output.as_str(), result.perfdata.as_str()), ("OK", "a=1|b=2"));
}

#[tokio::test]
async fn perfdata_with_a_decimal_comma_is_kept_as_text_but_not_as_values() {
    let result = exited(0, "LOAD OK|load1=0,15;5,0;10,0;0; procs=12\n", "").await;
    assert_eq!(result.perfdata, "load1=0,15;5,0;10,0;0; procs=12");
    assert_eq!(labels(&result), ["procs"]);
}

#[tokio::test]
async fn the_state_is_the_exit_code_whatever_the_text_says() {
    assert_eq!(exited(0, "CRITICAL: gone\n", "").await.state(), CheckState::Ok);
}

#[tokio::test]
async fn an_exit_code_out_of_bounds_is_unknown_and_says_so() {
    let stderr = "check_mysql: error while loading shared libraries: libmariadb.so.3\nmore\n";
    let result = exited(127, "", stderr).await;
    assert_eq!((result.state(), result.exit_code), (CheckState::Unknown, 127));
    assert_eq!(
        result.output,
        "check_mysql: error while loading shared libraries: libmariadb.so.3 (return code of 127 is out of bounds)"
    );
    assert_eq!(result.long_output, "more");
    assert_eq!(exited(4, "x\n", "").await.state(), CheckState::Unknown);
}

#[tokio::test]
async fn standard_error_is_shown_only_when_there_is_nothing_else() {
    assert_eq!(
        exited(2, " \n", "no such host | really\n").await.output,
        "no such host | really"
    );
    assert_eq!(exited(2, "down\n", "noise\n").await.output, "down");
    assert_eq!(exited(1, "", "").await.output, "(no output returned from plugin)");
}

#[tokio::test]
async fn a_plugin_killed_by_a_signal_is_unknown() {
    let result = result(&outcome(End::Signaled(11), "", "").await, Duration::from_secs(20));
    assert_eq!(
        (result.state(), result.end(), result.signal),
        (CheckState::Unknown, RunEnd::Signaled, 11)
    );
    assert_eq!(result.output, "killed by signal 11 (SIGSEGV)");
}

#[tokio::test]
async fn a_plugin_that_timed_out_is_unknown_and_what_it_said_stays_below() {
    let result = result(
        &outcome(End::TimedOut, "working...|a=1\nstill\n", "").await,
        Duration::from_secs(20),
    );
    assert_eq!((result.state(), result.end()), (CheckState::Unknown, RunEnd::TimedOut));
    assert_eq!(result.output, "timed out after 20s and was killed");
    assert_eq!(result.long_output, "working...\nstill");
    assert_eq!((result.perfdata.as_str(), result.metrics.len()), ("", 0));
}

#[tokio::test]
async fn a_plugin_that_was_never_started_is_unknown_and_says_what_to_do() {
    let outcome = crate::exec::run(&["/no/such/check_disk".to_owned()], Duration::from_secs(20)).await;
    let result = result(&outcome, Duration::from_secs(20));
    assert_eq!(
        (result.state(), result.end()),
        (CheckState::Unknown, RunEnd::NotStarted)
    );
    assert_eq!(
        result.output,
        "cannot run /no/such/check_disk: no such file; install the plugin on this machine or correct run.command"
    );
}

proptest! {
    #[test]
    fn any_output_comes_apart_into_a_line_more_lines_and_perfdata(stdout in "[a-c |=\n\r\t]{0,60}\\PC{0,20}") {
        let text = Text::parse(&stdout);
        prop_assert!(!text.output.contains(['\n', '|']));
        prop_assert_eq!(text.output.trim(), text.output.as_str());
        prop_assert!(!text.long_output.contains('|'));
        prop_assert_eq!(text.long_output.trim_end(), text.long_output.as_str());
        // Nothing but white space and bars is lost.
        let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace() && *c != '|').collect::<Vec<_>>();
        let mut kept = letters(&text.output);
        kept.extend(letters(&text.long_output));
        kept.extend(letters(&text.perfdata_lines.concat()));
        kept.sort_unstable();
        let mut all = letters(&stdout);
        all.sort_unstable();
        prop_assert_eq!(kept, all);
    }
}
