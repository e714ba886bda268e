//! The door of both listeners: finds the method in the table, finds out who is calling, lets in or refuses, and counts.
//! A refused peer of the agent listener is shown out as well: its connection ends after the answer.

use std::{sync::Arc, time::SystemTime};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, header};
use muster_certs::{
    identity::Identity,
    tls::{PeerCertificate, Standing},
};
use muster_proto::{
    error::{ErrorReason, Problem, code_name},
    ids::AgentId,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{info, warn};

use super::{
    Caller, OpCtx, Renewer,
    table::{self, Listener, Method, Who},
};
use crate::{
    agents::Agents,
    clock,
    net::Peer,
    store::{self, Db},
    telemetry::Telemetry,
    users::{self, Users},
};

/// Of a path that is not served: as much as a message repeats.
const MAX_PATH: usize = 100;

/// What decides on callers.
#[derive(Clone, Debug)]
pub struct Access {
    pub db: Db,
    pub agents: Arc<Agents>,
    pub users: Arc<Users>,
    pub telemetry: Telemetry,
}

/// Access to one listener; the state of its middleware.
#[derive(Clone, Debug)]
pub struct Guard {
    pub access: Access,
    pub listener: Listener,
}

impl Guard {
    /// The middleware. Every request has a `Peer` in its extensions from the accept loop.
    pub async fn check(State(guard): State<Self>, mut request: Request, next: Next) -> Response {
        let request_id = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
        let path = request.uri().path();
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| is_grpc(value.as_bytes()));
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let Some(method) = table::find(guard.listener, path) else {
            // It goes into the log, which is not for strangers to fill.
            let path: String = path.chars().take(MAX_PATH).collect();
            let text = format!("there is no method {path} here");
            let problem = Problem::new(Code::Unimplemented, ErrorReason::MethodNotAllowed, text);
            return guard.refuse(&peer, problem, is_grpc, &request_id);
        };
        // A browser sends whatever a page asks it to, with the certificate of whoever uses it, as long as it looks like a form.
        // What has this type it sends only after asking here, and nobody here says yes.
        if method.is_grpc() && (!is_grpc || request.method() != http::Method::POST) {
            guard
                .access
                .telemetry
                .api_request(method.path, code_name(Code::InvalidArgument));
            return guard.no_grpc(&peer, is_grpc);
        }
        match guard.access.decide(method, peer.certificate.as_ref()).await {
            Ok(Admitted { caller, ended }) => {
                if let Some(ended) = &ended {
                    peer.connection.end_with(ended);
                }
                request.extensions_mut().insert(OpCtx {
                    caller,
                    source: peer.addr,
                    request_id: request_id.clone(),
                    ended,
                });
                let mut response = next.run(request).await;
                let code = explain(response.headers_mut(), &request_id);
                guard.access.telemetry.api_request(method.path, code_name(code));
                response
            }
            Err(problem) => {
                guard.access.telemetry.api_request(method.path, code_name(problem.code));
                guard.refuse(&peer, problem, is_grpc, &request_id)
            }
        }
    }

    /// The answer that the specification of gRPC asks for.
    fn no_grpc(&self, peer: &Peer, is_grpc: bool) -> Response {
        if self.listener == Listener::Agents {
            peer.connection.close();
        }
        let status = if is_grpc {
            StatusCode::METHOD_NOT_ALLOWED
        } else {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        };
        (status, "this is gRPC: POST, and content-type application/grpc\n").into_response()
    }

    fn refuse(&self, peer: &Peer, problem: Problem, is_grpc: bool, request_id: &str) -> Response {
        info!(
            source = %peer.addr,
            peer = peer.certificate.as_ref().map(|peer| peer.identity.to_string()),
            request.id = request_id,
            reason = problem.message,
            "call refused"
        );
        if self.listener == Listener::Agents {
            peer.connection.close();
        }
        let problem = problem.with_request_id(request_id);
        if is_grpc {
            return tonic::Status::from(problem).into_http::<Body>();
        }
        let status = match problem.code {
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::Unimplemented => StatusCode::NOT_FOUND,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::FORBIDDEN,
        };
        (status, format!("{}\n", problem.message)).into_response()
    }
}

/// `application/grpc`, alone or with a format or parameters; not `application/grpc-web`, which is framed in another way.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest, [] | [b'+' | b';' | b' ', ..]))
}

