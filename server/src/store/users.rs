//! Operators and their certificates.

use sqlx::FromRow;

use super::{Db, Error, pool::args};

#[derive(Clone, Debug, FromRow)]
pub struct UserRow {
    pub name: String,
    pub role: String,
}

impl Db {
    /// Puts a certificate of a user on file, and the user if there is none of that name.
    pub async fn user_create(
        &self,
        name: &str,
        role: &str,
        serial: &str,
        not_after: i64,
        now: i64,
    ) -> Result<(), Error> {
        let mut tx = self.begin_control().await?;
        let user =
            "INSERT INTO users (name, role, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET role = $2";
        tx.execute(user, args![name, role, now]).await?;
        let certificate =
            "INSERT INTO user_certificates (serial, user_name, not_after, created_at) VALUES ($1, $2, $3, $4)";
        tx.execute(certificate, args![serial, name, not_after, now]).await?;
        tx.commit().await
    }

    /// The user a certificate was issued to, if both are on file.
    pub async fn user_by_certificate(&self, name: &str, serial: &str) -> Result<Option<UserRow>, Error> {
        let sql = "SELECT u.name, u.role FROM users u JOIN user_certificates c ON c.user_name = u.name \
                   WHERE u.name = $1 AND c.serial = $2";
        self.control.fetch_optional(sql, args![name, serial]).await
    }
}
