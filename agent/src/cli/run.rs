//! `muster-agent run`: the life of the agent as a process, with its signals.

use std::{process::ExitCode, sync::Arc};

use tokio::{
    pin, select,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{ConfigFile, Run, token_of_environment};
use crate::{
    app,
    config::Config,
    failure::{Exit, Failure},
    logging,
};

/// What a shell says of a process that ended by SIGINT.
const INTERRUPTED: u8 = 130;

pub(super) fn run(file: ConfigFile, args: Run) -> Result<ExitCode, Failure> {
    let source = Source { file, args };
    let config = source.load()?;
    let logging = logging::start(&config);
    // One thread is plenty for one link and some checks, and costs the least memory.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, "failed to start").why(error.to_string()))?
        .block_on(serve(source, config, logging))
}

/// Where the configuration comes from, each time it is read.
struct Source {
    file: ConfigFile,
    args: Run,
}

impl Source {
    fn load(&self) -> Result<Config, Failure> {
        let mut config = self.file.load(self.args.state_dir.as_deref())?;
        config.server.token = token_of_environment()?;
        Ok(config)
    }
}

async fn serve(source: Source, config: Config, logging: logging::Handle) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Failure, "failed to handle signals").why(error.to_string());
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;

    let path = source.file.path();
    let file = if path.exists() {
        path.display().to_string()
    } else {
        "none".to_owned()
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = file, "starting");
    warn(&config);
    let shutdown = CancellationToken::new();
    let (sender, receiver) = watch::channel(Arc::new(config));
    let app = app::run_reloading(receiver, logging.own(), shutdown.clone());
    pin!(app);
    loop {
        select! {
            result = &mut app => {
                tracing::info!("stopped");
                return result.map(|()| ExitCode::SUCCESS).map_err(|error| error.failure());
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {
                reload(&source, &sender, &logging);
                continue;
            }
        }
        if shutdown.is_cancelled() {
            tracing::warn!("stopping at once");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        tracing::info!("stopping");
        shutdown.cancel();
    }
}

/// A configuration that cannot be read changes nothing.
fn reload(source: &Source, current: &watch::Sender<Arc<Config>>, logging: &logging::Handle) {
    match source.load() {
        Ok(config) => {
            for key in app::needs_restart(&current.borrow(), &config) {
                tracing::warn!(key, "this change takes effect when the agent is restarted");
            }
            warn(&config);
            logging.follow(&config);
            current.send_replace(Arc::new(config));
            tracing::info!("the configuration was read again");
        }
        Err(failure) => tracing::error!("the configuration was not read again, the old one stays\n{failure}"),
    }
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}
