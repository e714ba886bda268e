//! `musterctl audit export`: the log as JSON lines, each a message of the API. The head comes first, so that the log that follows
//! reaches at least as far as it says, and a file that was cut short is known by it.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use muster_proto::{json, v1};

use super::{ExportArgs, heads};
use crate::{
    app::Session,
    count,
    output::document,
    problem::{Problem, status::Asked},
    terminal::Stream,
};

/// So much is written at once.
const CHUNK: usize = 1 << 16;

pub(super) async fn run(args: ExportArgs, session: &mut Session) -> Result<(), Problem> {
    let file = args.file.as_deref().map(heads::create).transpose()?;
    let exported = export(file, args.file.as_deref(), session).await;
    if exported.is_err() {
        heads::discard(args.file.as_deref());
    }
    let (entries, heads) = exported?;
    session.printer.note(&format!(
        "{} and {}{}",
        count::of(entries, "entry", "entries"),
        count::of(heads, "head", "heads"),
        match &args.file {
            Some(path) => format!("; look at them with: musterctl audit verify --from {}", path.display()),
            None => String::new(),
        }
    ))?;
    Ok(())
}

/// How many entries and heads there were.
async fn export(file: Option<File>, path: Option<&Path>, session: &mut Session) -> Result<(i64, i64), Problem> {
    use v1::export_audit_response::Item;

    let asked = Asked::new("export the audit log");
    let client = session.connect(&asked).await?;
    let head = heads::fetch(&client, &asked).await?;
    let mut lines = Lines {
        text: document::json_line(&json::to_json(&head)),
        file: file.map(BufWriter::new),
        out: &mut session.printer.terminal.out,
    };
    let failed = |error: io::Error| match path {
        Some(path) => heads::unwritten(path, &error),
        None => error.into(),
    };
    let refused = |status| client.problem(&asked, &status);
    let request = client.endless(v1::ExportAuditRequest { start_seq: 0 });
    let mut stream = client
        .audit()
        .export_audit(request)
        .await
        .map_err(refused)?
        .into_inner();
    let (mut entries, mut heads) = (0, 0);
    while let Some(response) = stream.message().await.map_err(refused)? {
        match &response.item {
            Some(Item::Link(_)) => entries += 1,
            Some(Item::Head(_)) => heads += 1,
            None => {}
        }
        lines.push(&response).map_err(failed)?;
    }
    lines.end().map_err(failed)?;
    Ok((entries, heads))
}

struct Lines<'a> {
    text: String,
    file: Option<BufWriter<File>>,
    out: &'a mut Stream,
}

impl Lines<'_> {
    fn push(&mut self, response: &v1::ExportAuditResponse) -> io::Result<()> {
        self.text.push_str(&document::json_line(&json::to_json(response)));
        if self.text.len() >= CHUNK { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let text = std::mem::take(&mut self.text);
        match &mut self.file {
            Some(file) => file.write_all(text.as_bytes()),
            None => self.out.write(&text),
        }
    }

    fn end(mut self) -> io::Result<()> {
        self.write()?;
        match self.file {
            Some(file) => file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all(),
            None => Ok(()),
        }
    }
}
