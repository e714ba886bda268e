//! `musterctl apply`: makes the controller's configuration what the manifests say. Everything is read and checked here first, so
//! that a mistake is shown with its line and nothing is sent; then it is planned, asked about where it touches many machines, and
//! done in one call, which does exactly what was planned, or nothing.

use std::path::PathBuf;

use clap::Args;
use muster_proto::v1;

use super::plan::{self, PlanFile, PruneArgs, Wanted};
use crate::{
    app::Session,
    client::Client,
    count,
    exit::Exit,
    manifests::Filenames,
    problem::{Problem, status::Asked},
};

/// So many agents are changed without asking,
const UNASKED: i32 = 50;
/// or this part of them, in percent, when it is more than a few.
const UNASKED_PERCENT: i64 = 10;
const FEW: i32 = 5;
/// A plan that is out of date before it is done is made again so often, as long as nobody was asked about it.
const TRIES: usize = 3;

/// Create, update or delete what YAML manifests describe
///
/// All manifests are read and checked first; if anything is wrong in any of them, every mistake is shown with its file and
/// line, and nothing is sent. Then all are applied together, or none. What is already so stays untouched, so that the
/// same command can be run again and again. More than 50 agents, or 10 % of more than a few, are touched only when --yes says so, or
/// whoever is asked.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("source").required(true).args(["filenames", "plan"])),
    after_help = "Examples:\n  musterctl apply -f policies/\n  musterctl apply -f disk.yaml -f load.yaml\n  musterctl policy get disk-root -o yaml | sed 's/60s/30s/' | musterctl apply -f -\n  \
                  musterctl apply -f policies/ --owner team-web --prune --yes\n  musterctl apply --plan change.plan\n\n\
                  A manifest:\n  apiVersion: muster/v1\n  kind: Check\n  metadata: { name: disk-root }\n  spec:\n    selector: env=prod\n    \
                  schedule: { interval: 60s, attempts: 3 }\n    run: { disk: { path: /, warning: \"20%\", critical: \"10%\" } }\n\n\
                  Kinds: Check, Role (spec: description, permissions), Grant (spec: user or apiKey, role, scope),\n  \
                  TokenTemplate (spec: ttl, uses, labels, description, source, allowReenroll, ephemeral, onClone)."
)]
pub struct ApplyArgs {
    #[command(flatten)]
    filenames: Filenames,
    /// Do what musterctl plan --out has kept, if it is still that
    #[arg(long, value_name = "FILE", conflicts_with_all = ["filenames", "owner", "prune"])]
    plan: Option<PathBuf>,
    #[command(flatten)]
    prune: PruneArgs,
    /// Do not ask, however many machines it touches
    #[arg(short, long)]
    yes: bool,
}

pub async fn run(args: ApplyArgs, session: &mut Session) -> Result<(), Problem> {
    if let Some(path) = &args.plan {
        let what = format!("apply the plan {}", path.display());
        let PlanFile { wanted, plan } = PlanFile::read(path).map_err(|problem| problem.what(&what))?;
        let asked = Asked::new(&what);
        let client = session.connect(&asked).await?;
        // Whoever names a plan has seen it.
        let done = wanted.apply(&client, &asked, &plan.digest).await?;
        return plan::report(&done, session);
    }
    let what = format!("apply {}", args.filenames.filenames.join(", "));
    // Before anything is waited for: see `app::run`.
    let batch = plan::read(&args.filenames, &args.prune, session, &what, "applied")?;
    let wanted = Wanted::new(batch.documents().to_vec(), &args.prune);
    let asked = Asked::new(&what);
    let client = session.connect(&asked).await?;
    do_planned(&wanted, &client, &asked, args.yes, !args.filenames.is_stdin(), session)
        .await
        .map_err(|problem| batch.located(problem, "applied"))
}

/// Plans, asks where that is called for, and does it.
pub async fn do_planned(
    wanted: &Wanted,
    client: &Client,
    asked: &Asked,
    yes: bool,
    can_ask: bool,
    session: &mut Session,
) -> Result<(), Problem> {
    for attempt in 1.. {
        let plan = wanted.plan(client, asked, session).await?;
        let was_asked = !yes && is_far_reaching(&plan);
        if was_asked {
            agree(&plan, asked, can_ask, session)?;
        }
        match wanted.apply(client, asked, &plan.digest).await {
            Err(problem) if is_outdated(&problem) && !was_asked && attempt < TRIES => {}
            Err(problem) => return Err(problem),
            Ok(done) => {
                plan::report(&done, session)?;
                for change in plan::changes(&plan) {
                    let is_check = change.kind == muster_proto::manifest::CHECK;
                    if is_check && change.action() == v1::PlannedAction::Create && change.starts == 0 {
                        let note = format!("{}/{} matches no agent now", change.kind, change.name);
                        session.printer.note(&note)?;
                    }
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

fn is_outdated(problem: &Problem) -> bool {
    problem.reason.as_deref() == Some("PLAN_OUTDATED")
}

fn is_far_reaching(plan: &v1::Plan) -> bool {
    let touched = plan.agents_touched;
    let is_large_part = i64::from(touched) * 100 > i64::from(plan.agents_total) * UNASKED_PERCENT;
    touched > UNASKED || (touched > FEW && is_large_part)
}

/// Asks whoever sits there; nobody is asked twice, and silence is no.
fn agree(plan: &v1::Plan, asked: &Asked, can_ask: bool, session: &mut Session) -> Result<(), Problem> {
    let tally = plan::tally(plan);
    let refused = |why: String| {
        Problem::new(Exit::Usage, "this touches many machines; nothing was applied")
            .what(asked.what())
            .why(why)
            .step("look at it: musterctl plan, with the same arguments")
            .step("do it: the same command with --yes")
    };
    let names: String = plan::changes(plan)
        .map(|change| format!("  {}/{}\n", change.kind, change.name))
        .collect();
    let question = format!("{names}{tally}\nApply this? [y/N] ");
    let answer = match can_ask {
        true => session.printer.terminal.aside.ask(&question)?,
        false => None,
    };
    let Some(answer) = answer else {
        return Err(refused(tally));
    };
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refused(format!(
            "{} was not agreed to",
            count::of(i64::from(plan.agents_touched), "agent", "agents")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_far_is_asked_about() {
        let plan = |agents_touched, agents_total| v1::Plan {
            agents_touched,
            agents_total,
            ..Default::default()
        };
        for (touched, total, is_asked) in [
            (0, 0, false),
            (1, 1, false),
            (5, 5, false),
            (6, 6, true),
            (6, 60, false),
            (7, 60, true),
            (50, 1_000, false),
            (51, 10_000, true),
        ] {
            assert_eq!(is_far_reaching(&plan(touched, total)), is_asked, "{touched} of {total}");
        }
    }
}
