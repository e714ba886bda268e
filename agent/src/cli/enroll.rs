//! `muster-agent enroll`: from a token to an identity, as soon as the network is up. Running it again does no harm.

use std::{
    io::{self, Read as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use muster_certs::token::{self, Token};
use muster_proto::{duration, v1};
use serde::Serialize;
use tokio::{sync::watch, time::timeout};

use super::{ConfigFile, Enroll, absolute, token_of_environment};
use crate::{
    app::state_failure,
    config::{self, Config},
    facts::fingerprint,
    failure::{Exit, Failure},
    identity::{self, Enrollment, Identity, Joined, Until, enroll_until},
    state_dir::StateDir,
    status::time,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    agent_id: String,
    trust_domain: String,
    certificate_expires: String,
    /// False: it was enrolled before, and nothing was done.
    enrolled_now: bool,
}

pub(super) fn enroll(file: &ConfigFile, args: Enroll) -> Result<ExitCode, Failure> {
    let config = merge(file, &args)?;
    let state = StateDir::create(&config.agent.state_dir).map_err(|error| state_failure(&error))?;
    if let Some(identity) = load(&state)? {
        // An agent that runs sees to this by itself.
        if let Ok(_lock) = state.lock() {
            finish(&args, &identity, false, &config, &state);
        }
        return answer(&args, &identity, false);
    }
    let _lock = state.lock().map_err(|error| state_failure(&error))?;
    // Whoever had the lock until now may have enrolled.
    let before = load(&state)?;
    let enrolled_now = before.is_none();
    let identity = match before {
        Some(identity) => identity,
        None => attempt(&args, &config, &state)?,
    };
    finish(&args, &identity, enrolled_now, &config, &state);
    answer(&args, &identity, enrolled_now)
}

fn load(state: &StateDir) -> Result<Option<Identity>, Failure> {
    Identity::load(state).map_err(|error| error.failure())
}

fn attempt(args: &Enroll, config: &Config, state: &StateDir) -> Result<Identity, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, "failed to start").why(error.to_string()))?;
    let fingerprint = fingerprint(&format!("{:016x}", rand::random::<u64>()));
    let identity = runtime.block_on(async {
        if args.no_wait {
            let enrollment = Enrollment {
                config,
                state,
                fingerprint,
            };
            return identity::enroll(&enrollment).await.map_err(|error| error.failure());
        }
        attempt_in_time(args, config, state, &fingerprint).await
    });
    // A name server that does not answer holds nobody up.
    runtime.shutdown_background();
    identity
}

async fn attempt_in_time(
    args: &Enroll,
    config: &Config,
    state: &StateDir,
    fingerprint: &v1::Fingerprint,
) -> Result<Identity, Failure> {
    let (_unchanged, mut config) = watch::channel(Arc::new(config.clone()));
    let mut last = None;
    let enrolling = enroll_until(Until::Refused, &mut config, state, fingerprint, |error, delay| {
        let failure = error.failure();
        args.output.complain_for_now(&failure, delay);
        last = Some(failure);
    });
    match timeout(args.timeout, enrolling).await {
        Ok(enrolled) => enrolled.map_err(|error| error.failure()),
        Err(_) => Err(too_late(args.timeout, last)),
    }
}

/// With what was in the way when it was last tried.
fn too_late(patience: Duration, last: Option<Failure>) -> Failure {
    let failure = Failure {
        exit: Exit::Deadline,
        ..last.unwrap_or_else(|| {
            Failure::new(Exit::Deadline, "the controller has not answered")
                .what("enroll this machine")
                .why("there was no answer to the first attempt yet")
                .remedy("give it more time with --timeout; it may be run again without harm")
        })
    };
    Failure {
        summary: format!("not enrolled after {}: {}", duration::format(patience), failure.summary),
        ..failure
    }
}

/// What is left to do on an enrolled machine, also when an earlier attempt was killed before it got here.
fn finish(args: &Enroll, identity: &Identity, enrolled_now: bool, config: &Config, state: &StateDir) {
    identity::enroll::finish(identity, config, state);
    if enrolled_now || !state.joined().exists() && !config.server.endpoints.is_empty() {
        remember(args, config, state);
    }
}

/// Flags over the file. Flags that say how to know the controller replace all that the file says of it.
fn merge(file: &ConfigFile, args: &Enroll) -> Result<Config, Failure> {
    let mut config = file.load(args.state_dir.as_deref())?;
    let server = &mut config.server;
    if !args.servers.is_empty() {
        server.endpoints.clone_from(&args.servers);
    }
    if !args.ca_pins.is_empty() || args.ca_cert.is_some() {
        server.ca_pin.clone_from(&args.ca_pins);
        server.ca_cert = args.ca_cert.as_deref().map(absolute).transpose()?;
    }
    match args.token_file.as_deref() {
        Some(path) if path.as_os_str() == "-" => server.token = Some(token_of_stdin()?),
        Some(path) => server.token_file = Some(absolute(path)?),
        None => server.token = token_of_environment()?,
    }
    if let Some(path) = &args.id_file {
        config.agent.id_file = absolute(path)?;
    }
    if let Some(name) = &args.name {
        config::check_name(name).map_err(|why| {
            Failure::new(Exit::Usage, "the name cannot be used")
                .what("--name")
                .why(why)
        })?;
        config.agent.name.clone_from(name);
    }
    config.agent.labels.extend(args.labels.iter().cloned());
    Ok(config)
}

fn token_of_stdin() -> Result<Token, Failure> {
    let failed = |why: String| {
        Failure::new(Exit::Usage, "no token could be read from standard input")
            .what("learn the token")
            .why(why)
            .remedy("pipe the token, exactly as `musterctl token create` printed it, into this command")
    };
    let mut text = String::new();
    io::stdin()
        .take(token::MAX_BYTES as u64)
        .read_to_string(&mut text)
        .map_err(|error| failed(error.to_string()))?;
    Token::parse(&text).map_err(|error| failed(error.to_string()))
}

/// So that `run` finds the controller without a configuration file. The machine is enrolled whether this works or not.
fn remember(args: &Enroll, config: &Config, state: &StateDir) {
    let joined = Joined {
        endpoints: config.server.endpoints.iter().map(ToString::to_string).collect(),
        ca_pin: config.server.ca_pin.iter().map(ToString::to_string).collect(),
        name: args.name.clone().unwrap_or_default(),
        labels: args.labels.iter().cloned().collect(),
    };
    if let Err(error) = joined.save(&state.joined()) {
        eprintln!(
            "muster-agent: {}; put server.endpoints into agent.yaml",
            crate::dial::causes(&error)
        );
    }
}

fn answer(args: &Enroll, identity: &Identity, enrolled_now: bool) -> Result<ExitCode, Failure> {
    let answer = Answer {
        agent_id: identity.id().to_string(),
        trust_domain: identity.trust().trust_domain().to_string(),
        certificate_expires: time(identity.expires()),
        enrolled_now,
    };
    args.output.print(&answer, || {
        let enrolled = if enrolled_now { "enrolled" } else { "already enrolled" };
        let Answer {
            agent_id,
            trust_domain,
            certificate_expires,
            ..
        } = &answer;
        format!("{enrolled} as agent {agent_id} in {trust_domain}, certificate good until {certificate_expires}")
    })?;
    if enrolled_now {
        eprintln!("next: systemctl start muster-agent, or muster-agent run with the same files");
    }
    Ok(ExitCode::SUCCESS)
}
