//! Each format before the eyes of the program that it is for.

use std::{collections::BTreeSet, fs, path::Path};

use muster_proto::document::{self, Value};
use muster_tests::{Controller, binaries, ctl::Outcome, process, tools};

use super::{ID, printed};

const INSTALLS: [&[&str]; 3] = [
    &[],
    &["--install", "apt"],
    &[
        "--install",
        "https://files.example.com/muster-agent?a=1&b=%20",
        "--sha256",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ],
];

/// Labels and a description that would end a comment, a string, a heredoc or a document, if they could.
const WILD: [&str; 2] = [
    "--description",
    "a\"b'c`d`\n$(reboot) ${var.x} %{ if }\u{85}\u{2028}runcmd: [reboot]\nMUSTER_END\nEOT\n",
];

#[test]
fn cloud_init_finds_nothing_wrong_with_its_user_data() {
    let controller = Controller::start();
    let dir = tempfile::tempdir().expect("a directory");
    for install in INSTALLS {
        let text = printed(&controller, "cloud-init", &[install, &WILD].concat());
        // cloud-init says nothing of keys that it does not know.
        let keys = keys(&text);
        let known = ["package_update", "packages", "runcmd", "write_files"].map(str::to_owned);
        assert!(keys.is_subset(&known.into()), "{keys:?}");
        schema(dir.path(), &text);
    }
}

#[test]
fn the_example_for_cloud_init_is_what_is_printed() {
    let controller = Controller::start();
    let example = binaries::workspace().join("deploy/cloud-init/user-data.yaml");
    let example = fs::read_to_string(example).expect("the example");
    // Both without comments, and the values of this controller as those of the example.
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("# "));
        lines.map(str::to_owned).collect()
    };
    let masked = |line: &String| match line.trim_start() {
        text if text.starts_with("endpoints:") => "endpoints".to_owned(),
        text if text.starts_with("ca_pin:") => "ca_pin".to_owned(),
        text if text.starts_with("content: \"mst_") => format!("token of {}", text.len()),
        _ => line.clone(),
    };
    let printed = printed(&controller, "cloud-init", &[]);
    assert_eq!(
        lines(&example).iter().map(masked).collect::<Vec<_>>(),
        lines(&printed).iter().map(masked).collect::<Vec<_>>()
    );
}

#[test]
fn the_script_is_good_for_every_sh() {
    let controller = Controller::start();
    let dir = tempfile::tempdir().expect("a directory");
    for install in INSTALLS {
        let path = dir.path().join("join.sh");
        fs::write(&path, printed(&controller, "shell", &[install, &WILD].concat())).expect("a file");
        let check = |program: &str, arguments: &[&str]| {
            let mut command = process::clean_command(program, dir.path());
            command.args(arguments).arg(&path);
            let outcome = Outcome::of(command).expect_code(0);
            assert!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome}");
        };
        check("sh", &["-n"]);
        if tools::find("shellcheck").is_some() {
            check("shellcheck", &["--shell", "sh"]);
        } else {
            tools::skipped("the script by shellcheck", "it is not installed (Debian: shellcheck)");
        }
    }
}