/// The code of a response. What tonic refused by itself, a message that is too large, cannot be decoded or is compressed,
/// has no reason yet: it gets one, and the blame for what cannot be decoded goes to the caller.
fn explain(headers: &mut HeaderMap, request_id: &str) -> Code {
    let Some(status) = tonic::Status::from_header_map(headers) else {
        return Code::Ok;
    };
    if status.code() == Code::Ok || !status.details().is_empty() {
        return status.code();
    }
    let code = match status.code() {
        Code::Internal => Code::InvalidArgument,
        code => code,
    };
    let problem = Problem::new(code, ErrorReason::ProtocolViolation, status.message()).with_request_id(request_id);
    // Fails only for texts that no header can hold, and the old ones stay then.
    let _ = tonic::Status::from(problem).add_header(headers);
    code
}

/// Who was let in, and what tells when that should no longer be so.
struct Admitted {
    caller: Caller,
    ended: Option<CancellationToken>,
}

impl From<Caller> for Admitted {
    fn from(caller: Caller) -> Self {
        Self { caller, ended: None }
    }
}

impl Access {
    async fn decide(&self, method: &Method, certificate: Option<&PeerCertificate>) -> Result<Admitted, Problem> {
        if method.who == Who::Anyone {
            return Ok(Caller::Anonymous.into());
        }
        let Some(certificate) = certificate else {
            return match method.who {
                Who::Newcomer | Who::NewcomerOrAgent => Ok(Caller::Anonymous.into()),
                _ => Err(Problem::new(
                    Code::Unauthenticated,
                    ErrorReason::CertificateRequired,
                    "a client certificate is needed, and none was shown",
                )),
            };
        };
        match (method.who, &certificate.identity) {
            (Who::Agent | Who::NewcomerOrAgent, Identity::Agent { id, .. }) => {
                Ok(self.agent(AgentId::from(*id), certificate).await?.into())
            }
            (Who::Renewer, Identity::Agent { id, .. }) => {
                Ok(self.renewer(AgentId::from(*id), certificate).await?.into())
            }
            (Who::Admin, Identity::User { name, .. }) => self.user(name.as_str(), certificate).await,
            (Who::Newcomer, _) => Err(Problem::new(
                Code::PermissionDenied,
                ErrorReason::MethodNotAllowed,
                format!(
                    "this call is for machines without a certificate; {} has one",
                    certificate.identity
                ),
            )),
            _ => Err(Problem::new(
                Code::PermissionDenied,
                ErrorReason::MethodNotAllowed,
                format!("{} may not call {}", certificate.identity, method.path),
            )),
        }
    }

    async fn agent(&self, id: AgentId, certificate: &PeerCertificate) -> Result<Caller, Problem> {
        match self.standing(id, certificate).await? {
            Standing::Valid => {
                self.agents.certificate_used(id, &certificate.serial, clock::now());
                Ok(Caller::Agent(id))
            }
            standing => Err(refusal(id, certificate, standing)),
        }
    }

    async fn renewer(&self, id: AgentId, certificate: &PeerCertificate) -> Result<Caller, Problem> {
        let standing = self.standing(id, certificate).await?;
        if standing == Standing::Revoked {
            return Err(refusal(id, certificate, standing));
        }
        if standing == Standing::Valid {
            self.agents.certificate_used(id, &certificate.serial, clock::now());
        }
        Ok(Caller::Renewer(Renewer {
            agent: id,
            serial: certificate.serial.clone(),
            standing,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
        }))
    }

    /// From memory for whoever will be let in; the database is asked only why somebody will not.
    async fn standing(&self, id: AgentId, certificate: &PeerCertificate) -> Result<Standing, Problem> {
        if let Some(standing) = self.agents.standing(id, certificate, SystemTime::now()) {
            return Ok(standing);
        }
        let row = self
            .db
            .agent_certificate_get(&certificate.serial)
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(match row {
            Some(row) if row.agent_id != id.to_string() => Standing::Unknown,
            Some(row) if row.revoked_at > 0 => Standing::Revoked,
            Some(_) => Standing::Superseded,
            None => Standing::Unknown,
        })
    }

