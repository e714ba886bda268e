//! `musterctl user`: the operators. Their keys are made here and stay here; what goes to the controller is a certificate
//! request. How a file is written is in `context`.

mod issue;
mod row;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use muster_certs::identity::Name;
use muster_proto::v1;

use super::{LimitArgs, ScopeArgs, grant};
use crate::{
    app::Session,
    paging,
    problem::{Problem, status::Asked},
};

const LISTED_BY: &str = "musterctl user list";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an operator
    ///
    /// The private key is made here, and written with its certificate into a context file that is ready for use. For a key that
    /// somebody else keeps, --csr takes a certificate request instead, and the certificate is printed. A role has to be given,
    /// since who has none can do nothing; further ones come by `grant create`.
    #[command(
        after_help = "Examples:\n  musterctl user create alice --role operator --scope env=dev\n  \
                            musterctl user create alice --role admin --ttl 90d --out alice.yaml\n  \
                            musterctl user create alice --role viewer --csr alice.csr > alice-chain.pem"
    )]
    Create(CreateArgs),
    /// List operators
    ///
    /// By name; ROLES is what is granted, LIVE how many certificates of each are good now, ENDS when the last of these ends.
    #[command(after_help = "Examples:\n  musterctl user list\n  musterctl user list -o json | jq -r '.items[].name'")]
    List(ListArgs),
    /// Show one operator with all certificates
    #[command(after_help = "Examples:\n  musterctl user get alice")]
    Get(GetArgs),
    /// Get a new certificate for a new key
    ///
    /// Without NAME the present context renews itself: once the controller has accepted the new certificate, it takes the place
    /// of the old one in the context file. With NAME another operator gets a further context file. Certificates that are there
    /// stay good until their end; `user revoke` ends them all. One that has expired cannot renew: another operator can, by
    /// name, or `muster-server admin create NAME` on the controller's host.
    #[command(
        after_help = "Examples:\n  musterctl user renew\n  musterctl user renew alice --out alice-2.yaml\n  \
                            musterctl user renew alice --csr alice.csr > alice-chain.pem"
    )]
    Renew(RenewArgs),
    /// End the trust in an operator
    ///
    /// All certificates are revoked and all connections end at once. The last operator who can use the API stays.
    #[command(after_help = "Examples:\n  musterctl user revoke alice --reason 'laptop was stolen'")]
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What the operator is called: letters, digits, dots, hyphens and underscores
    #[arg(value_name = "NAME")]
    name: Name,
    /// What the operator may do: admin, operator, viewer or a role of your own
    #[arg(long, value_name = "ROLE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    role: String,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    wanted: Wanted,
    /// Though there was an operator of this name who is revoked
    #[arg(long)]
    reinstate: bool,
}

/// What a new certificate is to be like, and where it goes.
#[derive(Debug, Args)]
pub struct Wanted {
    /// How long the certificate is good: 1m to 365d [default: as the controller is configured, 30d]
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::parse_duration)]
    ttl: Option<Duration>,
    /// Where the context file is written [default: NAME.yaml]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A certificate request, PEM or DER, for a key that is kept elsewhere
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
pub struct RenewArgs {
    /// Another operator [default: the present context]
    #[arg(value_name = "NAME")]
    name: Option<Name>,
    #[command(flatten)]
    wanted: Wanted,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    #[arg(value_name = "NAME")]
    name: String,
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::Create(args) => issue::create(args, session).await,
        Command::List(args) => list(args, session).await,
        Command::Get(args) => get(args, session).await,
        Command::Renew(args) => issue::renew(args, session).await,
        Command::Revoke(args) => revoke(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list users");
    let client = session.connect(&asked).await?;
    let list = paging::collect(args.limit.count(), |page_size, page_token| {
        let request = v1::ListUsersRequest { page_size, page_token };
        client.call(
            &asked,
            async |request| client.users().list_users(request).await,
            request,
        )
    })
    .await?;
    if !session.printer.format.is_table() {
        session.printer.list(&list.items, list.revision)?;
        return Ok(());
    }
    let mut grants = grant::beside(&client, "", "").await.unwrap_or_default();
    let mut granted = Vec::new();
    for user in list.items {
        let (own, others) = grants.into_iter().partition(|grant| row::is_of(grant, &user.name));
        grants = others;
        granted.push(row::Granted { user, grants: own });
    }
    session.printer.table(&granted)?;
    Ok(())
}

async fn get(args: GetArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming("get", &args.name);
    let client = session.connect(&asked).await?;
    let request = v1::GetUserRequest { name: args.name };
    let call = async |request| client.users().get_user(request).await;
    let user = client.call(&asked, call, request).await?.user.unwrap_or_default();
    // Only where a person reads: what the user may do is a call of its own.
    let grants = match session.printer.format.is_table() {
        true => grant::beside(&client, &user.name, "").await.unwrap_or_default(),
        false => Vec::new(),
    };
    let granted = row::Granted { user, grants };
    session
        .printer
        .item(&granted, |page, now| row::describe(page, &granted, now))?;
    Ok(())
}

async fn revoke(args: RevokeArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming("revoke", &args.name);
    let client = session.connect(&asked).await?;
    let request = v1::RevokeUserRequest {
        name: args.name,
        reason: args.reason,
    };
    let call = async |request| client.users().revoke_user(request).await;
    let user = client.call(&asked, call, request).await?.user.unwrap_or_default();
    show(&user, session)
}

fn naming(verb: &str, name: &str) -> Asked {
    Asked::new(format!("{verb} user {name}")).listed_by(LISTED_BY)
}

fn show(user: &v1::User, session: &mut Session) -> Result<(), Problem> {
    let granted = row::Granted {
        user: user.clone(),
        grants: Vec::new(),
    };
    if session.printer.format.is_table() {
        session.printer.table(std::slice::from_ref(&granted))?;
    } else {
        session.printer.item(&granted, |_, _| ())?;
    }
    Ok(())
}
