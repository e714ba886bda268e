//! A tree is read along the descriptor of a message: what the proto files say is the schema, there is no other.

use std::collections::{BTreeMap, HashMap};

use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Field};

use super::{
    Place,
    envelope::{Found, at, at_key},
};
use crate::{
    document::{Key, Node, Value},
    duration,
    excerpt::excerpt,
    suggest::suggest,
};

pub(super) struct Walker<'a> {
    pub found: &'a mut Found,
    pub fields: &'a mut BTreeMap<String, Place>,
}

impl Walker<'_> {
    /// None when the node is no map at all; fields that are wrong are left out and told of.
    pub fn message(&mut self, descriptor: &MessageDescriptor, node: &Node, path: &str) -> Option<DynamicMessage> {
        let mut message = DynamicMessage::new(descriptor.clone());
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => return Some(message),
            _ => {
                let names: Vec<_> = descriptor.fields().map(|field| field.json_name().to_owned()).collect();
                return self.wrong(
                    node,
                    path,
                    format!("expected a map with {}, found {}", names.join(", "), node.describe()),
                );
            }
        };
        for (key, value) in entries {
            let Some(field) = descriptor.get_field_by_json_name(&key.text) else {
                self.unknown(descriptor, key, path);
                continue;
            };
            let path = format!("{path}.{}", key.text);
            // A value that is left empty is complained of where its key is.
            self.fields.insert(
                path.clone(),
                if value.value == Value::Null {
                    at_key(key)
                } else {
                    at(value)
                },
            );
            if value.value == Value::Null {
                continue;
            }
            let others = field
                .containing_oneof()
                .into_iter()
                .flat_map(|one| one.fields().collect::<Vec<_>>());
            if let Some(other) = others
                .into_iter()
                .find(|other| *other != field && message.has_field(other))
            {
                let name = last(&path);
                self.found.add(
                    at_key(key),
                    format!("{name}: only one of it and {} may be there", other.json_name()),
                    None,
                );
                continue;
            }
            if let Some(value) = self.field(&field, value, &path) {
                message.set_field(&field, value);
            }
        }
        Some(message)
    }

    fn unknown(&mut self, descriptor: &MessageDescriptor, key: &Key, path: &str) {
        let names: Vec<String> = descriptor.fields().map(|field| field.json_name().to_owned()).collect();
        let nested = || {
            descriptor.fields().find_map(|field| match field.kind() {
                Kind::Message(inner) if !field.is_map() && inner.get_field_by_json_name(&key.text).is_some() => {
                    Some(format!("{}.{}", field.json_name(), key.text))
                }
                _ => None,
            })
        };
        let near = suggest(&key.text, names.iter().map(String::as_str)).map(str::to_owned);
        let (message, meant) = match (near, nested()) {
            (Some(near), _) => (format!("unknown field `{}`", excerpt(&key.text)), Some(near)),
            (None, Some(inner)) => (
                format!("unknown field `{}` at this level", excerpt(&key.text)),
                Some(inner),
            ),
            (None, None) => (
                format!(
                    "unknown field `{}`; the fields are {}",
                    excerpt(&key.text),
                    names.join(", ")
                ),
                None,
            ),
        };
        if let Some(meant) = &meant {
            self.found.spoil(format!("{path}.{meant}"));
        }
        self.found.add(at_key(key), message, meant);
    }

    fn field(&mut self, field: &FieldDescriptor, node: &Node, path: &str) -> Option<Field> {
        if field.is_map() {
            return self.map(field, node, path);
        }
        if !field.is_list() {
            return self.value(&field.kind(), node, path);
        }
        let Value::Seq(items) = &node.value else {
            let example = "write it in brackets, `[a, b]`, or each element in a line of its own after `- `";
            return self.wrong(
                node,
                path,
                format!("expected a list, found {}; {example}", node.describe()),
            );
        };
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.fields.insert(path.clone(), at(item));
            // Not `?`: the elements after a wrong one are looked at, too.
            list.push(self.value(&field.kind(), item, &path));
        }
        list.into_iter().collect::<Option<_>>().map(Field::List)
    }

    fn map(&mut self, field: &FieldDescriptor, node: &Node, path: &str) -> Option<Field> {
        let Value::Map(entries) = &node.value else {
            return self.wrong(
                node,
                path,
                format!("expected a map like `{{ name: value }}`, found {}", node.describe()),
            );
        };
        let Kind::Message(entry) = field.kind() else {
            return None;
        };
        let kind = entry.map_entry_value_field().kind();
        let mut map = HashMap::new();
        for (key, item) in entries {
            let path = format!("{path}[{}]", excerpt(&key.text));
            self.fields.insert(path.clone(), at(item));
            if let Some(value) = self.value(&kind, item, &path) {
                map.insert(MapKey::String(key.text.clone()), value);
            }
        }
        Some(Field::Map(map))
    }

    fn value(&mut self, kind: &Kind, node: &Node, path: &str) -> Option<Field> {
        let value = match kind {
            Kind::Message(descriptor) if descriptor.full_name() == "google.protobuf.Duration" => {
                duration_field(descriptor, node).map(Field::Message)
            }
            Kind::Message(descriptor) => return self.message(descriptor, node, path).map(Field::Message),
            Kind::String => text(node).map(Field::String),
            Kind::Bool => truth(node).map(Field::Bool),
            Kind::Enum(descriptor) => {
                return match enum_number(descriptor, node) {
                    Ok(number) => Some(Field::EnumNumber(number)),
                    Err((message, meant)) => {
                        self.found.spoil(path);
                        self.found.add(at(node), format!("{}: {message}", last(path)), meant);
                        None
                    }
                };
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer(node, i32::MIN, i32::MAX).map(Field::I32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => integer(node, i64::MIN, i64::MAX).map(Field::I64),
            Kind::Uint32 | Kind::Fixed32 => integer(node, u32::MIN, u32::MAX).map(Field::U32),
            Kind::Uint64 | Kind::Fixed64 => integer(node, u64::MIN, u64::MAX).map(Field::U64),
            Kind::Float => number(node).map(|number| Field::F32(number as f32)),
            Kind::Double => number(node).map(Field::F64),
            Kind::Bytes => Err("bytes cannot be written in a manifest; leave it out".to_owned()),
        };
        match value {
            Ok(value) => Some(value),
            Err(message) => self.wrong(node, path, message),
        }
    }

    fn wrong<T>(&mut self, node: &Node, path: &str, message: String) -> Option<T> {
        self.found.spoil(path);
        self.found.add(at(node), format!("{}: {message}", last(path)), None);
        None
    }
}

/// The path without the kind that it starts with: as it is written under `spec`.
fn last(path: &str) -> &str {
    path.split_once('.').map_or("spec", |(_, rest)| rest)
}

/// Text, or an integer written as people write one. Other numbers and truth values would be something else after a round
/// through a program that reads them: 1.10 becomes 1.1, 010 becomes 10 or 8.
pub(super) fn text(node: &Node) -> Result<String, String> {
    let plain = plain(node);
    match &node.value {
        Value::String(text) => Ok(text.clone()),
        Value::Int(number) if number.to_string() == plain => Ok(plain.to_owned()),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => Err(format!(
            "expected text, found {}; write \"{}\" in quotes",
            node.describe(),
            excerpt(plain)
        )),
        Value::Null => Err("expected text, found nothing; the empty text is written \"\"".to_owned()),
        Value::Seq(_) | Value::Map(_) => Err(format!("expected text, found {}", node.describe())),
    }
}

fn truth(node: &Node) -> Result<bool, String> {
    let meant = match &node.value {
        Value::Bool(value) => return Ok(*value),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" => "; did you mean `true`?",
            "no" | "off" | "n" | "false" => "; did you mean `false`?",
            _ => "",
        },
        _ => "",
    };
    Err(format!("expected `true` or `false`, found {}{meant}", node.describe()))
}

