//! JSON Schema of manifests, for editors: made of the descriptors and the comments of the contract. It takes all that
//! [`super::parse`] takes, and some more, since rules about values are not told in it. What a message cannot do without is asked of
//! the rules.

use std::collections::BTreeMap;

use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value as Field};
use serde_json::{Map, Value, json};

use super::{API_VERSION, GRANT, rules, walk::short_names};
use crate::{comments, duration, ids, json, v1};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
const DURATION: &str = "google.protobuf.Duration";
/// What of the metadata is read; the rest is what the controller says.
const READ: [&str; 4] = ["name", "labels", "owner", "scope"];
/// Messages of whose fields one is set, though the contract has no oneof there.
const ONE_FIELD: [&str; 1] = ["muster.v1.Run"];

/// The document of JSON Schema, draft 2020-12.
pub fn schema() -> Value {
    let mut schemas = Schemas::default();
    let kinds: Vec<(String, FieldDescriptor)> = kinds().collect();
    let names: Vec<&String> = kinds.iter().map(|(kind, _)| kind).collect();
    let all: Vec<Value> = kinds.iter().map(|(kind, field)| schemas.of_kind(kind, field)).collect();
    json!({
        "$schema": DRAFT,
        "title": "Manifest of Muster",
        "description": "A part of the configuration, or a list of such parts under `items`.",
        "type": "object",
        "if": {
            "required": ["items"],
            "properties": { "items": { "type": "array" } },
            "not": { "required": ["kind"] },
        },
        "then": { "properties": { "items": { "items": { "$ref": "#" } } } },
        "else": {
            "required": ["apiVersion", "kind", "spec"],
            "properties": {
                "apiVersion": { "const": API_VERSION },
                "kind": { "enum": names, "description": "What it is: decides what `spec` holds." },
                "metadata": true,
                "spec": true,
                "status": { "readOnly": true, "description": PASSED_OVER },
            },
            "additionalProperties": false,
            "allOf": all,
        },
        "$defs": schemas.0,
    })
}

/// Each is a spec of the contract: `token_template` is that of a `TokenTemplate`.
fn kinds() -> impl Iterator<Item = (String, FieldDescriptor)> {
    let manifest = json::descriptor::<v1::Manifest>();
    let specs: Vec<FieldDescriptor> = manifest
        .oneofs()
        .flat_map(|one| one.fields().collect::<Vec<_>>())
        .collect();
    specs.into_iter().map(|field| {
        let (first, rest) = field.json_name().split_at(1);
        (first.to_uppercase() + rest, field)
    })
}

const PASSED_OVER: &str = "What the controller says of it; passed over.";

/// By the name of the message or enum, as they come to be needed.
#[derive(Default)]
struct Schemas(BTreeMap<String, Value>);

/// Where a message stands: a kind, and the fields that lead to it from the spec on.
struct Way<'a> {
    kind: &'a FieldDescriptor,
    fields: Vec<FieldDescriptor>,
}

impl Schemas {
    /// What follows when it is of this kind.
    fn of_kind(&mut self, kind: &str, field: &FieldDescriptor) -> Value {
        let Kind::Message(spec) = field.kind() else {
            unreachable!("a spec is a message")
        };
        let way = Way {
            kind: field,
            fields: Vec::new(),
        };
        let spec = self.message(&spec, &way);
        let is_named_by_itself = kind == GRANT;
        let mut then = json!({ "properties": { "metadata": self.metadata(is_named_by_itself), "spec": spec } });
        if !is_named_by_itself {
            then["required"] = json!(["metadata"]);
        }
        json!({ "if": { "required": ["kind"], "properties": { "kind": { "const": kind } } }, "then": then })
    }

