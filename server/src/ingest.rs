//! Takes records from links into the store: one worker for each lane, which gathers while a commit runs, and acknowledges after
//! the commit only. When it is idle, results are committed at once, and what nobody waits for a moment later. Knows no frames
//! and no transport.

mod gaps;
mod plan;
mod queue;
mod quotas;
mod series;
mod spool_id;
mod validate;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use muster_proto::{
    ids::AgentId,
    v1::{self, Lane},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use quotas::{Held, Limits, Quotas, Share};
pub use spool_id::SpoolId;
pub use validate::{is_label_name, is_metric_name};

use crate::{
    agents::{Agents, Entry},
    changes::Changes,
    clock::{self, Micros},
    disk::Disk,
    states::States,
    store::{self, Db, MarkRow},
    telemetry::{Fate, Telemetry},
};

/// All lanes, in order of priority.
pub const LANES: [Lane; 3] = [Lane::Results, Lane::Metrics, Lane::Logs];

/// For how long metrics and logs wait for others that are committed with them: a commit costs far more than what is in it.
const PATIENCE: Micros = 20_000;

/// How often it is looked for marks of agents that are gone.
const TIDY: Micros = 5 * clock::MINUTE;

/// Marks of an agent and a lane in memory, those that were used last.
const MAX_MARKS: usize = 16;

/// Records of one frame.
#[derive(Debug)]
pub struct Job {
    pub agent: AgentId,
    pub spool: SpoolId,
    pub first_seq: u64,
    pub records: Vec<v1::Record>,
    pub received_at: Micros,
    /// Encoded size, against the limits of a commit.
    pub bytes: usize,
    /// It waited with the agent, so that what is new goes first. Of a spool, what comes after it does as well.
    pub has_waited: bool,
    /// Shared with the jobs of its lane that came by the same link: set when one of them is lost. Those behind it are not stored
    /// either, since their mark would speak for it.
    pub lost: Lost,
    /// Its part of the budget.
    pub held: Held,
    /// Dropped without an answer when the database fails: nothing is acknowledged then.
    pub done: oneshot::Sender<Done>,
}

/// Whether a job was lost, and why. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<OnceLock<Why>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The disk has no room; the agent is to send it again when it has.
    NoRoom,
    /// The database was at fault.
    Failed,
}

impl Lost {
    pub fn why(&self) -> Option<Why> {
        self.0.get().copied()
    }

    /// The first reason stands.
    fn set(&self, why: Why) {
        let _ = self.0.set(why);
    }
}

/// What became of a job that is committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    pub through_seq: u64,
    pub rejected: Vec<v1::Rejected>,
}

/// Hands jobs to the workers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    results: queue::Sender,
    metrics: queue::Sender,
    logs: queue::Sender,
    marks: Arc<Marks>,
    states: Arc<States>,
    quotas: Quotas,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Full,
    Stopping,
}

impl Handle {
    /// Never waits: whoever hands in a job has more to do than to wait for the store.
    pub fn submit(&self, lane: Lane, job: Job) -> Result<(), Refused> {
        let queue = match lane {
            Lane::Metrics => &self.metrics,
            Lane::Logs => &self.logs,
            Lane::Results | Lane::Unspecified => &self.results,
        };
        queue.submit(job)
    }

    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// How far a spool's lane has been stored; 0: nothing.
    pub fn mark(&self, agent: AgentId, lane: Lane, spool: &SpoolId) -> u64 {
        self.marks.get(agent, lane, spool)
    }

    /// The highest generation among an agent's spools other than these; 0: there are none. States follow generations, so a
    /// spool that is not above it comes too late.
    pub fn highest_generation(&self, agent: AgentId, except: &[SpoolId]) -> i64 {
        let own = except.iter().map(SpoolId::generation).max().unwrap_or(0);
        // Marks are forgotten some day, states are not. One of an equal generation is the spool's own.
        let of_states = Some(self.states.highest_generation(agent)).filter(|highest| *highest > own);
        self.marks.highest_generation(agent, except).max(of_states.unwrap_or(0))
    }
}

/// What is stored of every spool, as committed.
#[derive(Debug, Default)]
struct Marks(Mutex<HashMap<(AgentId, Lane), HashMap<SpoolId, Mark>>>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    seq: u64,
    /// Grows with every use of any mark of the lane.
    used: u64,
}

