//! The description of the API for programs that know OpenAPI: made of the descriptors, with the comments of the contract as
//! texts and the table of methods for who may do what. Describes what the JSON dialect does, and decides nothing.

mod schemas;

use std::{collections::BTreeMap, sync::LazyLock};

use muster_proto::{comments, json::descriptor_pool};
use prost_reflect::{FieldDescriptor, MethodDescriptor, ServiceDescriptor};
use serde_json::{Map, Value, json};

use self::schemas::{Schemas, in_body, in_query};
use super::{
    question::{LAST_EVENT_ID, REVISION},
    route::{PACKAGE, Route, Routes},
};
use crate::access::{METHODS, Who, permission::Reach};

const PROBLEM: &str = "application/problem+json";

/// What is served beside the contract: path, who asks for it, the type of the answer, the query parameter.
pub(super) const PLAIN: &[Plain] = &[
    Plain {
        path: "/crl",
        summary: "Revocation list",
        description: "What a CA no longer stands for: of the one that issues, or of another one.",
        answer: "application/pkix-crl",
        parameter: Some(("ca", "Id of the CA; absent: the one that issues.")),
    },
    Plain {
        path: "/healthz",
        summary: "Health",
        description: "200 while the controller and its database work.",
        answer: "text/plain; charset=utf-8",
        parameter: None,
    },
    Plain {
        path: "/metrics",
        summary: "Metrics of the controller",
        description: "Its own metrics, as OpenMetrics.",
        answer: "application/openmetrics-text; version=1.0.0; charset=utf-8",
        parameter: None,
    },
    Plain {
        path: "/openapi.json",
        summary: "This description",
        description: "What you are reading, as OpenAPI 3.1.",
        answer: "application/json",
        parameter: None,
    },
    Plain {
        path: "/docs",
        summary: "This description, for people",
        description: "A page that shows it in a browser.",
        answer: "text/html; charset=utf-8",
        parameter: None,
    },
];

#[derive(Debug)]
pub(super) struct Plain {
    pub path: &'static str,
    summary: &'static str,
    description: &'static str,
    answer: &'static str,
    parameter: Option<(&'static str, &'static str)>,
}

/// As it is served, with a line for each field.
pub(super) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", document(&Routes::of_contract())));
    &TEXT
}

fn document(routes: &Routes) -> Value {
    let mut schemas = Schemas::default();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut in_order: Vec<&Route> = routes.iter().collect();
    in_order.sort_by_key(|route| (route.template.text.as_str(), route.verb.as_str()));
    // Paths that differ in the names of their variables are one, with the names of the first.
    let mut shapes: BTreeMap<String, &Route> = BTreeMap::new();
    for route in in_order {
        let time = times.entry(route.method.name().to_owned()).or_default();
        *time += 1;
        let first = *shapes
            .entry(route.template.with_variables(std::iter::repeat("")))
            .or_insert(route);
        let mut operation = operation(route, *time, &mut schemas);
        for (index, name) in first.template.variables().enumerate() {
            operation["parameters"][index]["name"] = Value::String(name.to_owned());
        }
        let path = paths.entry(first.template.text.clone()).or_default();
        path.insert(route.verb.as_str().to_lowercase(), operation);
    }
    for plain in PLAIN {
        let path = paths.entry(plain.path.to_owned()).or_default();
        path.insert("get".to_owned(), of_plain(plain));
    }
    let services = services().map(|service| {
        let about = comments::of_service(&service);
        json!({ "name": service.name(), "description": about })
    });
    let mut tags: Vec<Value> = services.collect();
    tags.push(json!({ "name": "Controller", "description": "The controller itself, over plain HTTP." }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Muster",
            "version": "v1",
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "certificate": [] }, { "apiKey": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {
                "certificate": { "type": "mutualTLS", "description": "The certificate and the key of a user." },
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "mk_<id>_<secret>",
                    "description": "An API key. A call shows a key or a certificate, never both.",
                },
            },
            "responses": {
                "Problem": {
                    "description": "The call failed.",
                    "content": { PROBLEM: { "schema": { "$ref": "#/components/schemas/Problem" } } },
                },
            },
            "schemas": schemas.finish(),
        },
    })
}

const ABOUT: &str = "The API of the controller over REST. The same is served as gRPC, on the same port. Fields that have their \
                     default value are left out of answers, save `items` and `revision` of lists; other fields may come with \
                     later releases. Fields of requests that are not known are refused.";

fn services() -> impl Iterator<Item = ServiceDescriptor> {
    let routes = Routes::of_contract();
    descriptor_pool().services().filter(move |service| {
        service.package_name() == PACKAGE && routes.iter().any(|route| route.method.parent_service() == service)
    })
}

