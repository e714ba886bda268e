//! `musterctl plan`: what `apply` would do, as the controller sees it. What both of them share is here: the request, and asking
//! for its plan.

mod file;
mod show;

use std::path::PathBuf;

use clap::Args;
use muster_proto::v1;

pub use file::PlanFile;
pub use show::{changes, report, tally};

use crate::{
    app::Session,
    client::Client,
    exit::Exit,
    manifests::{Batch, Filenames},
    problem::{Problem, status::Asked},
};

/// How many agents of each change are shown by name.
const NAMED: i32 = 5;
/// And where there is room for all.
const NAMED_IN_DOCUMENTS: i32 = 1_000;

/// Show what apply would do, and which machines it would touch
///
/// The controller works it out with what apply itself uses, and changes nothing. + is created, ~ updated, - deleted; each says which
/// agents start the check, stop it, or run it otherwise, and which have said that they do not support it. With --out the plan is kept in
/// a file, which `musterctl apply --plan FILE` does exactly, or refuses with exit code 8 once it would do something else.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("source").required(true).args(["filenames"])),
    after_help = "Examples:\n  musterctl plan -f policies/\n  musterctl plan -f policies/ --exit-code || echo 'something would change'\n  \
                  musterctl plan -f policies/ --owner team-web --prune\n  musterctl plan -f policies/ --out change.plan\n  musterctl apply --plan change.plan"
)]
pub struct PlanArgs {
    #[command(flatten)]
    filenames: Filenames,
    #[command(flatten)]
    prune: PruneArgs,
    /// Plan what `musterctl delete` would do with these manifests
    #[arg(long, conflicts_with_all = ["owner", "prune"])]
    delete: bool,
    /// Exit with 7 when something would change
    #[arg(long)]
    exit_code: bool,
    /// Keep the plan in a file, for apply --plan
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Whose resources they are, the same wherever manifests are given.
#[derive(Debug, Clone, Default, Args)]
pub struct PruneArgs {
    /// Who looks after manifests that do not say so themselves
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub owner: Option<String>,
    /// Delete what has this owner and is in none of the manifests
    #[arg(long, requires = "owner")]
    pub prune: bool,
}

/// What the controller is asked to plan, or to do.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub manifests: Vec<v1::Manifest>,
    pub owner: String,
    pub prune: bool,
    /// They go.
    pub delete: bool,
}

impl Wanted {
    pub fn new(manifests: Vec<v1::Manifest>, prune: &PruneArgs) -> Wanted {
        Wanted {
            manifests,
            owner: prune.owner.clone().unwrap_or_default(),
            prune: prune.prune,
            delete: false,
        }
    }

    /// The plan as it is now.
    pub async fn plan(&self, client: &Client, asked: &Asked, session: &Session) -> Result<v1::Plan, Problem> {
        let request = v1::PlanManifestsRequest {
            manifests: self.manifests.clone(),
            owner: self.owner.clone(),
            prune: self.prune,
            delete: self.delete,
            max_agents: if session.printer.format.is_table() {
                NAMED
            } else {
                NAMED_IN_DOCUMENTS
            },
        };
        let call = async |request| client.manifests().plan_manifests(request).await;
        let response = client.call(asked, call, request).await?;
        Ok(response.plan.unwrap_or_default())
    }

    /// Does what was planned, and nothing else.
    pub async fn apply(&self, client: &Client, asked: &Asked, digest: &str) -> Result<v1::Plan, Problem> {
        let request = v1::ApplyManifestsRequest {
            manifests: self.manifests.clone(),
            owner: self.owner.clone(),
            prune: self.prune,
            delete: self.delete,
            digest: digest.to_owned(),
        };
        let call = async |request| client.manifests().apply_manifests(request).await;
        let response = client.call(asked, call, request).await?;
        Ok(response.plan.unwrap_or_default())
    }
}

/// The manifests that a verb is given. None at all are right when everything of an owner goes.
pub fn read(
    filenames: &Filenames,
    prune: &PruneArgs,
    session: &mut Session,
    what: &str,
    undone: &str,
) -> Result<Batch, Problem> {
    let input = &mut session.printer.terminal.input;
    Batch::read(&filenames.filenames, input, what, undone, prune.prune)
}

pub async fn run(args: PlanArgs, session: &mut Session) -> Result<(), Problem> {
    let what = format!("plan {}", args.filenames.filenames.join(", "));
    // Before anything is waited for: see `app::run`.
    let batch = read(&args.filenames, &args.prune, session, &what, "planned")?;
    let wanted = Wanted {
        delete: args.delete,
        ..Wanted::new(batch.documents().to_vec(), &args.prune)
    };
    let asked = Asked::new(&what);
    let client = session.connect(&asked).await?;
    let plan = wanted
        .plan(&client, &asked, session)
        .await
        .map_err(|problem| batch.located(problem, "planned"))?;
    show::plan(&plan, session)?;
    if let Some(path) = &args.out {
        PlanFile {
            wanted,
            plan: plan.clone(),
        }
        .write(path)
        .map_err(|problem| problem.what(&what))?;
        let note = format!("kept; to do exactly this: musterctl apply --plan {}", path.display());
        session.printer.note(&note)?;
    }
    match args.exit_code && changes(&plan).next().is_some() {
        true => Err(Problem::silent_with(Exit::Changes)),
        false => Ok(()),
    }
}
