//! `strace`, by which a test kills a process with SIGKILL at one system call of its choice: before the call, so that what all
//! calls before it did is done and nothing of it. Knows nothing of the programs.
//!
//! Calls are counted for each thread, from the start of the process or from when it was followed.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    Process,
    poll::{self, SECOND},
    process, tools,
};

#[derive(Debug, Clone)]
pub struct Strace {
    program: PathBuf,
    dir: PathBuf,
}

/// A process that is followed from its start, and does not outlive its owner: an strace that is killed would leave it running.
#[derive(Debug)]
pub struct Followed(Process);

impl Followed {
    /// Starts what [`Strace::kill`] gave.
    pub fn start(name: &str, command: Command, log: PathBuf) -> Self {
        Self(Process::start(name, command, log))
    }

    /// Waits for it to be killed.
    ///
    /// # Panics
    /// When it ends in another way, or not at all.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) {
        let status = self.0.wait(patience);
        assert_eq!(status.signal(), Some(9), "{status}\n{}", self.0.output());
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if self.0.is_running() {
            self.0.signal(Signal::TERM);
            let gone = || if self.0.is_running() { Err("it runs") } else { Ok(()) };
            let _ = poll::attempt(10 * SECOND, gone);
        }
    }
}

impl Strace {
    /// `None`, and said so, where it is missing or no process may follow another. `dir` takes what it writes.
    pub fn find(dir: &Path) -> Option<Self> {
        let why = match tools::find("strace") {
            None => "strace is not installed".to_owned(),
            Some(program) => {
                let strace = Self {
                    program,
                    dir: dir.to_owned(),
                };
                let mut probe = strace.command();
                // A process may be followed and not be killed: that is seen by killing one.
                probe.arg("-f").args(rule("exit_group", 1)).arg("true");
                match probe.output() {
                    Ok(output) if output.status.signal() == Some(9) => return Some(strace),
                    Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
                    Err(error) => error.to_string(),
                }
            }
        };
        tools::skipped("processes killed at each of their steps", &why);
        None
    }

    /// `command`, killed at its `nth` call of `call`: a name, or names with commas for what is one thing by several names. Names
    /// that this kernel does not have are left out.
    pub fn kill(&self, command: &Command, call: &str, nth: usize) -> Command {
        self.wrap(command, call, nth, &[])
    }

    /// The same, where only calls count that are about one of these paths.
    pub fn kill_at_path(&self, command: &Command, call: &str, nth: usize, paths: &[PathBuf]) -> Command {
        self.wrap(command, call, nth, paths)
    }

    fn wrap(&self, command: &Command, call: &str, nth: usize, paths: &[PathBuf]) -> Command {
        let mut strace = self.command();
        // Without --seccomp-bpf, with which it sends no signals.
        strace.arg("-f").args(rule(call, nth));
        for path in paths {
            strace.arg("-P").arg(path);
        }
        strace.arg("--").arg(command.get_program()).args(command.get_args());
        let environment = command.get_envs();
        strace.envs(environment.filter_map(|(name, value)| Some((name, value?))));
        strace
    }

    /// Follows a process that runs already, and kills it at the `nth` call from now on of one of its threads.
    pub fn kill_running(&self, process: &Process, call: &str, nth: usize) -> Process {
        let mut strace = self.command();
        strace.arg("-f").args(rule(call, nth));
        strace.arg("-p").arg(process.pid().to_string());
        let log = self.dir.join(format!("strace-{}-{call}-{nth}.log", process.pid()));
        let follower = Process::start("strace", strace, log);
        poll::until("strace follows the process", 20 * SECOND, || {
            let said = follower.output();
            match said.contains("attached") {
                true => Ok(()),
                false => Err(said),
            }
        });
        follower
    }

    fn command(&self) -> Command {
        let mut command = process::clean_command(&self.program, &self.dir);
        command.arg("-o").arg("/dev/null");
        command
    }
}

fn rule(call: &str, nth: usize) -> [String; 4] {
    let calls: Vec<String> = call.split(',').map(|name| format!("?{name}")).collect();
    let calls = calls.join(",");
    let inject = format!("inject={calls}:signal=SIGKILL:when={nth}");
    ["-e".to_owned(), format!("trace={calls}"), "-e".to_owned(), inject]
}
