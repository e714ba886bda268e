//! The life of the `muster-server` process: command line, logging, configuration, work, exit code. All else is the library.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::Parser;
use muster_server::cli::{Admin, BackupVerb, CaVerb, Cli, ConfigVerb, Output, Verb};
use muster_server::config::{Config, LogFormat, Logging};
use muster_server::{admin, app, backup, clock, dev, doctor, init, logging, signals};
use tikv_jemallocator::Jemalloc;
use tokio_util::task::TaskTracker;

/// For many small buffers that come and go by the ten thousand.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.context("failed to start").and_then(|runtime| {
        let ended = runtime.block_on(run(cli));
        // What is still blocking a thread then, has had its time.
        runtime.shutdown_timeout(std::time::Duration::from_millis(200));
        ended
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("muster-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let filter = cli.log.as_deref();
    let plain = Logging {
        level: tracing::Level::INFO,
        format: LogFormat::Text,
    };
    match cli.verb {
        Verb::Dev(options) => {
            logging::start(plain, filter)?;
            let shutdown = signals::install(&TaskTracker::new())?;
            dev::run(options, shutdown).await?;
        }
        Verb::Run { config } => {
            let config = Config::load(&config)?;
            logging::start(config.logging, filter)?;
            let shutdown = signals::install(&TaskTracker::new())?;
            app::run(config, shutdown).await?;
        }
        Verb::Init(options) => say(init::run(&options, SystemTime::now()).await?),
        Verb::Backup(options) => match (options.verb, options.out) {
            (Some(BackupVerb::Verify { file, passphrase }), _) => {
                say(backup::verify::run(&file, passphrase.path.as_deref())?);
            }
            (None, out) => {
                let out = out.context("--out is missing")?;
                say(backup::take::run(&options.installation, &out, options.passphrase.path.as_deref()).await?);
            }
        },
        Verb::Restore(options) => say(backup::restore::run(&options, clock::now()).await?),
        Verb::Admin(Admin::Create {
            name,
            installation,
            out,
        }) => {
            say(admin::on_host::create(&name, &installation, out.as_deref(), SystemTime::now()).await?);
        }
        Verb::Ca(CaVerb::Import {
            ca_cert,
            ca_key,
            installation,
        }) => say(admin::ca_import::import(
            &installation,
            &ca_cert,
            &ca_key,
            SystemTime::now(),
        )?),
        Verb::Doctor { installation, output } => {
            let report = doctor::run(&installation, SystemTime::now()).await;
            match output {
                Output::Text => say(&report),
                Output::Json => say(report.to_json()),
            }
            if report.has_problems() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Verb::Config(ConfigVerb::Check { config: path }) => {
            Config::load(&path)?;
            say(format_args!("{} is good\n", path.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// To stdout; a reader that has left is no error of ours.
fn say(text: impl Display) {
    use std::io::Write;
    let _ = write!(std::io::stdout(), "{text}");
}
