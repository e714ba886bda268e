//! Things that happened, for people to read.

use super::{
    Error, Tx,
    pool::{Arg, args},
};

#[derive(Clone, Debug)]
pub struct EventRow {
    pub at: i64,
    pub received_at: i64,
    /// Empty: about the controller itself.
    pub agent_id: String,
    /// UPPER_SNAKE.
    pub reason: String,
    /// Number of `EventSeverity`.
    pub severity: i64,
    pub message: String,
    /// JSON object.
    pub metadata: String,
}

impl EventRow {
    fn bytes(&self) -> i64 {
        (self.agent_id.len() + self.reason.len() + self.message.len() + self.metadata.len()) as i64
    }
}

impl Tx {
    pub async fn event_insert_all(&mut self, rows: &[EventRow]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let values = rows.iter().map(|row| -> Vec<Arg> {
            args![
                row.at,
                row.received_at,
                &row.agent_id,
                &row.reason,
                row.severity,
                &row.message,
                &row.metadata,
                row.bytes(),
            ]
        });
        self.insert_rows(
            "INSERT INTO events (at, received_at, agent_id, reason, severity, message, metadata, bytes)",
            values.collect(),
            "",
        )
        .await?;
        let bytes = rows.iter().map(EventRow::bytes).sum();
        self.control_usage_add("events", rows.len() as i64, bytes).await
    }
}
