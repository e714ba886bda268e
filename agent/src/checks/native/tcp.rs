//! `run.tcp`: a TCP connection, with a text to send and a text to wait for if given.
//!
//! | parameter | |
//! |---|---|
//! | `address` | `host:port`, IPv6 in brackets |
//! | `send` | sent after connecting |
//! | `expect` | the answer must contain it |
//! | `warning`, `critical` | a problem when all of it takes at least this long |
//!
//! A connection that fails, or does not do all this in time, is critical.

use std::io;
use std::time::{Duration, Instant};

use muster_proto::v1::TcpRun;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time;

use super::{CheckState, Finding, by_time, duration, plain, span, time_value};

const KIND: &str = "TCP";
/// The answer is looked through up to here.
const MAX_ANSWER: usize = 64 * 1024;
/// As much of the answer is shown.
const MAX_SHOWN: usize = 80;

pub(super) async fn run(run: &TcpRun, limit: Duration) -> Finding {
    let started = Instant::now();
    // What was going on when the time was up.
    let mut doing = Doing::Resolving;
    let talked = time::timeout(limit, talk(run, &mut doing)).await;
    let elapsed = started.elapsed();
    let problem = match talked {
        Ok(Ok(())) => {
            let (warning, critical) = (duration(run.warning.as_ref()), duration(run.critical.as_ref()));
            let text = format!("{:.3} second response time on {}", elapsed.as_secs_f64(), run.address);
            return Finding::new(KIND, by_time(elapsed, warning, critical), text)
                .with(vec![time_value(elapsed, warning, critical, limit)]);
        }
        Ok(Err(problem)) => problem,
        Err(_) => format!("{} timed out after {}", doing.words(run), span(limit)),
    };
    Finding::new(KIND, CheckState::Critical, problem)
}

#[derive(Clone, Copy)]
enum Doing {
    Resolving,
    Connecting,
    Sending,
    Waiting,
}

impl Doing {
    fn words(self, run: &TcpRun) -> String {
        match self {
            Doing::Resolving => format!("looking up {}", run.address),
            Doing::Connecting => format!("connecting to {}", run.address),
            Doing::Sending => format!("sending to {}", run.address),
            Doing::Waiting => format!("waiting for {:?} from {}", run.expect, run.address),
        }
    }

    fn failed(self, run: &TcpRun, error: &io::Error) -> String {
        format!("{} failed: {}", self.words(run), plain(error))
    }
}

async fn talk(run: &TcpRun, doing: &mut Doing) -> Result<(), String> {
    let addresses: Vec<_> = lookup_host(&run.address)
        .await
        .map_err(|error| Doing::Resolving.failed(run, &error))?
        .collect();
    *doing = Doing::Connecting;
    let mut stream = TcpStream::connect(addresses.as_slice())
        .await
        .map_err(|error| doing.failed(run, &error))?;
    if !run.send.is_empty() {
        *doing = Doing::Sending;
        stream
            .write_all(run.send.as_bytes())
            .await
            .map_err(|error| doing.failed(run, &error))?;
    }
    if !run.expect.is_empty() {
        *doing = Doing::Waiting;
        wait_for(&mut stream, run, *doing).await?;
    }
    Ok(())
}

async fn wait_for(stream: &mut TcpStream, run: &TcpRun, doing: Doing) -> Result<(), String> {
    let expected = run.expect.as_bytes();
    let mut answer = Vec::new();
    loop {
        let before = answer.len();
        let read = stream
            .read_buf(&mut answer)
            .await
            .map_err(|error| doing.failed(run, &error))?;
        let from = before.saturating_sub(expected.len());
        if answer[from..].windows(expected.len()).any(|window| window == expected) {
            return Ok(());
        }
        if read == 0 || answer.len() > MAX_ANSWER {
            return Err(format!(
                "{} answered {}, which lacks {:?}",
                run.address,
                shown(&answer),
                run.expect
            ));
        }
    }
}

