//! The epoch of the database: which lives it has had. A backup that is restored starts a new one.

use sqlx::FromRow;

use super::{Db, Error, PolicyRow, Tx, pool::args};

/// The last restore of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    pub restored_at: i64,
    /// When the backup was made: what came later is not in the database.
    pub backup_at: i64,
}

/// More revisions than a controller hands out between a backup and its loss, so that none is ever two.
const REVISIONS: i64 = 1 << 40;

#[derive(FromRow)]
struct Value {
    value: String,
}

#[derive(FromRow)]
struct Number {
    n: i64,
}

impl Tx {
    /// The database begins a new life with the rows of a backup: nothing that was handed out in the time between is taken for
    /// something else now, and whoever watches has to list again. Gives the revision for what changes with it.
    pub async fn epoch_begin(&mut self, epoch: i64, restored: Restored) -> Result<i64, Error> {
        for (key, value) in [
            ("epoch", epoch),
            ("restored_at", restored.restored_at),
            ("backup_at", restored.backup_at),
        ] {
            let sql =
                "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            self.execute(sql, args![key, value.to_string()]).await?;
        }
        self.execute("DELETE FROM changes", args![]).await?;
        let sql = "UPDATE revision SET n = n + $1 WHERE id = 1 RETURNING n";
        let row: Option<Number> = self.fetch_optional(sql, args![REVISIONS]).await?;
        Ok(row.ok_or_else(super::revision::missing_revision)?.n)
    }

    /// Ends every token that has uses left, whatever the clock says of its time; gives how many there were.
    pub async fn token_void_all(&mut self, reason: &str, revision: i64, now: i64) -> Result<u64, Error> {
        let sql = "UPDATE tokens SET revoked_at = $1, revoke_reason = $2, revision = $3 \
                   WHERE uses_left > 0 AND revoked_at = 0";
        self.execute(sql, args![now, reason, revision]).await
    }

    pub async fn policy_list(&mut self) -> Result<Vec<PolicyRow>, Error> {
        self.fetch_all("SELECT * FROM policies ORDER BY kind, name", args![])
            .await
    }
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

    /// How many times this database was restored.
    pub async fn epoch(&self) -> Result<i64, Error> {
        Ok(self.meta_number("epoch").await?.unwrap_or(0))
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
