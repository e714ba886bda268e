//! The door of both listeners: finds the method in the table, finds out who is calling, lets in or refuses, and counts.
//! A refused peer of the agent listener is shown out as well: its connection ends after the answer.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use muster_proto::{
    error::{ErrorReason, Problem, code_name, reason_name},
    v1::{AuditEntry, AuditOutcome},
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tonic::Code;
use tracing::{info, warn};

use super::{
    Caller, Note, OpCtx,
    note::Noted,
    rates::Rates,
    refusals::no_audit,
    table::{self, Listener, Method},
};
use crate::{
    agents::Agents, api_keys::ApiKeys, audit::Audit, grants::Grants, net::Peer, store::Db, telemetry::Telemetry,
    users::Users,
};

/// Of a path that is not served: as much as a message repeats.
const MAX_PATH: usize = 100;
/// What is read of a call that is refused, and for how long.
const HEARD_OUT_BYTES: usize = 64 << 10;
const HEARD_OUT_WITHIN: Duration = Duration::from_millis(100);

/// What decides on callers.
#[derive(Clone, Debug)]
pub struct Access {
    pub db: Db,
    pub agents: Arc<Agents>,
    pub users: Arc<Users>,
    pub api_keys: Arc<ApiKeys>,
    pub grants: Arc<Grants>,
    pub audit: Audit,
    pub rates: Arc<Rates>,
    pub telemetry: Telemetry,
    /// Owns calls that change something.
    pub tasks: TaskTracker,
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
        let call = Call {
            method,
            peer: &peer,
            request_id: &request_id,
        };
        let authorization = request.headers_mut().remove(header::AUTHORIZATION);
        let caller = match guard.access.decide(&call, authorization.as_ref()).await {
            Ok(caller) => caller,
            Err(problem) => {
                guard.access.telemetry.api_request(method.path, code_name(problem.code));
                if guard.listener == Listener::Api {
                    hear_out(request.into_body()).await;
                }
                return guard.refuse(&peer, problem, is_grpc, &request_id);
            }
        };
        if let (Caller::Operator(operator), Some(_)) = (&caller, &peer.certificate) {
            peer.connection.end_with(&operator.ended);
        }
        let note = Note::default();
        let who = match &caller {
            Caller::Operator(operator) if method.audit == table::Audit::Change => Some(operator.subject.to_string()),
            _ => None,
        };
        request.extensions_mut().insert(OpCtx {
            caller,
            source: peer.addr,
            request_id: request_id.clone(),
            note: note.clone(),
        });
        let Some(who) = who else {
            let mut response = next.run(request).await;
            let status = explain(response.headers_mut(), &request_id);
            guard.access.count(method, status.as_ref());
            return response;
        };
        if let Err(problem) = guard.access.begun(&call, &who).await {
            return guard.refuse(&peer, problem, is_grpc, &request_id);
        }
        // What has begun is completed in the log, though the caller leaves meanwhile.
        let (access, connection) = (guard.access.clone(), peer.clone());
        let refused_id = request_id.clone();
        let whole = guard.access.tasks.spawn(async move {
            let mut response = next.run(request).await;
            let status = explain(response.headers_mut(), &request_id);
            access.count(method, status.as_ref());
            let call = Call {
                method,
                peer: &connection,
                request_id: &request_id,
            };
            access.completed(&call, &who, status.as_ref(), note.take()).await;
            response
        });
        whole.await.unwrap_or_else(|panic| {
            warn!(
                error = &panic as &dyn std::error::Error,
                method = method.path,
                "call failed"
            );
            let text = "the controller failed; its log tells more";
            let problem = Problem::new(Code::Internal, ErrorReason::Internal, text);
            guard.refuse(&peer, problem, is_grpc, &refused_id)
        })
    }

    /// The answer that the specification of gRPC asks for.
    fn no_grpc(&self, peer: &Peer, is_grpc: bool) -> Response {
        if self.listener == Listener::Agents {
            peer.connection.close();
        }
        let text = "this is gRPC: POST, and content-type application/grpc";
        let problem = Problem::new(Code::InvalidArgument, ErrorReason::ProtocolViolation, text);
        if !is_grpc {
            return plain_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, &problem);
        }
        let mut response = plain_as(StatusCode::METHOD_NOT_ALLOWED, &problem);
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
        response
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
        plain(&problem)
    }
}

/// Takes what is on its way of a call that is refused, and throws it away. Behind an answer HTTP/2 counts it as an error of the
/// peer, and ends a connection with a thousand of them: a script that calls too often would lose the calls that are let in.
async fn hear_out(body: Body) {
    let mut body = Limited::new(body, HEARD_OUT_BYTES);
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    // Who has more to say, or nothing yet, is answered all the same.
    let _ = timeout(HEARD_OUT_WITHIN, all).await;
}

/// As RFC 9457 wants it.
pub fn plain(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    plain_as(status, problem)
}

