//! API keys: made by operators, shown by scripts. Only the hash of a secret is kept; all keys are in memory, so that no call asks
//! the database who it is.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use ipnet::IpNet;
use muster_certs::token::{self, ApiKey};
use muster_proto::{error::FieldViolation, v1::EventSeverity};
use tokio_util::sync::CancellationToken;

use crate::{
    access::rights::Subject,
    changes::Changes,
    clock::{self, DAY, MINUTE, Micros},
    events::Event,
    grants::{self, Grants},
    idempotency::{self, Done, Once, Turn},
    store::{self, ApiKeyRow, ChangeKind, Db, Op},
    users::{By, Users},
};

pub const DEFAULT_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
const MIN_TTL: Duration = Duration::from_secs(60);
const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 3600);
const MAX_SOURCES: usize = 64;
const MAX_DESCRIPTION: usize = 1_024;
/// How long those that ended stay on file.
const KEEP_ENDED: Micros = 90 * DAY;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the key that is asked for is not valid")]
    Invalid(Vec<FieldViolation>),
    #[error("there is no API key {0}")]
    NotFound(String),
    #[error("failed to make the secret of a key")]
    Random(#[from] token::Error),
    #[error("the key cannot be given its role")]
    Grant(#[from] grants::Error),
    #[error("failed to tell whether it is the same call again")]
    Once(#[from] idempotency::Error),
    #[error("failed to store the key")]
    Store(#[from] store::Error),
}

#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub description: String,
    pub ttl: Duration,
    pub role: String,
    pub scope: String,
    /// Networks in CIDR notation, or single addresses; none: from anywhere.
    pub sources: Vec<String>,
}

#[derive(Debug)]
struct Key {
    row: ApiKeyRow,
    sources: Vec<IpNet>,
    /// Cancelled when the trust in it ends.
    ended: CancellationToken,
}

#[derive(Debug)]
pub struct ApiKeys {
    db: Db,
    changes: Changes,
    users: Arc<Users>,
    keys: RwLock<BTreeMap<String, Key>>,
}

impl ApiKeys {
    pub async fn load(db: Db, changes: Changes, users: Arc<Users>) -> Result<Self, store::Error> {
        let mut keys = BTreeMap::new();
        for row in db.api_key_list().await? {
            let key = Key::new(row)?;
            keys.insert(key.row.id.clone(), key);
        }
        Ok(Self {
            db,
            changes,
            users,
            keys: RwLock::new(keys),
        })
    }

    /// The id of a key that is good for this address now, and what tells of its end.
    pub fn standing(&self, text: &str, source: IpAddr, now: Micros) -> Option<(String, CancellationToken)> {
        let shown = ApiKey::parse(text).ok()?;
        let mut keys = self.write();
        let key = keys.get_mut(shown.id())?;
        // First of all, so that the time it takes says nothing.
        let is_right = token::hash_eq(&key.row.secret_hash, &shown.hash());
        let source = source.to_canonical();
        let is_near = key.sources.is_empty() || key.sources.iter().any(|net| net.contains(&source));
        if !is_right || !is_near || key.row.revoked_at > 0 || key.row.expires_at <= now {
            return None;
        }
        key.row.last_used_at = key.row.last_used_at.max(now / MINUTE * MINUTE);
        Some((key.row.id.clone(), key.ended.clone()))
    }

    /// Newest first.
    pub fn list(&self) -> Vec<ApiKeyRow> {
        let mut rows: Vec<ApiKeyRow> = self.read().values().map(|key| key.row.clone()).collect();
        rows.sort_by(|a, b| (b.created_at, &a.id).cmp(&(a.created_at, &b.id)));
        rows
    }

    pub fn get(&self, id: &str) -> Result<ApiKeyRow, Error> {
        let keys = self.read();
        let key = keys.get(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
        Ok(key.row.clone())
    }

    /// With its first grant; the secret is in the returned key alone.
    pub async fn create<A>(
        &self,
        new: NewApiKey,
        once: Once<ApiKeyRow, A>,
        grants: &Grants,
        by: &By,
        now: Micros,
    ) -> Result<(Done<A>, ApiKey), Error> {
        let sources = validate(&new).map_err(Error::Invalid)?;
        let scope = grants::parse_scope(&new.scope)?;
        let _writing = self.users.begin(by).await.map_err(grants::Error::from)?;
        grants.grantable(&new.role, by)?;
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let key = match once.begin(&mut tx, now).await? {
            Turn::First(None) => ApiKey::generate()?,
            Turn::First(Some(seed)) => ApiKey::derive(&seed)?,
            Turn::Again(answer, seed) => return Ok((Done::again(answer), ApiKey::derive(&seed)?)),
        };
        let revision = tx.change_add(now, ChangeKind::ApiKey, key.id(), Op::Put).await?;
        let texts: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let row = ApiKeyRow {
            id: key.id().to_owned(),
            secret_hash: key.hash().to_vec(),
            description: new.description,
            sources: serde_json::json!(texts).to_string(),
            creator: by.to_string(),
            created_at: now,
            expires_at: now.saturating_add(clock::from_duration(new.ttl)),
            revoked_at: 0,
            last_used_at: 0,
            revision,
        };
        tx.api_key_insert(&row).await?;
        let event = Event::new(
            "API_KEY_CREATED",
            None,
            format!("{by} has made API key {}", row.id),
            now,
        )
        .with("apikey", &row.id)
        .with("by", by);
        tx.event_insert_all(&[event.into_row()]).await?;
        let subject = Subject::ApiKey(row.id.clone());
        let grant = grants::insert(&mut tx, subject, &new.role, scope, by, now).await?;
        let done = once.end(&mut tx, &row).await?;
        tx.commit().await?;
        self.write().insert(row.id.clone(), Key::new(row)?);
        grants.rights().put_grant(grant);
        self.changes.committed();
        Ok((done, key))
    }

    /// Its grants go with it. Once more is no error.
    pub async fn revoke(&self, id: &str, grants: &Grants, by: &By, now: Micros) -> Result<ApiKeyRow, Error> {
        let _writing = self.users.begin(by).await.map_err(grants::Error::from)?;
        let row = self.get(id)?;
        if row.revoked_at > 0 {
            return Ok(row);
        }
        let subject = Subject::ApiKey(id.to_owned());
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::ApiKey, id, Op::Put).await?;
        tx.api_key_revoke(id, revision, now).await?;
        grants::remove_of(&mut tx, &subject, &grants.rights().of(&subject).grants, by, now).await?;
        let event = Event::new("API_KEY_REVOKED", None, format!("{by} has revoked API key {id}"), now)
            .severity(EventSeverity::Warning)
            .with("apikey", id)
            .with("by", by);
        tx.event_insert_all(&[event.into_row()]).await?;
        tx.commit().await?;
        let row = ApiKeyRow {
            revoked_at: now,
            revision,
            ..row
        };
        if let Some(key) = self.write().get_mut(id) {
            key.row = row.clone();
            key.ended.cancel();
        }
        grants.rights().remove_grants(&subject, |_| true);
        self.changes.committed();
        Ok(row)
    }

    /// Writes when keys were used last, ends those that have expired and forgets what ended long ago.
    pub async fn keep(&self, now: Micros) -> Result<(), store::Error> {
        let used: Vec<(String, Micros)> = self
            .read()
            .values()
            .filter(|key| key.row.last_used_at > now - 2 * DAY)
            .map(|key| (key.row.id.clone(), key.row.last_used_at))
            .collect();
        let mut tx = self.db.begin().await?;
        for (id, at) in used {
            tx.api_key_used(&id, at).await?;
        }
        tx.commit().await?;
        let old = now - KEEP_ENDED;
        self.db.api_key_trim(old).await?;
        self.write().retain(|_, key| {
            if key.row.expires_at <= now {
                key.ended.cancel();
            }
            let is_old = key.row.expires_at < old || (key.row.revoked_at > 0 && key.row.revoked_at < old);
            !is_old
        });
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Key>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Key>> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn new(row: ApiKeyRow) -> Result<Self, store::Error> {
        let corrupt = |problem: String| store::Error::Corrupt {
            table: "api_keys",
            id: row.id.clone(),
            problem,
        };
        let texts: Vec<String> = serde_json::from_str(&row.sources).map_err(|error| corrupt(error.to_string()))?;
        let sources: Result<_, _> = texts.iter().map(|text| text.parse()).collect();
        Ok(Self {
            sources: sources.map_err(|error: ipnet::AddrParseError| corrupt(error.to_string()))?,
            row,
            ended: CancellationToken::new(),
        })
    }
}

fn validate(new: &NewApiKey) -> Result<Vec<IpNet>, Vec<FieldViolation>> {
    let mut violations = Vec::new();
    if !(MIN_TTL..=MAX_TTL).contains(&new.ttl) {
        violations.push(FieldViolation::new("ttl", "must be from 1 minute to 366 days"));
    }
    if new.description.len() > MAX_DESCRIPTION || new.description.contains('\0') {
        let text = format!("is longer than {MAX_DESCRIPTION} bytes, or contains a NUL");
        violations.push(FieldViolation::new("description", text));
    }
    if new.sources.len() > MAX_SOURCES {
        violations.push(FieldViolation::new("sources", format!("has more than {MAX_SOURCES}")));
    }
    let mut sources = Vec::new();
    for (index, text) in new.sources.iter().enumerate() {
        let net = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match net {
            Ok(net) => sources.push(net.trunc()),
            Err(_) => {
                let text = "is neither a network such as 10.1.0.0/16 nor an address";
                violations.push(FieldViolation::new(format!("sources[{index}]"), text));
            }
        }
    }
    match violations.is_empty() {
        true => Ok(sources),
        false => Err(violations),
    }
}
