//! The certificates that agents were given, from issue to end.

use sqlx::FromRow;

use super::{
    Db, Error, Tx,
    pool::{Arg, args},
};

/// A certificate of an agent.
#[derive(Clone, Debug, FromRow)]
pub struct CertificateRow {
    pub serial: String,
    pub agent_id: String,
    pub not_after: i64,
    pub created_at: i64,
    /// Fingerprint.
    pub public_key: String,
    /// Id of the CA that issued it.
    pub ca: String,
    /// Serial of the one it was renewed with; empty: enrolled.
    pub predecessor: String,
    /// 0 stands for never, here and below.
    pub used_at: i64,
    pub superseded_at: i64,
    pub revoked_at: i64,
    pub revoke_reason: String,
}

/// A certificate that an agent gets.
#[derive(Clone, Debug)]
pub struct NewCertificate<'a> {
    pub agent_id: &'a str,
    pub serial: &'a str,
    pub not_after: i64,
    /// Fingerprint.
    pub public_key: &'a str,
    /// Id of the CA that issued it.
    pub ca: &'a str,
    /// Serial of the one it was renewed with; empty: enrolled.
    pub predecessor: &'a str,
    /// DER.
    pub certificate: &'a [u8],
    pub now: i64,
}

/// A certificate was used for the first time, and the one before it ended by that.
#[derive(Clone, Debug)]
pub struct FirstUse {
    pub serial: String,
    /// Empty: there was none.
    pub superseded: String,
    pub at: i64,
}

/// Which certificates a list holds.
#[derive(Clone, Debug, Default)]
pub struct CertificateFilter {
    /// Empty: of every agent.
    pub agent_id: String,
    /// Only those that are neither superseded nor revoked nor past this time; none: all.
    pub live_at: Option<i64>,
    /// Those after this place, newest first.
    pub after: Option<(i64, String)>,
    pub limit: i64,
}

#[derive(FromRow)]
struct Der {
    certificate: Option<Vec<u8>>,
}

/// The columns of [`CertificateRow`], before the rest of a statement.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT serial, agent_id, not_after, created_at, public_key, ca, predecessor, used_at, superseded_at, ",
            "revoked_at, revoke_reason FROM agent_certificates ",
            $rest
        )
    };
}

impl Tx {
    pub async fn agent_certificate_insert(&mut self, new: NewCertificate<'_>) -> Result<(), Error> {
        self.agent_certificate_insert_all(&[new]).await
    }

    pub async fn agent_certificate_insert_all(&mut self, all: &[NewCertificate<'_>]) -> Result<(), Error> {
        let rows = all.iter().map(|new| {
            args![
                new.serial,
                new.agent_id,
                new.not_after,
                new.now,
                new.public_key,
                new.ca,
                new.predecessor,
                new.certificate,
            ]
        });
        self.with_rows(
            "INSERT INTO agent_certificates (serial, agent_id, not_after, created_at, public_key, ca, predecessor, \
             certificate)",
            rows.collect(),
            "",
        )
        .await
        .map(|_| ())
    }

    pub async fn agent_certificate_first_use_all(&mut self, first_uses: &[FirstUse]) -> Result<(), Error> {
        let used = first_uses.iter().map(|first| args![&first.serial, first.at]);
        self.with_rows(
            "UPDATE agent_certificates SET used_at = given.column2 FROM (",
            used.collect(),
            ") AS given WHERE serial = given.column1 AND used_at = 0",
        )
        .await?;
        let after_others = first_uses.iter().filter(|first| !first.superseded.is_empty());
        let superseded = after_others.map(|first| args![&first.superseded, first.at]);
        self.with_rows(
            "UPDATE agent_certificates SET superseded_at = given.column2 FROM (",
            superseded.collect(),
            ") AS given WHERE serial = given.column1 AND superseded_at = 0",
        )
        .await
        .map(|_| ())
    }

    pub async fn agent_certificate_supersede(&mut self, serial: &str, at: i64) -> Result<(), Error> {
        let sql = "UPDATE agent_certificates SET superseded_at = $2 WHERE serial = $1 AND superseded_at = 0";
        self.execute(sql, args![serial, at]).await.map(|_| ())
    }

    /// Ends all that an agent has, without a bad word: it gets another one with this transaction.
    pub async fn agent_certificate_supersede_all(&mut self, agent_id: &str, at: i64) -> Result<(), Error> {
        let sql = "UPDATE agent_certificates SET superseded_at = $2 WHERE agent_id = $1 AND superseded_at = 0";
        self.execute(sql, args![agent_id, at]).await.map(|_| ())
    }

    /// False when there is no such certificate, or it is revoked already.
    pub async fn agent_certificate_revoke(&mut self, serial: &str, reason: &str, at: i64) -> Result<bool, Error> {
        let sql =
            "UPDATE agent_certificates SET revoked_at = $2, revoke_reason = $3 WHERE serial = $1 AND revoked_at = 0";
        Ok(self.execute(sql, args![serial, at, reason]).await? == 1)
    }

    pub async fn agent_certificate_revoke_all(&mut self, agent_id: &str, reason: &str, at: i64) -> Result<(), Error> {
        let sql =
            "UPDATE agent_certificates SET revoked_at = $2, revoke_reason = $3 WHERE agent_id = $1 AND revoked_at = 0";
        self.execute(sql, args![agent_id, at, reason]).await.map(|_| ())
    }
}

impl Db {
    /// Those that have neither been superseded nor revoked, oldest first.
    pub async fn agent_certificate_list_live(&self) -> Result<Vec<CertificateRow>, Error> {
        let sql = select!("WHERE superseded_at = 0 AND revoked_at = 0 ORDER BY created_at, serial");
        self.control_all(sql).await
    }

