//! Bootstrap tokens: made by operators, redeemed by machines. Only the hash of a secret is kept.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use muster_certs::token::Token;
use muster_proto::{error::FieldViolation, ids::AgentId, label};

use crate::{
    access::scope::Scope,
    agents::OnClone,
    changes::Changes,
    clock::{self, Micros},
    enroll::matching::Grant,
    events::Event,
    idempotency::{self, Done, Once, Turn},
    store::{self, ChangeKind, Db, Op, TokenRow},
};

pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
const MIN_TTL: Duration = Duration::from_secs(60);
const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 3600);
const MAX_USES: i32 = 1_000_000;
const MAX_LABELS: usize = 64;
const MAX_DESCRIPTION: usize = 1_024;
/// How long what was read of a token is taken for true.
const RECENT: Micros = clock::SECOND;
const MAX_RECENT: usize = 1_024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the token that is asked for is not valid")]
    Invalid(Vec<FieldViolation>),
    /// Unknown, wrong, expired or used up: which of them is not for the bearer to know.
    #[error("the token is not valid")]
    Refused,
    #[error("failed to make the secret of a token")]
    Random(#[from] muster_certs::token::Error),
    #[error("failed to tell whether it is the same call again")]
    Once(#[from] idempotency::Error),
    #[error("the revision is {is} and not {seen}")]
    Conflict { seen: i64, is: i64 },
    #[error("failed to store the token")]
    Store(#[from] store::Error),
}

#[derive(Clone, Debug)]
pub struct NewToken {
    pub ttl: Duration,
    pub uses: i32,
    pub labels: BTreeMap<String, String>,
    pub description: String,
    pub creator: String,
    /// The only agent that may enroll with it.
    pub agent_id: Option<AgentId>,
    /// A network in CIDR notation, or one address; empty: from anywhere.
    pub source: String,
    pub allow_reenroll: bool,
    /// How long its agents may be offline before they are deleted; none: for ever.
    pub ephemeral: Option<Duration>,
    pub on_clone: Option<OnClone>,
    /// Its agents are in it.
    pub scope: Scope,
}

impl NewToken {
    /// With a day, one use and nothing else.
    pub fn new(creator: impl Into<String>) -> Self {
        Self {
            ttl: DEFAULT_TTL,
            uses: 1,
            labels: BTreeMap::new(),
            description: String::new(),
            creator: creator.into(),
            agent_id: None,
            source: String::new(),
            allow_reenroll: false,
            ephemeral: None,
            on_clone: None,
            scope: Scope::ALL,
        }
    }
}

impl NewToken {
    fn violations(&self) -> Vec<FieldViolation> {
        let mut violations = Vec::new();
        let mut violate = |field: &str, text: String| violations.push(FieldViolation::new(field, text));
        if self.ttl < MIN_TTL || self.ttl > MAX_TTL {
            violate("ttl", "must be from 1 minute to 366 days".into());
        }
        if !(1..=MAX_USES).contains(&self.uses) {
            violate("uses", format!("must be from 1 to {MAX_USES}"));
        }
        if self.description.len() > MAX_DESCRIPTION {
            violate("description", format!("is longer than {MAX_DESCRIPTION} bytes"));
        }
        // Not a text that every database takes.
        if self.description.contains('\0') {
            violate("description", "contains a NUL".into());
        }
        if self.ephemeral.is_some_and(|time| !(MIN_TTL..=MAX_TTL).contains(&time)) {
            violate("ephemeral", "must be from 1 minute to 366 days".into());
        }
        if network(&self.source).is_err() {
            violate(
                "source",
                "is neither a network such as 10.1.0.0/16 nor an address".into(),
            );
        }
        if self.agent_id.is_some() && self.uses != 1 && !self.allow_reenroll {
            violate("uses", "must be 1 for one agent, unless it may enroll again".into());
        }
        violations.extend(label_violations("labels", &self.labels));
        violations
    }
}

/// A network, or none when the text is empty.
fn network(text: &str) -> Result<Option<IpNet>, ()> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.map(|net| Some(net.trunc())).map_err(|_| ())
}

/// What is wrong with labels that somebody gives.
pub fn label_violations(field: &str, labels: &BTreeMap<String, String>) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    if labels.len() > MAX_LABELS {
        violations.push(FieldViolation::new(field, format!("has more than {MAX_LABELS} labels")));
    }
    for (key, value) in labels {
        if let Err(error) = label::check(key, value) {
            violations.push(FieldViolation::new(field, error.to_string()));
        }
    }
    violations
}

