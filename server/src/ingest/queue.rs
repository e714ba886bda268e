//! What waits to be stored of one lane: what is new before what has waited with the agents, of each spool in the order in which
//! it was submitted. Bounded; knows nothing of records.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Job, Refused};
use crate::clock::{self, Micros};

/// Records and bytes in one commit.
const MAX_RECORDS: usize = 4_000;
const MAX_BYTES: usize = 8 << 20;

/// The end that links have. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    new: mpsc::Sender<Job>,
    waited: mpsc::Sender<Job>,
}

/// The end that the worker of the lane has.
#[derive(Debug)]
pub(super) struct Receiver {
    new: mpsc::Receiver<Job>,
    waited: mpsc::Receiver<Job>,
    /// The first of `waited`.
    next: Option<Job>,
    /// Taken out for the next commit.
    batch: Batch,
}

#[derive(Debug, Default)]
struct Batch {
    jobs: Vec<Job>,
    records: usize,
    bytes: usize,
}

/// With room for so many of each; an empty one takes none.
pub(super) fn channel(max_jobs: usize) -> (Sender, Receiver) {
    let (new, new_jobs) = mpsc::channel(max_jobs);
    let (waited, waited_jobs) = mpsc::channel(max_jobs);
    let receiver = Receiver {
        new: new_jobs,
        waited: waited_jobs,
        next: None,
        batch: Batch::default(),
    };
    (Sender { new, waited }, receiver)
}

impl Sender {
    /// Never waits.
    pub fn submit(&self, job: Job) -> Result<(), Refused> {
        let queue = if job.has_waited { &self.waited } else { &self.new };
        queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Full,
            mpsc::error::TrySendError::Closed(_) => Refused::Stopping,
        })
    }
}

impl Receiver {
    /// What goes into one commit: all that is there, and what comes until the first of it is `patience` old. May be dropped and
    /// asked again. None: it is closed, and nothing is left.
    pub async fn batch(&mut self, patience: Micros) -> Option<Vec<Job>> {
        if self.batch.jobs.is_empty() {
            let first = self.next().await?;
            self.batch.add(first);
        }
        self.take();
        // It may have waited long enough for the commit before.
        let age = clock::now() - self.batch.jobs.first()?.received_at;
        let wait = (patience - age).clamp(0, patience);
        if wait > 0 && !self.batch.is_full() {
            tokio::time::sleep(Duration::from_micros(wait.unsigned_abs())).await;
            self.take();
        }
        Some(std::mem::take(&mut self.batch).jobs)
    }

    fn take(&mut self) {
        while !self.batch.is_full()
            && let Some(job) = self.try_next()
        {
            self.batch.add(job);
        }
    }

    /// The next, if there is one now.
    fn try_next(&mut self) -> Option<Job> {
        if self.next.is_none() {
            self.next = self.waited.try_recv().ok();
        }
        // Only after that: what was submitted before it, of its spool too, is found here by now.
        self.new.try_recv().ok().or_else(|| self.next.take())
    }

    /// None: it is closed, and nothing is left.
    async fn next(&mut self) -> Option<Job> {
        loop {
            if let Some(job) = self.try_next() {
                return Some(job);
            }
            tokio::select! {
                biased;
                Some(job) = self.new.recv() => return Some(job),
                Some(job) = self.waited.recv() => self.next = Some(job),
                else => return None,
            }
        }
    }

    /// Takes no more; what is there is still to be had.
    pub fn close(&mut self) {
        self.new.close();
        self.waited.close();
    }
}

impl Batch {
    fn add(&mut self, job: Job) {
        self.records += job.records.len();
        self.bytes += job.bytes;
        self.jobs.push(job);
    }

    fn is_full(&self) -> bool {
        self.records >= MAX_RECORDS || self.bytes >= MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use muster_proto::{ids::AgentId, v1::Record};
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        clock::HOUR,
        ingest::{Limits, Lost, Quotas},
    };

    fn job(first_seq: u64, has_waited: bool) -> Job {
        let agent = AgentId::random();
        let share = Quotas::new(Limits::default()).share(agent, 1, 0);
        Job {
            agent,
            spool: "1-a".parse().expect("a spool"),
            first_seq,
            records: vec![Record::default()],
            received_at: clock::now(),
            bytes: 1,
            has_waited,
            lost: Lost::default(),
            held: share.hold(1, 1).expect("room"),
            done: oneshot::channel().0,
        }
    }

