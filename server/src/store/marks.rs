//! How far each spool of each agent has been stored: (agent, spool, lane) → sequence number. A mark commits with the
//! records it speaks of.

use muster_proto::v1::Lane;
use sqlx::FromRow;

use super::{
    Db, Error, Tx,
    pool::{Arg, args},
};

#[derive(Clone, Debug, FromRow)]
pub struct MarkRow {
    pub agent_id: String,
    pub spool_id: String,
    pub seq: i64,
}

#[derive(FromRow)]
struct AgentId {
    agent_id: String,
}

impl Tx {
    /// `lane` says which part of the database the transaction is on.
    pub async fn mark_put_all(&mut self, lane: Lane, rows: &[MarkRow], now: i64) -> Result<(), Error> {
        let values: Vec<Vec<Arg>> = rows
            .iter()
            .map(|row| args![&row.agent_id, &row.spool_id, row.seq, now])
            .collect();
        let tail = "ON CONFLICT (agent_id, spool_id) DO UPDATE SET seq = excluded.seq, used_at = excluded.used_at";
        let head = match lane {
            Lane::Metrics => "INSERT INTO metric_marks (agent_id, spool_id, seq, used_at)",
            Lane::Logs => "INSERT INTO log_marks (agent_id, spool_id, seq, used_at)",
            Lane::Results | Lane::Unspecified => "INSERT INTO result_marks (agent_id, spool_id, seq, used_at)",
        };
        self.with_rows(head, values, tail).await.map(|_| ())
    }
}

impl Db {
    /// Those that were used last come last.
    pub async fn mark_list(&self, lane: Lane) -> Result<Vec<MarkRow>, Error> {
        match lane {
            Lane::Metrics => {
                self.history
                    .fetch_all(
                        "SELECT agent_id, spool_id, seq FROM metric_marks ORDER BY used_at, seq",
                        args![],
                    )
                    .await
            }
            Lane::Logs => {
                self.history
                    .fetch_all(
                        "SELECT agent_id, spool_id, seq FROM log_marks ORDER BY used_at, seq",
                        args![],
                    )
                    .await
            }
            Lane::Results | Lane::Unspecified => {
                self.control
                    .fetch_all(
                        "SELECT agent_id, spool_id, seq FROM result_marks ORDER BY used_at, seq",
                        args![],
                    )
                    .await
            }
        }
    }

    /// Returns once no commit that changes marks of this lane is under way, not even one whose answer was lost.
    pub async fn mark_settle(&self, lane: Lane) -> Result<(), Error> {
        let mut tx = self.begin_lane(lane).await?;
        let lock = match lane {
            Lane::Metrics => "LOCK TABLE metric_marks IN SHARE MODE",
            Lane::Logs => "LOCK TABLE log_marks IN SHARE MODE",
            Lane::Results | Lane::Unspecified => "LOCK TABLE result_marks IN SHARE MODE",
        };
        tx.wait_for_writers(lock).await?;
        tx.commit().await
    }

    /// Agents of which results were stored since `at`.
    pub async fn mark_agents_since(&self, at: i64) -> Result<Vec<String>, Error> {
        let sql = "SELECT DISTINCT agent_id FROM result_marks WHERE used_at > $1";
        let rows: Vec<AgentId> = self.control.fetch_all(sql, args![at]).await?;
        Ok(rows.into_iter().map(|row| row.agent_id).collect())
    }

    /// A write transaction on the part of the database that a lane commits to.
    pub async fn begin_lane(&self, lane: Lane) -> Result<Tx, Error> {
        match lane {
            Lane::Metrics | Lane::Logs => self.history.begin().await,
            Lane::Results | Lane::Unspecified => self.control.begin().await,
        }
    }

    /// Keeps no more than this many marks of an agent in each lane, those that were used last: an agent has a spool for each
    /// of its starts, and may claim to start as often as it likes.
    pub async fn mark_trim_to(&self, spools: i64) -> Result<(), Error> {
        let mut tx = self.control.begin().await?;
        let sql = "DELETE FROM result_marks WHERE (agent_id, spool_id) IN (SELECT agent_id, spool_id FROM \
                   (SELECT agent_id, spool_id, ROW_NUMBER() OVER (PARTITION BY agent_id ORDER BY used_at DESC, seq DESC) \
                   AS place FROM result_marks) AS placed WHERE place > $1)";
        tx.execute(sql, args![spools]).await?;
        tx.commit().await?;
        let mut tx = self.history.begin().await?;
        let sql = "DELETE FROM metric_marks WHERE (agent_id, spool_id) IN (SELECT agent_id, spool_id FROM \
                   (SELECT agent_id, spool_id, ROW_NUMBER() OVER (PARTITION BY agent_id ORDER BY used_at DESC, seq DESC) \
                   AS place FROM metric_marks) AS placed WHERE place > $1)";
        tx.execute(sql, args![spools]).await?;
        let sql = "DELETE FROM log_marks WHERE (agent_id, spool_id) IN (SELECT agent_id, spool_id FROM \
                   (SELECT agent_id, spool_id, ROW_NUMBER() OVER (PARTITION BY agent_id ORDER BY used_at DESC, seq DESC) \
                   AS place FROM log_marks) AS placed WHERE place > $1)";
        tx.execute(sql, args![spools]).await?;
        tx.commit().await
    }

    /// Forgets marks that were last used before `at`.
    pub async fn mark_trim(&self, at: i64) -> Result<(), Error> {
        let mut tx = self.control.begin().await?;
        tx.execute("DELETE FROM result_marks WHERE used_at < $1", args![at])
            .await?;
        tx.commit().await?;
        let mut tx = self.history.begin().await?;
        tx.execute("DELETE FROM metric_marks WHERE used_at < $1", args![at])
            .await?;
        tx.execute("DELETE FROM log_marks WHERE used_at < $1", args![at])
            .await?;
        tx.commit().await
    }
}
