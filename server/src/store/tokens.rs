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
    /// Why it is revoked, when it was not an operator who did it.
    pub revoke_reason: String,
    /// Of whoever made it; empty: everything.
    pub scope: String,
}

/// One use of a token.
#[derive(Clone, Debug, FromRow)]
pub struct UseRow {
    pub token_id: String,
    pub agent_id: String,
    pub created_at: i64,
    pub source: String,
}

/// One use of a token that is being made.
#[derive(Clone, Debug)]
pub struct NewRedemption<'a> {
    pub token_id: &'a str,
    /// Fingerprint.
    pub public_key: &'a str,
    pub agent_id: &'a str,
    /// DER.
    pub certificate: &'a [u8],
    /// The address it came from.
    pub source: &'a str,
    pub now: i64,
}

#[derive(Clone, Debug, FromRow)]
pub struct RedemptionRow {
    pub agent_id: String,
    /// The certificate that was issued, DER.
    pub certificate: Vec<u8>,
}

const GET: &str = "SELECT * FROM tokens WHERE id = $1";

impl Tx {
    pub async fn token_get(&mut self, id: &str) -> Result<Option<TokenRow>, Error> {
        self.fetch_optional(GET, args![id]).await
    }

    pub async fn token_insert(&mut self, row: &TokenRow) -> Result<(), Error> {
        let sql = "INSERT INTO tokens (id, secret_hash, description, labels, uses, uses_left, creator, created_at, \
                   expires_at, revision, agent_id, source, allow_reenroll, ephemeral, on_clone, revoked_at, cas, \
                   scope) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
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
            &row.scope,
        ];
        self.execute(sql, args).await.map(|_| ())
    }

    /// Takes that many uses if they are left, and none otherwise; counted by the database, so that parallel redemptions cannot
    /// take one twice.
    pub async fn token_use(&mut self, id: &str, uses: i64, revision: i64, now: i64) -> Result<bool, Error> {
        let sql = "UPDATE tokens SET uses_left = uses_left - $2, revision = $3 \
                   WHERE id = $1 AND uses_left >= $2 AND expires_at > $4 AND revoked_at = 0";
        Ok(self.execute(sql, args![id, uses, revision, now]).await? == 1)
    }

    /// What tokens were redeemed for; another certificate for the same token and key takes the place of the first. No two of
    /// `all` have the same.
    pub async fn redemption_put_all(&mut self, all: &[NewRedemption<'_>]) -> Result<(), Error> {
        let rows = all.iter().map(|new| {
            args![
                new.token_id,
                new.public_key,
                new.agent_id,
                new.certificate,
                new.now,
                new.source,
            ]
        });
        self.with_rows(
            "INSERT INTO redemptions (token_id, public_key, agent_id, certificate, created_at, source)",
            rows.collect(),
            "ON CONFLICT (token_id, public_key) DO UPDATE \
             SET agent_id = excluded.agent_id, certificate = excluded.certificate",
        )
        .await
        .map(|_| ())
    }

    /// False when there is no such token, or it is revoked already.
    pub async fn token_revoke(&mut self, id: &str, revision: i64, now: i64) -> Result<bool, Error> {
        let sql = "UPDATE tokens SET revoked_at = $3, revision = $2 WHERE id = $1 AND revoked_at = 0";
        Ok(self.execute(sql, args![id, revision, now]).await? == 1)
    }
}

impl Db {
    pub async fn token_get(&self, id: &str) -> Result<Option<TokenRow>, Error> {
        self.control.fetch_optional(GET, args![id]).await
    }

    /// Newest first; `ended` says whether those that no machine can enroll with are among them.
    pub async fn token_list(&self, ended: bool, now: i64) -> Result<Vec<TokenRow>, Error> {
        let sql = "SELECT * FROM tokens WHERE $1 OR (uses_left > 0 AND revoked_at = 0 AND expires_at > $2) \
                   ORDER BY created_at DESC, id";
        self.control.fetch_all(sql, args![ended, now]).await
    }

    /// The uses of a token, newest first.
    pub async fn token_uses(&self, id: &str, limit: i64) -> Result<Vec<UseRow>, Error> {
        let sql = "SELECT token_id, agent_id, created_at, source FROM redemptions WHERE token_id = $1 \
                   ORDER BY created_at DESC, agent_id LIMIT $2";
        self.control.fetch_all(sql, args![id, limit]).await
    }

    /// The last use of each token that was used.
    pub async fn token_last_uses(&self) -> Result<Vec<UseRow>, Error> {
        self.control_all(
            "SELECT r.token_id, r.agent_id, r.created_at, r.source FROM redemptions r JOIN \
             (SELECT token_id, MAX(created_at) AS last FROM redemptions GROUP BY token_id) l \
             ON l.token_id = r.token_id AND l.last = r.created_at",
        )
        .await
    }

    /// Forgets tokens that ended before `at`, with their uses.
    pub async fn token_trim(&self, at: i64) -> Result<u64, Error> {
        let mut tx = self.begin_control().await?;
        let ended = "DELETE FROM tokens WHERE expires_at < $1";
        let removed = tx.execute(ended, args![at]).await?;
        let uses = "DELETE FROM redemptions WHERE created_at < $1 AND token_id NOT IN (SELECT id FROM tokens)";
        tx.execute(uses, args![at]).await?;
        tx.commit().await?;
        Ok(removed)
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
