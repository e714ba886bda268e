//! Machines made by Terraform, with the real program where there is one: an entry before the machine, user data that makes it that
//! agent, nothing new the second time, and nothing left at the end.

use std::{fs, path::Path, process::Command};

use muster_tests::{Controller, agent, ctl::Outcome, process, tools};
use serde_json::Value;

/// Nothing of whoever runs the tests: no credentials, no settings, no plugins from elsewhere.
struct Terraform<'a> {
    controller: &'a Controller,
    folder: String,
}

impl Terraform<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let program = tools::find("terraform").expect("it was found before");
        let mut command = process::clean_command(program, &self.controller.path(""));
        command
            .current_dir(self.controller.path(&self.folder))
            .args(arguments)
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_IN_AUTOMATION", "1")
            .env("TF_CLI_ARGS", "-no-color")
            .env("MUSTER_CONFIG", self.controller.path("tester.yaml"))
            .env("TF_VAR_musterctl", muster_tests::binaries::path("musterctl"));
        command
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, String)]) -> Outcome {
        let mut command = self.command(arguments);
        for (name, value) in variables {
            command.env(format!("TF_VAR_{name}"), value);
        }
        Outcome::of(command)
    }

    fn output(&self, name: &str) -> Value {
        let told = self.run(&["output", "-json", name], &[]).expect_code(0);
        serde_json::from_str(&told.stdout).expect("JSON")
    }
}

/// The files of the repository, to be worked in.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).expect("a copy")),
        }
    }
}

#[test]
fn terraform_makes_agents_once_and_takes_them_back() {
    if tools::find("terraform").is_none() {
        return tools::skipped("machines made by Terraform", "terraform is not installed");
    }
    let controller = Controller::start();
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/terraform");
    copy(&modules, &controller.path("terraform"));
    let module = Terraform {
        controller: &controller,
        folder: "terraform/agents".to_owned(),
    };
    module.run(&["fmt", "-check", "-recursive"], &[]).expect_code(0);
    module.run(&["init", "-input=false"], &[]).expect_code(0);
    module.run(&["test"], &[]).expect_code(0);

    let example = Terraform {
        controller: &controller,
        folder: "terraform/example".to_owned(),
    };
    example.run(&["init", "-input=false"], &[]).expect_code(0);
    let token = controller.token(&["--uses", "5", "--label", "env=prod"]);
    let mut variables = vec![
        ("join_token", token.secret.clone()),
        ("endpoints", format!("[\"{}\"]", controller.endpoint())),
        ("ca_pins", format!("[\"{}\"]", token.pin)),
    ];
    let apply = ["apply", "-auto-approve", "-input=false"];
    example.run(&apply, &variables).expect_code(0);
    let agents = controller
        .ctl()
        .items(&["agent", "list", "-l", "env=prod"])
        .expect("agents");
    let names: Vec<&str> = agents.iter().filter_map(|agent| agent["name"].as_str()).collect();
    assert_eq!(names, ["db-01", "web-01"], "{agents:?}");

    // The second time nothing is new; another token is new in the user data alone.
    let plan = ["plan", "-input=false", "-detailed-exitcode"];
    example.run(&plan, &variables).expect_code(0);
    let token = controller.token(&["--uses", "5", "--label", "env=prod"]);
    variables[0].1 = token.secret.clone();
    let told = example.run(&apply, &variables).expect_code(0);
    assert!(told.stdout.contains("0 added, 0 changed, 0 destroyed"), "{told}");

    // The machine is the agent that was expected.
    let ids = example.output("ids");
    let user_data = example.output("user_data");
    let user_data = user_data["web-01"].as_str().expect("user data");
    assert!(
        user_data.starts_with("#cloud-config\n") && user_data.contains(&variables[0].1),
        "{user_data}"
    );
    let web = agent::Setup::new("web-01", token);
    fs::write(
        web.path("agent-id"),
        format!("{}\n", ids["web-01"].as_str().expect("an id")),
    )
    .expect("a file");
    let _web = web.start();
    controller.wait_for_agent("web-01", "ONLINE");
    let web = controller.ctl().json(&["agent", "get", "web-01"]);
    assert_eq!(web["id"], ids["web-01"], "{web}");

    example
        .run(&["destroy", "-auto-approve", "-input=false"], &variables)
        .expect_code(0);
    let left = controller.ctl().items(&["agent", "list"]).expect("agents");
    assert!(left.is_empty(), "{left:?}");
}
