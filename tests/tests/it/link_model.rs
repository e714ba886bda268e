//! The two ends of the link against a model that is simple enough to be right: a list of what was recorded, and a list of what
//! the controller has stored. The sessions and the queue are the real ones, without sockets and clocks; everything that can
//! go wrong between and around them does, in any order.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use muster_agent::{
    clock::Now,
    link::{
        queue::{Directory, Lanes, Limits},
        session as agent,
    },
};
use muster_proto::v1::{self, AckedSpool, AgentEvent, ConnectRequest, ConnectResponse, Lane, Record, record::Body};
use muster_server::{
    agents::OnClone,
    ingest::{Done, SpoolId},
    link::{
        Config,
        session::{self as controller, Admitted, Effect, Event},
    },
    policies::PolicySet,
};
use proptest::prelude::*;

const AGENT: &str = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
const LANES: [Lane; 2] = [Lane::Results, Lane::Metrics];
/// Nothing is dropped for want of room here.
const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    memory: 64 << 20,
};

#[derive(Debug, Clone)]
enum Step {
    Record {
        is_metric: bool,
        bytes: usize,
    },
    /// Frames go on their way, arrive, are stored and acknowledged: so many of each.
    AgentSends(usize),
    ControllerHears(usize),
    Commits(usize),
    AgentHears(usize),
    /// The connection is gone with all that is on its way, and there is another one.
    Cut,
    /// The agent is killed and starts again.
    AgentKilled,
    /// As well, and of its newest file this part is left.
    PowerLost(f64),
    /// The disk of the agent's machine is remembered, and put back.
    Snapshot,
    PutBack,
    /// The controller is killed: what it has not committed is gone.
    ControllerKilled,
    /// Its database is remembered, and restored.
    Backup,
    Restored,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (any::<bool>(), prop_oneof![9 => 0usize..2_000, 1 => 20_000usize..60_000])
            .prop_map(|(is_metric, bytes)| Step::Record { is_metric, bytes }),
        20 => (1usize..6).prop_map(Step::AgentSends),
        20 => (1usize..6).prop_map(Step::ControllerHears),
        20 => (1usize..6).prop_map(Step::Commits),
        20 => (1usize..6).prop_map(Step::AgentHears),
        4 => Just(Step::Cut),
        2 => Just(Step::AgentKilled),
        1 => (0.0..1.0).prop_map(Step::PowerLost),
        1 => Just(Step::Snapshot),
        1 => Just(Step::PutBack),
        2 => Just(Step::ControllerKilled),
        1 => Just(Step::Backup),
        1 => Just(Step::Restored),
    ]
}

struct Job {
    lane: Lane,
    spool: SpoolId,
    first_seq: u64,
    records: Vec<Record>,
    bytes: u64,
    /// The connection that it came by.
    connection: usize,
}

/// What the controller's database holds.
#[derive(Clone, Default)]
struct Database {
    marks: BTreeMap<(Lane, String), u64>,
    /// Numbers of records, in the order in which they were stored.
    stored: Vec<i64>,
}

struct World {
    disk: tempfile::TempDir,
    lanes: Lanes,
    /// On the agent's disk.
    generation: u64,
    /// Of all spools that ever were.
    spools: u64,
    agent: agent::Session,
    controller: controller::Session,
    connection: usize,
    up: VecDeque<ConnectRequest>,
    down: VecDeque<ConnectResponse>,
    jobs: VecDeque<Job>,
    database: Database,
    snapshot: Option<(tempfile::TempDir, u64)>,
    backup: Option<Database>,
    made: i64,
    /// Numbers that may be missing, since a disk or a database lost them.
    excused: BTreeSet<i64>,
    start: Instant,
}

fn now(world_start: Instant, made: i64) -> Now {
    Now {
        instant: world_start + Duration::from_micros(made.unsigned_abs()),
        unix_micros: 1_000_000 + made,
    }
}

fn lanes_at(disk: &Path, spool: &str) -> Lanes {
    Directory::new(disk.join("queue"))
        .open(AGENT, spool, |_| LIMITS)
        .expect("the queue opens")
}

fn hello(lanes: &Lanes) -> v1::Hello {
    v1::Hello {
        agent_id: AGENT.to_owned(),
        agent_version: "0.1.0".to_owned(),
        protocol_version: agent::PROTOCOL_VERSION,
        spools: lanes.spools(),
        ..Default::default()
    }
}

fn controller_session() -> controller::Session {
    let config = Config {
        heartbeat: 30_000_000,
        controller_name: "c1".into(),
        on_clone: OnClone::Refuse,
    };
    controller::Session::new(AGENT.parse().expect("a UUID"), config, i64::MAX, 0)
}

