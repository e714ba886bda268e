//! The tables of all resources, as people read them: as they are, with every column, and as names.

use std::{collections::BTreeSet, fs, path::Path};

use jiff::Timestamp;
use muster_proto::{json, v1};

use crate::output::{Row, table};

/// What has its tables beside itself; of each, a file of a snapshot.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "Agent",
        "src/resources/agent/snapshots/musterctl__resources__agent__tests__a_wide_table_of_agents.snap",
    ),
    (
        "ApiKey",
        "src/resources/api_key/snapshots/musterctl__resources__api_key__row__tests__a_table_of_keys_shows_networks_when_one_has_any.snap",
    ),
    (
        "AuditEntry",
        "src/resources/audit/snapshots/musterctl__resources__audit__row__tests__a_table_of_entries.snap",
    ),
    (
        "Finding",
        "src/verbs/snapshots/musterctl__verbs__doctor__tests__a_table_of_findings.snap",
    ),
    (
        "Grant",
        "src/resources/grant/snapshots/musterctl__resources__grant__row__tests__a_table_of_grants.snap",
    ),
    (
        "Granted",
        "src/resources/user/snapshots/musterctl__resources__user__row__tests__a_table_of_operators_has_their_roles_when_they_may_be_seen.snap",
    ),
    (
        "Permission",
        "src/resources/role/snapshots/musterctl__resources__role__tests__permissions_say_whether_a_scope_gives_them_and_what_they_open.snap",
    ),
    (
        "Role",
        "src/resources/role/snapshots/musterctl__resources__role__tests__a_wide_table_of_roles.snap",
    ),
    (
        "State",
        "src/resources/state/snapshots/musterctl__resources__state__tests__a_wide_table_of_states.snap",
    ),
    (
        "TokenTemplate",
        "src/resources/snapshots/musterctl__resources__token_template__tests__a_template_shows_what_its_tokens_are.snap",
    ),
    (
        "Summary",
        "src/resources/snapshots/musterctl__resources__contexts__tests__a_table_of_contexts.snap",
    ),
];

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn shown<R: Row>(items: &[R]) -> String {
    let cells: Vec<_> = items.iter().map(|item| item.cells(now())).collect();
    let names: Vec<String> = items.iter().map(Row::name).collect();
    [
        table::render(R::COLUMNS, &cells, false, None, false),
        table::render(R::COLUMNS, &cells, true, None, false),
        names.join("\n"),
    ]
    .join("\n")
}

/// Makes messages of JSON, and a snapshot of each kind.
macro_rules! tables {
    ($($kind:ident: $($json:expr),+;)+) => {
        const HERE: &[&str] = &[$(stringify!($kind)),+];

        #[test]
        fn the_tables_of_every_resource() {
            $(
                let items: Vec<v1::$kind> = [$($json),+].iter().map(|text| json::from_json(text).expect(text)).collect();
                insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
                    insta::assert_snapshot!(concat!("table_", stringify!($kind)), shown(&items));
                });
            )+
        }
    };
}

