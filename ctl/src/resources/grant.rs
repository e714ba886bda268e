//! `musterctl grant`: who has which role, and for which machines.

mod row;

use clap::{Args, Subcommand};
use muster_proto::v1;

use super::LimitArgs;
use crate::{
    app::Session,
    client::Client,
    paging,
    problem::{Problem, status::Asked},
};
pub use row::{COLUMNS, cells, told};

const LISTED_BY: &str = "musterctl grant list";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List grants
    ///
    /// By user or API key, then by role. A grant without a scope is for everything.
    #[command(
        after_help = "Examples:\n  musterctl grant list\n  musterctl grant list --user alice\n  musterctl grant list --role admin"
    )]
    List(ListArgs),
    /// Show one grant
    #[command(after_help = "Examples:\n  musterctl grant get 3f9c2a7d-10e4-4b85-9f0e-a3a15e1f0c7b")]
    Get(IdArgs),
    /// Give a role to a user or to an API key
    ///
    /// With --scope the role is for machines whose labels match, and for nothing else; labels that rest on a machine's own word
    /// do not count. What a user may do is the sum of all its grants. Nobody gives what they do not have themselves.
    #[command(
        after_help = "Examples:\n  musterctl grant create --role operator --user alice --scope env=dev\n  \
                            musterctl grant create --role viewer --user alice\n  \
                            musterctl grant create --role viewer --apikey 5f1e0c7b8d213a4b --scope 'zone in (eu,us)'"
    )]
    Create(CreateArgs),
    /// Take a role back
    ///
    /// At once: watches that rested on it end. The last one who may do everything keeps it.
    #[command(after_help = "Examples:\n  musterctl grant delete 3f9c2a7d-10e4-4b85-9f0e-a3a15e1f0c7b")]
    Delete(IdArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of this operator
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true,
        conflicts_with = "apikey"
    )]
    user: String,
    /// Only those of this API key, by its id
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    apikey: String,
    /// Only those of this role
    #[arg(long, value_name = "ROLE", default_value = "", hide_default_value = true)]
    role: String,
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct IdArgs {
    /// The grant's id, as `grant list` shows it
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What is given: admin, operator, viewer or a role of your own
    #[arg(long, value_name = "ROLE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    role: String,
    /// To this operator
    #[arg(long, value_name = "NAME", required_unless_present = "apikey")]
    user: Option<String>,
    /// To this API key, by its id
    #[arg(long, value_name = "ID", conflicts_with = "user")]
    apikey: Option<String>,
    #[command(flatten)]
    scope: super::ScopeArgs,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::List(args) => list(args, session).await,
        Command::Get(args) => get(args, session).await,
        Command::Create(args) => create(args, session).await,
        Command::Delete(args) => delete(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list grants");
    let client = session.connect(&asked).await?;
    let list = paging::collect(args.limit.count(), |page_size, page_token| {
        let request = v1::ListGrantsRequest {
            page_size,
            page_token,
            user: args.user.clone(),
            api_key: args.apikey.clone(),
            role: args.role.clone(),
        };
        client.call(
            &asked,
            async |request| client.grants().list_grants(request).await,
            request,
        )
    })
    .await?;
    session.printer.list(&list.items, list.revision)?;
    Ok(())
}

async fn get(args: IdArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming("get", &args.id);
    let client = session.connect(&asked).await?;
    let call = async |request| client.grants().get_grant(request).await;
    let response = client.call(&asked, call, v1::GetGrantRequest { id: args.id }).await?;
    let grant = response.grant.unwrap_or_default();
    session
        .printer
        .item(&grant, |page, now| row::describe(page, &grant, now))?;
    Ok(())
}

async fn create(args: CreateArgs, session: &mut Session) -> Result<(), Problem> {
    use v1::create_grant_request::Subject;

    let (subject, to) = match (args.user, args.apikey) {
        (Some(user), _) => (Some(Subject::User(user.clone())), format!("user {user}")),
        (None, Some(id)) => (Some(Subject::ApiKey(id.clone())), format!("API key {id}")),
        (None, None) => (None, "nobody".to_owned()),
    };
    let asked = Asked::new(format!("grant role {} to {to}", args.role))
        .listed_by("musterctl role list, musterctl user list, musterctl apikey list")
        .with_text("scope", args.scope.text());
    let client = session.connect(&asked).await?;
    let request = v1::CreateGrantRequest {
        subject,
        role: args.role,
        scope: args.scope.text(),
    };
    let call = async |request| client.grants().create_grant(request).await;
    let grant = client.call(&asked, call, request).await?.grant.unwrap_or_default();
    if session.printer.format.is_table() {
        session.printer.table(std::slice::from_ref(&grant))?;
    } else {
        session.printer.item(&grant, |_, _| ())?;
    }
    Ok(())
}

async fn delete(args: IdArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming("delete", &args.id);
    let client = session.connect(&asked).await?;
    let request = v1::DeleteGrantRequest {
        id: args.id.clone(),
        revision: 0,
    };
    let call = async |request| client.grants().delete_grant(request).await;
    client.call(&asked, call, request).await?;
    super::deleted("grant", "id", &args.id, session)
}

/// All grants, for those who look at somebody. `None`: the caller may not see them, which spoils nothing.
pub async fn beside(client: &Client, user: &str, api_key: &str) -> Option<Vec<v1::Grant>> {
    let asked = Asked::new("list grants");
    let list = paging::collect(None, |page_size, page_token| {
        let request = v1::ListGrantsRequest {
            page_size,
            page_token,
            user: user.to_owned(),
            api_key: api_key.to_owned(),
            role: String::new(),
        };
        client.call(
            &asked,
            async |request| client.grants().list_grants(request).await,
            request,
        )
    });
    list.await.ok().map(|list| list.items)
}

fn naming(verb: &str, id: &str) -> Asked {
    Asked::new(format!("{verb} grant {id}")).listed_by(LISTED_BY)
}
