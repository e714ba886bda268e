//! `musterctl doctor`: from the context file to what one may do, each thing that a command needs by itself. Changes nothing.

use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use jiff::{Timestamp, fmt::rfc2822};
use muster_certs::certificate::Certificate;
use muster_proto::{duration, v1};
use serde_json::{Value, json};

use crate::{
    age,
    app::Session,
    client::{Client, host},
    context::{self, Context, Credentials},
    count,
    exit::Exit,
    output::{
        Row,
        style::Tone,
        table::{Cell, Column},
    },
    problem::{
        Problem,
        connection::{self, ConnectError},
        status::Asked,
    },
};

/// Certificates are back-dated by more than that, and what is older is no matter of the network.
const MOST_SKEW: Duration = Duration::from_secs(60);
const LONGEST_STEP: Duration = Duration::from_secs(10);

/// Find out why commands fail
///
/// Looks at the context file, the certificate or API key, the way to the controller, its certificate, the clocks, the versions and
/// what you may do, and says what to do about what is wrong. The exit code is 0 when nothing is, 3 when the controller cannot be
/// reached, and 1 otherwise. What is wrong with the controller itself: muster-server doctor, on its host.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  musterctl doctor\n  musterctl --context prod doctor\n  \
                  musterctl doctor -o json | jq -r '.items[] | select(.result == \"wrong\") | .do[]'")]
pub struct DoctorArgs {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Wrong,
    Skipped,
}

#[derive(Debug)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    said: String,
    steps: Vec<String>,
}

/// In the order in which one needs the other.
const CHECKS: [&str; 9] = [
    "context file",
    "credentials",
    "name",
    "connection",
    "TLS",
    "identity",
    "permissions",
    "clock",
    "version",
];

#[derive(Debug, Default)]
struct Findings {
    items: Vec<Finding>,
    is_unreachable: bool,
}

impl Findings {
    fn ok(&mut self, check: &'static str, said: impl Into<String>) {
        self.add(check, Verdict::Ok, said.into(), Vec::new());
    }

    fn wrong(&mut self, check: &'static str, problem: &Problem) {
        let said = match problem.why.as_str() {
            "" => problem.headline.clone(),
            why => why.lines().collect::<Vec<_>>().join("; "),
        };
        self.is_unreachable |= problem.exit == Exit::Unreachable;
        self.add(check, Verdict::Wrong, said, problem.steps.clone());
    }

    fn add(&mut self, check: &'static str, verdict: Verdict, said: String, steps: Vec<String>) {
        self.items.push(Finding {
            check,
            verdict,
            said,
            steps,
        });
    }

    /// What was not come to, because of what is wrong.
    fn finish(&mut self) {
        for check in CHECKS {
            if !self.items.iter().any(|finding| finding.check == check) {
                let why = "what comes before is wrong".to_owned();
                self.add(check, Verdict::Skipped, why, Vec::new());
            }
        }
    }

    fn exit(&self) -> Exit {
        let is_wrong = self.items.iter().any(|finding| finding.verdict == Verdict::Wrong);
        match (self.is_unreachable, is_wrong) {
            (true, _) => Exit::Unreachable,
            (false, true) => Exit::Failure,
            (false, false) => Exit::Success,
        }
    }
}

pub async fn run(session: &mut Session) -> Result<(), Problem> {
    let mut findings = Findings::default();
    examine(session, &mut findings).await;
    findings.finish();
    session.printer.list(&findings.items, 0)?;
    for finding in findings
        .items
        .iter()
        .filter(|finding| finding.verdict == Verdict::Wrong)
    {
        for step in &finding.steps {
            session.printer.note(&format!("{}: {step}", finding.check))?;
        }
    }
    match findings.exit() {
        Exit::Success => Ok(()),
        exit => Err(Problem::told(exit)),
    }
}

