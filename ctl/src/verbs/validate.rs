//! `musterctl validate`: are manifests right, as far as that can be told without a controller. The rules are those that the
//! controller has.

use clap::Args;

use crate::{
    app::Session,
    count,
    manifests::{Batch, Filenames},
    output::Format,
    problem::Problem,
};

/// Check manifests without a controller
///
/// Fields, values, selectors, thresholds and names are checked with the controller's own rules; every mistake is shown with its file and line.
/// What only a controller knows, such as whether the user of a grant is there, `musterctl plan` says.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("source").required(true).args(["filenames", "schema"])),
    after_help = "Examples:\n  musterctl validate -f policies/\n  git diff --name-only '*.yaml' | xargs -n1 musterctl validate -f\n  \
                  musterctl validate --schema > manifest.schema.json"
)]
pub struct ValidateArgs {
    #[command(flatten)]
    filenames: Filenames,
    /// Print the JSON Schema of manifests, for editors
    #[arg(long)]
    schema: bool,
}

pub fn run(args: &ValidateArgs, session: &mut Session) -> Result<(), Problem> {
    if args.schema {
        return schema(session);
    }
    let what = format!("validate {}", args.filenames.filenames.join(", "));
    let batch = super::plan::read(
        &args.filenames,
        &super::plan::PruneArgs::default(),
        session,
        &what,
        "found valid",
    )?;
    let printer = &mut session.printer;
    match printer.format {
        Format::Table | Format::Wide => {
            let line = format!(
                "{} in {}: valid\n",
                count::of(batch.documents().len() as i64, "manifest", "manifests"),
                count::of(batch.files() as i64, "file", "files")
            );
            printer.terminal.out.write(&line)?;
        }
        Format::Name => printer.names(names(&batch))?,
        _ => {
            let items = batch.documents().iter().map(muster_proto::manifest::render).collect();
            printer.document(&crate::output::document::list(items, 0))?;
        }
    }
    Ok(())
}

/// In whatever format it is asked for: it is a document of its own.
fn schema(session: &mut Session) -> Result<(), Problem> {
    let schema = muster_proto::manifest::schema();
    let printer = &mut session.printer;
    match printer.format {
        Format::Yaml => printer.document(&schema)?,
        _ => printer.terminal.out.write(&format!("{schema:#}\n"))?,
    }
    Ok(())
}

fn names(batch: &Batch) -> Vec<String> {
    batch.documents().iter().map(crate::manifests::reference).collect()
}
