//! The chain of the audit log: how an entry is tied to the one before it, and what is wrong with a chain that somebody has
//! changed. Knows no database and no key; who signs heads, and whether a signature is good, is decided elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::v1::{AuditEntry, AuditLink, AuditOutcome};

/// "muster.v1/AuditHead".
pub const HEAD: &str = "AuditHead";

pub type Hash = [u8; 32];

/// Before the first entry.
pub const NOTHING: Hash = [0; 32];

/// The hash of an entry, behind that of the one before it.
pub fn hash(before: &Hash, seq: i64, entry: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(seq.to_be_bytes());
    hash.update(entry);
    hash.finalize().into()
}

/// A place in the chain that somebody has signed, with a signature that is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub seq: i64,
    pub hash: Hash,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The entry is not the one that was written, or its hash is not.
    Changed { seq: i64 },
    /// What lists are searched by says something else than the entry.
    Relabelled { seq: i64 },
    /// No entries from the one to the other.
    Missing { first: i64, last: i64 },
    /// The chain up to there is not the one that was signed: everything after `after` may have been written anew.
    Rewritten { seq: i64, after: i64 },
    /// The chain has ended before an entry that was signed.
    CutOff { last: i64, signed: i64 },
    /// It begins behind entries that nothing says were removed in good order.
    Headless { first: i64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Changed { seq } => write!(f, "entry {seq} was changed"),
            Self::Relabelled { seq } => write!(f, "entry {seq} is found under what it does not say"),
            Self::Missing { first, last } if first == last => write!(f, "entry {first} is missing"),
            Self::Missing { first, last } => write!(f, "entries {first} to {last} are missing"),
            Self::Rewritten { seq, after } => write!(
                f,
                "the log up to entry {seq} is not the one that was signed: entries from {} on were written anew",
                after + 1
            ),
            Self::CutOff { last, signed } => {
                write!(f, "the log ends with entry {last}, and entry {signed} was signed")
            }
            Self::Headless { first } => write!(
                f,
                "the log begins with entry {first}, and nothing says that those before it were removed by retention"
            ),
        }
    }
}

/// Follows a chain link by link, oldest first. What was signed may come before, between or after the links.
#[derive(Debug, Default)]
pub struct Verifier {
    /// Places that were signed, by number.
    heads: BTreeMap<i64, BTreeSet<Hash>>,
    /// The links as they came.
    places: Vec<Head>,
    /// The first link, when there should be others before it.
    first: Option<AuditLink>,
    /// Up to where retention has removed entries, and the hash there.
    trimmed: BTreeMap<i64, Hash>,
    findings: Vec<Finding>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub entries: u64,
    /// The last entry.
    pub last: Option<Head>,
    /// Up to this entry a signature speaks for the chain; 0: none does.
    pub signed: i64,
    pub findings: Vec<Finding>,
}

impl Verifier {
    /// `heads`: with signatures that are good.
    pub fn new(heads: impl IntoIterator<Item = Head>) -> Self {
        let mut verifier = Self::default();
        heads.into_iter().for_each(|head| verifier.head(head));
        verifier
    }

    /// A place with a signature that is good. When two name one place and differ, the chain has been written twice.
    pub fn head(&mut self, head: Head) {
        self.heads.entry(head.seq).or_default().insert(head.hash);
    }

    pub fn link(&mut self, link: AuditLink) {
        let seq = link.seq;
        // A hash of another length is none that any entry has.
        let stored: Hash = link.hash.as_slice().try_into().unwrap_or(NOTHING);
        match self.places.last().copied() {
            None if seq == 1 => self.compare(&link, &NOTHING, &stored),
            None => self.first = Some(link.clone()),
            Some(before) if seq <= before.seq => self.findings.push(Finding::Changed { seq }),
            Some(before) if seq > before.seq + 1 => self.findings.push(Finding::Missing {
                first: before.seq + 1,
                last: seq - 1,
            }),
            Some(before) => self.compare(&link, &before.hash, &stored),
        }
        if link.relabelled {
            self.findings.push(Finding::Relabelled { seq });
        }
        if let Ok(entry) = AuditEntry::decode(link.entry.as_slice())
            && entry.outcome() == AuditOutcome::Trimmed
            && let Ok(hash) = entry.trimmed_through_hash.as_slice().try_into()
        {
            self.trimmed.insert(entry.trimmed_through_seq, hash);
        }
        self.places.push(Head { seq, hash: stored });
    }

