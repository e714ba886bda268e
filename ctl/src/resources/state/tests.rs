//! How states look, from fixed data at a fixed time.

use jiff::Timestamp;

use super::*;
use crate::output::{Row as _, table};

fn now() -> Timestamp {
    "2026-11-20T23:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: now().as_second() - seconds,
        nanos: 0,
    })
}

fn state(agent: &str, check: &str, state: v1::CheckState, freshness: v1::Freshness) -> v1::State {
    v1::State {
        agent_id: "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21".to_owned(),
        agent_name: agent.to_owned(),
        check: check.to_owned(),
        state: match freshness {
            v1::Freshness::Fresh => state,
            _ => v1::CheckState::Unknown,
        }
        .into(),
        last_state: state.into(),
        r#type: v1::StateType::Hard.into(),
        freshness: freshness.into(),
        attempt: 1,
        attempts: 3,
        since: ago(14 * 60),
        last_run: ago(21),
        duration_micros: 12_345,
        ..Default::default()
    }
}

fn states() -> Vec<v1::State> {
    use v1::{CheckState::*, Freshness::*};
    vec![
        v1::State {
            attempt: 3,
            output: "DISK CRITICAL - free space: / 812 MB (4%)".to_owned(),
            perfdata: "/=18312MB;15299;17211;0;19124".to_owned(),
            ..state("db-01.fra", "disk-root", Critical, Fresh)
        },
        v1::State {
            r#type: v1::StateType::Soft.into(),
            output: "LOAD WARNING - 5.1".to_owned(),
            ..state("db-01.fra", "load", Warning, Fresh)
        },
        v1::State {
            since: ago(11 * 60),
            last_run: ago(12 * 60),
            output: "LOAD OK - 0.3".to_owned(),
            note: "no result for 12m, expected every 1m".to_owned(),
            ..state("web-07.fra", "load", Ok, Stale)
        },
        v1::State {
            since: ago(2 * 86_400),
            last_run: ago(2 * 86_400 + 30),
            output: "DISK OK".to_owned(),
            note: "agent offline since 2026-11-18T22:40:11Z".to_owned(),
            ..state("old-03.ams", "disk-root", Ok, Unreachable)
        },
        v1::State {
            output: "LOAD OK - 0.3".to_owned(),
            ..state("web-08.fra", "load", Ok, Fresh)
        },
        v1::State {
            last_run: None,
            since: ago(5),
            duration_micros: 0,
            ..state("new-01.fra", "load", Pending, Fresh)
        },
    ]
}

fn rows(states: &[v1::State]) -> Vec<Vec<table::Cell>> {
    states.iter().map(|state| state.cells(now())).collect()
}

#[test]
fn a_table_of_states() {
    insta::assert_snapshot!(table::render(COLUMNS, &rows(&states()), false, None, false));
}

#[test]
fn a_wide_table_of_states() {
    insta::assert_snapshot!(table::render(COLUMNS, &rows(&states()), true, None, false));
}

#[test]
fn a_coloured_table_of_states() {
    insta::assert_snapshot!(table::render(COLUMNS, &rows(&states()), false, Some(100), true).replace('\u{1b}', "^"));
}

#[test]
fn a_state_that_is_not_fresh_never_looks_like_plain_ok() {
    let mut ok = state("a", "b", v1::CheckState::Ok, v1::Freshness::Fresh);
    for freshness in [2, 3, 0, 99] {
        ok.freshness = freshness;
        let table = table::render(COLUMNS, &rows(&[ok.clone()]), false, None, false);
        assert!(table.contains("(was OK)"), "{table}");
    }
}

#[test]
fn the_footer_counts_problems_in_all_states() {
    let counts = |counts: v1::StateCounts| v1::ListStatesResponse {
        counts: Some(counts),
        ..Default::default()
    };
    let all = v1::StateCounts {
        ok: 41_817,
        critical: 1,
        stale: 1,
        unreachable: 1,
        ..Default::default()
    };
    assert_eq!(
        footer(&counts(all)),
        "3 problems in 41,820 states: 1 critical, 1 stale, 1 unreachable"
    );
    let calm = v1::StateCounts {
        ok: 1,
        ..Default::default()
    };
    assert_eq!(footer(&counts(calm)), "no problems in 1 state");
    let new = v1::StateCounts {
        ok: 1,
        pending: 2,
        warning: 1,
        ..Default::default()
    };
    assert_eq!(footer(&counts(new)), "1 problem in 4 states: 1 warning; 2 pending");
    assert_eq!(footer(&counts(v1::StateCounts::default())), "no states match");
    let part = v1::ListStatesResponse {
        items: states(),
        total_size: 1_000,
        ..counts(calm)
    };
    assert_eq!(footer(&part), "no problems in 1 state; the first 6 are shown");
}

#[test]
fn the_name_of_a_state_is_agent_and_check() {
    assert_eq!(states()[0].name(), "db-01.fra/disk-root");
}
