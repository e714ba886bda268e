//! The command line: what can be typed. What it does is under `resources` and `verbs`; help texts stand with the arguments
//! they explain.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand, builder::Resettable};
use muster_proto::duration;

use crate::{
    output::Output,
    resources::{
        agent, api_key, audit, ca, cert, contexts, controller, event, grant, history, log, metric, policy, result,
        role, state, token, token_template, user,
    },
    verbs::{
        apply, complete, completion, delete, doctor, explain, export, login, plan, rollback, validate, wait, whoami,
    },
};

const AFTER_HELP: &str = "\
Examples:
  musterctl agent list -l env=prod                   the machines of production
  musterctl state list --problems                    what is wrong anywhere
  musterctl apply -f policies/                       create or update the policies in a folder
  musterctl token create --ttl 1h --label env=prod   let a new machine join
  musterctl whoami                                   what you may do

Exit codes:
  0 success            5 not found                          9 the audit log was changed
  1 failure            6 deadline passed                   10 some agents were not changed
  2 wrong input        7 changes (plan --exit-code)       130 interrupted
  4 denied             8 conflict, or an outdated plan
  3 the controller cannot be reached, or not trusted

Singular and plural are the same, ls is list, show is get and rm is delete; `get agents` and `describe agent NAME` go, too.";

/// The command line of Muster: agents, checks and what they found
#[derive(Debug, Parser)]
#[command(name = "musterctl", version, after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for every command")]
pub struct Global {
    /// Context file, or MUSTER_CONFIG [default: ~/.config/muster/config.yaml]
    #[arg(long, global = true, value_name = "FILE", env = "MUSTER_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
    /// Context to use, or MUSTER_CONTEXT [default: the file's current one]
    #[arg(long, global = true, value_name = "NAME", env = "MUSTER_CONTEXT", hide_env = true)]
    context: Option<String>,
    /// An API key to log in with; or MUSTER_API_KEY [default: as the context says]
    #[arg(long, global = true, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Show the result as table, wide, json, jsonl (an object a line), yaml or name
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    pub output: Output,
    /// How long each call to the controller may take [default: 30s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Change something in this context though it is protected
    #[arg(long, global = true, value_name = "CONTEXT")]
    confirm: Option<String>,
    /// Print each call as curl and grpcurl commands, on standard error
    #[arg(long, global = true)]
    pub show_rpc: bool,
}

impl Global {
    /// An empty variable is one that is not set.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    pub fn api_key_file(&self) -> Option<&Path> {
        self.api_key_file.as_deref()
    }

    pub fn confirm(&self) -> Option<&str> {
        self.confirm.as_deref()
    }

    pub fn context(&self) -> Option<&str> {
        self.context.as_deref().filter(|name| !name.is_empty())
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The machines: list, look at, follow, label
    #[command(subcommand, visible_alias = "agents")]
    Agent(agent::Command),
    /// What the checks found: list, follow
    #[command(subcommand, visible_alias = "states")]
    State(state::Command),
    /// What agents are told to do: list, look at, delete
    #[command(subcommand, visible_alias = "policies")]
    Policy(policy::Command),
    Plan(plan::PlanArgs),
    Apply(apply::ApplyArgs),
    Delete(delete::DeleteArgs),
    Validate(validate::ValidateArgs),
    Export(export::ExportArgs),
    Versions(rollback::VersionsArgs),
    Rollback(rollback::RollbackArgs),
    /// Show why something is as it is: a check on a machine, what somebody may do
    #[command(subcommand)]
    Explain(explain::Command),
    /// The latest metrics of the machines
    #[command(subcommand, visible_alias = "metrics")]
    Metric(metric::Command),
    /// The secrets that let machines join
    #[command(subcommand, visible_alias = "tokens")]
    Token(token::Command),
    /// How tokens are made by a name: list, look at, delete
    #[command(name = "tokentemplate", subcommand, visible_alias = "tokentemplates", aliases = ["token-template", "token-templates"])]
    TokenTemplate(token_template::Command),
    /// The controller's CA, and how another takes its place
    #[command(subcommand, visible_alias = "cas")]
    Ca(ca::Command),
    /// The certificates of the agents: list, revoke
    #[command(subcommand, visible_alias = "certs", aliases = ["certificate", "certificates"])]
    Cert(cert::Command),
    /// What happened to agents and to the controller
    #[command(subcommand, visible_alias = "events")]
    Event(event::Command),
    /// What programs on the machines have said of themselves
    #[command(subcommand, visible_alias = "logs")]
    Log(log::Command),
    /// What the checks have found, run by run
    #[command(subcommand, visible_alias = "results")]
    Result(result::Command),
    /// How much is kept of what the machines reported
    #[command(subcommand)]
    History(history::Command),
    /// The controller itself: look at, leave
    #[command(subcommand, visible_alias = "controllers")]
    Controller(controller::Command),
    /// The operators: create, list, renew, revoke
    #[command(subcommand, visible_alias = "users")]
    User(user::Command),
    /// What operators and API keys can be allowed to do
    #[command(subcommand, visible_alias = "roles")]
    Role(role::Command),
    /// Who has which role, and for which machines
    #[command(subcommand, visible_alias = "grants")]
    Grant(grant::Command),
    /// The keys of scripts and services: create, list, revoke
    #[command(name = "apikey", subcommand, visible_alias = "apikeys", aliases = ["api-key", "api-keys", "key", "keys"])]
    ApiKey(api_key::Command),
    /// What was changed and who was refused: list, export, verify
    #[command(subcommand)]
    Audit(audit::Command),
    /// The controllers you use, and whom to be there
    #[command(subcommand, visible_alias = "contexts", alias = "ctx")]
    Context(contexts::Command),
    Login(Box<login::LoginArgs>),
    Doctor(doctor::DoctorArgs),
    #[command(subcommand)]
    Wait(wait::Command),
    Whoami(whoami::WhoamiArgs),
    Completion(completion::CompletionArgs),
    #[command(name = "__complete", hide = true)]
    Complete(complete::CompleteArgs),
    /// Print the version of musterctl
    Version,
}

/// The whole definition. What the doc comment of a command says after its first line stands below its title in `-h` and
/// `--help` alike, and options take one line each: clap's own long form gives every option a paragraph.
pub fn command() -> clap::Command {
    compact(Cli::command()).max_term_width(100)
}

fn compact(command: clap::Command) -> clap::Command {
    const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    let details = long.strip_prefix(&about).unwrap_or(&long).trim().to_owned();
    let command = command.help_template(TEMPLATE).long_about(Resettable::Reset);
    let command = if details.is_empty() {
        command
    } else {
        command.before_help(details)
    };
    habitual(command).mut_subcommands(compact)
}

/// Other names of the same, which help does not list.
fn habitual(command: clap::Command) -> clap::Command {
    match command.get_name() {
        "list" => command.alias("ls"),
        "get" => command.aliases(["show", "describe"]),
        "delete" => command.aliases(["rm", "remove"]),
        _ => command,
    }
}

/// A duration that lets something happen.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match duration::parse(text).map_err(|error| error.to_string())? {
        Duration::ZERO => Err("it must be longer than 0".to_owned()),
        length => Ok(length),
    }
}

#[cfg(test)]
mod tests;