    fn seqs(queue: &mut Receiver) -> Vec<u64> {
        std::iter::from_fn(|| queue.try_next())
            .map(|job| job.first_seq)
            .collect()
    }

    #[test]
    fn what_is_new_comes_before_what_has_waited_even_when_that_was_looked_at_already() {
        let (sender, mut queue) = channel(10);
        for (seq, has_waited) in [(1, true), (2, true), (3, false), (4, true), (5, false)] {
            sender.submit(job(seq, has_waited)).expect("room");
        }
        assert_eq!(queue.try_next().map(|job| job.first_seq), Some(3));
        sender.submit(job(6, false)).expect("room");
        assert_eq!(seqs(&mut queue), [5, 6, 1, 2, 4]);
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_then_nothing() {
        let (sender, mut queue) = channel(2);
        sender.submit(job(1, true)).expect("room");
        sender.submit(job(2, false)).expect("room");
        queue.close();
        assert_eq!(sender.submit(job(3, true)), Err(Refused::Stopping));
        let mut next = || queue.next().now_or_never().flatten().map(|job| job.first_seq);
        assert_eq!((next(), next(), next()), (Some(2), Some(1), None));
    }

    #[test]
    fn a_full_queue_says_so_and_the_other_takes_more() {
        let (sender, mut queue) = channel(1);
        sender.submit(job(1, true)).expect("room");
        assert_eq!(sender.submit(job(2, true)), Err(Refused::Full));
        sender.submit(job(3, false)).expect("room");
        assert!(queue.next().now_or_never().flatten().is_some());
    }

    async fn batch(queue: &mut Receiver, patience: Micros) -> Vec<u64> {
        let jobs = queue.batch(patience).await.expect("it is open");
        jobs.iter().map(|job| job.first_seq).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_waits_for_what_comes_within_a_moment_and_not_when_somebody_waits_for_it() {
        let (sender, mut queue) = channel(10);
        let submit = |job: Job| sender.submit(job).expect("room");
        let another = async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            submit(job(2, false));
        };
        submit(job(1, false));
        assert_eq!(tokio::join!(batch(&mut queue, HOUR), another()).0, [1, 2]);
        submit(job(1, false));
        assert_eq!(tokio::join!(batch(&mut queue, 0), another()).0, [1]);
        assert_eq!(batch(&mut queue, 0).await, [2]);
        // It has waited long enough already, for the commit before.
        submit(Job {
            received_at: clock::now() - HOUR,
            ..job(1, false)
        });
        assert_eq!(tokio::join!(batch(&mut queue, HOUR), another()).0, [1]);
        assert_eq!(batch(&mut queue, 0).await, [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_commit_waits_for_nothing_and_one_that_is_given_up_leaves_all_there() {
        let (sender, mut queue) = channel(10);
        let submit = |job: Job| sender.submit(job).expect("room");
        submit(Job {
            bytes: MAX_BYTES,
            ..job(1, false)
        });
        submit(job(2, false));
        assert_eq!(batch(&mut queue, HOUR).now_or_never(), Some(vec![1]));

        submit(job(3, false));
        let given_up = tokio::time::timeout(Duration::from_secs(1), queue.batch(HOUR));
        assert!(given_up.await.is_err());
        queue.close();
        assert_eq!(batch(&mut queue, 0).await, [2, 3]);
        assert!(queue.batch(0).await.is_none());
    }

    /// Links on other threads submit while the worker takes: nothing overtakes what was submitted before it and is new.
    #[test]
    fn of_what_was_submitted_before_nothing_is_left_behind() {
        let (sender, mut queue) = channel(100_000);
        const PAIRS: u64 = 20_000;
        let submitting = std::thread::spawn(move || {
            for pair in 0..PAIRS {
                sender.submit(job(2 * pair, false)).expect("room");
                sender.submit(job(2 * pair + 1, true)).expect("room");
            }
        });
        let (mut newest, mut taken) = (0, 0);
        while taken < 2 * PAIRS {
            let Some(job) = queue.try_next() else {
                std::thread::yield_now();
                continue;
            };
            taken += 1;
            match job.has_waited {
                true => assert!(
                    newest >= job.first_seq - 1,
                    "the one before {} is missing",
                    job.first_seq
                ),
                false => newest = job.first_seq,
            }
        }
        submitting.join().expect("it ends");
    }
}
