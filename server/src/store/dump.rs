//! The inventory as plain rows, out of one database and into another of either kind: a consistent look at a database that is
//! in use, and the filling of an empty one in a single transaction. What rows look like in a file is decided in `backup`.

mod filling;
mod tables;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, str::FromStr as _};

use futures_util::TryStreamExt as _;
use sqlx::{
    AssertSqlSafe, Connection as _, FromRow, Row as _,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgConnection},
    sqlite::{SqliteConnectOptions, SqliteConnection},
};

pub use filling::Filling;
pub use tables::{Column, Kind, TABLES, Table, table};

use super::{Error, Source, control_file, control_migrations, history_migrations, pool::BUSY};

/// One value of a row, the same for both databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Text(String),
    Int(i64),
    Bool(bool),
    Bytes(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("there is no database of a controller: {0}")]
    Missing(String),
    #[error(
        "the database is of another release (schema {found}, this one's is {known}); use the muster-server that runs on it"
    )]
    OtherRelease { found: i64, known: i64 },
    #[error(
        "the database is not empty: {0} has rows; name another one, or empty it if a restore that was cut off has filled it"
    )]
    Occupied(&'static str),
    #[error(
        "the database holds the empty tables of another release (schema {found}, the backup's is {wanted}); give one without tables"
    )]
    OtherTables { found: i64, wanted: i64 },
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<sqlx::Error> for DumpError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The number of the newest migration of the inventory.
pub fn schema() -> i64 {
    newest(&control_migrations())
}

fn newest(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
}

#[derive(FromRow)]
struct Version {
    version: i64,
}

#[derive(FromRow)]
struct Name {
    name: String,
}

/// A database as it was at one moment, whatever is written to it meanwhile. Changes nothing.
#[derive(Debug)]
pub struct Snapshot(Connection);

#[derive(Debug)]
enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

macro_rules! read {
    ($row:expr, $columns:expr) => {
        $columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                Ok(match column.kind {
                    Kind::Text => $row.try_get::<Option<String>, _>(index)?.map(Value::Text),
                    Kind::Int => $row.try_get::<Option<i64>, _>(index)?.map(Value::Int),
                    Kind::Bool => $row.try_get::<Option<bool>, _>(index)?.map(Value::Bool),
                    Kind::Bytes => $row.try_get::<Option<Vec<u8>>, _>(index)?.map(Value::Bytes),
                }
                .unwrap_or(Value::Null))
            })
            .collect::<Result<Vec<Value>, sqlx::Error>>()?
    };
}

impl Snapshot {
    /// Looks at the database now. It has to be of this release: nothing is migrated while a controller may run on it.
    pub async fn open(source: &Source) -> Result<Self, DumpError> {
        let mut connection = match source {
            Source::Sqlite(folder) => {
                let file = control_file(folder);
                if !file.is_file() {
                    return Err(DumpError::Missing(file.display().to_string()));
                }
                let options = SqliteConnectOptions::new()
                    .filename(&file)
                    .read_only(true)
                    .busy_timeout(BUSY);
                let mut connection = SqliteConnection::connect_with(&options)
                    .await
                    .map_err(|source| Error::Open {
                        name: file.display().to_string(),
                        source,
                    })?;
                sqlx::query("BEGIN").execute(&mut connection).await?;
                Connection::Sqlite(connection)
            }
            Source::Postgres(url) => {
                let options = PgConnectOptions::from_str(url).map_err(|source| Error::Open {
                    name: "given as a PostgreSQL URL".into(),
                    source,
                })?;
                let name = options.get_database().unwrap_or("(default)").to_owned();
                let mut connection = PgConnection::connect_with(&options)
                    .await
                    .map_err(|source| Error::Open { name, source })?;
                sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .execute(&mut connection)
                    .await?;
                Connection::Postgres(connection)
            }
        };
        // The first read is what fixes the moment.
        let applied = connection.migrations().await?;
        let known: BTreeSet<i64> = [control_migrations(), history_migrations()]
            .iter()
            .flat_map(|migrator| migrator.iter().map(|migration| migration.version).collect::<Vec<_>>())
            .collect();
        let is_same = applied.iter().all(|version| known.contains(version))
            && control_migrations()
                .iter()
                .all(|migration| applied.contains(&migration.version));
        if !is_same {
            return Err(DumpError::OtherRelease {
                found: applied.into_iter().max().unwrap_or(0),
                known: schema(),
            });
        }
        Ok(Self(connection))
    }

    /// How many times this database was restored.
    pub async fn epoch(&mut self) -> Result<i64, DumpError> {
        let sql = "SELECT value AS name FROM meta WHERE key = 'epoch'";
        let row: Option<Name> = match &mut self.0 {
            Connection::Sqlite(connection) => sqlx::query_as(sql).fetch_optional(connection).await?,
            Connection::Postgres(connection) => sqlx::query_as(sql).fetch_optional(connection).await?,
        };
        Ok(row.and_then(|row| row.name.parse().ok()).unwrap_or(0))
    }

    /// Hands every row of a table to `take`, its values in the order of the table's columns.
    pub async fn each_row<E: From<DumpError>>(
        &mut self,
        table: &Table,
        mut take: impl FnMut(Vec<Value>) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |error: sqlx::Error| DumpError::from(error);
        let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
        // Only names of the list above are built in here.
        let sql = AssertSqlSafe(format!("SELECT {} FROM {}", names.join(", "), table.name));
        match &mut self.0 {
            Connection::Sqlite(connection) => {
                let mut rows = sqlx::query(sql).fetch(connection);
                while let Some(row) = rows.try_next().await.map_err(failed)? {
                    let read = || Ok::<_, sqlx::Error>(read!(row, table.columns));
                    take(read().map_err(failed)?)?;
                }
            }
            Connection::Postgres(connection) => {
                let mut rows = sqlx::query(sql).fetch(connection);
                while let Some(row) = rows.try_next().await.map_err(failed)? {
                    let read = || Ok::<_, sqlx::Error>(read!(row, table.columns));
                    take(read().map_err(failed)?)?;
                }
            }
        }
        Ok(())
    }

    pub async fn close(self) -> Result<(), DumpError> {
        match self.0 {
            Connection::Sqlite(connection) => connection.close().await?,
            Connection::Postgres(connection) => connection.close().await?,
        }
        Ok(())
    }
}

impl Connection {
    async fn migrations(&mut self) -> Result<Vec<i64>, DumpError> {
        let sql = "SELECT version FROM _sqlx_migrations";
        let rows: Result<Vec<Version>, sqlx::Error> = match self {
            Self::Sqlite(connection) => sqlx::query_as(sql).fetch_all(connection).await,
            Self::Postgres(connection) => sqlx::query_as(sql).fetch_all(connection).await,
        };
        match rows {
            Ok(rows) => Ok(rows.into_iter().map(|row| row.version).collect()),
            Err(sqlx::Error::Database(error)) => Err(DumpError::Missing(error.message().to_owned())),
            Err(error) => Err(error.into()),
        }
    }
}
