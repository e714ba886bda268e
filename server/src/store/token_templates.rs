//! Templates of bootstrap tokens.

use sqlx::FromRow;

use super::{Db, Error, Tx, pool::args};

#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct TokenTemplateRow {
    pub name: String,
    /// JSON of the message.
    pub spec: String,
    /// JSON object.
    pub labels: String,
    /// Of whoever made it; empty: everything.
    pub scope: String,
    pub owner: String,
    pub creator: String,
    pub created_at: i64,
    pub updated_at: i64,
    pub revision: i64,
}

const GET: &str = "SELECT * FROM token_templates WHERE name = $1";

impl Tx {
    pub async fn token_template_get(&mut self, name: &str) -> Result<Option<TokenTemplateRow>, Error> {
        self.fetch_optional(GET, args![name]).await
    }

    /// Creates it, or changes all but who made it, when and in which scope.
    pub async fn token_template_put(&mut self, row: &TokenTemplateRow) -> Result<(), Error> {
        let sql = "INSERT INTO token_templates (name, spec, labels, scope, owner, creator, created_at, updated_at, \
                   revision) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO UPDATE SET \
                   spec = $2, labels = $3, owner = $5, updated_at = $8, revision = $9";
        let args = args![
            &row.name,
            &row.spec,
            &row.labels,
            &row.scope,
            &row.owner,
            &row.creator,
            row.created_at,
            row.updated_at,
            row.revision,
        ];
        self.execute(sql, args).await.map(|_| ())
    }

    pub async fn token_template_delete(&mut self, name: &str) -> Result<bool, Error> {
        let sql = "DELETE FROM token_templates WHERE name = $1";
        Ok(self.execute(sql, args![name]).await? == 1)
    }
}

impl Db {
    pub async fn token_template_get(&self, name: &str) -> Result<Option<TokenTemplateRow>, Error> {
        self.control.fetch_optional(GET, args![name]).await
    }

    pub async fn token_template_list(&self) -> Result<Vec<TokenTemplateRow>, Error> {
        self.control_all("SELECT * FROM token_templates ORDER BY name").await
    }
}
