//! The two ends of the link against a model that is simple enough to be right: a list of what was recorded, and a list of what
//! the controller has stored. The sessions and the queue are the real ones, without sockets and clocks; everything that can
//! go wrong between and around them does, in any order.

mod faults;
mod step;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
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
    disk::Level,
    ingest::{self, Done, Held, Quotas, SpoolId},
    link::{
        Close, Config,
        session::{self as controller, Admitted, Effect, Event, Received},
    },
    policies::PolicySet,
};
use muster_tests::{SmallDisk, small_disk};
use proptest::{prelude::*, test_runner::TestRunner};

use self::{
    faults::copy_dir,
    step::{Step, step},
};

const AGENT: &str = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
const LANES: [Lane; 3] = [Lane::Results, Lane::Metrics, Lane::Logs];
/// Longer than a record may take that has not waited.
const LONG: i64 = 600_000_000;
/// Nothing is dropped for want of room here.
const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    memory: 64 << 20,
};

struct Job {
    lane: Lane,
    has_waited: bool,
    /// How often the lane had been sent again.
    resends: u32,
    spool: SpoolId,
    first_seq: u64,
    records: Vec<Record>,
    bytes: u64,
    _held: Held,
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

/// The controller's end of a connection that it does not know to be gone.
struct Old {
    session: controller::Session,
    up: VecDeque<ConnectRequest>,
    connection: usize,
}

struct World<'a> {
    /// What the agent's disk is a part of, where it can be filled.
    small: Option<&'a SmallDisk>,
    disk: tempfile::TempDir,
    lanes: Lanes,
    /// On the agent's disk.
    generation: u64,
    /// Of all spools that ever were.
    spools: u64,
    agent: agent::Session,
    controller: controller::Session,
    /// So little that agents meet their limits.
    quotas: Quotas,
    /// The controller's.
    clock: i64,
    connection: usize,
    old: Option<Old>,
    up: VecDeque<ConnectRequest>,
    down: VecDeque<ConnectResponse>,
    jobs: VecDeque<Job>,
    /// Connections and lanes of which records were lost, and for how many times that the lane had been sent again: those behind
    /// them are not stored either.
    lost: BTreeSet<(usize, Lane, u32)>,
    /// How full the controller's disk is.
    room: Level,
    database: Database,
    snapshot: Option<(tempfile::TempDir, u64)>,
    backup: Option<Database>,
    made: i64,
    /// Numbers that may be missing, since a disk or a database lost them.
    excused: BTreeSet<i64>,
    start: Instant,
}

/// The agent's time, so many microseconds after the start.
fn at(start: Instant, micros: i64) -> Now {
    Now {
        instant: start + Duration::from_micros(micros.unsigned_abs()),
        unix_micros: 1_000_000 + micros,
    }
}

/// Which record it is.
fn number(record: &Record) -> i64 {
    record.time_unix_micros % LONG
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
        capabilities: agent::CAPABILITIES.iter().map(ToString::to_string).collect(),
        spools: lanes.spools(),
        ..Default::default()
    }
}

fn controller_session(room: Level, quotas: &Quotas, now: i64) -> controller::Session {
    let config = Config {
        // Nobody is ever silent here.
        heartbeat: 1 << 50,
        controller_name: "c1".into(),
        on_clone: OnClone::Refuse,
    };
    let agent = AGENT.parse().expect("a UUID");
    let share = quotas.share(agent, 1, now);
    let mut session = controller::Session::new(agent, config, i64::MAX, share, now);
    session.handle(Event::Room(room), now);
    session
}

impl<'a> World<'a> {
    fn new(small: Option<&'a SmallDisk>) -> Self {
        let disk = match small {
            Some(small) => {
                // A case that failed may have left it full.
                small.make_room();
                tempfile::tempdir_in(small.path())
            }
            None => tempfile::tempdir(),
        }
        .expect("a directory");
        let lanes = lanes_at(disk.path(), "1-s1");
        let start = Instant::now();
        let quotas = Quotas::new(ingest::Limits {
            bytes: 300_000,
            agent_records_per_second: 10,
            agent_bytes_per_second: 20_000,
            agent_new_series_per_minute: 0,
        });
        Self {
            agent: agent::Session::new(hello(&lanes), at(start, 0)),
            controller: controller_session(Level::Ample, &quotas, 0),
            quotas,
            clock: 2 * LONG,
            small,
            disk,
            lanes,
            generation: 1,
            spools: 1,
            connection: 0,
            old: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            jobs: VecDeque::new(),
            lost: BTreeSet::new(),
            room: Level::Ample,
            database: Database::default(),
            snapshot: None,
            backup: None,
            made: 0,
            excused: BTreeSet::new(),
            start,
        }
    }

