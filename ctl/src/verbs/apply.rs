//! `musterctl apply`: makes the controller's policies what the manifests say. Everything is read and checked here first,
//! so that a mistake is shown with its line and nothing is sent; then all goes in one call, which does all or nothing.

mod files;
mod findings;
mod manifests;

use clap::Args;
use muster_proto::v1;
use serde_json::{Value, json};

use crate::{
    app::Session,
    count,
    exit::Exit,
    output::{Format, Row as _, document, style::Tone},
    problem::{Problem, status::Asked},
    resources::policy,
};
use files::Source;
use findings::Finding;
use manifests::Manifests;

/// As many as one call may hold.
const MOST: usize = 1_000;
/// So many mistakes are shown; a reader learns nothing from the next hundred.
const MOST_SHOWN: usize = 50;

/// Create or update policies from YAML manifests
///
/// All manifests are read and checked first; if anything is wrong in any of them, every mistake is shown with its file and
/// line, and nothing is sent. Then all are applied together, or none. What is already so stays untouched, so that the
/// same command can be run again and again.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  musterctl apply -f policies/\n  musterctl apply -f disk.yaml -f load.yaml\n  musterctl policy get disk-root -o yaml | sed 's/60s/30s/' | musterctl apply -f -\n\n\
                  A manifest:\n  apiVersion: muster/v1\n  kind: Check\n  metadata: { name: disk-root }\n  spec:\n    selector: env=prod\n    \
                  schedule: { interval: 60s, attempts: 3 }\n    run: { disk: { path: /, warning: \"20%\", critical: \"10%\" } }"
)]
pub struct ApplyArgs {
    /// A file, a folder with all *.yaml and *.yml below it, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    filenames: Vec<String>,
}

pub async fn run(args: ApplyArgs, session: &mut Session) -> Result<(), Problem> {
    let what = format!("apply {}", args.filenames.join(", "));
    // Before anything is waited for: see `app::run`.
    let sources =
        files::read(&args.filenames, &mut session.printer.terminal.input).map_err(|error| unreadable(&what, &error))?;
    let manifests = Manifests::read(&sources).map_err(|findings| wrong(&what, &sources, findings))?;
    check_number(&what, manifests.policies.len())?;

    let asked = Asked::new(&what);
    let client = session.connect(&asked).await?;
    let request = v1::ApplyPoliciesRequest {
        policies: manifests.policies.clone(),
    };
    let response = client
        .call(
            &asked,
            async |request| client.policies().apply_policies(request).await,
            request,
        )
        .await;
    let response = response.map_err(|problem| located(problem, &manifests, &sources))?;
    report(&response, session)
}

fn unreadable(what: &str, error: &files::Error) -> Problem {
    Problem::new(Exit::Usage, "the manifests cannot be read; nothing was applied")
        .what(what)
        .why(error.to_string())
        .step("-f takes a file, a folder with .yaml or .yml files, or - for standard input")
}

fn check_number(what: &str, number: usize) -> Result<(), Problem> {
    let problem = match number {
        0 => Problem::new(Exit::Usage, "there is nothing to apply")
            .why("what was read holds comments and blank lines only")
            .step("write a manifest; musterctl apply --help shows one"),
        1..=MOST => return Ok(()),
        _ => Problem::new(Exit::Usage, "too many policies for one call; nothing was applied")
            .why(format!(
                "{} were read, and {} are applied together",
                count::grouped(number as i64),
                count::grouped(MOST as i64)
            ))
            .step("apply the folders one after the other"),
    };
    Err(problem.what(what))
}

fn wrong(what: &str, sources: &[Source], findings: Vec<Finding>) -> Problem {
    let mut files: Vec<usize> = findings.iter().map(|finding| finding.source).collect();
    files.dedup();
    let mut problem = Problem::new(
        Exit::Usage,
        format!(
            "{} in {}; nothing was applied",
            count::of(findings.len() as i64, "mistake", "mistakes"),
            count::of(files.len() as i64, "manifest file", "manifest files")
        ),
    )
    .what(what)
    .why("a manifest is applied only when all that is given with it is right")
    .step("correct the lines above and run the same command again");
    show(&mut problem, sources, &findings);
    problem
}

/// Puts the places of mistakes that the controller found, which names fields of the request, in terms of lines.
fn located(mut problem: Problem, manifests: &Manifests, sources: &[Source]) -> Problem {
    let findings: Vec<Finding> = problem
        .fields
        .iter()
        .filter_map(|(field, description)| manifests.locate(field, description))
        .collect();
    if !findings.is_empty() {
        problem.headline.push_str("; nothing was applied");
        "the controller refuses what is named above".clone_into(&mut problem.why);
        problem.steps = vec!["correct the lines above and run the same command again".to_owned()];
        show(&mut problem, sources, &findings);
    }
    problem
}

fn show(problem: &mut Problem, sources: &[Source], findings: &[Finding]) {
    problem.details = findings
        .iter()
        .take(MOST_SHOWN)
        .map(|finding| findings::render(finding, sources))
        .collect();
    if let Some(more @ 1..) = findings.len().checked_sub(MOST_SHOWN) {
        problem.details.push(format!(
            "... and {}",
            count::of(more as i64, "more mistake", "more mistakes")
        ));
    }
}

/// "Check/disk-root created", a line each.
fn report(response: &v1::ApplyPoliciesResponse, session: &mut Session) -> Result<(), Problem> {
    let printer = &mut session.printer;
    let policies = || {
        response
            .results
            .iter()
            .filter_map(|result| Some((result.policy.as_ref()?, result.action())))
    };
    match printer.format {
        Format::Table | Format::Wide => {
            let colour = printer.terminal.out.colour;
            let lines: String = policies()
                .map(|(policy, action)| {
                    let (word, tone) = action_words(action);
                    format!("{} {}\n", policy::reference(policy), tone.paint(word, colour))
                })
                .collect();
            printer.terminal.out.write(&lines)?;
        }
        Format::Json | Format::Yaml => {
            let items: Vec<Value> = policies()
                .map(|(policy, action)| json!({ "action": action.as_str_name(), "policy": policy.json() }))
                .collect();
            printer.document(&document::list(items, response.revision))?;
        }
        Format::Name => printer.names(policies().map(|(policy, _)| policy::reference(policy)))?,
    }
    for (policy, _) in policies() {
        if policy.counts.is_some_and(|counts| counts.assigned == 0) {
            printer.note(&format!("{} matches no agent now", policy::reference(policy)))?;
        }
    }
    Ok(())
}

fn action_words(action: v1::ApplyAction) -> (&'static str, Tone) {
    match action {
        v1::ApplyAction::Created => ("created", Tone::Good),
        v1::ApplyAction::Updated => ("updated", Tone::Warning),
        v1::ApplyAction::Unchanged => ("unchanged", Tone::Faint),
        v1::ApplyAction::Unspecified => ("applied", Tone::Plain),
    }
}
