//! The epoch of the database: which lives it has had. A backup that is restored starts a new one.

use sqlx::FromRow;

use super::{Db, Error, pool::args};

/// The last restore of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    pub restored_at: i64,
    /// When the backup was made: what came later is not in the database.
    pub backup_at: i64,
}

#[derive(FromRow)]
struct Value {
    value: String,
}

impl Db {
    /// None: this database was never restored.
    pub async fn restored(&self) -> Result<Option<Restored>, Error> {
        let (restored_at, backup_at) = (
            self.meta_number("restored_at").await?,
            self.meta_number("backup_at").await?,
        );
        Ok(restored_at
            .zip(backup_at)
            .map(|(restored_at, backup_at)| Restored { restored_at, backup_at }))
    }

    async fn meta_number(&self, key: &str) -> Result<Option<i64>, Error> {
        let row: Option<Value> = self
            .control
            .fetch_optional("SELECT value FROM meta WHERE key = $1", args![key])
            .await?;
        let Some(row) = row else { return Ok(None) };
        let number = row.value.parse().map_err(|_| Error::Corrupt {
            table: "meta",
            id: key.to_owned(),
            problem: format!("`{}` is not a number", row.value),
        })?;
        Ok(Some(number))
    }
}
