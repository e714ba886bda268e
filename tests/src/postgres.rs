//! A database of its own for each controller, when there is a PostgreSQL to make it in. SQLite needs none.

mod server;

use std::sync::{
    Once,
    atomic::{AtomicU32, Ordering},
};

use crate::{ctl::Outcome, process, settings, tools};

pub use server::Server;

/// A fresh database, dropped with the value.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// One in the PostgreSQL that the environment names, if it names one.
    pub fn create() -> Option<Self> {
        static SAID: Once = Once::new();
        let Some(server) = settings::postgres_url() else {
            SAID.call_once(|| tools::skipped("all of it on PostgreSQL", "MUSTER_TEST_POSTGRES_URL is not set"));
            return None;
        };
        if server.is_empty() {
            return None;
        }
        Some(Self::create_on(server))
    }

    /// One in this PostgreSQL.
    pub fn create_on(server: String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "muster_{}_{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        psql(&server, &format!("CREATE DATABASE {name}")).expect_code(0);
        Self { server, name }
    }

    /// The names of its tables.
    pub fn tables(&self) -> String {
        let sql = "SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'public'";
        let mut command = process::command("psql");
        command.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--command",
            sql,
            &self.url(),
        ]);
        Outcome::of(command).expect_code(0).stdout.trim().to_owned()
    }

    /// Runs a statement, beside the controller that uses the database.
    pub fn execute(&self, statement: &str) {
        psql(&self.url(), statement).expect_code(0);
    }

    pub fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').expect("the URL names a database");
        format!("{server}/{}", self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // FORCE ends the connections of a controller that was killed and not yet noticed.
        psql(
            &self.server,
            &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name),
        );
    }
}

fn psql(url: &str, statement: &str) -> Outcome {
    let mut command = process::command("psql");
    command.args(["--no-psqlrc", "--quiet", "--command", statement, url]);
    Outcome::of(command)
}
