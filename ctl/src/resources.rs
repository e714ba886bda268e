//! What the controller keeps, one file for each resource: its commands and how it looks. What acts on several of them
//! is under `verbs`.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    app::Session,
    output::{Format, Row},
    problem::Problem,
};

pub mod agent;
pub mod api_key;
pub mod audit;
pub mod ca;
pub mod cert;
pub mod contexts;
pub mod controller;
pub mod event;
pub mod grant;
pub mod history;
pub mod log;
pub mod metric;
pub mod of_agents;
pub mod policy;
pub mod result;
pub mod role;
pub mod state;
pub mod token;
pub mod token_template;
pub mod user;

/// Lines of `-l`, the same wherever agents are chosen.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SelectorArgs {
    /// Agents with these labels: env=prod,role!=db,zone in (eu,us),gpu,!spot [default: all]
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub selector: Option<String>,
}

impl SelectorArgs {
    /// As the API wants it: empty for all.
    pub fn text(&self) -> String {
        self.selector.clone().unwrap_or_default()
    }
}

/// `--scope`, the same wherever something is granted.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ScopeArgs {
    /// Only for machines with these labels: env=dev,zone in (eu,us),gpu,!spot [default: everything]
    #[arg(long, value_name = "SELECTOR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    scope: Option<String>,
}

impl ScopeArgs {
    /// As the API wants it: empty for everything.
    pub fn text(&self) -> String {
        self.scope.clone().unwrap_or_default()
    }
}

/// What a list without `--limit` is: everything.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LimitArgs {
    /// Show no more than this many [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl LimitArgs {
    pub fn count(&self) -> Option<usize> {
        self.limit.map(|limit| limit as usize)
    }

    /// What is said, else `usual`.
    fn or(&self, usual: Option<usize>) -> Option<usize> {
        self.count().or(usual)
    }
}

/// Labels as people write them: "env=prod,role=db".
pub fn labels(labels: &BTreeMap<String, String>) -> String {
    let pair = |(key, value): (&String, &String)| format!("{key}={value}");
    labels.iter().map(pair).collect::<Vec<_>>().join(",")
}

/// The newest of what may be millions, with a word below when it is not the whole list.
fn show_newest<T: Row>(items: &[T], has_more: bool, session: &mut Session) -> Result<(), Problem> {
    session.printer.list(items, 0)?;
    if has_more {
        let shown = crate::count::grouped(items.len() as i64);
        let note = format!("the newest {shown} are shown; --limit or --since shows more");
        session.printer.note(&note)?;
    }
    Ok(())
}

/// Says that something is gone: "role deployer deleted", or as the format has it what named it.
fn deleted(kind: &str, key: &str, name: &str, session: &mut Session) -> Result<(), Problem> {
    let printer = &mut session.printer;
    match printer.format {
        Format::Table | Format::Wide => {
            let line = crate::output::text::line(&format!("{kind} {name} deleted")) + "\n";
            printer.terminal.out.write(&line)?;
        }
        Format::Json | Format::Yaml => printer.document(&json!({ key: name }))?,
        Format::Name => printer.names([name.to_owned()])?,
    }
    Ok(())
}

#[cfg(test)]
mod tests;
