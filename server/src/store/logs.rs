//! Log entries, one row each.

use sqlx::FromRow;

use super::{
    Db, Error, Tx, Usage,
    pool::{Arg, args},
};

/// Rows removed by one transaction.
const STEP: i64 = 5_000;

/// Which entries a list looks through, newest first by the agents' time.
#[derive(Clone, Debug)]
pub struct LogFilter {
    /// Empty: of all.
    pub agent_id: String,
    /// By the agent's time: from then on, and before.
    pub since: i64,
    pub until: i64,
    pub skip: i64,
    pub limit: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct LogRow {
    pub agent_id: String,
    pub at: i64,
    pub received_at: i64,
    /// Number of `LogSeverity`.
    pub severity: i64,
    pub source: String,
    pub unit: String,
    pub message: String,
    /// JSON object; empty: there are none.
    pub fields: String,
}

impl LogRow {
    pub fn bytes(&self) -> i64 {
        let texts = [&self.agent_id, &self.source, &self.unit, &self.message, &self.fields];
        texts.into_iter().map(|text| text.len() as i64).sum()
    }
}

impl Tx {
    pub async fn log_insert_all(&mut self, rows: &[LogRow]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let values = rows.iter().map(|row| -> Vec<Arg> {
            args![
                &row.agent_id,
                row.at,
                row.received_at,
                row.severity,
                &row.source,
                &row.unit,
                &row.message,
                &row.fields,
                row.bytes(),
            ]
        });
        let head = "INSERT INTO logs (agent_id, at, received_at, severity, source, unit, message, fields, bytes)";
        self.with_rows(head, values.collect(), "").await?;
        let bytes: i64 = rows.iter().map(LogRow::bytes).sum();
        self.log_count(rows.len() as i64, bytes).await
    }

    /// Whoever adds or removes rows holds this lock to its commit, so that sums are those of what is there.
    async fn log_count(&mut self, rows: i64, bytes: i64) -> Result<(), Error> {
        let sql =
            "UPDATE history_usage SET row_count = row_count + $1, byte_count = byte_count + $2 WHERE kind = 'logs'";
        self.execute(sql, args![rows, bytes]).await.map(|_| ())
    }
}

#[derive(FromRow)]
struct Time {
    at: i64,
}

impl Db {
    /// Rows that differ in nothing come in any order.
    pub async fn log_page(&self, filter: &LogFilter) -> Result<Vec<LogRow>, Error> {
        // Two statements, so that each has its index.
        if filter.agent_id.is_empty() {
            let sql = "SELECT agent_id, at, received_at, severity, source, unit, message, fields FROM logs \
                       WHERE at >= $1 AND at < $2 \
                       ORDER BY at DESC, agent_id, received_at DESC, source, unit, severity, message, fields \
                       LIMIT $3 OFFSET $4";
            let args = args![filter.since, filter.until, filter.limit, filter.skip];
            return self.history.fetch_all(sql, args).await;
        }
        let sql = "SELECT agent_id, at, received_at, severity, source, unit, message, fields FROM logs \
                   WHERE agent_id = $1 AND at >= $2 AND at < $3 \
                   ORDER BY at DESC, received_at DESC, source, unit, severity, message, fields LIMIT $4 OFFSET $5";
        let args = args![&filter.agent_id, filter.since, filter.until, filter.limit, filter.skip,];
        self.history.fetch_all(sql, args).await
    }

    /// Removes all entries of an agent that is gone; how many they were.
    pub async fn log_remove(&self, agent_id: &str) -> Result<i64, Error> {
        let mut removed = 0;
        loop {
            let mut tx = self.history.begin().await?;
            tx.log_count(0, 0).await?;
            // All of one moment go together, so that every step makes way.
            let sql = "SELECT at FROM logs WHERE agent_id = $1 ORDER BY at LIMIT 1 OFFSET $2";
            let end: Option<Time> = tx.fetch_optional(sql, args![agent_id, STEP]).await?;
            let end = end.map_or(i64::MAX, |time| time.at);
            let sql = "SELECT COUNT(*) AS row_count, CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS byte_count FROM logs \
                       WHERE agent_id = $1 AND at <= $2";
            let usage: Usage = tx.fetch_optional(sql, args![agent_id, end]).await?.unwrap_or_default();
            if usage.row_count == 0 {
                return Ok(removed);
            }
            tx.execute(
                "DELETE FROM logs WHERE agent_id = $1 AND at <= $2",
                args![agent_id, end],
            )
            .await?;
            tx.log_count(-usage.row_count, -usage.byte_count).await?;
            tx.commit().await?;
            removed += usage.row_count;
        }
    }
}