    pub async fn agent_certificate_get(&self, serial: &str) -> Result<Option<CertificateRow>, Error> {
        self.control
            .fetch_optional(select!("WHERE serial = $1"), args![serial])
            .await
    }

    /// Whether an agent has, or had, a certificate for this key that was not revoked.
    pub async fn agent_certificate_has_key(&self, agent_id: &str, public_key: &str) -> Result<bool, Error> {
        let sql = select!("WHERE agent_id = $1 AND public_key = $2 AND revoked_at = 0 LIMIT 1");
        let row: Option<CertificateRow> = self.control.fetch_optional(sql, args![agent_id, public_key]).await?;
        Ok(row.is_some())
    }

    /// DER, as it was issued.
    pub async fn agent_certificate_der(&self, serial: &str) -> Result<Option<Vec<u8>>, Error> {
        let sql = "SELECT certificate FROM agent_certificates WHERE serial = $1";
        let row: Option<Der> = self.control.fetch_optional(sql, args![serial]).await?;
        Ok(row.and_then(|row| row.certificate))
    }

    /// Newest first.
    pub async fn agent_certificate_list(&self, filter: &CertificateFilter) -> Result<Vec<CertificateRow>, Error> {
        let (created_at, serial) = filter.after.clone().unwrap_or((i64::MAX, String::new()));
        let args: Vec<Arg> = args![
            &filter.agent_id,
            filter.live_at.is_some(),
            filter.live_at.unwrap_or_default(),
            created_at,
            &serial,
            filter.limit,
        ];
        let sql = select!(
            "WHERE ($1 = '' OR agent_id = $1) AND (NOT $2 OR (superseded_at = 0 AND revoked_at = 0 AND not_after > $3)) \
             AND (created_at < $4 OR (created_at = $4 AND serial > $5)) ORDER BY created_at DESC, serial LIMIT $6"
        );
        self.control.fetch_all(sql, args).await
    }

    /// The revoked ones of a CA that would otherwise still be good: serial and when it was revoked, of agents and users.
    pub async fn certificate_list_revoked(&self, ca: &str, now: i64) -> Result<Vec<(String, i64)>, Error> {
        #[derive(FromRow)]
        struct Revoked {
            serial: String,
            revoked_at: i64,
        }
        let sql = "SELECT serial, revoked_at FROM agent_certificates WHERE ca = $1 AND revoked_at > 0 AND not_after > $2 \
                   UNION ALL \
                   SELECT serial, revoked_at FROM user_certificates \
                   WHERE (ca = $1 OR ca = '') AND revoked_at > 0 AND not_after > $2 \
                   ORDER BY revoked_at, serial";
        let rows: Vec<Revoked> = self.control.fetch_all(sql, args![ca, now]).await?;
        Ok(rows.into_iter().map(|row| (row.serial, row.revoked_at)).collect())
    }

    /// When the last token that was given out with a CA's pin, and the last certificate of an operator that is from it, ends.
    pub async fn ca_last_needed(&self, ca: &str) -> Result<i64, Error> {
        #[derive(FromRow)]
        struct Last {
            last: i64,
        }
        let sql = "SELECT COALESCE(MAX(ends), 0) AS last FROM (\
                   SELECT expires_at AS ends FROM tokens WHERE cas LIKE '%' || $1 || '%' AND revoked_at = 0 \
                   UNION ALL \
                   SELECT not_after AS ends FROM user_certificates WHERE (ca = $1 OR ca = '') AND revoked_at = 0) AS needed";
        let row: Option<Last> = self.control.fetch_optional(sql, args![ca]).await?;
        Ok(row.map_or(0, |row| row.last))
    }

    /// Forgets certificates that ended before `at`.
    pub async fn agent_certificate_trim(&self, at: i64) -> Result<u64, Error> {
        let mut tx = self.begin_control().await?;
        let removed = tx
            .execute("DELETE FROM agent_certificates WHERE not_after < $1", args![at])
            .await?;
        tx.commit().await?;
        Ok(removed)
    }
}