fn shown(answer: &[u8]) -> String {
    let part = String::from_utf8_lossy(&answer[..answer.len().min(MAX_SHOWN)]);
    format!("{part:?}{}", if answer.len() > MAX_SHOWN { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn listener() -> (TcpListener, TcpRun) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let run = TcpRun {
            address: listener.local_addr().unwrap().to_string(),
            ..TcpRun::default()
        };
        (listener, run)
    }

    /// Answers one connection with `greeting`, then with what it reads, until the peer leaves.
    async fn echo(listener: TcpListener, greeting: &str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(greeting.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    }

    #[tokio::test]
    async fn a_port_that_accepts_is_ok() {
        let (_listener, run) = listener().await;
        let finding = super::run(&run, LONG).await;
        assert_eq!(finding.state, CheckState::Ok, "{finding:?}");
        assert!(
            finding
                .summary
                .ends_with(&format!("second response time on {}", run.address)),
            "{finding:?}"
        );
        assert_eq!(finding.perfdata[0].label, "time");
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_critical() {
        let (listener, run) = listener().await;
        drop(listener);
        let finding = super::run(&run, LONG).await;
        assert_eq!(finding.state, CheckState::Critical);
        let text = format!(
            "TCP CRITICAL - connecting to {} failed: Connection refused",
            run.address
        );
        assert!(finding.summary.starts_with(&text), "{finding:?}");
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_critical() {
        let run = TcpRun {
            address: "no-such-host.invalid:80".to_owned(),
            ..TcpRun::default()
        };
        let finding = super::run(&run, LONG).await;
        assert_eq!(finding.state, CheckState::Critical);
        assert!(
            finding.summary.contains("looking up no-such-host.invalid:80 failed: "),
            "{finding:?}"
        );
    }

    #[tokio::test]
    async fn what_is_sent_and_expected_is_looked_for_in_all_of_the_answer() {
        let (listener, run) = listener().await;
        let run = TcpRun {
            send: "PING\n".to_owned(),
            expect: "PING".to_owned(),
            ..run
        };
        let (finding, ()) = tokio::join!(super::run(&run, LONG), echo(listener, "220 ready\n"));
        assert_eq!(finding.state, CheckState::Ok, "{finding:?}");
    }

    #[tokio::test]
    async fn an_answer_that_lacks_what_is_expected_is_critical_and_shown() {
        let (listener, run) = listener().await;
        let run = TcpRun {
            expect: "220".to_owned(),
            ..run
        };
        let answer = async {
            listener
                .accept()
                .await
                .unwrap()
                .0
                .write_all(b"554 go away\r\n")
                .await
                .unwrap();
        };
        let (finding, ()) = tokio::join!(super::run(&run, LONG), answer);
        assert_eq!(finding.state, CheckState::Critical);
        assert!(
            finding
                .summary
                .ends_with("answered \"554 go away\\r\\n\", which lacks \"220\""),
            "{finding:?}"
        );
    }

    #[tokio::test]
    async fn a_peer_that_does_not_answer_in_time_is_critical() {
        let (_listener, run) = listener().await;
        let run = TcpRun {
            expect: "220".to_owned(),
            ..run
        };
        let finding = super::run(&run, Duration::from_millis(50)).await;
        assert_eq!(finding.state, CheckState::Critical);
        assert!(finding.summary.contains("waiting for \"220\" from"), "{finding:?}");
        assert!(finding.summary.ends_with("timed out after 50ms"), "{finding:?}");
    }

    #[tokio::test]
    async fn a_slow_answer_is_a_problem_of_its_threshold() {
        let (_listener, run) = listener().await;
        let at_once = muster_proto::duration::to_proto(Duration::ZERO);
        let slow = TcpRun {
            warning: Some(at_once),
            ..run.clone()
        };
        assert_eq!(super::run(&slow, LONG).await.state, CheckState::Warning);
        let very_slow = TcpRun {
            critical: Some(at_once),
            ..slow
        };
        assert_eq!(super::run(&very_slow, LONG).await.state, CheckState::Critical);
    }
}