/// Ends at the first thing without which the next cannot be looked at.
async fn examine(session: &mut Session, findings: &mut Findings) {
    let asked = Asked::new("look at the connection");
    let now = session.printer.terminal.now();
    let context = match session.context(&asked) {
        Ok(context) => context,
        Err(problem) => {
            let place = context::place(session.global().config());
            let place = place.map(|path| format!("{}: ", path.display())).unwrap_or_default();
            let problem = problem.clone().why(format!("{place}{}", problem.why));
            return findings.wrong("context file", &problem);
        }
    };
    let path = context.path.display();
    findings.ok(
        "context file",
        format!("{path}, context {}, for its owner alone", context.name),
    );
    if !credentials(&context, now, findings) || !network(&context, &asked, findings).await {
        return;
    }
    let client = match session.connect_as(&context, &asked).await {
        Ok(client) => client,
        Err(problem) => return findings.wrong("TLS", &problem),
    };
    let mut date = None;
    let started = Instant::now();
    let call = async |request| {
        let response = client.access().get_caller(request).await?;
        date = response
            .metadata()
            .get("date")
            .and_then(|date| Some(date.to_str().ok()?.to_owned()));
        Ok(response)
    };
    let caller = client.call(&asked, call, v1::GetCallerRequest {}).await;
    let took = started.elapsed();
    match caller {
        // With TLS 1.3 a client's certificate is refused after the handshake.
        Err(problem) if problem.exit == Exit::Unreachable => return findings.wrong("TLS", &problem),
        caller => {
            findings.ok("TLS", trusted(&context, &client, now));
            match caller {
                Err(problem) => return findings.wrong("identity", &problem),
                Ok(caller) => whoami(&caller, findings),
            }
        }
    }
    clock(date.as_deref(), session.printer.terminal.now(), took, findings);
    version(&client, &asked, findings).await;
}

fn credentials(context: &Context, now: Timestamp, findings: &mut Findings) -> bool {
    let identity = match &context.credentials {
        Credentials::ApiKey(key) => {
            findings.ok("credentials", format!("API key {}", key.id()));
            return true;
        }
        Credentials::Certificate(identity) => identity,
    };
    let end = moment(identity.not_after());
    let now_time = SystemTime::from(now);
    let who = identity.identity();
    if identity.not_after() <= now_time || identity.not_before() > now_time {
        let begin = moment(identity.not_before());
        let problem = Problem::new(Exit::Failure, "")
            .why(format!(
                "the certificate of {who} is good from {begin} to {end}, and now is {now}"
            ))
            .step("if the clock of this machine is wrong, set it")
            .step("else another operator can make a new one: musterctl user renew NAME --out FILE")
            .step("or, on the controller's host, as its owner: muster-server admin create NAME");
        findings.wrong("credentials", &problem);
        return false;
    }
    let soon = match context.days_left(now_time) {
        Some(days) => format!(
            ", in less than {}: musterctl user renew",
            count::of(days as i64 + 1, "day", "days")
        ),
        None => String::new(),
    };
    findings.ok("credentials", format!("{who} until {end}{soon}"));
    true
}

/// DNS and TCP.
async fn network(context: &Context, asked: &Asked, findings: &mut Findings) -> bool {
    let server = &context.server;
    let wrong = |findings: &mut Findings, check, error: ConnectError| {
        findings.wrong(check, &connection::refused(server, asked, &error));
        false
    };
    let name = match host(server) {
        Ok(name) => name,
        Err(error) => return wrong(findings, "name", error),
    };
    let looked_up = tokio::time::timeout(LONGEST_STEP, tokio::net::lookup_host(server.as_str())).await;
    let addresses: Vec<_> = match looked_up {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(source)) => return wrong(findings, "name", ConnectError::Resolve { host: name, source }),
        Err(_) => return wrong(findings, "name", ConnectError::TimedOut(LONGEST_STEP)),
    };
    let listed: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    findings.ok("name", format!("{name} is {}", listed.join(", ")));
    let started = Instant::now();
    let connect = tokio::net::TcpStream::connect(addresses.as_slice());
    match tokio::time::timeout(LONGEST_STEP, connect).await {
        Ok(Ok(stream)) => {
            let peer = stream
                .peer_addr()
                .map_or_else(|_| server.clone(), |peer| peer.to_string());
            let took = age::precise(started.elapsed().as_micros() as i64);
            findings.ok("connection", format!("{peer} answers within {took}"));
            true
        }
        Ok(Err(error)) => wrong(findings, "connection", ConnectError::Connect(error)),
        Err(_) => wrong(findings, "connection", ConnectError::TimedOut(LONGEST_STEP)),
    }
}

