//! `LinkService`: gives the stream to a link and turns its end into a status.

use std::{
    future::ready,
    pin::Pin,
    time::{Duration, Instant},
};

use futures_channel::mpsc;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use muster_proto::{
    error::{ErrorReason, Problem},
    v1::{ConnectRequest, ConnectResponse, link_service_server::LinkService},
};
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::info;

use super::{Api, controllers, problem};
use crate::{
    access::Caller,
    clock,
    link::{self, Close, Shown},
    net::Peer,
};

/// When an agent comes again for which there was no room.
const OVERLOADED: Duration = Duration::from_secs(5);
/// Frames that wait for a slow agent before its link does.
const OUTBOUND: usize = 16;

#[tonic::async_trait]
impl LinkService for Api {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let ctx = problem::context(&request)?;
        let Caller::Agent(agent) = ctx.caller else {
            return Err(problem::status(&ctx, protocol("only an agent holds a link")));
        };
        let peer = request.extensions().get::<Peer>();
        let connection = peer.map(|peer| peer.connection.clone());
        if let Some(problem) = self.takes_no_links() {
            if let Some(connection) = connection {
                connection.close();
            }
            return Err(problem::status(&ctx, problem));
        }
        let certificate = peer.and_then(|peer| peer.certificate.as_ref());
        let shown = Shown {
            remote: ctx.source.to_string(),
            serial: certificate.map(|it| it.serial.clone()).unwrap_or_default(),
            not_after: certificate
                .map(|it| clock::from_system(it.not_after))
                .unwrap_or_default(),
        };
        // Before anything is made of it.
        if let Err(later) = self.link.arrivals.knock(agent, Instant::now()) {
            self.telemetry.link_turned_away();
            if later.is_first {
                info!(agent.id = %agent, "more links than limits.links_per_second allows: newcomers are told when to come");
            }
            if let Some(connection) = connection {
                connection.close();
            }
            return Err(problem::status(&ctx, too_many(later.after)));
        }
        self.telemetry.link_admitted();
        let inbound = request
            .into_inner()
            .map(|frame| frame.map_err(|status| what_is_wrong(&status)))
            .boxed();
        let (outbound, frames) = mpsc::channel(OUTBOUND);
        let on_active = Box::new({
            let connection = connection.clone();
            move || {
                if let Some(connection) = connection {
                    connection.promote();
                }
            }
        });
        let link = link::run(self.link.clone(), agent, shown, inbound, outbound, on_active);
        self.tasks.spawn(link.map(|()| {
            // A connection outside of the limits is there for its link alone.
            if let Some(connection) = connection {
                connection.close();
            }
        }));
        let frames = frames.filter_map(move |frame| {
            ready(match frame {
                Ok(frame) => Some(Ok(*frame)),
                Err(close) => to_problem(close).map(|problem| Err(problem::status(&ctx, problem))),
            })
        });
        Ok(Response::new(Box::pin(frames)))
    }
}

/// Of a frame that cannot be read. An error that has a cause is one of the connection.
fn what_is_wrong(status: &Status) -> Option<String> {
    let is_of_frame = std::error::Error::source(status).is_none();
    is_of_frame.then(|| status.message().to_owned())
}

/// None: the stream ends well.
fn to_problem(close: Close) -> Option<Problem> {
    Some(match close {
        Close::Goodbye | Close::Left | Close::Restarting | Close::Ended => return None,
        Close::Silent | Close::Timeout => Problem::new(
            Code::DeadlineExceeded,
            ErrorReason::Unavailable,
            "nothing was heard of the agent for too long",
        ),
        Close::Clone(refusal) => (*refusal).into(),
        Close::Replaced => Problem::new(
            Code::Aborted,
            ErrorReason::SessionReplaced,
            "another session of this agent has taken over",
        ),
        Close::Revoked => Problem::new(
            Code::Unauthenticated,
            ErrorReason::CertificateRevoked,
            "the trust in this agent's certificate has ended",
        ),
        Close::Expired => Problem::new(
            Code::Unauthenticated,
            ErrorReason::CertificateExpired,
            "the certificate of this link has expired; renew it and connect again",
        ),
        Close::Draining => controllers::draining(),
        Close::ShuttingDown => problem::shutting_down(),
        Close::Overloaded => Problem::new(
            Code::ResourceExhausted,
            ErrorReason::RateLimited,
            "more is on its way than the controller has room for; what was not acknowledged is to be sent again",
        )
        .with_retry_after(OVERLOADED),
        Close::StoreFailed => Problem::new(
            Code::Unavailable,
            ErrorReason::Unavailable,
            "records could not be stored; they were not acknowledged",
        ),
        Close::Version { wanted } => Problem::new(
            Code::FailedPrecondition,
            ErrorReason::VersionUnsupported,
            format!("version {wanted} of the link's protocol is not spoken here"),
        ),
        Close::Protocol(text) => protocol(&text),
    })
}

fn too_many(retry_after: Duration) -> Problem {
    Problem::new(
        Code::ResourceExhausted,
        ErrorReason::RateLimited,
        format!(
            "more links begin than the controller takes in a second; come again in {} s",
            retry_after.as_secs_f64().ceil()
        ),
    )
    .with_retry_after(retry_after)
}

fn protocol(text: &str) -> Problem {
    Problem::new(Code::InvalidArgument, ErrorReason::ProtocolViolation, text)
}
