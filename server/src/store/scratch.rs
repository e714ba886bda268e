//! For tests: a PostgreSQL that they may use, and databases of their own on it.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::Source;

/// None: there is no PostgreSQL, or it has its turn elsewhere. `what` is skipped then.
#[expect(clippy::disallowed_methods, reason = "a test has no command line and no config file")]
pub fn postgres_url(what: &str) -> Option<String> {
    let url = std::env::var("MUSTER_TEST_POSTGRES_URL").ok();
    if url.is_none() {
        eprintln!("SKIPPED: {what}: MUSTER_TEST_POSTGRES_URL is not set");
    }
    url.filter(|url| !url.is_empty())
}

/// An empty database.
pub struct Scratch {
    admin: PgConnection,
    name: String,
    pub source: Source,
}

impl Scratch {
    pub async fn create(server: &str, topic: &str) -> Self {
        let name = format!("muster_{topic}_{}", std::process::id());
        let mut admin = PgConnection::connect(server).await.unwrap();
        let create = format!("CREATE DATABASE {name}");
        sqlx::query(AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        let source = Source::Postgres(format!("{base}/{name}"));
        Self { admin, name, source }
    }

    pub async fn drop(mut self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        sqlx::query(AssertSqlSafe(drop)).execute(&mut self.admin).await.unwrap();
    }
}
