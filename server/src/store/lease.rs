//! The lock that one controller holds on a PostgreSQL database, on a connection of its own. SQLite needs none of this: its
//! lock is a file. Who waits for it and what is done when it is lost is `crate::lease`.

use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use super::Error;

/// "muster" and a version, as one number: advisory locks of PostgreSQL are named by 64 bits, within one database.
const LOCK: i64 = 0x6d75_7374_6572_0001;

/// A connection that holds, or wants, the lock. The lock lives as long as the connection.
#[derive(Debug)]
pub struct Holder(PgConnection);

impl Holder {
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|source| Error::Open {
                name: "given as a PostgreSQL URL".into(),
                source,
            })?
            .application_name("muster-server lease");
        let name = format!(
            "{} on {}",
            options.get_database().unwrap_or("(default)"),
            options.get_host()
        );
        let connection = options.connect().await.map_err(|source| Error::Open { name, source })?;
        Ok(Self(connection))
    }

    /// Takes the lock unless another connection holds it.
    pub async fn try_take(&mut self) -> Result<bool, Error> {
        let taken = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut self.0)
            .await?;
        Ok(taken)
    }

    /// An error means that the connection is gone, and the lock with it.
    pub async fn check(&mut self) -> Result<(), Error> {
        Ok(self.0.ping().await?)
    }

    /// Gives the lock back.
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.0.close().await?)
    }
}
