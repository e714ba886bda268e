use std::collections::BTreeMap;

use super::*;
use crate::store::Db;

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
