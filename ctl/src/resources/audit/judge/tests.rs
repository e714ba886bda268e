//! Logs that are good, and logs that somebody has changed.

use muster_certs::sign::SigningKey;
use muster_proto::{
    audit::{Hash, NOTHING},
    v1::AuditLink,
};

use super::*;

/// A log of so many entries, one each second.
struct Log {
    key: SigningKey,
    links: Vec<AuditLink>,
}

const START: i64 = 1_795_000_000;

impl Log {
    fn new(entries: i64) -> Log {
        Log::of(SigningKey::generate().unwrap(), entries, "user/alice")
    }

    fn of(key: SigningKey, entries: i64, caller: &str) -> Log {
        let mut before = NOTHING;
        let links = (1..=entries).map(|seq| {
            let entry = AuditEntry {
                seq,
                caller: caller.to_owned(),
                time: Some(prost_types::Timestamp {
                    seconds: START + seq,
                    nanos: 0,
                }),
                ..AuditEntry::default()
            };
            let entry = entry.encode_to_vec();
            before = audit::hash(&before, seq, &entry);
            AuditLink {
                seq,
                entry,
                hash: before.to_vec(),
                relabelled: false,
            }
        });
        Log {
            links: links.collect(),
            key,
        }
    }

    /// The head of an entry, signed so many seconds after it was written.
    fn head_after(&self, seq: i64, seconds: i64) -> Signed {
        let hash: Hash = match seq {
            0 => NOTHING,
            seq => self.links[seq as usize - 1].hash.as_slice().try_into().unwrap(),
        };
        let payload = AuditHeadPayload {
            trust_domain: "example.muster".to_owned(),
            seq,
            hash: hash.to_vec(),
            time: Some(prost_types::Timestamp {
                seconds: START + seq + seconds,
                nanos: 0,
            }),
        };
        let payload = payload.encode_to_vec();
        Signed {
            signature: self.key.sign("muster.v1/AuditHead", &payload),
            payload: payload.into(),
            key_id: self.key.key_id(),
        }
    }

    fn shown(&self, seq: i64) -> GetAuditHeadResponse {
        GetAuditHeadResponse {
            head: Some(self.head_after(seq, 1)),
            public_key: self.key.public_key_der(),
        }
    }

    fn kept(&self, seq: i64) -> Kept {
        Kept {
            name: format!("head-{seq}.json"),
            head: self.shown(seq),
        }
    }

    /// What comes of it with these heads in the log, and the last entry signed just now.
    fn judged(&self, kept: &[Kept], heads: impl IntoIterator<Item = Signed>) -> Verdict {
        let mut judge = Judge::new(kept, &self.shown(self.links.len() as i64));
        let links = self.links.iter().cloned().map(Item::Link);
        links
            .chain(heads.into_iter().map(Item::Head))
            .for_each(|item| judge.item(item));
        judge.finish()
    }