/// The same with a status that says more than the code of the problem.
pub fn plain_as(status: StatusCode, problem: &Problem) -> Response {
    let mut response = Response::new(Body::from(problem.to_json_with(status.as_u16()).to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        // The one of the two ways that has a name in HTTP; the other is a certificate.
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if let Some(after) = problem.retry_after {
        // Whole seconds, and rather later than sooner.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// `application/grpc`, alone or with a format or parameters; not `application/grpc-web`, which is framed in another way.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest, [] | [b'+' | b';' | b' ', ..]))
}

/// The status of a response that failed before it said anything, with the id of its request. What tonic refused by itself, a
/// message that is too large, cannot be decoded or is compressed, has no reason yet: it gets one, and the blame for what cannot
/// be decoded goes to the caller.
fn explain(headers: &mut HeaderMap, request_id: &str) -> Option<tonic::Status> {
    let status = tonic::Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)?;
    let problem = match Problem::from_status(&status) {
        Some(problem) if problem.request_id().is_none() => problem,
        None if status.details().is_empty() => {
            let code = match status.code() {
                Code::Internal => Code::InvalidArgument,
                code => code,
            };
            Problem::new(code, ErrorReason::ProtocolViolation, status.message())
        }
        _ => return Some(status),
    };
    let explained = tonic::Status::from(problem.with_request_id(request_id));
    // Fails only for texts that no header can hold, and the old ones stay then.
    let _ = explained.clone().add_header(headers);
    Some(explained)
}

/// What is asked for, by whom and from where.
pub(super) struct Call<'a> {
    pub method: &'static Method,
    pub peer: &'a Peer,
    pub request_id: &'a str,
}

impl Call<'_> {
    pub fn entry(&self, who: &str, outcome: AuditOutcome) -> AuditEntry {
        AuditEntry {
            caller: who.to_owned(),
            source: self.peer.addr.ip().to_string(),
            method: self.method.path.to_owned(),
            outcome: outcome.into(),
            request_id: self.request_id.to_owned(),
            ..AuditEntry::default()
        }
    }
}

impl Access {
    fn count(&self, method: &Method, status: Option<&tonic::Status>) {
        let code = status.map_or(Code::Ok, tonic::Status::code);
        self.telemetry.api_request(method.path, code_name(code));
    }

    /// Before the effect. What cannot be told of must not happen.
    async fn begun(&self, call: &Call<'_>, who: &str) -> Result<(), Problem> {
        let entry = call.entry(who, AuditOutcome::Begun);
        self.audit.write(entry).await.map_err(no_audit)
    }

    /// After it. The call has happened whatever becomes of this entry.
    async fn completed(&self, call: &Call<'_>, who: &str, status: Option<&tonic::Status>, noted: Noted) {
        let problem = status.map(|status| (status.code(), Problem::from_status(status)));
        let outcome = match &problem {
            None => AuditOutcome::Done,
            Some((Code::PermissionDenied | Code::Unauthenticated, _)) => AuditOutcome::Refused,
            Some(_) => AuditOutcome::Failed,
        };
        let (code, reason) = problem.map_or(Default::default(), |(code, problem)| {
            let reason = problem.map(|problem| reason_name(problem.reason)).unwrap_or_default();
            (code_name(code).to_owned(), reason.to_owned())
        });
        let entry = AuditEntry {
            code,
            reason,
            resource: noted.resource,
            agent_id: noted.agent.map(|id| id.to_string()).unwrap_or_default(),
            before_digest: noted.before,
            after_digest: noted.after,
            ..call.entry(who, outcome)
        };
        if self.audit.write(entry).await.is_err() {
            warn!(
                request.id = call.request_id,
                method = call.method.path,
                "what this call has done is not in the audit log; that it began is"
            );
        }
    }
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
        let explained = explain(&mut headers, "id1").map(|status| status.code());
        assert_eq!(explained, Some(Code::InvalidArgument));
        let status = tonic::Status::from_header_map(&headers).expect("a status");
        let problem = Problem::from_status(&status).expect("a reason");
        assert_eq!(problem.code, Code::InvalidArgument);
        assert_eq!(problem.reason, ErrorReason::ProtocolViolation);
        assert_eq!(problem.request_id(), Some("id1"));
    }

    #[test]
    fn what_has_a_reason_and_what_went_well_stay_as_they_are() {
        let ours = Problem::new(Code::NotFound, ErrorReason::NotFound, "there is no agent x").with_request_id("id0");
        for status in [ours.into(), tonic::Status::ok("")] {
            let before = headers(status);
            let mut after = before.clone();
            let code = explain(&mut after, "id1");
            assert_eq!(after, before, "{code:?}");
        }
        assert!(explain(&mut HeaderMap::new(), "id1").is_none());
    }

    #[test]
    fn a_refusal_from_before_the_call_gets_the_id_of_its_request() {
        let mut headers = headers(Problem::new(Code::InvalidArgument, ErrorReason::InvalidField, "no JSON").into());
        let status = explain(&mut headers, "id1").expect("a status");
        let problem = Problem::from_status(&status).expect("a reason");
        assert_eq!(
            (problem.reason, problem.request_id()),
            (ErrorReason::InvalidField, Some("id1"))
        );
        assert_eq!(
            tonic::Status::from_header_map(&headers).expect("a status").details(),
            status.details()
        );
    }
}
