//! `musterctl apikey`: the keys of scripts and services, which have no certificate. A secret is data: it goes to stdout, or into
//! a file that is asked for, and nowhere else.

mod row;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use muster_proto::{duration, json, v1};

use super::{LimitArgs, ScopeArgs, grant};
use crate::{
    app::Session,
    context::{self, NewFile},
    exit::Exit,
    output::Format,
    paging,
    problem::{Problem, status::Asked},
};

const LISTED_BY: &str = "musterctl apikey list --all";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key that a script can log in with
    ///
    /// Prints the key, once; the controller keeps no more than a hash of it. With --out it goes into a context file that is
    /// ready for use instead. A role has to be given: a key without one can do nothing.
    #[command(
        after_help = "Examples:\n  musterctl apikey create --role viewer --scope env=prod --description dashboards --out dash.yaml\n  \
                            umask 077; musterctl apikey create --role operator --ttl 1d --source 10.1.0.0/16 -o name > ci-key\n  \
                            musterctl --api-key-file ci-key agent list"
    )]
    Create(CreateArgs),
    /// List keys
    ///
    /// Newest first, those that are good: --all adds the ones that have expired or are revoked.
    #[command(
        after_help = "Examples:\n  musterctl apikey list\n  musterctl apikey list --all -o json | jq -r '.items[].id'"
    )]
    List(ListArgs),
    /// Show one key with what is granted to it
    #[command(after_help = "Examples:\n  musterctl apikey get 5f1e0c7b8d213a4b")]
    Get(GetArgs),
    /// End a key
    ///
    /// At once, with the watches that were opened with it. Its grants go with it.
    #[command(after_help = "Examples:\n  musterctl apikey revoke 5f1e0c7b8d213a4b")]
    Revoke(GetArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What it may do: admin, operator, viewer or a role of your own
    #[arg(long, value_name = "ROLE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    role: String,
    #[command(flatten)]
    scope: ScopeArgs,
    /// How long the key is good: 1h, 30d; one minute to 366 days [default: 90d]
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::parse_duration)]
    ttl: Option<Duration>,
    /// Only from this network, such as 10.1.0.0/16, or this address; may be repeated
    #[arg(long = "source", value_name = "CIDR")]
    sources: Vec<String>,
    /// What it is for, kept with the key
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Write a context file with the key, and print no secret
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Also those that have expired or are revoked
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// The key's id: the part between the underscores
    #[arg(value_name = "ID")]
    id: String,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::Create(args) => create(args, session).await,
        Command::List(args) => list(args, session).await,
        Command::Get(args) => get(args, session).await,
        Command::Revoke(args) => revoke(args, session).await,
    }
}

async fn create(args: CreateArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("create an API key")
        .listed_by("musterctl role list")
        .with_text("scope", args.scope.text());
    let request = v1::CreateApiKeyRequest {
        description: args.description,
        ttl: args.ttl.map(duration::to_proto),
        role: args.role,
        scope: args.scope.text(),
        sources: args.sources,
        idempotency_key: String::new(),
    };
    let granted = (request.role.clone(), request.scope.clone());
    let file = args.out.as_deref().map(NewFile::claim).transpose()?;
    let context = session.context(&asked)?;
    let client = session.connect(&asked).await?;
    let call = async |request| client.api_keys().create_api_key(request).await;
    let mut response = client.call(&asked, call, request).await?;
    let printer = &mut session.printer;
    if let (Some(file), Some(path)) = (file, &args.out) {
        let id = response.api_key.as_ref().map(|key| key.id.as_str()).unwrap_or_default();
        file.write(&context::new_file_of_key(&context, &response.secret))
            .map_err(|mut problem| {
                problem.steps = vec![format!("nobody has the key now; end it: musterctl apikey revoke {id}")];
                problem
            })?;
        response.secret.clear();
        printer.note(&format!("next: musterctl --config {} whoami", path.display()))?;
    }
    match printer.format {
        Format::Table | Format::Wide => {
            let text = row::block(&response, &granted, printer.terminal.now(), printer.terminal.out.colour);
            printer.terminal.out.write(&text)?;
        }
        Format::Json | Format::Yaml => printer.document(&json::to_json(&response))?,
        Format::Name if response.secret.is_empty() => {
            printer.names(response.api_key.map(|key| key.id))?;
        }
        Format::Name => printer.names([response.secret.clone()])?,
    }
    Ok(())
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list API keys");
    let client = session.connect(&asked).await?;
    let list = paging::collect(args.limit.count(), |page_size, page_token| {
        let request = v1::ListApiKeysRequest {
            page_size,
            page_token,
            show_ended: args.all,
        };
        client.call(
            &asked,
            async |request| client.api_keys().list_api_keys(request).await,
            request,
        )
    })
    .await?;
    session.printer.list(&list.items, list.revision)?;
    Ok(())
}

async fn get(args: GetArgs, session: &mut Session) -> Result<(), Problem> {
    check(&args)?;
    let asked = naming("get", &args.id);
    let client = session.connect(&asked).await?;
    let call = async |request| client.api_keys().get_api_key(request).await;
    let request = v1::GetApiKeyRequest { id: args.id };
    let key = client.call(&asked, call, request).await?.api_key.unwrap_or_default();
    // Only where a person reads: what the key may do is a call of its own.
    let grants = match session.printer.format {
        Format::Table => grant::beside(&client, "", &key.id).await.unwrap_or_default(),
        _ => Vec::new(),
    };
    session
        .printer
        .item(&key, |page, now| row::describe(page, &key, &grants, now))?;
    Ok(())
}

async fn revoke(args: GetArgs, session: &mut Session) -> Result<(), Problem> {
    check(&args)?;
    let asked = naming("revoke", &args.id);
    let client = session.connect(&asked).await?;
    let call = async |request| client.api_keys().revoke_api_key(request).await;
    let request = v1::RevokeApiKeyRequest { id: args.id };
    let key = client.call(&asked, call, request).await?.api_key.unwrap_or_default();
    if session.printer.format.is_table() {
        session.printer.table(std::slice::from_ref(&key))?;
    } else {
        session.printer.item(&key, |_, _| ())?;
    }
    Ok(())
}

fn naming(verb: &str, id: &str) -> Asked {
    Asked::new(format!("{verb} API key {id}")).listed_by(LISTED_BY)
}

/// A whole key is not sent, nor shown: it would stand in the controller's log.
fn check(args: &GetArgs) -> Result<(), Problem> {
    if !args.id.starts_with("mk_") {
        return Ok(());
    }
    Err(Problem::new(Exit::Usage, "that is the whole key, which is secret")
        .what("look up an API key")
        .why("a key is named by its id alone; arguments can be read by every process of this machine")
        .step("give the part between the underscores: musterctl apikey revoke ID"))
}
