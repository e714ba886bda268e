//! The filling of an empty database, in one transaction that also makes its tables.

use std::collections::BTreeSet;

use sqlx::AssertSqlSafe;

use super::{
    Column, DumpError, Kind, Name, TABLES, Table, Value, Version, schema,
    tables::{HISTORY, LEFT_OUT, SEEDED},
};
use crate::store::{
    Error, Source, Tx, control_file, control_migrations,
    pool::{MAX_PARAMETERS, Pool, args, placeholders},
};

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
            Source::Postgres(url) => Pool::postgres(url, None).await?,
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

    pub(super) async fn execute(&mut self, sql: String) -> Result<(), DumpError> {
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
