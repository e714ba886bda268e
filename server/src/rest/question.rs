//! What a request asks for: path, query and body of it as one message. The body is read only when the call is, which is after
//! the door has let it in.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::Frame;
use muster_proto::error::{FieldViolation, Problem};
use percent_encoding::percent_decode_str;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{Deserializer, value::MapDeserializer};
use serde_json::{Error, Map, Value};
use tonic::Status;

use super::route::{Route, Variables};

/// As for gRPC.
const MAX_BODY: usize = 16 << 20;
/// What is taken of a larger one, and dropped, so that its sender hears of it.
const MAX_SWALLOWED: usize = 4 * MAX_BODY;
const MAX_QUERY: usize = 16 << 10;
/// What is taken of a body before it is known who sends it, and how long that may take.
const MAX_BEGUN: usize = 16 << 10;
const BEGIN_WITHIN: Duration = Duration::from_secs(1);
/// "metadata.labels" and the like.
const MAX_DEPTH: usize = 8;
/// What a client of server-sent events says of the last one that it has got; the name of the field that means the same.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";
pub(super) const REVISION: &str = "revision";

pub(super) struct Question {
    input: MessageDescriptor,
    has_body: bool,
    variables: Variables,
    query: Option<String>,
    last_event_id: Option<String>,
    body: Body,
}

impl Question {
    pub fn new(route: &Route, variables: Variables, query: Option<&str>, headers: &HeaderMap, body: Body) -> Self {
        let last_event_id = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
        Self {
            input: route.method.input(),
            has_body: route.has_body,
            variables,
            query: query.filter(|query| !query.is_empty()).map(str::to_owned),
            last_event_id: last_event_id.map(str::to_owned),
            body,
        }
    }

    /// The one message of a call, made when it is read. What is wrong with it ends the call as any other problem would.
    pub fn into_body(self) -> Body {
        let message = async move { self.message().await.map_err(Status::from) };
        Body::from_stream(stream::once(message))
    }

    async fn message(self) -> Result<Bytes, Problem> {
        let mut fields = match self.has_body {
            true => of_body(self.body).await?,
            false => Map::new(),
        };
        if let Some(query) = &self.query {
            if self.has_body {
                return Err(invalid("the query", "belongs into the body of this request".to_owned()));
            }
            add_query(&mut fields, &self.input, query)?;
        }
        if let Some(id) = self.last_event_id.filter(|_| !fields.contains_key(REVISION)) {
            // Who begins again has got nothing; who goes on names what it has.
            if self.input.get_field_by_name(REVISION).is_some() && !id.is_empty() {
                fields.insert(REVISION.to_owned(), Value::String(id));
            }
        }
        for (name, value) in self.variables {
            let json_name = self
                .input
                .get_field_by_name(&name)
                .map(|field| field.json_name().to_owned());
            let Some(json_name) = json_name else { continue };
            let before = [fields.remove(&name), fields.remove(&json_name)];
            if before
                .into_iter()
                .flatten()
                .any(|before| before != Value::String(value.clone()))
            {
                return Err(invalid(&name, "is something else in the path".to_owned()));
            }
            fields.insert(json_name, Value::String(value));
        }
        let message = read(&self.input, &fields)
            .map_err(|error| Problem::invalid_fields(vec![misread(&self.input, &fields, &error)]))?;
        let mut frame = BytesMut::with_capacity(5 + message.encoded_len());
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
        frame.put(message.encode_to_vec().as_slice());
        Ok(frame.freeze())
    }
}

fn read<'de>(
    input: &MessageDescriptor,
    fields: impl Deserializer<'de, Error = Error>,
) -> Result<DynamicMessage, Error> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(input.clone(), fields, &options)
}

