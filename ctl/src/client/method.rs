//! What the contract says of a method: the verb and the path of its HTTP form. From it follows whether a call changes something,
//! and what the same call is for `curl`. There is no list of methods here.

use http::Method as Verb;
use muster_proto::json::descriptor_pool;
use prost_reflect::{DynamicMessage, MethodDescriptor, ReflectMessage as _, Value as Reflected};
use serde_json::{Map, Value};

const ANNOTATION: &str = "google.api.http";
/// Fields of requests that say to change nothing, by which some calls only look.
const LOOKS: [&str; 2] = ["dry_run", "validate_only"];

#[derive(Debug)]
pub struct Method {
    descriptor: MethodDescriptor,
    verb: Verb,
    /// "/v1/agents/{agent}:revoke".
    template: String,
    has_body: bool,
}

impl Method {
    /// By its path, "/muster.v1.AgentService/ListAgents". None: it has no HTTP form.
    pub fn of(path: &str) -> Option<Method> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        let service = descriptor_pool().get_service_by_name(service)?;
        let descriptor = service.methods().find(|method| method.name() == name)?;
        let annotation = descriptor_pool().get_extension_by_name(ANNOTATION)?;
        let options = descriptor.options();
        let rule = options.get_extension(&annotation);
        let rule = rule.as_message()?;
        let text = |field: &str| {
            let value = rule.get_field_by_name(field)?;
            value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let verbs = [
            ("get", Verb::GET),
            ("put", Verb::PUT),
            ("post", Verb::POST),
            ("delete", Verb::DELETE),
            ("patch", Verb::PATCH),
        ];
        let (verb, template) = verbs
            .into_iter()
            .find_map(|(field, verb)| text(field).map(|path| (verb, path)))?;
        let has_body = text("body").is_some();
        Some(Method {
            descriptor,
            verb,
            template,
            has_body,
        })
    }

    /// "muster.v1.AgentService/ListAgents".
    pub fn name(&self) -> String {
        let service = self.descriptor.parent_service();
        format!("{}/{}", service.full_name(), self.descriptor.name())
    }

    pub fn verb(&self) -> &Verb {
        &self.verb
    }

    pub fn is_stream(&self) -> bool {
        self.descriptor.is_server_streaming()
    }

    /// The request of a call, which is one message behind a flag and its length.
    pub fn request(&self, frame: &[u8]) -> Option<DynamicMessage> {
        let (&[is_compressed, ..], message) = frame.split_first_chunk::<5>()?;
        if is_compressed != 0 {
            return None;
        }
        DynamicMessage::decode(self.descriptor.input(), message).ok()
    }

    /// Whether a call with this request changes something: all do but those that HTTP reads by, those that the contract says have
    /// no effect, and those that are asked only to look.
    pub fn changes(&self, request: Option<&DynamicMessage>) -> bool {
        let proto = self.descriptor.method_descriptor_proto();
        let level = proto.options.as_ref().map(|options| options.idempotency_level());
        let is_safe = level == Some(prost_reflect::prost_types::method_options::IdempotencyLevel::NoSideEffects);
        let looks = |request: &DynamicMessage| {
            let is_set = |field: &str| {
                let value = request.get_field_by_name(field);
                value.is_some_and(|value| *value == Reflected::Bool(true))
            };
            LOOKS.iter().any(|field| is_set(field))
        };
        self.verb != Verb::GET && !is_safe && !request.is_some_and(looks)
    }

    /// Path with query, and the body if there is one.
    pub fn http(&self, request: &DynamicMessage) -> (String, Option<Value>) {
        let mut fields = fields(request);
        let mut path = String::new();
        let mut rest = self.template.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            path.push_str(before);
            let (variable, after) = after.split_once('}').unwrap_or((after, ""));
            let field = request.descriptor().get_field_by_name(variable);
            let key = field.map(|field| field.json_name().to_owned()).unwrap_or_default();
            path.push_str(&escaped(&plain(&fields.remove(&key).unwrap_or_default())));
            rest = after;
        }
        path.push_str(rest);
        if self.has_body {
            return (path, Some(Value::Object(fields)));
        }
        let mut pairs = Vec::new();
        for (key, value) in &fields {
            match value {
                Value::Array(values) => pairs.extend(values.iter().map(|value| (key, plain(value)))),
                value => pairs.push((key, plain(value))),
            }
        }
        for (index, (key, value)) in pairs.iter().enumerate() {
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(&format!("{key}={}", escaped(value)));
        }
        (path, None)
    }
}