tables! {
    Ca:
        r#"{"id": "5c1e9d0a7b34", "phase": "CA_PHASE_ACTIVE", "pin": "sha256:41a7", "createTime": "2026-01-01T00:00:00Z",
            "expireTime": "2027-11-20T12:00:00Z", "rootExpireTime": "2036-11-20T12:00:00Z", "agents": 40, "agentsInGrace": 1, "tokens": 2}"#,
        r#"{"id": "0a7b345c1e9d", "phase": "CA_PHASE_RETIRED", "isCompromised": true, "expireTime": "2026-11-19T12:00:00Z"}"#;
    Certificate:
        r#"{"serial": "3f9c2a7d10e4b856", "identity": "spiffe://example.muster/agent/7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21", "name": "web-01",
            "status": "CERTIFICATE_STATUS_ACTIVE", "issueTime": "2026-11-20T06:00:00Z", "expireTime": "2026-11-21T06:00:00Z", "ca": "5c1e9d0a7b34"}"#,
        r#"{"serial": "b8563f9c2a7d10e4", "name": "mira", "status": "CERTIFICATE_STATUS_REVOKED", "issueTime": "2026-11-01T00:00:00Z",
            "expireTime": "2026-11-19T12:00:00Z", "revokeTime": "2026-11-18T12:00:00Z", "revokeReason": "lost"}"#;
    Controller:
        r#"{"name": "controller1", "version": "0.1.0", "status": "CONTROLLER_STATUS_ACTIVE", "activeSince": "2026-11-20T11:00:00Z",
            "startTime": "2026-11-20T10:00:00Z", "links": 3004, "linksLeaving": 12, "database": "DATABASE_KIND_POSTGRES",
            "endpoints": ["a.example.com:8443"], "lease": "database", "epoch": "1"}"#;
    Event:
        r#"{"time": "2026-11-20T11:59:00Z", "receiveTime": "2026-11-20T11:59:01Z", "agentId": "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21",
            "agentName": "web-01", "reason": "AGENT_RENEWED_IN_GRACE", "severity": "EVENT_SEVERITY_WARNING", "message": "renewed late"}"#,
        r#"{"time": "2026-11-20T09:00:00Z", "receiveTime": "2026-11-20T11:00:00Z", "reason": "X", "severity": "EVENT_SEVERITY_ERROR",
            "arrival": "ARRIVAL_LATE"}"#;
    AgentHistory:
        r#"{"agentId": "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21", "agentName": "web-01",
            "results": {"records": "1234", "bytes": "567890", "firstTime": "2026-11-01T00:00:00Z", "lastTime": "2026-11-20T11:59:00Z"},
            "events": {"records": "3", "bytes": "900"}, "metrics": {"records": "5000", "bytes": "10000000"}, "metricSamples": "2000000",
            "metricMoments": "5000", "logs": {"records": "7", "bytes": "4096"}}"#,
        r#"{"agentName": "idle"}"#;
    StoredLog:
        r#"{"agentId": "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21", "agentName": "web-01", "time": "2026-11-20T11:59:00Z",
            "receiveTime": "2026-11-20T11:59:01Z", "severity": "LOG_SEVERITY_ERROR", "source": "agent", "unit": "muster_agent::link",
            "message": "the connection broke", "fields": {"endpoint": "a:1"}, "arrival": "ARRIVAL_ON_TIME"}"#,
        r#"{"agentName": "web-02", "severity": "LOG_SEVERITY_DEBUG", "time": "2026-11-20T11:59:59Z", "message": "x"}"#;
    ManifestVersion:
        r#"{"revision": "1795216811000000", "time": "2026-11-20T11:00:00Z", "caller": "user/mira", "action": "PLANNED_ACTION_UPDATE",
            "manifest": {"kind": "Check", "metadata": {"name": "disk", "version": "7"}, "check": {"selector": "*"}}}"#,
        r#"{"revision": "3", "action": "PLANNED_ACTION_DELETE"}"#;
    MetricValue:
        r#"{"name": "node_load1", "labels": {"instance": "web-01", "job": "node", "agent_id": "7d0c51c2", "cpu": "0"}, "value": 0.25,
            "time": "2026-11-20T11:59:50Z", "type": "METRIC_TYPE_GAUGE"}"#;
    Policy:
        r#"{"kind": "Check", "metadata": {"name": "disk-root", "version": "7", "owner": "team-base", "labels": {"team": "base"},
            "updateTime": "2026-11-20T11:00:00Z", "scope": "env=prod"}, "check": {"selector": "env=prod", "schedule": {"interval": "60s"},
            "run": {"disk": {"path": "/"}}}, "counts": {"assigned": 40, "applied": 39, "refused": 1}}"#;
    StoredResult:
        r#"{"agentId": "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21", "agentName": "web-01", "time": "2026-11-20T11:59:00Z",
            "receiveTime": "2026-11-20T11:59:01Z", "arrival": "ARRIVAL_ON_TIME", "result": {"check": "disk", "version": "7",
            "state": "CHECK_STATE_CRITICAL", "durationMicros": "1500", "output": "5% free", "perfdata": "/=1MB;2;3"}}"#;
    Token:
        r#"{"id": "5f1e0c7b8d213a4b", "description": "racks", "labels": {"env": "prod"}, "uses": 10, "usesLeft": 3,
            "createTime": "2026-11-20T11:00:00Z", "expireTime": "2026-11-20T13:00:00Z", "creator": "user/mira",
            "status": "TOKEN_STATUS_ACTIVE", "scope": "env=prod", "source": "10.0.0.0/8",
            "redemptions": [{"time": "2026-11-20T11:30:00Z", "agentName": "web-01"}]}"#,
        r#"{"id": "8d213a4b5f1e0c7b", "status": "TOKEN_STATUS_REVOKED", "expireTime": "2026-11-20T11:00:00Z"}"#;
    User:
        r#"{"name": "mira", "status": "USER_STATUS_ACTIVE", "createTime": "2026-11-01T00:00:00Z", "certificates": [{"serial": "3f9c2a7d10e4b856",
            "status": "CERTIFICATE_STATUS_ACTIVE", "expireTime": "2026-12-20T12:00:00Z"}]}"#;
}

#[test]
fn no_resource_has_a_table_that_nobody_looks_at() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut rows = BTreeSet::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            rows.extend(text.lines().filter_map(|line| {
                let kind = line.strip_prefix("impl Row for ")?.split(' ').next()?;
                Some(kind.trim_start_matches("v1::").to_owned())
            }));
        }
    }
    let elsewhere = ELSEWHERE.iter().map(|(kind, file)| {
        assert!(root.join(file).is_file(), "{file}");
        *kind
    });
    let known: BTreeSet<String> = HERE.iter().copied().chain(elsewhere).map(str::to_owned).collect();
    assert_eq!(rows, known);
}
