//! `musterctl cert`: the certificates that the controller has issued to agents.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use super::{LimitArgs, of_agents::AgentsArgs};
use crate::{
    age,
    app::Session,
    output::{
        Row,
        style::Tone,
        table::{Cell, Column},
    },
    problem::{Problem, status::Asked},
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List certificates
    ///
    /// Newest first, those that count: --all adds the ones that are superseded, expired or revoked.
    #[command(
        after_help = "Examples:\n  musterctl cert list\n  musterctl cert list --agent db-01.fra --all\n  \
                            musterctl cert list -o json | jq -r '.items[].serial'"
    )]
    List(ListArgs),
    /// End the trust in one certificate
    ///
    /// Connections that use it are cut at once, and it can neither connect nor renew again. To end the trust in an agent as a
    /// whole: musterctl agent revoke.
    #[command(
        after_help = "Examples:\n  musterctl cert revoke 4f8feb8efd2bfc1f6c5277835f511c00 --reason 'key was copied'"
    )]
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    agents: AgentsArgs,
    /// Also those that are superseded, expired or revoked
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// As `cert list` shows it
    #[arg(value_name = "SERIAL")]
    serial: String,
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::List(args) => list(args, session).await,
        Command::Revoke(args) => revoke(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list certificates")
        .with_selector(args.agents.selector.text())
        .listed_by("musterctl agent list")
        .by_command("musterctl cert list --agent");
    let client = session.connect(&asked).await?;
    let fetch = |agent, page_size, page_token| {
        let request = v1::ListCertificatesRequest {
            agent,
            show_ended: args.all,
            page_size,
            page_token,
        };
        client.call(
            &asked,
            async |request| client.certificates().list_certificates(request).await,
            request,
        )
    };
    let limit = args.limit.count();
    let issued = |certificate: &v1::Certificate| certificate.issue_time;
    let newest = args.agents.newest(&client, &asked, limit, fetch, issued);
    let (list, _): (v1::ListCertificatesResponse, _) = newest.await?;
    session.printer.list(&list.items, list.revision)?;
    Ok(())
}

async fn revoke(args: RevokeArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new(format!("revoke certificate {}", args.serial)).listed_by("musterctl cert list --all");
    let client = session.connect(&asked).await?;
    let request = v1::RevokeCertificateRequest {
        serial: args.serial.clone(),
        reason: args.reason,
    };
    let call = async |request| client.certificates().revoke_certificate(request).await;
    let certificate = client
        .call(&asked, call, request)
        .await?
        .certificate
        .unwrap_or_default();
    if session.printer.format.is_table() {
        session.printer.table(std::slice::from_ref(&certificate))?;
    } else {
        session.printer.item(&certificate, |_, _| ())?;
    }
    Ok(())
}

impl Row for v1::Certificate {
    const COLUMNS: &'static [Column] = &[
        Column::new("SERIAL"),
        Column::new("HOLDER"),
        Column::new("STATUS"),
        Column::new("AGE"),
        Column::new("ENDS"),
        Column::wide("CA"),
        Column::wide("REVOKED"),
        Column::wide("REASON"),
        Column::wide("IDENTITY"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let (word, tone) = match self.status() {
            v1::CertificateStatus::Unspecified => ("unknown", Tone::Doubtful),
            v1::CertificateStatus::Issued => ("issued", Tone::Faint),
            v1::CertificateStatus::Active => ("active", Tone::Good),
            v1::CertificateStatus::Superseded => ("superseded", Tone::Faint),
            v1::CertificateStatus::Expired => ("expired", Tone::Warning),
            v1::CertificateStatus::Revoked => ("revoked", Tone::Bad),
        };
        let ends = match age::until(now, self.expire_time.as_ref()) {
            Some(left) => format!("in {left}"),
            None => age::since(now, self.expire_time.as_ref()).map_or_else(String::new, |since| format!("{since} ago")),
        };
        vec![
            Cell::new(&self.serial),
            Cell::new(&self.name),
            Cell::toned(word, tone),
            age::since(now, self.issue_time.as_ref()).into(),
            Cell::new(ends),
            Cell::new(&self.ca),
            age::since(now, self.revoke_time.as_ref()).into(),
            Cell::new(&self.revoke_reason),
            Cell::new(&self.identity),
        ]
    }

    fn name(&self) -> String {
        self.serial.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}
