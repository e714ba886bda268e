//! Roles, and to whom they are granted.

use sqlx::FromRow;

use super::{Db, Error, Tx, pool::args};

#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct RoleRow {
    pub name: String,
    pub description: String,
    /// JSON array.
    pub permissions: String,
    pub creator: String,
    pub created_at: i64,
    pub updated_at: i64,
    pub revision: i64,
    pub owner: String,
    /// JSON object.
    pub labels: String,
}

#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct GrantRow {
    pub id: String,
    /// `user` or `apikey`.
    pub subject_kind: String,
    pub subject: String,
    pub role: String,
    /// Empty: everything.
    pub scope: String,
    pub creator: String,
    pub created_at: i64,
    pub revision: i64,
    pub owner: String,
    /// JSON object.
    pub labels: String,
}

impl Tx {
    /// Creates it, or changes all but who made it and when.
    pub async fn role_put(&mut self, row: &RoleRow) -> Result<(), Error> {
        let sql = "INSERT INTO roles (name, description, permissions, creator, created_at, updated_at, revision, owner, \
                   labels) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO UPDATE SET \
                   description = $2, permissions = $3, updated_at = $6, revision = $7, owner = $8, labels = $9";
        let args = args![
            &row.name,
            &row.description,
            &row.permissions,
            &row.creator,
            row.created_at,
            row.updated_at,
            row.revision,
            &row.owner,
            &row.labels,
        ];
        self.execute(sql, args).await.map(|_| ())
    }

    pub async fn role_delete(&mut self, name: &str) -> Result<bool, Error> {
        Ok(self.execute("DELETE FROM roles WHERE name = $1", args![name]).await? == 1)
    }

    /// False: the subject has the role in that scope already.
    pub async fn grant_insert(&mut self, row: &GrantRow) -> Result<bool, Error> {
        let sql = "INSERT INTO grants (id, subject_kind, subject, role, scope, creator, created_at, revision, owner, \
                   labels) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";
        let args = args![
            &row.id,
            &row.subject_kind,
            &row.subject,
            &row.role,
            &row.scope,
            &row.creator,
            row.created_at,
            row.revision,
            &row.owner,
            &row.labels,
        ];
        Ok(self.execute(sql, args).await? == 1)
    }

    /// What of a grant may change.
    pub async fn grant_set_metadata(
        &mut self,
        id: &str,
        owner: &str,
        labels: &str,
        revision: i64,
    ) -> Result<(), Error> {
        let sql = "UPDATE grants SET owner = $2, labels = $3, revision = $4 WHERE id = $1";
        self.execute(sql, args![id, owner, labels, revision]).await.map(|_| ())
    }

    pub async fn grant_delete(&mut self, id: &str) -> Result<bool, Error> {
        Ok(self.execute("DELETE FROM grants WHERE id = $1", args![id]).await? == 1)
    }

    /// All of a subject that is gone.
    pub async fn grant_delete_of(&mut self, subject_kind: &str, subject: &str) -> Result<u64, Error> {
        let sql = "DELETE FROM grants WHERE subject_kind = $1 AND subject = $2";
        self.execute(sql, args![subject_kind, subject]).await
    }
}

impl Db {
    pub async fn role_list(&self) -> Result<Vec<RoleRow>, Error> {
        self.control_all("SELECT * FROM roles ORDER BY name").await
    }

    pub async fn grant_list(&self) -> Result<Vec<GrantRow>, Error> {
        self.control_all("SELECT * FROM grants ORDER BY id").await
    }

    pub async fn grant_list_of(&self, subject_kind: &str, subject: &str) -> Result<Vec<GrantRow>, Error> {
        let sql = "SELECT * FROM grants WHERE subject_kind = $1 AND subject = $2 ORDER BY id";
        self.control.fetch_all(sql, args![subject_kind, subject]).await
    }
}
