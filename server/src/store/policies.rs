//! Signed policies and the versions that were given out.

use sqlx::FromRow;

use super::{Db, Error, Tx, pool::args};

#[derive(Clone, Debug, FromRow)]
pub struct PolicyRow {
    pub kind: String,
    pub name: String,
    pub version: i64,
    /// JSON object.
    pub labels: String,
    /// Encoded `PolicyPayload`: exactly the bytes that were signed.
    pub payload: Vec<u8>,
    pub key_id: String,
    pub signature: Vec<u8>,
    pub created_at: i64,
    pub updated_at: i64,
    pub revision: i64,
    /// Of whoever applied it first; empty: everything.
    pub scope: String,
    /// Who looks after it; empty: nobody in particular.
    pub owner: String,
}

#[derive(FromRow)]
struct VersionRow {
    version: i64,
}

impl Tx {
    /// The highest version ever signed for the name; 0: none.
    pub async fn policy_version(&mut self, kind: &str, name: &str) -> Result<i64, Error> {
        let sql = "SELECT version FROM policy_versions WHERE kind = $1 AND name = $2";
        Ok(self
            .fetch_optional::<VersionRow>(sql, args![kind, name])
            .await?
            .map_or(0, |row| row.version))
    }

    pub async fn policy_put(&mut self, row: &PolicyRow) -> Result<(), Error> {
        let sql = "INSERT INTO policies (kind, name, version, labels, payload, key_id, signature, created_at, updated_at, \
                   revision, scope, owner) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (kind, name) DO UPDATE \
                   SET version = $3, labels = $4, payload = $5, key_id = $6, signature = $7, updated_at = $9, revision = $10, \
                   owner = $12";
        let args = args![
            &row.kind,
            &row.name,
            row.version,
            &row.labels,
            row.payload.as_slice(),
            &row.key_id,
            row.signature.as_slice(),
            row.created_at,
            row.updated_at,
            row.revision,
            &row.scope,
            &row.owner,
        ];
        self.execute(sql, args).await?;
        let version = "INSERT INTO policy_versions (kind, name, version) VALUES ($1, $2, $3) \
                       ON CONFLICT (kind, name) DO UPDATE SET version = $3";
        self.execute(version, args![&row.kind, &row.name, row.version])
            .await
            .map(|_| ())
    }

    pub async fn policy_delete(&mut self, kind: &str, name: &str) -> Result<bool, Error> {
        Ok(self
            .execute("DELETE FROM policies WHERE kind = $1 AND name = $2", args![kind, name])
            .await?
            == 1)
    }
}

#[derive(FromRow)]
struct TextRow {
    value: String,
}

/// In `meta`.
const FREEZE: &str = "policies_frozen";

impl Tx {
    /// What is said of a stop of all delivery; None: it is over.
    pub async fn policy_freeze_set(&mut self, freeze: Option<&str>) -> Result<(), Error> {
        let (sql, args) = match freeze {
            Some(text) => (
                "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2",
                args![FREEZE, text],
            ),
            None => ("DELETE FROM meta WHERE key = $1", args![FREEZE]),
        };
        self.execute(sql, args).await.map(|_| ())
    }
}

impl Db {
    pub async fn policy_freeze(&self) -> Result<Option<String>, Error> {
        let sql = "SELECT value FROM meta WHERE key = $1";
        let row: Option<TextRow> = self.control.fetch_optional(sql, args![FREEZE]).await?;
        Ok(row.map(|row| row.value))
    }

    pub async fn policy_list(&self) -> Result<Vec<PolicyRow>, Error> {
        self.control_all("SELECT * FROM policies ORDER BY kind, name").await
    }
}
