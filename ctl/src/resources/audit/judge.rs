//! What a log is worth: which heads count, and what is wrong with the chain. Knows no connection and no file; both give it heads,
//! keys and links. How entries hang together is `muster_proto::audit`.

use std::{collections::BTreeMap, fmt, time::Duration};

use muster_certs::sign;
use muster_proto::{
    audit::{self, Finding, Verifier},
    duration, policy_set,
    v1::{AuditEntry, AuditHeadPayload, GetAuditHeadResponse, Signed, export_audit_response::Item},
};
use prost::Message as _;

/// Entries are signed after a minute. Those that were signed much later were written while nothing could be signed, or heads
/// between them were removed.
const LATE: Duration = Duration::from_secs(5 * 60);

/// A head with where it is from, for those who read what is wrong with it.
#[derive(Debug)]
pub struct Kept {
    pub name: String,
    pub head: GetAuditHeadResponse,
}

/// Something that is wrong. Each is a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    Chain(Finding),
    /// A head whose signature does not fit.
    Signature {
        of: String,
        key_id: String,
    },
    /// A head that is signed with a key that is not trusted. `kept`: whether heads that were kept say which is.
    Key {
        of: String,
        key_id: String,
        kept: bool,
    },
    /// A head that says nothing that can be read.
    Unreadable {
        of: String,
    },
    TrustDomain {
        of: String,
        is: String,
        other: String,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(finding) => finding.fmt(f),
            Self::Signature { of, key_id } => write!(f, "{of} has a signature that {key_id} did not make"),
            Self::Key { of, key_id, kept: true } => {
                write!(f, "{of} is signed with {key_id}, a key that no head that was kept has")
            }
            Self::Key {
                of,
                key_id,
                kept: false,
            } => {
                write!(
                    f,
                    "{of} is signed with {key_id}, which is not the key that the controller shows"
                )
            }
            Self::Unreadable { of } => write!(f, "{of} cannot be read"),
            Self::TrustDomain { of, is, other } => {
                write!(f, "{of} is of the trust domain {is:?}, and not of {other:?} as others")
            }
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Verdict {
    pub entries: u64,
    /// 0: there is none.
    pub first: i64,
    pub last: i64,
    /// Up to this entry a signature speaks for the log; 0: none does.
    pub signed: i64,
    pub heads: usize,
    pub key_ids: Vec<String>,
    pub wrong: Vec<Wrong>,
    /// What is not wrong, and worth knowing.
    pub notes: Vec<String>,
}

#[derive(Debug)]
pub struct Judge {
    /// Keys by their ids, DER.
    keys: BTreeMap<String, Vec<u8>>,
    /// Whether `keys` are those of heads that were kept.
    is_kept: bool,
    trust_domain: Option<String>,
    verifier: Verifier,
    /// Numbers and seconds of entries, as they came.
    times: Vec<(i64, i64)>,
    /// The same of heads that count.
    signed: BTreeMap<i64, i64>,
    heads: usize,
    /// Number and name.
    kept: Vec<(i64, String)>,
    wrong: Vec<Wrong>,
}

impl Judge {
    /// `shown`: the head and the key that the controller shows. Keys of heads that were kept count alone, when there are any.
    pub fn new(kept: &[Kept], shown: &GetAuditHeadResponse) -> Self {
        let key = |head: &GetAuditHeadResponse| {
            let der = head.public_key.clone();
            (!der.is_empty()).then(|| (sign::key_id(&der), der))
        };
        let mut keys: BTreeMap<_, _> = kept.iter().filter_map(|kept| key(&kept.head)).collect();
        let is_kept = !keys.is_empty();
        if !is_kept {
            keys.extend(key(shown));
        }
        let mut judge = Self {
            keys,
            is_kept,
            trust_domain: None,
            verifier: Verifier::default(),
            times: Vec::new(),
            signed: BTreeMap::new(),
            heads: 0,
            kept: Vec::new(),
            wrong: Vec::new(),
        };
        for Kept { name, head } in kept {
            if let Some(seq) = judge.head(head.head.as_ref(), &format!("the head in {name}")) {
                judge.kept.push((seq, name.clone()));
            }
        }
        judge.head(shown.head.as_ref(), "the head that the controller shows");
        judge
    }

    pub fn item(&mut self, item: Item) {
        match item {
            Item::Link(link) => {
                let time = AuditEntry::decode(link.entry.as_slice())
                    .ok()
                    .and_then(|entry| entry.time);
                self.times.push((link.seq, time.map_or(0, |time| time.seconds)));
                self.verifier.link(link);
            }
            Item::Head(head) => {
                self.head(Some(&head), "");
            }
        }
    }

    pub fn finish(mut self) -> Verdict {
        let first = self.times.first().map_or(0, |(seq, _)| *seq);
        let mut notes = Vec::new();
        if !self.is_kept {
            let key = self.keys.keys().next().map(String::as_str).unwrap_or("none");
            notes.push(format!(
                "that the key is {key} is the controller's own word; a head that you keep elsewhere tells: musterctl audit head --file FILE"
            ));
        }
        for (_, name) in self.kept.iter().filter(|(seq, _)| *seq < first - 1) {
            notes.push(format!(
                "the head in {name} is from before entry {first}, the oldest that is kept, so it cannot be compared"
            ));
        }
        notes.extend(self.late());
        let verdict = std::mem::take(&mut self.verifier).finish();
        self.wrong.extend(verdict.findings.into_iter().map(Wrong::Chain));
        Verdict {
            entries: verdict.entries,
            first,
            last: verdict.last.map_or(0, |last| last.seq),
            signed: verdict.signed,
            heads: self.heads,
            key_ids: self.keys.into_keys().collect(),
            wrong: self.wrong,
            notes,
        }
    }

    /// Lets a head speak for the chain if it may; its number then. `of` names it; empty: it is one of the log.
    fn head(&mut self, signed: Option<&Signed>, of: &str) -> Option<i64> {
        let payload = signed.and_then(|signed| AuditHeadPayload::decode(signed.payload.clone()).ok());
        let place = payload
            .as_ref()
            .map(|payload| format!("the head of entry {}", payload.seq));
        let of = match (of, place) {
            ("", Some(place)) => place,
            ("", None) => "a head of the log".to_owned(),
            (of, _) => of.to_owned(),
        };
        match self.checked(signed, payload, &of) {
            Ok((head, at)) => {
                self.heads += 1;
                let signed = self.signed.entry(head.seq).or_insert(at);
                *signed = at.min(*signed);
                self.verifier.head(head);
                Some(head.seq)
            }
            Err(wrong) => {
                self.wrong.push(wrong);
                None
            }
        }
    }

    /// The place that it names, and when it was signed.
    fn checked(
        &mut self,
        signed: Option<&Signed>,
        payload: Option<AuditHeadPayload>,
        of: &str,
    ) -> Result<(audit::Head, i64), Wrong> {
        let of = of.to_owned();
        let Some(signed) = signed else {
            return Err(Wrong::Unreadable { of });
        };
        let key_id = signed.key_id.clone();
        let Some(key) = self.keys.get(&key_id) else {
            let kept = self.is_kept;
            return Err(Wrong::Key { of, key_id, kept });
        };
        let kind = policy_set::dsse_type(audit::HEAD);
        if sign::verify(key, &kind, &signed.payload, &signed.signature).is_err() {
            return Err(Wrong::Signature { of, key_id });
        }
        let (Some(payload), Some(hash)) = (
            payload.as_ref(),
            payload
                .as_ref()
                .and_then(|payload| payload.hash.as_slice().try_into().ok()),
        ) else {
            return Err(Wrong::Unreadable { of });
        };
        let domain = self.trust_domain.get_or_insert_with(|| payload.trust_domain.clone());
        if *domain != payload.trust_domain {
            return Err(Wrong::TrustDomain {
                of,
                is: payload.trust_domain.clone(),
                other: domain.clone(),
            });
        }
        let at = payload.time.as_ref().map_or(0, |time| time.seconds);
        Ok((audit::Head { seq: payload.seq, hash }, at))
    }

    /// Entries that no signature covers that is about as old as they are.
    fn late(&self) -> Vec<String> {
        const MOST: usize = 5;
        let mut late = Vec::new();
        let mut times = self.times.iter().peekable();
        for (&head, &at) in &self.signed {
            let mut first: Option<(i64, i64)> = None;
            while let Some(&entry) = times.next_if(|(seq, _)| *seq <= head) {
                first.get_or_insert(entry);
            }
            let Some((seq, written)) = first else { continue };
            let waited = Duration::from_secs(u64::try_from(at - written).unwrap_or(0));
            if waited > LATE {
                let waited = duration::format(Duration::from_secs(waited.as_secs() / 60 * 60));
                let what = match seq == head {
                    true => format!("entry {seq} was signed {waited} after it was written"),
                    false => {
                        format!("entries {seq} to {head} were signed {waited} after the first of them was written")
                    }
                };
                late.push(format!(
                    "{what}: the controller was away, or heads between them were removed"
                ));
            }
        }
        if let Some(more @ 1..) = late.len().checked_sub(MOST) {
            late.truncate(MOST);
            late.push(format!("... and {more} more of these"));
        }
        late
    }
}

#[cfg(test)]
mod tests;
