//! Enrollment: a token and a certificate request for an identity. Everything that must survive a crash is on disk before
//! the call that depends on it, so that a lost reply is repeated with the same key and costs nothing. Tries each endpoint
//! once; when to try again is the caller's business.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use muster_certs::{
    CertificateDer, csr, file,
    identity_file::IdentityFile,
    key::KeyPair,
    pem,
    rustls::ClientConfig,
    tls,
    token::{self, Token},
};
use muster_proto::{ids::AgentId, v1};
use tokio::time::timeout;
use tonic::Status;

use super::{Error, Identity, Trust, id_file};
use crate::{
    config::{Config, Endpoint},
    dial::{self, causes, dial},
    endpoints::{Candidate, Endpoints},
    facts::host_name,
    state_dir::StateDir,
};

/// From the request to its answer, on an open connection.
const CALL: Duration = Duration::from_secs(30);

const CA_BYTES: u64 = 256 * 1024;

/// One wish to enroll; what it needs is read again with every attempt, since somebody may have mended it.
#[derive(Debug)]
pub struct Enrollment<'a> {
    pub config: &'a Config,
    pub state: &'a StateDir,
    pub fingerprint: v1::Fingerprint,
}

/// On success the identity is on disk, and the token file is gone.
pub async fn enroll(enrollment: &Enrollment<'_>) -> Result<Identity, Error> {
    let Enrollment { config, state, .. } = enrollment;
    let token = find_token(config)?;
    let endpoints = Endpoints::load(state);
    let looked_up = endpoints.look_up(config).await;
    let endpoints = endpoints.all(config);
    if endpoints.is_empty() {
        looked_up?;
        return Err(match &config.server.srv {
            Some(name) => Error::NoneNamed(name.clone()),
            None => Error::NoEndpoint,
        });
    }
    let tls = trust_before_enrollment(config)?;
    let id = id_file::read_or_make(&config.agent.id_file)?;
    let key = enroll_key(state)?;
    let request = v1::EnrollRequest {
        token: token.expose().to_string(),
        agent_id: id.to_string(),
        csr: csr::create(&key).map_err(Error::Request)?,
        name: if config.agent.name.is_empty() {
            host_name()
        } else {
            config.agent.name.clone()
        },
        labels: config.agent.labels.clone(),
        fingerprint: Some(enrollment.fingerprint.clone()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let (endpoint, response) = call_first(config, &endpoints, &tls, &request, id).await?;
    let identity = keep(state, &endpoint, id, key, response)?;
    forget(config, state);
    Ok(identity)
}

/// What is left to do once the identity is on disk; done at every start, since a crash may have come between.
pub fn finish(identity: &Identity, config: &Config, state: &StateDir) {
    let Ok(text) = file::read_secret_text(&state.enroll_key(), pem::MAX_BYTES) else {
        return;
    };
    // A key that is not the identity's is that of another enrollment, which is not done yet.
    if KeyPair::from_pem(&text).is_ok_and(|key| key.public_key().der() == identity.file().key().public_key().der()) {
        forget(config, state);
    }
}

fn find_token(config: &Config) -> Result<Token, Error> {
    if let Some(token) = &config.server.token {
        return Ok(token.clone());
    }
    let path = config
        .server
        .token_file
        .as_deref()
        .ok_or(Error::NoToken { path: None })?;
    match file::read_secret_text(path, token::MAX_BYTES) {
        Ok(text) => Token::parse(&text).map_err(|source| Error::Token {
            path: path.to_owned(),
            source,
        }),
        Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Err(Error::NoToken {
            path: Some(path.to_owned()),
        }),
        Err(source) => Err(Error::TokenFile(source)),
    }
}

fn trust_before_enrollment(config: &Config) -> Result<Arc<ClientConfig>, Error> {
    let authorities = match &config.server.ca_cert {
        Some(path) => read_authorities(path).map_err(|why| Error::CaCert {
            path: path.clone(),
            why,
        })?,
        None if config.server.ca_pin.is_empty() => return Err(Error::NoPin),
        None => Vec::new(),
    };
    tls::enrolling(&config.server.ca_pin, &authorities).map_err(Error::Tls)
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(CA_BYTES).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    pem::certificates(&text).map_err(|error| error.to_string())
}

/// The key of an enrollment that was begun before, or a new one that is on disk when this returns.
fn enroll_key(state: &StateDir) -> Result<KeyPair, Error> {
    let path = state.enroll_key();
    match file::read_secret_text(&path, pem::MAX_BYTES) {
        Ok(text) => return KeyPair::from_pem(&text).map_err(|source| Error::Key { path, source }),
        Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::File(error)),
    }
    let key = KeyPair::generate().map_err(|source| Error::Key {
        path: path.clone(),
        source,
    })?;
    file::write_secret(&path, key.to_pem().as_bytes())?;
    Ok(key)
}

/// The answer of the first endpoint that gives one. When none does, the error that says most: a refusal ends the search, a
/// controller that is not trusted says more than one that is not there.
async fn call_first(
    config: &Config,
    endpoints: &[Candidate],
    tls: &Arc<ClientConfig>,
    request: &v1::EnrollRequest,
    id: AgentId,
) -> Result<(Endpoint, v1::EnrollResponse), Error> {
    let mut worst = Error::NoEndpoint;
    for Candidate { endpoint, .. } in endpoints {
        match call(config, endpoint, tls, request, id).await {
            Ok(response) => return Ok((endpoint.clone(), response)),
            Err(error @ Error::Refused { .. }) if !error.is_transient() => return Err(error),
            Err(error) if matches!(worst, Error::NoEndpoint) || worst.is_transient() => worst = error,
            Err(_) => {}
        }
    }
    Err(worst)
}

async fn call(
    config: &Config,
    endpoint: &Endpoint,
    tls: &Arc<ClientConfig>,
    request: &v1::EnrollRequest,
    id: AgentId,
) -> Result<v1::EnrollResponse, Error> {
    let channel = dial(endpoint, &config.server.proxying, tls.clone()).await?;
    let mut client = v1::enrollment_service_client::EnrollmentServiceClient::new(channel);
    let answer = timeout(CALL, client.enroll(request.clone())).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer within 30 s")));
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| Error::Refused {
            endpoint: endpoint.clone(),
            id,
            id_file: config.agent.id_file.clone(),
            problem: Box::new(dial::problem(&status)),
        })
}

