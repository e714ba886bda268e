//! The answer of a call as JSON: one object, or a stream of them as lines or as server-sent events.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use axum::{body::Body, response::Response};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use muster_proto::{json, v1::WatchEventType};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::Value;
use tonic::{Code, Status};

use super::problem;
use crate::access::plain;

/// How often a stream of events that has nothing to say says so, for proxies that end what is silent.
const SILENCE: Duration = Duration::from_secs(15);
const REVISION: &str = "revision";
/// The flag of a frame, and its length.
const HEADER: usize = 5;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Object,
    Lines,
    Events,
}

impl Form {
    pub fn wanted(headers: &HeaderMap, is_stream: bool) -> Self {
        let accepts = |what: &str| {
            let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
            accept.is_some_and(|accept| accept.split(',').any(|each| each.trim().starts_with(what)))
        };
        match is_stream {
            false => Self::Object,
            true if accepts("text/event-stream") => Self::Events,
            true => Self::Lines,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Object => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        }
    }
}

pub(super) async fn of(response: Response, output: &MessageDescriptor, form: Form) -> Response {
    let (parts, body) = response.into_parts();
    // A call that has failed before it said anything has its status in the headers.
    if let Some(status) = Status::from_header_map(&parts.headers)
        && status.code() != Code::Ok
    {
        return plain(&problem::of_status(&status));
    }
    if parts.status != StatusCode::OK {
        // Not of a call: the door, or what guards it.
        return Response::from_parts(parts, body);
    }
    let mut messages = Messages::new(body, output.clone());
    let body = match form {
        Form::Object => match messages.only().await {
            Ok(value) => Body::from(value.to_string()),
            Err(status) => return plain(&problem::of_status(&status)),
        },
        Form::Lines => Body::from_stream(stream::unfold(messages, next_line)),
        Form::Events => Body::from_stream(stream::unfold((messages, None), next_event)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

type Piece<S> = (Result<Bytes, std::convert::Infallible>, S);

/// The next message. Errors are in the stream, since its status has been sent.
async fn next_line(mut messages: Messages) -> Option<Piece<Messages>> {
    let line = match messages.next().await? {
        Ok(value) => format!("{value}\n"),
        Err(status) => {
            let problem = problem::of_status(&status).to_json();
            format!("{}\n", serde_json::json!({ "error": problem }))
        }
    };
    Some((Ok(Bytes::from(line)), messages))
}

/// The same as an event, with the revision of the one before; or a word that there is none yet.
async fn next_event((mut messages, before): (Messages, Option<i64>)) -> Option<Piece<(Messages, Option<i64>)>> {
    let (text, revision) = match tokio::time::timeout(SILENCE, messages.next()).await {
        Err(_) => (": nothing new\n\n".to_owned(), before),
        Ok(next) => match next? {
            Ok(value) => {
                let revision = value
                    .get(REVISION)
                    .and_then(Value::as_str)
                    .and_then(|text| text.parse().ok());
                let id = revision.filter(|revision| is_complete(&value, *revision, before));
                let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
                (format!("{id}data: {value}\n\n"), revision)
            }
            Err(status) => {
                let problem = problem::of_status(&status).to_json();
                (format!("event: error\ndata: {problem}\n\n"), before)
            }
        },
    };
    Some((Ok(Bytes::from(text)), (messages, revision)))
}

/// Whether who has got this event has got all up to its revision, and may go on from there. What is there when a watch begins
/// has one revision, and the event that ends it; every change has one of its own.
fn is_complete(event: &Value, revision: i64, before: Option<i64>) -> bool {
    let is_synced = event.get("type").and_then(Value::as_str) == Some(WatchEventType::Synced.as_str_name());
    is_synced || before.is_some_and(|before| revision > before)
}

/// The messages of a call, one after the other.
struct Messages {
    body: Pin<Box<Body>>,
    output: MessageDescriptor,
    buffer: BytesMut,
    ready: VecDeque<Result<Value, Status>>,
    has_ended: bool,
}

impl Messages {
    fn new(body: Body, output: MessageDescriptor) -> Self {
        Self {
            body: Box::pin(body),
            output,
            buffer: BytesMut::new(),
            ready: VecDeque::new(),
            has_ended: false,
        }
    }

    /// Of a call that has exactly one.
    async fn only(&mut self) -> Result<Value, Status> {
        let first = self.next().await.transpose()?;
        match (first, self.next().await.transpose()?) {
            (Some(value), None) => Ok(value),
            _ => Err(Status::internal("the call did not have one answer")),
        }
    }

    /// An error is the last one.
    async fn next(&mut self) -> Option<Result<Value, Status>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if self.has_ended {
                return None;
            }
            match self.body.frame().await {
                None => self.end(Ok(())),
                Some(Err(error)) => self.end(Err(Status::unavailable(error.to_string()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        let status = Status::from_header_map(&trailers).filter(|status| status.code() != Code::Ok);
                        self.end(status.map_or(Ok(()), Err));
                    }
                },
            }
        }
    }

    fn end(&mut self, how: Result<(), Status>) {
        self.has_ended = true;
        self.ready.extend(how.err().map(Err));
    }

    fn take(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
        while let Some(header) = self.buffer.first_chunk::<HEADER>() {
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            if self.buffer.len() < HEADER + length {
                return;
            }
            self.buffer.advance(HEADER);
            let message = self.buffer.split_to(length).freeze();
            let value = DynamicMessage::decode(self.output.clone(), message);
            self.ready.push_back(match value {
                Ok(message) => Ok(json::of_dynamic(message)),
                Err(error) => Err(Status::internal(error.to_string())),
            });
        }
    }
}
