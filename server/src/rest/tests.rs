use axum::{body::Body, handler::Handler};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use muster_proto::v1::{self, WatchEventType};
use prost::Message;
use serde_json::Value;
use tonic::Status;

use super::*;

type Frames = Vec<Result<Frame<Bytes>, std::convert::Infallible>>;

fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).expect("it is small"));
    frame.put(message.encode_to_vec().as_slice());
    frame.freeze()
}

/// An answer of gRPC: messages, then how it ended.
fn answer(messages: &[impl Message], end: Result<(), Status>) -> Response {
    let mut frames: Frames = messages
        .iter()
        .map(|message| Ok(Frame::data(framed(message))))
        .collect();
    let mut trailers = HeaderMap::new();
    let status = end.err().unwrap_or_else(|| Status::ok(""));
    status.add_header(&mut trailers).expect("a status fits into trailers");
    frames.push(Ok(Frame::trailers(trailers)));
    Response::new(Body::new(StreamBody::new(stream::iter(frames))))
}

fn gone() -> Status {
    Problem::new(Code::OutOfRange, ErrorReason::RevisionGone, "list again").into()
}

fn event(kind: WatchEventType, revision: i64) -> v1::WatchAgentsResponse {
    v1::WatchAgentsResponse {
        r#type: kind.into(),
        revision,
        ..v1::WatchAgentsResponse::default()
    }
}

/// A call of REST over an inner service.
async fn called(request: http::request::Builder, body: &'static str, inner: Router) -> (http::response::Parts, String) {
    let request = request.body(Body::from(body)).expect("a request");
    let (parts, body) = beside(inner).oneshot(request).await.expect("an answer").into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts, String::from_utf8(bytes.to_vec()).expect("a text"))
}

/// Answers every call.
fn inner<T: 'static>(handler: impl Handler<T, ()>) -> Router {
    Router::new().fallback(handler)
}

fn get(path: &str) -> http::request::Builder {
    Request::get(path)
}

fn post(path: &str) -> http::request::Builder {
    Request::post(path).header("content-type", "application/json; charset=utf-8")
}

fn nothing() -> Router {
    inner(async || -> Response { panic!("nothing is called") })
}

fn problem(parts: &http::response::Parts, text: &str) -> Value {
    assert_eq!(parts.headers[header::CONTENT_TYPE], "application/problem+json");
    let problem: Value = serde_json::from_str(text).expect("it is JSON");
    assert_eq!(problem["status"], parts.status.as_u16());
    problem
}

