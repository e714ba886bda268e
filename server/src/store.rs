//! The database: SQLite or PostgreSQL behind one `Db`, and all SQL of the project, one file per area. SQL is written once
//! for both; where they must differ a function here says so. Knows no gRPC and makes no decision.

mod agents;
mod api_keys;
mod audit;
mod certificates;
pub mod dump;
mod epoch;
mod events;
mod forks;
mod grants;
mod history;
mod idempotency;
pub mod inspect;
pub mod lease;
mod logs;
mod manifests;
mod marks;
mod metrics;
mod policies;
mod pool;
mod retention;
mod revision;
#[cfg(test)]
pub(crate) mod scratch;
mod states;
mod token_templates;
mod tokens;
mod users;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use sqlx::migrate::Migrator;

use lease::Mandate;

pub use agents::{AgentPart, AgentRow, AgentUpdate, NewAgent, Reenrollment};
pub use api_keys::ApiKeyRow;
pub use audit::{AuditFilter, AuditHeadRow, AuditRow};
pub use certificates::{CertificateFilter, CertificateRow, FirstUse, NewCertificate};
pub use epoch::Restored;
pub use events::{EventFilter, EventRow};
pub use grants::{GrantRow, RoleRow};
pub use history::{AgentUsage, LogMoments, ResultFilter, SampleUsage};
pub use idempotency::IdempotencyRow;
pub use logs::{LogFilter, LogRow};
pub use manifests::ManifestVersionRow;
pub use marks::MarkRow;
pub use metrics::MetricRow;
pub use policies::PolicyRow;
pub use pool::{Error, Pool, Tx};
pub use retention::{History, Usage};
pub use revision::{Change, ChangeKind, Op};
pub use states::{ResultRow, StateRow};
pub use token_templates::TokenTemplateRow;
pub use tokens::{NewRedemption, RedemptionRow, TokenRow, UseRow};
pub use users::{NewUserCertificate, UserCertificateRow, UserRow};

/// Where the data lives.
#[derive(Clone)]
pub enum Source {
    /// `control.db` and `history.db` in this folder.
    Sqlite(PathBuf),
    /// A `postgres://` URL; both parts share the database.
    Postgres(String),
}

/// The URL may hold a password, so it is not shown.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(folder) => f.debug_tuple("Sqlite").field(folder).finish(),
            Self::Postgres(_) => f.debug_tuple("Postgres").finish_non_exhaustive(),
        }
    }
}

/// The controller's database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    /// Inventory, policies, states, results, events: small, what a backup takes.
    control: Pool,
    /// Metrics and logs.
    history: Pool,
}

impl Db {
    /// Opens the database, creates what is missing and brings the schema up to date.
    pub async fn open(source: &Source) -> Result<Self, Error> {
        Self::open_under(source, None).await
    }

    /// The same for the active controller: once it has lost its lease on PostgreSQL it gets no connection.
    pub async fn open_under(source: &Source, mandate: Option<Mandate>) -> Result<Self, Error> {
        let (control, history) = match source {
            Source::Sqlite(folder) => (
                Pool::sqlite(&control_file(folder)).await?,
                Pool::sqlite(&history_file(folder)).await?,
            ),
            Source::Postgres(url) => {
                let pool = Pool::postgres(url, mandate).await?;
                (pool.clone(), pool)
            }
        };
        control.migrate(control_migrations()).await?;
        history.migrate(history_migrations()).await?;
        Ok(Self { control, history })
    }

    /// Waits for what is under way and closes all connections.
    pub async fn close(&self) {
        self.control.close().await;
        self.history.close().await;
    }

    /// A read that fails when the database does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        self.revision_current().await.map(|_| ())
    }

    pub(super) async fn begin_control(&self) -> Result<Tx, Error> {
        self.control.begin().await
    }
}

fn control_migrations() -> Migrator {
    sqlx::migrate!("migrations/control")
}

fn history_migrations() -> Migrator {
    sqlx::migrate!("migrations/history")
}

/// The SQLite file of the inventory in a data directory.
pub fn control_file(folder: &Path) -> PathBuf {
    folder.join("control.db")
}

/// The SQLite file of metrics and logs.
pub fn history_file(folder: &Path) -> PathBuf {
    folder.join("history.db")
}
