//! Runs real scripts, since what is tested is what the kernel does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

struct Scripts(TempDir);

impl Scripts {
    fn new() -> Scripts {
        Scripts(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Vec<String> {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        vec![path.to_str().unwrap().to_owned()]
    }

    /// A script with `$D` as its directory.
    fn shell(&self, body: &str) -> Vec<String> {
        let directory = self.0.path().display();
        self.write("plugin", &format!("#!/bin/sh\nD={directory}\n{body}\n"), 0o755)
    }

    fn pid(&self) -> i32 {
        fs::read_to_string(self.path("pid")).unwrap().trim().parse().unwrap()
    }
}

/// Gone, or a zombie that nobody has reaped yet.
fn is_dead(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .starts_with('Z')
    })
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(LONG, wait)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"));
}

fn reason(outcome: &Outcome) -> String {
    match &outcome.end {
        End::NotStarted(reason) => reason.to_string(),
        other => panic!("started, and ended as {other:?}"),
    }
}

#[tokio::test]
async fn a_program_gives_its_output_and_exit_code() {
    let scripts = Scripts::new();
    let outcome = run(&scripts.shell("echo out; echo err >&2; exit 2"), LONG).await;
    assert!(matches!(outcome.end, End::Exited(2)), "{:?}", outcome.end);
    assert_eq!(
        (outcome.stdout.text().as_str(), outcome.stderr.text().as_str()),
        ("out\n", "err\n")
    );
}

#[tokio::test]
async fn arguments_reach_the_program_as_they_are_with_nothing_expanded() {
    let scripts = Scripts::new();
    let mut argv = scripts.shell("for a in \"$@\"; do echo \"<$a>\"; done");
    argv.extend(["a b", "$HOME", "; echo x", "*", ""].map(String::from));
    let outcome = run(&argv, LONG).await;
    assert_eq!(outcome.stdout.text(), "<a b>\n<$HOME>\n<; echo x>\n<*>\n<>\n");
}

#[tokio::test]
async fn a_program_sees_no_input_and_only_the_allowed_environment() {
    let scripts = Scripts::new();
    let outcome = run(&scripts.shell("cat; exec /usr/bin/env"), LONG).await;
    let text = outcome.stdout.text();
    // PWD, OLDPWD, SHLVL and _ are the shell's own.
    let allowed = ["PATH", "LC_ALL", "LANG", "HOME", "TZ", "PWD", "OLDPWD", "SHLVL", "_"];
    for line in text.lines() {
        let key = line.split('=').next().unwrap();
        assert!(allowed.contains(&key), "{line}");
    }
    assert!(text.contains("LC_ALL=C\n"), "{text}");
    let own = fs::read_to_string("/proc/self/environ").unwrap();
    let is_kept_out = |key: &str| !key.is_empty() && !allowed.contains(&key);
    let kept_out = own.split('\0').any(|pair| is_kept_out(pair.split('=').next().unwrap()));
    assert!(kept_out, "the test itself has no variable that could have got through");
}