/// Makes a token and puts it on file; the secret is in the returned `Token` alone.
/// `ca` is the id of the CA whose pin is given out with it.
pub async fn create<A>(
    db: &Db,
    changes: &Changes,
    new: NewToken,
    ca: &str,
    once: Once<TokenRow, A>,
    now: Micros,
) -> Result<(Done<A>, Token), Error> {
    let violations = new.violations();
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    let mut tx = db.begin().await?;
    let token = match once.begin(&mut tx, now).await? {
        Turn::First(None) => Token::generate()?,
        Turn::First(Some(seed)) => Token::derive(&seed)?,
        Turn::Again(answer, seed) => return Ok((Done::again(answer), Token::derive(&seed)?)),
    };
    let revision = tx.change_add(now, ChangeKind::Token, token.id(), Op::Put).await?;
    let row = TokenRow {
        id: token.id().to_owned(),
        secret_hash: token.hash().to_vec(),
        description: new.description,
        labels: serde_json::json!(new.labels).to_string(),
        uses: new.uses.into(),
        uses_left: new.uses.into(),
        creator: new.creator,
        created_at: now,
        expires_at: now.saturating_add(clock::from_duration(new.ttl)),
        revision,
        agent_id: new.agent_id.map(|id| id.to_string()).unwrap_or_default(),
        source: network(&new.source)
            .ok()
            .flatten()
            .map(|net| net.to_string())
            .unwrap_or_default(),
        allow_reenroll: new.allow_reenroll,
        ephemeral: new.ephemeral.map_or(0, clock::from_duration),
        on_clone: new.on_clone.map_or("", OnClone::as_str).to_owned(),
        revoked_at: 0,
        cas: ca.to_owned(),
        revoke_reason: String::new(),
        scope: new.scope.to_string(),
    };
    tx.token_insert(&row).await?;
    let done = once.end(&mut tx, &row).await?;
    tx.commit().await?;
    changes.committed();
    Ok((done, token))
}

/// No machine can enroll with it any longer. `seen`: the revision that the caller knows; 0: whatever it is. None: there is no such
/// token. Once more is no error.
pub async fn revoke(
    db: &Db,
    changes: &Changes,
    id: &str,
    seen: i64,
    by: &str,
    now: Micros,
) -> Result<Option<TokenRow>, Error> {
    let mut tx = db.begin().await?;
    // First of all, so that nobody takes a use of it meanwhile.
    let revision = tx.change_add(now, ChangeKind::Token, id, Op::Put).await?;
    let Some(row) = tx.token_get(id).await? else {
        return Ok(None);
    };
    if row.revoked_at > 0 {
        return Ok(Some(row));
    }
    if seen > 0 && seen != row.revision {
        let is = row.revision;
        return Err(Error::Conflict { seen, is });
    }
    tx.token_revoke(id, revision, now).await?;
    let event = Event::new("TOKEN_REVOKED", None, format!("{by} has revoked token {id}"), now)
        .with("token", id)
        .with("by", by);
    tx.event_insert_all(&[event.into_row()]).await?;
    tx.commit().await?;
    changes.committed();
    Ok(Some(TokenRow {
        revoked_at: now,
        revision,
        ..row
    }))
}

/// Tokens that were read within the last second: a fleet that boots at once shows the same one again and again. Good for
/// whatever is asked again where a use is taken.
#[derive(Debug, Default)]
pub struct Recent(Mutex<HashMap<String, (Micros, TokenRow)>>);