impl Marks {
    fn get(&self, agent: AgentId, lane: Lane, spool: &SpoolId) -> u64 {
        let marks = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        marks
            .get(&(agent, lane))
            .and_then(|spools| spools.get(spool))
            .map_or(0, |mark| mark.seq)
    }

    fn highest_generation(&self, agent: AgentId, except: &[SpoolId]) -> i64 {
        let marks = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        LANES
            .into_iter()
            .filter_map(|lane| marks.get(&(agent, lane)))
            .flat_map(HashMap::keys)
            .filter(|spool| !except.contains(spool))
            .map(SpoolId::generation)
            .max()
            .unwrap_or(0)
    }

    /// Reads those of a lane, of agents that are on file.
    async fn read(&self, db: &Db, lane: Lane, agents: &Agents) -> Result<(), store::Error> {
        for row in db.mark_list(lane).await? {
            if let (Ok(agent), Ok(spool)) = (row.agent_id.parse(), row.spool_id.parse())
                && agents.has(agent)
            {
                self.set(agent, lane, spool, row.seq.max(0) as u64);
            }
        }
        Ok(())
    }

    /// Forgets those of a lane of agents that are gone.
    fn tidy(&self, lane: Lane, agents: &Agents) {
        let mut marks = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        marks.retain(|(agent, of), _| *of != lane || agents.has(*agent));
    }

    fn set(&self, agent: AgentId, lane: Lane, spool: SpoolId, seq: u64) {
        let mut marks = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let spools = marks.entry((agent, lane)).or_default();
        let used = spools.values().map(|mark| mark.used).max().unwrap_or(0) + 1;
        spools.insert(spool, Mark { seq, used });
        // A spool is new at every start of an agent, and an agent sends two at a time: the one that grows and one from before.
        if spools.len() > MAX_MARKS
            && let Some(unused) = spools
                .iter()
                .min_by_key(|(_, mark)| mark.used)
                .map(|(spool, _)| spool.clone())
        {
            spools.remove(&unused);
        }
    }
}

/// What the workers work with.
#[derive(Clone, Debug)]
pub struct Deps {
    pub db: Db,
    pub changes: Changes,
    pub agents: Arc<Agents>,
    pub states: Arc<States>,
    pub telemetry: Telemetry,
    pub disk: Disk,
    pub limits: Limits,
}

#[derive(Debug)]
pub struct Ingest {
    deps: Deps,
    marks: Arc<Marks>,
    quotas: Quotas,
    gaps: Arc<gaps::Gaps>,
    series: Arc<series::Series>,
    results: queue::Receiver,
    metrics: queue::Receiver,
    logs: queue::Receiver,
}

impl Ingest {
    pub async fn load(deps: Deps) -> Result<(Self, Handle), store::Error> {
        let marks = Marks::default();
        for lane in LANES {
            marks.read(&deps.db, lane, &deps.agents).await?;
        }
        let marks = Arc::new(marks);
        let quotas = Quotas::new(deps.limits);
        // The budget fills up before they do.
        let (results, results_queue) = queue::channel(quotas.max_jobs());
        let (metrics, metrics_queue) = queue::channel(quotas.max_jobs());
        let (logs, logs_queue) = queue::channel(quotas.max_jobs());
        let handle = Handle {
            results,
            metrics,
            logs,
            marks: marks.clone(),
            states: deps.states.clone(),
            quotas: quotas.clone(),
        };
        Ok((
            Self {
                gaps: Arc::new(gaps::Gaps::load(&deps.db, deps.agents.clone()).await?),
                series: Arc::new(series::Series::new(deps.limits.agent_new_series_per_minute)),
                deps,
                marks,
                quotas,
                results: results_queue,
                metrics: metrics_queue,
                logs: logs_queue,
            },
            handle,
        ))
    }

    /// Works until `shutdown`, then commits what is queued.
    pub async fn run(self, shutdown: CancellationToken) {
        let [results, metrics, logs] = LANES.map(|lane| self.worker(lane));
        tokio::join!(
            results.run(self.results, shutdown.clone()),
            metrics.run(self.metrics, shutdown.clone()),
            logs.run(self.logs, shutdown),
        );
    }

    fn worker(&self, lane: Lane) -> Worker {
        Worker {
            lane,
            deps: self.deps.clone(),
            marks: self.marks.clone(),
            quotas: self.quotas.clone(),
            gaps: self.gaps.clone(),
            series: self.series.clone(),
            is_unsure: AtomicBool::new(false),
        }
    }
}

