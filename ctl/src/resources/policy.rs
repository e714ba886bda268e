//! `musterctl policy`: what agents are told to do. Policies are made and changed by `apply`.

mod row;

use clap::{Args, Subcommand};
use muster_proto::v1;

use super::LimitArgs;
use crate::{
    age,
    app::Session,
    count, paging,
    problem::{Problem, status::Asked},
};
pub use row::reference;

/// The only kind there is; names alone mean it.
const DEFAULT_KIND: &str = "Check";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List policies
    ///
    /// APPLIED is how many agents run this version of all that the selector matches. With -o json and -o yaml each item is a
    /// manifest, which `musterctl apply` takes back.
    #[command(after_help = "Examples:\n  musterctl policy list\n  musterctl policy list -o yaml > policies.yaml")]
    List(ListArgs),
    /// Show one policy
    ///
    /// With -o yaml it is a manifest, which `musterctl apply` takes back.
    #[command(
        after_help = "Examples:\n  musterctl policy get disk-root\n  musterctl policy get Check/disk-root -o yaml"
    )]
    Get(GetArgs),
    /// Delete policies
    ///
    /// Agents stop running them within a second. The history of their results stays until its age.
    #[command(
        after_help = "Examples:\n  musterctl policy delete disk-root\n  musterctl policy delete Check/load Check/memory"
    )]
    Delete(DeleteArgs),
    /// Stop the delivery of all policies
    ///
    /// Agents keep what they have and run it; new ones get nothing. What is applied or deleted meanwhile reaches nobody until
    /// musterctl policy unfreeze.
    #[command(
        after_help = "Examples:\n  musterctl policy freeze --reason 'the checks of today overload the databases'"
    )]
    Freeze(FreezeArgs),
    /// Let policies be delivered again
    ///
    /// Agents get at once what they shall have by then: see it before with musterctl policy list.
    #[command(after_help = "Examples:\n  musterctl policy unfreeze")]
    Unfreeze,
}

