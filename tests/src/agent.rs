//! An agent on this host: its own id, state directory and `agent.yaml`, enrolled and run by the real binary.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Process, binaries, controller::Token, ctl::Outcome, process, tools};

/// The parts of an agent before its first start. A test changes what it is about.
#[derive(Debug)]
pub struct Setup {
    /// `agent.yaml`, as JSON, which YAML takes.
    pub config: Value,
    /// Of the agent's processes, beside what every process of a test has.
    pub environment: Vec<(String, String)>,
    /// A command, with arguments, that runs them; empty: none does.
    pub wrapper: Vec<String>,
    dir: TempDir,
}

#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    setup: Setup,
}

impl Setup {
    pub fn new(name: &str, token: Token) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let config = json!({
            "server": {
                "endpoints": [token.endpoint],
                "ca_pin": [token.pin],
                "token_file": path("join-token"),
            },
            "agent": { "id_file": path("agent-id"), "state_dir": path("state"), "name": name },
        });
        let setup = Self {
            config,
            environment: Vec::new(),
            wrapper: Vec::new(),
            dir,
        };
        setup.write_token(&token.secret);
        setup
    }

    /// On a host whose clock is so far from that of the others: `+1h`, `-400d`. `None`: there is nothing to do that with.
    pub fn with_clock(mut self, offset: &str) -> Option<Self> {
        self.environment = tools::clock(offset)?;
        Some(self)
    }

    /// Connects there instead, for example to a [`crate::Proxy`], and nowhere else, whatever the controller says.
    pub fn through(mut self, endpoint: &str) -> Self {
        self.config["server"]["endpoints"] = json!([endpoint]);
        self.config["allow"]["endpoints"] = json!(false);
        self
    }

    /// Puts the file from which the agent takes its token.
    pub fn write_token(&self, secret: &str) {
        self.write("join-token", secret);
    }

    /// Puts a file beside the agent's, for its eyes only.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).expect("the file is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the mode is set");
    }

    /// What the agent claims for itself.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.config["agent"]["labels"][key] = json!(value);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `muster-agent` with these arguments and this agent's config.
    pub fn command(&self, arguments: &[&str]) -> Command {
        // Renamed into its place: a process of before may be about to read it.
        self.write("agent.yaml.new", &self.config.to_string());
        fs::rename(self.path("agent.yaml.new"), self.path("agent.yaml")).expect("the config is in its place");
        let agent = binaries::path("muster-agent");
        let mut command = match self.wrapper.split_first() {
            None => process::clean_command(agent, self.dir.path()),
            Some((wrapper, its_arguments)) => {
                let mut command = process::clean_command(wrapper, self.dir.path());
                command.args(its_arguments).arg(agent);
                command
            }
        };
        command.args(arguments).arg("--config").arg(self.path("agent.yaml"));
        command.envs(self.environment.iter().cloned());
        command
    }

    /// `muster-agent enroll`, to its end: it waits for the controller.
    pub fn enroll(&self) -> Outcome {
        Outcome::of(self.command(&["enroll"]))
    }

    /// One attempt, however it ends.
    pub fn enroll_once(&self) -> Outcome {
        Outcome::of(self.command(&["enroll", "--no-wait"]))
    }

    /// `muster-agent run`, which enrolls first when it has no identity.
    pub fn start(self) -> Agent {
        let mut agent = Agent {
            process: None,
            setup: self,
        };
        agent.run();
        agent
    }
}

impl Agent {
    pub fn run(&mut self) {
        let command = self.setup.command(&["run"]);
        self.process = Some(Process::start("agent", command, self.setup.path("agent.log")));
    }

    /// In order: TERM, a goodbye to the controller, and the end waited for.
    pub fn stop(&mut self) {
        let status = self.process().stop();
        assert!(status.success(), "the agent ended with {status}:\n{}", self.log());
        self.process = None;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process().kill();
        self.process = None;
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent runs")
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// To change what [`Agent::reload`] puts into effect.
    pub fn setup_mut(&mut self) -> &mut Setup {
        &mut self.setup
    }

    /// Writes `agent.yaml` as it is now, and lets the agent read it.
    pub fn reload(&mut self) {
        self.setup.write("agent.yaml", &self.setup.config.to_string());
        self.process().signal(Signal::HUP);
    }

    /// All that it has said since its first start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.setup.path("agent.log")).unwrap_or_default()
    }

    /// `status.json`, once it is there.
    pub fn status(&self) -> Result<Value, String> {
        let path = self.setup.path("state/status.json");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Its UUID, once it has one.
    pub fn id(&self) -> Result<String, String> {
        let id = fs::read_to_string(self.setup.path("agent-id")).map_err(|error| format!("agent-id: {error}"))?;
        Ok(id.trim().to_owned())
    }

    /// Runs another verb of `muster-agent` on the same host.
    pub fn verb(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.setup.command(arguments))
    }
}
