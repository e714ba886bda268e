//! Those of `musterctl`.

use std::{fs, net::TcpListener};

use muster_tests::{
    Controller, Ctl, Process, Proxy, binaries,
    ctl::Outcome,
    poll::{self, SECOND},
    ports, process,
    proxy::Fault,
};
use rustix::process::Signal;
use serde_json::json;

/// Each is expected below, by its number.
pub const CODES: &[i32] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 130];

const CHECK: &str = "apiVersion: muster/v1\nkind: Check\nmetadata: { name: load }\nspec: { selector: \"*\", run: { load: { warning: \"9\" } } }\n";

/// One controller for all, and what the situations need of it.
struct Ground {
    controller: Controller,
    ctl: Ctl,
}

impl Ground {
    fn new() -> Self {
        let controller = Controller::start();
        let ctl = controller.ctl();
        let ids = ["1d", "2d", "3d"].map(|first| format!("{first}0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21"));
        for (id, name) in ids.iter().zip(["twin", "twin", "web-01"]) {
            ctl.ok(&["agent", "preregister", "--id", id, "--name", name]);
        }
        Self { controller, ctl }
    }

    /// A file of the ground.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.controller.path(name);
        // As a context file has to be.
        let _ = fs::remove_file(&path);
        muster_certs::file::write_secret(&path, text.as_bytes()).expect("a file");
        path.display().to_string()
    }

    /// The tester's context, changed.
    fn context(&self, name: &str, change: impl FnOnce(String) -> String) -> Ctl {
        let text = fs::read_to_string(self.controller.path("tester.yaml")).expect("a context file");
        self.write(name, &change(text));
        self.controller.ctl_as(name)
    }

    /// That of a controller that is elsewhere.
    fn at(&self, name: &str, port: u16) -> Ctl {
        self.context(name, |text| {
            text.replace(&self.controller.api(), &format!("127.0.0.1:{port}"))
        })
    }

    /// With what is in the way of the process: no context file of its own.
    fn bare(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
        let home = tempfile::tempdir().expect("a directory");
        let mut command = process::clean_command(binaries::path("musterctl"), home.path());
        command.args(arguments).envs(environment.iter().copied());
        Outcome::of(command)
    }
}

