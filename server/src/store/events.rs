//! Things that happened, for people to read.

use sqlx::FromRow;

use super::{
    Db, Error, Tx,
    pool::{Arg, args},
};

/// Which events a list holds, newest first.
#[derive(Clone, Debug)]
pub struct EventFilter {
    /// Empty: of all, and of the controller itself.
    pub agent_id: String,
    /// Empty: all.
    pub reasons: Vec<String>,
    pub min_severity: i64,
    /// By when they were received: from then on, and before.
    pub since: i64,
    pub until: i64,
    pub skip: i64,
    pub limit: i64,
}

impl EventFilter {
    /// The newest of all, so many of them.
    pub fn newest(limit: i64) -> Self {
        Self {
            agent_id: String::new(),
            reasons: Vec::new(),
            min_severity: 0,
            since: i64::MIN,
            until: i64::MAX,
            skip: 0,
            limit,
        }
    }
}

#[derive(Clone, Debug, PartialEq, FromRow)]
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
        self.with_rows(
            "INSERT INTO events (at, received_at, agent_id, reason, severity, message, metadata, bytes)",
            values.collect(),
            "",
        )
        .await?;
        let bytes = rows.iter().map(EventRow::bytes).sum();
        self.control_usage_add("events", rows.len() as i64, bytes).await
    }
}

impl Db {
    /// Returns once no commit that tells something is under way, not even one whose answer was lost.
    pub async fn event_settle(&self) -> Result<(), Error> {
        let mut tx = self.begin_control().await?;
        tx.wait_for_writers("LOCK TABLE events IN SHARE MODE").await?;
        tx.commit().await
    }

    pub async fn event_list(&self, filter: &EventFilter) -> Result<Vec<EventRow>, Error> {
        // As many parameters as there may be reasons would be another statement for each number of them.
        let reasons = format!(",{},", filter.reasons.join(","));
        let sql = "SELECT at, received_at, agent_id, reason, severity, message, metadata FROM events \
                   WHERE ($1 = '' OR agent_id = $1) AND severity >= $2 AND received_at >= $3 AND received_at < $4 \
                   AND ($5 = ',,' OR REPLACE($5, ',' || reason || ',', '') <> $5) \
                   ORDER BY received_at DESC, at DESC, reason, agent_id, message LIMIT $6 OFFSET $7";
        let args = args![
            &filter.agent_id,
            filter.min_severity,
            filter.since,
            filter.until,
            reasons,
            filter.limit,
            filter.skip,
        ];
        self.control.fetch_all(sql, args).await
    }
}
