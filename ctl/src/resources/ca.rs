//! `musterctl ca`: the controller's CA, and its rotation.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use crate::{
    age,
    app::Session,
    count,
    exit::Exit,
    output::{
        Row,
        style::Tone,
        table::{Cell, Column},
    },
    problem::{Problem, status::Asked},
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the CAs and how far a rotation has come
    ///
    /// AGENTS have their newest certificate from that CA, GRACE of these have expired and may only renew. Below: how many agents
    /// have taken over the trust bundle, and the first of those that have not.
    #[command(after_help = "Examples:\n  musterctl ca status\n  musterctl ca status -o json | jq '.waitingFor[].name'")]
    Status,
    /// Make the next CA
    ///
    /// All agents are told to trust it beside the present one. Nothing else changes. Needs the root's key at its place on the
    /// controller's disk.
    #[command(after_help = "Examples:\n  musterctl ca prepare --yes")]
    Prepare(StepArgs),
    /// Let the prepared CA issue
    ///
    /// Agents renew their certificates within minutes. Refused while connected agents have not taken over the trust bundle.
    #[command(after_help = "Examples:\n  musterctl ca activate --yes\n  musterctl ca activate --yes --force")]
    Activate(ActivateArgs),
    /// End the trust in the old CA
    ///
    /// Refused while an agent that can still come back by itself needs it, unless it is left behind. Tokens that were given out
    /// before stay good until they end. With --compromised at once and whoever needs it. Agents that are left behind, or need
    /// it then, need a token to come back.
    #[command(
        after_help = "Examples:\n  musterctl ca retire --yes\n  musterctl ca retire --yes --leave-behind db-01.fra\n  \
                      musterctl ca retire --yes --compromised"
    )]
    Retire(RetireArgs),
}

#[derive(Debug, Args)]
pub struct StepArgs {
    /// Do it: without this it is only said what would be done
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub struct ActivateArgs {
    #[command(flatten)]
    step: StepArgs,
    /// Though connected agents have not taken over the trust bundle
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub struct RetireArgs {
    #[command(flatten)]
    step: StepArgs,
    /// The key of the old CA is in other hands
    #[arg(long)]
    compromised: bool,
    /// Names or UUIDs of agents that need the old CA and are given up
    #[arg(long, value_name = "AGENT", num_args = 1.., value_delimiter = ',')]
    leave_behind: Vec<String>,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::Status => {
            let asked = Asked::new("show the CAs");
            let client = session.connect(&asked).await?;
            let call = async |request| client.cas().get_ca_status(request).await;
            let response = client.call(&asked, call, v1::GetCaStatusRequest {}).await?;
            show(response.status, session)
        }
        Command::Prepare(args) => {
            let asked = asked(
                &args,
                "prepare",
                "the next CA is made, and all agents are told to trust it",
            )?;
            let client = session.connect(&asked).await?;
            let call = async |request| client.cas().prepare_ca(request).await;
            let response = client.call(&asked, call, v1::PrepareCaRequest {}).await?;
            show(response.status, session)
        }
        Command::Activate(args) => {
            let asked = asked(&args.step, "activate", "the prepared CA issues, and all agents renew")?;
            let client = session.connect(&asked).await?;
            let request = v1::ActivateCaRequest { force: args.force };
            let call = async |request| client.cas().activate_ca(request).await;
            let response = client.call(&asked, call, request).await?;
            show(response.status, session)
        }
        Command::Retire(args) => {
            let asked = asked(&args.step, "retire", "nobody trusts the old CA any longer")?;
            let client = session.connect(&asked).await?;
            let request = v1::RetireCaRequest {
                compromised: args.compromised,
                leave_behind: args.leave_behind,
            };
            let call = async |request| client.cas().retire_ca(request).await;
            let response = client.call(&asked, call, request).await?;
            show(response.status, session)
        }
    }
}

fn asked(step: &StepArgs, verb: &str, effect: &str) -> Result<Asked, Problem> {
    if step.yes {
        return Ok(Asked::new(format!("{verb} the CA")));
    }
    Err(
        Problem::new(Exit::Usage, format!("ca {verb} changes whom the whole fleet trusts"))
            .what(format!("{verb} the CA"))
            .why(format!("with it {effect}; nothing was done"))
            .step("see how things stand: musterctl ca status")
            .step(format!("do it: musterctl ca {verb} --yes")),
    )
}

fn show(status: Option<v1::CaStatus>, session: &mut Session) -> Result<(), Problem> {
    let status = status.unwrap_or_default();
    let printer = &mut session.printer;
    if !printer.format.is_table() {
        if printer.format == crate::output::Format::Name {
            printer.names(status.items.iter().map(Row::name))?;
        } else {
            printer.document(&json::to_json(&status))?;
        }
        return Ok(());
    }
    printer.table(&status.items)?;
    let agents = count::of(i64::from(status.agents_total), "agent", "agents");
    printer.note(&format!(
        "trust bundle {}: taken over by {} of {agents}",
        status.trust_bundle_version, status.agents_acknowledged
    ))?;
    for agent in &status.waiting_for {
        printer.note(&format!("{} ({}) {}", agent.name, agent.id, agent.reason))?;
    }
    Ok(())
}

impl Row for v1::Ca {
    const COLUMNS: &'static [Column] = &[
        Column::new("CA"),
        Column::new("PHASE"),
        Column::new("AGENTS"),
        Column::new("GRACE"),
        Column::new("TOKENS"),
        Column::new("ENDS"),
        Column::wide("ROOT ENDS"),
        Column::wide("PIN"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let (word, tone) = match self.phase() {
            v1::CaPhase::Unspecified => ("unknown", Tone::Doubtful),
            v1::CaPhase::Prepared => ("prepared", Tone::Warning),
            v1::CaPhase::Active => ("active", Tone::Good),
            v1::CaPhase::Old => ("old", Tone::Warning),
            v1::CaPhase::Retired if self.is_compromised => ("compromised", Tone::Bad),
            v1::CaPhase::Retired => ("retired", Tone::Faint),
        };
        let ends = |time: Option<&prost_types::Timestamp>| {
            age::until(now, time).map_or_else(|| "ended".to_owned(), |left| format!("in {left}"))
        };
        vec![
            Cell::new(&self.id),
            Cell::toned(word, tone),
            Cell::new(self.agents.to_string()),
            Cell::new(self.agents_in_grace.to_string()),
            Cell::new(self.tokens.to_string()),
            Cell::new(ends(self.expire_time.as_ref())),
            Cell::new(ends(self.root_expire_time.as_ref())),
            Cell::new(&self.pin),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}
