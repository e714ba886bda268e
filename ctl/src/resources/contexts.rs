//! `musterctl context`: the controllers that an operator uses, and whom to be there. The file is `crate::context`; nothing here asks
//! a controller.

use std::{path::PathBuf, time::SystemTime};

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    age,
    app::Session,
    context::{Stored, Summary, pem_files::PemFiles},
    exit::Exit,
    output::{
        Row,
        page::Page,
        style::Tone,
        table::{Cell, Column},
    },
    problem::{Problem, status::Asked},
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the contexts of the context file
    ///
    /// A star marks the one that is used when none is named by --context or MUSTER_CONTEXT.
    #[command(after_help = "Examples:\n  musterctl context list\n  musterctl context list -o name")]
    List,
    /// Show one context, without its secrets
    #[command(after_help = "Examples:\n  musterctl context get\n  musterctl context get prod -o yaml")]
    Get(GetArgs),
    /// Use another context from now on
    #[command(after_help = "Examples:\n  musterctl context use prod")]
    Use(NameArgs),
    /// Give a context another name
    #[command(after_help = "Examples:\n  musterctl context rename muster.example.com prod")]
    Rename(RenameArgs),
    /// Take a context out of the file
    ///
    /// With its key: whoever has no copy of that needs a new certificate. The operator or API key goes on to exist.
    #[command(after_help = "Examples:\n  musterctl context delete old-prod")]
    Delete(NameArgs),
    /// Have changes confirmed, by typing the name of the context
    ///
    /// Every command that changes something on the controller asks for the name, or wants --confirm NAME where there is no
    /// terminal. Commands that only read are as ever.
    #[command(
        after_help = "Examples:\n  musterctl context protect prod\n  musterctl apply -f policies/ --confirm prod"
    )]
    Protect(NameArgs),
    /// Let changes go unasked again
    #[command(after_help = "Examples:\n  musterctl context unprotect prod")]
    Unprotect(NameArgs),
    /// Write CA, certificate and key as PEM files, for other programs
    ///
    /// NAME.ca.pem, NAME.cert.pem and NAME.key.pem; with an API key NAME.header, which curl takes as --header @FILE. They are for
    /// their owner alone, and are to be written again after a renewal. --show-rpc prints commands that use them.
    #[command(
        name = "export-pem",
        after_help = "Examples:\n  musterctl context export-pem\n  musterctl --context prod context export-pem ~/prod-pem"
    )]
    ExportPem(ExportArgs),
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// Which one [default: the one that is used]
    #[arg(value_name = "CONTEXT")]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub struct NameArgs {
    #[arg(value_name = "CONTEXT")]
    name: String,
}

#[derive(Debug, Args)]
pub struct RenameArgs {
    #[arg(value_name = "CONTEXT")]
    name: String,
    /// What it is called from then on
    #[arg(value_name = "NEW_NAME", value_parser = NonEmptyStringValueParser::new())]
    new: String,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Where they go [default: the folder pem beside the context file]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    let config = session.global().config().map(ToOwned::to_owned);
    let open = || Stored::open(config.as_deref());
    match command {
        Command::List => list(&open()?, session),
        Command::Get(args) => get(&open()?, args.name, session),
        Command::Use(args) => {
            let mut stored = open()?;
            stored.set_current(&args.name)?;
            stored.save()?;
            session
                .printer
                .note(&format!("context {} is used from now on", args.name))?;
            show(&stored, &args.name, session)
        }
        Command::Rename(args) => {
            let mut stored = open()?;
            stored.rename(&args.name, &args.new)?;
            stored.save()?;
            show(&stored, &args.new, session)
        }
        Command::Delete(args) => {
            let mut stored = open()?;
            if stored.is_protected(&args.name) {
                session.confirm(&args.name).await?;
            }
            let was_current = stored.current() == Some(args.name.as_str());
            stored.delete(&args.name)?;
            stored.save()?;
            super::deleted("context", "context", &args.name, session)?;
            if was_current && stored.names().count() > 1 {
                session
                    .printer
                    .note("no context is the one that is used; choose one: musterctl context use NAME")?;
            }
            Ok(())
        }
        Command::Protect(args) => {
            let mut stored = open()?;
            stored.protect(&args.name, true)?;
            stored.save()?;
            show(&stored, &args.name, session)
        }
        Command::Unprotect(args) => {
            let mut stored = open()?;
            if stored.is_protected(&args.name) {
                session.confirm(&args.name).await?;
            }
            stored.protect(&args.name, false)?;
            stored.save()?;
            show(&stored, &args.name, session)
        }
        Command::ExportPem(args) => export(args, session),
    }
}

fn list(stored: &Stored, session: &mut Session) -> Result<(), Problem> {
    let summaries = stored.summaries();
    session.printer.list(&summaries, 0)?;
    for summary in &summaries {
        if let Some(problem) = &summary.problem {
            session
                .printer
                .note(&format!("context {} cannot be used: {problem}", summary.name))?;
        }
    }
    Ok(())
}

