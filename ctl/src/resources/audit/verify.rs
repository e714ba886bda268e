//! `musterctl audit verify`: the log of a controller, or a file of `audit export`, and what is wrong with it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use muster_proto::{json, v1};
use serde_json::json;

use super::{
    VerifyArgs, heads,
    judge::{Judge, Kept, Verdict},
};
use crate::{
    app::Session,
    count,
    exit::Exit,
    output::{Format, page::Page, style::Tone},
    problem::{Problem, status::Asked},
};

const WHAT: &str = "verify the audit log";
/// No line of an export is as long.
const MAX_LINE: u64 = 1 << 20;

pub(super) async fn run(args: VerifyArgs, session: &mut Session) -> Result<(), Problem> {
    let kept: Vec<Kept> = args
        .heads
        .iter()
        .map(|path| heads::read(path))
        .collect::<Result<_, _>>()?;
    let verdict = match &args.from {
        Some(path) => of_file(path, &kept)?,
        None => of_controller(&kept, session).await?,
    };
    show(&verdict, session)?;
    match verdict.wrong.len() {
        0 => Ok(()),
        number => Err(altered(number)),
    }
}

async fn of_controller(kept: &[Kept], session: &mut Session) -> Result<Verdict, Problem> {
    let asked = Asked::new(WHAT);
    let client = session.connect(&asked).await?;
    // Before the log, which then has to reach at least that far.
    let shown = heads::fetch(&client, &asked).await?;
    let mut judge = Judge::new(kept, &shown);
    let refused = |status| client.problem(&asked, &status);
    let request = client.endless(v1::ExportAuditRequest { start_seq: 0 });
    let mut stream = client
        .audit()
        .export_audit(request)
        .await
        .map_err(refused)?
        .into_inner();
    while let Some(response) = stream.message().await.map_err(refused)? {
        response.item.into_iter().for_each(|item| judge.item(item));
    }
    Ok(judge.finish())
}

fn of_file(path: &Path, kept: &[Kept]) -> Result<Verdict, Problem> {
    let wrong = |line: usize, why: String| {
        Problem::new(Exit::Usage, format!("{} is no export of an audit log", path.display()))
            .what(WHAT)
            .why(format!("line {line}: {why}"))
            .step("give it a file that was made with: musterctl audit export --file FILE")
    };
    let file = File::open(path).map_err(|error| {
        Problem::new(Exit::Usage, format!("{} cannot be read", path.display()))
            .what(WHAT)
            .why(error.to_string())
            .step("name a file that was made with: musterctl audit export --file FILE")
    })?;
    let mut reader = BufReader::new(file);
    let mut judge = None;
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_line(&mut line);
        if read.map_err(|error| wrong(number, error.to_string()))? == 0 {
            break;
        }
        let failed = |error: serde_json::Error| wrong(number, error.to_string());
        match &mut judge {
            None => {
                let shown = json::from_json(&line).map_err(failed)?;
                judge = Some(Judge::new(kept, &shown));
            }
            Some(judge) => {
                let response: v1::ExportAuditResponse = json::from_json(&line).map_err(failed)?;
                response.item.into_iter().for_each(|item| judge.item(item));
            }
        }
    }
    let judge = judge.ok_or_else(|| wrong(1, "the file is empty".to_owned()))?;
    Ok(judge.finish())
}

fn show(verdict: &Verdict, session: &mut Session) -> Result<(), Problem> {
    let printer = &mut session.printer;
    let mut lines = verdict.wrong.iter().map(ToString::to_string);
    match printer.format {
        Format::Table | Format::Wide if verdict.wrong.is_empty() => printer.page(&page(verdict))?,
        Format::Table | Format::Wide | Format::Name => printer.names(lines)?,
        Format::Json | Format::Yaml => printer.document(&json!({
            "good": verdict.wrong.is_empty(),
            "entries": verdict.entries.to_string(),
            "firstEntry": verdict.first.to_string(),
            "lastEntry": verdict.last.to_string(),
            "signedEntry": verdict.signed.to_string(),
            "heads": verdict.heads,
            "keyIds": verdict.key_ids,
            "findings": lines.by_ref().collect::<Vec<_>>(),
            "notes": verdict.notes,
        }))?,
    }
    for note in &verdict.notes {
        printer.note(note)?;
    }
    Ok(())
}

fn page(verdict: &Verdict) -> Page {
    let mut page = Page::default();
    let range = match verdict.entries {
        0 => "none".to_owned(),
        number => format!(
            "{} ({} to {})",
            count::grouped(number as i64),
            verdict.first,
            verdict.last
        ),
    };
    page.toned("Verdict", "good: the log is the one that was signed", Tone::Good)
        .field("Entries", range)
        .field(
            "Signed",
            format!(
                "up to entry {}, by {}",
                verdict.signed,
                count::of(verdict.heads as i64, "head", "heads")
            ),
        )
        .field("Key", verdict.key_ids.join(", "));
    page
}

fn altered(number: usize) -> Problem {
    Problem::new(
        Exit::Altered,
        format!(
            "the audit log is not the one that was written: {}",
            count::of(number as i64, "finding", "findings")
        ),
    )
    .what(WHAT)
    .why("what is on standard output, a line each; whoever did that could write to the database or has the controller's keys")
    .step("keep what is there now: musterctl audit export --file FILE, and a copy of the database")
    .step("compare it with heads that were kept elsewhere, and with \"audit log signed\" in the controller's log")
    .step("a backup that was restored takes the log back, too: musterctl event list --reason BACKUP_RESTORED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_a_good_log() {
        let verdict = Verdict {
            entries: 1_204,
            first: 31,
            last: 1_234,
            signed: 1_230,
            heads: 57,
            key_ids: vec!["sha256:0123".to_owned()],
            wrong: Vec::new(),
            notes: Vec::new(),
        };
        insta::assert_snapshot!(page(&verdict).render(None, false));
    }

    #[test]
    fn a_file_that_is_no_export_is_told_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let why = |content: &str| {
            std::fs::write(&path, content).unwrap();
            of_file(&path, &[]).unwrap_err().why.clone()
        };
        assert_eq!(why(""), "line 1: the file is empty");
        assert!(why("nothing").starts_with("line 1: "));
        assert!(why("{}\n{}\n{\"link\": 7}\n").starts_with("line 3: "));
        assert_eq!(of_file(&folder.path().join("none"), &[]).unwrap_err().exit, Exit::Usage);
    }
}
