//! Machines that set themselves up with what was printed: the real cloud-init, the real sh and the real agent, on the file
//! system of this host under a layer of its own. There is no systemd in there: a script takes its place and starts what the
//! real unit says.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use muster_tests::{Controller, IsolatedRoot, binaries, ctl::Outcome, tools};
use serde_json::Value;

use super::{ID, printed};

/// What the commands ask of systemd: starts the `ExecStart=` of the unit, with the folders that the unit names.
const SYSTEMCTL: &str = r#"#!/bin/sh
start() {
  unit=/etc/systemd/system/muster-agent.service
  [ -e "$unit" ] || unit=/usr/lib/systemd/system/muster-agent.service
  exec_start=$(sed -n 's/^ExecStart=//p' "$unit") && [ -n "$exec_start" ] || exit 5
  mkdir -p -m 0755 /etc/muster && mkdir -p -m 0700 /var/lib/muster-agent
  [ -s /run/agent.pid ] && kill -0 "$(cat /run/agent.pid)" 2>/dev/null && return
  setsid $exec_start >>/run/agent.log 2>&1 </dev/null &
  echo $! >/run/agent.pid
}
case "$*" in
  daemon-reload | "enable muster-agent") ;;
  "enable --now muster-agent") start ;;
  "restart muster-agent")
    if [ -s /run/agent.pid ]; then kill "$(cat /run/agent.pid)" && rm /run/agent.pid; fi
    start
    ;;
  *) echo "systemctl $*: nobody was to ask for this" >&2; exit 1 ;;
esac
"#;

/// Of this machine, cloud-init is to do what the user data says, and not to grow its disks.
const CLOUD_CFG: &str = "datasource_list: [NoCloud, None]\nnetwork: { config: disabled }\n\
    cloud_init_modules: [write-files]\ncloud_config_modules: [runcmd]\ncloud_final_modules: [scripts-user, final-message]\n";

const BOOT: &str = "\
cloud-init init --local >/run/boot.log 2>&1
cloud-init init >>/run/boot.log 2>&1
cloud-init modules --mode=config >>/run/boot.log 2>&1
cloud-init modules --mode=final >>/run/boot.log 2>&1
cloud-init status --long
";

/// What became of the machine.
const LOOK: &str = "\
echo \"id $(cat /etc/muster/agent-id)\"
[ ! -e /etc/muster/join-token ] || echo token is left
stat -c 'mode %a' /var/lib/muster-agent/identity.pem
muster-agent wait --for=connected --timeout 30s || cat /run/agent.log
muster-agent status -o json >/run/status.json && tr -d '\\n' </run/status.json
";

/// A machine whose image has the agent and its unit, or has neither.
fn machine(what: &str, has_agent: bool) -> Option<IsolatedRoot> {
    let root = IsolatedRoot::new(what)?;
    root.file("/usr/bin/systemctl", 0o755, SYSTEMCTL);
    if has_agent {
        root.program("/usr/bin/muster-agent", &binaries::path("muster-agent"));
        let unit = fs::read_to_string(binaries::workspace().join("deploy/systemd/muster-agent.service"));
        root.file(
            "/usr/lib/systemd/system/muster-agent.service",
            0o644,
            unit.expect("the unit"),
        );
    }
    Some(root)
}

fn seed(root: &IsolatedRoot, user_data: &str) {
    let seed = "/var/lib/cloud/seed/nocloud";
    root.file(
        &format!("{seed}/meta-data"),
        0o644,
        "instance-id: i-0001\nlocal-hostname: web-01\n",
    );
    root.file(&format!("{seed}/user-data"), 0o600, user_data);
    root.file("/etc/cloud/cloud.cfg.d/99-machine.cfg", 0o644, CLOUD_CFG);
}

