//! `musterctl token`: the secrets that let machines join. A secret is data: it goes to stdout and nowhere else.

mod bootstrap;
mod list;

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use muster_proto::{duration, json, label, v1};

use super::LimitArgs;
use crate::{
    age,
    app::Session,
    count,
    output::{Format, page::Page},
    problem::{Problem, status::Asked},
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token that machines can enroll with
    ///
    /// Prints the token, the pin of the controller's CA and the command to run on the machine. The token is shown this once;
    /// the controller keeps no more than a hash of it.
    #[command(
        after_help = "Examples:\n  musterctl token create --ttl 1h --uses 10 --label env=prod\n  \
                            umask 077; musterctl token create -o name > join-token\n  \
                            musterctl token create -o json | jq -r .caPins[0]\n  \
                            umask 077; musterctl token create --format cloud-init > user-data\n  \
                            musterctl token create --template web --uses 3"
    )]
    Create(Box<CreateArgs>),
    /// List tokens
    ///
    /// Newest first, those that machines can enroll with: --all adds the ones that are used up, expired or revoked.
    #[command(
        after_help = "Examples:\n  musterctl token list\n  musterctl token list --all -o json | jq -r '.items[].id'"
    )]
    List(ListArgs),
    /// Show one token with all its uses
    #[command(after_help = "Examples:\n  musterctl token get 5f1e0c7b8d213a4b")]
    Get(GetArgs),
    /// End a token
    ///
    /// No machine can enroll with it any longer; the agents that did stay.
    #[command(after_help = "Examples:\n  musterctl token revoke 5f1e0c7b8d213a4b")]
    Revoke(GetArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Also those that are used up, expired or revoked
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// The token's id: the part between the underscores
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// How long the token is good: 30m, 1h, 7d; one minute to one year [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::parse_duration)]
    ttl: Option<Duration>,
    /// How many machines may enroll with it [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    uses: Option<i32>,
    /// A label that every machine enrolled with it gets; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// What it is for, kept with the token
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Only the agent with this UUID may enroll with it
    #[arg(long, value_name = "UUID", default_value = "", hide_default_value = true)]
    agent_id: String,
    /// Only from this network, such as 10.1.0.0/16, or this address
    #[arg(long, value_name = "CIDR")]
    source: Option<String>,
    /// An agent that enrolled before may enroll again with it, with a new key
    #[arg(long)]
    allow_reenroll: bool,
    /// It may not, though the template allows it
    #[arg(long, requires = "template", conflicts_with = "allow_reenroll")]
    no_reenroll: bool,
    /// Its agents are deleted once they were offline this long; never, though the template says when
    #[arg(long, value_name = "DURATION|never", value_parser = parse_ephemeral)]
    ephemeral: Option<Duration>,
    /// What happens to copies of its agents: refuse, fork, or configured, which is as the controller's configuration says
    #[arg(long, value_name = "WHAT", value_enum, hide_possible_values = true)]
    on_clone: Option<OnClone>,
    /// As this template says, where no other option does
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    template: String,
    /// Which of your scopes its machines are to be in, when you have several; see whoami [default: the only one]
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    scope: String,
    #[command(flatten)]
    bootstrap: bootstrap::Options,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnClone {
    Refuse,
    Fork,
    Configured,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::Create(args) => create(*args, session).await,
        Command::List(args) => list::list(args, session).await,
        Command::Get(args) => list::get(args, session).await,
        Command::Revoke(args) => list::revoke(args, session).await,
    }
}

async fn create(args: CreateArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("create a token").with_text("scope", &args.scope);
    let asked = match args.template.is_empty() {
        true => asked,
        false => asked.listed_by("musterctl tokentemplate list"),
    };
    let bootstrap = args.bootstrap.checked()?;
    if bootstrap.is_some() && session.printer.format != Format::Table {
        return Err(Problem::new(
            crate::exit::Exit::Usage,
            "--format and -o are two ways to print one token",
        )
        .what("create a token")
        .why("no token was made")
        .step("leave one of them out"));
    }
    let request = v1::CreateTokenRequest {
        ttl: args.ttl.map(duration::to_proto),
        uses: args.uses.unwrap_or_default(),
        labels: distinct(args.labels)?,
        description: args.description,
        agent_id: args.agent_id,
        source: args.source,
        allow_reenroll: (args.allow_reenroll || args.no_reenroll).then_some(args.allow_reenroll),
        ephemeral: args.ephemeral.map(duration::to_proto),
        on_clone: args.on_clone.map(|on_clone| match on_clone {
            OnClone::Refuse => v1::OnClone::Refuse,
            OnClone::Fork => v1::OnClone::Fork,
            OnClone::Configured => v1::OnClone::Unspecified,
        } as i32),
        scope: args.scope,
        idempotency_key: String::new(),
        template: args.template,
    };
    let client = session.connect(&asked).await?;
    let response = client
        .call(
            &asked,
            async |request| client.tokens().create_token(request).await,
            request,
        )
        .await?;
    let printer = &mut session.printer;
    if let Some(bootstrap) = bootstrap {
        let text = bootstrap.render(&response)?;
        printer.terminal.out.write(&text)?;
        let id = response.token.map(|token| token.id).unwrap_or_default();
        printer.note(&format!("token {id}; what is printed holds its secret"))?;
        return Ok(());
    }
    match printer.format {
        Format::Table | Format::Wide => {
            let text = block(&response, printer.terminal.now(), printer.terminal.out.colour);
            printer.terminal.out.write(&text)?;
        }
        Format::Json | Format::Yaml => printer.document(&json::to_json(&response))?,
        Format::Name => printer.names([response.secret.clone()])?,
    }
    Ok(())
}

