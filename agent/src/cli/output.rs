//! How the verbs print data: as text for people, as JSON or YAML for scripts.

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::failure::{Exit, Failure};

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Format {
    /// How to print.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
    Yaml,
}

impl Format {
    /// `text` is what people get.
    pub fn print<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let odd = |error: String| Failure::new(Exit::Failure, "failed to print").why(error);
        let text = match self.output {
            Output::Text => text(),
            Output::Json => serde_json::to_string_pretty(value).map_err(|error| odd(error.to_string()))?,
            Output::Yaml => serde_saphyr::to_string(value).map_err(|error| odd(error.to_string()))?,
        };
        write(&text)
    }
}

/// To stdout, with a line end. That nobody reads on is no failure.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n')) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, "failed to print").why(error.to_string()))
        }
        _ => Ok(()),
    }
}
