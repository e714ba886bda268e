//! JSON Schema of messages and enums, as the JSON dialect has them. What is sent is one thing, what is accepted is more: numbers
//! as texts and texts as numbers, `null` for what is not given. Both are told as they are.

use std::collections::BTreeMap;

use muster_proto::{comments, v1::ErrorReason};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

const DURATION: &str = r"^-?[0-9]+(\.[0-9]{1,9})?s$";
const SIGNED: &str = "^[+-]?[0-9]+$";
const UNSIGNED: &str = r"^\+?[0-9]+$";

/// Those of the document, by name, as they come to be needed.
#[derive(Debug, Default)]
pub(super) struct Schemas(BTreeMap<String, Value>);

/// Of which a message is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Answers,
    Requests,
}

impl Schemas {
    /// A message that is the answer of a call, by reference.
    pub fn sent(&mut self, message: &MessageDescriptor) -> Value {
        let reference = self.message(message, Of::Answers);
        // What the JSON dialect adds to lists.
        let has = |name: &str| message.get_field_by_name(name).is_some();
        if message.get_field_by_name("items").is_some_and(|field| field.is_list())
            && let Some(schema) = self.0.get_mut(message.name())
        {
            schema["required"] = match has("revision") {
                true => json!(["items", "revision"]),
                false => json!(["items"]),
            };
        }
        reference
    }

    pub fn finish(mut self) -> BTreeMap<String, Value> {
        self.0.insert("Problem".to_owned(), problem());
        self.0
    }

    fn message(&mut self, message: &MessageDescriptor, of: Of) -> Value {
        let name = match of {
            Of::Answers => message.name().to_owned(),
            Of::Requests => format!("{}Input", message.name()),
        };
        if !self.0.contains_key(&name) {
            // Before its fields, which may hold the message itself.
            self.0.insert(name.clone(), Value::Null);
            let fields: Vec<FieldDescriptor> = message.fields().collect();
            let schema = self.object(message, &fields, of);
            self.0.insert(name.clone(), schema);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    fn object(&mut self, message: &MessageDescriptor, fields: &[FieldDescriptor], of: Of) -> Value {
        let mut properties = Map::new();
        for field in fields {
            let mut schema = self.field(field, of);
            let about = comments::of_field(field);
            if !about.is_empty() {
                schema["description"] = Value::String(about);
            }
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut object = json!({ "type": "object", "properties": properties });
        let about: Vec<String> = [comments::of_message(message), choices(message)]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
        if !about.is_empty() {
            object["description"] = Value::String(about.join("\n\n"));
        }
        if of == Of::Requests {
            object["additionalProperties"] = Value::Bool(false);
        }
        object
    }

    fn field(&mut self, field: &FieldDescriptor, of: Of) -> Value {
        if field.is_map() {
            let value = match field.kind() {
                Kind::Message(entry) => self.kind(&entry.map_entry_value_field().kind(), of),
                other => self.kind(&other, of),
            };
            return or_null(json!({ "type": "object", "additionalProperties": value }), of);
        }
        let schema = self.kind(&field.kind(), of);
        match field.is_list() {
            true => or_null(json!({ "type": "array", "items": schema }), of),
            false => or_null(schema, of),
        }
    }

    fn kind(&mut self, kind: &Kind, of: Of) -> Value {
        match (kind, of) {
            (Kind::Message(message), _) => match well_known(message) {
                Some(schema) => schema,
                None => self.message(message, of),
            },
            (Kind::Enum(kind), Of::Answers) => self.of_enum(kind),
            // Their numbers are taken too.
            (Kind::Enum(kind), Of::Requests) => {
                json!({ "anyOf": [self.of_enum(kind), { "type": "integer", "format": "int32" }] })
            }
            (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, Of::Answers) => {
                json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]+$" })
            }
            (Kind::Uint64 | Kind::Fixed64, Of::Answers) => {
                json!({ "type": "string", "format": "uint64", "pattern": "^[0-9]+$" })
            }
            (Kind::Double | Kind::Float, Of::Answers) => {
                json!({ "anyOf": [{ "type": "number" }, { "enum": ["NaN", "Infinity", "-Infinity"] }] })
            }
            (Kind::Double | Kind::Float, Of::Requests) => json!({ "type": ["number", "string"] }),
            (kind, of) => match (whole_number(kind), of) {
                (Some((schema, _)), Of::Answers) => schema,
                (Some((mut schema, pattern)), Of::Requests) => {
                    schema["type"] = json!(["integer", "string"]);
                    schema["pattern"] = json!(pattern);
                    schema
                }
                (None, _) => plain(kind),
            },
        }
    }

    fn of_enum(&mut self, kind: &EnumDescriptor) -> Value {
        self.0
            .entry(kind.name().to_owned())
            .or_insert_with(|| enumeration(kind));
        json!({ "$ref": format!("#/components/schemas/{}", kind.name()) })
    }
}

/// Of the body of a request, which holds these fields of its message.
pub(super) fn in_body(message: &MessageDescriptor, fields: &[FieldDescriptor], schemas: &mut Schemas) -> Value {
    let mut schema = schemas.object(message, fields, Of::Requests);
    schema["title"] = Value::String(message.name().to_owned());
    schema
}

/// Of a query parameter, where everything is a text.
pub(super) fn in_query(field: &FieldDescriptor) -> Value {
    let schema = match field.kind() {
        Kind::Message(message) => well_known(&message).unwrap_or_else(|| json!({ "type": "string" })),
        Kind::Enum(kind) => json!({ "type": "string", "enum": names(&kind) }),
        kind => whole_number(&kind).map_or_else(|| plain(&kind), |(schema, _)| schema),
    };
    match field.is_list() {
        true => json!({ "type": "array", "items": schema }),
        false => schema,
    }
}

/// As a JSON number, and the pattern of the same as a text.
fn whole_number(kind: &Kind) -> Option<(Value, &'static str)> {
    let (format, least, most, pattern) = match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => ("int32", json!(i32::MIN), json!(i32::MAX), SIGNED),
        Kind::Uint32 | Kind::Fixed32 => ("uint32", json!(0), json!(u32::MAX), UNSIGNED),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => ("int64", json!(i64::MIN), json!(i64::MAX), SIGNED),
        Kind::Uint64 | Kind::Fixed64 => ("uint64", json!(0), json!(u64::MAX), UNSIGNED),
        _ => return None,
    };
    let schema = json!({ "type": "integer", "format": format, "minimum": least, "maximum": most });
    Some((schema, pattern))
}

/// What is the same in all directions.
fn plain(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Bytes => json!({ "type": "string", "format": "byte", "contentEncoding": "base64" }),
        Kind::Double | Kind::Float => json!({ "type": "number" }),
        _ => json!({ "type": "string" }),
    }
}