/// Which field it is that cannot be read, and why.
fn misread(input: &MessageDescriptor, fields: &Map<String, Value>, error: &Error) -> FieldViolation {
    let alone = |name: &str, value: &Value| {
        let only = MapDeserializer::new(std::iter::once((name.to_owned(), value)));
        read(input, only).err()
    };
    let wrong = fields
        .iter()
        .find_map(|(name, value)| alone(name, value).map(|error| (name, value, error)));
    // Each is good and all together are not: two of which only one may be there.
    let Some((name, value, error)) = wrong else {
        return FieldViolation::new("the request", error.to_string());
    };
    let Some(field) = find(input, name) else {
        return FieldViolation::new(name, "is no field of this request");
    };
    let Kind::Message(inner) = field.kind() else {
        return FieldViolation::new(name, error.to_string());
    };
    match value {
        Value::Object(fields) if !field.is_list() && !field.is_map() && !is_well_known(&inner) => {
            misread(&inner, fields, &error).within(name)
        }
        Value::Array(items) if field.is_list() => {
            let wrong = items.iter().enumerate().find_map(|(index, item)| {
                let fields = item.as_object()?;
                let error = read(&inner, fields).err()?;
                Some(misread(&inner, fields, &error).within(&format!("{name}[{index}]")))
            });
            wrong.unwrap_or_else(|| FieldViolation::new(name, error.to_string()))
        }
        _ => {
            let example = match inner.full_name() {
                "google.protobuf.Timestamp" => "; a time is written as \"2026-11-20T12:00:00Z\"",
                "google.protobuf.Duration" => "; a duration is written in seconds, as \"90s\"",
                _ => "",
            };
            FieldViolation::new(name, format!("{error}{example}"))
        }
    }
}

/// The same request, with what is small of its body at hand: clients take an answer for a broken stream that comes before they
/// have sent all, and a refusal would.
pub(super) async fn begun(request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let (parts, mut body) = request.into_parts();
    let mut frames = Vec::new();
    let mut length = 0;
    let begin = async {
        while length < MAX_BEGUN
            && let Some(frame) = body.frame().await
        {
            length += frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
            frames.push(frame);
        }
    };
    // Who is slow is refused before all was sent.
    let _ = tokio::time::timeout(BEGIN_WITHIN, begin).await;
    let rest = BodyStream::new(body);
    let body = Body::new(StreamBody::new(stream::iter(frames).chain(rest)));
    Request::from_parts(parts, body)
}

async fn of_body(mut body: Body) -> Result<Map<String, Value>, Problem> {
    let (mut bytes, mut length) = (BytesMut::new(), 0);
    while length <= MAX_SWALLOWED
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|_| invalid("the body", "broke off".to_owned()))?;
        let data = frame.into_data().unwrap_or_default();
        length += data.len();
        if length <= MAX_BODY {
            bytes.extend_from_slice(&data);
        }
    }
    if length > MAX_BODY {
        return Err(invalid("the body", format!("is larger than {} MiB", MAX_BODY >> 20)));
    }
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(body) if has_too_large(&body) => Err(invalid("the body", "has a number that is too large".to_owned())),
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(invalid("the body", "is JSON, but no object".to_owned())),
        Err(error) => Err(invalid("the body", format!("is no JSON: {error}"))),
    }
}

/// A whole number that no field holds: it would be read as one that is near it.
fn has_too_large(value: &Value) -> bool {
    /// 2^63.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    match value {
        Value::Number(number) => number.is_f64() && number.as_f64().is_some_and(|number| number.abs() >= LIMIT),
        Value::Array(values) => values.iter().any(has_too_large),
        Value::Object(fields) => fields.values().any(has_too_large),
        _ => false,
    }
}