impl World {
    fn new() -> Self {
        let disk = tempfile::tempdir().expect("a directory");
        let lanes = lanes_at(disk.path(), "1-s1");
        let start = Instant::now();
        Self {
            agent: agent::Session::new(hello(&lanes), now(start, 0)),
            controller: controller_session(),
            disk,
            lanes,
            generation: 1,
            spools: 1,
            connection: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
            jobs: VecDeque::new(),
            database: Database::default(),
            snapshot: None,
            backup: None,
            made: 0,
            excused: BTreeSet::new(),
            start,
        }
    }

    fn now(&self) -> Now {
        now(self.start, self.made)
    }

    /// As the state directory gives it out.
    fn next_spool(&mut self, above: u64) -> String {
        self.generation = self.generation.max(above) + 1;
        self.spools += 1;
        format!("{}-s{}", self.generation, self.spools)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Record { is_metric, bytes } => self.record(is_metric, bytes),
            Step::AgentSends(frames) => self.agent_sends(frames),
            Step::ControllerHears(frames) => self.controller_hears(frames),
            Step::Commits(jobs) => self.commit(jobs),
            Step::AgentHears(frames) => self.agent_hears(frames),
            Step::Cut => self.connect(),
            Step::AgentKilled => self.start_agent(),
            Step::PowerLost(part) => {
                self.lose_power(part);
                self.start_agent();
            }
            Step::Snapshot => {
                let copy = tempfile::tempdir().expect("a directory");
                copy_dir(self.disk.path(), copy.path());
                self.snapshot = Some((copy, self.generation));
            }
            Step::PutBack => self.put_back(),
            Step::ControllerKilled => {
                self.jobs.clear();
                self.connect();
            }
            Step::Backup => self.backup = Some(self.database.clone()),
            Step::Restored => self.restore(),
        }
    }

    fn record(&mut self, is_metric: bool, bytes: usize) {
        self.made += 1;
        let event = AgentEvent {
            message: "x".repeat(bytes),
            ..Default::default()
        };
        let record = Record {
            time_unix_micros: self.made,
            body: Some(Body::Event(event)),
        };
        let now = self.now().unix_micros;
        self.lanes.push(LANES[usize::from(is_metric)], &record, now);
    }

    fn agent_sends(&mut self, frames: usize) {
        for _ in 0..frames {
            let now = self.now();
            let Some(frame) = self.agent.next_frame(&mut self.lanes, now) else {
                break;
            };
            self.up.push_back(frame);
        }
    }

    fn controller_hears(&mut self, frames: usize) {
        for _ in 0..frames {
            let Some(frame) = self.up.pop_front() else { break };
            let effects = self.controller.handle(Event::Frame(Box::new(frame)), self.made);
            self.carry_out(effects);
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(response) => self.down.push_back(response),
                Effect::Admit(admission) => {
                    let named: Vec<&SpoolId> = admission.spools.iter().map(|(spool, _)| spool).collect();
                    let marks = &self.database.marks;
                    let generations = marks.keys().filter_map(|(_, spool)| spool.parse::<SpoolId>().ok());
                    let others = generations.filter(|spool| !named.contains(&spool));
                    let highest_generation = others.map(|spool| spool.generation()).max().unwrap_or(0);
                    let acked = admission.spools.iter().map(|(spool, lane)| AckedSpool {
                        spool_id: spool.to_string(),
                        lane: (*lane).into(),
                        through_seq: marks.get(&(*lane, spool.to_string())).copied().unwrap_or(0),
                    });
                    let admitted = Admitted {
                        session_id: "s".into(),
                        acked: acked.collect(),
                        facts_digest: String::new(),
                        policy_status_digest: String::new(),
                        config: v1::AgentConfig::default(),
                        policies: Arc::new(PolicySet::default()),
                        highest_generation,
                        trust_bundle: 0,
                    };
                    let effects = self.controller.handle(Event::Admitted(Box::new(admitted)), self.made);
                    self.carry_out(effects);
                }
                Effect::Ingest {
                    lane,
                    spool,
                    first_seq,
                    records,
                    bytes,
                    ..
                } => self.jobs.push_back(Job {
                    lane,
                    spool,
                    first_seq,
                    records,
                    bytes,
                    connection: self.connection,
                }),
                Effect::Close(why) => panic!("the controller ends the link: {why:?}"),
                _ => {}
            }
        }
    }

    /// As `ingest` does it: what lies behind the mark of its spool is stored, and the mark with it.
    fn commit(&mut self, jobs: usize) {
        for _ in 0..jobs {
            let Some(job) = self.jobs.pop_front() else { break };
            let mark = self
                .database
                .marks
                .entry((job.lane, job.spool.to_string()))
                .or_default();
            let mut through_seq = 0;
            for (seq, record) in (job.first_seq..).zip(&job.records) {
                through_seq = seq;
                if seq > *mark {
                    *mark = seq;
                    self.database.stored.push(record.time_unix_micros);
                }
            }
            if job.connection != self.connection {
                continue;
            }
            let effects = self.controller.handle(
                Event::Committed {
                    lane: job.lane,
                    spool: job.spool,
                    bytes: job.bytes,
                    done: Done {
                        through_seq,
                        rejected: Vec::new(),
                    },
                },
                self.made,
            );
            self.carry_out(effects);
        }
    }

    fn agent_hears(&mut self, frames: usize) {
        for _ in 0..frames {
            let Some(frame) = self.down.pop_front() else { break };
            let now = self.now();
            let effects = self.agent.handle(agent::Event::Received(frame), &mut self.lanes, now);
            for effect in effects {
                if let agent::Effect::StartSpool { above } = effect {
                    let spool = self.next_spool(above);
                    self.lanes.start_spool(&spool);
                }
            }
            match self.agent.closed() {
                None => {}
                Some(agent::Closed::ForeignSpool(_)) => {
                    let spool = self.next_spool(0);
                    self.lanes.renumber(&spool);
                    self.connect();
                }
                Some(why) => panic!("the agent ends the link: {why}"),
            }
        }
    }

    fn connect(&mut self) {
        self.connection += 1;
        self.up.clear();
        self.down.clear();
        self.agent = agent::Session::new(hello(&self.lanes), self.now());
        self.controller = controller_session();
    }

    fn start_agent(&mut self) {
        let spool = self.next_spool(0);
        self.lanes = lanes_at(self.disk.path(), &spool);
        self.connect();
    }

    fn lose_power(&mut self, part: f64) {
        let before = self.waiting();
        for lane in ["results", "metrics"] {
            let dir = self.disk.path().join("queue").join(AGENT).join(lane);
            let newest = fs::read_dir(dir)
                .expect("the lane")
                .map(|entry| entry.expect("a file").path());
            let newest = newest.max_by_key(|path| fs::metadata(path).and_then(|it| it.modified()).ok());
            if let Some(path) = newest {
                let file = fs::OpenOptions::new().write(true).open(path).expect("the file");
                let length = file.metadata().expect("its length").len();
                file.set_len((length as f64 * part) as u64).expect("it is cut");
            }
        }
        let spool = self.next_spool(0);
        self.lanes = lanes_at(self.disk.path(), &spool);
        let after = self.waiting();
        self.excused.extend(before.difference(&after));
    }

    fn put_back(&mut self) {
        let Some((copy, generation)) = self.snapshot.take() else {
            return;
        };
        let before = self.waiting();
        fs::remove_dir_all(self.disk.path().join("queue")).expect("the disk is empty");
        copy_dir(copy.path(), self.disk.path());
        self.generation = generation;
        self.snapshot = Some((copy, generation));
        self.start_agent();
        let after = self.waiting();
        self.excused.extend(before.difference(&after));
        // The connection has not been used for looking.
        self.connect();
    }

    fn restore(&mut self) {
        let Some(backup) = &self.backup else { return };
        let kept: BTreeSet<i64> = backup.stored.iter().copied().collect();
        self.excused
            .extend(self.database.stored.iter().filter(|number| !kept.contains(number)));
        self.database = backup.clone();
        self.jobs.clear();
        self.connect();
    }

    /// Numbers of all records in the queue, acknowledged or not. Reading them makes them count as sent, so this is for a
    /// queue that is about to be opened anew or has just been.
    fn waiting(&mut self) -> BTreeSet<i64> {
        let spool = format!("{}-look", self.generation + 1_000_000);
        let mut lanes = lanes_at(self.disk.path(), &spool);
        let mut found = BTreeSet::new();
        for lane in LANES {
            let lane = lanes.lane_mut(lane);
            let spools: Vec<_> = lane.spools().map(|spool| spool.id().clone()).collect();
            for spool in spools {
                let mut seq = 0;
                while let Some(batch) = lane.take_batch(&spool, seq, 1 << 20) {
                    seq = batch.last_seq;
                    found.extend(batch.records.iter().map(|record| record.time_unix_micros));
                }
            }
        }
        found
    }

    /// No more trouble: until nobody has anything to say.
    fn settle(&mut self) {
        self.connect();
        for _ in 0..10_000 {
            self.agent_sends(100);
            self.controller_hears(100);
            self.commit(100);
            self.agent_hears(100);
            let is_quiet = self.up.is_empty() && self.down.is_empty() && self.jobs.is_empty();
            if is_quiet && LANES.iter().all(|lane| self.lanes.lane(*lane).is_empty()) {
                return;
            }
        }
        panic!("it does not come to rest");
    }
}

fn copy_dir(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).expect("a directory");
            fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).expect("its mode");
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_happens_to_both_ends_every_record_is_stored_once_or_was_lost_with_a_disk(
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle();
        let stored: BTreeSet<i64> = world.database.stored.iter().copied().collect();
        prop_assert_eq!(stored.len(), world.database.stored.len(), "nothing is stored twice");
        let missing: Vec<i64> = (1..=world.made)
            .filter(|number| !stored.contains(number) && !world.excused.contains(number))
            .collect();
        prop_assert!(missing.is_empty(), "missing: {:?}", missing);
    }
}
