//! One simulated agent: the session and the queue of the real one, a connection that costs little, and made-up records. It
//! stays connected as a real one does, with the same waits. Runs no checks and keeps nothing but, when it is to, its queue.

use std::{
    collections::BTreeMap,
    future::pending,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use muster_agent::{
    backoff::{self, Backoff},
    clock::Now,
    link::{
        queue::{Depth, Directory, Lanes, Limits, Queue, keeper::Keeper},
        session::{CAPABILITIES, PROTOCOL_VERSION},
    },
};
use muster_proto::{
    digest,
    ids::AgentId,
    v1::{self, Lane},
};
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::driver::Ended;
use super::{
    fleet::Fleet,
    policies::{Set, Sets},
    traffic::{self, Made},
    wire::Route,
};

mod driver;

/// What waits in the memory of an agent at most, of each lane: an hour of everything fits many times.
const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    memory: 64 << 20,
};

#[derive(Debug)]
pub struct Agent {
    pub id: AgentId,
    pub name: String,
    route: Route,
    queue: Arc<Queue>,
    /// Where the queue lies, when it is on disk.
    home: Option<PathBuf>,
    facts: Arc<v1::Facts>,
    fingerprint: v1::Fingerprint,
    bundle_version: i64,
    /// Microseconds that its clock is ahead.
    skew: i64,
    generation: AtomicU64,
    set: Mutex<Arc<Set>>,
    /// Of the connection that there is, or will be next.
    cut: Mutex<CancellationToken>,
    pub results: Made,
    pub metrics: Made,
    pub logs: Made,
}

/// What an agent is made of.
#[derive(Debug)]
pub struct Parts {
    pub id: AgentId,
    pub name: String,
    pub route: Route,
    pub fingerprint: v1::Fingerprint,
    pub bundle_version: i64,
    pub skew: i64,
    /// The queue's directory; none: in memory.
    pub home: Option<PathBuf>,
}

impl Agent {
    pub fn new(parts: Parts) -> anyhow::Result<Arc<Self>> {
        let Parts {
            id,
            name,
            route,
            fingerprint,
            bundle_version,
            skew,
            home,
        } = parts;
        let spool = spool_id(1);
        let lanes = match &home {
            Some(home) => Directory::new(home.clone()).open(&id.to_string(), &spool, |_| LIMITS)?,
            None => Lanes::in_memory(&spool, LIMITS),
        };
        Ok(Arc::new(Self {
            facts: Arc::new(facts(&name)),
            id,
            name,
            route,
            queue: Arc::new(Queue::new(lanes)),
            home,
            fingerprint,
            bundle_version,
            skew,
            generation: AtomicU64::new(1),
            set: Mutex::new(Sets::none()),
            cut: Mutex::default(),
            results: Made::default(),
            metrics: Made::default(),
            logs: Made::default(),
        }))
    }

    /// Until the swarm stops; connects for the first time after `delay`.
    pub async fn live(self: Arc<Self>, fleet: Arc<Fleet>, delay: Duration) {
        tokio::select! {
            () = self.stay_connected(&fleet, delay) => {}
            () = self.report(&fleet) => {}
            () = self.keep() => {}
        }
    }

