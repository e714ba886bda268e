//! Where log lines go and how they look: to stderr, as text or as JSON. The level can change while the agent runs. Which
//! lines there are is up to who writes them.

use std::io::{IsTerminal as _, stderr};

use tracing::Level;
use tracing_subscriber::{
    Layer as _, Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::config::{Format, Logging};

/// Changes the level of the process.
#[derive(Debug, Clone)]
pub struct Handle(reload::Handle<Targets, Registry>);

/// Starts logging, once for the process.
pub fn start(logging: Logging) -> Handle {
    let (filter, handle) = reload::Layer::new(targets(logging.level));
    let lines = fmt::layer().with_writer(stderr);
    let lines = match logging.format {
        Format::Text => lines.with_ansi(stderr().is_terminal()).with_target(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    // Only a second start fails, and then there is logging already.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("(no message)");
        tracing::error!(location, message, "a task panicked; this is a defect of muster-agent");
    }));
    Handle(handle)
}

impl Handle {
    pub fn set_level(&self, level: Level) {
        // Fails only when logging has ended with the process.
        let _ = self.0.reload(targets(level));
    }
}

/// What the libraries have to say is of interest only when it is bad.
fn targets(level: Level) -> Targets {
    let libraries = if level == Level::ERROR {
        LevelFilter::ERROR
    } else {
        LevelFilter::WARN
    };
    Targets::new()
        .with_default(libraries)
        // A check that meets a bad certificate says so in its result.
        .with_target("rustls_platform_verifier", LevelFilter::OFF)
        .with_target("muster_agent", level)
        .with_target("muster_certs", level)
}
