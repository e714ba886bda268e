//! Leaving: whether this controller takes links, and when each of those that it has is told to go. The moments are spread over
//! the time that somebody gave, so that the other controllers are not stormed. Knows the time, and no frames.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::clock::Micros;

/// How long an agent may take to leave after it was told to: it sends its results first.
const LEAVE: Duration = Duration::from_secs(5);
/// After the last one was told, whoever is still here is shown out.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same when the process stops, which does not wait for long.
const STOP_LEAVE: Duration = Duration::from_millis(200);
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// That the links shall go.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For people: when it began, and when the last link is told.
    pub started_at: Micros,
    pub ends_at: Micros,
    pub endpoints: Vec<String>,
    /// The operator; empty: the process stops.
    pub by: String,
    pub stops: bool,
    begun: Instant,
    within: Duration,
}

/// What a link has to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Tell the agent, which has so long to leave.
    Tell(Telling),
    /// The agent has had its time.
    End { stops: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    pub within: Duration,
    pub endpoints: Vec<String>,
    pub stops: bool,
}

/// What one controller has decided. Starts with taking links.
#[derive(Debug)]
pub struct Draining(watch::Sender<Option<Arc<Plan>>>);

/// A link's part of it.
#[derive(Debug)]
pub struct Follower {
    plan: Option<Arc<Plan>>,
    /// Of all that are told, which one this is: 0 the first, `u64::MAX` the last.
    place: u64,
    told: bool,
}

impl Draining {
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// None: links are taken.
    pub fn plan(&self) -> Option<Arc<Plan>> {
        self.0.borrow().clone()
    }

    /// Another time, or other endpoints, when it has begun before. A stop is not turned into anything else.
    pub fn begin(&self, within: Duration, endpoints: Vec<String>, by: &str, now: Micros) -> Arc<Plan> {
        self.put(within, endpoints, by, false, now)
    }

    /// The process is about to end.
    pub fn stop(&self, within: Duration, now: Micros) -> Arc<Plan> {
        // Who was told to go somewhere is told no less by this.
        let endpoints = self.plan().map(|plan| plan.endpoints.clone()).unwrap_or_default();
        self.put(within, endpoints, "", true, now)
    }

    /// Whether there was something to be cancelled.
    pub fn cancel(&self) -> bool {
        self.0
            .send_if_modified(|plan| plan.take_if(|plan| !plan.stops).is_some())
    }

    /// Told at every change.
    pub fn plans(&self) -> watch::Receiver<Option<Arc<Plan>>> {
        self.0.subscribe()
    }

    fn put(&self, within: Duration, endpoints: Vec<String>, by: &str, stops: bool, now: Micros) -> Arc<Plan> {
        let mut put = None;
        self.0.send_if_modified(|current| {
            if let Some(stop) = current.as_ref().filter(|plan| plan.stops) {
                put = Some(stop.clone());
                return false;
            }
            let plan = Arc::new(Plan {
                started_at: current.as_ref().map_or(now, |plan| plan.started_at),
                ends_at: now.saturating_add(crate::clock::from_duration(within)),
                endpoints,
                by: by.to_owned(),
                stops,
                begun: Instant::now(),
                within,
            });
            *current = Some(plan.clone());
            put = Some(plan);
            true
        });
        put.expect("is put by the closure, which runs once")
    }
}

impl Default for Draining {
    fn default() -> Self {
        Self::new()
    }
}

impl Plan {
    fn moment(&self, place: u64) -> Instant {
        self.begun + self.within.mul_f64(place as f64 / u64::MAX as f64)
    }

    fn end(&self) -> Instant {
        self.begun + self.within + if self.stops { STOP_PATIENCE } else { PATIENCE }
    }
}

impl Follower {
    pub fn new(place: u64) -> Self {
        Self {
            plan: None,
            place,
            told: false,
        }
    }

    /// What is decided now.
    pub fn hear(&mut self, plan: Option<&Arc<Plan>>) {
        self.told &= plan.is_some();
        self.plan = plan.cloned();
    }

