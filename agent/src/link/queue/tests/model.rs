//! A lane on disk against a plain model of what it must hold, whatever happens to it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Take {
        spool: usize,
        max_bytes: usize,
    },
    /// Acknowledges this part of what was sent of a spool.
    Ack {
        spool: usize,
        part: f64,
    },
    /// The connection is gone: what was sent may be sent again.
    Reconnect,
    StartSpool,
    /// Somebody else has used its numbers.
    Renumber,
    /// The agent is killed and starts again.
    Restart,
    /// As well, and power fails: of the newest file this part is left.
    PowerLoss(f64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..3000).prop_map(Step::Push),
        6 => (0usize..3, 1usize..9000).prop_map(|(spool, max_bytes)| Step::Take { spool, max_bytes }),
        4 => (0usize..3, 0.0..=1.0).prop_map(|(spool, part)| Step::Ack { spool, part }),
        2 => Just(Step::Reconnect),
        1 => Just(Step::StartSpool),
        1 => Just(Step::Renumber),
        1 => Just(Step::Restart),
        1 => (0.0..1.0).prop_map(Step::PowerLoss),
    ]
}

/// What a lane must hold: of each spool, in order, its numbers and records.
#[derive(Default)]
struct Model(BTreeMap<u64, Vec<(u64, v1::Record)>>);

impl Model {
    fn count(&self) -> u64 {
        self.0.values().map(|spool| spool.len() as u64).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, a lane on disk holds of each spool an unbroken end of what was recorded under it and not acknowledged;
    /// what is missing at the beginning was counted as dropped, and what is missing at the end went with the power.
    #[test]
    fn a_lane_on_disk_loses_nothing_but_what_it_counts(steps in prop::collection::vec(step(), 1..150)) {
        let dir = tempfile::tempdir().unwrap();
        let lane = v1::Lane::Metrics;
        let mut generation = 1u64;
        let id = |generation: u64| format!("{generation}-a");
        let mut lanes = open(dir.path(), &id(generation));
        let (mut model, mut next_seq, mut made) = (Model::default(), 1u64, 0i64);
        let mut sent: BTreeMap<u64, u64> = BTreeMap::new();
        let mut sent_ever: BTreeMap<u64, u64> = BTreeMap::new();
        let mut dropped_before = 0;
        for step in steps {
            let known: Vec<u64> = model.0.keys().copied().collect();
            match step {
                Step::Push(size) => {
                    made += 1;
                    let record = v1::Record { time_unix_micros: made, ..record(size) };
                    lanes.push(lane, &record, made);
                    model.0.entry(generation).or_default().push((next_seq, record));
                    next_seq += 1;
                }
                Step::Take { spool, max_bytes } => {
                    let Some(spool) = known.get(spool % known.len().max(1)).copied() else { continue };
                    let from = sent.get(&spool).copied().unwrap_or(0);
                    if let Some(batch) = lanes.lane_mut(lane).take_batch(&id(spool), from, max_bytes) {
                        prop_assert!(batch.bytes <= max_bytes || batch.records.len() == 1);
                        let of_model: BTreeMap<u64, &v1::Record> = model.0[&spool].iter().map(|(seq, it)| (*seq, it)).collect();
                        for (seq, record) in (batch.first_seq..).zip(&batch.records) {
                            prop_assert_eq!(of_model.get(&seq).copied(), Some(record), "{} {}", spool, seq);
                        }
                        sent.insert(spool, batch.last_seq);
                        let ever = sent_ever.entry(spool).or_default();
                        *ever = batch.last_seq.max(*ever);
                    }
                }
                Step::Ack { spool, part } => {
                    let Some(spool) = known.get(spool % known.len().max(1)).copied() else { continue };
                    let through = (sent_ever.get(&spool).copied().unwrap_or(0) as f64 * part) as u64;
                    lanes.lane_mut(lane).ack(&id(spool), through).unwrap();
                    if let Some(records) = model.0.get_mut(&spool) {
                        records.retain(|(seq, _)| *seq > through);
                    }
                }
                Step::Reconnect => sent.clear(),
                Step::StartSpool => {
                    generation += 1;
                    next_seq = 1;
                    lanes.start_spool(&id(generation));
                }
                Step::Renumber => {
                    let records = model.0.remove(&generation).unwrap_or_default();
                    generation += 1;
                    next_seq = 1 + records.len() as u64;
                    model.0.insert(generation, (1..).zip(records.into_iter().map(|(_, record)| record)).collect());
                    sent.clear();
                    lanes.renumber(&id(generation), made);
                }
                Step::Restart | Step::PowerLoss(_) => {
                    drop(lanes);
                    if let Step::PowerLoss(part) = step {
                        let files = std::fs::read_dir(dir.path().join("queue/agent/metrics")).unwrap();
                        let newest = files.map(|it| it.unwrap().path()).filter(|path| {
                            spool::parse_file_name(path).is_some_and(|(spool, _)| spool == id(generation))
                        }).max();
                        if let Some(path) = newest {
                            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                            let length = file.metadata().unwrap().len();
                            file.set_len((length as f64 * part) as u64).unwrap();
                        }
                    }
                    generation += 1;
                    next_seq = 1;
                    sent.clear();
                    lanes = open(dir.path(), &id(generation));
                    let found = waiting(lanes.lane_mut(lane));
                    for (spool, records) in &mut model.0 {
                        let own: Vec<_> = found.iter().filter(|(it, _, _)| *it == id(*spool)).collect();
                        // What was acknowledged may be there again: the controller will say so once more.
                        let first = records.first().map_or(u64::MAX, |(seq, _)| *seq);
                        let unknown = own.iter().filter(|(_, seq, _)| *seq >= first).count();
                        if matches!(step, Step::PowerLoss(_)) {
                            prop_assert!(unknown <= records.len());
                            records.truncate(unknown);
                        }
                        prop_assert_eq!(unknown, records.len(), "{}", spool);
                        if let Some((_, last, _)) = own.last() {
                            lanes.lane_mut(lane).ack(&id(*spool), first.saturating_sub(1).min(*last)).unwrap();
                        }
                        sent_ever.entry(*spool).or_insert(0);
                    }
                    dropped_before = 0;
                }
            }
            // The oldest that are missing were dropped and counted.
            let depth = lanes.lane(lane).depth(made);
            let mut missing = model.count() - depth.records.min(model.count());
            prop_assert_eq!(missing, depth.dropped - dropped_before);
            for records in model.0.values_mut() {
                let gone = usize::try_from(missing).unwrap().min(records.len());
                records.drain(..gone);
                missing -= gone as u64;
            }
            dropped_before = depth.dropped;
            prop_assert_eq!(depth.records, model.count());
            prop_assert!(depth.bytes <= LIMITS.bytes);
        }
        let mut expected: Vec<_> = model.0.iter().flat_map(|(spool, records)| {
            records.iter().map(|(seq, record)| (id(*spool), *seq, record.clone()))
        }).collect();
        let mut found = waiting(lanes.lane_mut(lane));
        found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        expected.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        prop_assert_eq!(found, expected);
    }
}