/// The token, what it grants, and what to type on the machine.
fn block(response: &v1::CreateTokenResponse, now: jiff::Timestamp, colour: bool) -> String {
    let mut page = Page::default();
    let token = response.token.clone().unwrap_or_default();
    page.field("Token", &response.secret);
    for pin in &response.ca_pins {
        page.field("CA pin", pin);
    }
    let end = age::moment(token.expire_time.as_ref()).unwrap_or_default();
    let left = age::until(now, token.expire_time.as_ref())
        .map(|left| format!(" (in {left})"))
        .unwrap_or_default();
    page.field("Expires", end + &left);
    page.field("Good for", count::of(i64::from(token.uses), "machine", "machines"));
    page.field("Labels", super::labels(&token.labels));
    page.field("Scope", &token.scope);
    page.field("For", &token.description);
    // The widths of a terminal play no part: a command that is cut cannot be copied.
    let mut text = page.render(None, colour);
    text.push_str(
        "\nOn the machine: put the token into a file that root alone can read, for example with\n\n  \
         (umask 077; mkdir -p /etc/muster; cat > /etc/muster/join-token)   # paste it, then Ctrl-D\n\nand then run\n\n",
    );
    text.push_str(&format!("  {}\n", join_command(response)));
    text
}

fn join_command(response: &v1::CreateTokenResponse) -> String {
    let mut command = "muster-agent enroll".to_owned();
    for endpoint in &response.endpoints {
        command.push_str(&format!(" --server {}", crate::output::text::line(endpoint)));
    }
    command.push_str(" --token-file /etc/muster/join-token");
    for pin in &response.ca_pins {
        command.push_str(&format!(" --ca-pin {}", crate::output::text::line(pin)));
    }
    command
}

/// Zero: never.
fn parse_ephemeral(text: &str) -> Result<Duration, String> {
    match text {
        "never" => Ok(Duration::ZERO),
        text => crate::cli::parse_duration(text),
    }
}

pub fn parse_label(text: &str) -> Result<(String, String), String> {
    label::parse_pair(text).map_err(|error| error.to_string())
}

/// One key twice with different values is a mistake, and which was meant cannot be known.
pub fn distinct(labels: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Problem> {
    let mut set = BTreeMap::new();
    for (key, value) in labels {
        match set.get(&key) {
            Some(before) if *before != value => {
                return Err(
                    Problem::new(crate::exit::Exit::Usage, format!("label {key} is given twice"))
                        .what("create a token")
                        .why(format!("{key}={before} and {key}={value} contradict each other"))
                        .step("leave one of them out"),
                );
            }
            _ => drop(set.insert(key, value)),
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> v1::CreateTokenResponse {
        v1::CreateTokenResponse {
            token: Some(v1::Token {
                id: "k3v9".to_owned(),
                uses: 10,
                uses_left: 10,
                labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
                expire_time: Some(prost_types::Timestamp {
                    seconds: 1_795_003_600,
                    nanos: 0,
                }),
                ..Default::default()
            }),
            secret: "mst_k3v9_secret".to_owned(),
            ca_pins: vec![format!("sha256:{}", "ab".repeat(32))],
            endpoints: vec!["controller.example.com:8443".to_owned()],
        }
    }

    #[test]
    fn the_block_holds_all_that_a_machine_needs_to_join() {
        insta::assert_snapshot!(block(
            &response(),
            jiff::Timestamp::from_second(1_795_000_000).unwrap(),
            false
        ));
    }

    #[test]
    fn the_join_command_names_the_token_by_its_file_only() {
        let command = join_command(&response());
        assert!(!command.contains("secret"), "{command}");
        assert!(
            command.contains("--token-file /etc/muster/join-token --ca-pin sha256:abab"),
            "{command}"
        );
    }

    #[test]
    fn a_label_given_twice_with_different_values_is_refused() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert!(distinct(vec![pair("env", "prod"), pair("env", "dev")]).is_err());
        assert_eq!(
            distinct(vec![pair("env", "prod"), pair("env", "prod")]).unwrap().len(),
            1
        );
    }
}