    pub fn finish(mut self) -> Verdict {
        if let Some(first) = self.first.take() {
            let stored: Hash = first.hash.as_slice().try_into().unwrap_or(NOTHING);
            match self.trimmed.get(&(first.seq - 1)).copied() {
                Some(before) => self.compare(&first, &before, &stored),
                None => self.findings.push(Finding::Headless { first: first.seq }),
            }
        }
        let signed = self.compare_heads();
        let last = self.places.last().copied();
        let end = last.map_or(0, |last| last.seq);
        if let Some((&beyond, _)) = self.heads.last_key_value()
            && beyond > end
        {
            self.findings.push(Finding::CutOff {
                last: end,
                signed: beyond,
            });
        }
        Verdict {
            entries: self.places.len() as u64,
            last,
            signed,
            findings: self.findings,
        }
    }

    /// The last signed place at which the chain is the one that was signed.
    fn compare_heads(&mut self) -> i64 {
        let mut signed = 0;
        let mut heads = self.heads.iter().peekable();
        // What an entry says of the last one that retention has removed is compared as if that were there.
        let before = self.places.first().map_or(0, |first| first.seq - 1);
        let removed = self.trimmed.get(&before).map(|&hash| Head { seq: before, hash });
        for place in removed.iter().chain(&self.places) {
            while heads.next_if(|(seq, _)| **seq < place.seq).is_some() {}
            let Some((_, hashes)) = heads.next_if(|(seq, _)| **seq == place.seq) else {
                continue;
            };
            if hashes.iter().all(|hash| *hash == place.hash) {
                signed = place.seq;
            } else {
                self.findings.push(Finding::Rewritten {
                    seq: place.seq,
                    after: signed,
                });
            }
        }
        signed
    }

