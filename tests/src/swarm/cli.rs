//! What can be asked of the swarm.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_certs::pin::Pin;
use muster_proto::duration;

const AFTER_HELP: &str = "\
Examples:
  swarm --start-controller --agents 1000 --profile mixed --duration 5m
        a controller of its own on this machine, thrown away afterwards

  musterctl token create --uses 2000 --ttl 1h --ephemeral 10m
  swarm --controller muster.example.com:8443 --pin sha256:... --token-file token \\
        --context ~/.config/muster/config.yaml --agents 2000 --profile checks
        a controller that is there; its agents are deleted ten minutes after they have left

  swarm --start-controller --agents 500 --profile checks --cut 1 --restart-controller 30s
        what is lost when links are cut and the controller is killed: nothing

Prints one JSON document on standard output, and on standard error how far it is. Ends with 1 when a record was lost or stored
twice, or an agent declared offline that was not. docs/sizing.md says what the figures mean.";

/// A fleet of simulated agents, for sizing a controller: real links, real certificates, made-up results
#[derive(Debug, Parser)]
#[command(name = "swarm", version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    pub run: RunArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure what the least is that links can cost on this machine: a bare echo over the same TLS and HTTP/2
    Floor(FloorArgs),
    /// Measure all figures of the link, three times each, on controllers of its own
    Figures(FiguresArgs),
    /// The other end of `floor`
    #[command(hide = true)]
    EchoServer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Heartbeats only.
    Idle,
    /// Metrics: --series each --metrics-interval.
    Metrics,
    /// Results: --checks a minute.
    Checks,
    /// Results and metrics.
    Mixed,
    /// Logs: five lines each --logs-interval.
    Logs,
    /// Results, metrics and logs.
    All,
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Profile::Idle => "idle",
            Profile::Metrics => "metrics",
            Profile::Checks => "checks",
            Profile::Mixed => "mixed",
            Profile::Logs => "logs",
            Profile::All => "all",
        }
    }

    pub fn has_metrics(self) -> bool {
        matches!(self, Profile::Metrics | Profile::Mixed | Profile::All)
    }

    pub fn has_checks(self) -> bool {
        matches!(self, Profile::Checks | Profile::Mixed | Profile::All)
    }

    pub fn has_logs(self) -> bool {
        matches!(self, Profile::Logs | Profile::All)
    }
}

#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub fleet: FleetArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub chaos: ChaosArgs,
    /// Measure the floor too, and give the figures as multiples of it
    #[arg(long, help_heading = "Measuring")]
    pub floor: bool,
    /// Send one frame to all agents, by a change of a policy, and time it until all have answered
    #[arg(long, help_heading = "Measuring")]
    pub broadcast: bool,
    /// Kill the controller once with kill -9, start it again, and time it until all agents are back; only with
    /// --start-controller
    #[arg(long, help_heading = "Measuring", requires = "start_controller")]
    pub cold_restart: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Controller")]
pub struct TargetArgs {
    /// Start a controller for this run, on this machine, with a database of its own
    #[arg(long, conflicts_with_all = ["controller", "pin", "token_file", "context"])]
    pub start_controller: bool,
    /// Lines for the server.yaml of that controller
    #[arg(long, value_name = "FILE", requires = "start_controller")]
    pub settings: Option<PathBuf>,
    /// Where agents connect to the controller
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "start_controller")]
    pub controller: Option<String>,
    /// What the controller is known by; may be repeated
    #[arg(long, value_name = "PIN", required_unless_present = "start_controller")]
    pub pin: Vec<Pin>,
    /// A token with as many uses as there are agents
    #[arg(long, value_name = "FILE", required_unless_present = "start_controller")]
    pub token_file: Option<PathBuf>,
    /// The context file of an admin, to ask the API what has arrived and to assign checks
    #[arg(long, value_name = "FILE", required_unless_present = "start_controller")]
    pub context: Option<PathBuf>,
    /// The controller's process, when it runs on this machine: its CPU and memory are measured then
    #[arg(long, value_name = "PID", conflicts_with = "start_controller")]
    pub pid: Option<u32>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fleet")]
pub struct FleetArgs {
    /// How many agents
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub agents: u32,
    /// How many source addresses 127.0.0.x they have, for a controller on a loopback address [default: one for 200 agents]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=250))]
    pub sources: Option<u8>,
    /// Agents connect one after the other within this time [default: 1s for 250 agents]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub ramp: Option<Duration>,
    /// Keep the queues of the agents in this directory, as real agents do, and not in memory; up to 2,000 agents
    #[arg(long, value_name = "DIR")]
    pub disk_spool: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// What agents report
    #[arg(long, value_enum, default_value_t = Profile::Mixed)]
    pub profile: Profile,
    /// How long they do
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration::parse)]
    pub duration: Duration,
    /// Series of metrics of each agent
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub series: u32,
    /// How often each agent reports its metrics
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = positive)]
    pub metrics_interval: Duration,
    /// Results of each agent a minute, of as many checks
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub checks: u32,
    /// How often each agent reports lines of a log
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = positive)]
    pub logs_interval: Duration,
    /// After the rest of the time, report this many times as often for --burst-duration
    #[arg(long, value_name = "FACTOR", value_parser = clap::value_parser!(u32).range(2..=100))]
    pub burst: Option<u32>,
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive)]
    pub burst_duration: Duration,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Chaos")]
pub struct ChaosArgs {
    /// Cut this many of a hundred links each second
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub cut: Option<f64>,
    /// Kill the controller with kill -9 and start it again, this often; only with --start-controller
    #[arg(long, value_name = "EVERY", value_parser = positive, requires = "start_controller")]
    pub restart_controller: Option<Duration>,
    /// Clocks of agents are wrong by up to this, in both directions
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    pub skew: Duration,
    /// The agents have recorded for this long before they connect, and send it beside what comes then
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub outage: Option<Duration>,
}

#[derive(Debug, Clone, Args)]
pub struct FloorArgs {
    /// How many links
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub agents: u32,
}

#[derive(Debug, Clone, Args)]
pub struct FiguresArgs {
    /// How many agents; those with a long outage are a tenth of them
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=15_000))]
    pub agents: u32,
    /// How often each figure but the last is taken; the median is given
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub runs: u32,
    /// How long the load of figures 4 and 6 takes
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = positive)]
    pub duration: Duration,
    /// Only these figures, of 1 to 6
    #[arg(long, value_name = "FIGURE", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=6))]
    pub only: Vec<u8>,
    /// Where the JSON goes beside standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn positive(text: &str) -> Result<Duration, String> {
    match duration::parse(text).map_err(|error| error.to_string())? {
        Duration::ZERO => Err("it must be longer than 0".to_owned()),
        length => Ok(length),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| "not a number")?;
    if percent > 0.0 && percent <= 100.0 {
        Ok(percent)
    } else {
        Err("it must be above 0 and at most 100".to_owned())
    }
}

/// An address that is written as one is not looked up.
pub fn resolve(text: &str) -> std::io::Result<SocketAddr> {
    use std::net::ToSocketAddrs as _;
    let mut addresses = text.to_socket_addrs()?;
    addresses
        .next()
        .ok_or_else(|| std::io::Error::other("the name has no address"))
}
