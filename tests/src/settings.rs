//! What the environment tells the harness. The one place of this crate that reads it.
#![expect(clippy::disallowed_methods, reason = "a test has no command line and no config file")]

use std::{env, path::PathBuf};

/// Where the binaries are, when they are not those that cargo built beside the test.
pub fn binary_dir() -> Option<PathBuf> {
    env::var_os("MUSTER_TEST_BIN_DIR").map(PathBuf::from)
}

/// A database of the PostgreSQL in which others may be created. Empty: SQLite, and PostgreSQL has a run of its own.
pub fn postgres_url() -> Option<String> {
    env::var("MUSTER_TEST_POSTGRES_URL").ok()
}

/// How many agents the proof of identity over time takes, when it is to be run in full.
pub fn fleet() -> Option<usize> {
    let count = env::var("MUSTER_TEST_FLEET").ok()?;
    Some(count.parse().expect("MUSTER_TEST_FLEET is a number of agents"))
}

/// The cargo that runs the test.
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Where child processes look for programs.
pub fn path() -> String {
    env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned())
}
