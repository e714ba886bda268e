//! `muster-agent seal`: makes a machine fit to become an image. What makes it this machine goes; how it is set up stays. Every
//! machine that starts from the image is a new one, and enrolls when it has a token.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use super::{ConfigFile, Seal};
use crate::{
    app::state_failure,
    failure::{Exit, Failure},
    state_dir::StateDir,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    removed: Vec<PathBuf>,
    /// Nothing was removed, it was only looked.
    dry_run: bool,
}

pub(super) fn seal(file: &ConfigFile, args: &Seal) -> Result<ExitCode, Failure> {
    let config = file.load(args.state_dir.as_deref())?;
    let dir = &config.agent.state_dir;
    let state = StateDir::at(dir);
    // Held until all is gone, so that no agent starts with half of it.
    let _lock = match dir.is_dir() {
        true => Some(state.lock().map_err(|error| running(&error))?),
        false => None,
    };
    // By name: a directory that somebody has named by mistake loses nothing else.
    let mut places = state.files();
    places.push(state.queue());
    places.push(config.agent.id_file.clone());
    places.extend(config.server.token_file.clone());
    places.retain(|path| fs::symlink_metadata(path).is_ok());
    if !args.dry_run {
        for path in &places {
            remove(path)?;
        }
    }
    let answer = Answer {
        removed: places,
        dry_run: args.dry_run,
    };
    args.output.print(&answer, || text(&answer))?;
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &Answer) -> String {
    if answer.removed.is_empty() {
        return "nothing of this machine's identity is here".to_owned();
    }
    let word = if answer.dry_run { "would remove" } else { "removed" };
    let lines: Vec<String> = answer
        .removed
        .iter()
        .map(|path| format!("{word} {}", path.display()))
        .collect();
    lines.join("\n")
}

fn remove(path: &Path) -> Result<(), Failure> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("failed to remove {}", path.display()))
        .what("take this machine's identity off it")
        .why(error.to_string())
        .remedy("run the same as root; it may be run again without harm")
}

fn running(error: &crate::state_dir::Error) -> Failure {
    match error {
        crate::state_dir::Error::InUse { .. } => Failure::new(Exit::Conflict, error.to_string())
            .what("take this machine's identity off it")
            .why("the agent is running and would write some of it again")
            .remedy("systemctl stop muster-agent, then run the same again"),
        other => state_failure(other),
    }
}
