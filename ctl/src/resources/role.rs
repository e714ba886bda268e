//! `musterctl role`: named sets of permissions.

mod row;

use clap::{Args, Subcommand};
use muster_proto::v1;

use super::LimitArgs;
use crate::{
    app::Session,
    client::Client,
    output::Format,
    paging,
    problem::{Problem, status::Asked},
};

const LISTED_BY: &str = "musterctl role list";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List roles
    ///
    /// Those that are built in first: admin may do everything, operator all but who may do what and the CA, viewer sees.
    #[command(after_help = "Examples:\n  musterctl role list\n  musterctl role list -o wide")]
    List(ListArgs),
    /// Show one role with what it allows
    #[command(after_help = "Examples:\n  musterctl role get operator\n  musterctl role get deployer -o yaml")]
    Get(NameArgs),
    /// Make a role
    ///
    /// A role allows what its permissions open; agents.* is all of an area, * everything, with what later releases add. Nobody
    /// puts into a role what they do not have themselves.
    #[command(
        after_help = "Examples:\n  musterctl role create deployer --permission 'policies.*' --permission agents.read\n  \
                            musterctl role create onboarding --permission 'tokens.*' --description 'lets machines join'"
    )]
    Create(CreateArgs),
    /// Change what a role allows
    ///
    /// The permissions that are given take the place of all that the role had; what is not given stays as it is. Everybody who
    /// has the role has the other permissions at once.
    #[command(
        after_help = "Examples:\n  musterctl role update deployer --permission 'policies.*'\n  \
                            musterctl role update deployer --description 'rolls out checks' --revision 42"
    )]
    Update(UpdateArgs),
    /// Delete a role that nobody has
    #[command(after_help = "Examples:\n  musterctl role delete deployer")]
    Delete(DeleteArgs),
    /// List all permissions, with what they are for
    ///
    /// FOR SCOPES says whether a grant with a scope gives it; the others are given by grants for everything alone.
    #[command(after_help = "Examples:\n  musterctl role permissions\n  musterctl role permissions -o wide")]
    Permissions,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct NameArgs {
    #[arg(value_name = "ROLE")]
    name: String,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What the role is called: a-z, 0-9, hyphens, underscores and dots
    #[arg(value_name = "ROLE")]
    name: String,
    /// What it allows, such as agents.read, 'agents.*' or '*'; may be repeated
    #[arg(long = "permission", value_name = "PERMISSION", required = true)]
    permissions: Vec<String>,
    /// What it is for, kept with the role
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[arg(value_name = "ROLE")]
    name: String,
    /// What it allows from now on, such as agents.read, 'agents.*' or '*'; may be repeated [default: as it is]
    #[arg(
        long = "permission",
        value_name = "PERMISSION",
        required_unless_present = "description"
    )]
    permissions: Vec<String>,
    /// What it is for [default: as it is]
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Only if this is still the revision of the role
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[arg(value_name = "ROLE")]
    name: String,
    /// Only if this is still the revision of the role
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::List(args) => list(args, session).await,
        Command::Get(args) => get(args, session).await,
        Command::Create(args) => create(args, session).await,
        Command::Update(args) => update(args, session).await,
        Command::Delete(args) => delete(args, session).await,
        Command::Permissions => permissions(session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list roles");
    let client = session.connect(&asked).await?;
    let list = paging::collect(args.limit.count(), |page_size, page_token| {
        let request = v1::ListRolesRequest { page_size, page_token };
        client.call(
            &asked,
            async |request| client.roles().list_roles(request).await,
            request,
        )
    })
    .await?;
    session.printer.list(&list.items, list.revision)?;
    Ok(())
}

async fn get(args: NameArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming("get", &args.name);
    let client = session.connect(&asked).await?;
    let role = read(&client, &asked, args.name).await?;
    session
        .printer
        .item(&role, |page, now| row::describe(page, &role, now))?;
    Ok(())
}

async fn create(args: CreateArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming("create", &args.name);
    let client = session.connect(&asked).await?;
    let request = v1::CreateRoleRequest {
        name: args.name,
        description: args.description,
        permissions: args.permissions,
        idempotency_key: String::new(),
    };
    let call = async |request| client.roles().create_role(request).await;
    let role = client.call(&asked, call, request).await?.role.unwrap_or_default();
    show(&role, session)?;
    session.printer.note(&format!(
        "next: musterctl grant create --role {} --user NAME",
        role.name
    ))?;
    Ok(())
}

async fn update(args: UpdateArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming("update", &args.name);
    let client = session.connect(&asked).await?;
    // The call sets both. What is to stay is read first, and has to be what it was then when it is written.
    let (description, permissions, revision) = match args.description {
        Some(description) if !args.permissions.is_empty() => (description, args.permissions, 0),
        description => {
            let role = read(&client, &asked, args.name.clone()).await?;
            let permissions = match args.permissions.is_empty() {
                true => role.permissions,
                false => args.permissions,
            };
            (description.unwrap_or(role.description), permissions, role.revision)
        }
    };
    let request = v1::UpdateRoleRequest {
        name: args.name,
        description,
        permissions,
        revision: args.revision.unwrap_or(revision),
    };
    let call = async |request| client.roles().update_role(request).await;
    let role = client.call(&asked, call, request).await?.role.unwrap_or_default();
    show(&role, session)
}

async fn delete(args: DeleteArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming("delete", &args.name);
    let client = session.connect(&asked).await?;
    let request = v1::DeleteRoleRequest {
        name: args.name.clone(),
        revision: args.revision.unwrap_or(0),
    };
    let call = async |request| client.roles().delete_role(request).await;
    client.call(&asked, call, request).await?;
    super::deleted("role", "name", &args.name, session)
}

async fn permissions(session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list permissions");
    let client = session.connect(&asked).await?;
    let call = async |request| client.roles().list_permissions(request).await;
    let list = client.call(&asked, call, v1::ListPermissionsRequest {}).await?;
    session.printer.list(&list.items, 0)?;
    Ok(())
}

async fn read(client: &Client, asked: &Asked, name: String) -> Result<v1::Role, Problem> {
    let call = async |request| client.roles().get_role(request).await;
    let response = client.call(asked, call, v1::GetRoleRequest { name }).await?;
    Ok(response.role.unwrap_or_default())
}

fn naming(verb: &str, name: &str) -> Asked {
    Asked::new(format!("{verb} role {name}")).listed_by(LISTED_BY)
}

fn show(role: &v1::Role, session: &mut Session) -> Result<(), Problem> {
    if session.printer.format == Format::Table {
        session.printer.table(std::slice::from_ref(role))?;
    } else {
        session.printer.item(role, |_, _| ())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
