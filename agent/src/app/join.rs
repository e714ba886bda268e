//! From a started process to an enrolled agent: loads the identity, or enrolls and keeps trying. How it tries, `identity`
//! knows.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::report::Reporter;
use crate::{
    config::Config,
    identity::{Error, Identity, Until, enroll_until, id_file},
    state_dir::StateDir,
    status::State,
};

/// None when `shutdown` came first. An error when there is nothing to try with.
pub(super) async fn join(
    config: &mut watch::Receiver<Arc<Config>>,
    state: &StateDir,
    fingerprint: &v1::Fingerprint,
    reporter: &Reporter,
    shutdown: &CancellationToken,
) -> Result<Option<Identity>, Error> {
    if let Some(identity) = Identity::load(state)? {
        return Ok(Some(identity));
    }
    let enrolling = enroll_until(Until::Enrolled, config, state, fingerprint, |error, delay| {
        tell(error, delay, reporter);
    });
    let identity = shutdown.run_until_cancelled(enrolling).await.transpose()?;
    if let Some(identity) = &identity {
        tracing::info!(agent.id = %identity.id(), "enrolled");
    }
    Ok(identity)
}

fn tell(error: &Error, delay: Duration, reporter: &Reporter) {
    let failure = error.failure();
    if error.is_transient() {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(why = failure.why, delay_ms, "{}", failure.summary);
    } else {
        // In the text and not a field of its own: a field would stand behind the last line, which people copy.
        let again = format!(
            "it is tried again in {} s, or when the configuration is read again",
            delay.as_secs()
        );
        tracing::error!("{}", failure.clone().remedy(again));
    }
    reporter.board.enter(State::Enrolling, SystemTime::now(), |connection| {
        connection.last_error = format!("{}: {}", failure.summary, failure.why);
    });
    reporter.write();
}

/// What does not fit together but keeps nobody from running.
pub(super) fn warnings(identity: &Identity, config: &Config) -> Vec<String> {
    let path = &config.agent.id_file;
    let warning = match id_file::read(path) {
        Ok(Some(id)) if id != identity.id() => Some(format!(
            "{} holds the id {id}, but this agent is enrolled as {} and stays so",
            path.display(),
            identity.id()
        )),
        Err(id_file::Error::Content { source, .. }) => Some(format!("{}: {source}", path.display())),
        _ => None,
    };
    warning.iter().for_each(|warning| tracing::warn!("{warning}"));
    warning.into_iter().collect()
}
