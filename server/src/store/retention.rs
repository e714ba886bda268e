//! What a kind of history holds, and its removal, oldest first, in bounded steps. Age counts from when a row was received,
//! so that a wrong clock of an agent neither keeps rows for ever nor drops them early.

use sqlx::FromRow;

use super::{Db, Error, Pool, Tx, pool::args};

/// Rows removed by one transaction.
const STEP: i64 = 5_000;

/// A kind of history with its own retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    Results,
    Events,
    Metrics,
    Logs,
}

/// What a kind of history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Usage {
    pub row_count: i64,
    pub byte_count: i64,
}

/// The statements of one kind; they are literals, since a table's name cannot be a parameter.
struct Statements {
    usage: &'static str,
    step_end: &'static str,
    measure: &'static str,
    remove: &'static str,
    subtract: &'static str,
}

macro_rules! statements {
    ($table:literal, $kind:literal, $usage:literal) => {
        Statements {
            usage: concat!(
                "SELECT row_count, byte_count FROM ",
                $usage,
                " WHERE kind = '",
                $kind,
                "'"
            ),
            step_end: concat!(
                "SELECT received_at FROM ",
                $table,
                " WHERE received_at < $1 ORDER BY received_at LIMIT 1 OFFSET $2"
            ),
            measure: concat!(
                "SELECT COUNT(*) AS row_count, CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS byte_count FROM ",
                $table,
                " WHERE received_at <= $1"
            ),
            remove: concat!("DELETE FROM ", $table, " WHERE received_at <= $1"),
            subtract: concat!(
                "UPDATE ",
                $usage,
                " SET row_count = row_count - $1, byte_count = byte_count - $2 WHERE kind = '",
                $kind,
                "'"
            ),
        }
    };
}

impl History {
    fn statements(self) -> Statements {
        match self {
            Self::Results => statements!("results", "results", "control_usage"),
            Self::Events => statements!("events", "events", "control_usage"),
            Self::Metrics => statements!("metric_batches", "metrics", "history_usage"),
            Self::Logs => statements!("logs", "logs", "history_usage"),
        }
    }
}

#[derive(FromRow)]
struct Time {
    received_at: i64,
}

impl Db {
    pub async fn history_usage(&self, history: History) -> Result<Usage, Error> {
        Ok(self
            .history_pool(history)
            .fetch_optional(history.statements().usage, args![])
            .await?
            .unwrap_or_default())
    }

    /// Removes up to `rows`, and never more than some thousand, of the oldest rows received before `before`; returns what
    /// was removed, nothing when there is no more.
    pub async fn history_trim(&self, history: History, before: i64, rows: i64) -> Result<Usage, Error> {
        let sql = history.statements();
        let mut tx = self.history_pool(history).begin().await?;
        // Who adds rows waits for this lock before the commit, so what is measured is what is removed.
        tx.execute(sql.subtract, args![0, 0]).await?;
        let skipped = rows.clamp(1, STEP) - 1;
        // All rows of one moment go together, so that every step makes way.
        let end = match tx.fetch_optional::<Time>(sql.step_end, args![before, skipped]).await? {
            Some(row) => row.received_at,
            None => before - 1,
        };
        let removed: Usage = tx.fetch_optional(sql.measure, args![end]).await?.unwrap_or_default();
        if removed.row_count > 0 {
            tx.execute(sql.remove, args![end]).await?;
            tx.execute(sql.subtract, args![removed.row_count, removed.byte_count])
                .await?;
        }
        tx.commit().await?;
        Ok(removed)
    }

    /// Gives space of removed rows back, some at a time; true: there is more.
    pub async fn history_release(&self) -> Result<bool, Error> {
        let control = self.control.release_free_pages().await?;
        Ok(self.history.release_free_pages().await? || control)
    }

    /// Gives back what the logs of the database take beyond what is in them.
    pub async fn history_release_log(&self) -> Result<(), Error> {
        self.control.release_log().await?;
        self.history.release_log().await
    }

    fn history_pool(&self, history: History) -> &Pool {
        match history {
            History::Results | History::Events => &self.control,
            History::Metrics | History::Logs => &self.history,
        }
    }
}

impl Tx {
    pub(super) async fn control_usage_add(&mut self, kind: &'static str, rows: i64, bytes: i64) -> Result<(), Error> {
        let sql = "UPDATE control_usage SET row_count = row_count + $2, byte_count = byte_count + $3 WHERE kind = $1";
        self.execute(sql, args![kind, rows, bytes]).await.map(|_| ())
    }
}
