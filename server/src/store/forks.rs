//! What makes an agent the copy of another one, and the window in which copies may become agents.

use sqlx::FromRow;

use super::{Db, Error, Tx, pool::args};

#[derive(FromRow)]
struct Id {
    #[expect(dead_code, reason = "the row is what counts")]
    id: String,
}

impl Tx {
    /// What a copy takes over from its parent beside the labels.
    pub async fn agent_set_parent(
        &mut self,
        id: &str,
        parent: &str,
        on_clone: &str,
        ephemeral: i64,
    ) -> Result<(), Error> {
        let sql = "UPDATE agents SET forked_from = $2, on_clone = $3, ephemeral = $4 WHERE id = $1";
        self.execute(sql, args![id, parent, on_clone, ephemeral])
            .await
            .map(|_| ())
    }

    /// Whether who has shown the certificate with this serial may take over from this agent now; as `agent_may_be_issued`,
    /// but for a certificate of somebody else, so that nothing of this agent changes.
    pub async fn agent_may_fork(&mut self, parent: &str, epoch: i64, shown: &str) -> Result<bool, Error> {
        let sql = "UPDATE agents SET epoch = epoch WHERE id = $1 AND epoch = $2 \
                   AND status NOT IN ('revoked', 'expected') \
                   AND NOT EXISTS (SELECT 1 FROM agent_certificates WHERE serial = $3 AND revoked_at > 0)";
        Ok(self.execute(sql, args![parent, epoch, shown]).await? == 1)
    }

    pub async fn agent_set_fork_until(&mut self, id: &str, until: i64, revision: i64) -> Result<(), Error> {
        let sql = "UPDATE agents SET fork_until = $2, revision = $3 WHERE id = $1";
        self.execute(sql, args![id, until, revision]).await.map(|_| ())
    }
}

impl Db {
    /// Whether the id belonged to an agent that was deleted.
    pub async fn agent_was_deleted(&self, id: &str) -> Result<bool, Error> {
        let sql = "SELECT id FROM deleted_agents WHERE id = $1";
        let row: Option<Id> = self.control.fetch_optional(sql, args![id]).await?;
        Ok(row.is_some())
    }
}