    fn metadata(&mut self, is_named_by_itself: bool) -> Value {
        let name = match is_named_by_itself {
            true => "OptionalMetadata",
            false => "Metadata",
        };
        let reference = reference(name);
        if self.0.contains_key(name) {
            return reference;
        }
        let mut properties = Map::new();
        for field in json::descriptor::<v1::PolicyMetadata>().fields() {
            let mut schema = match READ.contains(&field.json_name()) {
                true if field.name() == "name" => json!({ "type": TEXT, "pattern": ids::NAME_PATTERN }),
                true if field.is_map() => {
                    or_null(json!({ "type": "object", "additionalProperties": { "type": TEXT } }))
                }
                true => or_null(json!({ "type": TEXT })),
                false => json!({ "readOnly": true, "description": PASSED_OVER }),
            };
            if schema.get("description").is_none() {
                describe(&mut schema, comments::of_field(&field));
            }
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        if !is_named_by_itself {
            schema["required"] = json!(["name"]);
        }
        self.0.insert(name.to_owned(), schema);
        reference
    }

    /// A map, or nothing, which is a message without fields.
    fn message(&mut self, message: &MessageDescriptor, way: &Way<'_>) -> Value {
        let name = message.name();
        if !self.0.contains_key(name) {
            // Before its fields, which may hold the message itself.
            self.0.insert(name.to_owned(), Value::Null);
            let schema = self.object(message, way);
            self.0.insert(name.to_owned(), schema);
        }
        reference(name)
    }

    fn object(&mut self, message: &MessageDescriptor, way: &Way<'_>) -> Value {
        let mut properties = Map::new();
        for field in message.fields() {
            let mut schema = self.field(&field, way);
            describe(&mut schema, comments::of_field(&field));
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut object = json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false });
        describe(&mut object, comments::of_message(message));
        let lacking = way.lacking();
        let required: Vec<String> = lacking
            .iter()
            .filter(|name| message.get_field_by_json_name(name).is_some())
            .cloned()
            .collect();
        if !required.is_empty() {
            object["required"] = json!(required);
        }
        // Complained of as a whole.
        let is_empty_wrong = lacking.iter().any(String::is_empty);
        let mut choices: Vec<Vec<FieldDescriptor>> = message
            .oneofs()
            .filter(|one| !one.is_synthetic())
            .map(|one| one.fields().collect())
            .collect();
        if ONE_FIELD.contains(&message.full_name()) {
            choices.push(message.fields().collect());
        }
        match choices.as_slice() {
            [] if is_empty_wrong => object["minProperties"] = json!(1),
            [] => {}
            [one] => object["oneOf"] = one_of(one, is_empty_wrong),
            several => {
                object["allOf"] = several
                    .iter()
                    .map(|one| json!({ "oneOf": one_of(one, false) }))
                    .collect()
            }
        }
        object
    }

    fn field(&mut self, field: &FieldDescriptor, way: &Way<'_>) -> Value {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else {
                unreachable!("a map has entries")
            };
            let value = self.kind(&entry.map_entry_value_field().kind(), &way.to(field));
            return or_null(json!({ "type": "object", "additionalProperties": value }));
        }
        let schema = self.kind(&field.kind(), &way.to(field));
        match field.is_list() {
            true => or_null(json!({ "type": "array", "items": schema })),
            false => or_null(schema),
        }
    }

    fn kind(&mut self, kind: &Kind, way: &Way<'_>) -> Value {
        let whole = |least: Value, most: Value| json!({ "type": ["integer", "string"], "minimum": least, "maximum": most, "pattern": "^-?(0|[1-9][0-9]*)$" });
        match kind {
            Kind::Message(message) if message.full_name() == DURATION => {
                json!({ "type": "string", "minLength": 1, "pattern": duration::pattern(), "examples": ["90s", "1h30m", "500ms"] })
            }
            Kind::Message(message) => self.message(message, way),
            Kind::Enum(kind) => enumeration(kind),
            Kind::String => json!({ "type": TEXT }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => whole(json!(i32::MIN), json!(i32::MAX)),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => whole(json!(i64::MIN), json!(i64::MAX)),
            Kind::Uint32 | Kind::Fixed32 => whole(json!(0), json!(u32::MAX)),
            Kind::Uint64 | Kind::Fixed64 => whole(json!(0), json!(u64::MAX)),
            Kind::Float | Kind::Double => json!({ "type": "number" }),
            // Bytes cannot be written.
            Kind::Bytes => json!({ "enum": [] }),
        }
    }
}