    /// Ends the connection there is as a broken cable does.
    pub fn cut(&self) {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// What waits, and what was dropped.
    pub fn depths(&self) -> [Depth; Lanes::ALL.len()] {
        let lanes = self.queue.lock();
        Lanes::ALL.map(|lane| lanes.lane(lane).depth(0))
    }

    pub fn made(&self, lane: Lane) -> &Made {
        match lane {
            Lane::Metrics => &self.metrics,
            Lane::Logs => &self.logs,
            Lane::Results | Lane::Unspecified => &self.results,
        }
    }

    /// Records as if the agent had run alone for so long.
    pub async fn remember(&self, fleet: &Fleet, outage: Duration) {
        let now = self.now().unix_micros;
        for lane in Lanes::ALL {
            let Some(every) = traffic::interval(&fleet.load, lane, 1.0) else {
                continue;
            };
            let mut age = outage;
            while let Some(less) = age.checked_sub(every) {
                self.record(fleet, lane, now - micros(age));
                age = less;
            }
            yield_now().await;
        }
    }

    fn record(&self, fleet: &Fleet, lane: Lane, at: i64) {
        let record = traffic::record(&fleet.load, &fleet.label.1, lane, self.made(lane), at);
        self.queue.recorder().record(lane, record);
    }

    /// Makes records as the orders say.
    async fn report(&self, fleet: &Fleet) {
        let mut orders = fleet.orders.subscribe();
        loop {
            let rate = orders.borrow_and_update().rate;
            // Each lane at a moment of its own within its interval.
            let start = Instant::now();
            let mut due = Lanes::ALL.map(|lane| {
                let every = traffic::interval(&fleet.load, lane, rate)?;
                Some((start + every.mul_f64(rand::random()), every))
            });
            loop {
                let next = due.iter().flatten().map(|(at, _)| *at).min();
                let changed = tokio::select! {
                    changed = orders.changed() => Some(changed),
                    () = until(next) => None,
                };
                match changed {
                    Some(Ok(())) => break,
                    Some(Err(_)) => return pending().await,
                    None => {}
                }
                let now = Instant::now();
                for (lane, due) in Lanes::ALL.into_iter().zip(&mut due) {
                    if let Some((at, every)) = due
                        && *at <= now
                    {
                        self.record(fleet, lane, self.now().unix_micros);
                        *at += *every;
                    }
                }
            }
        }
    }

    /// Syncs the queue to the disk, as the agent does.
    async fn keep(&self) {
        let Some(home) = &self.home else {
            return pending().await;
        };
        let config = watch::channel(Arc::default()).1;
        let keeper = Keeper::new(self.queue.clone(), home.clone(), config);
        keeper.run(CancellationToken::new()).await;
    }

    async fn stay_connected(&self, fleet: &Fleet, delay: Duration) {
        if fleet.stop.run_until_cancelled(sleep(delay)).await.is_none() {
            return;
        }
        let mut backoff = Backoff::default();
        while !fleet.stop.is_cancelled() {
            let cut = CancellationToken::new();
            *self.cut.lock().unwrap_or_else(PoisonError::into_inner) = cut.clone();
            // Boxed, so that an agent that waits does not hold the room of one that is connected.
            let ended = Box::pin(self.connect(fleet, cut)).await;
            let wait = match ended {
                Ended::Stopped => return,
                Ended::Refused { active_for, problem } => {
                    if backoff::told_by_busy(&problem).is_some() {
                        fleet.counts.refused.fetch_add(1, Ordering::Relaxed);
                    } else {
                        fleet.counts.failures.fetch_add(1, Ordering::Relaxed);
                    }
                    fleet.note(&problem.message);
                    backoff.held(active_for);
                    backoff.after(&problem, rand::random())
                }
                Ended::SentAway => {
                    fleet.counts.sent_away.fetch_add(1, Ordering::Relaxed);
                    Duration::ZERO
                }
                Ended::Broken { active_for, why } => {
                    fleet.counts.failures.fetch_add(1, Ordering::Relaxed);
                    fleet.note(&why);
                    backoff.held(active_for);
                    backoff.next(rand::random())
                }
            };
            fleet.stop.run_until_cancelled(sleep(wait)).await;
        }
    }

    fn hello(&self, fleet: &Fleet, now: Now) -> v1::Hello {
        let set = self.set();
        let (key, value) = fleet.label.clone();
        v1::Hello {
            agent_id: self.id.to_string(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: PROTOCOL_VERSION,
            capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
            fingerprint: Some(self.fingerprint.clone()),
            spools: self.queue.lock().spools(),
            policy_set_digest: set.digest.clone(),
            facts_digest: self.facts.digest.clone(),
            policy_status_digest: set.status.digest.clone(),
            labels: BTreeMap::from([(key, value)]),
            warnings: Vec::new(),
            time_unix_micros: now.unix_micros,
            trust_bundle_version: self.bundle_version,
        }
    }

    /// By its own clock.
    fn now(&self) -> Now {
        let now = Now::read();
        Now {
            unix_micros: now.unix_micros + self.skew,
            ..now
        }
    }

    fn set(&self) -> Arc<Set> {
        self.lock_set().clone()
    }

    fn lock_set(&self) -> MutexGuard<'_, Arc<Set>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A spool id above all that this agent has used, and above this generation.
    fn next_spool(&self, above: u64) -> String {
        let next = self.generation.load(Ordering::Relaxed).max(above) + 1;
        self.generation.store(next, Ordering::Relaxed);
        spool_id(next)
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

fn spool_id(generation: u64) -> String {
    format!("{generation}-{:08x}", rand::random::<u32>())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// As many and as long as those of a machine.
fn facts(name: &str) -> v1::Facts {
    let facts: BTreeMap<String, String> = [
        ("arch", "x86_64"),
        ("boot.time", "2026-11-18T22:40:00Z"),
        ("cpu.count", "8"),
        ("fqdn", name),
        ("hardware.product", "Standard PC (Q35 + ICH9, 2009)"),
        ("hardware.vendor", "QEMU"),
        ("hostname", name),
        ("kernel.name", "Linux"),
        ("kernel.release", "6.1.0-28-amd64"),
        ("memory.bytes", "16777216000"),
        ("os.id", "debian"),
        ("os.like", "debian"),
        ("os.name", "Debian GNU/Linux"),
        ("os.version", "12"),
        ("virtualization", "kvm"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    v1::Facts {
        digest: digest::of_map(&facts),
        facts,
    }
}
