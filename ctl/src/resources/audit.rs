//! `musterctl audit`: what was changed and by whom, and who was refused; and whether the log of it is the one that was written.

mod export;
mod heads;
mod judge;
mod row;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use muster_proto::{document::suggest, json::descriptor_pool, v1};

use super::LimitArgs;
use crate::{
    app::Session,
    paging,
    problem::{Problem, status::Asked},
    when::PeriodArgs,
};

/// Without a limit there may be millions.
const USUAL: usize = 100;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List what was changed and who was refused
    ///
    /// Newest first: all since --since, else the last hundred, or as many as --limit says. A change has two entries with one request id: it was begun,
    /// and then done, failed or refused. Who has a scope sees what is about machines in it, and what they did themselves.
    #[command(
        after_help = "Examples:\n  musterctl audit list --since 1d\n  musterctl audit list --refused\n  \
                            musterctl audit list --caller user/alice --method RevokeAgent -o wide\n  \
                            musterctl audit list --since 2026-11-20T00:00:00Z --until 2026-11-21T00:00:00Z -o json"
    )]
    List(ListArgs),
    /// Write the whole log as JSON lines, with all that is needed to verify it
    ///
    /// First the signed head of now and the public key, then every entry as it is chained, then the heads that were signed.
    /// `audit verify --from` reads it, without a controller.
    #[command(
        after_help = "Examples:\n  musterctl audit export --file audit.jsonl\n  musterctl audit export | gzip > audit.jsonl.gz"
    )]
    Export(ExportArgs),
    /// Save a signed head of the log, to be kept where the controller's administrators cannot reach it
    ///
    /// A head is the hash of the last entry, which stands for all before it, with its time and a signature. Whoever has one knows
    /// later whether the log up to there is still the same; `audit verify --head` looks.
    #[command(
        after_help = "Examples:\n  musterctl audit head --file \"head-$(date +%F).json\"\n  musterctl audit head -o json"
    )]
    Head(HeadArgs),
    /// Find out whether the log is the one that was written
    ///
    /// Follows the hashes from entry to entry and checks the signatures; each thing that is wrong is a line that names the entry,
    /// and the exit code is 9. Heads that were kept elsewhere bring the key that signatures are checked with; without one it is the
    /// key that the controller itself shows, and whoever has the controller's keys could have written all of it anew.
    #[command(
        after_help = "Examples:\n  musterctl audit verify\n  musterctl audit verify --head head-2026-10-01.json --head head-2026-11-01.json\n  \
                            musterctl audit verify --from audit.jsonl --head head-2026-11-01.json"
    )]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only of this caller, as the list shows it: user/alice, apikey/5f1e0c7b8d213a4b
    #[arg(long, value_name = "CALLER", default_value = "", hide_default_value = true)]
    caller: String,
    /// Only about this, as the list shows it: agent/UUID, policy/Check/disk, role/deployer
    #[arg(long, value_name = "RESOURCE", default_value = "", hide_default_value = true)]
    resource: String,
    /// Only calls of this method: RevokeAgent, AgentService/RevokeAgent
    #[arg(long, value_name = "METHOD", value_parser = parse_method)]
    method: Option<String>,
    #[command(flatten)]
    period: PeriodArgs,
    /// Only what was refused
    #[arg(long)]
    refused: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Where it goes; a file that is there is not overwritten [default: standard output]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct HeadArgs {
    /// Where it goes; a file that is there is not overwritten [default: standard output]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A head that was kept: a file of `audit head`, or with a head from the controller's own log; may be repeated
    #[arg(long = "head", value_name = "FILE")]
    heads: Vec<PathBuf>,
    /// A file of `audit export`, instead of asking the controller
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::List(args) => list(args, session).await,
        Command::Export(args) => export::run(args, session).await,
        Command::Head(args) => heads::run(args, session).await,
        Command::Verify(args) => verify::run(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list the audit log");
    let now = session.printer.terminal.now();
    let client = session.connect(&asked).await?;
    let limit = args.limit.or(args.period.usual(USUAL));
    let list = paging::collect(limit, |page_size, page_token| {
        let request = v1::ListAuditEntriesRequest {
            page_size,
            page_token,
            caller: args.caller.clone(),
            resource: args.resource.clone(),
            method: args.method.clone().unwrap_or_default(),
            since: args.period.since(now),
            until: args.period.until(now),
            refused: args.refused,
        };
        client.call(
            &asked,
            async |request| client.audit().list_audit_entries(request).await,
            request,
        )
    })
    .await?;
    super::show_newest(&list.items, !list.next_page_token.is_empty(), session)
}

/// A method by its name, with its service or with its whole path.
fn parse_method(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    let methods: Vec<(String, String)> = descriptor_pool()
        .services()
        .flat_map(|service| {
            let (name, full_name) = (service.name().to_owned(), service.full_name().to_owned());
            let path = move |method: &str| (format!("{name}/{method}"), format!("/{full_name}/{method}"));
            service.methods().map(|method| path(method.name())).collect::<Vec<_>>()
        })
        .collect();
    let is_meant = |short: &str| short == text || short.split('/').nth(1) == Some(text);
    match methods.iter().find(|(short, _)| is_meant(short)) {
        Some((_, path)) => Ok(path.clone()),
        None => {
            let names = methods.iter().flat_map(|(short, _)| short.split('/').nth(1));
            let meant = suggest(text, names).map(|meant| format!("; did you mean {meant}?"));
            Err(format!("there is no method of that name{}", meant.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_known_by_its_name_its_service_or_its_path() {
        let path = "/muster.v1.AgentService/RevokeAgent";
        for text in ["RevokeAgent", "AgentService/RevokeAgent", path] {
            assert_eq!(parse_method(text).as_deref(), Ok(path), "{text}");
        }
        assert!(
            parse_method("RevokAgent")
                .unwrap_err()
                .ends_with("did you mean RevokeAgent?")
        );
        assert!(parse_method("").is_err());
    }

    #[test]
    fn names_of_methods_are_enough_since_no_two_services_share_one() {
        let mut names: Vec<String> = descriptor_pool()
            .services()
            .filter(|service| service.package_name() == "muster.v1")
            .flat_map(|service| {
                service
                    .methods()
                    .map(|method| method.name().to_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