/// The request in JSON.
pub fn fields(request: &DynamicMessage) -> Map<String, Value> {
    match muster_proto::json::of_dynamic(request.clone()) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// For a segment of a path or a value of a query (RFC 3986, unreserved characters).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use muster_proto::v1;

    use super::*;

    fn frame(message: &impl prost::Message) -> Vec<u8> {
        let message = message.encode_to_vec();
        let mut frame = vec![0];
        frame.extend((message.len() as u32).to_be_bytes());
        frame.extend(message);
        frame
    }

    fn http(path: &str, message: &impl prost::Message) -> (String, Option<Value>) {
        let method = Method::of(path).unwrap();
        method.http(&method.request(&frame(message)).unwrap())
    }

    #[test]
    fn every_method_of_the_contract_is_known_to_read_or_to_change() {
        let mut reads = Vec::new();
        let mut number = 0;
        let services = descriptor_pool().services();
        let operators = |method: &MethodDescriptor| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            Method::of(&path)
        };
        for method in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let Some(known) = operators(&method) else { continue };
            number += 1;
            if !known.changes(None) {
                reads.push(method.name().to_owned());
            }
        }
        assert!(number > 40, "{number}");
        for name in ["ListAgents", "GetAgent", "WatchStates", "GetCaller", "QueryMetrics"] {
            assert!(reads.iter().any(|read| read == name), "{name}: {reads:?}");
        }
        for verb in [
            "Create",
            "Delete",
            "Revoke",
            "Update",
            "Drain",
            "Preregister",
            "Renew",
            "Activate",
        ] {
            assert!(!reads.iter().any(|read| read.starts_with(verb)), "{verb}: {reads:?}");
        }
    }

    #[test]
    fn a_request_becomes_a_path_a_query_and_a_body() {
        let list = v1::ListAgentsRequest {
            selector: "env in (a,b)".to_owned(),
            page_size: 5,
            read_mask: Some(prost_types::FieldMask {
                paths: vec!["id".to_owned(), "enroll_time".to_owned()],
            }),
            ..Default::default()
        };
        let (path, body) = http("/muster.v1.AgentService/ListAgents", &list);
        assert_eq!(body, None);
        let (path, query) = path.split_once('?').unwrap();
        let mut query: Vec<&str> = query.split('&').collect();
        query.sort_unstable();
        assert_eq!(path, "/v1/agents");
        assert_eq!(
            query,
            [
                "pageSize=5",
                "readMask=id%2CenrollTime",
                "selector=env%20in%20%28a%2Cb%29"
            ]
        );

        let revoke = v1::RevokeAgentRequest {
            agent: "a/b:c".to_owned(),
            reason: "it's gone".to_owned(),
        };
        let (path, body) = http("/muster.v1.AgentService/RevokeAgent", &revoke);
        assert_eq!(path, "/v1/agents/a%2Fb%3Ac:revoke");
        assert_eq!(body, Some(serde_json::json!({ "reason": "it's gone" })));
        let events = v1::ListEventsRequest {
            reasons: vec!["A".to_owned(), "B".to_owned()],
            ..Default::default()
        };
        let (path, _) = http("/muster.v1.EventService/ListEvents", &events);
        assert_eq!(path, "/v1/events?reasons=A&reasons=B");
    }

    #[test]
    fn what_is_no_message_is_none() {
        let method = Method::of("/muster.v1.AgentService/ListAgents").unwrap();
        for frame in [&[][..], &[0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1, 255]] {
            assert!(method.request(frame).is_none(), "{frame:?}");
        }
        for path in [
            "",
            "/",
            "/muster.v1.AgentService/Nothing",
            "/grpc.health.v1.Health/Check",
        ] {
            assert!(Method::of(path).is_none(), "{path}");
        }
    }
}