#[derive(Debug)]
struct Worker {
    lane: Lane,
    deps: Deps,
    marks: Arc<Marks>,
    quotas: Quotas,
    gaps: Arc<gaps::Gaps>,
    series: Arc<series::Series>,
    /// Whether the last commit may be in the database without having said so: its connection may have broken just then.
    is_unsure: AtomicBool,
}

impl Worker {
    async fn run(self, mut queue: queue::Receiver, shutdown: CancellationToken) {
        let patience = match self.lane {
            Lane::Metrics | Lane::Logs => PATIENCE,
            Lane::Results | Lane::Unspecified => 0,
        };
        let mut tidied_at = clock::now();
        loop {
            let jobs = tokio::select! {
                biased;
                jobs = queue.batch(patience) => jobs,
                () = shutdown.cancelled() => {
                    queue.close();
                    queue.batch(0).await
                }
            };
            let Some(jobs) = jobs else { return };
            self.deps.telemetry.ingest_bytes(self.quotas.held());
            let oldest = jobs.iter().map(|job| job.received_at).min();
            self.commit_all(jobs).await;
            let now = clock::now();
            self.quotas.committed(self.lane, now - oldest.unwrap_or_default());
            if (now - tidied_at).abs() >= TIDY {
                tidied_at = now;
                self.marks.tidy(self.lane, &self.deps.agents);
            }
            self.deps.telemetry.ingest_bytes(self.quotas.held());
        }
    }

    /// One commit for all jobs; when the data of one is refused, one commit each, so that it holds up nobody else.
    async fn commit_all(&self, jobs: Vec<Job>) {
        if !self.deps.disk.lane_open(self.lane) {
            // Their senders are dropped with them.
            jobs.iter().for_each(|job| job.lost.set(Why::NoRoom));
            return;
        }
        // What an agent sent before it was revoked or deleted, and could not store in time, is not stored afterwards.
        let is_trusted = |job: &Job| self.deps.agents.with(job.agent, Entry::is_trusted) == Some(true);
        let jobs = jobs
            .into_iter()
            .filter(|job| job.lost.why().is_none() && is_trusted(job));
        let (mut work, senders): (Vec<plan::Work>, Vec<oneshot::Sender<Done>>) =
            jobs.map(|job| plan::Work::new(self.lane, job)).unzip();
        if work.is_empty() {
            return;
        }
        if self.lane == Lane::Metrics {
            work.iter_mut().for_each(|work| self.admit_series(work));
        }
        match self.commit(&mut work).await {
            Ok(()) => {}
            Err(error) if error.is_about_data() => {
                for work in &mut work {
                    if work.lost.why().is_none() {
                        self.commit_alone(work).await;
                    }
                }
            }
            Err(error) => self.failed(&work, &error),
        }
        for (work, sender) in work.into_iter().zip(senders) {
            if let Some(done) = work.done {
                // The link may be gone: the mark tells its next session.
                let _ = sender.send(done);
            }
        }
    }

    /// Takes samples out of series that the agent may not have yet.
    fn admit_series(&self, work: &mut plan::Work) {
        let mark = self.marks.get(work.agent, self.lane, &work.spool);
        let now = clock::now();
        let refused = work.admit_series(mark, |agent, batch| self.series.admit(agent, batch, now));
        if refused > 0 {
            self.deps.telemetry.samples_refused(refused);
            self.deps.agents.new_series_refused(work.agent, refused, now);
        }
        let agents = &self.deps.agents;
        self.series.tidy(now, |agent| agents.has(agent));
    }

    /// A job whose data may be refused: record by record, so that only the culprit is rejected.
    async fn commit_alone(&self, work: &mut plan::Work) {
        match self.commit(std::slice::from_mut(work)).await {
            Ok(()) => return,
            Err(error) if error.is_about_data() => {}
            Err(error) => return self.failed(std::slice::from_ref(work), &error),
        }
        let mut rejected = std::mem::take(&mut work.rejected);
        for record in std::mem::take(&mut work.records) {
            let seq = record.seq;
            let mut single = work.with_record(record);
            match self.commit(std::slice::from_mut(&mut single)).await {
                Ok(()) => {}
                Err(error) if error.is_about_data() => {
                    warn!(agent.id = %work.agent, seq, error = &error as &dyn std::error::Error, "record rejected");
                    rejected.push(v1::Rejected {
                        seq,
                        reason: "the store cannot take it".into(),
                    });
                }
                Err(error) => return self.failed(std::slice::from_ref(work), &error),
            }
        }
        rejected.sort_by_key(|rejected| rejected.seq);
        work.rejected = rejected;
        if let Err(error) = self.commit(std::slice::from_mut(work)).await {
            self.failed(std::slice::from_ref(work), &error);
        }
    }

