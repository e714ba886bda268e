//! Bootstrap tokens and what they were redeemed for.

use sqlx::FromRow;

use super::{Db, Error, Tx, pool::args};

#[derive(Clone, Debug, FromRow)]
pub struct TokenRow {
    pub id: String,
    pub secret_hash: Vec<u8>,
    pub description: String,
    /// JSON object.
    pub labels: String,
    pub uses: i64,
    pub uses_left: i64,
    pub creator: String,
    pub created_at: i64,
    pub expires_at: i64,
    pub revision: i64,
    /// The only agent that may enroll with it; empty: any.
    pub agent_id: String,
    /// CIDR notation; empty: any address.
    pub source: String,
    pub allow_reenroll: bool,
    /// Microseconds; 0: its agents are not ephemeral.
    pub ephemeral: i64,
    /// `refuse`, `fork`; empty: as configured.
    pub on_clone: String,
    /// 0: not revoked.
    pub revoked_at: i64,
    /// Ids of the CAs whose pins were given out with it, separated by blanks.
    pub cas: String,
}

#[derive(Clone, Debug, FromRow)]
pub struct RedemptionRow {
    pub agent_id: String,
    /// The certificate that was issued, DER.
    pub certificate: Vec<u8>,
}

impl Tx {
    pub async fn token_insert(&mut self, row: &TokenRow) -> Result<(), Error> {
        let sql = "INSERT INTO tokens (id, secret_hash, description, labels, uses, uses_left, creator, created_at, \
                   expires_at, revision, agent_id, source, allow_reenroll, ephemeral, on_clone, revoked_at, cas) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
        let args = args![
            &row.id,
            row.secret_hash.as_slice(),
            &row.description,
            &row.labels,
            row.uses,
            row.uses_left,
            &row.creator,
            row.created_at,
            row.expires_at,
            row.revision,
            &row.agent_id,
            &row.source,
            row.allow_reenroll,
            row.ephemeral,
            &row.on_clone,
            row.revoked_at,
            &row.cas,
        ];
        self.execute(sql, args).await.map(|_| ())
    }

    /// Takes one use, if one is left; counted by the database, so that parallel redemptions cannot take one twice.
    pub async fn token_use(&mut self, id: &str, revision: i64, now: i64) -> Result<bool, Error> {
        let sql = "UPDATE tokens SET uses_left = uses_left - 1, revision = $2 \
                   WHERE id = $1 AND uses_left > 0 AND expires_at > $3";
        Ok(self.execute(sql, args![id, revision, now]).await? == 1)
    }

    pub async fn redemption_insert(
        &mut self,
        token_id: &str,
        public_key: &str,
        agent_id: &str,
        certificate: &[u8],
        now: i64,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO redemptions (token_id, public_key, agent_id, certificate, created_at) \
                   VALUES ($1, $2, $3, $4, $5)";
        self.execute(sql, args![token_id, public_key, agent_id, certificate, now])
            .await
            .map(|_| ())
    }
}

impl Db {
    pub async fn token_get(&self, id: &str) -> Result<Option<TokenRow>, Error> {
        self.control
            .fetch_optional("SELECT * FROM tokens WHERE id = $1", args![id])
            .await
    }

    pub async fn redemption_get(&self, token_id: &str, public_key: &str) -> Result<Option<RedemptionRow>, Error> {
        let sql = "SELECT agent_id, certificate FROM redemptions WHERE token_id = $1 AND public_key = $2";
        self.control.fetch_optional(sql, args![token_id, public_key]).await
    }

    /// A write transaction on the inventory.
    pub async fn begin(&self) -> Result<Tx, Error> {
        self.begin_control().await
    }
}
