//! Another machine on this host: a mount namespace with a machine id and a boot id of its own.

use std::{fs, path::Path, process::Command};

use muster_tests::{Process, agent::Setup, binaries, process, tools};

/// What tells a machine from others.
pub struct Machine {
    pub machine_id: &'static str,
    pub boot_id: &'static str,
}

/// `muster-agent run` on that machine; none where this host does not let a test make one.
pub fn run(setup: &Setup, machine: &Machine) -> Option<Process> {
    fs::write(setup.path("machine-id"), format!("{}\n", machine.machine_id)).expect("a file");
    fs::write(setup.path("boot-id"), format!("{}\n", machine.boot_id)).expect("a file");
    fs::write(setup.path("agent.yaml"), setup.config.to_string()).expect("the config is written");
    let is_possible = tools::find("unshare").is_some()
        && Path::new("/etc/machine-id").exists()
        && on_machine(setup, "true").status().is_ok_and(|status| status.success());
    if !is_possible {
        tools::skipped("an image on another machine", "no mount namespaces here (needs root)");
        return None;
    }
    let command = on_machine(setup, "exec \"$2\" run --config \"$1/agent.yaml\"");
    Some(Process::start("machine", command, setup.path("agent.log")))
}

/// A script with the files of `setup` in the place of the kernel's and the distribution's.
fn on_machine(setup: &Setup, script: &str) -> Command {
    let mounts = "set -e; mount --bind \"$1/machine-id\" /etc/machine-id; \
                  mount --bind \"$1/boot-id\" /proc/sys/kernel/random/boot_id; ";
    let dir = setup.path("");
    let mut command = process::clean_command("unshare", &dir);
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("{mounts}{script}"))
        .arg("sh")
        .arg(&dir)
        .arg(binaries::path("muster-agent"));
    command
}
