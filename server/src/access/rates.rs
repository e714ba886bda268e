//! How often one operator may call, so that a script that has gone mad hurts itself alone. A moment for each operator and kind of
//! call says all of it: when what was called is paid for.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use muster_proto::error::{ErrorReason, Problem};
use tonic::Code;

use super::{rights::Subject, table::Rate};

/// What may come at once after a while of silence.
const BURST: Duration = Duration::from_secs(10);
/// Operators of whom something is remembered; those that are paid up are forgotten first.
const MAX_SUBJECTS: usize = 4_096;

/// Calls in a second, for each operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerSecond {
    pub reads: u32,
    pub changes: u32,
    /// Streams that are opened.
    pub watches: u32,
}

impl Default for PerSecond {
    fn default() -> Self {
        Self {
            reads: 500,
            changes: 100,
            watches: 20,
        }
    }
}

#[derive(Debug)]
pub struct Rates {
    limits: PerSecond,
    paid: Mutex<HashMap<(Subject, Rate), Instant>>,
}

impl Rates {
    pub fn new(limits: PerSecond) -> Self {
        Self {
            limits,
            paid: Mutex::default(),
        }
    }

    /// RESOURCE_EXHAUSTED with the time at which the same call may come again.
    pub fn take(&self, subject: &Subject, rate: Rate, now: Instant) -> Result<(), Problem> {
        let per_second = match rate {
            Rate::None => return Ok(()),
            Rate::Read => self.limits.reads,
            Rate::Change => self.limits.changes,
            Rate::Watch => self.limits.watches,
        };
        let cost = Duration::from_secs(1) / per_second.max(1);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        if paid.len() >= MAX_SUBJECTS {
            paid.retain(|_, until| *until > now);
        }
        let until = paid.entry((subject.clone(), rate)).or_insert(now);
        let next = (*until).max(now) + cost;
        let ahead = next.saturating_duration_since(now);
        if ahead > BURST {
            let text = format!("more than {per_second} such calls a second of {subject}");
            let problem = Problem::new(Code::ResourceExhausted, ErrorReason::RateLimited, text);
            return Err(problem.with_retry_after(ahead - BURST));
        }
        *until = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_worth_may_come_at_once_and_then_what_the_rate_allows() {
        let rates = Rates::new(PerSecond {
            reads: 5,
            ..PerSecond::default()
        });
        let (alice, bob) = (Subject::User("alice".into()), Subject::ApiKey("k".into()));
        let start = Instant::now();
        let taken = (0..100)
            .take_while(|_| rates.take(&alice, Rate::Read, start).is_ok())
            .count();
        assert_eq!(taken, 50);
        let refused = rates.take(&alice, Rate::Read, start).expect_err("too many");
        assert_eq!(refused.retry_after, Some(Duration::from_millis(200)));
        assert!(rates.take(&bob, Rate::Read, start).is_ok(), "others have their own");
        assert!(
            rates.take(&alice, Rate::Change, start).is_ok(),
            "and so has what is of another kind"
        );
        assert!(
            rates
                .take(&alice, Rate::Read, start + Duration::from_millis(200))
                .is_ok()
        );
        assert!(rates.take(&alice, Rate::None, start).is_ok());
    }
}
