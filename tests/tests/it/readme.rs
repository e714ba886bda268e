//! The five minutes of the README, as they are written there.

use std::fs;

use muster_tests::{Dev, binaries, ctl::Outcome, process, settings};

#[test]
fn the_five_minutes_of_the_readme_go_as_written() {
    let dev = Dev::start();
    let dir = tempfile::tempdir().expect("a directory");
    let readme = fs::read_to_string(binaries::workspace().join("README.md")).expect("the README");
    let (_, tour) = readme.split_once("## Five minutes").expect("the tour");
    let (tour, _) = tour.split_once("\n## ").expect("an end of the tour");
    // The first block builds the binaries and says where the context is, both of which the harness does.
    let blocks: Vec<&str> = tour.split("```\n").skip(1).step_by(2).skip(1).collect();
    assert!(blocks.len() >= 6, "{blocks:?}");

    let agents = dev.endpoints().expect("dev is ready")["agents"].clone();
    let script = blocks
        .join("\necho ---\n")
        // Which a person ends by Ctrl-C.
        .replace("musterctl state watch\n", "")
        // A person is not so quick that the agent is stopped before it has said a word.
        .replace(
            "/second/log &\n",
            "/second/log &\ntimeout 60 sh -c 'until musterctl agent list | grep \"second *online\"; do sleep 0.2; done'\n",
        )
        // What is refused is to be seen, and to go on after.
        .replace("| musterctl apply -f -", "| musterctl apply -f - || true")
        .replace("127.0.0.1:8443", agents.as_str().expect("an address"))
        .replace("/tmp/", &format!("{}/", dir.path().display()));
    let mut command = process::clean_command("bash", dir.path());
    let bin = binaries::path("musterctl").with_file_name("");
    command
        .env("PATH", format!("{}:{}", bin.display(), settings::path()))
        .env("MUSTER_CONFIG", dev.data_dir().join("admin.yaml"))
        .args(["-m", "-e", "-u", "-o", "pipefail", "-c", &script]);
    let outcome = Outcome::of(command).expect_code(0);

    for text in [
        "disk-root",
        "node_load1",
        "backup-done",
        "second",
        "unreachable (was",
        "offline (goodbye)",
    ] {
        assert!(outcome.stdout.contains(text), "'{text}' was not shown:\n{outcome}");
    }
    outcome.says(&["did you mean `interval`"]);
}
