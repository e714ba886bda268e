//! What is kept of agents: results one by one, and sums of each kind. What goes when it is too old or too much is in
//! `retention`.

use sqlx::FromRow;

use super::{Db, Error, ResultRow, pool::args};

/// Which results a list holds, newest first by the agents' time.
#[derive(Clone, Debug)]
pub struct ResultFilter {
    pub agent_id: String,
    /// Empty: of all checks.
    pub check_name: String,
    /// By the agent's time: from then on, and before.
    pub since: i64,
    pub until: i64,
    pub skip: i64,
    pub limit: i64,
}

/// What there is of one kind and one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct AgentUsage {
    pub agent_id: String,
    pub records: i64,
    pub bytes: i64,
    /// By the agent's time.
    pub first_at: i64,
    pub last_at: i64,
}

/// What there is of one agent's metrics beside that.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct SampleUsage {
    pub agent_id: String,
    pub samples: i64,
    /// Different times among the batches.
    pub moments: i64,
}

/// How many different times an agent's log entries have.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct LogMoments {
    pub agent_id: String,
    pub moments: i64,
}

impl Db {
    /// Rows that differ in nothing come in any order.
    pub async fn result_page(&self, filter: &ResultFilter) -> Result<Vec<ResultRow>, Error> {
        let sql = "SELECT agent_id, check_name, at, received_at, state, result FROM results \
                   WHERE agent_id = $1 AND ($2 = '' OR check_name = $2) AND at >= $3 AND at < $4 \
                   ORDER BY at DESC, received_at DESC, check_name, result LIMIT $5 OFFSET $6";
        let args = args![
            &filter.agent_id,
            &filter.check_name,
            filter.since,
            filter.until,
            filter.limit,
            filter.skip,
        ];
        self.control.fetch_all(sql, args).await
    }

    /// Of the agents from one id to another, both included; none of those that have nothing.
    pub async fn result_usage(&self, first: &str, last: &str) -> Result<Vec<AgentUsage>, Error> {
        let sql = "SELECT agent_id, COUNT(*) AS records, CAST(SUM(bytes) AS BIGINT) AS bytes, MIN(at) AS first_at, \
                   MAX(at) AS last_at FROM results WHERE agent_id >= $1 AND agent_id <= $2 GROUP BY agent_id";
        self.control.fetch_all(sql, args![first, last]).await
    }

    /// As [`Db::result_usage`].
    pub async fn event_usage(&self, first: &str, last: &str) -> Result<Vec<AgentUsage>, Error> {
        let sql = "SELECT agent_id, COUNT(*) AS records, CAST(SUM(bytes) AS BIGINT) AS bytes, MIN(at) AS first_at, \
                   MAX(at) AS last_at FROM events WHERE agent_id >= $1 AND agent_id <= $2 GROUP BY agent_id";
        self.control.fetch_all(sql, args![first, last]).await
    }

    /// As [`Db::result_usage`].
    pub async fn metric_usage(&self, first: &str, last: &str) -> Result<Vec<AgentUsage>, Error> {
        let sql = "SELECT agent_id, COUNT(*) AS records, CAST(SUM(bytes) AS BIGINT) AS bytes, MIN(at) AS first_at, \
                   MAX(at) AS last_at FROM metric_batches WHERE agent_id >= $1 AND agent_id <= $2 GROUP BY agent_id";
        self.history.fetch_all(sql, args![first, last]).await
    }

    /// As [`Db::result_usage`], entry by entry.
    pub async fn log_usage(&self, first: &str, last: &str) -> Result<Vec<AgentUsage>, Error> {
        let sql = "SELECT agent_id, COUNT(*) AS records, CAST(SUM(bytes) AS BIGINT) AS bytes, MIN(at) AS first_at, \
                   MAX(at) AS last_at FROM logs WHERE agent_id >= $1 AND agent_id <= $2 GROUP BY agent_id";
        self.history.fetch_all(sql, args![first, last]).await
    }

    /// How many different times the entries of each agent have.
    pub async fn log_moments(&self, first: &str, last: &str) -> Result<Vec<LogMoments>, Error> {
        let sql = "SELECT agent_id, COUNT(DISTINCT at) AS moments FROM logs WHERE agent_id >= $1 AND agent_id <= $2 \
                   GROUP BY agent_id";
        self.history.fetch_all(sql, args![first, last]).await
    }

    /// As [`Db::result_usage`].
    pub async fn sample_usage(&self, first: &str, last: &str) -> Result<Vec<SampleUsage>, Error> {
        let sql = "SELECT agent_id, CAST(SUM(samples) AS BIGINT) AS samples, COUNT(DISTINCT at) AS moments \
                   FROM metric_batches WHERE agent_id >= $1 AND agent_id <= $2 GROUP BY agent_id";
        self.history.fetch_all(sql, args![first, last]).await
    }
}
