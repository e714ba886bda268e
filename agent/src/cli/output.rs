//! How the verbs print data and failures: as text for people, as JSON or YAML for scripts.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use crate::failure::{Exit, Failure};

#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct Format {
    /// How to print.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    #[default]
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

    /// To stderr, for who asked for JSON as one object on a line.
    pub fn complain(self, failure: &Failure) {
        match self.output {
            Output::Json => eprintln!("{}", failure.to_json()),
            Output::Text | Output::Yaml => eprintln!("muster-agent: {failure}"),
        }
    }

    /// The same of what is tried again after `delay`.
    pub fn complain_for_now(self, failure: &Failure, delay: Duration) {
        match self.output {
            Output::Json => {
                let mut object = failure.to_json();
                object["retryAfterMs"] = json!(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
                eprintln!("{object}");
            }
            Output::Text | Output::Yaml => eprintln!(
                "muster-agent: {}: {}; trying again in {:.1} s",
                failure.summary,
                failure.why,
                delay.as_secs_f64()
            ),
        }
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
