//! The command line of `muster-agent`: its arguments, and which verb does what. Data goes to stdout, all else to stderr.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_certs::{pin::Pin, token::Token};
use muster_proto::{duration, label};

use self::output::Format;
use crate::{
    config::{self, Config, Endpoint},
    dial::causes,
    failure::{Exit, Failure},
    identity::Joined,
    state_dir::StateDir,
};

mod check;
mod config_check;
mod enroll;
mod facts;
mod output;
mod run;
mod seal;
mod status;
mod wait;

/// The Muster agent: enrolls this machine, runs its checks and reports to the controller.
#[derive(Debug, Parser)]
#[command(name = "muster-agent", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Enroll this machine with a bootstrap token.
    ///
    /// The token comes from --token-file, from the environment variable MUSTER_TOKEN, or from the file that agent.yaml
    /// names. The token file is removed after use. Does nothing when this machine is enrolled already.
    ///
    /// Waits for the network and the controller, and says what it waits for; ends at once at what only a person can mend. It
    /// may be run again at any time: no attempt that was cut short costs a use of the token.
    Enroll(Enroll),
    /// Run the agent, which enrolls first when it has a token and no identity.
    ///
    /// SIGHUP reads the configuration again. SIGTERM and SIGINT stop the agent; a second one stops it at once.
    Run(Run),
    /// Show what the running agent says of itself.
    Status(Look),
    /// Wait until this machine is enrolled, or connected; the last step of whatever sets machines up.
    Wait(Wait),
    /// Take this machine's identity off it, so that it can become an image.
    ///
    /// Removes the agent's id, identity, state and token, and keeps its configuration. Every machine that starts from the image
    /// enrolls as a new one when it has a token. Refused while the agent runs.
    Seal(Seal),
    /// Show what this machine says of itself: the facts that selectors can use.
    Facts(FactsArgs),
    /// Run one check of the policies on this machine now, and print it as a plugin does, with its exit code.
    Check(Check),
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigVerb),
}

#[derive(Debug, Args)]
struct Enroll {
    /// Where the controller is; may be given several times, in order of preference. Or MUSTER_SERVER, with commas.
    #[arg(
        long = "server",
        value_name = "HOST:PORT",
        env = "MUSTER_SERVER",
        hide_env = true,
        value_delimiter = ','
    )]
    servers: Vec<Endpoint>,
    /// The file with the token, mode 0600; removed after use. "-" reads standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The pin of the controller's CA; may be given several times, one of them must match. Or MUSTER_CA_PIN, with commas.
    #[arg(
        long = "ca-pin",
        value_name = "sha256:HEX",
        env = "MUSTER_CA_PIN",
        hide_env = true,
        value_delimiter = ','
    )]
    ca_pins: Vec<Pin>,
    /// The controller's CA certificate in PEM, instead of a pin.
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// What people call this agent; the host name unless given.
    #[arg(long)]
    name: Option<String>,
    /// What this machine says of itself; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label::parse_pair)]
    labels: Vec<(String, String)>,
    /// Where the agent keeps its identity and its policies [default: /var/lib/muster-agent]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The file with this agent's UUID; made when it is not there [default: /etc/muster/agent-id]
    #[arg(long, value_name = "FILE")]
    id_file: Option<PathBuf>,
    /// How long to wait for the network and the controller; the exit code is 6 when it takes longer.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "10m")]
    timeout: Duration,
    /// Try once and say what is wrong, instead of waiting for it to pass.
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    #[command(flatten)]
    output: Format,
}

#[derive(Debug, Args)]
struct Run {
    /// Where the agent keeps its identity and its policies, instead of what the configuration says.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Look {
    /// The agent's state directory, instead of what the configuration says.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    output: Format,
}

#[derive(Debug, Args)]
struct Seal {
    /// Only tell what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// The agent's state directory, instead of what the configuration says.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    output: Format,
}

#[derive(Debug, Args)]
struct Wait {
    /// What to wait for.
    #[arg(long = "for", value_name = "WHAT", value_enum, default_value_t = WaitFor::Enrolled)]
    goal: WaitFor,
    /// How long; the exit code is 6 when it takes longer.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5m")]
    timeout: Duration,
    /// The agent's state directory, instead of what the configuration says.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WaitFor {
    Enrolled,
    Connected,
}

#[derive(Debug, Args)]
struct FactsArgs {
    #[command(flatten)]
    output: Format,
}

