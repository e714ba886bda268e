//! Current states and the history of results.

use sqlx::FromRow;

use super::{
    Db, Error, Tx,
    pool::{Arg, args},
};

#[derive(Clone, Debug, FromRow)]
pub struct StateRow {
    pub agent_id: String,
    pub check_name: String,
    /// Number of `CheckState`.
    pub state: i64,
    pub hard: bool,
    pub attempt: i64,
    pub state_since: i64,
    /// Number of `Freshness`.
    pub freshness: i64,
    pub freshness_since: i64,
    pub last_run: i64,
    pub last_received: i64,
    /// Of the spool of the last result, and its place there: they, and not a clock, order results.
    pub generation: i64,
    pub seq: i64,
    /// Encoded `CheckResult`.
    pub result: Vec<u8>,
    pub revision: i64,
}

#[derive(Clone, Debug, FromRow)]
pub struct ResultRow {
    pub agent_id: String,
    pub check_name: String,
    pub at: i64,
    pub received_at: i64,
    pub state: i64,
    /// Encoded `CheckResult`.
    pub result: Vec<u8>,
}

#[derive(FromRow)]
struct ResultBytes {
    result: Vec<u8>,
}

impl Tx {
    pub async fn state_put_all(&mut self, rows: &[StateRow]) -> Result<(), Error> {
        let values = rows.iter().map(|row| -> Vec<Arg> {
            args![
                &row.agent_id,
                &row.check_name,
                row.state,
                row.hard,
                row.attempt,
                row.state_since,
                row.freshness,
                row.freshness_since,
                row.last_run,
                row.last_received,
                row.generation,
                row.seq,
                row.result.as_slice(),
                row.revision,
            ]
        });
        self.with_rows(
            "INSERT INTO states (agent_id, check_name, state, hard, attempt, state_since, freshness, freshness_since, \
             last_run, last_received, generation, seq, result, revision)",
            values.collect(),
            "ON CONFLICT (agent_id, check_name) DO UPDATE SET state = excluded.state, hard = excluded.hard, \
             attempt = excluded.attempt, state_since = excluded.state_since, freshness = excluded.freshness, \
             freshness_since = excluded.freshness_since, last_run = excluded.last_run, \
             last_received = excluded.last_received, generation = excluded.generation, seq = excluded.seq, \
             result = excluded.result, revision = excluded.revision",
        )
        .await
        .map(|_| ())
    }

    pub async fn state_delete(&mut self, agent_id: &str, check: &str) -> Result<(), Error> {
        let sql = "DELETE FROM states WHERE agent_id = $1 AND check_name = $2";
        self.execute(sql, args![agent_id, check]).await.map(|_| ())
    }

    pub async fn result_insert_all(&mut self, rows: &[ResultRow]) -> Result<(), Error> {
        let values = rows.iter().map(|row| -> Vec<Arg> {
            args![
                &row.agent_id,
                &row.check_name,
                row.at,
                row.received_at,
                row.state,
                row.result.as_slice(),
                row.result.len() as i64,
            ]
        });
        self.with_rows(
            "INSERT INTO results (agent_id, check_name, at, received_at, state, result, bytes)",
            values.collect(),
            "",
        )
        .await?;
        let bytes = rows.iter().map(|row| row.result.len() as i64).sum();
        self.control_usage_add("results", rows.len() as i64, bytes).await
    }
}

impl Db {
    pub async fn state_list(&self) -> Result<Vec<StateRow>, Error> {
        self.control_all("SELECT * FROM states").await
    }

    /// The encoded `CheckResult`s of one check of one agent, oldest first.
    pub async fn result_list(&self, agent_id: &str, check: &str) -> Result<Vec<Vec<u8>>, Error> {
        let sql = "SELECT result FROM results WHERE agent_id = $1 AND check_name = $2 ORDER BY at";
        let rows: Vec<ResultBytes> = self.control.fetch_all(sql, args![agent_id, check]).await?;
        Ok(rows.into_iter().map(|row| row.result).collect())
    }
}
