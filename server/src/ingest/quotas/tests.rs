use muster_proto::{ids::AgentId, v1::Lane};
use proptest::prelude::*;

use super::{IDLE, LANES, LEAST, Limits, MIN_PACES, MOST, PROMPT, Quotas, Share};
use crate::clock::{MINUTE, SECOND};

const MIB: u64 = 1 << 20;

fn quotas(bytes: u64) -> Quotas {
    Quotas::new(Limits {
        bytes,
        ..Limits::default()
    })
}

fn share(quotas: &Quotas, fleet: usize) -> Share {
    quotas.share(AgentId::random(), fleet, 0)
}

/// The window of a lane that has used all of it, so often in a row.
fn busy(share: &mut Share, lane: Lane, times: usize) -> u64 {
    let first = share.window(lane, 0, 0, 0);
    (0..times).fold(first, |window, _| share.window(lane, window, window, 0))
}

#[test]
fn a_lane_that_is_used_gets_more_and_one_that_is_idle_gives_it_back() {
    let quotas = quotas(256 * MIB);
    let mut share = share(&quotas, 10);
    let mut window = share.window(Lane::Metrics, 0, 0, 0);
    assert_eq!(window, IDLE / 8, "it has just come");
    for expected in [IDLE, 2 * IDLE, 4 * IDLE, 8 * IDLE, MOST, MOST] {
        window = share.window(Lane::Metrics, window, window, 0);
        assert_eq!(window, expected);
    }
    for _ in 0..10 {
        window = share.window(Lane::Metrics, window, 100, 0);
    }
    assert_eq!(window, IDLE);
}

#[test]
fn a_large_fleet_divides_the_budget_and_whoever_comes_last_has_as_much() {
    let quotas = quotas(256 * MIB);
    let mut shares: Vec<Share> = (0..10_000).map(|_| share(&quotas, 10_000)).collect();
    let mut all = 0;
    let windows: Vec<u64> = shares
        .iter_mut()
        .map(|share| {
            let window = share.window(Lane::Results, 0, 0, 0);
            all += window + share.window(Lane::Metrics, 0, 0, 0) + share.window(Lane::Logs, 0, 0, 0);
            window
        })
        .collect();
    assert_eq!(windows.first(), windows.last());
    assert!(all <= 128 * MIB, "{all}");
    assert!(
        busy(&mut shares[0], Lane::Metrics, 10) > MOST / 2,
        "the other half is for those that need it"
    );
}

#[test]
fn a_lane_whose_store_is_slow_has_little_on_its_way_and_more_again_when_it_is_fast() {
    let quotas = quotas(256 * MIB);
    let mut share = share(&quotas, 100);
    assert_eq!(busy(&mut share, Lane::Results, 10), MOST);
    quotas.committed(Lane::Results, 4 * PROMPT);
    assert_eq!(busy(&mut share, Lane::Results, 1), IDLE / 4);
    assert_eq!(busy(&mut share, Lane::Metrics, 10), MOST, "that is another store");
    quotas.committed(Lane::Results, 1_000 * PROMPT);
    assert_eq!(busy(&mut share, Lane::Results, 1), LEAST, "it never stands still");
    quotas.committed(Lane::Results, PROMPT / 10);
    assert_eq!(busy(&mut share, Lane::Results, 10), MOST);
    // The clock was set back meanwhile.
    quotas.committed(Lane::Results, -MINUTE);
    assert_eq!(busy(&mut share, Lane::Results, 10), MOST);
}

#[test]
fn logs_are_shed_before_metrics_and_metrics_before_results() {
    let quotas = quotas(16 * MIB);
    let other = share(&quotas, 1);
    let mut share = share(&quotas, 1);
    let mut held = Vec::new();
    let mut windows = Vec::new();
    while let Some(room) = other.hold(MIB, 1) {
        held.push(room);
        windows.push(LANES.map(|lane| busy(&mut share, lane, 10)));
    }
    assert!(
        windows.iter().all(|windows| windows.is_sorted_by(|a, b| a >= b)),
        "{windows:?}"
    );
    let least = [LEAST, LEAST, LEAST / 2];
    for expected in [[MOST, MOST, IDLE], [MOST, IDLE, least[2]], [MOST, least[1], least[2]]] {
        assert!(windows.contains(&expected), "{windows:?}");
    }
    assert_eq!(windows.last(), Some(&least));
    drop(held);
    assert_eq!(quotas.held(), 0);
    assert_eq!(busy(&mut share, Lane::Metrics, 10), MOST, "they grow again");
}

#[test]
fn who_keeps_its_limits_is_acknowledged_at_once_and_who_does_not_when_it_is_paid_for() {
    let quotas = Quotas::new(Limits {
        agent_records_per_second: 100,
        ..Limits::default()
    });
    let mut share = share(&quotas, 1);
    let mut now = MINUTE;
    for _ in 0..100 {
        now += SECOND / 2;
        assert!(share.spend(Lane::Results, 1_000, 50, now).expect("taken") <= now);
    }
    // The burst that is left, and then one second for each hundred.
    let due: Vec<i64> = (0..12)
        .map(|_| share.spend(Lane::Results, 1_000, 200, now).expect("taken") - now)
        .collect();
    assert!(due[0] <= 0, "{due:?}");
    assert_eq!(due[11] - due[10], 2 * SECOND);
    assert!(
        share.spend(Lane::Metrics, 1_000, 200, now).expect("taken") <= now,
        "the other lane has its own"
    );
}

