//! The lock that one controller holds on a PostgreSQL database, on a connection of its own. SQLite needs none of this: its
//! lock is a file. Who waits for it and what is done when it is lost is `crate::lease`.

use std::{str::FromStr, time::Duration};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use super::{Error, pool::APPLICATION};

/// "muster" and a version, as one number: advisory locks of PostgreSQL are named by 64 bits, within one database.
pub(super) const LOCK: i64 = 0x6d75_7374_6572_0001;

/// How the server finds out that the host of this connection is gone: after 5 s of silence it asks, and gives up 6 s later. The
/// holder itself notices earlier that it has lost the server (`crate::lease`), and stops.
const KEEPALIVE: &str = "SELECT set_config('tcp_keepalives_idle', '5', false), \
                         set_config('tcp_keepalives_interval', '2', false), \
                         set_config('tcp_keepalives_count', '3', false), \
                         set_config('tcp_user_timeout', '11s', false)";
const END_OTHERS: &str = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                          WHERE datname = current_database() AND usename = current_user AND application_name = $1";
const OTHERS: &str = "SELECT COUNT(*) FROM pg_stat_activity \
                      WHERE datname = current_database() AND usename = current_user AND application_name = $1";
/// The connection that asks, by its process and when that began: the number alone may be given to another after a restart.
const SELF: &str = "SELECT pid, CAST(EXTRACT(EPOCH FROM backend_start) * 1000000 AS BIGINT) FROM pg_stat_activity \
                    WHERE pid = pg_backend_pid()";
const HOLDS: &str = "SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
                     WHERE l.locktype = 'advisory' AND l.granted \
                     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                     AND ((l.classid::bigint << 32) | l.objid::bigint) = $1 \
                     AND a.pid = $2 AND CAST(EXTRACT(EPOCH FROM a.backend_start) * 1000000 AS BIGINT) = $3)";
/// How often it is looked whether the others are gone, and how many times.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 100;

/// Which connection holds the lock, for those that work under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mandate {
    pid: i32,
    since: i64,
}

impl Mandate {
    /// Fails on a connection that was opened after the lock was lost: what the one that works next has begun with stays as it is.
    /// One that was opened before ends when the lock is taken by others, or has ended with the server.
    pub(super) async fn look(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let holds: bool = sqlx::query_scalar(HOLDS)
            .bind(LOCK)
            .bind(self.pid)
            .bind(self.since)
            .fetch_one(connection)
            .await?;
        match holds {
            true => Ok(()),
            false => Err(sqlx::Error::Protocol("the lease of this controller is lost".into())),
        }
    }
}

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
        let mut connection = options.connect().await.map_err(|source| Error::Open { name, source })?;
        if let Err(error) = sqlx::query(KEEPALIVE).execute(&mut connection).await {
            tracing::warn!(%error, "the database does not take keep-alive settings; it may be late to see that a host is gone");
        }
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

    /// Ends what the last holder has left behind: a commit of it that is still under way would come after the new one has
    /// read what there is. Gives how many connections there were.
    pub async fn end_others(&mut self) -> Result<i64, Error> {
        let ended: i64 = sqlx::query_scalar(END_OTHERS)
            .bind(APPLICATION)
            .fetch_one(&mut self.0)
            .await?;
        for _ in 0..LOOKS {
            let left: i64 = sqlx::query_scalar(OTHERS)
                .bind(APPLICATION)
                .fetch_one(&mut self.0)
                .await?;
            if left == 0 {
                return Ok(ended);
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Error::Occupied)
    }

    /// To be asked for once the lock is taken.
    pub async fn mandate(&mut self) -> Result<Mandate, Error> {
        let (pid, since) = sqlx::query_as(SELF).fetch_one(&mut self.0).await?;
        Ok(Mandate { pid, since })
    }

    /// An error means that the connection is gone, and the lock with it.
    pub async fn check(&mut self) -> Result<(), Error> {
        Ok(self.0.ping().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        Db, Source,
        scratch::{Scratch, postgres_url},
    };

    #[tokio::test]
    async fn the_lock_has_one_holder_and_ends_with_its_connection() {
        let Some(url) = postgres_url("the lease on PostgreSQL") else {
            return;
        };
        let mut first = Holder::connect(&url).await.unwrap();
        let mut second = Holder::connect(&url).await.unwrap();
        assert!(first.try_take().await.unwrap());
        first.check().await.unwrap();
        assert!(!second.try_take().await.unwrap(), "two hold the lock");

        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut first.0)
            .await
            .unwrap();
        sqlx::query("SELECT pg_terminate_backend($1, 10000)")
            .bind(backend)
            .execute(&mut second.0)
            .await
            .unwrap();
        assert!(first.check().await.is_err(), "the loss is not noticed");
        assert!(second.try_take().await.unwrap());
    }

    #[tokio::test]
    async fn the_new_holder_ends_what_the_last_one_has_left_under_way() {
        let Some(url) = postgres_url("the lease on PostgreSQL") else {
            return;
        };
        let options = PgConnectOptions::from_str(&url).unwrap();
        let options = options.application_name(APPLICATION);
        let mut left = options.connect().await.unwrap();
        sqlx::query("BEGIN").execute(&mut left).await.unwrap();
        let mut holder = Holder::connect(&url).await.unwrap();
        assert!(holder.end_others().await.unwrap() >= 1);
        assert!(
            sqlx::query("COMMIT").execute(&mut left).await.is_err(),
            "it still commits"
        );
        holder.check().await.unwrap();
    }

    #[tokio::test]
    async fn a_lease_that_is_lost_opens_no_connection() {
        let Some(server) = postgres_url("connections under a lease on PostgreSQL") else {
            return;
        };
        let scratch = Scratch::create(&server, "mandate").await;
        let Source::Postgres(url) = &scratch.source else {
            panic!("it is one of PostgreSQL")
        };
        let mut holder = Holder::connect(url).await.unwrap();
        assert!(holder.try_take().await.unwrap());
        let mandate = holder.mandate().await.unwrap();
        let db = Db::open_under(&scratch.source, Some(mandate)).await.unwrap();
        let mut next = Holder::connect(url).await.unwrap();
        // As long as it has the lease, connections that have ended are followed by others.
        assert!(next.end_others().await.unwrap() >= 1);
        db.ping().await.unwrap();

        drop(holder);
        // PostgreSQL sees a little later that the connection is gone.
        let taken = async { while !next.try_take().await.unwrap() {} };
        tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap();
        next.end_others().await.unwrap();
        db.ping().await.unwrap_err();
        let of_next = Db::open_under(&scratch.source, Some(next.mandate().await.unwrap())).await;
        of_next.unwrap().ping().await.unwrap();
        // The process that holds it has the same number, and is another.
        let Mandate { pid, since } = next.mandate().await.unwrap();
        let earlier = Mandate { pid, since: since - 1 };
        let mut connection = PgConnection::connect(url).await.unwrap();
        earlier.look(&mut connection).await.unwrap_err();
        scratch.drop().await;
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_reached_is_named_without_its_password() {
        let error = Holder::connect("postgres://muster:geheim@127.0.0.1:1/fleet")
            .await
            .unwrap_err();
        let text = format!("{error:?} {error}");
        assert!(
            error.to_string().contains("fleet on 127.0.0.1") && !text.contains("geheim"),
            "{text}"
        );
    }
}
