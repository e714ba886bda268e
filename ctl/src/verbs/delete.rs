//! `musterctl delete`: deletes what manifests name, as `apply` makes it: planned, asked about, and done in one call.

use clap::Args;

use super::{
    apply,
    plan::{self, PruneArgs, Wanted},
};
use crate::{
    app::Session,
    manifests::Filenames,
    problem::{Problem, status::Asked},
};

/// Delete what YAML manifests name
///
/// What counts of each manifest is its kind and its name, of a grant what it says. All of them go together, or none; what is not there stays
/// so. More than 50 agents, or 10 % of more than a few, are touched only when --yes says so, or whoever is asked. What is deleted can be had back:
/// musterctl rollback. One resource by its name: musterctl policy delete NAME, musterctl role delete NAME.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("source").required(true).args(["filenames"])),
    after_help = "Examples:\n  musterctl plan --delete -f trial/\n  musterctl delete -f trial/\n  musterctl export check --owner team-a | musterctl delete -f - --yes"
)]
pub struct DeleteArgs {
    #[command(flatten)]
    filenames: Filenames,
    /// Do not ask, however many machines it touches
    #[arg(short, long)]
    yes: bool,
}

pub async fn run(args: DeleteArgs, session: &mut Session) -> Result<(), Problem> {
    let what = format!("delete what is in {}", args.filenames.filenames.join(", "));
    // Before anything is waited for: see `app::run`.
    let batch = plan::read(&args.filenames, &PruneArgs::default(), session, &what, "deleted")?;
    let wanted = Wanted {
        manifests: batch.documents().to_vec(),
        delete: true,
        ..Wanted::default()
    };
    let asked = Asked::new(&what);
    let client = session.connect(&asked).await?;
    apply::do_planned(&wanted, &client, &asked, args.yes, !args.filenames.is_stdin(), session)
        .await
        .map_err(|problem| batch.located(problem, "deleted"))
}
