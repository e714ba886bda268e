//! Bootstrap tokens: made by operators, redeemed by machines. Only the hash of a secret is kept.

use std::{collections::BTreeMap, time::Duration};

use muster_certs::token::Token;
use muster_proto::{error::FieldViolation, label};

use crate::{
    changes::Changes,
    clock::{self, Micros},
    store::{self, ChangeKind, Db, Op, TokenRow},
};

pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
const MIN_TTL: Duration = Duration::from_secs(60);
const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 3600);
const MAX_USES: i32 = 1_000_000;
const MAX_LABELS: usize = 64;
const MAX_DESCRIPTION: usize = 1_024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the token that is asked for is not valid")]
    Invalid(Vec<FieldViolation>),
    /// Unknown, wrong, expired or used up: which of them is not for the bearer to know.
    #[error("the token is not valid")]
    Refused,
    #[error("failed to make the secret of a token")]
    Random(#[from] muster_certs::token::Error),
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
        violations.extend(label_violations("labels", &self.labels));
        violations
    }
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
pub async fn create(db: &Db, changes: &Changes, new: NewToken, now: Micros) -> Result<(TokenRow, Token), Error> {
    let violations = new.violations();
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    let token = Token::generate()?;
    let mut tx = db.begin().await?;
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
        agent_id: String::new(),
        source: String::new(),
        allow_reenroll: false,
        ephemeral: 0,
        on_clone: String::new(),
        revoked_at: 0,
        cas: String::new(),
    };
    tx.token_insert(&row).await?;
    tx.commit().await?;
    changes.committed();
    Ok((row, token))
}

/// The row of a token that somebody shows, if its secret is right and it has not expired. Whether a use is left is for the
/// redemption to find out, since a repeated one needs none.
pub async fn check(db: &Db, text: &str, now: Micros) -> Result<TokenRow, Error> {
    let shown = Token::parse(text).map_err(|_| Error::Refused)?;
    let row = db.token_get(shown.id()).await?.ok_or(Error::Refused)?;
    let stored: [u8; 32] = row.secret_hash.as_slice().try_into().map_err(|_| Error::Refused)?;
    if !muster_certs::token::hash_eq(&shown.hash(), &stored) || row.expires_at <= now {
        return Err(Error::Refused);
    }
    Ok(row)
}
