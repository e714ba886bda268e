//! How an agent leaves while the connection is good: when, and with which word. Sends nothing.

use std::time::{Duration, Instant};

use muster_proto::v1::{self, GoodbyeReason};

use super::Closed;
use crate::endpoints;

/// How long pending results hold up a planned leave.
pub(super) const FLUSH: Duration = Duration::from_secs(1);

/// A controller that gives more time than this gets rid of its agents sooner.
const LONGEST: Duration = Duration::from_secs(3600);

/// Of what the controller gives as its reason.
const MAX_REASON: usize = 200;

#[derive(Debug)]
pub(super) enum Leave {
    /// At that moment.
    At(Instant, Closed),
    /// As soon as the results are stored, and then at the latest.
    By(Instant, Closed),
}

impl Leave {
    pub fn now(why: Closed, now: Instant) -> Leave {
        Leave::By(now + FLUSH, why)
    }

    /// At a moment that `random`, in `0..1`, chooses of the time that the controller gives.
    pub fn drained(drain: v1::Drain, random: f64, now: Instant) -> Leave {
        let within = u64::try_from(drain.within_micros).map_or(Duration::ZERO, Duration::from_micros);
        let reason = drain.reason.chars().filter(|c| !c.is_control()).take(MAX_REASON);
        let why = Closed::Drained {
            to: endpoints::parse(&drain.endpoints),
            reason: reason.collect(),
        };
        Leave::At(now + within.min(LONGEST).mul_f64(random.clamp(0.0, 1.0)), why)
    }

    pub fn deadline(&self) -> Instant {
        match self {
            Leave::At(at, _) | Leave::By(at, _) => *at,
        }
    }

    /// The same while nothing can be sent: a link that does not take the goodbye either is not waited for.
    pub fn held_up_deadline(&self) -> Instant {
        match self {
            Leave::At(at, _) => *at,
            Leave::By(at, _) => *at + FLUSH,
        }
    }

    pub fn why(&self) -> &Closed {
        match self {
            Leave::At(_, why) | Leave::By(_, why) => why,
        }
    }

    pub fn has_begun(&self) -> bool {
        matches!(self, Leave::By(..))
    }
}

impl Closed {
    /// What is said at the end of a session that ends like this; none: it has broken.
    pub fn goodbye(&self) -> Option<GoodbyeReason> {
        match self {
            Closed::Stopped => Some(GoodbyeReason::Stopping),
            Closed::Drained { .. } => Some(GoodbyeReason::Drained),
            Closed::Returning(_) => Some(GoodbyeReason::Restarting),
            _ => None,
        }
    }
}
