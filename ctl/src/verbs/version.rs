//! `musterctl version`.

use serde_json::json;

use crate::{app::Session, output::Format, problem::Problem};

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn run(session: &mut Session) -> Result<(), Problem> {
    let printer = &mut session.printer;
    match printer.format {
        Format::Table | Format::Wide => printer.terminal.out.write(&format!("musterctl {VERSION}\n"))?,
        Format::Json | Format::Yaml => printer.document(&json!({ "version": VERSION }))?,
        Format::Name => printer.names([VERSION.to_owned()])?,
    }
    Ok(())
}
