//! Fork: this machine is a copy of another one, and the controller lets it become an agent of its own. The new id and the
//! new key are on disk before the call, so that a lost reply or a crash at any step is mended by doing the same again. What
//! makes the machine the new agent is one rename, that of its identity.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use muster_certs::{CertificateDer, csr, file, identity_file::IdentityFile, key::KeyPair, pem, rustls::ClientConfig};
use muster_proto::{error::Problem, ids::AgentId, v1};
use tokio::time::timeout;
use tonic::Status;

use super::{Error, Identity};
use crate::{
    config::{Config, Endpoint},
    dial::{self, causes, dial},
    facts::host_name,
    state_dir::StateDir,
};

/// From the request to its answer, on an open connection.
const CALL: Duration = Duration::from_secs(30);

/// A copy and what it needs to become an agent.
#[derive(Debug)]
pub struct Fork<'a> {
    pub config: &'a Config,
    pub state: &'a StateDir,
    /// That of the agent it is a copy of.
    pub identity: &'a Identity,
    /// Shows that identity.
    pub tls: &'a Arc<ClientConfig>,
    pub fingerprint: &'a v1::Fingerprint,
}

/// Whether a refusal is an invitation to fork.
pub fn is_offered(problem: &Problem) -> bool {
    problem.reason == v1::ErrorReason::CloneDetected
        && problem
            .metadata
            .get("on_clone")
            .is_some_and(|on_clone| on_clone == "fork")
}

/// On success the identity on disk is that of the new agent; what runs has to be started anew with it.
pub async fn fork(fork: &Fork<'_>, endpoint: &Endpoint) -> Result<AgentId, Error> {
    let Fork { config, state, .. } = fork;
    let (id, key) = prepare(state)?;
    let request = v1::ForkRequest {
        agent_id: id.to_string(),
        csr: csr::create(&key).map_err(Error::Request)?,
        name: if config.agent.name.is_empty() {
            host_name()
        } else {
            config.agent.name.clone()
        },
        labels: config.agent.labels.clone(),
        fingerprint: Some(fork.fingerprint.clone()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let channel = dial(endpoint, &config.server.proxying, fork.tls.clone()).await?;
    let mut client = v1::enrollment_service_client::EnrollmentServiceClient::new(channel);
    let answer = timeout(CALL, client.fork(request)).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer within 30 s")));
    let response = answer.map_err(|status| Error::Refused {
        endpoint: endpoint.clone(),
        id,
        id_file: config.agent.id_file.clone(),
        problem: Box::new(dial::problem(&status)),
    })?;
    let response = response.into_inner();
    let useless = |why: String| Error::Answer {
        endpoint: endpoint.clone(),
        why,
    };
    let chain = response.certificates.into_iter().map(CertificateDer::from).collect();
    let file = IdentityFile::new(key, chain).map_err(|error| useless(causes(&error)))?;
    // It trusts whom the agent trusts that it is a copy of.
    let trust = fork.identity.trust().clone();
    let identity = Identity::new(file, trust, state.identity()).map_err(|error| useless(error.to_string()))?;
    if identity.id() != id {
        return Err(useless(format!("it names agent {} instead of {id}", identity.id())));
    }
    identity.tls().map_err(|error| useless(causes(&error)))?;

    // A renewal of the other identity that has begun would be taken up again by the next start.
    remove(&state.next_identity());
    identity.file.save(&state.identity()).map_err(Error::Identity)?;
    finish(&identity, config, state);
    Ok(id)
}

/// What is left to do once the identity is that of the new agent; done at every start, since a crash may have come between.
pub fn finish(identity: &Identity, config: &Config, state: &StateDir) {
    let Ok(Some(id)) = read_id(&state.fork_id()) else {
        return;
    };
    if id != identity.id() {
        // The answer has not come yet.
        return;
    }
    let id_file = &config.agent.id_file;
    if let Err(error) = file::write_public(id_file, format!("{id}\n").as_bytes()) {
        tracing::warn!(
            path = %id_file.display(),
            error = &error as &dyn std::error::Error,
            "this machine is agent {id} now, but its id file cannot say so"
        );
    }
    remove(&state.fork_key());
    remove(&state.fork_id());
}

/// The id and key of a fork that was begun before, or new ones that are on disk when this returns.
fn prepare(state: &StateDir) -> Result<(AgentId, KeyPair), Error> {
    let id = match read_id(&state.fork_id())? {
        Some(id) => id,
        None => {
            // A key without an id is that of another fork.
            remove(&state.fork_key());
            let id = AgentId::random();
            file::write_secret(&state.fork_id(), format!("{id}\n").as_bytes())?;
            id
        }
    };
    let path = state.fork_key();
    match file::read_secret_text(&path, pem::MAX_BYTES) {
        Ok(text) => {
            let key = KeyPair::from_pem(&text).map_err(|source| Error::Key { path, source })?;
            return Ok((id, key));
        }
        Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::File(error)),
    }
    let key = KeyPair::generate().map_err(|source| Error::Key {
        path: path.clone(),
        source,
    })?;
    file::write_secret(&path, key.to_pem().as_bytes())?;
    Ok((id, key))
}

/// None when there is none, or none that can be read: then nothing was asked with it.
fn read_id(path: &Path) -> Result<Option<AgentId>, Error> {
    match file::read_secret_text(path, 64) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(file::Error::TooLong { .. } | file::Error::NotText { .. }) => Ok(None),
        Err(error) => Err(Error::File(error)),
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a file that is no longer needed could not be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    #[test]
    fn a_fork_that_is_begun_again_asks_with_the_same_id_and_key() {
        let (_dir, state) = state();
        let (id, key) = prepare(&state).unwrap();
        let (again, same) = prepare(&state).unwrap();
        assert_eq!(id, again);
        assert_eq!(key.to_pem(), same.to_pem());
    }

    #[test]
    fn a_crash_before_the_key_was_written_keeps_the_id() {
        let (_dir, state) = state();
        let (id, _) = prepare(&state).unwrap();
        fs::remove_file(state.fork_key()).unwrap();
        assert_eq!(prepare(&state).unwrap().0, id);
    }

    #[test]
    fn an_id_that_cannot_be_read_takes_its_key_with_it() {
        let (_dir, state) = state();
        let (id, key) = prepare(&state).unwrap();
        file::write_secret(&state.fork_id(), b"seven\n").unwrap();
        let (other, new) = prepare(&state).unwrap();
        assert_ne!(id, other);
        assert_ne!(key.to_pem(), new.to_pem());
    }

    #[test]
    fn only_a_clone_that_may_fork_is_offered_to() {
        let problem = |reason, on_clone: &str| {
            Problem::new(tonic::Code::AlreadyExists, reason, "x").with_metadata("on_clone", on_clone)
        };
        assert!(is_offered(&problem(v1::ErrorReason::CloneDetected, "fork")));
        assert!(!is_offered(&problem(v1::ErrorReason::CloneDetected, "refuse")));
        assert!(!is_offered(&problem(v1::ErrorReason::SessionReplaced, "fork")));
    }
}