fn well_known(message: &MessageDescriptor) -> Option<Value> {
    match message.full_name() {
        "google.protobuf.Timestamp" => Some(json!({ "type": "string", "format": "date-time" })),
        "google.protobuf.Duration" => Some(json!({ "type": "string", "pattern": DURATION, "examples": ["3600s"] })),
        // Names of fields, with commas between them.
        "google.protobuf.FieldMask" => Some(json!({ "type": "string", "examples": ["id,name"] })),
        _ => None,
    }
}

/// What is not given may be there as null.
fn or_null(mut schema: Value, of: Of) -> Value {
    if of == Of::Answers {
        return schema;
    }
    if let Some(Value::Array(any)) = schema.get_mut("anyOf") {
        any.push(json!({ "type": "null" }));
        return schema;
    }
    match schema.get("type").cloned() {
        Some(Value::String(one)) => schema["type"] = json!([one, "null"]),
        Some(Value::Array(mut several)) => {
            several.push(json!("null"));
            schema["type"] = Value::Array(several);
        }
        _ => return json!({ "anyOf": [schema, { "type": "null" }] }),
    }
    schema
}

fn enumeration(kind: &EnumDescriptor) -> Value {
    let values = kind.values().map(|value| match comments::of_enum_value(&value) {
        about if about.is_empty() => format!("- `{}`", value.name()),
        about => format!("- `{}`: {about}", value.name()),
    });
    let about = comments::of_enum(kind);
    let about = [about]
        .into_iter()
        .filter(|text| !text.is_empty())
        .chain([values.collect::<Vec<_>>().join("\n")]);
    let about: Vec<String> = about.collect();
    json!({ "type": "string", "enum": names(kind), "description": about.join("\n\n") })
}

fn names(kind: &EnumDescriptor) -> Vec<String> {
    kind.values().map(|value| value.name().to_owned()).collect()
}

/// Of fields of which only one may be there.
fn choices(message: &MessageDescriptor) -> String {
    let several = message.oneofs().filter(|one| !one.is_synthetic()).map(|one| {
        let names: Vec<String> = one.fields().map(|field| format!("`{}`", field.json_name())).collect();
        match names.as_slice() {
            [only] => format!("{only} may be there."),
            names => format!("At most one of {} is there.", names.join(", ")),
        }
    });
    several.collect::<Vec<_>>().join(" ")
}

/// What every call fails with, as RFC 9457 has it.
fn problem() -> Value {
    let reasons = (0..=i32::from(u8::MAX))
        .filter_map(|number| ErrorReason::try_from(number).ok())
        .map(muster_proto::error::reason_name)
        .collect::<Vec<_>>();
    json!({
        "type": "object",
        "description": "Why a call failed. Programs match on `reason`, never on a text.",
        "required": ["type", "title", "status", "detail", "code", "reason", "metadata"],
        "properties": {
            "type": { "type": "string", "const": "about:blank" },
            "title": { "type": "string", "description": "Of the status." },
            "status": { "type": "integer", "description": "The HTTP status.", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "description": "For people." },
            "code": { "type": "string", "description": "The code of gRPC.", "examples": ["NOT_FOUND"] },
            "reason": {
                "type": "string",
                "description": "Later releases have more of them.",
                "examples": reasons,
            },
            "metadata": {
                "type": "object",
                "description": "What belongs to the reason; `request_id` finds the call in the controller's log.",
                "additionalProperties": { "type": "string" },
            },
            "fieldViolations": {
                "type": "array",
                "description": "Which fields of the request are wrong.",
                "items": {
                    "type": "object",
                    "required": ["field", "description"],
                    "properties": { "field": { "type": "string" }, "description": { "type": "string" } },
                },
            },
            "retryAfterSeconds": { "type": "number", "description": "When the same call may be tried again." },
        },
    })
}
