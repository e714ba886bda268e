//! When which check runs: `(state, event, now) → effects`, without a clock, a task or a process of its own.
//!
//! - A check that is new or was changed runs for the first time within 10 s, at a point that depends on agent and check.
//! - From then on it runs at its own phase of its interval, counted from 1970, which depends on agent and check alone: a
//!   fleet that starts at once is spread at once, and a restart changes nothing. The first run at the phase is at least
//!   half an interval after the one before it.
//! - While a problem is soft the next run is a retry interval after the last.
//! - A check never runs twice at a time. A time that comes while it still runs is skipped, and not made up for.
//! - At most so many checks run at once; those that wait for their turn have it in order of the time they were due.
//!   Waiting is measured by the clock that only moves forward, so a step of the other makes neither a storm nor a freeze.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_proto::attempts::{self, Attempts};
use muster_proto::check::{Timings, timings};
use muster_proto::v1::CheckState;

use crate::clock::Now;
use crate::policy::{ActiveCheck, ActiveChecks};
use crate::splay;

/// A new check's first run is due before this. A second is left of the ten, for its start.
const FIRST_WITHIN: Duration = Duration::from_secs(9);

/// One run of a check; a number is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

#[derive(Debug)]
pub enum Event {
    /// The checks that there are now.
    Checks(Arc<ActiveChecks>),
    Finished(RunId, CheckState),
    /// `Schedule::deadline` has come, or any other time.
    Tick,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Start(RunId, Arc<ActiveCheck>),
    /// End the run and forget its result.
    Kill(RunId),
}

#[derive(Debug)]
pub struct Schedule {
    agent_id: String,
    max_concurrent: usize,
    checks: BTreeMap<String, Planned>,
    runs_started: u64,
}

#[derive(Debug)]
struct Planned {
    check: Arc<ActiveCheck>,
    timings: Timings,
    /// None before the first result.
    standing: Option<Attempts>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Waiting { due: Instant },
    Running { run: RunId, since: Instant },
}

impl Schedule {
    pub fn new(agent_id: &str, max_concurrent: usize) -> Schedule {
        let max_concurrent = max_concurrent.max(1);
        Schedule {
            agent_id: agent_id.to_owned(),
            max_concurrent,
            checks: BTreeMap::new(),
            runs_started: 0,
        }
    }

    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Checks(checks) => self.follow(&checks, now, &mut effects),
            Event::Finished(run, state) => self.finish(run, state, now),
            Event::Tick => {}
        }
        self.start_due(now, &mut effects);
        effects
    }

    /// When there is something to do next, if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        if self.running() >= self.max_concurrent {
            return None;
        }
        self.checks.values().filter_map(Planned::due).min()
    }

    /// A check that has not changed keeps its time and its standing, and goes on running.
    fn follow(&mut self, checks: &ActiveChecks, now: Now, effects: &mut Vec<Effect>) {
        self.checks.retain(|name, planned| {
            let stays = checks.contains_key(name);
            if !stays {
                effects.extend(planned.run().map(Effect::Kill));
            }
            stays
        });
        for (name, check) in checks {
            let first = Planned {
                check: check.clone(),
                timings: timings(&check.check),
                standing: None,
                phase: Phase::Waiting {
                    due: first_run(&self.agent_id, check, now),
                },
            };
            match self.checks.entry(name.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(first);
                }
                Entry::Occupied(mut entry) if entry.get().check != *check => {
                    effects.extend(entry.get().run().map(Effect::Kill));
                    let standing = entry.get().standing;
                    entry.insert(Planned { standing, ..first });
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    fn finish(&mut self, run: RunId, state: CheckState, now: Now) {
        for (name, planned) in &mut self.checks {
            let Phase::Running { run: running, since } = planned.phase else {
                continue;
            };
            if running != run {
                continue;
            }
            let standing = attempts::next(planned.standing, state, planned.timings.attempts);
            planned.standing = Some(standing);
            let due = if standing.hard {
                let phase = splay::point(&[&self.agent_id, name], planned.timings.interval);
                let earliest = (since + planned.timings.interval / 2).max(now.instant);
                at_phase(phase, planned.timings.interval, earliest, now)
            } else {
                (since + planned.timings.retry_interval).max(now.instant)
            };
            planned.phase = Phase::Waiting { due };
        }
    }

    fn start_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut room = self.max_concurrent.saturating_sub(self.running());
        while room > 0 {
            let waiting = self
                .checks
                .values_mut()
                .filter_map(|planned| Some((planned.due()?, planned)));
            let Some((due, planned)) = waiting.min_by_key(|(due, _)| *due) else {
                break;
            };
            if due > now.instant {
                break;
            }
            self.runs_started += 1;
            let run = RunId(self.runs_started);
            planned.phase = Phase::Running {
                run,
                since: now.instant,
            };
            effects.push(Effect::Start(run, planned.check.clone()));
            room -= 1;
        }
    }

    fn running(&self) -> usize {
        self.checks.values().filter(|planned| planned.run().is_some()).count()
    }
}

impl Planned {
    fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { due } => Some(due),
            Phase::Running { .. } => None,
        }
    }

    fn run(&self) -> Option<RunId> {
        match self.phase {
            Phase::Waiting { .. } => None,
            Phase::Running { run, .. } => Some(run),
        }
    }
}

fn first_run(agent_id: &str, check: &ActiveCheck, now: Now) -> Instant {
    let within = timings(&check.check).interval.min(FIRST_WITHIN);
    now.instant + splay::point(&[agent_id, &check.name, "first"], within)
}

/// The first time from `earliest` on that is `phase` after a whole number of intervals since 1970.
fn at_phase(phase: Duration, interval: Duration, earliest: Instant, now: Now) -> Instant {
    let now_since_1970 = Duration::from_micros(u64::try_from(now.unix_micros).unwrap_or(0));
    let earliest_since_1970 = now_since_1970 + earliest.saturating_duration_since(now.instant);
    let interval = interval.as_nanos().max(1);
    let over = (earliest_since_1970.as_nanos() + interval - phase.as_nanos() % interval) % interval;
    let wait = if over == 0 { 0 } else { interval - over };
    earliest + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
