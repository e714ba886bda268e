//! Samples of one moment, gathered by name, and cut into batches that fit into records. Knows nothing of where they come
//! from.

use std::collections::BTreeMap;

use muster_proto::v1::{MetricBatch, MetricFamily, MetricLabel, MetricType, Sample};
use prost::Message;
use prost::encoding::encoded_len_varint;

/// A batch is not larger than this when encoded, so that it fits into a frame with others.
pub const BATCH_BYTES: usize = 48 * 1024;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Families(BTreeMap<String, MetricFamily>);

impl Families {
    /// A value that may go up and down.
    pub fn gauge(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.add(name, MetricType::Gauge, labels, value);
    }

    /// A sum that only grows, until a reboot.
    pub fn counter(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.add(name, MetricType::Counter, labels, value);
    }

    /// An empty label is the same as none, so it is left out.
    fn add(&mut self, name: &str, kind: MetricType, labels: &[(&str, &str)], value: f64) {
        let given = labels.iter().filter(|(_, value)| !value.is_empty());
        let labels = given
            .map(|&(name, value)| MetricLabel {
                name: name.to_owned(),
                value: value.to_owned(),
            })
            .collect();
        if !self.0.contains_key(name) {
            let family = MetricFamily {
                name: name.to_owned(),
                r#type: kind.into(),
                samples: Vec::new(),
            };
            self.0.insert(name.to_owned(), family);
        }
        if let Some(family) = self.0.get_mut(name) {
            family.samples.push(Sample { labels, value });
        }
    }

    pub(super) fn extend(&mut self, other: Families) {
        for (name, family) in other.0 {
            match self.0.get_mut(&name) {
                Some(known) => known.samples.extend(family.samples),
                None => {
                    self.0.insert(name, family);
                }
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &MetricFamily> {
        self.0.values()
    }

    /// As few batches as hold all samples in order of names; a family may go on in the next one.
    pub fn into_batches(self, job: &str) -> Vec<MetricBatch> {
        let mut batches = Batches {
            job,
            done: Vec::new(),
            families: Vec::new(),
            size: 0,
        };
        for family in self.0.into_values() {
            batches.push(family);
        }
        batches.finish()
    }
}

struct Batches<'a> {
    job: &'a str,
    done: Vec<MetricBatch>,
    families: Vec<MetricFamily>,
    size: usize,
}

impl Batches<'_> {
    fn push(&mut self, family: MetricFamily) {
        let empty = MetricFamily {
            samples: Vec::new(),
            ..family
        };
        // What is around the samples; lengths of lengths are taken at their largest.
        let frame = empty.encoded_len() + 6;
        let mut open = false;
        for sample in family.samples {
            let length = sample.encoded_len();
            let size = 1 + encoded_len_varint(length as u64) + length;
            if self.size + size + if open { 0 } else { frame } > BATCH_BYTES {
                self.close();
                open = false;
            }
            if !open {
                self.families.push(empty.clone());
                self.size += frame;
                open = true;
            }
            if let Some(family) = self.families.last_mut() {
                family.samples.push(sample);
                self.size += size;
            }
        }
    }

    fn close(&mut self) {
        if !self.families.is_empty() {
            self.done.push(MetricBatch {
                job: self.job.to_owned(),
                families: std::mem::take(&mut self.families),
            });
        }
        self.size = self.job.len() + 6;
    }

    fn finish(mut self) -> Vec<MetricBatch> {
        self.close();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_gathered_by_name_and_empty_labels_are_left_out() {
        let mut families = Families::default();
        families.counter("b_total", &[("cpu", "0"), ("alias", "")], 1.0);
        families.gauge("a", &[], 2.0);
        families.counter("b_total", &[("cpu", "1")], 3.0);
        let batches = families.into_batches("node");
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].job, "node");
        let names: Vec<_> = batches[0]
            .families
            .iter()
            .map(|f| (f.name.as_str(), f.r#type(), f.samples.len()))
            .collect();
        assert_eq!(
            names,
            [("a", MetricType::Gauge, 1), ("b_total", MetricType::Counter, 2)]
        );
        let cpu = MetricLabel {
            name: "cpu".to_owned(),
            value: "0".to_owned(),
        };
        assert_eq!(batches[0].families[1].samples[0].labels, [cpu]);
    }

    #[test]
    fn many_samples_are_cut_into_batches_that_fit_and_none_is_lost() {
        let mut families = Families::default();
        for n in 0..3000 {
            families.gauge(
                "one_with_a_long_name",
                &[("device", &format!("device-{n}-{}", "x".repeat(n % 50)))],
                1.0,
            );
            families.gauge(&format!("many_{n}"), &[], 2.0);
        }
        let all = families.clone();
        let batches = families.into_batches("node");
        assert!(batches.len() > 1);
        let mut again = Families::default();
        for batch in batches {
            assert!(batch.encoded_len() <= BATCH_BYTES, "{}", batch.encoded_len());
            again.extend(Families(
                batch
                    .families
                    .into_iter()
                    .map(|family| (family.name.clone(), family))
                    .collect(),
            ));
        }
        assert_eq!(again, all);
    }

    #[test]
    fn nothing_gives_no_batch() {
        assert!(Families::default().into_batches("node").is_empty());
    }
}
