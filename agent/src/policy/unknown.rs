//! Finds fields that this release does not know in an encoded message, at any depth. A policy with such a field means more
//! than this agent would do.

use bytes::Buf;
use prost::DecodeError;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

pub fn has_unknown_fields(descriptor: MessageDescriptor, bytes: impl Buf) -> Result<bool, DecodeError> {
    DynamicMessage::decode(descriptor, bytes).map(|message| in_message(&message))
}

fn in_message(message: &DynamicMessage) -> bool {
    message.unknown_fields().next().is_some() || message.fields().any(|(_, value)| in_value(value))
}

fn in_value(value: &Value) -> bool {
    match value {
        Value::Message(message) => in_message(message),
        Value::List(values) => values.iter().any(in_value),
        Value::Map(entries) => entries.values().any(in_value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::{json, v1};
    use prost::Message as _;

    use super::*;

    fn found(bytes: &[u8]) -> bool {
        has_unknown_fields(json::descriptor::<v1::Check>(), bytes).unwrap()
    }

    #[test]
    fn unknown_fields_are_found_at_the_top_and_inside() {
        let run = v1::Run {
            disk: Some(v1::DiskRun::default()),
            ..Default::default()
        };
        let mut known = v1::Check {
            selector: "*".into(),
            run: Some(run),
            ..Default::default()
        }
        .encode_to_vec();
        assert!(!found(&known));
        // Field 99, varint 1.
        let odd = [0x98, 0x06, 0x01];
        // Field 6 is run; in it the unknown field.
        let inner = [&[0x32, 3][..], &odd].concat();
        assert!(found(&[&known[..], &odd].concat()));
        known.extend(inner);
        assert!(found(&known));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        assert!(has_unknown_fields(json::descriptor::<v1::Check>(), &[0xff][..]).is_err());
    }
}
