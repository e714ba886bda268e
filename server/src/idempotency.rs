//! Calls that carry a key, by which they are known when they come again: the first is carried out, the others get its answer. No
//! secret is kept with the answer, since it is derived and so is the same again. Who may call, is decided before.

use std::{fmt, sync::Arc};

use muster_certs::token::{self, Seed};
use muster_proto::{digest, error::FieldViolation};
use prost::Message;
use rand::Rng as _;

use crate::{
    clock::{DAY, Micros},
    pki::Pki,
    store::{self, Db, IdempotencyRow, Tx},
};

/// How long an answer is kept.
const KEEP: Micros = DAY;
const MAX_KEY: usize = 64;
/// What the key of the controller is used for here.
const LABEL: &str = "muster.v1/Idempotency";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the idempotency key {0} belongs to another request")]
    Reused(String),
    #[error("failed to derive a secret")]
    Derive(#[from] token::Error),
    #[error("failed to keep the answer")]
    Store(#[from] store::Error),
}

/// How a call is answered that makes a `T`, and whether it may come again.
pub struct Once<T, A> {
    answer: Box<dyn FnOnce(&T) -> A + Send + Sync>,
    call: Option<Call<A>>,
}

struct Call<A> {
    pki: Arc<Pki>,
    caller: String,
    method: &'static str,
    key: String,
    /// Of the request.
    digest: String,
    encode: fn(&A) -> Vec<u8>,
    decode: fn(&[u8]) -> Result<A, prost::DecodeError>,
}

/// What there is to do for a call.
#[derive(Debug)]
pub enum Turn<A> {
    /// All of it. With a key: what a secret is derived from.
    First(Option<Seed>),
    /// Nothing: this was the answer, without its secret.
    Again(A, Seed),
}

/// What a call has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<A> {
    pub answer: A,
    /// Nothing was done but for the first time.
    pub is_repeated: bool,
}

impl<T, A> Once<T, A> {
    /// A call without a key.
    pub fn plain(answer: impl FnOnce(&T) -> A + Send + Sync + 'static) -> Self {
        Self {
            answer: Box::new(answer),
            call: None,
        }
    }

    /// A call of somebody with the key that came with it, if any. `answer` is what is kept: no secret is in it.
    pub fn new<M>(
        pki: &Arc<Pki>,
        caller: String,
        key: &str,
        request: &M,
        answer: impl FnOnce(&T) -> A + Send + Sync + 'static,
    ) -> Result<Self, FieldViolation>
    where
        M: prost::Name,
        A: Message + Default,
    {
        if key.is_empty() {
            return Ok(Self::plain(answer));
        }
        if key.len() > MAX_KEY || !key.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            let text = format!("must be 1 to {MAX_KEY} printable ASCII characters");
            return Err(FieldViolation::new("idempotency_key", text));
        }
        let call = Call {
            pki: Arc::clone(pki),
            caller,
            method: M::NAME.trim_end_matches("Request"),
            key: key.to_owned(),
            digest: digest::of_bytes(&request.encode_to_vec()),
            encode: A::encode_to_vec,
            decode: |bytes| A::decode(bytes),
        };
        Ok(Self {
            answer: Box::new(answer),
            call: Some(call),
        })
    }

    /// Before anything is done, in the transaction that it is done in.
    pub async fn begin(&self, tx: &mut Tx, now: Micros) -> Result<Turn<A>, Error> {
        let Some(call) = &self.call else {
            return Ok(Turn::First(None));
        };
        let mut salt = vec![0; 32];
        rand::rng().fill_bytes(&mut salt);
        let row = IdempotencyRow {
            caller: call.caller.clone(),
            method: call.method.to_owned(),
            key: call.key.clone(),
            digest: call.digest.clone(),
            salt,
            answer: Vec::new(),
            created_at: now,
        };
        if tx.idempotency_insert(&row, now - KEEP).await? {
            return Ok(Turn::First(Some(call.seed(&row.salt)?)));
        }
        let corrupt = |problem: String| store::Error::Corrupt {
            table: "idempotency",
            id: row.key.clone(),
            problem,
        };
        let first = tx.idempotency_get(&call.caller, call.method, &call.key).await?;
        let first = first.ok_or_else(|| corrupt("the row has gone".into()))?;
        if first.digest != call.digest {
            return Err(Error::Reused(call.key.clone()));
        }
        let answer = (call.decode)(&first.answer).map_err(|error| corrupt(error.to_string()))?;
        Ok(Turn::Again(answer, call.seed(&first.salt)?))
    }

    /// When all is done, in the same transaction.
    pub async fn end(self, tx: &mut Tx, made: &T) -> Result<Done<A>, Error> {
        let answer = (self.answer)(made);
        if let Some(call) = &self.call {
            let encoded = (call.encode)(&answer);
            tx.idempotency_set_answer(&call.caller, call.method, &call.key, &encoded)
                .await?;
        }
        Ok(Done {
            answer,
            is_repeated: false,
        })
    }
}

impl<T, A> fmt::Debug for Once<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.call.as_ref().map(|call| &call.key);
        f.debug_struct("Once").field("key", &key).finish_non_exhaustive()
    }
}

impl<A> Call<A> {
    /// The salt makes it another one when the same call is carried out again, a day later.
    fn seed(&self, salt: &[u8]) -> Result<Seed, token::Error> {
        let [caller, key, digest] = [&self.caller, &self.key, &self.digest].map(|text| text.as_bytes());
        self.pki
            .seed(LABEL, &[caller, self.method.as_bytes(), key, digest, salt])
    }
}

impl<A> Done<A> {
    pub fn again(answer: A) -> Self {
        Self {
            answer,
            is_repeated: true,
        }
    }
}

/// Forgets answers that are kept no longer.
pub async fn trim(db: &Db, now: Micros) -> Result<(), store::Error> {
    db.idempotency_trim(now - KEEP).await.map(|_| ())
}

#[cfg(test)]
mod tests;
