//! The methods over REST. A request becomes the gRPC call that its `google.api.http` names and goes through the same door as
//! any other, so that nothing about it is decided twice; the answer becomes JSON. Knows descriptors, and no method by itself.

mod about;
mod answer;
mod openapi;
mod problem;
mod question;
mod route;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use muster_proto::error::{ErrorReason, Problem};
use tonic::Code;
use tower::ServiceExt as _;

pub use self::about::{about, only_get};
use self::{
    answer::Form,
    question::Question,
    route::{Found, Routes},
};
use crate::access::plain_as;

#[derive(Clone)]
struct Rest {
    routes: Arc<Routes>,
    /// Where calls go, gRPC and others.
    inner: Router,
}

/// What `inner` serves, and REST beside it.
pub fn beside(inner: Router) -> Router {
    let rest = Rest {
        routes: Arc::new(Routes::of_contract()),
        inner: inner.clone(),
    };
    Router::new()
        .route("/v1/{*rest}", any(call))
        .with_state(rest)
        .fallback_service(inner)
}

async fn call(State(rest): State<Rest>, request: Request) -> Response {
    let request = question::begun(request).await;
    let (route, variables) = match rest.routes.find(request.method(), request.uri().path()) {
        Found::Route(route, variables) => (route, variables),
        Found::OtherMethods(allowed) => return not_that_way(request.method(), &allowed),
        // Whoever asks for what is not there learns no more than by gRPC.
        Found::Nothing => return pass(&rest.inner, request).await,
    };
    let form = Form::wanted(request.headers(), route.method.is_server_streaming());
    let (parts, body) = request.into_parts();
    if let Err(problem) = takes_json(&parts.headers, &parts.method) {
        return plain_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, &problem);
    }
    let question = Question::new(route, variables, parts.uri.query(), &parts.headers, body);
    let mut request = Request::new(question.into_body());
    *request.method_mut() = Method::POST;
    // Of names of the contract alone.
    *request.uri_mut() = route.grpc_path.clone();
    *request.extensions_mut() = parts.extensions;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    for name in [header::AUTHORIZATION, header::USER_AGENT] {
        if let Some(value) = parts.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let response = pass(&rest.inner, request).await;
    answer::of(response, &route.method.output(), form).await
}

async fn pass(inner: &Router, request: Request) -> Response {
    match inner.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn not_that_way(method: &Method, allowed: &[Method]) -> Response {
    let list = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let text = format!("{method} is nothing that can be done here; {list} is");
    let problem = Problem::new(Code::Unimplemented, ErrorReason::MethodNotAllowed, text);
    let mut response = plain_as(StatusCode::METHOD_NOT_ALLOWED, &problem);
    if let Ok(list) = HeaderValue::from_str(&list) {
        response.headers_mut().insert(header::ALLOW, list);
    }
    response
}

/// What changes something has a type that a browser sends for a page of somebody else only after asking here, and nobody here
/// says yes: it would come with the certificate of whoever uses that browser.
fn takes_json(headers: &HeaderMap, method: &Method) -> Result<(), Problem> {
    let is_simple = matches!(*method, Method::GET | Method::DELETE);
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"));
    if is_simple || is_json {
        return Ok(());
    }
    let text = "the request has to say `content-type: application/json`, also when its body is empty";
    Err(Problem::new(Code::InvalidArgument, ErrorReason::InvalidField, text))
}
