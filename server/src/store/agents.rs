//! The inventory.

use std::collections::BTreeMap;

use muster_proto::ids::AgentId;
use sqlx::FromRow;

use super::{
    Db, Error, Tx,
    pool::{Arg, args},
};

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

/// An agent that is on file, and enrolls again or for the first time.
#[derive(Clone, Debug)]
pub struct Reenrollment<'a> {
    pub agent: &'a NewAgent<'a>,
    /// The name that stays.
    pub name: &'a str,
    pub ephemeral: i64,
    pub on_clone: &'a str,
}

/// What has changed of a row that follows what is known in memory.
#[derive(Clone, Debug)]
pub struct AgentUpdate {
    pub id: AgentId,
    /// Written in any case.
    pub last_seen: i64,
    /// Each at most once, and always in the same order.
    pub parts: Vec<AgentPart>,
    pub revision: i64,
}

/// Columns that change together.
#[derive(Clone, Debug)]
pub enum AgentPart {
    Status {
        status: &'static str,
        reason: String,
        since: i64,
    },
    /// What the agent says of itself when it connects.
    Hello {
        version: String,
        /// JSON object.
        labels: String,
        /// JSON array.
        warnings: String,
    },
    /// JSON object.
    Facts(String),
    /// Encoded `PolicyStatus`.
    PolicyStatus(Vec<u8>),
    /// JSON object.
    Fingerprint(String),
    BundleVersion(i64),
}

impl AgentPart {
    fn columns(&self) -> &'static [&'static str] {
        match self {
            Self::Status { .. } => &["status", "status_reason", "status_since"],
            Self::Hello { .. } => &["version", "agent_labels", "warnings"],
            Self::Facts(_) => &["facts"],
            Self::PolicyStatus(_) => &["policy_status"],
            Self::Fingerprint(_) => &["fingerprint"],
            Self::BundleVersion(_) => &["bundle_version"],
        }
    }

    /// As many as there are columns.
    fn into_args(self) -> Vec<Arg> {
        match self {
            Self::Status { status, reason, since } => args![status, reason, since],
            Self::Hello {
                version,
                labels,
                warnings,
            } => args![version, labels, warnings],
            Self::Facts(facts) => args![facts],
            Self::PolicyStatus(status) => args![status],
            Self::Fingerprint(fingerprint) => args![fingerprint],
            Self::BundleVersion(version) => args![version],
        }
    }
}

impl Tx {
    /// False when the id exists.
    pub async fn agent_insert(&mut self, agent: NewAgent<'_>) -> Result<bool, Error> {
        Ok(self.agent_insert_all(&[agent]).await? == 1)
    }