#[track_caller]
fn assert_enrolled(controller: &Controller, outcome: &Outcome) {
    let says = |text: &str| assert!(outcome.stdout.contains(text), "'{text}' is not said:\n{outcome}");
    says(&format!("id {ID}\n"));
    says("mode 600\n");
    assert!(!outcome.stdout.contains("token is left"), "{outcome}");
    let agents = controller.ctl().items(&["agent", "list"]).expect("agents");
    let ids: Vec<&Value> = agents.iter().map(|agent| &agent["id"]).collect();
    assert_eq!(ids, [ID], "{outcome}");
    assert!(outcome.stdout.contains(ID), "{outcome}");
}

#[test]
fn a_machine_that_boots_with_user_data_is_an_agent_with_the_injected_id() {
    let what = "user data executed by cloud-init";
    if tools::find("cloud-init").is_none() {
        return tools::skipped(what, "cloud-init is not installed (Debian: cloud-init)");
    }
    let Some(root) = machine(what, true) else { return };
    let controller = Controller::start();
    seed(
        &root,
        &printed(&controller, "cloud-init", &["--description", "it's a \"$machine\""]),
    );
    let outcome = root.run(&format!("{BOOT}{LOOK}")).expect_code(0);
    assert!(outcome.stdout.contains("status: done"), "{outcome}");
    assert_enrolled(&controller, &outcome);
}

#[test]
fn cloud_init_status_says_so_when_a_machine_did_not_enroll() {
    let what = "user data that fails, executed by cloud-init";
    if tools::find("cloud-init").is_none() {
        return tools::skipped(what, "cloud-init is not installed (Debian: cloud-init)");
    }
    let Some(root) = machine(what, true) else { return };
    let controller = Controller::start();
    let user_data = printed(&controller, "cloud-init", &[]).replace("\"5m\"", "\"3s\"");
    let token = controller.ctl().items(&["token", "list"]).expect("tokens")[0]["id"].clone();
    controller
        .ctl()
        .ok(&["token", "revoke", token.as_str().expect("an id")]);
    seed(&root, &user_data);
    let outcome = root.run(BOOT);
    assert!(outcome.stdout.contains("status: error"), "{outcome}");
    assert!(controller.ctl().items(&["agent", "list"]).expect("agents").is_empty());
}

#[test]
fn the_script_makes_a_machine_an_agent_and_leaves_it_as_it_is_the_second_time() {
    let Some(root) = machine("the script executed by sh", true) else {
        return;
    };
    let controller = Controller::start();
    root.file("/join.sh", 0o600, printed(&controller, "shell", &[]));
    let commands = format!(
        "set -eu\nsh /join.sh\ncksum /etc/muster/* /var/lib/muster-agent/identity.pem >/run/before\nsh /join.sh\n\
         cksum /etc/muster/* /var/lib/muster-agent/identity.pem >/run/after\ncmp /run/before /run/after\n{LOOK}"
    );
    assert_enrolled(&controller, &root.run(&commands).expect_code(0));
}

#[test]
fn the_script_installs_the_program_with_the_right_hash_and_no_other() {
    let Some(root) = machine("a program from a URL", false) else {
        return;
    };
    let controller = Controller::start();
    let agent = binaries::path("muster-agent");
    let sum = Outcome::of({
        let mut command = muster_tests::process::clean_command("sha256sum", "/".as_ref());
        command.arg(&agent);
        command
    });
    let sha256 = sum.stdout.split(' ').next().expect("a hash").to_owned();
    let url = serve(fs::read(&agent).expect("the agent"));
    let install = |sha256: &str| printed(&controller, "shell", &["--install", &url, "--sha256", sha256]);

    root.file("/join.sh", 0o600, install(&"ab".repeat(32)));
    let outcome = root.run("sh /join.sh; code=$?; ls -A /usr/bin | grep muster-agent; exit $code\n");
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(
        outcome.stderr.contains("nothing was installed") && outcome.stdout.is_empty(),
        "{outcome}"
    );

    root.file("/join.sh", 0o600, install(&sha256));
    let outcome = root.run(&format!("set -eu\nsh /join.sh\n{LOOK}")).expect_code(0);
    assert_enrolled(&controller, &outcome);
}

/// A URL that gives these bytes to whoever asks.
fn serve(body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/muster-agent", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&body);
        }
    });
    url
}