fn get(stored: &Stored, name: Option<String>, session: &mut Session) -> Result<(), Problem> {
    let chosen = name.or_else(|| session.global().context().map(str::to_owned));
    match chosen.or_else(|| stored.current().map(str::to_owned)) {
        Some(name) => show(stored, &name, session),
        None => Err(Problem::new(Exit::NotFound, "no context is the one that is used")
            .what("show the context that is used")
            .why(format!(
                "{} does not say which of its contexts it is",
                stored.path.display()
            ))
            .step("choose one: musterctl context use NAME")),
    }
}

pub fn show(stored: &Stored, name: &str, session: &mut Session) -> Result<(), Problem> {
    let summaries = stored.summaries();
    let summary = summaries.iter().find(|summary| summary.name == name);
    let summary = summary.ok_or_else(|| stored.missing(name))?;
    session
        .printer
        .item(summary, |page, now| describe(page, stored, summary, now))?;
    Ok(())
}

fn describe(page: &mut Page, stored: &Stored, summary: &Summary, now: Timestamp) {
    let yes = |is: bool, text: &'static str| if is { text } else { "" };
    page.field("Context", &summary.name)
        .field("File", stored.path.display().to_string())
        .field("Used", yes(summary.is_current, "unless another is named"))
        .field("Controller", &summary.server)
        .field("Known by", summary.server_name.as_deref().unwrap_or_default())
        .field("Trust domain", &summary.trust_domain)
        .field("You are", &summary.identity);
    if let Some(end) = summary.not_after {
        page.field(
            "Certificate ends",
            ends(end, now).unwrap_or_else(|| "it has ended".to_owned()),
        );
    }
    page.field(
        "Protected",
        yes(summary.is_protected, "changes are confirmed by its name"),
    );
    page.toned(
        "Cannot be used",
        summary.problem.as_deref().unwrap_or_default(),
        Tone::Bad,
    );
}

fn export(args: ExportArgs, session: &mut Session) -> Result<(), Problem> {
    let context = session.context(&Asked::new("write the context as PEM files"))?;
    let files = match &args.folder {
        Some(folder) => PemFiles::of(folder, &context),
        None => PemFiles::beside(&context),
    };
    let written = files.write(&context)?;
    let names: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    match session.printer.format {
        format if format.is_table() => session.printer.names(names)?,
        crate::output::Format::Name => session.printer.names(names)?,
        _ => session.printer.document(&json!({ "files": names }))?,
    }
    session
        .printer
        .note("they hold what opens the API: keep them to yourself, and write them again after a renewal")?;
    Ok(())
}

fn moment(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

/// "in 29d"; `None` when it has passed.
fn ends(end: SystemTime, now: Timestamp) -> Option<String> {
    let seconds = moment(end)?.as_second();
    let left = age::until(now, Some(&prost_types::Timestamp { seconds, nanos: 0 }))?;
    Some(format!("in {left}"))
}

impl Row for Summary {
    const COLUMNS: &'static [Column] = &[
        Column::new("USED"),
        Column::new("NAME"),
        Column::new("SERVER"),
        Column::new("YOU ARE"),
        Column::new("ENDS"),
        Column::new("PROTECTED"),
        Column::wide("TRUST DOMAIN"),
        Column::wide("KNOWN BY"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let end = match (&self.problem, self.not_after) {
            (Some(_), _) => Cell::toned("cannot be used", Tone::Bad),
            (None, None) => Cell::new(""),
            (None, Some(end)) => match ends(end, now) {
                Some(left) => Cell::new(left),
                None => Cell::toned("expired", Tone::Bad),
            },
        };
        vec![
            Cell::new(if self.is_current { "*" } else { "" }),
            Cell::new(&self.name),
            Cell::new(&self.server),
            Cell::new(&self.identity),
            end,
            Cell::new(if self.is_protected { "yes" } else { "" }),
            Cell::new(&self.trust_domain),
            Cell::new(self.server_name.as_deref().unwrap_or_default()),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "name": self.name,
            "server": self.server,
            "trustDomain": self.trust_domain,
            "identity": self.identity,
            "isCurrent": self.is_current,
            "isProtected": self.is_protected,
        });
        let mut add = |key: &str, text: Option<String>| {
            if let Some(text) = text {
                value[key] = json!(text);
            }
        };
        add("serverName", self.server_name.clone());
        add(
            "expireTime",
            self.not_after.and_then(moment).map(|time| time.to_string()),
        );
        add("problem", self.problem.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_table_of_contexts() {
        let summary = |name: &str, days: u64| Summary {
            name: name.to_owned(),
            server: "muster.example.com:9443".to_owned(),
            server_name: None,
            trust_domain: "example.muster".to_owned(),
            is_current: false,
            is_protected: false,
            identity: "user/mira".to_owned(),
            not_after: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400)),
            problem: None,
        };
        let all = [
            Summary {
                is_current: true,
                is_protected: true,
                ..summary("prod", 20_800)
            },
            Summary {
                server_name: Some("muster.example.com".to_owned()),
                ..summary("staging", 20_000)
            },
            Summary {
                problem: Some("its key is not there".to_owned()),
                ..summary("broken", 20_800)
            },
        ];
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let rows: Vec<_> = all.iter().map(|one| one.cells(now)).collect();
        insta::assert_snapshot!(crate::output::table::render(Summary::COLUMNS, &rows, true, None, false));
    }
}