fn trusted(context: &Context, client: &Client, now: Timestamp) -> String {
    let by = match &context.server_name {
        Some(name) => format!("it is {name}"),
        None => format!("it is a controller of {}", context.trust_domain),
    };
    let leaf = client.server_certificate();
    let leaf = leaf.and_then(|leaf| Certificate::parse(&leaf).ok());
    match leaf {
        Some(leaf) => {
            let seconds = moment(leaf.not_after).as_second();
            let left = age::until(now, Some(&prost_types::Timestamp { seconds, nanos: 0 }));
            let left = left.map_or_else(|| "has ended".to_owned(), |left| format!("ends in {left}"));
            format!("{by}, and its certificate {left}")
        }
        None => by,
    }
}

fn whoami(caller: &v1::GetCallerResponse, findings: &mut Findings) {
    let who = match &caller.caller {
        Some(v1::get_caller_response::Caller::User(name)) => format!("user/{name}"),
        Some(v1::get_caller_response::Caller::ApiKey(id)) => format!("apikey/{id}"),
        None => "unknown".to_owned(),
    };
    findings.ok("identity", format!("the controller knows you as {who}"));
    if caller.permissions.is_empty() {
        let problem = Problem::new(Exit::Failure, "")
            .why("nothing is granted to you")
            .step("an admin can: musterctl grant create --role ROLE --user NAME");
        return findings.wrong("permissions", &problem);
    }
    let number = count::of(caller.permissions.len() as i64, "permission", "permissions");
    findings.ok("permissions", format!("{number}; which: musterctl whoami"));
}

/// By the time that the controller's answer was sent, in whole seconds.
fn clock(date: Option<&str>, now: Timestamp, took: Duration, findings: &mut Findings) {
    let there = date
        .and_then(|date| rfc2822::parse(date).ok())
        .map(|date| date.timestamp());
    let Some(there) = there else {
        let said = "the answer does not say what time it was there".to_owned();
        return findings.add("clock", Verdict::Skipped, said, Vec::new());
    };
    let seconds = now.as_second() - there.as_second();
    let apart = Duration::from_secs(seconds.unsigned_abs());
    if apart <= MOST_SKEW + took {
        let within = duration::format(apart.max(Duration::from_secs(1)) + Duration::from_secs(took.as_secs()));
        return findings.ok("clock", format!("the controller's is within {within} of this one"));
    }
    let which = if seconds > 0 { "behind" } else { "ahead of" };
    let problem = Problem::new(Exit::Failure, "")
        .why(format!(
            "the controller's clock is {} {which} this one",
            duration::format(apart)
        ))
        .step("set the clock that is wrong, and keep it set by NTP: timedatectl");
    findings.wrong("clock", &problem);
}

async fn version(client: &Client, asked: &Asked, findings: &mut Findings) {
    const OWN: &str = env!("CARGO_PKG_VERSION");
    let call = async |request| client.controllers().get_controller(request).await;
    match client.call(asked, call, v1::GetControllerRequest {}).await {
        Err(problem) => findings.add("version", Verdict::Skipped, problem.why.clone(), Vec::new()),
        Ok(response) => {
            let theirs = response.controller.unwrap_or_default().version;
            match is_supported(OWN, &theirs) {
                true => findings.ok("version", format!("musterctl {OWN}, controller {theirs}")),
                false => {
                    let problem = Problem::new(Exit::Failure, "")
                        .why(format!(
                            "musterctl is {OWN} and the controller {theirs}: more than one minor version apart"
                        ))
                        .step("use the musterctl of the controller's release");
                    findings.wrong("version", &problem);
                }
            }
        }
    }
}

