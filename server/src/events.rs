//! What the controller itself has to tell of agents, certificates, tokens and keys: rows for the table of events, in the form
//! that agents' own events have. Where they come from decides how often they may come; nothing is limited here.

use muster_proto::{ids::AgentId, v1::EventSeverity};
use tracing::warn;

use crate::{
    clock::Micros,
    store::{self, Db, EventRow},
};

/// Bytes of a message; what goes into it may come from a peer.
const MAX_MESSAGE: usize = 1_024;

/// One event, to be stored with the change that it tells of.
#[derive(Clone, Debug)]
pub struct Event {
    row: EventRow,
    metadata: serde_json::Map<String, serde_json::Value>,
}

impl Event {
    /// `reason` is UPPER_SNAKE; no agent: about the controller itself.
    pub fn new(reason: &str, agent: Option<AgentId>, message: impl Into<String>, now: Micros) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Self {
            row: EventRow {
                at: now,
                received_at: now,
                agent_id: agent.map(|id| id.to_string()).unwrap_or_default(),
                reason: reason.to_owned(),
                severity: EventSeverity::Info as i64,
                // Not a text that every database takes.
                message: message.replace('\0', ""),
                metadata: String::new(),
            },
            metadata: serde_json::Map::new(),
        }
    }

    pub fn severity(mut self, severity: EventSeverity) -> Self {
        self.row.severity = severity as i64;
        self
    }

    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        let mut value = value.to_string().replace('\0', "");
        value.truncate(value.floor_char_boundary(MAX_MESSAGE));
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    pub fn message(&self) -> &str {
        &self.row.message
    }

    pub fn into_row(self) -> EventRow {
        EventRow {
            metadata: serde_json::Value::Object(self.metadata).to_string(),
            ..self.row
        }
    }
}

/// Stores events that stand for themselves. They are worth a warning when they are lost, and no failure of what they tell of.
pub async fn record(db: &Db, events: Vec<Event>) {
    let reasons: Vec<String> = events.iter().map(|event| event.row.reason.clone()).collect();
    if let Err(error) = store(db, events).await {
        warn!(
            error = &error as &dyn std::error::Error,
            ?reasons,
            "failed to store events"
        );
    }
}

/// The same for whoever tries again.
pub async fn store(db: &Db, events: Vec<Event>) -> Result<(), store::Error> {
    let rows: Vec<EventRow> = events.into_iter().map(Event::into_row).collect();
    let mut tx = db.begin().await?;
    tx.event_insert_all(&rows).await?;
    tx.commit().await
}
