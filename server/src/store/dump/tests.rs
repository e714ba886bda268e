use std::collections::BTreeMap;

use super::{tables::LEFT_OUT, *};
use crate::store::{
    Db,
    scratch::{Scratch, postgres_url},
};

#[derive(FromRow)]
struct Described {
    table_name: String,
    column_name: String,
    kind: String,
}

/// Every table and column that a database of this release has, but for those that are not ours.
async fn described(folder: &std::path::Path) -> BTreeMap<String, BTreeMap<String, Kind>> {
    let db = Db::open(&Source::Sqlite(folder.to_owned())).await.unwrap();
    let rows: Vec<Described> = db
        .control_all(
            "SELECT m.name AS table_name, c.name AS column_name, c.type AS kind FROM sqlite_master m \
             JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' \
             AND m.name <> '_sqlx_migrations'",
        )
        .await
        .unwrap();
    db.close().await;
    let mut tables: BTreeMap<String, BTreeMap<String, Kind>> = BTreeMap::new();
    for row in rows {
        let kind = match row.kind.as_str() {
            "TEXT" => Kind::Text,
            "BIGINT" => Kind::Int,
            "BOOLEAN" => Kind::Bool,
            "BYTEA" => Kind::Bytes,
            other => panic!(
                "{}.{} is {other}, which a backup does not know",
                row.table_name, row.column_name
            ),
        };
        tables.entry(row.table_name).or_default().insert(row.column_name, kind);
    }
    tables
}

#[tokio::test]
async fn a_backup_knows_every_table_and_column_that_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut there = described(folder.path()).await;
    for name in LEFT_OUT {
        there.remove(name).expect("what is left out exists");
    }
    let known: BTreeMap<String, BTreeMap<String, Kind>> = TABLES
        .iter()
        .map(|table| {
            let columns = table.columns.iter().map(|column| (column.name.to_owned(), column.kind));
            (table.name.to_owned(), columns.collect())
        })
        .collect();
    assert_eq!(known, there, "add it to store/dump/tables.rs");
}

/// Values at the edges of every kind, and none at all.
fn rows(table: &Table) -> Vec<Vec<Value>> {
    let value = |kind: Kind, n: usize| match (kind, n) {
        (Kind::Text, 0) => Value::Text(String::new()),
        (Kind::Text, 1) => Value::Text("a \"quoted\" \\ line\nand \u{1f980} \u{7f}".to_owned()),
        (Kind::Text, _) => Value::Text("n".repeat(70_000)),
        (Kind::Int, 0) => Value::Int(i64::MIN),
        (Kind::Int, 1) => Value::Int(0),
        (Kind::Int, _) => Value::Int(i64::MAX),
        (Kind::Bool, n) => Value::Bool(n == 1),
        (Kind::Bytes, 0) => Value::Bytes(Vec::new()),
        (Kind::Bytes, 1) => Value::Bytes((0..=255).collect()),
        // The one column that may be NULL.
        (Kind::Bytes, _) if table.name == "agent_certificates" => Value::Null,
        (Kind::Bytes, _) => Value::Bytes(vec![0xff; 70_000]),
    };
    (0..3)
        .map(|n| table.columns.iter().map(|column| value(column.kind, n)).collect())
        .collect()
}

async fn all_rows(source: &Source) -> BTreeMap<&'static str, Vec<Vec<Value>>> {
    let mut snapshot = Snapshot::open(source).await.unwrap();
    let mut found = BTreeMap::new();
    for table in &TABLES {
        let mut rows = Vec::new();
        snapshot
            .each_row(table, |row| {
                rows.push(row);
                Ok::<_, DumpError>(())
            })
            .await
            .unwrap();
        found.insert(table.name, rows);
    }
    snapshot.close().await.unwrap();
    found
}

async fn fill(source: &Source) {
    let mut filling = Filling::begin(source, schema()).await.unwrap();
    for table in &TABLES {
        filling.insert(table, table.columns, &rows(table)).await.unwrap();
    }
    filling.migrate().await.unwrap();
    filling.commit().await.unwrap();
}

/// What goes in comes out, and a second filling is refused.
async fn goes_round(source: &Source) {
    fill(source).await;
    let found = all_rows(source).await;
    for table in &TABLES {
        assert_eq!(found[table.name], rows(table), "{}", table.name);
    }
    let error = Filling::begin(source, schema()).await.unwrap_err();
    assert!(matches!(error, DumpError::Occupied(_)), "{error}");
}

#[tokio::test]
async fn every_kind_of_value_goes_in_and_out_of_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    goes_round(&Source::Sqlite(folder.path().to_owned())).await;
}

#[tokio::test]
async fn every_kind_of_value_goes_in_and_out_of_postgresql() {
    let Some(server) = postgres_url("rows in and out of PostgreSQL") else {
        return;
    };
    let scratch = Scratch::create(&server, "dump").await;
    let source = scratch.source.clone();
    // What is left undone is not even tables.
    Filling::begin(&source, schema()).await.unwrap().abandon().await;
    assert!(matches!(Snapshot::open(&source).await, Err(DumpError::Missing(_))));
    goes_round(&source).await;
    scratch.drop().await;
}

#[tokio::test]
async fn a_database_of_another_release_is_not_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::Sqlite(folder.path().to_owned());
    assert!(matches!(Snapshot::open(&source).await, Err(DumpError::Missing(_))));
    let db = Db::open(&source).await.unwrap();
    db.close().await;
    Snapshot::open(&source).await.unwrap().close().await.unwrap();
    let mut filling = Filling::begin(&source, schema()).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, '', TRUE, '', 0)";
    filling.execute(newer.to_owned()).await.unwrap();
    filling.commit().await.unwrap();
    let error = Snapshot::open(&source).await.unwrap_err();
    assert!(matches!(error, DumpError::OtherRelease { found: 9999, .. }), "{error}");
}
