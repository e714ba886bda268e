//! The swarm: a fleet of simulated agents in one process, for sizing and for the figures of the link. Real connections, real
//! certificates, the sessions and queues of the real agent; checks are not run, results are made up. At the end it asks the
//! controller's API what has arrived, and accounts for every record. `docs/sizing.md` is its page.

mod account;
mod agent;
mod ask;
mod chaos;
pub mod cli;
mod enrolling;
pub mod figure;
mod figures;
mod fleet;
mod floor;
pub mod latency;
mod policies;
mod progress;
mod run;
mod target;
mod traffic;
pub mod usage;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

pub use run::Outcome;

use self::{
    cli::{Cli, Command, RunArgs},
    figure::rounded,
    target::Target,
};

/// The program `swarm`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    raise_limit();
    let done = match &cli.command {
        None => swarm(&cli.run),
        Some(Command::Floor(args)) => floor_alone(args.agents as usize),
        Some(Command::Figures(args)) => figures::measure(args),
        Some(Command::EchoServer) => return echo_server(),
    };
    match done {
        Ok(outcome) => {
            println!("{:#}", outcome.document);
            ExitCode::from(u8::from(!outcome.is_right))
        }
        Err(error) => failed(&error),
    }
}

/// One run, on a controller that is there or on one of its own.
///
/// # Errors
/// When the controller, or the floor, does not answer.
pub fn swarm(args: &RunArgs) -> anyhow::Result<Outcome> {
    let floor = match args.floor {
        true => Some(floor_alone(args.fleet.agents as usize)?.document),
        false => None,
    };
    let mut target = Target::open(&args.target, args.fleet.agents)?;
    let mut outcome = runtime()?.block_on(run::run(args, &mut target))?;
    if let Some(floor) = floor {
        outcome.document["ratio_to_floor"] = ratios(&outcome.document, &floor);
        outcome.document["floor"] = floor;
    }
    Ok(outcome)
}

fn floor_alone(links: usize) -> anyhow::Result<Outcome> {
    let document = runtime()?.block_on(floor::measure(links))?;
    Ok(Outcome {
        document,
        is_right: true,
    })
}

fn echo_server() -> ExitCode {
    let served = runtime()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(floor::serve()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// What the controller needs of what nobody can do without.
fn ratios(run: &Value, floor: &Value) -> Value {
    let ratio = |of: &Value, to: &str| Some(rounded(of.as_f64()? / floor[to].as_f64().filter(|floor| *floor > 0.0)?));
    json!({
        "memory_idle": ratio(&run["memory_idle"]["kib_per_link"], "kib_per_link_idle"),
        "memory_after_traffic": ratio(&run["memory_after_traffic"]["kib_per_link"], "kib_per_link_after_traffic"),
        "connects_per_cpu_second": ratio(&run["connect"]["per_cpu_second"], "connects_per_cpu_second"),
        "cold_restart_links_per_cpu_second":
            ratio(&run["cold_restart"]["links_per_cpu_second"], "connects_per_cpu_second"),
        "broadcast_to_last_answer": ratio(&run["broadcast"]["to_last_answer_s"], "broadcast_to_last_answer_s"),
        "broadcast_cpu": ratio(&run["broadcast"]["cpu_us_per_agent"], "broadcast_cpu_us_per_link"),
    })
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("swarm: {error:#}");
    ExitCode::from(2)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// As many open files as the system lets a process have: each link is one.
fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer there are fewer links, which is told then.
    let _ = setrlimit(Resource::Nofile, limit);
}
