//! Where log lines go and how they look: to stderr, as text or as JSON. Which lines there are is up to who writes them.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogFormat, Logging};

/// Starts logging, once for the process. `filter` overrides the level with a list like `info,muster_server::net=debug`.
pub fn start(logging: Logging, filter: Option<&str>) -> Result<(), Error> {
    let level = logging.level.to_string().to_lowercase();
    // What the libraries have to say is of interest only when it is bad, or when it is asked for by name.
    let libraries = if logging.level == tracing::Level::ERROR {
        "error"
    } else {
        "warn"
    };
    // A check that meets a bad certificate says so in its result.
    let default = format!(
        "{libraries},rustls_platform_verifier=off,muster_server={level},muster_agent={level},muster_certs={level}"
    );
    let filter = EnvFilter::try_new(filter.unwrap_or(&default)).map_err(|source| Error::Filter(source.to_string()))?;
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    let started = match logging.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| Error::Twice)?;
    log_panics();
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not a log filter: {0}")]
    Filter(String),
    #[error("logging was started before")]
    Twice,
}

/// A panic ends its task, and nothing else; what it was must be in the log.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("(no message)");
        tracing::error!(location, message, "a task panicked; this is a defect of muster-server");
    }));
}
