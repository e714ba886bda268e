//! Tables over a clock that stands until it is moved.

use muster_proto::v1;

use super::*;

const START: i64 = 1_763_679_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn check(name: &str, version: i64) -> ActiveCheck {
    let proto = |seconds| Some(muster_proto::duration::to_proto(Duration::from_secs(seconds)));
    let schedule = v1::Schedule {
        interval: proto(60),
        retry_interval: proto(15),
        attempts: 3,
    };
    ActiveCheck {
        name: name.to_owned(),
        version,
        check: v1::Check {
            schedule: Some(schedule),
            timeout: proto(20),
            ..v1::Check::default()
        },
    }
}

fn checks(checks: impl IntoIterator<Item = ActiveCheck>) -> Event {
    Event::Checks(Arc::new(
        checks
            .into_iter()
            .map(|check| (check.name.clone(), Arc::new(check)))
            .collect(),
    ))
}

struct Bench {
    schedule: Schedule,
    now: Now,
    start: Instant,
}

impl Bench {
    fn new(max_concurrent: usize) -> Bench {
        let start = Instant::now();
        Bench {
            schedule: Schedule::new("agent", max_concurrent),
            now: Now {
                instant: start,
                unix_micros: START,
            },
            start,
        }
    }

    fn handle(&mut self, event: Event) -> Vec<Effect> {
        self.schedule.handle(event, self.now)
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Goes to the next deadline; gives how long after the bench's start that is, and the runs that start then.
    fn next(&mut self) -> (Duration, Vec<RunId>) {
        let deadline = self.schedule.deadline().expect("nothing is planned");
        self.pass(deadline.saturating_duration_since(self.now.instant));
        let starts = starts(&self.handle(Event::Tick));
        (self.now.instant - self.start, starts)
    }

    /// The same where one run is expected.
    fn next_one(&mut self) -> (Duration, RunId) {
        let (at, starts) = self.next();
        assert_eq!(starts.len(), 1, "{starts:?}");
        (at, starts[0])
    }

    fn finish(&mut self, run: RunId, state: CheckState) -> Vec<Effect> {
        self.handle(Event::Finished(run, state))
    }
}

fn starts(effects: &[Effect]) -> Vec<RunId> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Start(run, _) => *run,
            Effect::Kill(run) => panic!("{run:?} is killed"),
        })
        .collect()
}

#[test]
fn new_checks_run_within_ten_seconds_and_not_all_at_once() {
    let mut bench = Bench::new(100);
    bench.handle(checks((0..50).map(|n| check(&format!("check-{n}"), 1))));
    let mut times = std::collections::BTreeSet::new();
    while let Some(deadline) = bench.schedule.deadline() {
        assert!(deadline < bench.start + Duration::from_secs(10));
        times.insert(bench.next().0);
    }
    assert!(times.len() > 40, "{times:?}");
}

#[test]
fn a_check_then_runs_at_its_own_phase_which_a_restart_does_not_change() {
    let mut phases = Vec::new();
    for later in [0, 7, 23] {
        let mut bench = Bench::new(1);
        bench.pass(Duration::from_secs(later));
        bench.handle(checks([check("load", 1)]));
        let (first, run) = bench.next_one();
        bench.finish(run, CheckState::Ok);
        let (second, run) = bench.next_one();
        assert!(
            second - first >= MINUTE / 2 && second - first < MINUTE * 3 / 2,
            "{first:?} {second:?}"
        );
        bench.pass(SECOND);
        bench.finish(run, CheckState::Ok);
        let (third, _) = bench.next_one();
        assert_eq!(third - second, MINUTE);
        phases.push(third.as_nanos() % MINUTE.as_nanos());
    }
    assert!(phases.iter().all(|phase| *phase == phases[0]), "{phases:?}");
}

#[test]
fn a_soft_problem_is_looked_at_again_after_the_retry_interval_and_a_hard_one_at_the_phase() {
    let mut bench = Bench::new(1);
    bench.handle(checks([check("load", 1)]));
    let mut starts = Vec::new();
    let states = [
        CheckState::Critical,
        CheckState::Warning,
        CheckState::Critical,
        CheckState::Critical,
        CheckState::Ok,
        CheckState::Unknown,
        CheckState::Ok,
    ];
    for state in states {
        let (at, run) = bench.next_one();
        starts.push(at);
        bench.pass(SECOND);
        bench.finish(run, state);
    }
    let gaps: Vec<Duration> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let retry = Duration::from_secs(15);
    // Soft 1/3 and 2/3, then hard.
    assert_eq!(gaps[..2], [retry, retry]);
    assert!(gaps[2] >= MINUTE / 2);
    assert_eq!(gaps[3], MINUTE);
    assert_eq!(gaps[4], MINUTE);
    assert_eq!(gaps[5], retry);
}

#[test]
fn a_time_that_comes_during_a_run_is_skipped_and_not_made_up_for() {
    let mut bench = Bench::new(1);
    bench.handle(checks([check("slow", 1)]));
    let (_, run) = bench.next_one();
    bench.finish(run, CheckState::Ok);
    let (second, run) = bench.next_one();
    assert_eq!(bench.schedule.deadline(), None, "it runs, so nothing is due");
    bench.pass(MINUTE * 2 + MINUTE / 2);
    assert_eq!(bench.handle(Event::Tick), []);
    assert_eq!(bench.finish(run, CheckState::Ok), [], "nothing is made up for");
    let (third, _) = bench.next_one();
    assert_eq!(third - second, MINUTE * 3);
}

