//! Operators: who they are, which certificates open the API, and the end of that. A certificate is issued for a request that
//! proves a key; the key itself is never here. What a caller may do is decided in `access`, how requests look in `api`.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use muster_certs::{CertificateDer, csr, identity::Name, key::PublicKey};
use muster_proto::{error::FieldViolation, v1::EventSeverity};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{self, DAY, MINUTE, Micros},
    events::Event,
    pki::{self, Pki},
    store::{self, Db, NewUserCertificate, Tx, UserCertificateRow, UserRow},
};

/// What an operator may do; the only role there is.
pub const ROLE: &str = "admin";
/// Bounds of what may be asked for. What is configured is not bound by them.
const MIN_TTL: Micros = MINUTE;
const MAX_TTL: Micros = 365 * DAY;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the request is not valid")]
    Invalid(Vec<FieldViolation>),
    #[error("the certificate request is not acceptable")]
    Csr(#[from] csr::Error),
    #[error("there is a user {0} already")]
    Exists(String),
    #[error("there is no user {0}")]
    NotFound(String),
    /// A new user cannot take the name, or the user cannot get another certificate.
    #[error("user {name} is revoked")]
    Revoked { name: String, is_new: bool },
    #[error("nobody but {0} can use the API")]
    LastAdmin(String),
    #[error("the caller was revoked meanwhile")]
    CallerRevoked,
    #[error("failed to issue the certificate")]
    Pki(#[from] pki::Error),
    #[error("failed to store the change")]
    Store(#[from] store::Error),
}

/// Who changes something. `ended`: see [`Standing::Live`]; none: whoever has the keys of the controller.
#[derive(Clone, Debug)]
pub struct By {
    pub name: String,
    pub ended: Option<CancellationToken>,
}

/// What a new certificate is for.
#[derive(Clone, Debug)]
pub struct Request {
    pub name: String,
    /// PKCS #10, DER.
    pub csr: Vec<u8>,
    /// None: as configured.
    pub ttl: Option<Duration>,
}

/// A user with all certificates that are on file, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub row: UserRow,
    pub certificates: Vec<UserCertificateRow>,
}

#[derive(Clone, Debug)]
pub struct Issued {
    pub user: User,
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
}

/// What a certificate of ours, that has not expired, is worth.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Cancelled when the trust in the certificate ends.
    Live(CancellationToken),
    Revoked,
    Unknown,
}

#[derive(Debug)]
struct Live {
    name: String,
    not_after: Micros,
    ended: CancellationToken,
}

#[derive(Debug)]
pub struct Users {
    db: Db,
    pki: Arc<Pki>,
    /// By serial: all that open the API, but for those that another process has put on file since.
    live: RwLock<BTreeMap<String, Live>>,
    /// Held over a change. Another process may add users and certificates at any time, and takes nothing away.
    writing: tokio::sync::Mutex<()>,
}

