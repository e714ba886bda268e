//! A database as it lies there, for whoever looks at it beside a running controller or without one: what takes how much room,
//! and whether it is whole. Changes nothing, and brings no schema up to date.

use std::{
    path::{Path, PathBuf},
    str::FromStr as _,
};

use sqlx::{
    ConnectOptions as _, Connection as _,
    postgres::{PgConnectOptions, PgConnection},
    sqlite::{SqliteConnectOptions, SqliteConnection},
};

use super::{Error, Source, control_file, history_file, pool::BUSY};

/// Problems of one file that are told; of more, the first say enough.
const MAX_PROBLEMS: usize = 5;

/// Room that a table takes with its indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// `control.db`, or the name of the database.
    pub part: String,
    pub table: String,
    pub bytes: u64,
}

/// A connection that only reads.
#[derive(Debug)]
pub enum Inspector {
    Sqlite { control: Part, history: Part },
    Postgres { name: String, connection: PgConnection },
}

#[derive(Debug)]
pub struct Part {
    name: String,
    connection: SqliteConnection,
}

impl Inspector {
    /// `is_running`: a controller has the database open.
    pub async fn open(source: &Source, is_running: bool) -> Result<Self, Error> {
        match source {
            Source::Sqlite(folder) => Ok(Self::Sqlite {
                control: Part::open(&control_file(folder), is_running).await?,
                history: Part::open(&history_file(folder), is_running).await?,
            }),
            Source::Postgres(url) => {
                let options = PgConnectOptions::from_str(url).map_err(|source| Error::Open {
                    name: "given as a PostgreSQL URL".into(),
                    source,
                })?;
                let name = options.get_database().unwrap_or("(default)").to_owned();
                let on = format!("{name} on {}", options.get_host());
                let connection = options
                    .connect()
                    .await
                    .map_err(|source| Error::Open { name: on, source })?;
                Ok(Self::Postgres { name, connection })
            }
        }
    }

    /// The largest first.
    pub async fn tables(&mut self) -> Result<Vec<TableSize>, Error> {
        let mut sizes = match self {
            Self::Sqlite { control, history } => {
                let mut sizes = control.tables().await?;
                sizes.extend(history.tables().await?);
                sizes
            }
            Self::Postgres { name, connection } => {
                let sql = "SELECT c.relname::text, pg_total_relation_size(c.oid) FROM pg_class c \
                           WHERE c.relkind = 'r' AND c.relnamespace = to_regnamespace(current_schema())";
                let rows: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(connection).await?;
                rows.into_iter()
                    .map(|(table, bytes)| size(name, table, bytes))
                    .collect()
            }
        };
        sizes.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.table.cmp(&b.table)));
        Ok(sizes)
    }

    /// What is wrong with the files of SQLite, each in a sentence; PostgreSQL looks after its own.
    pub async fn problems(&mut self) -> Result<Vec<String>, Error> {
        match self {
            Self::Sqlite { control, history } => {
                let mut problems = control.problems().await?;
                problems.extend(history.problems().await?);
                Ok(problems)
            }
            Self::Postgres { .. } => Ok(Vec::new()),
        }
    }

    /// When the newest result or event was received, in microseconds since 1970; 0: there is none.
    pub async fn newest(&mut self) -> Result<i64, Error> {
        let sql = "SELECT COALESCE(MAX(newest), 0) FROM (SELECT MAX(received_at) AS newest FROM results \
                   UNION ALL SELECT MAX(received_at) AS newest FROM events) AS times";
        Ok(match self {
            Self::Sqlite { control, .. } => sqlx::query_scalar(sql).fetch_one(&mut control.connection).await?,
            Self::Postgres { connection, .. } => sqlx::query_scalar(sql).fetch_one(connection).await?,
        })
    }

    /// Bytes of all of PostgreSQL's database; none: SQLite, whose files say it.
    pub async fn database_size(&mut self) -> Result<Option<u64>, Error> {
        match self {
            Self::Sqlite { .. } => Ok(None),
            Self::Postgres { connection, .. } => {
                let sql = "SELECT pg_database_size(current_database())";
                let bytes: i64 = sqlx::query_scalar(sql).fetch_one(connection).await?;
                Ok(Some(bytes.max(0) as u64))
            }
        }
    }

    /// Where the connection comes from that holds the lease; none: nobody does, or it is SQLite.
    pub async fn lease_holder(&mut self) -> Result<Option<String>, Error> {
        let Self::Postgres { connection, .. } = self else {
            return Ok(None);
        };
        let sql = "SELECT COALESCE(host(a.client_addr), 'this host') FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
                   WHERE l.locktype = 'advisory' AND l.granted \
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                   AND ((l.classid::bigint << 32) | l.objid::bigint) = $1";
        Ok(sqlx::query_scalar(sql)
            .bind(super::lease::LOCK)
            .fetch_optional(connection)
            .await?)
    }

    pub async fn close(self) {
        match self {
            Self::Sqlite { control, history } => {
                let _ = control.connection.close().await;
                let _ = history.connection.close().await;
            }
            Self::Postgres { connection, .. } => {
                let _ = connection.close().await;
            }
        }
    }
}

impl Part {
    async fn open(file: &Path, is_running: bool) -> Result<Self, Error> {
        // Without its log a file that nobody has open is all there is. Read as such it needs no room for an index of the log.
        let log = std::fs::metadata(log_file(file)).map_or(0, |found| found.len());
        let connection = SqliteConnectOptions::new()
            .filename(file)
            .read_only(true)
            .immutable(!is_running && log == 0)
            .busy_timeout(BUSY)
            .connect()
            .await
            .map_err(|source| Error::Open {
                name: file.display().to_string(),
                source,
            })?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, connection })
    }

    async fn tables(&mut self) -> Result<Vec<TableSize>, Error> {
        let sql = "SELECT s.tbl_name, SUM(d.pgsize) FROM dbstat d JOIN sqlite_schema s ON s.name = d.name \
                   WHERE d.aggregate = TRUE GROUP BY s.tbl_name";
        let rows: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(&mut self.connection).await?;
        let mut sizes: Vec<TableSize> = rows
            .into_iter()
            .map(|(table, bytes)| size(&self.name, table, bytes))
            .collect();
        let free: i64 = sqlx::query_scalar("PRAGMA freelist_count")
            .fetch_one(&mut self.connection)
            .await?;
        let page: i64 = sqlx::query_scalar("PRAGMA page_size")
            .fetch_one(&mut self.connection)
            .await?;
        if free > 0 {
            sizes.push(size(
                &self.name,
                "(free, to be given back)".to_owned(),
                free.saturating_mul(page),
            ));
        }
        Ok(sizes)
    }

    async fn problems(&mut self) -> Result<Vec<String>, Error> {
        let said: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(100)")
            .fetch_all(&mut self.connection)
            .await?;
        let wrong = said.into_iter().filter(|line| line != "ok").take(MAX_PROBLEMS);
        Ok(wrong.map(|line| format!("{}: {line}", self.name)).collect())
    }
}

fn size(part: &str, table: String, bytes: i64) -> TableSize {
    TableSize {
        part: part.to_owned(),
        table,
        bytes: bytes.max(0) as u64,
    }
}

/// The log that SQLite keeps beside a file.
pub fn log_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}