/// Not more than one minor version apart. What is no version is not judged.
fn is_supported(own: &str, theirs: &str) -> bool {
    let parts = |version: &str| -> Option<(u32, u32)> {
        let mut parts = version.split(['.', '-', '+']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match (parts(own), parts(theirs)) {
        (Some(own), Some(theirs)) => own.0 == theirs.0 && own.1.abs_diff(theirs.1) <= 1,
        _ => true,
    }
}

/// Whole seconds, as certificates have them.
fn moment(time: SystemTime) -> Timestamp {
    let exact = Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    Timestamp::from_second(exact.as_second()).unwrap_or(exact)
}

impl Row for Finding {
    const COLUMNS: &'static [Column] = &[Column::new("CHECK"), Column::new("RESULT"), Column::new("FOUND")];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let tone = match self.verdict {
            Verdict::Ok => Tone::Good,
            Verdict::Wrong => Tone::Bad,
            Verdict::Skipped => Tone::Faint,
        };
        vec![
            Cell::new(self.check),
            Cell::toned(self.verdict.word(), tone),
            Cell::new(&self.said),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.check, self.verdict.word())
    }

    fn json(&self) -> Value {
        json!({
            "check": self.check,
            "result": self.verdict.word(),
            "found": self.said,
            "do": self.steps,
        })
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Wrong => "wrong",
            Verdict::Skipped => "skipped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(date: Option<&str>) -> Verdict {
        let mut findings = Findings::default();
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        clock(date, now, Duration::from_millis(20), &mut findings);
        findings.items[0].verdict
    }

    #[test]
    fn clocks_may_be_a_minute_apart() {
        assert_eq!(verdict(Some("Wed, 18 Nov 2026 11:06:40 GMT")), Verdict::Ok);
        assert_eq!(verdict(Some("Wed, 18 Nov 2026 11:05:50 GMT")), Verdict::Ok);
        assert_eq!(verdict(Some("Wed, 18 Nov 2026 11:04:40 GMT")), Verdict::Wrong);
        assert_eq!(verdict(Some("Wed, 18 Nov 2026 12:06:40 GMT")), Verdict::Wrong);
        assert_eq!(verdict(Some("soon")), Verdict::Skipped);
        assert_eq!(verdict(None), Verdict::Skipped);
    }

    #[test]
    fn versions_may_be_one_minor_apart() {
        for (own, theirs, wanted) in [
            ("0.4.1", "0.4.9", true),
            ("0.4.1", "0.5.0", true),
            ("0.4.1", "0.6.0", false),
            ("1.0.0", "0.9.0", false),
            ("0.4.1", "", true),
        ] {
            assert_eq!(is_supported(own, theirs), wanted, "{own} {theirs}");
        }
    }

    #[test]
    fn what_is_behind_something_wrong_is_skipped_and_the_exit_code_says_which() {
        let mut findings = Findings::default();
        findings.ok("context file", "x");
        findings.wrong("connection", &Problem::new(Exit::Unreachable, "away"));
        findings.finish();
        assert_eq!(findings.items.len(), CHECKS.len());
        assert_eq!(findings.exit(), Exit::Unreachable);
        assert_eq!(findings.items.last().unwrap().verdict, Verdict::Skipped);
    }
    #[test]
    fn a_table_of_findings() {
        let mut findings = Findings::default();
        findings.ok("context file", "/home/mira/.config/muster/config.yaml");
        findings.wrong(
            "connection",
            &Problem::new(Exit::Unreachable, "away").why("connection refused"),
        );
        findings.finish();
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let rows: Vec<_> = findings.items.iter().map(|finding| finding.cells(now)).collect();
        insta::assert_snapshot!(crate::output::table::render(Finding::COLUMNS, &rows, true, None, false));
    }
}