    async fn user(&self, name: &str, certificate: &PeerCertificate) -> Result<Admitted, Problem> {
        if certificate.is_expired(SystemTime::now()) {
            return Err(user_refusal(name, certificate, Standing::Expired));
        }
        let serial = &certificate.serial;
        match self.users.standing(name, serial).await {
            Ok(users::Standing::Live(ended)) => Ok(Admitted {
                caller: Caller::User { name: name.to_owned() },
                ended: Some(ended),
            }),
            Ok(users::Standing::Revoked) => Err(user_refusal(name, certificate, Standing::Revoked)),
            Ok(users::Standing::Unknown) => Err(user_refusal(name, certificate, Standing::Unknown)),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

/// Why a certificate of an agent does not open a method, with all that the agent needs to tell its people: both clocks too.
pub fn refusal(id: AgentId, certificate: &PeerCertificate, standing: Standing) -> Problem {
    let not_after = clock::from_system(certificate.not_after);
    let serial = &certificate.serial;
    let (reason, text) = match standing {
        Standing::Expired => (
            ErrorReason::CertificateExpired,
            format!("the certificate of agent {id} expired at {}", clock::to_text(not_after)),
        ),
        Standing::Superseded => (
            ErrorReason::CertificateSuperseded,
            format!("the certificate {serial} of agent {id} is superseded: a newer one has been used"),
        ),
        Standing::Revoked => (
            ErrorReason::CertificateRevoked,
            format!("the certificate {serial} of agent {id} is revoked"),
        ),
        Standing::None | Standing::Valid | Standing::Unknown => (
            ErrorReason::CertificateUnknown,
            format!("the certificate {serial} of agent {id} is not on file"),
        ),
    };
    unauthenticated(reason, text, certificate, standing)
}

/// The same of an operator's certificate.
fn user_refusal(name: &str, certificate: &PeerCertificate, standing: Standing) -> Problem {
    let serial = &certificate.serial;
    let (reason, text) = match standing {
        Standing::Expired => (
            ErrorReason::CertificateExpired,
            format!(
                "the certificate of user {name} expired at {}; it takes another admin, or `muster-server admin create`, to make \
                 a new one",
                clock::to_text(clock::from_system(certificate.not_after))
            ),
        ),
        Standing::Revoked => (
            ErrorReason::CertificateRevoked,
            format!("the certificate {serial} of user {name} is revoked"),
        ),
        _ => (
            ErrorReason::CertificateUnknown,
            format!("the certificate {serial} of user {name} is not on file"),
        ),
    };
    unauthenticated(reason, text, certificate, standing)
}

fn unauthenticated(reason: ErrorReason, text: String, certificate: &PeerCertificate, standing: Standing) -> Problem {
    Problem::new(Code::Unauthenticated, reason, text)
        .with_metadata("standing", standing.to_string())
        .with_metadata("serial", &certificate.serial)
        .with_metadata("not_after", clock::to_text(clock::from_system(certificate.not_after)))
        .with_metadata("controller_time", clock::to_text(clock::now()))
}

fn unavailable(error: &store::Error) -> Problem {
    warn!(
        error = error as &dyn std::error::Error,
        "failed to look up a certificate"
    );
    let text = "the database does not answer now; try again";
    Problem::new(Code::Unavailable, ErrorReason::Unavailable, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(status: tonic::Status) -> HeaderMap {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).expect("a status fits into headers");
        headers
    }

    #[test]
    fn only_grpc_is_taken_for_grpc() {
        for good in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc; charset=utf-8",
        ] {
            assert!(is_grpc(good.as_bytes()), "{good}");
        }
        for other in [
            "",
            "text/plain",
            "application/json",
            "application/grpc-web",
            "application/grpcx",
        ] {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_refusal_without_a_reason_gets_one_and_the_id_of_its_request() {
        let mut headers = headers(tonic::Status::internal("failed to decode Protobuf message"));
        assert_eq!(explain(&mut headers, "id1"), Code::InvalidArgument);
        let status = tonic::Status::from_header_map(&headers).expect("a status");
        let problem = Problem::from_status(&status).expect("a reason");
        assert_eq!(problem.code, Code::InvalidArgument);
        assert_eq!(problem.reason, ErrorReason::ProtocolViolation);
        assert_eq!(problem.request_id(), Some("id1"));
    }

    #[test]
    fn what_has_a_reason_and_what_went_well_stay_as_they_are() {
        let ours = Problem::new(Code::NotFound, ErrorReason::NotFound, "there is no agent x");
        for status in [ours.into(), tonic::Status::ok("")] {
            let before = headers(status);
            let mut after = before.clone();
            let code = explain(&mut after, "id1");
            assert_eq!(after, before, "{code:?}");
        }
        assert_eq!(explain(&mut HeaderMap::new(), "id1"), Code::Ok);
    }
}