    fn now(&self) -> Now {
        at(self.start, self.clock - 2 * LONG + self.made)
    }

    /// As the state directory gives it out.
    fn next_spool(&mut self, above: u64) -> String {
        self.generation = self.generation.max(above) + 1;
        self.spools += 1;
        format!("{}-s{}", self.generation, self.spools)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Record { lane, bytes } => self.record(LANES[lane], bytes),
            Step::AgentSends(frames) => self.agent_sends(frames),
            Step::ControllerHears(frames) => self.controller_hears(frames),
            Step::Commits(jobs) => self.commit(jobs),
            Step::AgentHears(frames) => self.agent_hears(frames),
            Step::Cut => self.connect(),
            Step::AgentKilled => self.kill_agent(),
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
            Step::ControllerKilled => self.kill_controller(),
            Step::TimePasses(millis) => self.pass(millis),
            Step::Backup => self.backup = Some(self.database.clone()),
            Step::Restored => self.restore(),
            Step::DiskFills => self.disk_fills(),
            Step::DiskHasRoom => self.disk_has_room(),
            Step::SyncFails { lane } => self.sync_fails(LANES[lane]),
            Step::DiskTried => self.lanes.settle(self.now().unix_micros),
            Step::FileDamaged { which, is_gone } => self.damage_file(which, is_gone),
            Step::CutUnnoticed => self.cut_unnoticed(),
            Step::OldOneHears(frames) => self.old_one_hears(frames),
            Step::Room(level) => self.set_room(level),
            Step::NoRoom => self.no_room(),
        }
    }

    fn record(&mut self, lane: Lane, bytes: usize) {
        self.made += 1;
        let event = AgentEvent {
            message: "x".repeat(bytes),
            ..Default::default()
        };
        let record = Record {
            // Every third has waited, wherever it stands.
            time_unix_micros: self.made + if self.made % 3 == 0 { 0 } else { 1_000 * LONG },
            body: Some(Body::Event(event)),
        };
        let now = self.now().unix_micros;
        self.lanes.push(lane, &record, now);
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
            let effects = self.controller.handle(Event::Frame(Box::new(frame)), self.clock);
            self.carry_out(effects);
        }
    }

    /// By a connection that another one has taken the place of. What the controller says there nobody hears.
    fn old_one_hears(&mut self, frames: usize) {
        let Some(mut old) = self.old.take() else { return };
        for _ in 0..frames {
            let Some(frame) = old.up.pop_front() else { break };
            for effect in old.session.handle(Event::Frame(Box::new(frame)), self.clock) {
                if let Effect::Ingest(frame) = effect {
                    self.take_in(*frame, old.connection);
                }
            }
        }
        self.old = Some(old);
    }

    fn set_room(&mut self, level: Level) {
        self.room = level;
        if let Some(old) = &mut self.old {
            old.session.handle(Event::Room(level), self.clock);
        }
        let effects = self.controller.handle(Event::Room(level), self.clock);
        self.carry_out(effects);
    }

    /// The next job is one too many for the controller's disk.
    fn no_room(&mut self) {
        if let Some(job) = self.jobs.pop_front() {
            self.not_taken(job);
        }
    }

    fn not_taken(&mut self, job: Job) {
        self.lost.insert((job.connection, job.lane, job.resends));
        if job.connection == self.connection {
            let event = Event::NotTaken {
                lane: job.lane,
                bytes: job.bytes,
                resends: job.resends,
            };
            let effects = self.controller.handle(event, self.clock);
            self.carry_out(effects);
        }
    }

    fn take_in(&mut self, frame: Received, connection: usize) {
        let Received {
            lane,
            spool,
            first_seq,
            records,
            bytes,
            has_waited,
            resends,
            held,
        } = frame;
        // What is new goes before all that has waited.
        let place = self.jobs.iter().position(|job| job.has_waited && !has_waited);
        let job = Job {
            lane,
            has_waited,
            resends,
            spool,
            first_seq,
            records,
            bytes,
            _held: held,
            connection,
        };
        self.jobs.insert(place.unwrap_or(self.jobs.len()), job);
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
                        policies: Some(Arc::new(PolicySet::default())),
                        highest_generation,
                        trust_bundle: 0,
                    };
                    let effects = self.controller.handle(Event::Admitted(Box::new(admitted)), self.clock);
                    self.carry_out(effects);
                }
                Effect::Ingest(frame) => self.take_in(*frame, self.connection),
                // It has more than there is room for, and comes again with it.
                Effect::Close(Close::Overloaded) => return self.connect(),
                Effect::Close(why) => panic!("the controller ends the link: {why:?}"),
                _ => {}
            }
        }
    }

    /// As `ingest` does it: what lies behind the mark of its spool is stored, and the mark with it.
    fn commit(&mut self, jobs: usize) {
        for _ in 0..jobs {
            let Some(job) = self.jobs.pop_front() else { break };
            if !self.room.takes(job.lane) || self.lost.contains(&(job.connection, job.lane, job.resends)) {
                self.not_taken(job);
                continue;
            }
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
                    self.database.stored.push(number(record));
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
                self.clock,
            );
            self.carry_out(effects);
        }
    }

    fn pass(&mut self, millis: i64) {
        self.clock += 1_000 * millis;
        let effects = self.controller.handle(Event::Tick, self.clock);
        self.carry_out(effects);
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
                    let now = self.now().unix_micros;
                    self.lanes.renumber(&spool, now);
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
        self.controller = controller_session(self.room, &self.quotas, self.clock);
    }

    fn cut_unnoticed(&mut self) {
        let newer = controller_session(self.room, &self.quotas, self.clock);
        let session = std::mem::replace(&mut self.controller, newer);
        let up = std::mem::take(&mut self.up);
        self.old = Some(Old {
            session,
            up,
            connection: self.connection,
        });
        self.connect();
    }

    fn start_agent(&mut self) {
        let spool = self.next_spool(0);
        self.lanes = lanes_at(self.disk.path(), &spool);
        self.connect();
    }

    /// No more trouble: until nobody has anything to say.
    fn settle(&mut self) {
        self.disk_has_room();
        self.room = Level::Ample;
        self.old = None;
        self.connect();
        for _ in 0..10_000 {
            self.agent_sends(100);
            self.controller_hears(100);
            self.commit(100);
            self.agent_hears(100);
            self.pass(1_000);
            let is_quiet = self.up.is_empty() && self.down.is_empty() && self.jobs.is_empty();
            if is_quiet && LANES.iter().all(|lane| self.lanes.lane(*lane).is_empty()) {
                return;
            }
        }
        panic!("it does not come to rest");
    }
}