    fn compare(&mut self, link: &AuditLink, before: &Hash, stored: &Hash) {
        if hash(before, link.seq, &link.entry) != *stored {
            self.findings.push(Finding::Changed { seq: link.seq });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many entries in good order.
    fn chain(first: i64, count: i64, mut before: Hash) -> Vec<AuditLink> {
        (first..first + count)
            .map(|seq| {
                let entry = AuditEntry {
                    seq,
                    caller: "user/alice".into(),
                    ..AuditEntry::default()
                };
                let entry = entry.encode_to_vec();
                before = hash(&before, seq, &entry);
                AuditLink {
                    seq,
                    entry,
                    hash: before.to_vec(),
                    relabelled: false,
                }
            })
            .collect()
    }

    fn head(links: &[AuditLink], seq: i64) -> Head {
        let link = links.iter().find(|link| link.seq == seq).expect("it is there");
        Head {
            seq,
            hash: link.hash.as_slice().try_into().expect("a hash"),
        }
    }

    fn findings(links: &[AuditLink], heads: &[Head]) -> Vec<Finding> {
        let mut verifier = Verifier::new(heads.iter().copied());
        links.iter().cloned().for_each(|link| verifier.link(link));
        verifier.finish().findings
    }

    #[test]
    fn a_chain_as_it_was_written_is_good_and_says_how_far_it_is_signed() {
        let links = chain(1, 10, NOTHING);
        let mut verifier = Verifier::new([head(&links, 4), head(&links, 8)]);
        links.iter().cloned().for_each(|link| verifier.link(link));
        let verdict = verifier.finish();
        assert_eq!(verdict.findings, []);
        assert_eq!(
            (verdict.entries, verdict.signed, verdict.last),
            (10, 8, Some(head(&links, 10)))
        );
        assert_eq!(findings(&[], &[]), []);
    }

    #[test]
    fn an_entry_that_was_edited_is_named_alone() {
        let mut links = chain(1, 10, NOTHING);
        links[4].entry.push(0);
        assert_eq!(findings(&links, &[]), [Finding::Changed { seq: 5 }]);
        let mut links = chain(1, 10, NOTHING);
        links[4].hash[0] ^= 1;
        // Neither its hash nor that of the next is right.
        assert_eq!(
            findings(&links, &[]),
            [Finding::Changed { seq: 5 }, Finding::Changed { seq: 6 }]
        );
        let mut links = chain(1, 3, NOTHING);
        links[1].relabelled = true;
        assert_eq!(findings(&links, &[]), [Finding::Relabelled { seq: 2 }]);
    }

    #[test]
    fn entries_that_are_gone_are_named_wherever_they_were() {
        let links = chain(1, 10, NOTHING);
        let without = |gone: std::ops::Range<usize>| {
            let mut left = links.clone();
            left.drain(gone);
            findings(&left, &[head(&links, 9)])
        };
        assert_eq!(without(3..5), [Finding::Missing { first: 4, last: 5 }]);
        assert_eq!(without(0..2), [Finding::Headless { first: 3 }]);
        assert_eq!(without(7..10), [Finding::CutOff { last: 7, signed: 9 }]);
    }

    #[test]
    fn a_chain_that_was_written_anew_is_not_the_one_that_was_signed() {
        let links = chain(1, 10, NOTHING);
        let heads = [head(&links, 3), head(&links, 9)];
        let mut forged = links[..5].to_vec();
        let mut before = head(&links, 5).hash;
        for link in &links[5..] {
            let entry = [link.entry.as_slice(), &[8, 0]].concat();
            before = hash(&before, link.seq, &entry);
            forged.push(AuditLink {
                seq: link.seq,
                entry,
                hash: before.to_vec(),
                relabelled: false,
            });
        }
        assert_eq!(findings(&forged, &heads), [Finding::Rewritten { seq: 9, after: 3 }]);
    }

    #[test]
    fn two_heads_of_one_place_that_differ_are_no_head_of_the_chain_whichever_comes_first() {
        let links = chain(1, 5, NOTHING);
        let (kept, own) = (Head { seq: 4, hash: [7; 32] }, head(&links, 4));
        for heads in [[kept, own], [own, kept]] {
            assert_eq!(findings(&links, &heads), [Finding::Rewritten { seq: 4, after: 0 }]);
        }
        let mut verifier = Verifier::default();
        links.iter().cloned().for_each(|link| verifier.link(link));
        verifier.head(head(&links, 3));
        assert_eq!(verifier.finish().signed, 3, "heads may come behind the links");
    }

    #[test]
    fn what_retention_has_removed_is_vouched_for_by_an_entry_behind_it() {
        let old = chain(1, 5, NOTHING);
        let mut links = chain(6, 5, head(&old, 5).hash);
        assert_eq!(findings(&links, &[]), [Finding::Headless { first: 6 }]);
        let stub = AuditEntry {
            seq: 11,
            outcome: AuditOutcome::Trimmed.into(),
            trimmed_through_seq: 5,
            trimmed_through_hash: head(&old, 5).hash.to_vec(),
            ..AuditEntry::default()
        };
        let entry = stub.encode_to_vec();
        let hash = hash(&head(&links, 10).hash, 11, &entry);
        links.push(AuditLink {
            seq: 11,
            entry,
            hash: hash.to_vec(),
            relabelled: false,
        });
        assert_eq!(findings(&links, &[]), []);
        let other = Head { seq: 5, hash: [7; 32] };
        assert_eq!(findings(&links, &[head(&old, 5)]), []);
        assert_eq!(findings(&links, &[other]), [Finding::Rewritten { seq: 5, after: 0 }]);
        links[0].entry.push(0);
        assert_eq!(findings(&links, &[]), [Finding::Changed { seq: 6 }]);
    }
}
