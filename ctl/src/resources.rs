//! What the controller keeps, one file for each resource: its commands and how it looks. What acts on several of them
//! is under `verbs`.

pub mod agent;
pub mod ca;
pub mod cert;
pub mod controller;
pub mod event;
pub mod history;
pub mod metric;
pub mod policy;
pub mod result;
pub mod state;
pub mod token;
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
}
