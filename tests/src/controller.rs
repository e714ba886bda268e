//! A controller as in production: set up by `muster-server init`, run by `muster-server run`. Not the `dev` command, which
//! is `dev.rs`.

mod backup;
mod standby;

use std::{fs, path::PathBuf, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Ctl, Process, SmallDisk, agent, binaries,
    ctl::Outcome,
    dial,
    poll::{self, SECOND},
    ports,
    postgres::{Database, Server},
    process, tools,
};

pub use backup::Backup;

const PATIENCE: Duration = Duration::from_secs(20);

/// One controller. Its fields are dropped in this order: the process before its database and its directory.
#[derive(Debug)]
pub struct Controller {
    process: Option<Process>,
    pub agents_port: u16,
    pub api_port: u16,
    /// Of the controller's process, beside what every process of a test has.
    pub environment: Vec<(String, String)>,
    database: Option<Database>,
    dir: TempDir,
}

/// What `musterctl token create` gives.
#[derive(Debug, Clone)]
pub struct Token {
    pub secret: String,
    pub pin: String,
    pub endpoint: String,
}

impl Controller {
    /// A running controller with one admin.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same with these lines added to its `server.yaml`.
    pub fn start_with(settings: &str) -> Self {
        let mut controller = Self::set_up(settings);
        controller.run();
        controller
    }

    /// One that does not run yet.
    pub fn set_up(settings: &str) -> Self {
        Self::set_up_by(settings, &[])
    }

    /// The same by `muster-server init` with these further arguments.
    pub fn set_up_by(settings: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::set_up_in(dir, Database::create(), settings, arguments)
    }