fn duration_field(descriptor: &MessageDescriptor, node: &Node) -> Result<DynamicMessage, String> {
    let text = match &node.value {
        Value::String(text) => text,
        Value::Int(_) | Value::Float(_) => plain(node),
        _ => {
            return Err(format!(
                "expected a duration like `90s`, `1h30m` or `500ms`, found {}",
                node.describe()
            ));
        }
    };
    let duration = duration::to_proto(duration::parse(text).map_err(|error| error.to_string())?);
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_name("seconds", Field::I64(duration.seconds));
    message.set_field_by_name("nanos", Field::I32(duration.nanos));
    Ok(message)
}

/// Integers, also in quotes, as the JSON dialect writes those of 64 bits.
fn integer<T>(node: &Node, least: T, most: T) -> Result<T, String>
where
    T: TryFrom<i128> + std::fmt::Display,
{
    let written = match &node.value {
        Value::String(text) => text,
        _ => plain(node),
    };
    let digits = written.strip_prefix('-').unwrap_or(written);
    if digits.is_empty() || digits.len() > 30 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("expected a whole number, found {}", node.describe()));
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(format!(
            "expected a whole number, found {written}, which some read as octal; leave the first 0 out"
        ));
    }
    let number: i128 = written
        .parse()
        .map_err(|_| format!("expected a whole number, found {}", node.describe()))?;
    T::try_from(number).map_err(|_| format!("expected a whole number of {least} to {most}, found {written}"))
}

fn plain(node: &Node) -> &str {
    node.plain.as_deref().unwrap_or_default()
}

fn number(node: &Node) -> Result<f64, String> {
    match &node.value {
        Value::Int(number) => Ok(*number as f64),
        Value::Float(number) => Ok(*number),
        _ => Err(format!("expected a number, found {}", node.describe())),
    }
}

/// By its name in full, `AGENT_STATUS_ONLINE`, or without what all values of the enum have before theirs, in any case:
/// `online`.
fn enum_number(descriptor: &EnumDescriptor, node: &Node) -> Result<i32, (String, Option<String>)> {
    let names = short_names(descriptor);
    let choices = || {
        names
            .iter()
            .filter(|(_, number)| *number != 0)
            .map(|(name, _)| name.clone())
    };
    if let Value::String(text) = &node.value {
        let named = names
            .iter()
            .find(|(name, _)| *name == text.to_ascii_lowercase())
            .map(|(_, number)| *number);
        let named = named.or_else(|| descriptor.get_value_by_name(text).map(|value| value.number()));
        if let Some(number) = named {
            return Ok(number);
        }
        let known: Vec<String> = choices().collect();
        let meant = suggest(text, known.iter().map(String::as_str)).map(str::to_owned);
        return Err((
            format!("expected {}, found {}", known.join(", "), node.describe()),
            meant,
        ));
    }
    Err((
        format!(
            "expected {}, found {}",
            choices().collect::<Vec<_>>().join(", "),
            node.describe()
        ),
        None,
    ))
}

/// Values by their names without what all of them have before theirs, in lower case.
pub(super) fn short_names(descriptor: &EnumDescriptor) -> Vec<(String, i32)> {
    let unspecified = descriptor.default_value();
    let prefix = unspecified.name().strip_suffix("UNSPECIFIED").unwrap_or_default();
    let short_name = |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase();
    descriptor
        .values()
        .map(|value| (short_name(value.name()), value.number()))
        .collect()
}