/// Checks the answer, then writes it: trust first and identity last, since the identity is what says "enrolled".
fn keep(
    state: &StateDir,
    endpoint: &Endpoint,
    id: AgentId,
    key: KeyPair,
    response: v1::EnrollResponse,
) -> Result<Identity, Error> {
    let useless = |why: String| Error::Answer {
        endpoint: endpoint.clone(),
        why,
    };
    let bundle = response
        .trust_bundle
        .ok_or_else(|| useless("it holds no trust bundle".to_owned()))?;
    let trust = Trust::new(&bundle).map_err(|error| useless(causes(&error)))?;
    let chain = response.certificates.into_iter().map(CertificateDer::from).collect();
    let file = IdentityFile::new(key, chain).map_err(|error| useless(causes(&error)))?;
    let identity = Identity::new(file, trust, state.identity()).map_err(|error| useless(error.to_string()))?;
    if identity.id() != id {
        return Err(useless(format!("it names agent {} instead of {id}", identity.id())));
    }
    // The bundle's roots must make a TLS configuration, or the agent would never connect.
    identity.tls().map_err(|error| useless(causes(&error)))?;

    Trust::save(&bundle, &state.trust())?;
    identity.file.save(&state.identity()).map_err(Error::Identity)?;
    Ok(identity)
}

/// The token has done its work, wherever it came from. The key goes last: while it is there, this is not done.
fn forget(config: &Config, state: &StateDir) {
    if let Some(path) = &config.server.token_file {
        remove(path);
    }
    remove(&state.enroll_key());
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a secret that is no longer needed could not be removed");
        }
        _ => {}
    }
}