impl Users {
    pub async fn load(db: Db, pki: Arc<Pki>, now: Micros) -> Result<Self, Error> {
        let live = db.user_certificate_list_live(now).await?;
        Ok(Self {
            db,
            pki,
            live: RwLock::new(live.into_iter().map(entry).collect()),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// From memory for a certificate that was seen before; the database is asked for others.
    pub async fn standing(&self, name: &str, serial: &str) -> Result<Standing, store::Error> {
        if let Some(ended) = self.known(name, serial) {
            return Ok(Standing::Live(ended));
        }
        let on_file = |row: Option<UserCertificateRow>| row.filter(|row| row.user_name == name);
        match on_file(self.db.user_certificate_get(serial).await?) {
            None => return Ok(Standing::Unknown),
            Some(row) if row.revoked_at > 0 => return Ok(Standing::Revoked),
            Some(_) => {}
        }
        // On file since another process put it there. Once more, with no revocation under way.
        let _writing = self.writing.lock().await;
        match on_file(self.db.user_certificate_get(serial).await?) {
            Some(row) if row.revoked_at == 0 => {
                let (serial, live) = entry(row);
                Ok(Standing::Live(self.write().entry(serial).or_insert(live).ended.clone()))
            }
            _ => Ok(Standing::Revoked),
        }
    }

    /// All, by name.
    pub async fn list(&self) -> Result<Vec<User>, Error> {
        let mut of: BTreeMap<String, Vec<UserCertificateRow>> = BTreeMap::new();
        for row in self.db.user_certificate_list("").await? {
            of.entry(row.user_name.clone()).or_default().push(row);
        }
        let with = |row: UserRow| User {
            certificates: of.remove(&row.name).unwrap_or_default(),
            row,
        };
        Ok(self.db.user_list().await?.into_iter().map(with).collect())
    }

    pub async fn get(&self, name: &str) -> Result<User, Error> {
        let row = self.db.user_get(name).await?;
        Ok(User {
            row: row.ok_or_else(|| Error::NotFound(name.to_owned()))?,
            certificates: self.db.user_certificate_list(name).await?,
        })
    }

    /// A user with a first certificate. `reinstate`: also with the name of one who was revoked.
    pub async fn create(&self, request: Request, reinstate: bool, by: &By, now: Micros) -> Result<Issued, Error> {
        let violations = violations(&request);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let key = csr::verify(&request.csr)?;
        let _writing = self.begin(by).await?;
        let name = request.name.as_str();
        match self.db.user_get(name).await? {
            Some(row) if row.revoked_at == 0 => return Err(Error::Exists(name.to_owned())),
            Some(_) if !reinstate => {
                return Err(Error::Revoked {
                    name: name.to_owned(),
                    is_new: true,
                });
            }
            _ => {}
        }
        self.issue(request, &key, by, now).await
    }

    /// Another certificate for a user.
    pub async fn renew(&self, request: Request, by: &By, now: Micros) -> Result<Issued, Error> {
        let violations = violations(&request);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let key = csr::verify(&request.csr)?;
        let _writing = self.begin(by).await?;
        let name = request.name.as_str();
        match self.db.user_get(name).await? {
            None => return Err(Error::NotFound(name.to_owned())),
            Some(row) if row.revoked_at > 0 => {
                return Err(Error::Revoked {
                    name: name.to_owned(),
                    is_new: false,
                });
            }
            Some(_) => {}
        }
        self.issue(request, &key, by, now).await
    }

    /// Ends the trust in all certificates of a user; connections end by their tokens. Once more is no error.
    pub async fn revoke(&self, name: &str, reason: &str, by: &By, now: Micros) -> Result<User, Error> {
        let _writing = self.begin(by).await?;
        let row = self.db.user_get(name).await?;
        let row = row.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        if row.revoked_at > 0 {
            return self.get(name).await;
        }
        if self.is_last(name, now).await? {
            return Err(Error::LastAdmin(name.to_owned()));
        }
        let mut tx = self.db.begin().await?;
        tx.user_revoke(name, now).await?;
        tx.user_certificate_revoke_all(name, reason, now).await?;
        let mut text = format!("{} has revoked user {name}", by.name);
        if !reason.is_empty() {
            text = format!("{text}: {reason}");
        }
        let event = Event::new("USER_REVOKED", None, text, now)
            .severity(EventSeverity::Warning)
            .with("user", name)
            .with("by", &by.name)
            .with("reason", reason);
        tx.event_insert_all(&[event.into_row()]).await?;
        tx.commit().await?;
        self.write().retain(|_, live| {
            if live.name == name {
                live.ended.cancel();
            }
            live.name != name
        });
        self.get(name).await
    }

    /// Forgets what ended before `at`, and in memory what has ended by now: with its connections, since no revocation would
    /// find them any longer.
    pub async fn trim(&self, at: Micros, now: Micros) -> Result<(), store::Error> {
        self.write().retain(|_, live| {
            let is_good = live.not_after > now;
            if !is_good {
                live.ended.cancel();
            }
            is_good
        });
        self.db.user_certificate_trim(at).await.map(|_| ())
    }

    /// The lock over a change. Nothing is done for somebody who was revoked after the call had been let in.
    async fn begin(&self, by: &By) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        let writing = self.writing.lock().await;
        match &by.ended {
            Some(ended) if ended.is_cancelled() => Err(Error::CallerRevoked),
            _ => Ok(writing),
        }
    }

    async fn issue(&self, request: Request, key: &PublicKey, by: &By, now: Micros) -> Result<Issued, Error> {
        let ttl = request.ttl.unwrap_or(self.pki.lifetimes().user);
        let name = request.name.as_str();
        let issued = self.pki.issue_user_key(name, key, clock::to_system(now), ttl)?;
        let mut tx = self.db.begin().await?;
        put(&mut tx, name, &issued, &by.name, now).await?;
        tx.commit().await?;
        let live = Live {
            name: name.to_owned(),
            not_after: clock::from_system(issued.not_after),
            ended: CancellationToken::new(),
        };
        self.write().insert(issued.serial, live);
        Ok(Issued {
            user: self.get(name).await?,
            chain: self.pki.user_chain(issued.der),
        })
    }

    /// Whether this user can use the API now, and nobody else.
    async fn is_last(&self, name: &str, now: Micros) -> Result<bool, Error> {
        let authorities = self.pki.authorities();
        let is_compromised = |ca: &str| authorities.all().iter().any(|it| it.entry.compromised && it.id() == ca);
        let live = self.db.user_certificate_list_live(now).await?;
        let mut usable = live.iter().filter(|row| !is_compromised(&row.ca));
        let mut is_usable = false;
        let has_others = usable.any(|row| {
            is_usable |= row.user_name == name;
            row.user_name != name
        });
        Ok(is_usable && !has_others)
    }

    fn known(&self, name: &str, serial: &str) -> Option<CancellationToken> {
        let live = self.read();
        let live = live.get(serial).filter(|live| live.name == name)?;
        Some(live.ended.clone())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Live>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Live>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a user was before a certificate was put on file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Nobody,
    Trusted,
    Revoked,
}

/// Puts a certificate on file, and its user, whatever the user was before.
pub async fn put(
    tx: &mut Tx,
    name: &str,
    issued: &muster_certs::ca::Issued,
    by: &str,
    now: Micros,
) -> Result<Before, store::Error> {
    let not_after = clock::from_system(issued.not_after);
    // The row of the user first: its lock keeps a revocation and a new certificate apart.
    let is_new = tx.user_insert(name, ROLE, now).await?;
    let before = match is_new {
        true => Before::Nobody,
        false if tx.user_reinstate(name).await? => Before::Revoked,
        false => Before::Trusted,
    };
    tx.user_certificate_insert(NewUserCertificate {
        serial: &issued.serial,
        user_name: name,
        not_after,
        ca: &issued.ca,
        now,
    })
    .await?;
    let until = clock::to_text(not_after);
    let (reason, text) = match before {
        Before::Nobody => ("USER_CREATED", format!("{by} has created user {name}")),
        Before::Revoked => (
            "USER_CREATED",
            format!("{by} has created user {name}, who was revoked before"),
        ),
        Before::Trusted if by == name => (
            "USER_RENEWED",
            format!("{by} has got another certificate, until {until}"),
        ),
        Before::Trusted => (
            "USER_RENEWED",
            format!("{by} has given user {name} a certificate until {until}"),
        ),
    };
    let event = Event::new(reason, None, text, now)
        .with("user", name)
        .with("by", by)
        .with("serial", &issued.serial)
        .with("not_after", until);
    tx.event_insert_all(&[event.into_row()]).await?;
    Ok(before)
}

fn entry(row: UserCertificateRow) -> (String, Live) {
    let live = Live {
        name: row.user_name,
        not_after: row.not_after,
        ended: CancellationToken::new(),
    };
    (row.serial, live)
}

fn violations(request: &Request) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    if let Err(error) = request.name.parse::<Name>() {
        violations.push(FieldViolation::new("name", error.to_string()));
    }
    let is_outside = |ttl: Duration| !(MIN_TTL..=MAX_TTL).contains(&clock::from_duration(ttl));
    if request.ttl.is_some_and(is_outside) {
        violations.push(FieldViolation::new("ttl", "must be from 1 minute to 365 days"));
    }
    violations
}

#[cfg(test)]
mod tests;