const WHAT: &str = "a disk of the agent that fills, in the model of the link";

#[test]
fn whatever_happens_to_both_ends_every_record_is_stored_once_or_was_lost_with_a_disk() {
    small_disk::alone_or_not(WHAT, |is_alone| {
        let place = tempfile::tempdir().expect("a directory");
        let small = is_alone.then(|| SmallDisk::at(place.path(), "size=256m"));
        let mut config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        // Unless PROPTEST_CASES says more.
        if config.cases == 256 {
            config.cases = 96;
        }
        let all = proptest::collection::vec(step(), 1..250);
        let outcome = TestRunner::new(config).run(&all, |steps| {
            let mut world = World::new(small.as_ref());
            for step in steps {
                world.take(step);
            }
            world.settle();
            // What the agent's queue has to tell of itself bears its time, which is later than any number.
            let stored: Vec<i64> = world
                .database
                .stored
                .iter()
                .copied()
                .filter(|number| *number <= world.made)
                .collect();
            let once: BTreeSet<i64> = stored.iter().copied().collect();
            prop_assert_eq!(once.len(), stored.len(), "nothing is stored twice");
            let missing: Vec<i64> = (1..=world.made)
                .filter(|number| !once.contains(number) && !world.excused.contains(number))
                .collect();
            prop_assert!(missing.is_empty(), "missing: {:?}", missing);
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    });
}
