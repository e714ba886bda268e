//! `musterctl` as a user has it: arguments in; exit code, standard output and standard error out.

use std::{ffi::OsStr, path::PathBuf};

use serde_json::Value;

use crate::{binaries, process};

#[derive(Debug, Clone)]
pub struct Ctl {
    config: PathBuf,
    home: PathBuf,
}

/// What one run of a command line gave.
#[derive(Debug)]
pub struct Outcome {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ctl {
    /// `home` is where it may look for files of its user.
    pub fn new(config: impl Into<PathBuf>, home: impl Into<PathBuf>) -> Self {
        Self {
            config: config.into(),
            home: home.into(),
        }
    }

    /// Runs it with these arguments.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        let mut command = process::clean_command(binaries::path("musterctl"), &self.home);
        command.arg("--config").arg(&self.config).args(arguments);
        Outcome::of(command)
    }

    /// Runs it and expects success.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        self.run(arguments).expect_code(0)
    }

    /// Runs it with `-o json` and gives the document.
    #[track_caller]
    pub fn json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Value {
        self.try_json(arguments).unwrap_or_else(|status| panic!("{status}"))
    }

    /// The same while the controller may be away: the status, for [`crate::poll::until`].
    pub fn try_json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Value, String> {
        let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        all.extend([OsStr::new("-o"), OsStr::new("json")]);
        let outcome = self.run(&all);
        if outcome.code != 0 {
            return Err(outcome.to_string());
        }
        serde_json::from_str(&outcome.stdout).map_err(|error| format!("{outcome}\nnot JSON: {error}"))
    }

    /// The items of a list.
    pub fn items<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Vec<Value>, String> {
        let document = self.try_json(arguments)?;
        document["items"]
            .as_array()
            .cloned()
            .ok_or_else(|| format!("no items in {document}"))
    }

    /// The items of a list whose field at this path (`agentId`, `metadata.name`) has this value.
    pub fn items_with<S: AsRef<OsStr>>(&self, arguments: &[S], path: &str, value: &str) -> Result<Vec<Value>, String> {
        let at = |item: &Value| path.split('.').fold(item.clone(), |item, key| item[key].clone());
        let items = self.items(arguments)?;
        Ok(items.into_iter().filter(|item| at(item) == *value).collect())
    }

    /// The events with this reason, `AGENT_RENEWED_IN_GRACE`.
    pub fn events(&self, reason: &str) -> Result<Vec<Value>, String> {
        self.items_with(&["event", "list"], "reason", reason)
    }

    /// Whether the one agent of this name has this status: `ONLINE`, `OFFLINE`, ...
    pub fn agent_is(&self, name: &str, status: &str) -> Result<Value, String> {
        let agents = self.items(&["agent", "list"])?;
        let agent = agents.iter().find(|agent| agent["name"] == name);
        let agent = agent.ok_or_else(|| format!("no agent {name} among {}", agents.len()))?;
        if agent["status"] == format!("AGENT_STATUS_{status}") {
            Ok(agent.clone())
        } else {
            Err(agent.to_string())
        }
    }

    /// The state of one check on one agent, once it has a result.
    pub fn state(&self, agent: &str, check: &str) -> Result<Value, String> {
        let states = self.items(&["state", "list", "--agent", agent])?;
        let state = states.iter().find(|state| state["check"] == check);
        let state = state.ok_or_else(|| format!("no state of {check} on {agent} among {}", states.len()))?;
        if state["state"] == "CHECK_STATE_PENDING" {
            Err(state.to_string())
        } else {
            Ok(state.clone())
        }
    }
}

impl Outcome {
    /// Runs a command to its end.
    pub fn of(mut command: std::process::Command) -> Self {
        let shown = format!("{command:?}");
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{shown} does not start: {error}"));
        Self {
            command: shown,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Whether a signal ended it.
    pub fn was_killed(&self) -> bool {
        self.code == -1
    }

    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Expects all of these texts on standard error, where a person reads why it did not work.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "'{text}' is not said:\n{self}");
        }
        self
    }

    /// Expects the form of an error for people: what was tried, why it failed, what to do.
    #[track_caller]
    pub fn explains(self) -> Self {
        let has = |word: &str| self.stderr.lines().any(|line| line.trim_start().starts_with(word));
        assert!(
            has("what ") && has("why ") && has("do "),
            "no what, why and do:\n{self}"
        );
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            code,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "{command}\nexit code {code}\n--- stdout\n{stdout}--- stderr\n{stderr}"
        )
    }
}
