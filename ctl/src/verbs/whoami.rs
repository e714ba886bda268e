//! `musterctl whoami`: who the caller is to the controller, and what it may do.

use clap::Args;
use muster_proto::{
    json,
    v1::{self, get_caller_response::Caller},
};

use crate::{
    app::Session,
    output::{
        Format,
        page::Page,
        table::{Cell, Column},
    },
    problem::{Problem, status::Asked},
    resources::grant,
};

const PERMISSIONS: &[Column] = &[Column::new("PERMISSION"), Column::new("FOR")];

/// Show who you are to the controller, and what you may do
///
/// The grants are what was given to you; the permissions are what they add up to, each for everything or for the machines that
/// match one of the scopes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  musterctl whoami\n  musterctl --api-key-file ci-key whoami\n  \
                  musterctl whoami -o json | jq -r '.permissions[].name'"
)]
pub struct WhoamiArgs {}

pub async fn run(session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("find out who the caller is");
    let client = session.connect(&asked).await?;
    let call = async |request| client.access().get_caller(request).await;
    let caller = client.call(&asked, call, v1::GetCallerRequest {}).await?;
    let printer = &mut session.printer;
    match printer.format {
        Format::Table | Format::Wide => {
            let page = page(&caller, printer.terminal.now());
            printer.page(&page)?;
        }
        Format::Json | Format::Yaml => printer.document(&json::to_json(&caller))?,
        Format::Name => printer.names([name(&caller)])?,
    }
    if caller.grants.is_empty() {
        printer.note("nothing is granted to you yet; an admin can: musterctl grant create --role ROLE --user NAME")?;
    }
    Ok(())
}

/// As the audit log writes it.
fn name(caller: &v1::GetCallerResponse) -> String {
    match &caller.caller {
        Some(Caller::User(name)) => format!("user/{name}"),
        Some(Caller::ApiKey(id)) => format!("apikey/{id}"),
        None => "unknown".to_owned(),
    }
}

fn page(caller: &v1::GetCallerResponse, now: jiff::Timestamp) -> Page {
    let mut page = Page::default();
    page.field("You are", name(caller))
        .field("Seen from", &caller.source)
        .field("Trust domain", &caller.trust_domain);
    if !caller.grants.is_empty() {
        let rows = caller.grants.iter().map(|grant| grant::cells(grant, now)).collect();
        page.section("Grants").table(grant::COLUMNS, rows);
    }
    let row = |permission: &v1::EffectivePermission| {
        let scopes = match permission.scopes.as_slice() {
            [] => "everything".to_owned(),
            scopes => scopes.join(" or "),
        };
        vec![Cell::new(&permission.name), Cell::new(scopes)]
    };
    if !caller.permissions.is_empty() {
        let rows = caller.permissions.iter().map(row).collect();
        page.section("Permissions").table(PERMISSIONS, rows);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_who_from_where_and_what_for() {
        let permission = |name: &str, scopes: &[&str]| v1::EffectivePermission {
            name: name.to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        };
        let grant = |role: &str, scope: &str| v1::Grant {
            id: "3f9c2a7d-10e4-4b85-9f0e-a3a15e1f0c7b".to_owned(),
            role: role.to_owned(),
            scope: scope.to_owned(),
            ..Default::default()
        };
        let caller = v1::GetCallerResponse {
            caller: Some(Caller::User("alice".to_owned())),
            grants: vec![
                grant("operator", "env=dev"),
                grant("operator", "team=web"),
                grant("viewer", ""),
            ],
            permissions: vec![
                permission("agents.label", &["env=dev", "team=web"]),
                permission("agents.read", &[]),
            ],
            source: "192.0.2.7".to_owned(),
            trust_domain: "example.muster".to_owned(),
        };
        let now = jiff::Timestamp::from_second(1_795_000_000).unwrap();
        insta::assert_snapshot!(page(&caller, now).render(None, false));
    }
}