#[test]
fn an_agent_beyond_its_limits_does_not_get_away_by_connecting_anew() {
    let quotas = Quotas::new(Limits {
        agent_bytes_per_second: 1_000,
        ..Limits::default()
    });
    let agent = AgentId::random();
    let mut first = quotas.share(agent, 1, 0);
    assert_eq!(first.window(Lane::Metrics, 0, 0, 0), IDLE / 8);
    let due = first.spend(Lane::Metrics, 40_000, 1, 0).expect("taken");
    assert!(due > 20 * SECOND, "{due}");
    assert!(first.throttled(Lane::Metrics, 0));
    assert!(!first.throttled(Lane::Metrics, SECOND), "one episode");
    drop(first);
    let mut second = quotas.share(agent, 1, SECOND);
    assert_eq!(second.window(Lane::Metrics, 0, 0, SECOND), LEAST);
    assert!(second.spend(Lane::Metrics, 1, 1, SECOND).expect("taken") >= due);
    assert!(!second.throttled(Lane::Metrics, 2 * SECOND), "the same episode");
}

/// It never waits for an acknowledgement, so that nobody has told it to be slow.
#[test]
fn links_that_end_before_they_are_acknowledged_take_no_more_than_one_that_stays() {
    let limits = Limits {
        agent_records_per_second: 100,
        ..Limits::default()
    };
    let quotas = Quotas::new(limits);
    let agent = AgentId::random();
    let mut taken = 0;
    let end = 100 * SECOND;
    for now in (0..end).step_by(50_000) {
        let mut link = quotas.share(agent, 1, now);
        if link.spend(Lane::Results, 1_000, 1_000, now).is_some() {
            taken += 1_000;
        }
    }
    // The burst before, and what it may owe afterwards.
    assert!((15_000..=18_000).contains(&taken), "{taken}");
    for (agent, now) in [(AgentId::random(), end), (agent, end + 70 * SECOND)] {
        let due = quotas.share(agent, 2, now).spend(Lane::Results, 1, 1, now);
        assert!(due.expect("taken") < now, "{due:?}");
    }
}

#[test]
fn paces_of_agents_that_say_nothing_any_longer_are_forgotten() {
    let quotas = Quotas::new(Limits::default());
    for now in (0..).step_by(SECOND as usize).take(4 * MIN_PACES) {
        quotas.share(AgentId::random(), 1, now).spend(Lane::Logs, 1, 1, now);
    }
    assert!(quotas.0.paces.lock().unwrap().of.len() <= MIN_PACES);
}

#[derive(Clone, Debug)]
enum Step {
    Connect,
    Leave(usize),
    /// A lane of a link gets its next window, having used this part of the last.
    Window(usize, usize, f64),
    Hold(usize, u64, usize),
    Commit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Connect),
        1 => (0usize..64).prop_map(Step::Leave),
        8 => (0usize..64, 0usize..3, 0.0..1.0).prop_map(|(n, lane, used)| Step::Window(n, lane, used)),
        4 => (0usize..64, 0u64..2_000_000, 0usize..2_000).prop_map(|(n, bytes, records)| Step::Hold(n, bytes, records)),
        3 => (0usize..64).prop_map(Step::Commit),
    ]
}

proptest! {
    /// Whatever agents do: no more is held than the budget, and no more granted as long as it has 20 KiB for each agent.
    #[test]
    fn the_budget_holds(steps in proptest::collection::vec(step(), 1..400), fleet in 64usize..800) {
        let total = 16 * MIB;
        let quotas = quotas(total);
        let (mut links, mut held): (Vec<(Share, [u64; 3])>, Vec<_>) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Connect if links.len() < 64 => {
                    let mut share = share(&quotas, fleet);
                    let windows = LANES.map(|lane| share.window(lane, 0, 0, 0));
                    links.push((share, windows));
                }
                Step::Leave(n) if n < links.len() => drop(links.swap_remove(n)),
                Step::Window(n, lane, used) if n < links.len() => {
                    let (share, windows) = &mut links[n];
                    let window = &mut windows[lane];
                    *window = share.window(LANES[lane], *window, (*window as f64 * used) as u64, 0);
                    prop_assert!((LEAST / 2..=MOST).contains(window));
                }
                Step::Hold(n, bytes, records) if n < links.len() => held.extend(links[n].0.hold(bytes, records)),
                Step::Commit(n) if n < held.len() => drop(held.swap_remove(n)),
                _ => {}
            }
            let granted: u64 = links.iter().map(|(_, windows)| windows.iter().sum::<u64>()).sum();
            prop_assert!(granted <= total, "{granted}");
            prop_assert!(quotas.held() <= total);
        }
        drop((links, held));
        prop_assert_eq!((quotas.held(), quotas.0.lent.load(std::sync::atomic::Ordering::Relaxed)), (0, 0));
    }
}