#[derive(Debug, Args)]
struct Check {
    /// The name of the check, as its policy has it.
    name: String,
    /// The agent's state directory, instead of what the configuration says.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Look for mistakes: unknown keys, wrong values.
    Check(ConfigCheck),
}

#[derive(Debug, Args)]
struct ConfigCheck {
    #[command(flatten)]
    output: Format,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file; without one, /etc/muster/agent.yaml if it is there.
    #[arg(long = "config", value_name = "FILE", global = true)]
    path: Option<PathBuf>,
}

/// Parses the arguments of the process and does what they say.
pub fn main() -> ExitCode {
    let Cli { config, verb } = Cli::parse();
    let format = verb.format();
    let result = match verb {
        Verb::Enroll(args) => enroll::enroll(&config, args),
        Verb::Run(args) => run::run(config, args),
        Verb::Status(args) => status::status(&config, args),
        Verb::Wait(args) => wait::wait(&config, &args),
        Verb::Seal(args) => seal::seal(&config, &args),
        Verb::Facts(args) => facts::facts(args),
        Verb::Check(args) => check::check(&config, args),
        Verb::Config(ConfigVerb::Check(args)) => config_check::check(&config, args),
    };
    result.unwrap_or_else(|failure| {
        format.complain(&failure);
        ExitCode::from(failure.exit as u8)
    })
}

impl Verb {
    /// How what went wrong is told.
    fn format(&self) -> Format {
        match self {
            Verb::Enroll(args) => args.output,
            Verb::Status(args) => args.output,
            Verb::Seal(args) => args.output,
            Verb::Facts(args) => args.output,
            Verb::Config(ConfigVerb::Check(args)) => args.output,
            Verb::Run(_) | Verb::Wait(_) | Verb::Check(_) => Format::default(),
        }
    }
}

impl ConfigFile {
    fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(config::DEFAULT_PATH))
    }

    /// The configuration with what `enroll` remembered. Only a file that was asked for must be there.
    fn load(&self, state_dir: Option<&Path>) -> Result<Config, Failure> {
        let mut config = match Config::load(self.path()) {
            Ok(config) => config,
            Err(error) if error.is_missing() && self.path.is_none() => Config::default(),
            Err(error) => return Err(config_failure(&error)),
        };
        if let Some(path) = state_dir {
            config.agent.state_dir = absolute(path)?;
        }
        if let Some(joined) = Joined::load(&StateDir::at(&config.agent.state_dir).joined()) {
            joined.complete(&mut config);
        }
        Ok(config)
    }
}

fn config_failure(error: &config::Error) -> Failure {
    match error {
        config::Error::Invalid(findings) => {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            Failure::new(Exit::Failure, "the configuration is not valid")
                .what("read the configuration")
                .why(lines.join("\n"))
                .remedy("correct the file; `muster-agent config check` tells whether it is good")
        }
        _ => Failure::new(Exit::Failure, error.to_string())
            .what("read the configuration")
            .why(std::error::Error::source(error).map_or_else(|| error.to_string(), causes))
            .remedy("give another file with --config FILE"),
    }
}

/// Paths in flags may be relative, but must not depend on where a later command is run.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("{}: not a path that can be used", path.display())).why(error.to_string())
    })
}

/// The token of the environment, if there is one. Never an argument: arguments are visible to every process.
#[expect(
    clippy::disallowed_methods,
    reason = "clap reads the environment only for what may be an argument too"
)]
fn token_of_environment() -> Result<Option<Token>, Failure> {
    match std::env::var("MUSTER_TOKEN") {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Token::parse(&text).map(Some).map_err(|error| {
            Failure::new(
                Exit::Usage,
                "the environment variable MUSTER_TOKEN does not hold a token",
            )
            .why(error.to_string())
            .remedy("put the token, exactly as `musterctl token create` printed it, into it")
        }),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_token_can_never_be_an_argument() {
        for arguments in [
            &["muster-agent", "enroll", "--token", "mst_x"][..],
            &["muster-agent", "enroll", "mst_x"],
            &["muster-agent", "run", "--token", "mst_x"],
        ] {
            assert!(Cli::try_parse_from(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn a_wrong_endpoint_pin_or_label_is_refused_before_anything_is_done() {
        for arguments in [
            ["--server", "https://a:1"],
            ["--ca-pin", "sha256:12"],
            ["--label", "a b=c"],
        ] {
            let arguments = ["muster-agent", "enroll"].iter().chain(&arguments);
            assert!(Cli::try_parse_from(arguments.clone()).is_err(), "{arguments:?}");
        }
    }
}