    /// Commits all of `work` or nothing.
    async fn commit(&self, work: &mut [plan::Work]) -> Result<(), store::Error> {
        let started = std::time::Instant::now();
        // States are read for the plan and written with it, so nobody else may write them meanwhile.
        let _writing = match self.lane {
            Lane::Metrics | Lane::Logs => None,
            Lane::Results | Lane::Unspecified => Some(self.deps.states.writing.lock().await),
        };
        if self.is_unsure.load(Ordering::Relaxed) {
            self.recall().await?;
        }
        let now = clock::now();
        let mut plan = plan::Plan::new(&self.deps.states);
        for work in work.iter_mut() {
            let mark = self.marks.get(work.agent, self.lane, &work.spool);
            let mark = plan.mark(work).unwrap_or(mark);
            if self.lane == Lane::Results {
                plan.events.extend(self.gaps.event(work, mark, now));
            }
            plan.add(work, mark);
        }
        let transitions = plan.transitions();
        let _held = if transitions.is_empty() {
            None
        } else {
            Some(self.deps.changes.hold().await)
        };
        let mut tx = self.deps.db.begin_lane(self.lane).await?;
        if !transitions.is_empty() {
            let first = tx.changes_add(now, &transitions).await?;
            plan.set_revisions(first);
        }
        tx.state_put_all(&plan.state_rows()).await?;
        if !plan.results.is_empty() {
            tx.result_insert_all(&plan.results).await?;
        }
        tx.event_insert_all(&plan.events).await?;
        tx.metric_insert_all(&plan.metrics).await?;
        tx.log_insert_all(&plan.logs).await?;
        let marks: Vec<MarkRow> = plan.mark_rows();
        tx.mark_put_all(self.lane, &marks, now).await?;
        self.is_unsure.store(true, Ordering::Relaxed);
        tx.commit().await?;
        self.is_unsure.store(false, Ordering::Relaxed);

        for ((agent, spool), seq) in plan.marks() {
            self.marks.set(agent, self.lane, spool, seq);
        }
        let counts = plan.counts;
        self.deps.states.committed(plan.into_entries());
        if !transitions.is_empty() {
            self.deps.changes.committed();
        }
        for work in work {
            if self.lane == Lane::Results {
                self.gaps.heard(work.agent);
            }
            work.finish();
        }
        let lane = lane_name(self.lane);
        self.deps.telemetry.records(lane, Fate::Stored, counts.stored);
        self.deps.telemetry.records(lane, Fate::Duplicate, counts.duplicates);
        self.deps.telemetry.records(lane, Fate::Rejected, counts.rejected);
        self.deps.telemetry.commit(started.elapsed());
        Ok(())
    }

    /// Reads anew what a commit changes, since it is not known whether the last one has.
    async fn recall(&self) -> Result<(), store::Error> {
        self.deps.db.mark_settle(self.lane).await?;
        self.marks.read(&self.deps.db, self.lane, &self.deps.agents).await?;
        if self.lane == Lane::Results {
            self.deps.states.recall().await?;
        }
        Ok(())
    }

    fn failed(&self, work: &[plan::Work], error: &store::Error) {
        let why = if error.is_full() { Why::NoRoom } else { Why::Failed };
        if why == Why::NoRoom {
            self.deps.disk.failed();
        }
        for work in work {
            work.lost.set(why);
        }
        warn!(
            lane = lane_name(self.lane),
            error = error as &dyn std::error::Error,
            "failed to store records; nothing was acknowledged"
        );
    }
}

/// The place of a lane where something is kept for each.
pub fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Metrics => 1,
        Lane::Logs => 2,
        Lane::Results | Lane::Unspecified => 0,
    }
}

/// The name of a lane in metrics and logs.
pub fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Metrics => "metrics",
        Lane::Logs => "logs",
        Lane::Results | Lane::Unspecified => "results",
    }
}

#[cfg(test)]
mod tests;
