//! Calls that carry a key, and what they were answered.

use sqlx::FromRow;

use super::{Db, Error, Tx, pool::args};

#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct IdempotencyRow {
    pub caller: String,
    pub method: String,
    pub key: String,
    /// Of the request.
    pub digest: String,
    /// What its secret is derived with.
    pub salt: Vec<u8>,
    /// Encoded, without its secret; empty until the end of the transaction that made it.
    pub answer: Vec<u8>,
    pub created_at: i64,
}

impl Tx {
    /// False: the call is on file, and is not older than `old`. Waits for the same call if it is under way elsewhere.
    pub async fn idempotency_insert(&mut self, row: &IdempotencyRow, old: i64) -> Result<bool, Error> {
        let sql = "DELETE FROM idempotency WHERE caller = $1 AND method = $2 AND key = $3 AND created_at < $4";
        self.execute(sql, args![&row.caller, &row.method, &row.key, old])
            .await?;
        let sql = "INSERT INTO idempotency (caller, method, key, digest, salt, answer, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (caller, method, key) DO NOTHING";
        let args = args![
            &row.caller,
            &row.method,
            &row.key,
            &row.digest,
            row.salt.as_slice(),
            row.answer.as_slice(),
            row.created_at,
        ];
        Ok(self.execute(sql, args).await? == 1)
    }

    pub async fn idempotency_get(
        &mut self,
        caller: &str,
        method: &str,
        key: &str,
    ) -> Result<Option<IdempotencyRow>, Error> {
        let sql = "SELECT * FROM idempotency WHERE caller = $1 AND method = $2 AND key = $3";
        self.fetch_optional(sql, args![caller, method, key]).await
    }

    pub async fn idempotency_set_answer(
        &mut self,
        caller: &str,
        method: &str,
        key: &str,
        answer: &[u8],
    ) -> Result<(), Error> {
        let sql = "UPDATE idempotency SET answer = $4 WHERE caller = $1 AND method = $2 AND key = $3";
        self.execute(sql, args![caller, method, key, answer]).await.map(|_| ())
    }

    /// All of a caller who is gone: the next of that name is somebody else.
    pub async fn idempotency_delete_of(&mut self, caller: &str) -> Result<u64, Error> {
        self.execute("DELETE FROM idempotency WHERE caller = $1", args![caller])
            .await
    }
}

impl Db {
    /// Forgets calls from before `at`.
    pub async fn idempotency_trim(&self, at: i64) -> Result<u64, Error> {
        let mut tx = self.begin_control().await?;
        let removed = tx
            .execute("DELETE FROM idempotency WHERE created_at < $1", args![at])
            .await?;
        tx.commit().await?;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        Source,
        scratch::{Scratch, postgres_url},
    };

    fn row(caller: &str, digest: &str, now: i64) -> IdempotencyRow {
        IdempotencyRow {
            caller: caller.to_owned(),
            method: "CreateToken".to_owned(),
            key: "k".to_owned(),
            digest: digest.to_owned(),
            salt: vec![1, 2],
            answer: Vec::new(),
            created_at: now,
        }
    }

    /// Whether the row is put on file by a transaction of its own.
    async fn put(db: &Db, row: &IdempotencyRow, old: i64) -> bool {
        let mut tx = db.begin().await.unwrap();
        let is_new = tx.idempotency_insert(row, old).await.unwrap();
        tx.commit().await.unwrap();
        is_new
    }

    async fn is_known_until_it_is_old(source: &Source) {
        let db = Db::open(source).await.unwrap();
        let first = row("user/anna", "one", 10);
        assert!(put(&db, &first, 0).await);
        assert!(!put(&db, &row("user/anna", "two", 11), 10).await);
        assert!(put(&db, &row("user/bert", "one", 10), 0).await);

        let mut tx = db.begin().await.unwrap();
        tx.idempotency_set_answer("user/anna", "CreateToken", "k", b"done")
            .await
            .unwrap();
        let answered = IdempotencyRow {
            answer: b"done".to_vec(),
            ..first
        };
        let found = tx.idempotency_get("user/anna", "CreateToken", "k").await.unwrap();
        assert_eq!(found, Some(answered));
        assert_eq!(tx.idempotency_get("user/anna", "CreateRole", "k").await.unwrap(), None);
        tx.commit().await.unwrap();

        let second = row("user/anna", "two", 20);
        assert!(put(&db, &second, 11).await);
        assert_eq!(db.idempotency_trim(20).await.unwrap(), 1);
        let mut tx = db.begin().await.unwrap();
        let found = tx.idempotency_get("user/anna", "CreateToken", "k").await.unwrap();
        assert_eq!(found, Some(second));
        assert_eq!(tx.idempotency_delete_of("user/anna").await.unwrap(), 1);
        tx.commit().await.unwrap();

        // One waits for the other.
        let (third, fourth) = (row("user/anna", "three", 30), row("user/anna", "four", 30));
        let (one, other) = tokio::join!(put(&db, &third, 0), put(&db, &fourth, 0));
        assert!(one != other);
        db.close().await;
    }

    #[tokio::test]
    async fn a_call_is_known_until_it_is_old_on_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        is_known_until_it_is_old(&Source::Sqlite(folder.path().to_owned())).await;
    }

    #[tokio::test]
    async fn a_call_is_known_until_it_is_old_on_postgresql() {
        let Some(server) = postgres_url("calls that come again on PostgreSQL") else {
            return;
        };
        let scratch = Scratch::create(&server, "idempotency").await;
        is_known_until_it_is_old(&scratch.source).await;
        scratch.drop().await;
    }
}
