//! API keys; of each, the hash of its secret alone.

use sqlx::FromRow;

use super::{Db, Error, Tx, pool::args};

#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct ApiKeyRow {
    pub id: String,
    pub secret_hash: Vec<u8>,
    pub description: String,
    /// JSON array of networks in CIDR notation; empty: from anywhere.
    pub sources: String,
    pub creator: String,
    pub created_at: i64,
    pub expires_at: i64,
    /// 0: not revoked.
    pub revoked_at: i64,
    /// 0: never.
    pub last_used_at: i64,
    pub revision: i64,
}

impl Tx {
    pub async fn api_key_insert(&mut self, row: &ApiKeyRow) -> Result<(), Error> {
        let sql = "INSERT INTO api_keys (id, secret_hash, description, sources, creator, created_at, expires_at, revoked_at, \
                   last_used_at, revision) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let args = args![
            &row.id,
            row.secret_hash.as_slice(),
            &row.description,
            &row.sources,
            &row.creator,
            row.created_at,
            row.expires_at,
            row.revoked_at,
            row.last_used_at,
            row.revision,
        ];
        self.execute(sql, args).await.map(|_| ())
    }

    /// False: there is no such key, or it is revoked already.
    pub async fn api_key_revoke(&mut self, id: &str, revision: i64, at: i64) -> Result<bool, Error> {
        let sql = "UPDATE api_keys SET revoked_at = $3, revision = $2 WHERE id = $1 AND revoked_at = 0";
        Ok(self.execute(sql, args![id, revision, at]).await? == 1)
    }

    pub async fn api_key_used(&mut self, id: &str, at: i64) -> Result<(), Error> {
        let sql = "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND last_used_at < $2";
        self.execute(sql, args![id, at]).await.map(|_| ())
    }
}

impl Db {
    /// Newest first.
    pub async fn api_key_list(&self) -> Result<Vec<ApiKeyRow>, Error> {
        self.control_all("SELECT * FROM api_keys ORDER BY created_at DESC, id")
            .await
    }

    /// Forgets what ended before `at`.
    pub async fn api_key_trim(&self, at: i64) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let sql = "DELETE FROM api_keys WHERE (revoked_at > 0 AND revoked_at < $1) OR expires_at < $1";
        let removed = tx.execute(sql, args![at]).await?;
        tx.commit().await?;
        Ok(removed)
    }
}
