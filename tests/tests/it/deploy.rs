//! The files under `deploy/` are true: the binaries take them, and systemd has nothing to say about them.

use std::{fs, path::PathBuf};

use muster_tests::{binaries, ctl::Outcome, process, tools};

#[test]
fn the_controllers_example_config_is_accepted() {
    config_check("muster-server", "server.yaml").expect_code(0);
}

#[test]
fn the_agents_example_config_is_accepted() {
    config_check("muster-agent", "agent.yaml").expect_code(0);
}

#[test]
fn a_misspelt_key_in_a_config_is_named_with_its_line_and_what_was_meant() {
    for (binary, file, right, wrong) in [
        ("muster-server", "server.yaml", "heartbeat: 30s", "heartbeet: 30s"),
        ("muster-agent", "agent.yaml", "max_concurrent: 10", "max_concurent: 10"),
    ] {
        let text = fs::read_to_string(deployed("config").join(file)).expect("the example is there");
        let line = 1 + text
            .lines()
            .position(|line| line.contains(right))
            .expect("the example has the key");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(file);
        fs::write(&path, text.replace(right, wrong)).expect("the copy is written");

        let mut command = process::clean_command(binaries::path(binary), dir.path());
        command.args(["config", "check", "--config"]).arg(&path);
        let outcome = Outcome::of(command);
        assert_ne!(outcome.code, 0, "{outcome}");
        let word = |text: &str| text.split(':').next().expect("a key").to_owned();
        // What a check finds is its data, wherever it prints it.
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        for text in [
            format!("{}:{line}", path.display()),
            word(wrong),
            "did you mean".to_owned(),
            word(right),
        ] {
            assert!(said.contains(&text), "'{text}' is not said:\n{outcome}");
        }
    }
}

#[test]
fn the_example_policies_parse_and_are_named_like_their_files() {
    let mut count = 0;
    for entry in fs::read_dir(deployed("policies")).expect("the policies are there") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a policy is text");
        let manifests = muster_proto::manifest::parse(&path.display().to_string(), &text)
            .unwrap_or_else(|errors| panic!("{errors:#?}"));
        assert_eq!(manifests.len(), 1, "{}", path.display());
        let policy = &manifests[0].document;
        let name = &policy.metadata.as_ref().expect("a policy has metadata").name;
        assert_eq!(Some(name.as_str()), path.file_stem().and_then(|stem| stem.to_str()));
        count += 1;
    }
    assert!(count >= 7, "{count} policies");
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let Some(analyze) = tools::find("systemd-analyze") else {
        return tools::skipped(
            "the systemd units",
            "systemd-analyze is not installed (Debian: systemd)",
        );
    };
    let dir = tempfile::tempdir().expect("a directory");
    for unit in ["muster-server", "muster-agent"] {
        let text = fs::read_to_string(deployed("systemd").join(format!("{unit}.service"))).expect("the unit is there");
        // systemd looks whether the program is there; here it is where cargo built it.
        let text = text.replace(
            &format!("/usr/bin/{unit} "),
            &format!("{} ", binaries::path(unit).display()),
        );
        fs::write(dir.path().join(format!("{unit}.service")), text).expect("the copy is written");
    }
    let verify = |unit: &str| {
        let mut command = process::clean_command(&analyze, dir.path());
        command.arg("verify").arg(dir.path().join(unit));
        let outcome = Outcome::of(command).expect_code(0);
        // It exits with 0 even when it does not know a key.
        assert!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome}");
    };
    verify("muster-server.service");
    verify("muster-agent.service");

    let drop_in = dir.path().join("muster-agent.service.d");
    fs::create_dir(&drop_in).expect("a directory");
    fs::copy(
        deployed("systemd").join("muster-agent-rootless.conf"),
        drop_in.join("rootless.conf"),
    )
    .expect("a copy");
    verify("muster-agent.service");
}

fn config_check(binary: &str, file: &str) -> Outcome {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = process::clean_command(binaries::path(binary), home.path());
    command
        .args(["config", "check", "--config"])
        .arg(deployed("config").join(file));
    Outcome::of(command)
}

fn deployed(folder: &str) -> PathBuf {
    binaries::workspace().join("deploy").join(folder)
}