/// `a.b=1&list=x&list=y`, by the names of the contract or those of its JSON.
fn add_query(fields: &mut Map<String, Value>, input: &MessageDescriptor, query: &str) -> Result<(), Problem> {
    if query.len() > MAX_QUERY {
        return Err(invalid("the query", format!("is longer than {} KiB", MAX_QUERY >> 10)));
    }
    if percent_decode_str(query).decode_utf8().is_err() {
        return Err(invalid("the query", "is no UTF-8".to_owned()));
    }
    for (path, value) in form_urlencoded::parse(query.as_bytes()) {
        let unknown = || invalid(&path, "is no field of this request".to_owned());
        let names: Vec<&str> = path.split('.').collect();
        let Some((last, above)) = names.split_last().filter(|_| names.len() <= MAX_DEPTH) else {
            return Err(unknown());
        };
        let (mut descriptor, mut at) = (input.clone(), &mut *fields);
        for name in above {
            let field = find(&descriptor, name).filter(|field| !field.is_list() && !field.is_map());
            let Some((field, Kind::Message(inner))) = field.map(|field| (field.clone(), field.kind())) else {
                return Err(unknown());
            };
            if is_well_known(&inner) {
                return Err(unknown());
            }
            let entry = at
                .entry(field.json_name().to_owned())
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(next) = entry else {
                return Err(unknown());
            };
            (descriptor, at) = (inner, next);
        }
        let field = find(&descriptor, last)
            .filter(|field| !field.is_map())
            .ok_or_else(unknown)?;
        let value = of_text(&field, &value).ok_or_else(|| invalid(&path, format!("cannot be {value:?}")))?;
        match at.get_mut(field.json_name()) {
            Some(Value::Array(values)) => values.push(value),
            Some(_) => return Err(invalid(&path, "is there twice".to_owned())),
            None => {
                let value = if field.is_list() {
                    Value::Array(vec![value])
                } else {
                    value
                };
                at.insert(field.json_name().to_owned(), value);
            }
        }
    }
    Ok(())
}

fn find(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    descriptor
        .get_field_by_name(name)
        .or_else(|| descriptor.get_field_by_json_name(name))
}

/// As it would stand in JSON. Numbers, times and names of enums do so as text.
fn of_text(field: &FieldDescriptor, text: &str) -> Option<Value> {
    match field.kind() {
        Kind::Bool => text.parse().ok().map(Value::Bool),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32 => {
            text.parse::<i64>().ok().map(Value::from)
        }
        Kind::Message(inner) if !is_well_known(&inner) => None,
        _ => Some(Value::String(text.to_owned())),
    }
}