#[test]
fn musterctl_ends_with_the_code_that_the_page_names() {
    let ground = Ground::new();
    let (ctl, manifest) = (&ground.ctl, ground.write("load.yaml", CHECK));

    // Done, and asked for something that is no error.
    ctl.run(&["agent", "list"]).expect_code(0);
    ctl.run(&["--help"]).expect_code(0);
    // Failed without a code of its own, and a doctor who has found something.
    let open = ground.context("open.yaml", |text| text);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(ground.controller.path("open.yaml"), mode).expect("a mode");
    open.run(&["agent", "list"]).expect_code(1).explains();
    ground.bare(&["doctor"], &[]).expect_code(1);
    // The command line, a manifest, a selector.
    ctl.run(&["agent", "lst"]).expect_code(2);
    let wrong = ground.write("wrong.yaml", &CHECK.replace("selector", "selctor"));
    ctl.run(&["validate", "-f", &wrong]).expect_code(2).explains();
    ctl.run(&["apply", "-f", &wrong]).expect_code(2).explains();
    ctl.run(&["agent", "list", "-l", "env="]).expect_code(2).explains();
    // A protected context.
    let protected = ground.context("protected.yaml", |text| text);
    let name = protected.json(&["context", "get"])["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    protected.ok(&["context", "protect", &name]);
    protected.run(&["apply", "-f", &manifest]).expect_code(2).explains();
    assert!(
        ctl.items(&["policy", "list"]).expect("policies").is_empty(),
        "nothing was changed"
    );

    // Nobody is there; somebody is whom one side does not trust.
    ground
        .at("away.yaml", ports::free())
        .run(&["agent", "list"])
        .expect_code(3)
        .explains();
    ground.at("away.yaml", ports::free()).run(&["doctor"]).expect_code(3);
    let stranger = Controller::start();
    ground
        .at("stranger.yaml", stranger.api_port)
        .run(&["agent", "list"])
        .expect_code(3)
        .explains();
    // Who takes the connection and says nothing is not reached.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    ground
        .at("silent.yaml", port)
        .run(&["agent", "list", "--timeout", "1s"])
        .expect_code(3)
        .explains();
    // No certificate or key that is on file; something that was not granted.
    let key = ctl.ok(&["apikey", "create", "--role", "viewer", "-o", "name"]).stdout;
    let (id, _) = key.trim().rsplit_once('_').expect("a key");
    let context = ground.controller.path("tester.yaml").display().to_string();
    let by_key = |key: &str| ground.bare(&["--config", &context, "user", "list"], &[("MUSTER_API_KEY", key)]);
    by_key(&format!("{id}_{}", "0".repeat(64))).expect_code(4).explains();
    by_key(key.trim()).expect_code(4).explains().says(&["users.read"]);
    // No such resource.
    ctl.run(&["agent", "get", "nobody"]).expect_code(5).explains();
    ctl.run(&["policy", "delete", "nothing"]).expect_code(5).explains();

    // An answer, of some KiB, that stops on its way; what does not come about.
    let proxy = Proxy::to(&ground.controller.api());
    let through = ground.at("proxy.yaml", proxy.port());
    through.ok(&["role", "permissions"]);
    let whole = proxy.carried().iter().map(|connection| connection.down).max();
    proxy.set(Fault::StallDown(whole.expect("a connection") - 1_000));
    through
        .run(&["role", "permissions", "--timeout", "5s"])
        .expect_code(6)
        .explains();
    let wait = [
        "wait",
        "agent",
        "nobody",
        "--for",
        "online",
        "--allow-missing",
        "--timeout",
        "1s",
    ];
    ctl.run(&wait).expect_code(6).explains();
    // Something would change; nothing would.
    let plan = ["plan", "-f", &manifest, "--exit-code"];
    let kept = ground.controller.path("change.plan").display().to_string();
    ctl.run(&[&plan[..], &["--out", &kept]].concat()).expect_code(7);
    ctl.ok(&["apply", "-f", &manifest]);
    ctl.run(&plan).expect_code(0);
    // A name of several; what is there already; what has changed since it was planned, and since it was read.
    ctl.run(&["agent", "get", "twin"]).expect_code(8).explains();
    let role = ["role", "create", "viewer", "--permission", "agents.read"];
    ctl.run(&role).expect_code(8).explains();
    ctl.run(&["apply", "--plan", &kept])
        .expect_code(8)
        .explains()
        .says(&["PLAN_OUTDATED"]);
    ctl.run(&["agent", "label", "web-01", "a=b", "--revision", "1"])
        .expect_code(8)
        .explains();

    // A log that was cut short.
    let log = ground.controller.path("audit.jsonl").display().to_string();
    ctl.ok(&["audit", "export", "--file", &log]);
    let lines = fs::read_to_string(&log).expect("a log");
    let short: Vec<&str> = lines.lines().take(3).collect();
    let short = ground.write("short.jsonl", &(short.join("\n") + "\n"));
    ctl.run(&["audit", "verify", "--from", &short])
        .expect_code(9)
        .explains();
    // One of two has never enrolled, and cannot come back.
    let enrolled = ground.controller.agent("web-02");
    enrolled.enroll().expect_code(0);
    let some = ctl.run(&["agent", "readmit", "web-01", "web-02"]).expect_code(10);
    assert!(some.stdout.contains("web-02"), "{some}");
    some.explains().says(&["web-01"]);
    ctl.run(&["agent", "readmit", "web-01"]).expect_code(8).explains();
}

#[test]
fn musterctl_that_is_interrupted_ends_with_the_code_for_it() {
    let ground = Ground::new();
    for (arguments, shown) in [
        (&["agent", "watch"][..], "web-01"),
        (
            &["wait", "agent", "nobody", "--for", "online", "--allow-missing"],
            "is not there",
        ),
    ] {
        let mut command = process::clean_command(binaries::path("musterctl"), &ground.controller.path("."));
        command
            .arg("--config")
            .arg(ground.controller.path("tester.yaml"))
            .args(arguments);
        let mut waiting = Process::start(
            "musterctl",
            command,
            ground.controller.path(&format!("{}.log", arguments[0])),
        );
        poll::until("it follows", 20 * SECOND, || match waiting.output() {
            output if output.contains(shown) => Ok(()),
            output => Err(output),
        });
        waiting.signal(Signal::INT);
        assert_eq!(waiting.wait(20 * SECOND).code(), Some(130), "{}", waiting.output());
    }
}

#[test]
fn an_error_for_scripts_has_the_code_that_the_program_ends_with() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    for (arguments, code) in [
        (&["agent", "get", "nobody"][..], 5),
        (&["agent", "lst"], 2),
        (&["agent", "list", "-l", "env="], 2),
        (&["role", "create", "viewer", "--permission", "agents.read"], 8),
    ] {
        let outcome = ctl.run(&[arguments, &["-o", "json"]].concat()).expect_code(code);
        let error: serde_json::Value = serde_json::from_str(&outcome.stderr).expect("one object");
        assert_eq!(error["exitCode"], json!(code), "{outcome}");
    }
}
