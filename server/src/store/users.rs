//! Operators and their certificates.

use sqlx::FromRow;

use super::{
    Db, Error, Tx,
    pool::{Arg, args},
};

/// A user as it is on file. Times are microseconds; 0: not yet.
#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct UserRow {
    pub name: String,
    pub created_at: i64,
    pub revoked_at: i64,
}

/// A certificate that was issued to a user.
#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct UserCertificateRow {
    pub serial: String,
    pub user_name: String,
    pub not_after: i64,
    pub created_at: i64,
    /// Id of the CA that issued it; empty of those that are from a time before this was kept.
    pub ca: String,
    pub revoked_at: i64,
    pub revoke_reason: String,
}

#[derive(Clone, Debug)]
pub struct NewUserCertificate<'a> {
    pub serial: &'a str,
    pub user_name: &'a str,
    pub not_after: i64,
    pub ca: &'a str,
    pub now: i64,
}

/// The columns of [`UserCertificateRow`], before the rest of a statement.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT serial, user_name, not_after, created_at, ca, revoked_at, revoke_reason FROM user_certificates ",
            $rest
        )
    };
}

const GET: &str = "SELECT name, created_at, revoked_at FROM users WHERE name = $1";
const CERTIFICATES: &str = select!("WHERE $1 = '' OR user_name = $1 ORDER BY created_at DESC, serial");

impl Tx {
    pub async fn user_get(&mut self, name: &str) -> Result<Option<UserRow>, Error> {
        self.fetch_optional(GET, args![name]).await
    }

    /// Of one user, newest first.
    pub async fn user_certificate_list(&mut self, name: &str) -> Result<Vec<UserCertificateRow>, Error> {
        self.fetch_all(CERTIFICATES, args![name]).await
    }

    /// False: there is a user of that name.
    pub async fn user_insert(&mut self, name: &str, role: &str, now: i64) -> Result<bool, Error> {
        let sql = "INSERT INTO users (name, role, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING";
        Ok(self.execute(sql, args![name, role, now]).await? == 1)
    }

    /// False: there is no such user, or it is not revoked. Waits for a revocation that is under way; none begins before this
    /// transaction has ended.
    pub async fn user_reinstate(&mut self, name: &str) -> Result<bool, Error> {
        // On PostgreSQL an insert that meets the row, and an update that would not change it as it was, wait for nobody.
        self.execute("UPDATE users SET role = role WHERE name = $1", args![name])
            .await?;
        let sql = "UPDATE users SET revoked_at = 0 WHERE name = $1 AND revoked_at > 0";
        Ok(self.execute(sql, args![name]).await? == 1)
    }

    /// False: there is no such user, or it is revoked already.
    pub async fn user_revoke(&mut self, name: &str, at: i64) -> Result<bool, Error> {
        let sql = "UPDATE users SET revoked_at = $2 WHERE name = $1 AND revoked_at = 0";
        Ok(self.execute(sql, args![name, at]).await? == 1)
    }

    pub async fn user_certificate_insert(&mut self, new: NewUserCertificate<'_>) -> Result<(), Error> {
        let sql =
            "INSERT INTO user_certificates (serial, user_name, not_after, ca, created_at) VALUES ($1, $2, $3, $4, $5)";
        let args: Vec<Arg> = args![new.serial, new.user_name, new.not_after, new.ca, new.now];
        self.execute(sql, args).await.map(|_| ())
    }

    pub async fn user_certificate_revoke_all(&mut self, name: &str, reason: &str, at: i64) -> Result<(), Error> {
        let sql =
            "UPDATE user_certificates SET revoked_at = $2, revoke_reason = $3 WHERE user_name = $1 AND revoked_at = 0";
        self.execute(sql, args![name, at, reason]).await.map(|_| ())
    }
}

impl Db {
    /// By name.
    pub async fn user_list(&self) -> Result<Vec<UserRow>, Error> {
        self.control_all("SELECT name, created_at, revoked_at FROM users ORDER BY name")
            .await
    }

    pub async fn user_get(&self, name: &str) -> Result<Option<UserRow>, Error> {
        self.control.fetch_optional(GET, args![name]).await
    }

    pub async fn user_certificate_get(&self, serial: &str) -> Result<Option<UserCertificateRow>, Error> {
        self.control
            .fetch_optional(select!("WHERE serial = $1"), args![serial])
            .await
    }

    /// Of one user, or with an empty name of all; newest first.
    pub async fn user_certificate_list(&self, name: &str) -> Result<Vec<UserCertificateRow>, Error> {
        self.control.fetch_all(CERTIFICATES, args![name]).await
    }

    /// Those that open the API: neither revoked nor past this time.
    pub async fn user_certificate_list_live(&self, now: i64) -> Result<Vec<UserCertificateRow>, Error> {
        let sql = select!("WHERE revoked_at = 0 AND not_after > $1 ORDER BY created_at, serial");
        self.control.fetch_all(sql, args![now]).await
    }

    /// Forgets certificates that ended before `at`.
    pub async fn user_certificate_trim(&self, at: i64) -> Result<u64, Error> {
        let mut tx = self.begin_control().await?;
        let sql = "DELETE FROM user_certificates WHERE not_after < $1";
        let removed = tx.execute(sql, args![at]).await?;
        tx.commit().await?;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::scratch::{Scratch, postgres_url};

    #[derive(FromRow)]
    struct Count {
        n: i64,
    }

    /// Resolves when another transaction of this database waits for a lock.
    async fn somebody_waits(db: &Db) {
        let sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waits = async {
            while db.control.fetch_all::<Count>(sql, args![]).await.unwrap()[0].n == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap();
    }

    #[tokio::test]
    async fn a_user_is_reinstated_after_a_revocation_that_is_under_way_on_postgresql() {
        let Some(server) = postgres_url("revocation of a user on PostgreSQL") else {
            return;
        };
        let scratch = Scratch::create(&server, "users").await;
        let db = Db::open(&scratch.source).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        assert!(tx.user_insert("alice", "admin", 1).await.unwrap());
        tx.commit().await.unwrap();

        let mut revocation = db.begin().await.unwrap();
        assert!(revocation.user_revoke("alice", 2).await.unwrap());
        let reinstated = async {
            let mut tx = db.begin().await.unwrap();
            let is_new = tx.user_insert("alice", "admin", 3).await.unwrap();
            let was_revoked = tx.user_reinstate("alice").await.unwrap();
            tx.commit().await.unwrap();
            (is_new, was_revoked)
        };
        tokio::pin!(reinstated);
        tokio::select! {
            early = reinstated.as_mut() => panic!("it did not wait: {early:?}"),
            () = somebody_waits(&db) => revocation.commit().await.unwrap(),
        }
        assert_eq!(reinstated.await, (false, true));
        assert_eq!(db.user_get("alice").await.unwrap().unwrap().revoked_at, 0);
        db.close().await;
        scratch.drop().await;
    }
}