#[tokio::test]
async fn a_program_that_ends_by_a_signal_is_reported_so() {
    let scripts = Scripts::new();
    let outcome = run(&scripts.shell("echo before; kill -SEGV $$"), LONG).await;
    assert!(matches!(outcome.end, End::Signaled(11)), "{:?}", outcome.end);
    assert_eq!(outcome.stdout.text(), "before\n");
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_its_children_and_keeps_its_output() {
    let scripts = Scripts::new();
    let argv = scripts.shell("echo started; sleep 600 & echo $! > $D/pid; wait");
    let outcome = run(&argv, SHORT).await;
    assert!(matches!(outcome.end, End::TimedOut), "{:?}", outcome.end);
    assert_eq!(outcome.stdout.text(), "started\n");
    let child = scripts.pid();
    until("the child of the plugin is dead", || is_dead(child)).await;
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_all_the_same() {
    let scripts = Scripts::new();
    let outcome = run(
        &scripts.shell("trap '' TERM; echo $$ > $D/pid; while :; do sleep 1; done"),
        SHORT,
    )
    .await;
    assert!(matches!(outcome.end, End::TimedOut), "{:?}", outcome.end);
    let leader = scripts.pid();
    until("the plugin is dead", || is_dead(leader)).await;
}

#[tokio::test]
async fn a_program_that_forks_and_leaves_leaves_nothing_behind() {
    let scripts = Scripts::new();
    let outcome = run(&scripts.shell("sleep 600 & echo $! > $D/pid; echo OK; exit 1"), LONG).await;
    assert!(matches!(outcome.end, End::Exited(1)), "{:?}", outcome.end);
    assert_eq!(outcome.stdout.text(), "OK\n");
    let left = scripts.pid();
    until("what the plugin left behind is dead", || is_dead(left)).await;
}

#[tokio::test]
async fn a_child_that_escaped_with_the_pipes_is_not_waited_for() {
    let scripts = Scripts::new();
    let body = "setsid sh -c 'echo $$ > $0/pid; exec sleep 600' $D &
        while [ ! -s $D/pid ]; do sleep 0.01; done; echo OK";
    let outcome = run(&scripts.shell(body), LONG).await;
    assert!(matches!(outcome.end, End::Exited(0)), "{:?}", outcome.end);
    assert_eq!(outcome.stdout.text(), "OK\n");
    let escaped = scripts.pid();
    assert!(!is_dead(escaped), "it was waited for");
    rustix::process::kill_process(rustix::process::Pid::from_raw(escaped).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_program_that_prints_a_hundred_megabytes_is_read_to_its_end_and_cut() {
    let scripts = Scripts::new();
    let body = "echo first; head -c 100000000 /dev/zero | tr '\\0' x; echo; echo last; exit 3";
    let outcome = run(&scripts.shell(body), LONG).await;
    assert!(matches!(outcome.end, End::Exited(3)), "{:?}", outcome.end);
    let text = outcome.stdout.text();
    assert!(text.starts_with("first\n") && text.ends_with("\nlast\n"));
    assert!(text.len() < STDOUT_BYTES + 100);
    assert_eq!(outcome.stdout.cut_bytes(), 100_000_000 + 12 - STDOUT_BYTES as u64);
}

#[tokio::test]
async fn dropping_the_run_kills_the_group() {
    let scripts = Scripts::new();
    let argv = scripts.shell("sleep 600 & echo $! > $D/pid; wait");
    let pid_file = scripts.path("pid");
    let written = || fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'));
    tokio::select! {
        outcome = run(&argv, LONG) => panic!("ended: {:?}", outcome.end),
        () = until("the plugin runs", written) => {}
    }
    let child = scripts.pid();
    until("the child of the plugin is dead", || is_dead(child)).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_says_why_and_what_to_do() {
    let scripts = Scripts::new();
    let directory = scripts.path("directory");
    fs::create_dir(&directory).unwrap();
    let one = |path: &Path| vec![path.to_str().unwrap().to_owned()];
    let cases = [
        (one(&scripts.path("missing")), "no such file; install the plugin"),
        (one(&directory), "it is a directory; name the program inside it"),
        (
            scripts.write("plain", "#!/bin/sh\n", 0o644),
            "not executable for the agent's user; chmod +x it",
        ),
        (
            scripts.write("orphan", "#!/no/such/interpreter\n", 0o755),
            "the interpreter or loader that it names",
        ),
        (
            scripts.write("binary", "\x01\x02", 0o755),
            "neither a binary of this machine's kind nor a script",
        ),
        (
            vec!["check_disk".to_owned()],
            "cannot run check_disk: not an absolute path; name the program",
        ),
        (vec![], "cannot run \"\": not an absolute path"),
        (
            vec!["/bin/echo".to_owned(), "a\0b".to_owned()],
            "an argument contains a NUL byte",
        ),
    ];
    for (argv, expected) in cases {
        let text = reason(&run(&argv, LONG).await);
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
    }
}
