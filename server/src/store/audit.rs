//! The audit log: a chain of entries, and the places in it that were signed.

use sqlx::FromRow;

use super::{Db, Error, Tx, pool::args};

#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct AuditRow {
    pub seq: i64,
    pub at: i64,
    pub caller: String,
    pub method: String,
    pub resource: String,
    pub agent_id: String,
    pub outcome: i64,
    pub request_id: String,
    /// Encoded `AuditEntry`.
    pub entry: Vec<u8>,
    pub hash: Vec<u8>,
}

#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct AuditHeadRow {
    pub seq: i64,
    pub at: i64,
    /// Encoded `AuditHeadPayload`.
    pub payload: Vec<u8>,
    pub key_id: String,
    pub signature: Vec<u8>,
}

/// Empty texts and 0 are no filter.
#[derive(Clone, Debug)]
pub struct AuditFilter {
    pub caller: String,
    pub resource: String,
    pub method: String,
    pub outcome: i64,
    pub since: i64,
    pub until: i64,
    /// Entries below this number.
    pub before: i64,
    pub limit: i64,
}

/// The columns of [`AuditRow`], before the rest of a statement.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT seq, at, caller, method, resource, agent_id, outcome, request_id, entry, hash FROM audit ",
            $rest
        )
    };
}

impl Tx {
    pub async fn audit_insert_all(&mut self, rows: &[AuditRow]) -> Result<(), Error> {
        let values = rows.iter().map(|row| {
            args![
                row.seq,
                row.at,
                &row.caller,
                &row.method,
                &row.resource,
                &row.agent_id,
                row.outcome,
                &row.request_id,
                row.entry.as_slice(),
                row.hash.as_slice(),
            ]
        });
        self.with_rows(
            "INSERT INTO audit (seq, at, caller, method, resource, agent_id, outcome, request_id, entry, hash)",
            values.collect(),
            "",
        )
        .await
        .map(|_| ())
    }

    pub async fn audit_head_insert(&mut self, row: &AuditHeadRow) -> Result<(), Error> {
        let sql = "INSERT INTO audit_heads (seq, at, payload, key_id, signature) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (seq) DO NOTHING";
        let args = args![
            row.seq,
            row.at,
            row.payload.as_slice(),
            &row.key_id,
            row.signature.as_slice(),
        ];
        self.execute(sql, args).await.map(|_| ())
    }

    /// Entries up to `seq`, and the heads among them.
    pub async fn audit_trim(&mut self, seq: i64) -> Result<u64, Error> {
        self.execute("DELETE FROM audit_heads WHERE seq <= $1", args![seq])
            .await?;
        self.execute("DELETE FROM audit WHERE seq <= $1", args![seq]).await
    }
}

impl Db {
    pub async fn audit_last(&self) -> Result<Option<AuditRow>, Error> {
        let sql = select!("ORDER BY seq DESC LIMIT 1");
        self.control.fetch_optional(sql, args![]).await
    }

    /// The last one from before `at`.
    pub async fn audit_last_before(&self, at: i64) -> Result<Option<AuditRow>, Error> {
        let sql = select!("WHERE at < $1 ORDER BY seq DESC LIMIT 1");
        self.control.fetch_optional(sql, args![at]).await
    }

    /// From one number on, in order.
    pub async fn audit_from(&self, seq: i64, limit: i64) -> Result<Vec<AuditRow>, Error> {
        let sql = select!("WHERE seq >= $1 ORDER BY seq LIMIT $2");
        self.control.fetch_all(sql, args![seq, limit]).await
    }

    /// Newest first.
    pub async fn audit_list(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, Error> {
        let sql = select!(
            "WHERE ($1 = '' OR caller = $1) AND ($2 = '' OR resource = $2) AND ($3 = '' OR method = $3) \
             AND ($4 = 0 OR outcome = $4) AND at >= $5 AND at < $6 AND seq < $7 ORDER BY seq DESC LIMIT $8"
        );
        let args = args![
            &filter.caller,
            &filter.resource,
            &filter.method,
            filter.outcome,
            filter.since,
            filter.until,
            filter.before,
            filter.limit,
        ];
        self.control.fetch_all(sql, args).await
    }

    pub async fn audit_heads_from(&self, seq: i64, limit: i64) -> Result<Vec<AuditHeadRow>, Error> {
        let sql = "SELECT seq, at, payload, key_id, signature FROM audit_heads WHERE seq >= $1 ORDER BY seq LIMIT $2";
        self.control.fetch_all(sql, args![seq, limit]).await
    }

    pub async fn audit_head_last(&self) -> Result<Option<AuditHeadRow>, Error> {
        let sql = "SELECT seq, at, payload, key_id, signature FROM audit_heads ORDER BY seq DESC LIMIT 1";
        self.control.fetch_optional(sql, args![]).await
    }
}