    /// When it is this link's turn, as far as it has heard. May be dropped and asked again at any time.
    pub async fn due(&mut self) -> Due {
        let Some(plan) = &self.plan else {
            return std::future::pending().await;
        };
        let moment = if self.told { plan.end() } else { plan.moment(self.place) };
        // In a box, since there is no plan nearly always.
        Box::pin(sleep_until(moment)).await;
        if std::mem::replace(&mut self.told, true) {
            return Due::End { stops: plan.stops };
        }
        Due::Tell(Telling {
            within: if plan.stops { STOP_LEAVE } else { LEAVE },
            endpoints: plan.endpoints.clone(),
            stops: plan.stops,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn told(due: &Due) -> bool {
        matches!(due, Due::Tell(_))
    }

    fn hears(follower: &mut Follower, draining: &Draining) {
        follower.hear(draining.plan().as_ref());
    }

    #[tokio::test(start_paused = true)]
    async fn links_are_told_one_after_the_other_over_the_whole_time() {
        let draining = Draining::new();
        let mut followers: Vec<Follower> = (0..=10).map(|n| Follower::new(u64::MAX / 10 * n)).collect();
        let start = Instant::now();
        draining.begin(MINUTE, vec!["b:1".into()], "ann", 5);
        for (n, follower) in followers.iter_mut().enumerate() {
            hears(follower, &draining);
            let Due::Tell(telling) = follower.due().await else {
                panic!("is ended before it was told")
            };
            assert_eq!(telling.endpoints, ["b:1"]);
            let expected = 6 * n as u64;
            assert_eq!(start.elapsed().as_secs_f64().round() as u64, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_told_and_stays_is_shown_out() {
        let draining = Draining::new();
        let mut follower = Follower::new(0);
        let start = Instant::now();
        draining.begin(MINUTE, Vec::new(), "ann", 5);
        hears(&mut follower, &draining);
        assert!(told(&follower.due().await));
        assert_eq!(follower.due().await, Due::End { stops: false });
        assert_eq!(start.elapsed(), MINUTE + PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn another_time_counts_for_those_that_are_not_told_yet() {
        let draining = Draining::new();
        let mut last = Follower::new(u64::MAX);
        draining.begin(60 * MINUTE, Vec::new(), "ann", 5);
        hears(&mut last, &draining);
        assert!(timeout(MINUTE, last.due()).await.is_err(), "told too early");
        let start = Instant::now();
        draining.begin(Duration::from_secs(1), Vec::new(), "ann", 65);
        hears(&mut last, &draining);
        assert!(told(&last.due().await));
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(draining.plan().expect("a plan").started_at, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_is_cancelled_tells_nobody_and_one_that_comes_again_tells_all() {
        let draining = Draining::new();
        let mut follower = Follower::new(u64::MAX / 2);
        draining.begin(MINUTE, Vec::new(), "ann", 5);
        hears(&mut follower, &draining);
        assert!(draining.cancel() && !draining.cancel());
        hears(&mut follower, &draining);
        assert!(timeout(60 * MINUTE, follower.due()).await.is_err(), "told all the same");
        assert!(draining.plan().is_none());
        for _ in 0..2 {
            draining.begin(MINUTE, Vec::new(), "ann", 5);
            hears(&mut follower, &draining);
            assert!(told(&follower.due().await));
            draining.cancel();
            hears(&mut follower, &draining);
            assert!(timeout(MINUTE, follower.due()).await.is_err(), "shown out all the same");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_goes_before_everything_else() {
        let draining = Draining::new();
        let mut follower = Follower::new(u64::MAX);
        draining.begin(60 * MINUTE, vec!["b:1".into()], "ann", 5);
        draining.stop(Duration::from_millis(100), 6);
        draining.begin(60 * MINUTE, Vec::new(), "ann", 7);
        assert!(!draining.cancel());
        hears(&mut follower, &draining);
        let start = Instant::now();
        let Due::Tell(telling) = follower.due().await else {
            panic!("is ended")
        };
        assert!(telling.stops && telling.endpoints == ["b:1"]);
        assert!(start.elapsed() <= Duration::from_millis(100));
    }
}