#[derive(Debug, Args)]
pub struct FreezeArgs {
    /// Why, for whoever wonders
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// NAME or KIND/NAME
    #[arg(value_name = "POLICY", value_parser = parse_reference)]
    policy: Reference,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// NAME or KIND/NAME
    #[arg(value_name = "POLICY", required = true, value_parser = parse_reference)]
    policies: Vec<Reference>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    kind: String,
    name: String,
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::List(args) => list(args, session).await,
        Command::Get(args) => get(args, session).await,
        Command::Delete(args) => delete(args, session).await,
        Command::Freeze(args) => freeze(args, session).await,
        Command::Unfreeze => unfreeze(session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list policies");
    let client = session.connect(&asked).await?;
    let list = paging::collect(args.limit.count(), |page_size, page_token| {
        let request = v1::ListPoliciesRequest {
            kind: String::new(),
            page_size,
            page_token,
            read_mask: None,
        };
        client.call(
            &asked,
            async |request| client.policies().list_policies(request).await,
            request,
        )
    })
    .await?;
    session.printer.list(&list.items, list.revision)?;
    session.printer.note(&footer(&list))?;
    if let Some(freeze) = &list.freeze {
        session.printer.note(&frozen(freeze, session.printer.terminal.now()))?;
    }
    Ok(())
}

/// "Nothing is delivered to agents for 4m now, stopped by user/mira: too much. To go on: musterctl policy unfreeze"
fn frozen(freeze: &v1::PolicyFreeze, now: jiff::Timestamp) -> String {
    let since = age::since(now, freeze.time.as_ref()).unwrap_or_default();
    let reason = match freeze.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    format!(
        "Nothing is delivered to agents for {since} now, stopped by {}{reason}. To go on: musterctl policy unfreeze",
        freeze.caller
    )
}

async fn freeze(args: FreezeArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("stop the delivery of policies");
    let client = session.connect(&asked).await?;
    let request = v1::FreezePoliciesRequest { reason: args.reason };
    let call = async |request| client.policies().freeze_policies(request).await;
    let freeze = client.call(&asked, call, request).await?.freeze.unwrap_or_default();
    match session.printer.format.is_table() {
        true => session.printer.terminal.out.write("policies frozen\n")?,
        false => session.printer.document(&muster_proto::json::to_json(&freeze))?,
    }
    session
        .printer
        .note("agents keep what they have; to go on: musterctl policy unfreeze")?;
    Ok(())
}

async fn unfreeze(session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("let policies be delivered again");
    let client = session.connect(&asked).await?;
    let call = async |request| client.policies().unfreeze_policies(request).await;
    client.call(&asked, call, v1::UnfreezePoliciesRequest {}).await?;
    match session.printer.format.is_table() {
        true => session.printer.terminal.out.write("policies unfrozen\n")?,
        false => session.printer.document(&serde_json::json!({}))?,
    }
    Ok(())
}

/// "14 policies: 2 not yet applied everywhere, 1 refused somewhere."
fn footer(list: &v1::ListPoliciesResponse) -> String {
    let mut note = count::of(i64::from(list.total_size), "policy", "policies");
    if (list.items.len() as i64) < i64::from(list.total_size) {
        return format!(
            "{note}; the first {} are shown.",
            count::grouped(list.items.len() as i64)
        );
    }
    let counts = || list.items.iter().filter_map(|policy| policy.counts);
    let waiting = counts()
        .filter(|counts| counts.applied + counts.refused < counts.assigned)
        .count();
    let refused = counts().filter(|counts| counts.refused > 0).count();
    let parts = count::parts(&[
        (waiting as i32, "not yet applied everywhere"),
        (refused as i32, "refused somewhere"),
    ]);
    if let Some(parts) = parts {
        note.push_str(&format!(": {parts}"));
    }
    note + "."
}

async fn get(args: GetArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new(format!("get policy {}", args.policy)).listed_by("musterctl policy list");
    let client = session.connect(&asked).await?;
    let request = v1::GetPolicyRequest {
        kind: args.policy.kind,
        name: args.policy.name,
        read_mask: None,
    };
    let response = client
        .call(
            &asked,
            async |request| client.policies().get_policy(request).await,
            request,
        )
        .await?;
    let policy = response.policy.unwrap_or_default();
    session
        .printer
        .item(&policy, |page, now| row::describe(page, &policy, now))?;
    Ok(())
}

async fn delete(args: DeleteArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("delete policies");
    let client = session.connect(&asked).await?;
    let mut deleted = Vec::new();
    let mut revision = 0;
    for policy in args.policies {
        let asked = Asked::new(format!("delete policy {policy}")).listed_by("musterctl policy list");
        let request = v1::DeletePolicyRequest {
            kind: policy.kind.clone(),
            name: policy.name.clone(),
            revision: 0,
        };
        let call = async |request| client.policies().delete_policy(request).await;
        revision = client.call(&asked, call, request).await?.revision;
        // At once: when a later one fails, it is known which are gone.
        if session.printer.format.is_table() {
            session.printer.terminal.out.write(&format!("{policy} deleted\n"))?;
        } else if session.printer.format == crate::output::Format::Name {
            session.printer.names([policy.to_string()])?;
        }
        deleted.push(serde_json::json!({ "kind": policy.kind, "name": policy.name }));
    }
    if !session.printer.format.is_table() && session.printer.format != crate::output::Format::Name {
        session
            .printer
            .document(&crate::output::document::list(deleted, revision))?;
    }
    Ok(())
}

fn parse_reference(text: &str) -> Result<Reference, String> {
    let (kind, name) = text.split_once('/').unwrap_or((DEFAULT_KIND, text));
    if kind.is_empty() || name.is_empty() || name.contains('/') {
        return Err("write NAME or KIND/NAME, for example Check/disk-root".to_owned());
    }
    // Kinds are written with a capital; nobody is to fail over that.
    let mut letters = kind.chars();
    let kind = letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default();
    Ok(Reference {
        kind,
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_meant_by_its_name_or_by_kind_and_name() {
        let reference = |kind: &str, name: &str| Reference {
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        assert_eq!(parse_reference("disk-root"), Ok(reference("Check", "disk-root")));
        assert_eq!(parse_reference("Check/disk-root"), Ok(reference("Check", "disk-root")));
        assert_eq!(parse_reference("check/disk-root"), Ok(reference("Check", "disk-root")));
        for text in ["", "/", "Check/", "/disk", "a/b/c"] {
            assert!(parse_reference(text).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_a_reference_shows_means_the_same_policy(text in "\\PC{0,20}|[a-zA-Zß]{1,5}/[a-z.-]{1,9}") {
            if let Ok(reference) = parse_reference(&text) {
                proptest::prop_assert_eq!(parse_reference(&reference.to_string()), Ok(reference));
            }
        }
    }

    #[test]
    fn the_footer_says_what_is_not_yet_everywhere() {
        let policy = |assigned, applied, refused| v1::Policy {
            counts: Some(v1::PolicyCounts {
                assigned,
                applied,
                refused,
            }),
            ..Default::default()
        };
        let list = |items: Vec<v1::Policy>| v1::ListPoliciesResponse {
            total_size: items.len() as i32,
            items,
            ..Default::default()
        };
        assert_eq!(footer(&list(vec![policy(3, 3, 0)])), "1 policy.");
        assert_eq!(
            footer(&list(vec![policy(3, 3, 0), policy(3, 1, 1), policy(2, 0, 2)])),
            "3 policies: 1 not yet applied everywhere, 2 refused somewhere."
        );
    }
}