    fn wrong(&self, kept: &[Kept], heads: impl IntoIterator<Item = Signed>) -> Vec<String> {
        let verdict = self.judged(kept, heads);
        verdict.wrong.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn a_log_as_it_was_written_is_good_and_the_key_is_said_to_be_the_controllers_own_word() {
    let log = Log::new(10);
    let verdict = log.judged(&[], [log.head_after(4, 1)]);
    assert_eq!(verdict.wrong, []);
    assert_eq!(
        (
            verdict.entries,
            verdict.first,
            verdict.last,
            verdict.signed,
            verdict.heads
        ),
        (10, 1, 10, 10, 2)
    );
    assert!(
        verdict.notes[0].contains("the controller's own word"),
        "{:?}",
        verdict.notes
    );
    let with_kept = log.judged(&[log.kept(4)], []);
    assert_eq!((with_kept.wrong, with_kept.notes), (vec![], vec![]));
    let empty = Log::new(0);
    assert_eq!(empty.wrong(&[], []), [""; 0]);
}

#[test]
fn an_entry_that_was_edited_is_named() {
    let mut log = Log::new(10);
    log.links[4].entry.push(0);
    assert_eq!(log.wrong(&[], []), ["entry 5 was changed"]);
}

#[test]
fn a_log_that_was_written_anew_and_signed_with_the_same_key_is_known_by_a_head_that_was_kept() {
    let log = Log::new(10);
    let kept = [log.kept(6)];
    let Log { key, .. } = log;
    let forged = Log::of(key, 10, "user/mallory");
    assert_eq!(forged.wrong(&[], []), [""; 0], "without the head nothing tells");
    let anew = "the log up to entry 6 is not the one that was signed: entries from 1 on were written anew";
    assert_eq!(forged.wrong(&kept, []), [anew]);
    // Nor when the forger has put a head of its own in the same place.
    assert_eq!(forged.wrong(&kept, [forged.head_after(6, 1)]), [anew]);
}

#[test]
fn a_log_that_was_signed_with_another_key_says_which_heads_are() {
    let log = Log::new(10);
    let forged = Log::of(SigningKey::generate().unwrap(), 10, "user/mallory");
    let wrong = forged.wrong(&[log.kept(6)], [forged.head_after(3, 1)]);
    let key = forged.key.key_id();
    assert_eq!(
        wrong,
        [
            format!("the head that the controller shows is signed with {key}, a key that no head that was kept has"),
            format!("the head of entry 3 is signed with {key}, a key that no head that was kept has"),
            "the log up to entry 6 is not the one that was signed: entries from 1 on were written anew".to_owned(),
        ]
    );
    let stranger = log.wrong(&[], [forged.head_after(3, 1)]);
    assert_eq!(
        stranger,
        [format!(
            "the head of entry 3 is signed with {key}, which is not the key that the controller shows"
        )]
    );
}

#[test]
fn a_head_that_nobody_signed_counts_for_nothing() {
    let log = Log::new(10);
    let mut head = log.head_after(3, 1);
    head.signature[0] ^= 1;
    let key = log.key.key_id();
    let made = format!("the head of entry 3 has a signature that {key} did not make");
    assert_eq!(log.wrong(&[], [head]), [made]);
    let mut kept = log.kept(4);
    kept.head.head.as_mut().unwrap().payload = vec![255].into();
    let made = format!("the head in head-4.json has a signature that {key} did not make");
    assert_eq!(log.wrong(&[kept], []), [made]);
    let none = GetAuditHeadResponse::default();
    let judge = Judge::new(&[], &none).finish();
    assert_eq!(
        judge.wrong[0].to_string(),
        "the head that the controller shows cannot be read"
    );
}

#[test]
fn an_end_that_is_gone_is_known_by_the_head_that_was_there() {
    let mut log = Log::new(10);
    let shown = log.shown(10);
    log.links.truncate(7);
    let mut judge = Judge::new(&[], &shown);
    log.links.iter().cloned().for_each(|link| judge.item(Item::Link(link)));
    let verdict = judge.finish();
    assert_eq!(
        verdict.wrong[0].to_string(),
        "the log ends with entry 7, and entry 10 was signed"
    );
}

#[test]
fn entries_that_were_signed_long_after_they_were_written_are_worth_a_word() {
    let log = Log::new(10);
    let verdict = log.judged(
        &[],
        [
            log.head_after(4, 60),
            log.head_after(8, 3 * 3_600),
            log.head_after(9, 7_200),
        ],
    );
    assert_eq!(verdict.wrong, []);
    let away = "the controller was away, or heads between them were removed";
    assert_eq!(
        verdict.notes[1..],
        [
            format!("entries 5 to 8 were signed 3h after the first of them was written: {away}"),
            format!("entry 9 was signed 2h after it was written: {away}"),
        ]
    );
}

#[test]
fn a_head_from_before_all_that_is_kept_says_so() {
    let mut log = Log::new(10);
    let kept = [log.kept(2)];
    log.links.drain(..5);
    let mut judge = Judge::new(&kept, &kept[0].head);
    log.links.iter().cloned().for_each(|link| judge.item(Item::Link(link)));
    let verdict = judge.finish();
    assert_eq!(
        verdict.notes,
        ["the head in head-2.json is from before entry 6, the oldest that is kept, so it cannot be compared"]
    );
    assert_eq!(verdict.first, 6);
}