    /// One that does not run yet, whose data directory is a small disk; see [`SmallDisk::at`] for its options.
    pub fn set_up_on(options: &str, settings: &str) -> (Self, SmallDisk) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = SmallDisk::at(&dir.path().join("data"), options);
        (Self::set_up_in(dir, Database::create(), settings, &[]), disk)
    }

    /// One that does not run yet, with its database in this PostgreSQL.
    pub fn set_up_at(server: &Server, settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::set_up_in(dir, Some(Database::create_on(server.url())), settings, &[])
    }

    fn set_up_in(dir: TempDir, database: Option<Database>, settings: &str, arguments: &[&str]) -> Self {
        let controller = Self {
            process: None,
            agents_port: ports::free(),
            api_port: ports::free(),
            environment: Vec::new(),
            database,
            dir,
        };
        let mut init = process::clean_command(binaries::path("muster-server"), controller.dir.path());
        init.args([
            "init",
            "--name",
            "controller1",
            "--trust-domain",
            "example.muster",
            "--data-dir",
        ])
        .arg(controller.data_dir())
        .args(["--advertise", &controller.endpoint()])
        .args(arguments);
        if let Some(database) = &controller.database {
            init.env("MUSTER_DATABASE", database.url());
        }
        Outcome::of(init).expect_code(0);

        let config = fs::read_to_string(controller.config()).expect("init writes a config");
        let config = config
            .replace("0.0.0.0:8443", &controller.endpoint())
            .replace("127.0.0.1:9443", &format!("127.0.0.1:{}", controller.api_port));
        fs::write(controller.config(), format!("{config}\n{settings}\n")).expect("the config is written");
        controller.create_admin("tester", "tester.yaml").expect_code(0);
        controller
    }

    /// `muster-server admin create`: the context file is written under this name.
    pub fn create_admin(&self, name: &str, file: &str) -> Outcome {
        let mut command = process::clean_command(binaries::path("muster-server"), self.dir.path());
        command
            .args(["admin", "create", name, "--config"])
            .arg(self.config())
            .arg("--out")
            .arg(self.dir.path().join(file));
        Outcome::of(command)
    }

    /// `muster-server` with these arguments and this controller's config.
    pub fn server(&self, arguments: &[&str]) -> Outcome {
        let mut command = process::clean_command(binaries::path("muster-server"), self.dir.path());
        command.args(arguments).arg("--config").arg(self.config());
        Outcome::of(command)
    }

    /// Starts it and waits until it answers.
    pub fn run(&mut self) {
        self.launch();
        poll::until("the controller answers", PATIENCE, || {
            assert!(self.is_running(), "the controller ended:\n{}", self.log());
            self.ctl().items(&["agent", "list"])
        });
    }

    /// Starts it, as far as that goes.
    pub fn launch(&mut self) {
        let mut command = process::clean_command(binaries::path("muster-server"), self.dir.path());
        command.args(["run", "--config"]).arg(self.config());
        command.envs(self.environment.iter().cloned());
        self.process = Some(Process::start(
            "controller",
            command,
            self.dir.path().join("controller.log"),
        ));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process().kill();
        self.process = None;
    }

    /// In order: TERM, and the end waited for.
    pub fn stop(&mut self) {
        let status = self.process().stop();
        assert!(status.success(), "the controller ended with {status}:\n{}", self.log());
        self.process = None;
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the controller runs")
    }

    /// All that it has said since it was set up.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("controller.log")).unwrap_or_default()
    }

    /// `/metrics`, as an admin sees it.
    pub fn metrics(&self) -> String {
        let pem = self.path("tester.pem");
        fs::write(&pem, dial::operator_pem(&self.path("tester.yaml"))).expect("a file");
        let url = format!("https://{}/metrics", self.api());
        let mut curl = process::clean_command("curl", "/".as_ref());
        curl.args(["--silent", "--show-error", "--insecure", "--fail", &url, "--cert"])
            .arg(&pem);
        Outcome::of(curl).expect_code(0).stdout
    }

    pub fn ctl(&self) -> Ctl {
        self.ctl_as("tester.yaml")
    }

    /// `musterctl` with the context file of this name.
    pub fn ctl_as(&self, file: &str) -> Ctl {
        Ctl::new(self.dir.path().join(file), self.dir.path())
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.data_dir().join("server.yaml")
    }

    /// Of the PostgreSQL database; `None`: SQLite, in the data directory.
    pub fn database_url(&self) -> Option<String> {
        self.database.as_ref().map(Database::url)
    }

    /// Runs a statement in the database of the controller, behind its back. False: there is no program to do that with.
    #[must_use]
    pub fn tamper(&self, statement: &str) -> bool {
        if let Some(database) = &self.database {
            database.execute(statement);
            return true;
        }
        let Some(sqlite) = tools::find("sqlite3") else {
            return false;
        };
        let mut command = process::clean_command(sqlite, self.dir.path());
        command.args(["-bail", "-cmd", ".timeout 10000"]);
        command.arg(self.data_dir().join("control.db")).arg(statement);
        Outcome::of(command).expect_code(0);
        true
    }

    /// Where agents connect.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.agents_port)
    }

    /// Where operators connect.
    pub fn api(&self) -> String {
        format!("127.0.0.1:{}", self.api_port)
    }

    /// A token made with these further arguments.
    pub fn token(&self, arguments: &[&str]) -> Token {
        let all = [&["token", "create", "--ttl", "1h"], arguments].concat();
        let made = self.ctl().json(&all);
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {made}")).to_owned();
        Token {
            secret: text(&made["secret"]),
            pin: text(&made["caPins"][0]),
            endpoint: text(&made["endpoints"][0]),
        }
    }

    /// An agent that is not enrolled yet, with a token of its own.
    pub fn agent(&self, name: &str) -> agent::Setup {
        agent::Setup::new(name, self.token(&["--uses", "1"]))
    }

    /// So many agents that are not enrolled yet, named `<prefix>-<n>` from 1 on, with one token for all.
    pub fn fleet(&self, prefix: &str, count: usize) -> Vec<agent::Setup> {
        let token = self.token(&["--uses", &count.to_string()]);
        (1..=count)
            .map(|n| agent::Setup::new(&format!("{prefix}-{n}"), token.clone()))
            .collect()
    }

    /// Applies manifests, given as text.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> Outcome {
        let path = self.dir.path().join("manifests.yaml");
        fs::write(&path, manifests).expect("the manifests are written");
        self.ctl().ok(&["apply".as_ref(), "-f".as_ref(), path.as_os_str()])
    }

    /// A metric of `/metrics`, by its name and labels; 0 when it is not there.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// A file of the harness beside the controller's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until the agent has this status.
    #[track_caller]
    pub fn wait_for_agent(&self, name: &str, status: &str) -> Value {
        let what = format!("{name} is {status}");
        poll::until(&what, 20 * SECOND, || self.ctl().agent_is(name, status))
    }
}