/// `time`: which route to its method it is, of several.
fn operation(route: &Route, time: usize, schemas: &mut Schemas) -> Value {
    let method = &route.method;
    let id = match time {
        1 => method.name().to_owned(),
        _ => format!("{}{time}", method.name()),
    };
    let grpc = route.grpc_path.path();
    let description = [comments::of_method(method), who_may(grpc), how_it_streams(method)];
    let description: Vec<String> = description.into_iter().filter(|text| !text.is_empty()).collect();
    let mut operation = json!({
        "operationId": id,
        "tags": [method.parent_service().name()],
        "summary": in_words(method.name()),
        "description": description.join("\n\n"),
        "x-grpc-method": grpc,
        "parameters": parameters(route),
        "responses": {
            "200": answer(method, schemas),
            "default": { "$ref": "#/components/responses/Problem" },
        },
    });
    if route.has_body {
        let is_in_path = |field: &FieldDescriptor| route.template.variables().any(|name| name == field.name());
        let fields: Vec<FieldDescriptor> = method.input().fields().filter(|field| !is_in_path(field)).collect();
        let schema = in_body(&method.input(), &fields, schemas);
        // It may be empty, but its type has to be told.
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

fn answer(method: &MethodDescriptor, schemas: &mut Schemas) -> Value {
    let message = schemas.sent(&method.output());
    if !method.is_server_streaming() {
        let content = json!({ "application/json": { "schema": message } });
        return json!({ "description": "Done.", "content": content });
    }
    let error = json!({
        "title": "StreamError",
        "description": "The last one, when the stream breaks off.",
        "type": "object",
        "required": ["error"],
        "properties": { "error": { "$ref": "#/components/schemas/Problem" } },
    });
    json!({
        "description": "One after the other.",
        "content": {
            "application/x-ndjson": { "schema": { "description": "Of each line.", "anyOf": [message, error] } },
            "text/event-stream": { "schema": { "type": "string", "description": "`data` is what a line would be." } },
        },
    })
}

fn how_it_streams(method: &MethodDescriptor) -> String {
    if !method.is_server_streaming() {
        return String::new();
    }
    let text = "The answer is a stream: a JSON object a line (NDJSON), or server-sent events with \
                `accept: text/event-stream`. What fails once it has begun is its last object, `{\"error\": {...}}`, or an event \
                of the type `error`.";
    match resumes(method) {
        true => {
            format!("{text} Events have the id that `{LAST_EVENT_ID}` resumes after, which browsers do by themselves.")
        }
        false => text.to_owned(),
    }
}

fn resumes(method: &MethodDescriptor) -> bool {
    method.is_server_streaming() && method.input().get_field_by_name(REVISION).is_some()
}

/// Of the path, of the query, and the one header.
fn parameters(route: &Route) -> Vec<Value> {
    let input = route.method.input();
    let mut all = Vec::new();
    for name in route.template.variables() {
        let about = input.get_field_by_name(name).map(|field| comments::of_field(&field));
        all.push(json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": about.unwrap_or_default(),
            "schema": { "type": "string", "minLength": 1 },
        }));
    }
    let is_in_path = |field: &FieldDescriptor| route.template.variables().any(|name| name == field.name());
    for field in input.fields().filter(|field| !route.has_body && !is_in_path(field)) {
        all.push(json!({
            "name": field.json_name(),
            "in": "query",
            "description": comments::of_field(&field),
            "schema": in_query(&field),
        }));
    }
    if resumes(&route.method) {
        all.push(json!({
            "name": LAST_EVENT_ID,
            "in": "header",
            "description": "As `revision`, when that is not given: the id of the last event that the caller has got.",
            "schema": { "type": "string", "pattern": "^[0-9]+$" },
        }));
    }
    all
}

fn of_plain(plain: &Plain) -> Value {
    let who = METHODS.iter().find(|row| row.path == plain.path).map(|row| row.who);
    let schema = match plain.answer {
        "application/json" => json!({ "type": "object" }),
        "application/pkix-crl" => json!({}),
        _ => json!({ "type": "string" }),
    };
    let parameter = |(name, about): (&str, &str)| json!({ "name": name, "in": "query", "description": about, "schema": { "type": "string" } });
    let mut operation = json!({
        "operationId": format!("get{}", plain.path.replace(['/', '.'], "_")),
        "tags": ["Controller"],
        "summary": plain.summary,
        "description": format!("{}\n\n{}", plain.description, who_may(plain.path)),
        "parameters": plain.parameter.into_iter().map(parameter).collect::<Vec<_>>(),
        "responses": {
            "200": { "description": "Done.", "content": { plain.answer: { "schema": schema } } },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    });
    if who == Some(Who::Anyone) {
        operation["security"] = json!([]);
    }
    operation
}

/// Of the path of a method or of another row of the table.
fn who_may(path: &str) -> String {
    match METHODS.iter().find(|row| row.path == path).map(|row| row.who) {
        Some(Who::Operator(permission)) => {
            let reach = match permission.reach {
                Reach::Scoped => "which counts in the scope of its grant",
                Reach::Whole => "which only a grant without a scope gives",
            };
            format!("Needs the permission `{}`, {reach}.", permission.name)
        }
        Some(Who::AnyOperator) => "Open to every operator.".to_owned(),
        Some(Who::Anyone) => "Open to everybody.".to_owned(),
        _ => String::new(),
    }
}

/// "UpdateAgentLabels": "Update agent labels".
fn in_words(name: &str) -> String {
    let mut words = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_uppercase() && index > 0 {
            words.push(' ');
        }
        words.push(if index > 0 { letter.to_ascii_lowercase() } else { letter });
    }
    words
}

#[cfg(test)]
mod tests;