/// Written as a text.
fn is_well_known(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

fn invalid(what: &str, problem: String) -> Problem {
    Problem::invalid_fields(vec![FieldViolation::new(what, problem)])
}

#[cfg(test)]
mod tests {
    use muster_proto::json::descriptor;
    use muster_proto::v1::{
        ApplyPoliciesRequest, CreateGrantRequest, ListCertificatesRequest, ListEventsRequest, ListResultsRequest,
        UpdateAgentLabelsRequest,
    };
    use serde_json::json;

    use super::*;

    async fn ask<M>(
        has_body: bool,
        variables: &[(&str, &str)],
        query: Option<&str>,
        body: &'static str,
    ) -> Result<M, String>
    where
        M: prost::Message + prost::Name + Default,
    {
        let question = Question {
            input: descriptor::<M>(),
            has_body,
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            query: query.map(str::to_owned),
            last_event_id: None,
            body: Body::from(body),
        };
        let bytes = question.message().await.map_err(|problem| problem.to_string())?;
        assert_eq!(
            u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize,
            bytes.len() - 5
        );
        Ok(M::decode(&bytes[5..]).expect("it is the message"))
    }

    #[tokio::test]
    async fn a_query_fills_fields_of_all_kinds() {
        let query = "agent=web-01&min_severity=EVENT_SEVERITY_WARNING&reasons=A&reasons=B&since=2026-11-20T12:00:00Z&pageSize=7";
        let request: ListEventsRequest = ask(false, &[], Some(query), "").await.expect("a request");
        assert_eq!((request.agent.as_str(), request.page_size), ("web-01", 7));
        assert_eq!(request.reasons, ["A", "B"]);
        assert!(request.since.is_some() && request.min_severity != 0);
        let query = "readMask=time,agentName&read_mask.paths=x";
        assert!(ask::<ListEventsRequest>(false, &[], Some(query), "").await.is_err());
        let request: ListEventsRequest = ask(false, &[], Some("readMask=time,agentName"), "")
            .await
            .expect("a request");
        assert_eq!(request.read_mask.expect("a mask").paths, ["time", "agent_name"]);
        let request: ListCertificatesRequest = ask(false, &[], Some("show_ended=true"), "").await.expect("a request");
        assert!(request.show_ended);
    }

    #[tokio::test]
    async fn a_query_that_is_wrong_names_what() {
        for (query, what) in [
            ("nothing=1", "nothing"),
            ("check=%ff", "UTF-8"),
            ("page_size=many", "page_size"),
            ("agent=a&agent=b", "agent"),
            ("since=yesterday", "since: "),
            ("page_size=99999999999", "pageSize: "),
            ("since.seconds=1", "since.seconds"),
            ("a.b.c.d.e.f.g.h.i=1", "a.b.c"),
        ] {
            let refused = ask::<ListResultsRequest>(false, &[], Some(query), "")
                .await
                .expect_err(query);
            assert!(refused.contains(what), "{query}: {refused}");
        }
    }

    #[tokio::test]
    async fn a_body_and_the_path_are_one_request() {
        let body = r#"{"set": {"env": "prod"}, "remove": ["spot"]}"#;
        let request: UpdateAgentLabelsRequest = ask(true, &[("agent", "web-01")], None, body).await.expect("a request");
        assert_eq!(request.agent, "web-01");
        assert_eq!(json!(request.set), json!({"env": "prod"}));
        assert_eq!(request.remove, ["spot"]);
        let none: UpdateAgentLabelsRequest = ask(true, &[("agent", "a")], None, "").await.expect("a request");
        assert_eq!(none.agent, "a");
    }

    #[tokio::test]
    async fn a_body_that_is_wrong_says_how() {
        for (body, what) in [
            ("[]", "no object"),
            ("{", "no JSON"),
            ("\r", "no JSON"),
            (r#"{"sets": {}}"#, "sets: is no field"),
            (r#"{"agent": "other"}"#, "something else in the path"),
            (r#"{"set": {"env": 7}}"#, "set: "),
        ] {
            let refused = ask::<UpdateAgentLabelsRequest>(true, &[("agent", "a")], None, body)
                .await
                .expect_err(body);
            assert!(refused.contains(what), "{body}: {refused}");
        }
        let refused = ask::<UpdateAgentLabelsRequest>(true, &[("agent", "a")], Some("set=1"), "{}").await;
        assert!(refused.is_err_and(|text| text.contains("query")));
    }

    #[tokio::test]
    async fn what_is_wrong_is_named_by_its_path() {
        for (body, what) in [
            (
                r#"{"policies": [{}, {"check": {"schedule": {"interval": "1h"}}}]}"#,
                "policies[1].check.schedule.interval: ",
            ),
            (
                r#"{"policies": [{"metadata": {"nam": "x"}}]}"#,
                "policies[0].metadata.nam: is no field",
            ),
            (r#"{"policies": [7]}"#, "policies: "),
            (r#"{"policies": {}}"#, "policies: "),
        ] {
            let refused = ask::<ApplyPoliciesRequest>(true, &[], None, body)
                .await
                .expect_err(body);
            assert!(refused.starts_with(what), "{body}: {refused}");
        }
        let both = r#"{"user": "a", "apiKey": "b"}"#;
        let refused = ask::<CreateGrantRequest>(true, &[], None, both)
            .await
            .expect_err("one of them");
        assert!(refused.starts_with("the request: "), "{refused}");
    }
}
