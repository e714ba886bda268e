//! The inventory and the agents' certificates.

use muster_proto::ids::AgentId;
use sqlx::FromRow;

use super::{Db, Error, Tx, pool::args};

#[derive(Clone, Debug, FromRow)]
pub struct AgentRow {
    pub id: String,
    pub name: String,
    /// JSON objects.
    pub agent_labels: String,
    pub token_labels: String,
    pub operator_labels: String,
    /// `pending`, `online`, `late`, `offline`.
    pub status: String,
    pub status_reason: String,
    pub status_since: i64,
    /// 0: never.
    pub last_seen: i64,
    pub version: String,
    /// JSON object.
    pub facts: String,
    /// JSON array.
    pub warnings: String,
    /// Encoded `PolicyStatus`.
    pub policy_status: Vec<u8>,
    pub enrolled_at: i64,
    pub revision: i64,
    pub epoch: i64,
    /// `refuse`, `fork`; empty: as configured.
    pub on_clone: String,
    /// Microseconds; 0: not ephemeral.
    pub ephemeral: i64,
    /// 0: not open.
    pub readmit_until: i64,
    pub fork_until: i64,
    /// Id of the agent it was a copy of; empty: of none.
    pub forked_from: String,
    /// JSON object.
    pub fingerprint: String,
    pub bundle_version: i64,
    pub preregistered: bool,
    /// Of the newest certificate.
    pub serial: String,
    pub not_after: i64,
}

/// An agent that enrolls for the first time.
#[derive(Clone, Debug)]
pub struct NewAgent<'a> {
    pub id: AgentId,
    pub name: &'a str,
    pub agent_labels: &'a str,
    pub token_labels: &'a str,
    pub version: &'a str,
    pub now: i64,
    pub revision: i64,
}

/// A certificate that an agent gets.
#[derive(Clone, Debug)]
pub struct NewCertificate<'a> {
    pub agent_id: &'a str,
    pub serial: &'a str,
    pub not_after: i64,
    /// Fingerprint.
    pub public_key: &'a str,
    /// Id of the CA that issued it.
    pub ca: &'a str,
    /// Serial of the one it was renewed with; empty: enrolled.
    pub predecessor: &'a str,
    /// DER.
    pub certificate: &'a [u8],
    pub now: i64,
}

/// The part of a row that follows what is known in memory.
#[derive(Clone, Debug)]
pub struct AgentUpdate {
    pub id: String,
    pub status: &'static str,
    pub status_reason: String,
    pub status_since: i64,
    pub last_seen: i64,
    pub version: String,
    pub agent_labels: String,
    pub facts: String,
    pub warnings: String,
    pub policy_status: Vec<u8>,
    pub revision: i64,
}

impl Tx {
    /// False when the id exists.
    pub async fn agent_insert(&mut self, agent: &NewAgent<'_>) -> Result<bool, Error> {
        let sql = "INSERT INTO agents (id, name, agent_labels, token_labels, operator_labels, status, status_reason, \
                   status_since, last_seen, version, facts, warnings, policy_status, enrolled_at, revision) \
                   VALUES ($1, $2, $3, $4, '{}', 'pending', '', $5, 0, $6, '{}', '[]', $7, $5, $8) \
                   ON CONFLICT (id) DO NOTHING";
        let args = args![
            agent.id,
            agent.name,
            agent.agent_labels,
            agent.token_labels,
            agent.now,
            agent.version,
            Vec::<u8>::new(),
            agent.revision,
        ];
        Ok(self.execute(sql, args).await? == 1)
    }

    pub async fn agent_certificate_insert(&mut self, new: &NewCertificate<'_>) -> Result<(), Error> {
        let sql = "INSERT INTO agent_certificates (serial, agent_id, not_after, created_at, public_key, ca, \
                   predecessor, certificate) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let args = args![
            new.serial,
            new.agent_id,
            new.not_after,
            new.now,
            new.public_key,
            new.ca,
            new.predecessor,
            new.certificate,
        ];
        self.execute(sql, args).await.map(|_| ())
    }

    /// Writes all that changes during an agent's life, except what operators set.
    pub async fn agent_update(&mut self, row: &AgentUpdate) -> Result<(), Error> {
        let sql = "UPDATE agents SET status = $2, status_reason = $3, status_since = $4, last_seen = $5, version = $6, \
                   agent_labels = $7, facts = $8, warnings = $9, policy_status = $10, revision = $11 WHERE id = $1";
        let args = args![
            &row.id,
            row.status,
            &row.status_reason,
            row.status_since,
            row.last_seen,
            &row.version,
            &row.agent_labels,
            &row.facts,
            &row.warnings,
            row.policy_status.as_slice(),
            row.revision,
        ];
        self.execute(sql, args).await.map(|_| ())
    }

    pub async fn agent_set_operator_labels(&mut self, id: &str, labels: &str, revision: i64) -> Result<(), Error> {
        let sql = "UPDATE agents SET operator_labels = $2, revision = $3 WHERE id = $1";
        self.execute(sql, args![id, labels, revision]).await.map(|_| ())
    }
}

impl Db {
    /// All agents, with the newest certificate of each.
    pub async fn agent_list(&self) -> Result<Vec<AgentRow>, Error> {
        self.control_all(
            "SELECT a.*, COALESCE(c.serial, '') AS serial, COALESCE(c.not_after, 0) AS not_after FROM agents a \
             LEFT JOIN agent_certificates c ON c.serial = (SELECT d.serial FROM agent_certificates d \
             WHERE d.agent_id = a.id ORDER BY d.created_at DESC, d.serial LIMIT 1)",
        )
        .await
    }

    /// Writes down when agents were last heard of; takes no revision.
    pub async fn agent_flush_last_seen(&self, seen: &[(String, i64)]) -> Result<(), Error> {
        let mut tx = self.begin_control().await?;
        for (id, at) in seen {
            tx.execute(
                "UPDATE agents SET last_seen = $2 WHERE id = $1 AND last_seen < $2",
                args![id, *at],
            )
            .await?;
        }
        tx.commit().await
    }
}