#[test]
fn a_slow_run_of_a_soft_problem_is_followed_at_once_but_only_once() {
    let mut bench = Bench::new(1);
    bench.handle(checks([check("slow", 1)]));
    let (_, run) = bench.next_one();
    bench.pass(MINUTE);
    assert_eq!(starts(&bench.finish(run, CheckState::Critical)).len(), 1);
    assert_eq!(bench.handle(Event::Tick), []);
}

#[test]
fn no_more_than_the_limit_run_at_once_and_the_longest_due_is_first() {
    let mut bench = Bench::new(2);
    let names = ["a", "b", "c", "d", "e"];
    bench.handle(checks(names.map(|name| check(name, 1))));
    let mut due: Vec<(Instant, &str)> = names
        .iter()
        .map(|name| (first_run("agent", &check(name, 1), bench.now), *name))
        .collect();
    due.sort_unstable();
    bench.pass(Duration::from_secs(10));
    let mut effects = bench.handle(Event::Tick);
    let mut order = Vec::new();
    while !effects.is_empty() {
        assert!(bench.schedule.running() <= 2);
        let mut last = None;
        for effect in &effects {
            let Effect::Start(run, check) = effect else {
                panic!("{effect:?}")
            };
            order.push(check.name.clone());
            last = Some(*run);
        }
        effects = bench.finish(last.unwrap(), CheckState::Ok);
    }
    assert_eq!(order, due.iter().map(|(_, name)| *name).collect::<Vec<_>>());
    assert_eq!(bench.schedule.running(), 1);
}

#[test]
fn a_change_of_the_set_keeps_the_plan_and_the_runs_of_what_did_not_change() {
    let mut bench = Bench::new(10);
    bench.handle(checks([check("stays", 1), check("changes", 1), check("goes", 1)]));
    let mut running = BTreeMap::new();
    while running.len() < 3 {
        let deadline = bench.schedule.deadline().unwrap();
        bench.pass(deadline.saturating_duration_since(bench.now.instant));
        for effect in bench.handle(Event::Tick) {
            let Effect::Start(run, check) = effect else {
                panic!("{effect:?}")
            };
            running.insert(check.name.clone(), run);
        }
    }
    let effects = bench.handle(checks([check("stays", 1), check("changes", 2), check("new", 1)]));
    assert_eq!(
        effects,
        [Effect::Kill(running["goes"]), Effect::Kill(running["changes"])]
    );
    assert_eq!(
        bench.finish(running["goes"], CheckState::Ok),
        [],
        "its result is nobody's"
    );
    bench.finish(running["stays"], CheckState::Ok);
    let planned = bench.schedule.checks["stays"].due();
    bench.handle(checks([
        check("stays", 1),
        check("changes", 2),
        check("new", 1),
        check("more", 1),
    ]));
    assert_eq!(bench.schedule.checks["stays"].due(), planned);
    let mut versions = BTreeMap::new();
    while versions.len() < 3 {
        let deadline = bench.schedule.deadline().unwrap();
        assert!(deadline < bench.now.instant + Duration::from_secs(10));
        bench.pass(deadline.saturating_duration_since(bench.now.instant));
        for effect in bench.handle(Event::Tick) {
            let Effect::Start(_, check) = effect else {
                panic!("{effect:?}")
            };
            versions.insert(check.name.clone(), check.version);
        }
    }
    let expected = [("changes", 2), ("more", 1), ("new", 1)].map(|(name, version)| (name.to_owned(), version));
    assert_eq!(versions, BTreeMap::from(expected));
}

#[test]
fn a_step_of_the_wall_clock_neither_stops_checks_nor_makes_them_run_at_once() {
    for step in [-3_600_000_000, 3_600_000_000, -START * 2] {
        let mut bench = Bench::new(1);
        bench.handle(checks([check("load", 1)]));
        let (_, run) = bench.next_one();
        bench.finish(run, CheckState::Ok);
        bench.now.unix_micros += step;
        let mut last = bench.now.instant;
        for _ in 0..3 {
            let (_, run) = bench.next_one();
            let gap = bench.now.instant - last;
            assert!(
                gap >= MINUTE / 2 && gap < MINUTE * 3 / 2,
                "{gap:?} after a step of {step}"
            );
            last = bench.now.instant;
            bench.finish(run, CheckState::Ok);
        }
    }
}

#[test]
fn a_check_that_is_put_back_starts_anew() {
    let mut bench = Bench::new(1);
    bench.handle(checks([check("load", 1)]));
    let (_, run) = bench.next_one();
    bench.finish(run, CheckState::Critical);
    assert_eq!(bench.handle(checks([])), []);
    assert_eq!(bench.schedule.deadline(), None);
    bench.handle(checks([check("load", 1)]));
    assert!(bench.schedule.deadline().unwrap() < bench.now.instant + Duration::from_secs(10));
    assert_eq!(bench.schedule.checks["load"].standing, None);
}
