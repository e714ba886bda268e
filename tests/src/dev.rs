//! `muster-server dev`: the first command of the README, on ports of its own choice.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Ctl, Process, binaries,
    poll::{self, SECOND},
    process,
};

#[derive(Debug)]
pub struct Dev {
    pub process: Process,
    dir: TempDir,
}

impl Dev {
    /// Starts it and waits until it is ready.
    pub fn start() -> Self {
        let dev = Self::launch();
        dev.wait_ready()
    }

    /// Starts it, as far as that goes.
    pub fn launch() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = process::clean_command(binaries::path("muster-server"), dir.path());
        command.args([
            "dev",
            "--agent-listen",
            "127.0.0.1:0",
            "--api-listen",
            "127.0.0.1:0",
            "--data-dir",
        ]);
        command.arg(dir.path().join("data"));
        let process = Process::start("dev", command, dir.path().join("dev.log"));
        Self { process, dir }
    }

    fn wait_ready(mut self) -> Self {
        poll::until("dev is ready", 30 * SECOND, || {
            assert!(self.process.is_running(), "dev ended:\n{}", self.process.output());
            self.endpoints().ok_or_else(|| self.process.output())
        });
        self
    }

    /// `endpoints.json`, once it is there.
    pub fn endpoints(&self) -> Option<Value> {
        let text = fs::read_to_string(self.data_dir().join("endpoints.json")).ok()?;
        // It appears whole: a part of it would be a defect, and no reason to wait.
        Some(serde_json::from_str(&text).expect("endpoints.json is JSON"))
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn ctl(&self) -> Ctl {
        Ctl::new(self.data_dir().join("admin.yaml"), self.home())
    }

    fn home(&self) -> &Path {
        self.dir.path()
    }
}