#[test]
fn terraform_takes_the_file_and_makes_the_same_user_data_of_it() {
    if tools::find("terraform").is_none() {
        return tools::skipped("the Terraform file", "terraform is not installed");
    }
    let controller = Controller::start();
    for install in INSTALLS {
        let dir = tempfile::tempdir().expect("a directory");
        let text = printed(&controller, "terraform", &[install, &WILD].concat());
        fs::write(dir.path().join("main.tf"), &text).expect("a file");
        let terraform = |arguments: &[&str]| {
            let mut command = process::clean_command("terraform", dir.path());
            command.args(arguments).current_dir(dir.path());
            // It asks nobody about newer versions of itself, and reads no configuration of its user.
            command
                .env("CHECKPOINT_DISABLE", "1")
                .env("TF_CLI_CONFIG_FILE", "/dev/null");
            Outcome::of(command)
        };
        terraform(&["init", "-input=false"]).expect_code(0);
        terraform(&["validate"]).expect_code(0);
        terraform(&["fmt", "-check"]).expect_code(0);
        let other = "11111111-2222-4333-8444-555555555555";
        let id = format!("agent_id={}", other.to_uppercase());
        let plan = terraform(&["plan", "-input=false", "-no-color", "-var", &id]).expect_code(0);
        assert!(!plan.stdout.contains("mst_"), "{plan}");
        terraform(&["apply", "-input=false", "-auto-approve", "-var", &id]).expect_code(0);
        let user_data = terraform(&["output", "-raw", "user_data"]).expect_code(0).stdout;
        assert!(user_data.contains(&format!("content: \"{other}\\n\"")), "{user_data}");
        assert!(
            user_data.contains("content: \"mst_") && !user_data.contains(ID),
            "{user_data}"
        );
        assert_eq!(keys(&user_data), keys(&printed(&controller, "cloud-init", install)));
        schema(dir.path(), &user_data);

        let bad = terraform(&["plan", "-input=false", "-no-color", "-var", "agent_id=web\"\n- 1"]);
        assert_ne!(bad.code, 0, "an id that is no UUID was taken: {bad}");
    }
}

#[test]
fn the_environment_is_read_by_sh_and_by_the_agent() {
    let controller = Controller::start();
    let text = printed(&controller, "env", &WILD);
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("env"), &text).expect("a file");
    let mut command = process::clean_command("sh", dir.path());
    command.args(["-euc", ". ./env; echo \"$MUSTER_SERVER $MUSTER_AGENT_ID\""]);
    command.current_dir(dir.path());
    let said = Outcome::of(command).expect_code(0).stdout;
    assert_eq!(said, format!("{} {ID}\n", controller.endpoint()));
    // A file of variables for systemd or a container has no quotes and nothing else in it.
    let mut enroll = process::clean_command(binaries::path("muster-agent"), dir.path());
    for line in text.lines() {
        let (name, value) = line.split_once('=').expect("NAME=value");
        assert!(
            name.starts_with("MUSTER_") && !value.is_empty() && !value.contains(['"', '\'', ' ']),
            "{line}"
        );
        enroll.env(name, value);
    }
    fs::write(dir.path().join("agent-id"), ID).expect("a file");
    enroll
        .args(["enroll", "-o", "json", "--state-dir"])
        .arg(dir.path().join("state"));
    enroll.arg("--id-file").arg(dir.path().join("agent-id"));
    let enrolled = Outcome::of(enroll).expect_code(0);
    assert!(enrolled.stdout.contains(ID), "{enrolled}");
}

#[test]
fn a_token_is_printed_raw_for_whoever_sets_machines_up_otherwise() {
    let controller = Controller::start();
    let text = printed(&controller, "raw", &[]);
    assert_eq!(
        (text.lines().count(), text.trim().len()),
        (1, "mst_".len() + 16 + 1 + 64),
        "{text}"
    );
}

/// `cloud-init schema`, which has to be of one opinion.
fn schema(dir: &Path, user_data: &str) {
    if tools::find("cloud-init").is_none() {
        return tools::skipped(
            "user data by cloud-init schema",
            "cloud-init is not installed (Debian: cloud-init)",
        );
    }
    let path = dir.join("user-data");
    fs::write(&path, user_data).expect("a file");
    let mut command = process::clean_command("cloud-init", dir);
    command.args(["schema", "-c"]).arg(&path);
    let outcome = Outcome::of(command).expect_code(0);
    assert_eq!(outcome.stdout.trim(), format!("Valid cloud-config: {}", path.display()));
    assert!(outcome.stderr.is_empty(), "{outcome}");
}

/// The top level of user data.
fn keys(user_data: &str) -> BTreeSet<String> {
    assert!(user_data.starts_with("#cloud-config\n"), "{user_data}");
    assert!(user_data.len() < 16 * 1024);
    let documents = document::parse(user_data).expect("YAML");
    let Value::Map(entries) = &documents[0].value else {
        panic!("no map: {user_data}")
    };
    entries.iter().map(|(key, _)| key.text.clone()).collect()
}
