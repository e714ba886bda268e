//! One set of calls over the two native pools of sqlx: arguments, rows, transactions, migrations. No statement of any area
//! stands here.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path, str::FromStr, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, FromRow, Postgres, Sqlite, Transaction,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use super::lease::Mandate;

/// What the controller's connections are called at PostgreSQL, all but the one that holds the lease.
pub(super) const APPLICATION: &str = "muster-server";

/// Both databases take at least this many parameters in one statement.
pub(super) const MAX_PARAMETERS: usize = 30_000;

/// How long a connection of SQLite waits for the lock of another process.
pub(super) const BUSY: Duration = Duration::from_secs(30);

/// A failed call on the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to open the database {name}")]
    Open {
        name: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("failed to bring the database schema up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error("database call failed")]
    Query(#[from] sqlx::Error),
    #[error("connections of another controller are open and do not end")]
    Occupied,
    #[error("row {id} of {table} cannot be read: {problem}")]
    Corrupt {
        table: &'static str,
        id: String,
        problem: String,
    },
}

impl Error {
    /// Whether the data was refused, so that the same call can never succeed; otherwise the database was at fault.
    pub fn is_about_data(&self) -> bool {
        match self {
            Self::Query(sqlx::Error::Database(error)) => match error.code().as_deref() {
                // PostgreSQL: data exception, integrity constraint, program limit (row or index too large).
                Some(code) if code.len() == 5 => matches!(&code[..2], "22" | "23" | "54"),
                // SQLite: SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH, also in extended form.
                Some(code) => code.parse::<i32>().is_ok_and(|code| matches!(code & 0xff, 18..=20)),
                None => false,
            },
            Self::Query(sqlx::Error::Encode(_)) => true,
            _ => false,
        }
    }

    /// Whether the disk of the database has no room.
    pub fn is_full(&self) -> bool {
        let Self::Query(sqlx::Error::Database(error)) = self else {
            return false;
        };
        match error.code().as_deref() {
            // PostgreSQL: disk_full.
            Some("53100") => true,
            // SQLite: SQLITE_FULL; SQLITE_IOERR_SHMSIZE, when the index of the WAL cannot grow.
            Some(code) => code.parse::<i32>().is_ok_and(|code| code & 0xff == 13 || code == 4874),
            None => false,
        }
    }
}

/// One bound parameter.
#[derive(Clone, Debug)]
pub enum Arg {
    Text(String),
    Int(i64),
    Bool(bool),
    Bytes(Vec<u8>),
}

impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Arg {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Arg {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<Vec<u8>> for Arg {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl From<&[u8]> for Arg {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl From<muster_proto::ids::AgentId> for Arg {
    fn from(value: muster_proto::ids::AgentId) -> Self {
        Self::Text(value.to_string())
    }
}

/// `args![a, b]`: parameters `$1`, `$2` of a statement.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::pool::Arg::from($value)),*] };
}
pub(super) use args;

/// A struct that a row of either database can be read into.
pub trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}
impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

/// Binds the arguments to a statement of either database.
macro_rules! bind {
    ($query:expr, $args:expr) => {{
        let mut query = $query;
        for arg in $args {
            query = match arg {
                Arg::Text(value) => query.bind(value),
                Arg::Int(value) => query.bind(value),
                Arg::Bool(value) => query.bind(value),
                Arg::Bytes(value) => query.bind(value),
            };
        }
        query
    }};
}

#[derive(Clone, Debug)]
pub enum Pool {
    /// SQLite has one writer at a time; readers do not wait for it (WAL).
    Sqlite {
        write: sqlx::SqlitePool,
        read: sqlx::SqlitePool,
    },
    Postgres(sqlx::PgPool),
}

impl Pool {
    pub(super) async fn sqlite(file: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What a statement of many rows might have to undo is not worth a file.
            .pragma("temp_store", "MEMORY")
            .busy_timeout(BUSY);
        let open = |source| Error::Open {
            name: file.display().to_string(),
            source,
        };
        // For its owner alone, whatever the umask; SQLite gives the files beside it the same mode.
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(file)
            .map_err(|error| open(sqlx::Error::Io(error)))?;
        // A file does not hang up as a server does, so nothing is asked of a connection before it is used again.
        let pool = || SqlitePoolOptions::new().test_before_acquire(false);
        let write = pool().max_connections(1).connect_with(options).await.map_err(open)?;
        let read = pool()
            .max_connections(4)
            .min_connections(1)
            // Without the settings of the file: a read-only connection cannot make them.
            .connect_with(
                SqliteConnectOptions::new()
                    .filename(file)
                    .read_only(true)
                    .busy_timeout(BUSY),
            )
            .await
            .map_err(open)?;
        Ok(Self::Sqlite { write, read })
    }

    /// With a mandate, no connection is used that was opened after the lease was lost.
    pub(super) async fn postgres(url: &str, mandate: Option<Mandate>) -> Result<Self, Error> {
        // The URL may hold a password, so an error names the host and the database only.
        let options = PgConnectOptions::from_str(url)
            .map_err(|source| Error::Open {
                name: "given as a PostgreSQL URL".into(),
                source,
            })?
            .application_name(APPLICATION)
            .options([("synchronous_commit", "on")]);
        let name = format!(
            "{} on {}",
            options.get_database().unwrap_or("(default)"),
            options.get_host()
        );
        let pool = PgPoolOptions::new()
            .max_connections(12)
            .acquire_timeout(Duration::from_secs(10))
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    match mandate {
                        Some(mandate) => mandate.look(connection).await,
                        None => Ok(()),
                    }
                })
            })
            .connect_with(options.clone())
            .await;
        match pool {
            Ok(pool) => Ok(Self::Postgres(pool)),
            // The pool has tried again and again, and does not tell why it was in vain; one more attempt does.
            Err(source @ sqlx::Error::PoolTimedOut) => {
                let attempt = tokio::time::timeout(Duration::from_secs(5), options.connect()).await;
                let source = attempt.ok().and_then(Result::err).unwrap_or(source);
                Err(Error::Open { name, source })
            }
            Err(source) => Err(Error::Open { name, source }),
        }
    }

    pub(super) async fn migrate(&self, mut migrator: Migrator) -> Result<(), Error> {
        // On PostgreSQL both parts note their migrations in one table.
        migrator.set_ignore_missing(true);
        match self {
            Self::Sqlite { write, .. } => migrator.run(write).await,
            Self::Postgres(pool) => migrator.run(pool).await,
        }
        .map_err(Error::Migrate)
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }

    pub(super) async fn begin(&self) -> Result<Tx, Error> {
        Ok(match self {
            Self::Sqlite { write, .. } => Tx::Sqlite(begin_sqlite(write).await?),
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    pub(super) async fn fetch_all<T: Row>(&self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<T>, Error> {
        Ok(match self {
            Self::Sqlite { read, .. } => bind!(sqlx::query_as::<Sqlite, T>(sql), args).fetch_all(read).await?,
            Self::Postgres(pool) => bind!(sqlx::query_as::<Postgres, T>(sql), args).fetch_all(pool).await?,
        })
    }

    pub(super) async fn fetch_optional<T: Row>(&self, sql: &'static str, args: Vec<Arg>) -> Result<Option<T>, Error> {
        Ok(match self {
            Self::Sqlite { read, .. } => {
                bind!(sqlx::query_as::<Sqlite, T>(sql), args)
                    .fetch_optional(read)
                    .await?
            }
            Self::Postgres(pool) => {
                bind!(sqlx::query_as::<Postgres, T>(sql), args)
                    .fetch_optional(pool)
                    .await?
            }
        })
    }

    /// Gives some freed pages of SQLite back to the file system, and says whether there are more; PostgreSQL does so by itself.
    pub(super) async fn release_free_pages(&self) -> Result<bool, Error> {
        let Self::Sqlite { write, .. } = self else {
            return Ok(false);
        };
        sqlx::query("PRAGMA incremental_vacuum(2000)").execute(write).await?;
        let left: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(write).await?;
        Ok(left > 0)
    }

    /// Moves all that is in the log of SQLite to its place, and the log takes no room then; PostgreSQL does so by itself.
    pub(super) async fn release_log(&self) -> Result<(), Error> {
        if let Self::Sqlite { write, .. } = self {
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(write).await?;
        }
        Ok(())
    }
}

/// Immediate: a transaction that begins by reading must not fail later for another process's write.
async fn begin_sqlite(write: &sqlx::SqlitePool) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
    const BEGIN: &str = "BEGIN IMMEDIATE";
    match write.begin_with(BEGIN).await {
        // Where a write found no room SQLite itself has rolled back. sqlx then does so in vain, and takes the transaction for
        // open from there on: that connection is good for nothing, and it is the only one.
        Err(sqlx::Error::InvalidSavePointStatement) => {
            write.acquire().await?.close().await?;
            write.begin_with(BEGIN).await
        }
        begun => begun,
    }
}

/// A write transaction; dropped without `commit` it is rolled back.
#[derive(Debug)]
pub enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    pub async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// Returns once everybody else who has written to a table has ended, whose client may be gone: PostgreSQL may be waiting for a
    /// standby, and shows nobody till then what was committed. With `LOCK TABLE ... IN SHARE MODE`; on SQLite, where one writes at
    /// a time, the others have ended.
    pub(super) async fn wait_for_writers(&mut self, lock: &'static str) -> Result<(), Error> {
        if let Self::Postgres(tx) = self {
            sqlx::query(lock).execute(&mut **tx).await?;
        }
        Ok(())
    }

    /// The number of rows that were changed.
    pub(super) async fn execute(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<u64, Error> {
        Ok(match self {
            Self::Sqlite(tx) => bind!(sqlx::query(sql), args).execute(&mut **tx).await?.rows_affected(),
            Self::Postgres(tx) => bind!(sqlx::query(sql), args).execute(&mut **tx).await?.rows_affected(),
        })
    }

    pub(super) async fn fetch_optional<T: Row>(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
    ) -> Result<Option<T>, Error> {
        Ok(match self {
            Self::Sqlite(tx) => {
                bind!(sqlx::query_as::<Sqlite, T>(sql), args)
                    .fetch_optional(&mut **tx)
                    .await?
            }
            Self::Postgres(tx) => {
                bind!(sqlx::query_as::<Postgres, T>(sql), args)
                    .fetch_optional(&mut **tx)
                    .await?
            }
        })
    }

    pub(super) async fn fetch_all<T: Row>(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<T>, Error> {
        Ok(match self {
            Self::Sqlite(tx) => {
                bind!(sqlx::query_as::<Sqlite, T>(sql), args)
                    .fetch_all(&mut **tx)
                    .await?
            }
            Self::Postgres(tx) => {
                bind!(sqlx::query_as::<Postgres, T>(sql), args)
                    .fetch_all(&mut **tx)
                    .await?
            }
        })
    }

    /// Runs `head VALUES (...), (...) tail` for all rows, in as few statements as the limit of parameters allows; gives the
    /// number of rows that were changed. Both databases call the columns `column1`, `column2` where they are not inserted.
    pub(super) async fn with_rows(
        &mut self,
        head: &str,
        rows: Vec<Vec<Arg>>,
        tail: &'static str,
    ) -> Result<u64, Error> {
        let mut changed = 0;
        let Some(width) = rows.first().map(Vec::len) else {
            return Ok(changed);
        };
        let per_statement = (MAX_PARAMETERS / width).max(1);
        let mut rows = rows.into_iter();
        loop {
            let chunk: Vec<Vec<Arg>> = rows.by_ref().take(per_statement).collect();
            if chunk.is_empty() {
                return Ok(changed);
            }
            // SQLite looks a numbered placeholder up among all the others, in a time that grows with their square.
            let are_numbered = matches!(self, Self::Postgres(_));
            // Only placeholders are built here; `head` and `tail` are made of literals of the store.
            let values = placeholders(chunk.len(), width, are_numbered);
            let sql = AssertSqlSafe(format!("{head} VALUES {values} {tail}"));
            let args = chunk.into_iter().flatten();
            changed += match self {
                Self::Sqlite(tx) => {
                    let query = bind!(sqlx::query(sql).persistent(false), args);
                    query.execute(&mut **tx).await?.rows_affected()
                }
                Self::Postgres(tx) => {
                    let query = bind!(sqlx::query(sql).persistent(false), args);
                    query.execute(&mut **tx).await?.rows_affected()
                }
            };
        }
    }
}

pub(super) fn placeholders(rows: usize, width: usize, are_numbered: bool) -> String {
    let mut sql = String::with_capacity(rows * width * 6);
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..width {
            if column > 0 {
                sql.push(',');
            }
            if are_numbered {
                sql.push('$');
                sql.push_str(&(row * width + column + 1).to_string());
            } else {
                sql.push('?');
            }
        }
        sql.push(')');
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_database_gets_the_placeholders_it_reads_fast() {
        assert_eq!(placeholders(2, 2, true), "($1,$2), ($3,$4)");
        assert_eq!(placeholders(2, 2, false), "(?,?), (?,?)");
    }
}