impl Recent {
    async fn get(&self, db: &Db, id: &str, now: Micros) -> Result<Option<TokenRow>, store::Error> {
        if let Some((at, row)) = self.lock().get(id)
            && (0..RECENT).contains(&(now - at))
        {
            return Ok(Some(row.clone()));
        }
        let row = db.token_get(id).await?;
        if let Some(row) = &row {
            let mut recent = self.lock();
            if recent.len() >= MAX_RECENT {
                recent.clear();
            }
            recent.insert(id.to_owned(), (now, row.clone()));
        }
        Ok(row)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Micros, TokenRow)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The row of a token that somebody shows, if its secret is right, it is good, and it is for this address and this agent.
/// Whether a use is left is for the redemption to find out, since a repeated one needs none.
pub async fn check(
    db: &Db,
    recent: &Recent,
    text: &str,
    source: IpAddr,
    agent: Option<AgentId>,
    now: Micros,
) -> Result<TokenRow, Error> {
    let shown = Token::parse(text).map_err(|_| Error::Refused)?;
    let row = recent.get(db, shown.id(), now).await?.ok_or(Error::Refused)?;
    let stored: [u8; 32] = row.secret_hash.as_slice().try_into().map_err(|_| Error::Refused)?;
    let is_right = muster_certs::token::hash_eq(&shown.hash(), &stored);
    let is_good = row.expires_at > now && row.revoked_at == 0;
    let is_from_there = match network(&row.source) {
        Ok(None) => true,
        Ok(Some(network)) => network.contains(&source.to_canonical()),
        Err(()) => false,
    };
    let is_for_it = row.agent_id.is_empty() || agent.is_none_or(|agent| agent.to_string() == row.agent_id);
    if is_right && is_good && is_from_there && is_for_it {
        Ok(row)
    } else {
        Err(Error::Refused)
    }
}

/// What it grants.
pub fn grant(row: &TokenRow) -> Result<Grant, Error> {
    Ok(Grant {
        agent: row.agent_id.parse().ok(),
        allow_reenroll: row.allow_reenroll,
        labels: serde_json::from_str(&row.labels).unwrap_or_default(),
        // What cannot be read is nobody's: a row of somebody else's making.
        scope: Scope::parse(&row.scope).map_err(|_| Error::Refused)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violated(change: impl FnOnce(&mut NewToken)) -> Vec<String> {
        let mut new = NewToken::new("admin");
        change(&mut new);
        new.violations().into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn what_no_token_can_be_is_named_field_by_field() {
        assert!(violated(|_| {}).is_empty());
        assert_eq!(violated(|new| new.ttl = Duration::from_secs(59)), ["ttl"]);
        assert_eq!(violated(|new| new.uses = 0), ["uses"]);
        assert_eq!(violated(|new| new.source = "10.0.0.0/33".into()), ["source"]);
        assert_eq!(
            violated(|new| new.ephemeral = Some(Duration::from_secs(1))),
            ["ephemeral"]
        );
        let bound = |reenroll| {
            violated(|new| {
                new.agent_id = Some(AgentId::random());
                new.uses = 2;
                new.allow_reenroll = reenroll;
            })
        };
        assert_eq!(bound(false), ["uses"]);
        assert!(bound(true).is_empty());
    }

    #[tokio::test]
    async fn a_token_is_revoked_by_who_knows_its_revision_or_names_none() {
        let folder = tempfile::tempdir().unwrap();
        let source = store::Source::Sqlite(folder.path().to_owned());
        let db = Db::open(&source).await.unwrap();
        let changes = Changes::new(db.clone()).await.unwrap();
        let once = Once::plain(TokenRow::clone);
        let (done, _) = create(&db, &changes, NewToken::new("admin"), "", once, 1)
            .await
            .unwrap();
        let (id, revision) = (&done.answer.id, done.answer.revision);
        let revoke = |id, seen| revoke(&db, &changes, id, seen, "admin", 2);
        let refused = revoke(id, revision + 1).await;
        assert!(
            matches!(refused, Err(Error::Conflict { seen, is }) if (seen, is) == (revision + 1, revision)),
            "{refused:?}"
        );
        let revoked = revoke(id, revision).await.unwrap().unwrap();
        assert!(revoked.revoked_at > 0);
        let again = revoke(id, revision).await.unwrap().unwrap();
        assert_eq!(again.revision, revoked.revision, "once more is no error");
        assert!(revoke("0123456789abcdef", 0).await.unwrap().is_none());
        assert_eq!(db.revision_current().await.unwrap(), revoked.revision);
    }

    #[test]
    fn a_source_is_a_network_or_one_address() {
        let contains = |text: &str, address: &str| {
            network(text)
                .unwrap()
                .is_some_and(|network| network.contains(&address.parse::<IpAddr>().unwrap()))
        };
        assert!(contains("10.1.2.3/16", "10.1.255.1"));
        assert!(!contains("10.1.2.3/16", "10.2.0.1"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.8"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1"));
        assert_eq!(network(""), Ok(None));
        for wrong in ["10.0.0.0/", "all", "10.0.0.0/8,11.0.0.0/8", " 10.0.0.0/8"] {
            assert_eq!(network(wrong), Err(()), "{wrong:?}");
        }
    }
}
