//! Operators: who they are, which certificates open the API, and the end of that. A certificate is issued for a request that
//! proves a key; the key itself is never here. What a caller may do is decided in `access`, how requests look in `api`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use muster_certs::{CertificateDer, ca::Issued as Signed, csr, identity::Name, key::PublicKey};
use muster_proto::{error::FieldViolation, v1::EventSeverity};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{
        permission::USERS_WRITE,
        rights::{ADMIN, Grant, Rights, RightsOfAll, Subject},
    },
    changes::Changes,
    clock::{self, DAY, MINUTE, Micros},
    events::Event,
    grants,
    pki::{self, Pki},
    store::{self, Db, NewUserCertificate, Tx, UserCertificateRow, UserRow},
};

/// Of the column that roles were kept in before there were grants.
const ROLE: &str = "admin";
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
    #[error("nobody but {0} may do everything")]
    LastAdmin(String),
    /// The caller would get what it does not have.
    #[error("the caller does not have {0} for everything, which this user has")]
    Escalation(&'static str),
    /// What is for others wants a permission that the same for oneself does not.
    #[error("the caller does not have {0}")]
    Missing(&'static str),
    #[error("the caller was revoked meanwhile")]
    CallerRevoked,
    #[error("failed to issue the certificate")]
    Pki(#[from] pki::Error),
    #[error("failed to store the change")]
    Store(#[from] store::Error),
}

/// Who changes something.
#[derive(Clone, Debug)]
pub struct By {
    /// None: whoever has the keys of the controller.
    pub subject: Option<Subject>,
    pub rights: Arc<Rights>,
    /// See [`Standing::Live`].
    pub ended: Option<CancellationToken>,
}

impl By {
    /// Whoever has the keys of the controller.
    pub fn host() -> Self {
        Self {
            subject: None,
            rights: Arc::default(),
            ended: None,
        }
    }

    /// As in the audit log: "user/mira".
    pub fn caller(&self) -> String {
        match &self.subject {
            Some(subject) => subject.to_string(),
            None => HOST.to_owned(),
        }
    }

    fn is(&self, user: &str) -> bool {
        matches!(&self.subject, Some(Subject::User(name)) if name == user)
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(Subject::User(name)) => f.write_str(name),
            Some(subject) => subject.fmt(f),
            None => f.write_str(HOST),
        }
    }
}

/// Whoever has the keys of the controller, in texts.
pub const HOST: &str = "controller";

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
    changes: Changes,
    pki: Arc<Pki>,
    rights: Arc<RightsOfAll>,
    /// By serial: all that open the API, but for those that another process has put on file since.
    live: RwLock<BTreeMap<String, Live>>,
    /// Held over a change of users, keys, roles and grants. Another process may add users and certificates at any time, and
    /// takes nothing away.
    writing: tokio::sync::Mutex<()>,
}

impl Users {
    pub async fn load(
        db: Db,
        changes: Changes,
        pki: Arc<Pki>,
        rights: Arc<RightsOfAll>,
        now: Micros,
    ) -> Result<Self, Error> {
        let live = db.user_certificate_list_live(now).await?;
        Ok(Self {
            db,
            changes,
            pki,
            rights,
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

    /// Whether a new user may take the name. `reinstate`: also that of one who was revoked.
    pub async fn is_free(&self, name: &str, reinstate: bool) -> Result<(), Error> {
        match self.db.user_get(name).await? {
            Some(row) if row.revoked_at == 0 => Err(Error::Exists(name.to_owned())),
            Some(_) if !reinstate => Err(Error::Revoked {
                name: name.to_owned(),
                is_new: true,
            }),
            _ => Ok(()),
        }
    }

    /// Another certificate for a user.
    pub async fn renew(&self, request: Request, by: &By, now: Micros) -> Result<Issued, Error> {
        let key = check(&request)?;
        let _writing = self.begin(by).await?;
        let name = request.name.as_str();
        if !by.is(name) && !by.rights.scopes(USERS_WRITE).is_all() {
            return Err(Error::Missing(USERS_WRITE.name));
        }
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
        // A certificate of somebody else is all that this one may do.
        let theirs = self.rights.of(&Subject::User(name.to_owned()));
        if !by.is(name)
            && let Some(lacking) = by.rights.lacks_of(&theirs)
        {
            return Err(Error::Escalation(lacking));
        }
        let signed = self.sign(&request, &key, now)?;
        let mut tx = self.db.begin().await?;
        put(&mut tx, name, &signed, &by.to_string(), now).await?;
        let issued = self.issued(&mut tx, name, &signed).await?;
        tx.commit().await?;
        self.open(name, signed);
        Ok(issued)
    }

    /// Ends the trust in all certificates of a user; connections end by their tokens. Once more is no error.
    pub async fn revoke(&self, name: &str, reason: &str, by: &By, now: Micros) -> Result<User, Error> {
        let _writing = self.begin(by).await?;
        let row = self.db.user_get(name).await?;
        let row = row.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        if row.revoked_at > 0 {
            return self.get(name).await;
        }
        let subject = Subject::User(name.to_owned());
        if self.leaves_no_admin(|grant| grant.subject == subject, now).await? {
            return Err(Error::LastAdmin(name.to_owned()));
        }
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        tx.user_revoke(name, now).await?;
        tx.user_certificate_revoke_all(name, reason, now).await?;
        grants::remove_of(&mut tx, &subject, &self.rights.of(&subject).grants, by, now).await?;
        tx.idempotency_delete_of(&subject.to_string()).await?;
        let mut text = format!("{by} has revoked user {name}");
        if !reason.is_empty() {
            text = format!("{text}: {reason}");
        }
        let event = Event::new("USER_REVOKED", None, text, now)
            .severity(EventSeverity::Warning)
            .with("user", name)
            .with("by", by)
            .with("reason", reason);
        tx.event_insert_all(&[event.into_row()]).await?;
        tx.commit().await?;
        self.write().retain(|_, live| {
            if live.name == name {
                live.ended.cancel();
            }
            live.name != name
        });
        self.rights.remove_grants(&subject, |_| true);
        self.changes.committed();
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

    /// Resolves when no change is under way, and holds off the next.
    pub async fn settled(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    /// The lock over a change. Nothing is done for somebody who was revoked after the call had been let in.
    pub async fn begin(&self, by: &By) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        let writing = self.writing.lock().await;
        match &by.ended {
            Some(ended) if ended.is_cancelled() => Err(Error::CallerRevoked),
            _ => Ok(writing),
        }
    }

    /// A certificate for the key that was asked for, which opens nothing yet.
    pub fn sign(&self, request: &Request, key: &PublicKey, now: Micros) -> Result<Signed, Error> {
        let ttl = request.ttl.unwrap_or(self.pki.lifetimes().user);
        Ok(self
            .pki
            .issue_user_key(&request.name, key, clock::to_system(now), ttl)?)
    }

    /// What is on file at the end of a transaction that has put a certificate there.
    pub async fn issued(&self, tx: &mut Tx, name: &str, signed: &Signed) -> Result<Issued, Error> {
        let row = tx.user_get(name).await?;
        Ok(Issued {
            user: User {
                row: row.ok_or_else(|| Error::NotFound(name.to_owned()))?,
                certificates: tx.user_certificate_list(name).await?,
            },
            chain: self.pki.user_chain(signed.der.clone()),
        })
    }

    /// It is committed: from now on it opens the API.
    pub fn open(&self, name: &str, signed: Signed) {
        let live = Live {
            name: name.to_owned(),
            not_after: clock::from_system(signed.not_after),
            ended: CancellationToken::new(),
        };
        self.write().insert(signed.serial, live);
    }

    /// Whether somebody can do everything now, and nobody could without these grants. Only users count, who have a certificate
    /// that is good: a key is often where nobody finds it any longer.
    pub async fn leaves_no_admin(&self, without: impl Fn(&Grant) -> bool, now: Micros) -> Result<bool, Error> {
        let authorities = self.pki.authorities();
        let is_compromised = |ca: &str| authorities.all().iter().any(|it| it.entry.compromised && it.id() == ca);
        let live = self.db.user_certificate_list_live(now).await?;
        let usable: BTreeSet<String> = live
            .into_iter()
            .filter(|row| !is_compromised(&row.ca))
            .map(|row| row.user_name)
            .collect();
        let is_admin = |grant: &&Grant| {
            grant.role == ADMIN
                && grant.scope.is_all()
                && matches!(&grant.subject, Subject::User(name) if usable.contains(name))
        };
        // As it is on file: another process may have made one.
        let rows = self.db.grant_list().await?;
        let grants: Vec<Grant> = rows.into_iter().map(grants::grant_of).collect::<Result<_, _>>()?;
        let mut admins = grants.iter().filter(is_admin).peekable();
        Ok(admins.peek().is_some() && admins.all(without))
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
pub async fn put(tx: &mut Tx, name: &str, issued: &Signed, by: &str, now: Micros) -> Result<Before, store::Error> {
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

/// The key of a request that is valid in itself.
pub fn check(request: &Request) -> Result<PublicKey, Error> {
    let violations = violations(request);
    match violations.is_empty() {
        true => Ok(csr::verify(&request.csr)?),
        false => Err(Error::Invalid(violations)),
    }
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