#[tokio::test]
async fn a_path_becomes_a_call_of_grpc_and_its_answer_json() {
    let service = inner(async |request: Request| {
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri().path(), "/muster.v1.AgentService/GetAgent");
        assert_eq!(request.headers()[header::CONTENT_TYPE], "application/grpc");
        assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer mk_a_b");
        assert!(!request.headers().contains_key("cookie"), "nothing else goes in");
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let wanted = v1::GetAgentRequest { agent: "web 01".into() };
        assert_eq!(body, framed(&wanted));
        let agent = v1::Agent {
            name: wanted.agent,
            revision: 7,
            ..v1::Agent::default()
        };
        answer(&[v1::GetAgentResponse { agent: Some(agent) }], Ok(()))
    });
    let request = get("/v1/agents/web%2001")
        .header("authorization", "Bearer mk_a_b")
        .header("cookie", "a=b");
    let (parts, text) = called(request, "", service).await;
    assert_eq!(parts.status, StatusCode::OK);
    assert_eq!(parts.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(text, r#"{"agent":{"name":"web 01","revision":"7"}}"#);
}

#[tokio::test]
async fn what_a_call_fails_with_is_a_problem() {
    let before =
        inner(async || Status::from(Problem::new(Code::NotFound, ErrorReason::NotFound, "no")).into_http::<Body>());
    let (parts, text) = called(get("/v1/agents/a"), "", before).await;
    assert_eq!(parts.status, StatusCode::NOT_FOUND);
    assert_eq!(problem(&parts, &text)["reason"], "NOT_FOUND");

    let after = inner(async || answer(&[v1::GetAgentResponse::default()], Err(gone())));
    let (parts, text) = called(get("/v1/agents/a"), "", after).await;
    assert_eq!(parts.status, StatusCode::BAD_REQUEST);
    assert_eq!(problem(&parts, &text)["reason"], "REVISION_GONE");

    let no_messages: &[v1::GetAgentResponse] = &[];
    let none = inner(async move || answer(no_messages, Ok(())));
    let (parts, text) = called(get("/v1/agents/a"), "", none).await;
    assert_eq!(parts.status, StatusCode::INTERNAL_SERVER_ERROR);
    problem(&parts, &text);
}

#[tokio::test]
async fn a_request_that_cannot_be_read_ends_the_call_with_what_is_wrong() {
    let service = inner(async |request: Request| {
        let error = request.into_body().collect().await.expect_err("it is not to be read");
        // As tonic does with what a body breaks off by.
        Status::from_error(Box::new(error)).into_http::<Body>()
    });
    let (parts, text) = called(post("/v1/tokens"), r#"{"uses": "many"}"#, service).await;
    assert_eq!(parts.status, StatusCode::BAD_REQUEST);
    let problem = problem(&parts, &text);
    assert_eq!(problem["reason"], "INVALID_FIELD");
    assert_eq!(problem["fieldViolations"][0]["field"], "uses");
}

#[tokio::test]
async fn another_method_is_told_which_ones_there_are() {
    let (parts, text) = called(Request::put("/v1/tokens"), "{}", nothing()).await;
    assert_eq!(parts.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(parts.headers[header::ALLOW], "POST, GET");
    assert_eq!(problem(&parts, &text)["reason"], "METHOD_NOT_ALLOWED");
}

#[tokio::test]
async fn what_changes_something_says_that_it_is_json() {
    for request in [
        Request::post("/v1/tokens"),
        Request::post("/v1/tokens").header("content-type", "text/plain"),
        Request::post("/v1/agents/a:revoke").header("content-type", "application/x-www-form-urlencoded"),
        Request::put("/v1/roles/a").header("content-type", "application/jsonp"),
    ] {
        let (parts, text) = called(request, "{}", nothing()).await;
        assert_eq!(parts.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        problem(&parts, &text);
    }
}

#[tokio::test]
async fn what_is_no_route_is_for_the_inner_service() {
    for path in [
        "/v1/nothing",
        "/v1",
        "/v1/",
        "/healthz",
        "/muster.v1.AgentService/ListAgents",
    ] {
        let service = inner(async |request: Request| request.uri().path().to_owned());
        let (_, text) = called(get(path), "", service).await;
        assert_eq!(text, path);
    }
}

#[tokio::test]
async fn a_stream_is_a_line_for_each_message_and_one_for_its_error() {
    let service = inner(async || {
        answer(
            &[event(WatchEventType::Put, 3), event(WatchEventType::Synced, 3)],
            Err(gone()),
        )
    });
    let (parts, text) = called(get("/v1/agents:watch"), "", service).await;
    assert_eq!(parts.headers[header::CONTENT_TYPE], "application/x-ndjson");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["type"], "WATCH_EVENT_TYPE_SYNCED");
    assert_eq!(lines[2]["error"]["reason"], "REVISION_GONE");
}

#[tokio::test]
async fn a_stream_that_is_refused_at_once_is_a_problem() {
    let service = inner(async || gone().into_http::<Body>());
    let request = get("/v1/agents:watch").header("accept", "text/event-stream");
    let (parts, text) = called(request, "", service).await;
    assert_eq!(parts.status, StatusCode::BAD_REQUEST, "a browser does not try it again");
    problem(&parts, &text);
}

#[tokio::test]
async fn events_have_the_id_that_it_is_safe_to_go_on_from() {
    let events = [
        event(WatchEventType::Put, 3),
        event(WatchEventType::Put, 3),
        event(WatchEventType::Synced, 3),
        event(WatchEventType::Put, 5),
    ];
    let service = inner(async move |request: Request| {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let asked = v1::WatchAgentsRequest::decode(&body[5..]).expect("a request");
        match asked.revision {
            0 => answer(&events, Err(gone())),
            _ => answer(&[event(WatchEventType::Put, asked.revision + 1)], Ok(())),
        }
    });
    let request = |id: &str| {
        get("/v1/agents:watch")
            .header("accept", "text/html, text/event-stream")
            .header("last-event-id", id)
    };
    let (parts, text) = called(request(""), "", service.clone()).await;
    assert_eq!(parts.headers[header::CONTENT_TYPE], "text/event-stream");
    let shown: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(shown.len(), 5, "{text}");
    // Whoever is cut within what is there at the start has to begin again.
    assert!(shown[..2].iter().all(|event| event.starts_with("data: {")), "{text}");
    assert!(
        shown[2].starts_with("id: 3\ndata: {") && shown[3].starts_with("id: 5\ndata: {"),
        "{text}"
    );
    assert!(shown[4].starts_with("event: error\ndata: {"), "{text}");

    let (_, text) = called(request("5"), "", service).await;
    assert!(text.starts_with("data: {\"revision\":\"6\""), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_of_events_says_that_it_is_alive() {
    let service = inner(async || {
        let late = stream::once(async {
            tokio::time::sleep(std::time::Duration::from_secs(40)).await;
            Ok::<_, std::convert::Infallible>(Frame::data(framed(&event(WatchEventType::Put, 1))))
        });
        Response::new(Body::new(StreamBody::new(late)))
    });
    let request = get("/v1/agents:watch").header("accept", "text/event-stream");
    let (_, text) = called(request, "", service).await;
    assert_eq!(text.matches(": nothing new\n\n").count(), 2, "{text}");
}
