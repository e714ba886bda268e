//! How agents look, from fixed data at a fixed time.

use jiff::Timestamp;

use super::label::{LabelChange, parse_label_change};
use super::*;
use crate::output::{Row as _, page::Page, table};

fn now() -> Timestamp {
    "2026-11-20T23:00:00Z".parse().unwrap()
}

/// So many seconds before now.
fn ago(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: now().as_second() - seconds,
        nanos: 0,
    })
}

fn label(key: &str, value: &str, source: v1::LabelSource) -> v1::Label {
    v1::Label {
        key: key.to_owned(),
        value: value.to_owned(),
        source: source.into(),
    }
}

const DAY: i64 = 86_400;

fn online() -> v1::Agent {
    let report = |name: &str, outcome: v1::PolicyOutcome, reason: &str| v1::PolicyReport {
        kind: "Check".to_owned(),
        name: name.to_owned(),
        version: 1_795_130_000_000_000,
        outcome: outcome.into(),
        reason: reason.to_owned(),
    };
    v1::Agent {
        id: "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21".to_owned(),
        name: "db-01.fra".to_owned(),
        status: v1::AgentStatus::Online.into(),
        status_since: ago(41 * DAY),
        last_seen: ago(4),
        version: "0.1.0".to_owned(),
        policies: Some(v1::AgentPolicies {
            assigned: 3,
            applied: 2,
            reports: vec![
                report("disk-root", v1::PolicyOutcome::Applied, ""),
                report("load", v1::PolicyOutcome::Applied, ""),
                report("web", v1::PolicyOutcome::NotSupported, "needs run.http"),
            ],
        }),
        problems: Some(v1::AgentProblems {
            critical: 1,
            ..Default::default()
        }),
        labels: vec![
            label("role", "db", v1::LabelSource::Operator),
            label("zone", "eu", v1::LabelSource::Token),
            label("rack", "7", v1::LabelSource::Agent),
        ],
        facts: [("kernel.release", "6.1.0-28-amd64"), ("os.id", "debian")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        warnings: vec!["agent.yaml:7: unknown key `timout`; did you mean `timeout`?".to_owned()],
        enroll_time: ago(41 * DAY),
        certificate: Some(v1::AgentCertificate {
            serial: "1a2b3c".to_owned(),
            expire_time: ago(-17 * 3_600),
            ..Default::default()
        }),
        connection: Some(v1::AgentConnection {
            session_id: "s-81f3".to_owned(),
            connect_time: ago(2 * DAY),
            remote_address: "10.1.2.3:40112".to_owned(),
            round_trip_micros: Some(830),
            clock_skew_micros: Some(-3_200),
            controller: "controller1".to_owned(),
            stalled_since: ago(9 * 60),
            leaving: true,
            lanes: vec![
                v1::LaneDepth {
                    lane: v1::Lane::Results.into(),
                    ..Default::default()
                },
                v1::LaneDepth {
                    lane: v1::Lane::Metrics.into(),
                    records: 1_204,
                    bytes: 4_200_000,
                    dropped: 12,
                    oldest_age_micros: 3_100_000,
                    acknowledged: 88_123,
                },
                v1::LaneDepth {
                    lane: v1::Lane::Logs.into(),
                    acknowledged: 7,
                    ..Default::default()
                },
            ],
        }),
        revision: 12,
        ..Default::default()
    }
}

fn offline() -> v1::Agent {
    v1::Agent {
        id: "0b9d0a6e-55c1-4a52-8f7e-0a51d0b7b0aa".to_owned(),
        name: "old-03.ams".to_owned(),
        status: v1::AgentStatus::Offline.into(),
        status_reason: "timeout".to_owned(),
        status_since: ago(2 * DAY),
        last_seen: ago(2 * DAY + 120),
        version: "0.1.0".to_owned(),
        policies: Some(v1::AgentPolicies {
            assigned: 14,
            applied: 9,
            ..Default::default()
        }),
        problems: Some(v1::AgentProblems {
            unreachable: 9,
            ..Default::default()
        }),
        labels: vec![
            label("role", "app", v1::LabelSource::Token),
            label("zone", "eu", v1::LabelSource::Token),
        ],
        ..Default::default()
    }
}

fn fleet() -> Vec<v1::Agent> {
    let unconfirmed = v1::Agent {
        name: "web-07.fra".to_owned(),
        status_unconfirmed: true,
        problems: Some(v1::AgentProblems {
            critical: 2,
            warning: 1,
            ..Default::default()
        }),
        ..online()
    };
    let pending = v1::Agent {
        name: "new-01.fra".to_owned(),
        status: v1::AgentStatus::Pending.into(),
        enroll_time: ago(90),
        ..Default::default()
    };
    let calm = v1::Agent {
        name: "calm-02.fra".to_owned(),
        problems: Some(v1::AgentProblems::default()),
        ..online()
    };
    vec![online(), offline(), unconfirmed, pending, calm]
}

fn table(wide: bool, width: Option<usize>) -> String {
    let rows: Vec<_> = fleet().iter().map(|agent| agent.cells(now())).collect();
    table::render(row::COLUMNS, &rows, wide, width, false)
}

#[test]
fn a_table_of_agents() {
    insta::assert_snapshot!(table(false, None));
}

#[test]
fn a_wide_table_of_agents() {
    insta::assert_snapshot!(table(true, None));
}

#[test]
fn a_table_of_agents_on_a_narrow_terminal_cuts_their_labels() {
    let table = table(false, Some(90));
    assert!(
        table.lines().all(|line| crate::output::text::width(line) <= 90),
        "{table}"
    );
    insta::assert_snapshot!(table);
}

#[test]
fn the_page_of_an_agent() {
    let problem = v1::State {
        agent_name: "db-01.fra".to_owned(),
        check: "disk-root".to_owned(),
        state: v1::CheckState::Critical.into(),
        last_state: v1::CheckState::Critical.into(),
        r#type: v1::StateType::Hard.into(),
        freshness: v1::Freshness::Fresh.into(),
        attempt: 3,
        attempts: 3,
        since: ago(14 * 60),
        last_run: ago(21),
        output: "DISK CRITICAL - free space: / 812 MB (4%)".to_owned(),
        ..Default::default()
    };
    let mut page = Page::default();
    describe::describe(&mut page, &online(), &[problem], now());
    insta::assert_snapshot!(page.render(None, false));
}

#[test]
fn the_page_of_an_agent_that_is_away() {
    let mut page = Page::default();
    describe::describe(
        &mut page,
        &v1::Agent {
            status_unconfirmed: true,
            ..offline()
        },
        &[],
        now(),
    );
    insta::assert_snapshot!(page.render(None, false));
}

#[test]
fn the_footer_counts_those_that_match() {
    let list = |items: Vec<v1::Agent>, total_size, fleet_size| v1::ListAgentsResponse {
        items,
        total_size,
        fleet_size,
        ..Default::default()
    };
    let two = list(vec![online(), offline()], 2, 3_004);
    assert_eq!(footer(&two, true), "2 of 3,004 agents match: 1 online, 1 offline.");
    assert_eq!(
        footer(&list(vec![online()], 1, 3_004), true),
        "1 of 3,004 agents matches: 1 online."
    );
    assert_eq!(footer(&list(vec![], 0, 3_004), true), "0 of 3,004 agents match.");
    assert_eq!(footer(&list(vec![], 0, 0), false), "0 agents.");
    assert_eq!(
        footer(&list(fleet(), 5, 5), false),
        "5 agents: 3 online, 1 offline, 1 pending."
    );
    assert_eq!(
        footer(&list(vec![online()], 2_000, 3_004), true),
        "2,000 of 3,004 agents match; the first 1 are shown."
    );
}

#[test]
fn agents_that_warn_are_named_below_the_list() {
    assert_eq!(warnings(&[offline()]), Vec::<String>::new());
    assert_eq!(
        warnings(&[offline(), online()]),
        ["db-01.fra warns: agent.yaml:7: unknown key `timout`; did you mean `timeout`?"]
    );
    let many = warnings(&vec![online(); 8]);
    assert_eq!(
        (many.len(), many[5].as_str()),
        (6, "3 more agents warn; `musterctl agent list -o wide` shows them all")
    );
}

#[test]
fn a_label_is_set_by_a_pair_and_removed_by_a_minus() {
    assert_eq!(
        parse_label_change("role=db-"),
        Ok(LabelChange::Set("role".to_owned(), "db-".to_owned()))
    );
    assert_eq!(parse_label_change("role-"), Ok(LabelChange::Remove("role".to_owned())));
    for text in ["role", "-", "=x", "ro le-", "fact.os.id=x", "role=\u{1b}"] {
        assert!(parse_label_change(text).is_err(), "{text:?}");
    }
}

#[test]
fn the_name_an_agent_gives_itself_cannot_forge_a_table() {
    let agent = v1::Agent {
        name: "x\nweb-01  online\u{1b}[2K".to_owned(),
        ..online()
    };
    let table = table::render(row::COLUMNS, &[agent.cells(now())], false, None, false);
    assert_eq!(table.lines().count(), 2);
    assert!(!table.contains('\u{1b}'));
}
