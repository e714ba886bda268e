//! What agents' logs and the controller's metrics tell of refusals. Knows nothing of how they came about.

use std::collections::BTreeMap;

use muster_tests::Agent;
use serde_json::Value;

/// Words of an agent that was refused, in contrast to one that found nobody.
const REFUSED: [&str; 8] = [
    "CERTIFICATE_",
    "CLONE_",
    "AGENT_",
    "TLS",
    "handshake",
    "certificate",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
];

/// Codes of calls that were refused. A link that ends with the controller is none of these.
const CODES: [&str; 6] = [
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED",
];

pub fn renewals(agent: &Agent) -> usize {
    agent.log().matches("the certificate was renewed").count()
}

/// Warnings that have to do with the connection. Within `closed`, parts of the log from times when the port was closed, only
/// those that speak of a refusal.
pub fn complaints(log: &str, closed: &[(usize, usize)]) -> Vec<String> {
    let mut at = 0;
    let mut complaints = Vec::new();
    for line in log.split_inclusive('\n') {
        let was_closed = closed.iter().any(|(from, to)| (*from..*to).contains(&at));
        at += line.len();
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            complaints.push(line.trim().to_owned());
            continue;
        };
        let bad = entry["level"] == "WARN" || entry["level"] == "ERROR";
        // A socket that ends is no refusal, whatever was tried on it.
        let ended = ["(os error ", "the other side closed the connection"];
        let found_nobody = was_closed && ended.iter().any(|words| reason(&entry).contains(words));
        if bad && !found_nobody && (!was_closed || REFUSED.iter().any(|word| reason(&entry).contains(word))) {
            complaints.push(line.trim().to_owned());
        }
    }
    complaints
}

/// What went wrong, without the words that say what was tried.
fn reason(entry: &Value) -> String {
    let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    [field("reason"), field("why"), field("error")].concat()
}

/// Counters of refusals on the agents' side of the controller that are not zero.
pub fn refusals(metrics: &str) -> BTreeMap<String, u64> {
    let mut refusals = BTreeMap::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let of_agents = name.contains("listener=\"agents\"")
            || name.contains("EnrollmentService/")
            || name.contains("LinkService/");
        let refusal = name.starts_with("muster_controller_handshake_failures_total")
            || name.starts_with("muster_controller_connections_refused_total")
            || (name.starts_with("muster_controller_api_requests_total")
                && CODES.iter().any(|code| name.contains(&format!("\"{code}\""))));
        match value.parse() {
            Ok(count) if of_agents && refusal && count > 0 => drop(refusals.insert(name.to_owned(), count)),
            _ => {}
        }
    }
    refusals
}

#[test]
fn a_refusal_is_told_from_a_port_that_was_closed() {
    let closed = r#"{"level":"WARN","message":"the link is down","reason":"Connection refused (os error 111)"}"#;
    let refused = r#"{"level":"WARN","message":"the link is down","reason":"UNAUTHENTICATED: CERTIFICATE_SUPERSEDED"}"#;
    let reset =
        r#"{"level":"WARN","message":"the link is down","reason":"TLS: Connection reset by peer (os error 104)"}"#;
    let shut = r#"{"level":"WARN","message":"the link is down","reason":"TLS: the other side closed the connection during the handshake"}"#;
    let fine = r#"{"level":"INFO","message":"connected"}"#;
    let log = format!("{fine}\n{closed}\n{reset}\n{shut}\n{refused}\n{fine}\n");
    assert_eq!(complaints(&log, &[(0, log.len())]), [refused]);
    assert_eq!(complaints(&log, &[]), [closed, reset, shut, refused]);

    let metrics = "# TYPE x counter\n\
        muster_controller_api_requests_total{method=\"/muster.v1.LinkService/Connect\",code=\"OK\"} 7\n\
        muster_controller_api_requests_total{method=\"/muster.v1.LinkService/Connect\",code=\"UNAUTHENTICATED\"} 2\n\
        muster_controller_handshake_failures_total{listener=\"api\",reason=\"tls\"} 1\n\
        muster_controller_handshake_failures_total{listener=\"agents\",reason=\"tls\"} 0\n";
    assert_eq!(refusals(metrics).values().copied().collect::<Vec<_>>(), [2]);
}