/// A text, or a whole number as people write one.
const TEXT: [&str; 2] = ["string", "integer"];

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn describe(schema: &mut Value, about: String) {
    if !about.is_empty() {
        schema["description"] = Value::String(about);
    }
}

/// A field that is left empty is one that is not there.
fn or_null(mut schema: Value) -> Value {
    let mut types = match schema.get("type").cloned() {
        Some(Value::Array(types)) => types,
        Some(one) => vec![one],
        // By reference, which takes null itself.
        None if schema.get("$ref").is_some() => return schema,
        None => return json!({ "anyOf": [schema, { "type": "null" }] }),
    };
    if !types.contains(&json!("null")) {
        types.push(json!("null"));
    }
    schema["type"] = Value::Array(types);
    schema
}

/// That one of these fields is there with a value, and if it may be, that none is.
fn one_of(fields: &[FieldDescriptor], is_required: bool) -> Value {
    let is_there = |field: &FieldDescriptor| {
        let name = field.json_name();
        let mut properties = Map::new();
        properties.insert(name.to_owned(), json!({ "not": { "enum": [null, []] } }));
        json!({ "required": [name], "properties": properties })
    };
    let mut all: Vec<Value> = fields.iter().map(is_there).collect();
    if !is_required {
        all.push(json!({ "not": { "anyOf": all } }));
    }
    Value::Array(all)
}

/// Short names, which are offered; those in full; and short ones in any case.
fn enumeration(kind: &EnumDescriptor) -> Value {
    let names = short_names(kind);
    let short: Vec<&String> = names
        .iter()
        .filter(|(_, number)| *number != 0)
        .map(|(name, _)| name)
        .collect();
    let full: Vec<String> = kind.values().map(|value| value.name().to_owned()).collect();
    let in_any_case = |letter: char| match letter.is_ascii_alphabetic() {
        true => format!("[{}{}]", letter.to_ascii_lowercase(), letter.to_ascii_uppercase()),
        false => letter.to_string(),
    };
    let patterns: Vec<String> = names
        .iter()
        .map(|(name, _)| name.chars().map(in_any_case).collect())
        .collect();
    json!({ "anyOf": [{ "enum": short }, { "enum": full }, { "type": "string", "pattern": format!("^({})$", patterns.join("|")) }] })
}

impl Way<'_> {
    fn to(&self, field: &FieldDescriptor) -> Way<'_> {
        let mut fields = self.fields.clone();
        fields.push(field.clone());
        Way {
            kind: self.kind,
            fields,
        }
    }

    /// Which fields the rules miss when the message is empty, by their JSON names; the empty name: the message itself.
    fn lacking(&self) -> Vec<String> {
        // Of what stands in lists and maps there may be none.
        if self.fields.iter().any(|field| field.is_list() || field.is_map()) {
            return Vec::new();
        }
        let mut inner: Option<(FieldDescriptor, DynamicMessage)> = None;
        for field in self.fields.iter().rev().chain([self.kind]) {
            let Kind::Message(message) = field.kind() else {
                return Vec::new();
            };
            let mut message = DynamicMessage::new(message);
            if let Some((field, value)) = inner.take() {
                message.set_field(&field, Field::Message(value));
            }
            inner = Some((field.clone(), message));
        }
        let Some((kind, spec)) = inner else { return Vec::new() };
        let mut manifest = DynamicMessage::new(json::descriptor::<v1::Manifest>());
        manifest.set_field(&kind, Field::Message(spec));
        let Some(spec) = manifest
            .transcode_to::<v1::Manifest>()
            .ok()
            .and_then(|manifest| manifest.spec)
        else {
            return Vec::new();
        };
        let path: Vec<&str> = self.fields.iter().map(FieldDescriptor::json_name).collect();
        let path = path.join(".");
        let within = |field: &str| match field.strip_prefix(&path)? {
            rest if path.is_empty() => Some(rest.to_owned()),
            "" => Some(String::new()),
            rest => rest.strip_prefix('.').map(str::to_owned),
        };
        rules::violations(&spec)
            .iter()
            .filter_map(|violation| within(&violation.field))
            .collect()
    }
}

#[cfg(test)]
mod tests;
