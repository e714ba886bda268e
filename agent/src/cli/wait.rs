//! `muster-agent wait`: ends when this machine is enrolled, or when time is over. It only looks: enrolling is the agent's.

use std::{io, process::ExitCode, time::Duration};

use muster_proto::duration;
use tokio::time::{Instant, sleep, timeout_at};

use super::{ConfigFile, Wait, WaitFor};
use crate::{
    failure::{Exit, Failure},
    identity::Identity,
    state_dir::StateDir,
    status::{self, State, Status},
};

/// Between two looks at files of the agent.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn wait(file: &ConfigFile, args: &Wait) -> Result<ExitCode, Failure> {
    let config = file.load(args.state_dir.as_deref())?;
    let state = StateDir::at(&config.agent.state_dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, "failed to start").why(error.to_string()))?;
    let came = runtime.block_on(async {
        let end = Instant::now() + args.timeout;
        timeout_at(end, until(&state, args.goal)).await
    });
    match came {
        Ok(Ok(())) => Ok(ExitCode::SUCCESS),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(too_late(&state, args)),
    }
}

async fn until(state: &StateDir, goal: WaitFor) -> Result<(), Failure> {
    while !reached(state, goal)? {
        sleep(PAUSE).await;
    }
    Ok(())
}

/// That there is a whole identity is what "enrolled" means; who may not read it will never know.
fn reached(state: &StateDir, goal: WaitFor) -> Result<bool, Failure> {
    match goal {
        WaitFor::Enrolled => Ok(Identity::load(state).map_err(|error| error.failure())?.is_some()),
        WaitFor::Connected => match status::read(&state.status()) {
            Ok(status) => Ok(status.connection.state == State::Connected && state.is_locked()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::new(
                Exit::Failure,
                "the agent's status is for its own user and root",
            )
            .what(format!("read {}", state.status().display()))
            .why(error.to_string())
            .remedy("run the same with sudo")),
            // Not there yet.
            Err(_) => Ok(false),
        },
    }
}

fn too_late(state: &StateDir, args: &Wait) -> Failure {
    let goal = match args.goal {
        WaitFor::Enrolled => "enrolled",
        WaitFor::Connected => "connected",
    };
    let failure = Failure::new(
        Exit::Deadline,
        format!("not {goal} after {}", duration::format(args.timeout)),
    )
    .what(format!("wait until this machine is {goal}"));
    match status::read(&state.status()) {
        _ if !state.is_locked() => failure
            .why("the agent does not run")
            .remedy("start it:  systemctl start muster-agent")
            .remedy("what it said before:  journalctl -u muster-agent"),
        Ok(status) => failure
            .why(reason(&status))
            .remedy("what it does and why:  muster-agent status, journalctl -u muster-agent"),
        Err(_) => failure
            .why("the agent has not said anything of itself yet")
            .remedy("what it said so far:  journalctl -u muster-agent"),
    }
}

fn reason(status: &Status) -> String {
    match &*status.connection.last_error {
        "" => "the agent runs, and tells of no error".to_owned(),
        error => error.to_owned(),
    }
}
