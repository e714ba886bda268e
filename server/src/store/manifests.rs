//! What resources of the configuration have been, from one change to the next.

use sqlx::FromRow;

use super::{Db, Error, Tx, pool::args};

#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct ManifestVersionRow {
    pub revision: i64,
    pub kind: String,
    pub name: String,
    pub at: i64,
    pub caller: String,
    /// `create`, `update` or `delete`.
    pub action: String,
    /// JSON; empty for a deletion.
    pub manifest: String,
}

#[derive(FromRow)]
struct Count {
    n: i64,
}

impl Tx {
    pub async fn manifest_version_add(&mut self, row: &ManifestVersionRow) -> Result<(), Error> {
        let sql = "INSERT INTO manifest_versions (revision, kind, name, at, caller, action, manifest) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
        let args = args![
            row.revision,
            &row.kind,
            &row.name,
            row.at,
            &row.caller,
            &row.action,
            &row.manifest,
        ];
        self.execute(sql, args).await.map(|_| ())
    }

    pub async fn manifest_version_count(&mut self, kind: &str, name: &str) -> Result<i64, Error> {
        let sql = "SELECT COUNT(*) AS n FROM manifest_versions WHERE kind = $1 AND name = $2";
        let row = self.fetch_optional::<Count>(sql, args![kind, name]).await?;
        Ok(row.map_or(0, |row| row.n))
    }

    /// Forgets all but the newest of one resource.
    pub async fn manifest_version_trim_to(&mut self, kind: &str, name: &str, keep: i64) -> Result<u64, Error> {
        let sql = "DELETE FROM manifest_versions WHERE kind = $1 AND name = $2 AND revision <= \
                   (SELECT revision FROM manifest_versions WHERE kind = $1 AND name = $2 \
                   ORDER BY revision DESC LIMIT 1 OFFSET $3)";
        self.execute(sql, args![kind, name, keep]).await
    }
}

impl Db {
    /// Newest first, those before `before`.
    pub async fn manifest_version_list(
        &self,
        kind: &str,
        name: &str,
        before: i64,
        limit: i64,
    ) -> Result<Vec<ManifestVersionRow>, Error> {
        let sql = "SELECT revision, kind, name, at, caller, action, manifest FROM manifest_versions \
                   WHERE kind = $1 AND name = $2 AND revision < $3 ORDER BY revision DESC LIMIT $4";
        self.control.fetch_all(sql, args![kind, name, before, limit]).await
    }

    /// Forgets what resources were that were deleted before `at`, up to their deletion.
    pub async fn manifest_version_trim(&self, at: i64) -> Result<u64, Error> {
        let sql = "DELETE FROM manifest_versions WHERE at < $1 AND EXISTS (SELECT 1 FROM manifest_versions AS gone \
                   WHERE gone.kind = manifest_versions.kind AND gone.name = manifest_versions.name \
                   AND gone.action = 'delete' AND gone.at < $1 AND gone.revision >= manifest_versions.revision)";
        let mut tx = self.begin_control().await?;
        let removed = tx.execute(sql, args![at]).await?;
        tx.commit().await?;
        Ok(removed)
    }
}
