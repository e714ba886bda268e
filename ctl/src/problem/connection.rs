//! From a connection that could not be made, or was lost, to a problem. All of them exit with 3, save the deadline's 6.

use std::{error::Error as StdError, io, time::Duration};

use muster_proto::duration;
use tonic::Status;

use super::{Problem, status::Asked};
use crate::exit::Exit;

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("`{0}` is not of the form host:port")]
    Address(String),
    #[error("no address is known for {host}")]
    Resolve {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to connect")]
    Connect(#[source] io::Error),
    #[error("no answer within {}", duration::format(*.0))]
    TimedOut(Duration),
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
}

/// For the first connection of a command.
pub fn refused(server: &str, asked: &Asked, error: &ConnectError) -> Problem {
    let problem =
        Problem::new(Exit::Unreachable, format!("cannot reach the controller at {server}")).what(asked.what());
    match error {
        ConnectError::Address(_) => problem
            .why(error.to_string())
            .step("correct `server` in the context file; the API listens on port 9443 unless configured"),
        ConnectError::Resolve { source, .. } => problem
            .why(format!("{error}: {source}"))
            .step("check the name in the context's `server`, and this machine's DNS"),
        ConnectError::Connect(source) => problem
            .why(describe_io(source))
            .step("on the controller's host: systemctl status muster-server")
            .step("or name another controller: --context NAME, --config FILE"),
        ConnectError::TimedOut(_) => problem
            .why(error.to_string())
            .step("check that the host is up and that no firewall drops the port")
            .step("or wait longer: --timeout 1m"),
        ConnectError::Tls(source) => {
            let why = muster_certs::tls::describe(source).unwrap_or_else(|| describe_io(source));
            let mut problem = untrusted(problem, &why);
            problem.headline = format!("no trusted connection to the controller at {server}");
            problem
        }
    }
}

/// For a call over a connection that broke. `alert` is what TLS had to say of its end: HTTP/2 keeps no more of it than a
/// text. `None`: the status did come from the controller.
pub fn lost(server: &str, asked: &Asked, status: &Status, alert: Option<&str>) -> Option<Problem> {
    // A status that a peer sent has no cause; one that was made here, of a broken connection, does.
    let mut cause: &(dyn StdError + 'static) = status.source()?;
    let base = Problem::new(Exit::Unreachable, format!("the connection to {server} broke"))
        .what(asked.what())
        .step("try again; on the controller's host: systemctl status muster-server");
    if let Some(alert) = alert {
        let mut problem = untrusted(base, alert);
        problem.headline = format!("{server} ended the connection");
        return Some(problem);
    }
    loop {
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return Some(refused(server, asked, error));
        }
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => return Some(base.why(muster_certs::tls::describe(cause).unwrap_or_else(|| cause.to_string()))),
        }
    }
}

/// For a call that took longer than `--timeout`.
pub fn deadline(server: &str, asked: &Asked, timeout: Duration) -> Problem {
    let mut problem = Problem::new(
        Exit::DeadlinePassed,
        format!("no answer from {server} within {}", duration::format(timeout)),
    )
    .what(asked.what())
    .why("the controller took longer than the time that was allowed; a change may still have been made")
    .step(format!("allow more time: --timeout {}", duration::format(timeout * 4)));
    problem.code = Some("DEADLINE_EXCEEDED");
    problem
}

fn untrusted(mut problem: Problem, why: &str) -> Problem {
    problem.steps.clear();
    problem
        .why(why)
        .step("if the controller is the right one, get a new context on its host: muster-server admin create NAME")
        .step("if not, correct `server` in the context file, or take another with --context NAME")
}

fn describe_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        io::ErrorKind::UnexpectedEof => {
            "the other side closed the connection; is that port the API listener?".to_owned()
        }
        _ => error.to_string(),
    }
}
