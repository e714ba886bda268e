//! The inventory as plain rows, out of one database and into another of either kind: a consistent look at a database that is
//! in use, and the filling of an empty one in a single transaction. What rows look like in a file is decided in `backup`.

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

pub use tables::{Column, Kind, TABLES, Table, table};
use tables::{HISTORY, LEFT_OUT, SEEDED};

use super::{
    Error, Source, Tx, control_file, control_migrations, history_migrations,
    pool::{BUSY, MAX_PARAMETERS, Pool, args, placeholders},
};

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
    #[error("the database is not empty: {0} has rows")]
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

    /// The number that `meta` has under a key; 0: none.
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

/// An empty database that gets the rows of a backup: all of them with what follows from them, or nothing, not even tables.
#[derive(Debug)]
pub struct Filling {
    pool: Pool,
    tx: Tx,
}

impl Filling {
    /// Refuses a database that is in use; of one with empty tables they have to be those of `schema`.
    pub async fn begin(source: &Source, schema: i64) -> Result<Self, DumpError> {
        let pool = match source {
            Source::Sqlite(folder) => Pool::sqlite(&control_file(folder)).await?,
            Source::Postgres(url) => Pool::postgres(url).await?,
        };
        let tx = pool.begin().await?;
        let mut filling = Self { pool, tx };
        match filling.make_tables(schema).await {
            Ok(()) => Ok(filling),
            Err(error) => {
                filling.abandon().await;
                Err(error)
            }
        }
    }

    async fn make_tables(&mut self, schema: i64) -> Result<(), DumpError> {
        let there = self.tables().await?;
        let used = TABLES.iter().map(|table| table.name).chain(LEFT_OUT).chain(HISTORY);
        for name in used.filter(|name| there.contains(*name) && !SEEDED.contains(name)) {
            if self.has_rows(name).await? {
                return Err(DumpError::Occupied(name));
            }
        }
        if there.contains("_sqlx_migrations") {
            let control = control_migrations();
            let sql = "SELECT version FROM _sqlx_migrations";
            let applied: Vec<Version> = self.tx.fetch_all(sql, args![]).await?;
            let applied = applied.into_iter().map(|row| row.version);
            let found = applied
                .filter(|version| control.version_exists(*version))
                .max()
                .unwrap_or(0);
            if found > schema {
                return Err(DumpError::OtherTables { found, wanted: schema });
            }
        }
        self.migrate_to(schema).await?;
        for name in SEEDED {
            self.execute(format!("DELETE FROM {name}")).await?;
        }
        Ok(())
    }

    async fn tables(&mut self) -> Result<BTreeSet<String>, DumpError> {
        let sql = match &self.tx {
            Tx::Sqlite(_) => "SELECT name FROM sqlite_master WHERE type = 'table'",
            Tx::Postgres(_) => {
                "SELECT table_name::text AS name FROM information_schema.tables WHERE table_schema = current_schema()"
            }
        };
        let rows: Vec<Name> = self.tx.fetch_all(sql, args![]).await?;
        Ok(rows.into_iter().map(|row| row.name).collect())
    }

    async fn has_rows(&mut self, table: &'static str) -> Result<bool, DumpError> {
        let sql = AssertSqlSafe(format!("SELECT 1 FROM {table} LIMIT 1"));
        Ok(match &mut self.tx {
            Tx::Sqlite(tx) => sqlx::query(sql).fetch_optional(&mut **tx).await?.is_some(),
            Tx::Postgres(tx) => sqlx::query(sql).fetch_optional(&mut **tx).await?.is_some(),
        })
    }

    async fn execute(&mut self, sql: String) -> Result<(), DumpError> {
        let sql = AssertSqlSafe(sql);
        match &mut self.tx {
            Tx::Sqlite(tx) => sqlx::query(sql).execute(&mut **tx).await.map(|_| ())?,
            Tx::Postgres(tx) => sqlx::query(sql).execute(&mut **tx).await.map(|_| ())?,
        }
        Ok(())
    }

    async fn migrate_to(&mut self, schema: i64) -> Result<(), DumpError> {
        let mut migrator = control_migrations();
        migrator.set_ignore_missing(true);
        match &mut self.tx {
            Tx::Sqlite(tx) => migrator.run_direct(Some(schema), &mut **tx, false).await,
            Tx::Postgres(tx) => migrator.run_direct(Some(schema), &mut **tx, false).await,
        }
        .map_err(Error::Migrate)?;
        Ok(())
    }

    /// Rows of a table with values for these columns.
    pub async fn insert(&mut self, table: &Table, columns: &[Column], rows: &[Vec<Value>]) -> Result<(), DumpError> {
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let are_numbered = matches!(self.tx, Tx::Postgres(_));
        for chunk in rows.chunks((MAX_PARAMETERS / columns.len().max(1)).max(1)) {
            let values = placeholders(chunk.len(), columns.len(), are_numbered);
            // Only names of the list above and placeholders are built in here.
            let sql = AssertSqlSafe(format!(
                "INSERT INTO {} ({}) VALUES {values}",
                table.name,
                names.join(", ")
            ));
            macro_rules! insert {
                ($tx:expr) => {{
                    let mut query = sqlx::query(sql).persistent(false);
                    for row in chunk {
                        for (column, value) in columns.iter().zip(row) {
                            query = match (value, column.kind) {
                                (Value::Text(value), _) => query.bind(value),
                                (Value::Int(value), _) => query.bind(value),
                                (Value::Bool(value), _) => query.bind(value),
                                (Value::Bytes(value), _) => query.bind(value),
                                (Value::Null, Kind::Text) => query.bind(None::<String>),
                                (Value::Null, Kind::Int) => query.bind(None::<i64>),
                                (Value::Null, Kind::Bool) => query.bind(None::<bool>),
                                (Value::Null, Kind::Bytes) => query.bind(None::<Vec<u8>>),
                            };
                        }
                    }
                    query.execute(&mut **$tx).await?;
                }};
            }
            match &mut self.tx {
                Tx::Sqlite(tx) => insert!(tx),
                Tx::Postgres(tx) => insert!(tx),
            }
        }
        Ok(())
    }

    /// All rows are in: the schema becomes that of this release.
    pub async fn migrate(&mut self) -> Result<(), DumpError> {
        self.migrate_to(schema()).await
    }

    /// For what has to follow from the rows.
    pub fn tx(&mut self) -> &mut Tx {
        &mut self.tx
    }

    pub async fn commit(self) -> Result<(), DumpError> {
        self.tx.commit().await?;
        self.pool.close().await;
        Ok(())
    }

    /// Leaves the database as it was.
    pub async fn abandon(self) {
        drop(self.tx);
        self.pool.close().await;
    }
}
