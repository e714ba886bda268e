//! Metric batches as they came.

use sqlx::FromRow;

use super::{
    Db, Error, Tx,
    pool::{Arg, args},
};

#[derive(Clone, Debug, FromRow)]
pub struct MetricRow {
    pub agent_id: String,
    pub at: i64,
    pub received_at: i64,
    /// Encoded `MetricBatch`.
    pub payload: Vec<u8>,
    /// In the payload.
    #[sqlx(default)]
    pub samples: i64,
}

impl Tx {
    pub async fn metric_insert_all(&mut self, rows: &[MetricRow]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let values = rows.iter().map(|row| -> Vec<Arg> {
            args![
                &row.agent_id,
                row.at,
                row.received_at,
                row.payload.as_slice(),
                row.payload.len() as i64,
                row.samples,
            ]
        });
        let head = "INSERT INTO metric_batches (agent_id, at, received_at, payload, bytes, samples)";
        self.with_rows(head, values.collect(), "").await?;
        let bytes: i64 = rows.iter().map(|row| row.payload.len() as i64).sum();
        self.execute(
            "UPDATE history_usage SET row_count = row_count + $1, byte_count = byte_count + $2 WHERE kind = 'metrics'",
            args![rows.len() as i64, bytes],
        )
        .await
        .map(|_| ())
    }
}

impl Db {
    /// The batches of the moment that an agent reported last, if that came at or after `since`. What came last is newest,
    /// whatever the agent's clock says.
    pub async fn metric_latest(&self, agent_id: &str, since: i64) -> Result<Vec<MetricRow>, Error> {
        let sql = "SELECT agent_id, at, received_at, payload FROM metric_batches WHERE agent_id = $1 \
                   AND received_at >= $2 AND at = (SELECT at FROM metric_batches WHERE agent_id = $1 \
                   ORDER BY received_at DESC, at DESC LIMIT 1)";
        self.history.fetch_all(sql, args![agent_id, since]).await
    }
}
