//! Bootstrap tokens: made by operators, redeemed by machines. Only the hash of a secret is kept.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muster_certs::token::{Seed, Token};
use muster_proto::{
    duration,
    error::FieldViolation,
    ids::AgentId,
    label, token,
    v1::{self, TokenTemplateSpec},
};

use crate::{
    access::scope::Scope,
    agents::OnClone,
    changes::Changes,
    clock::{self, Micros},
    enroll::matching::Grant,
    events::Event,
    idempotency::{self, Done, Once, Turn},
    store::{self, ChangeKind, Db, Op, TokenRow, Tx},
    token_templates::{self, Template},
};

pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
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
    pub spec: TokenTemplateSpec,
    pub creator: String,
    /// The only agent that may enroll with it.
    pub agent_id: Option<AgentId>,
    /// Its agents are in it.
    pub scope: Scope,
}

impl NewToken {
    /// With a day, one use and nothing else.
    pub fn new(creator: impl Into<String>) -> Self {
        Self {
            spec: TokenTemplateSpec::default(),
            creator: creator.into(),
            agent_id: None,
            scope: Scope::ALL,
        }
    }

    fn uses(&self) -> i32 {
        match self.spec.uses {
            0 => 1,
            uses => uses,
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        let mut violations = token::validate(&self.spec);
        if self.agent_id.is_some() && self.uses() != 1 && !self.spec.allow_reenroll {
            let text = "must be 1 for one agent, unless it may enroll again";
            violations.push(FieldViolation::new("uses", text));
        }
        violations
    }
}

/// What is wrong with labels that somebody gives.
pub fn label_violations(field: &str, labels: &BTreeMap<String, String>) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    if labels.len() > label::MAX_COUNT {
        violations.push(FieldViolation::new(
            field,
            format!("has more than {} labels", label::MAX_COUNT),
        ));
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
    create_by(db, changes, "", |_| Ok(new), ca, once, now).await
}

/// The same, of which `make` says what it shall be, given the template of the name; none when there is no such name, or no such
/// template. A call that comes again is answered as the first time, whatever has become of the template.
pub async fn create_by<A, E: From<Error>>(
    db: &Db,
    changes: &Changes,
    template: &str,
    make: impl FnOnce(Option<Template>) -> Result<NewToken, E>,
    ca: &str,
    once: Once<TokenRow, A>,
    now: Micros,
) -> Result<(Done<A>, Token), E> {
    let mut tx = db.begin().await.map_err(Error::from)?;
    let turn = once.begin(&mut tx, now).await.map_err(Error::from)?;
    let seed = match turn {
        Turn::First(seed) => seed,
        Turn::Again(answer, seed) => {
            let token = Token::derive(&seed).map_err(Error::from)?;
            return Ok((Done::again(answer), token));
        }
    };
    let found = match template {
        "" => None,
        name => tx.token_template_get(name).await.map_err(Error::from)?,
    };
    let found = found.map(token_templates::template_of).transpose();
    let new = make(found.map_err(Error::from)?)?;
    Ok(insert(tx, changes, new, seed, ca, once, now).await?)
}

async fn insert<A>(
    mut tx: Tx,
    changes: &Changes,
    new: NewToken,
    seed: Option<Seed>,
    ca: &str,
    once: Once<TokenRow, A>,
    now: Micros,
) -> Result<(Done<A>, Token), Error> {
    let violations = new.violations();
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    let token = match seed {
        None => Token::generate()?,
        Some(seed) => Token::derive(&seed)?,
    };
    let time = |span: Option<prost_types::Duration>| span.as_ref().and_then(duration::from_proto);
    let ttl = time(new.spec.ttl).unwrap_or(DEFAULT_TTL);
    let revision = tx.change_add(now, ChangeKind::Token, token.id(), Op::Put).await?;
    let row = TokenRow {
        id: token.id().to_owned(),
        secret_hash: token.hash().to_vec(),
        uses: new.uses().into(),
        uses_left: new.uses().into(),
        labels: serde_json::json!(new.spec.labels).to_string(),
        created_at: now,
        expires_at: now.saturating_add(clock::from_duration(ttl)),
        revision,
        agent_id: new.agent_id.map(|id| id.to_string()).unwrap_or_default(),
        source: token::network(&new.spec.source)
            .flatten()
            .map(|net| net.to_string())
            .unwrap_or_default(),
        allow_reenroll: new.spec.allow_reenroll,
        ephemeral: time(new.spec.ephemeral).map_or(0, clock::from_duration),
        on_clone: match new.spec.on_clone() {
            v1::OnClone::Unspecified => "",
            v1::OnClone::Refuse => OnClone::Refuse.as_str(),
            v1::OnClone::Fork => OnClone::Fork.as_str(),
        }
        .to_owned(),
        description: new.spec.description,
        creator: new.creator,
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
    let is_from_there = match token::network(&row.source) {
        Some(None) => true,
        Some(Some(network)) => network.contains(&source.to_canonical()),
        None => false,
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

    #[test]
    fn a_token_of_one_agent_is_good_once_unless_it_may_enroll_again() {
        let bound = |reenroll| {
            let mut new = NewToken::new("admin");
            new.agent_id = Some(AgentId::random());
            new.spec.uses = 2;
            new.spec.allow_reenroll = reenroll;
            let violations = new.violations();
            violations
                .into_iter()
                .map(|violation| violation.field)
                .collect::<Vec<_>>()
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
}
