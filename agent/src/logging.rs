//! Where log lines go and how they look: to stderr, as text or as JSON, and from a level on to the controller as records
//! (`logs`). Levels can change while the agent runs. Which lines there are is up to who writes them.

use std::io::{IsTerminal as _, stderr};

use tracing::{Level, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{DynFilterFn, LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

use crate::{
    config::{Config, Format},
    logs::OwnLog,
};

/// Changes the levels of the process.
#[derive(Debug, Clone)]
pub struct Handle {
    lines: reload::Handle<Targets, Registry>,
    own: OwnLog,
}

/// Starts logging, once for the process.
pub fn start(config: &Config) -> Handle {
    let own = OwnLog::default();
    own.set_level(config.logs.agent);
    let (filter, lines) = reload::Layer::new(targets(config.logging.level));
    let handle = Handle { lines, own };
    let lines = fmt::layer().with_writer(stderr);
    let lines = match config.logging.format {
        Format::Text => lines.with_ansi(stderr().is_terminal()).with_target(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = tracing_subscriber::registry().with(lines.with_filter(filter));
    // Only a second start fails, and then there is logging already.
    let _ = lines.with(own_layer(&handle.own)).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("(no message)");
        tracing::error!(location, message, "a task panicked; this is a defect of muster-agent");
    }));
    handle
}

impl Handle {
    /// Those that can change while the agent runs.
    pub fn follow(&self, config: &Config) {
        // Fails only when logging has ended with the process.
        let _ = self.lines.reload(targets(config.logging.level));
        self.own.set_level(config.logs.agent);
    }

    /// What goes to the controller.
    pub fn own(&self) -> OwnLog {
        self.own.clone()
    }
}

/// Hands lines to `log`, as far as that takes them.
pub(crate) fn own_layer<S>(log: &OwnLog) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let takes = log.clone();
    // Whoever asks for more than this is not asked at all: lines that nobody takes are to cost nothing.
    let filter = DynFilterFn::new(move |metadata, _: &_| takes.takes(metadata)).with_max_level_hint(LevelFilter::INFO);
    log.clone().with_filter(filter)
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