    /// Those whose id exists stay as they are; gives the number of the others.
    pub async fn agent_insert_all(&mut self, agents: &[NewAgent<'_>]) -> Result<u64, Error> {
        let rows = agents.iter().map(|agent| {
            args![
                agent.id,
                agent.name,
                agent.agent_labels,
                agent.token_labels,
                "{}",
                "pending",
                "",
                agent.now,
                0,
                agent.version,
                "{}",
                "[]",
                Vec::<u8>::new(),
                agent.now,
                agent.revision,
            ]
        });
        self.with_rows(
            "INSERT INTO agents (id, name, agent_labels, token_labels, operator_labels, status, status_reason, \
             status_since, last_seen, version, facts, warnings, policy_status, enrolled_at, revision)",
            rows.collect(),
            "ON CONFLICT (id) DO NOTHING",
        )
        .await
    }

    /// Writes what changes during an agent's life, except what operators set: a statement for all rows of which the same columns
    /// have changed.
    pub async fn agent_update_all(&mut self, rows: Vec<AgentUpdate>) -> Result<(), Error> {
        let mut alike: BTreeMap<Vec<&'static str>, Vec<Vec<Arg>>> = BTreeMap::new();
        for row in rows {
            let columns = row.parts.iter().flat_map(AgentPart::columns).copied().collect();
            let mut args = args![row.id, row.revision, row.last_seen];
            args.extend(row.parts.into_iter().flat_map(AgentPart::into_args));
            alike.entry(columns).or_default().push(args);
        }
        for (columns, rows) in alike {
            let mut head = "UPDATE agents SET revision = given.column2, last_seen = given.column3".to_owned();
            for (index, column) in columns.iter().enumerate() {
                head.push_str(&format!(", {column} = given.column{}", index + 4));
            }
            head.push_str(" FROM (");
            self.with_rows(&head, rows, ") AS given WHERE agents.id = given.column1")
                .await?;
        }
        Ok(())
    }

    /// Starts an entry anew, save what operators have set.
    pub async fn agent_reenroll(&mut self, new: &Reenrollment<'_>) -> Result<(), Error> {
        let agent = new.agent;
        let sql = "UPDATE agents SET name = $2, agent_labels = $3, token_labels = $4, status = 'pending', \
                   status_reason = '', status_since = $5, version = $6, enrolled_at = $5, revision = $7, \
                   epoch = epoch + 1, ephemeral = $8, on_clone = $9, readmit_until = 0, fork_until = 0, \
                   bundle_version = 0 WHERE id = $1";
        let args = args![
            agent.id,
            new.name,
            agent.agent_labels,
            agent.token_labels,
            agent.now,
            agent.version,
            agent.revision,
            new.ephemeral,
            new.on_clone,
        ];
        self.execute(sql, args).await.map(|_| ())
    }

    pub async fn agent_set_terms(&mut self, id: &str, ephemeral: i64, on_clone: &str) -> Result<(), Error> {
        let sql = "UPDATE agents SET ephemeral = $2, on_clone = $3 WHERE id = $1";
        self.execute(sql, args![id, ephemeral, on_clone]).await.map(|_| ())
    }

    /// An entry that is there before its machine; one that is there already keeps all but name and labels.
    pub async fn agent_preregister(
        &mut self,
        id: &str,
        name: &str,
        labels: &str,
        revision: i64,
        now: i64,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO agents (id, name, agent_labels, token_labels, operator_labels, status, status_reason, \
                   status_since, last_seen, version, facts, warnings, policy_status, enrolled_at, revision, \
                   preregistered) VALUES ($1, $2, '{}', '{}', $3, 'expected', '', $4, 0, '', '{}', '[]', $5, 0, $6, TRUE) \
                   ON CONFLICT (id) DO UPDATE SET name = excluded.name, operator_labels = excluded.operator_labels, \
                   revision = excluded.revision, preregistered = TRUE";
        let args = args![id, name, labels, now, Vec::<u8>::new(), revision];
        self.execute(sql, args).await.map(|_| ())
    }

    /// The id may be given out again.
    pub async fn agent_revive(&mut self, id: &str) -> Result<(), Error> {
        let sql = "DELETE FROM deleted_agents WHERE id = $1";
        self.execute(sql, args![id]).await.map(|_| ())
    }

    /// The end of trust: `epoch` grows, so that no certificate that is being issued counts.
    pub async fn agent_revoke(&mut self, id: &str, reason: &str, revision: i64, now: i64) -> Result<(), Error> {
        let sql = "UPDATE agents SET status = 'revoked', status_reason = $2, status_since = $3, epoch = epoch + 1, \
                   readmit_until = 0, fork_until = 0, revision = $4 WHERE id = $1";
        self.execute(sql, args![id, reason, now, revision]).await.map(|_| ())
    }

    pub async fn agent_raise_epoch(&mut self, id: &str, revision: i64) -> Result<(), Error> {
        let sql = "UPDATE agents SET epoch = epoch + 1, revision = $2 WHERE id = $1";
        self.execute(sql, args![id, revision]).await.map(|_| ())
    }

    /// Takes an agent and what hangs on it out of the inventory; its id stays taken, its history stays history.
    pub async fn agent_delete(&mut self, id: &str, name: &str, by: &str, now: i64) -> Result<(), Error> {
        for sql in [
            "DELETE FROM agents WHERE id = $1",
            "DELETE FROM states WHERE agent_id = $1",
            "DELETE FROM result_marks WHERE agent_id = $1",
        ] {
            self.execute(sql, args![id]).await?;
        }
        let sql = "INSERT INTO deleted_agents (id, name, deleted_at, deleted_by) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (id) DO UPDATE SET name = $2, deleted_at = $3, deleted_by = $4";
        self.execute(sql, args![id, name, now, by]).await.map(|_| ())
    }

    pub async fn agent_set_readmit_until(&mut self, id: &str, until: i64, revision: i64) -> Result<(), Error> {
        let sql = "UPDATE agents SET readmit_until = $2, revision = $3 WHERE id = $1";
        self.execute(sql, args![id, until, revision]).await.map(|_| ())
    }

    /// Whether a certificate may be issued now to who has shown the one with this serial: the agent is trusted, nothing has
    /// ended that since `epoch`, and that certificate is not revoked. Keeps the row until the commit, and closes the window
    /// of a readmission.
    pub async fn agent_may_be_issued(&mut self, id: &str, epoch: i64, shown: &str) -> Result<bool, Error> {
        let sql = "UPDATE agents SET readmit_until = 0 WHERE id = $1 AND epoch = $2 \
                   AND status NOT IN ('revoked', 'expected') \
                   AND NOT EXISTS (SELECT 1 FROM agent_certificates WHERE serial = $3 AND revoked_at > 0)";
        Ok(self.execute(sql, args![id, epoch, shown]).await? == 1)
    }

    pub async fn agent_set_operator_labels(&mut self, id: &str, labels: &str, revision: i64) -> Result<(), Error> {
        let sql = "UPDATE agents SET operator_labels = $2, revision = $3 WHERE id = $1";
        self.execute(sql, args![id, labels, revision]).await.map(|_| ())
    }
}

#[derive(FromRow)]
struct Deleted {
    id: String,
}

impl Db {
    pub async fn agent_list(&self) -> Result<Vec<AgentRow>, Error> {
        self.control_all("SELECT * FROM agents").await
    }

    /// Forgets the agents that were deleted before `at`; their ids come back, and may be given out again.
    pub async fn agent_trim_deleted(&self, at: i64) -> Result<Vec<String>, Error> {
        let mut tx = self.begin_control().await?;
        let sql = "DELETE FROM deleted_agents WHERE deleted_at < $1 RETURNING id";
        let rows: Vec<Deleted> = tx.fetch_all(sql, args![at]).await?;
        tx.commit().await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Ids that stay taken though their agents are gone.
    pub async fn agent_list_deleted(&self) -> Result<Vec<String>, Error> {
        let rows: Vec<Deleted> = self.control_all("SELECT id FROM deleted_agents").await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Writes down when agents were last heard of; takes no revision.
    pub async fn agent_flush_last_seen(&self, seen: &[(String, i64)]) -> Result<(), Error> {
        let rows = seen.iter().map(|(id, at)| args![id, *at]).collect();
        let mut tx = self.begin_control().await?;
        tx.with_rows(
            "UPDATE agents SET last_seen = given.column2 FROM (",
            rows,
            ") AS given WHERE agents.id = given.column1 AND agents.last_seen < given.column2",
        )
        .await?;
        tx.commit().await
    }
}
