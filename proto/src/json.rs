//! The one JSON dialect of the API, the command line and manifests: the proto3 mapping. Manifest text is read elsewhere.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, Value as Reflected};
use serde::{Serialize as _, de::Error as _};
use serde_json::{Map, Value};

use crate::DESCRIPTORS;

/// The descriptors of the package, without comments.
pub fn descriptor_pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build wrote these descriptors"));
    &POOL
}

/// The descriptor of a generated message.
pub fn descriptor<M: prost::Name>() -> MessageDescriptor {
    descriptor_pool()
        .get_message_by_name(&M::full_name())
        .expect("every generated message is in the pool")
}

/// lowerCamelCase, enum names in full, 64-bit integers as strings, times in RFC 3339; what has its default value is left
/// out, save that a list always has `items` and its `revision`.
pub fn to_json<M: prost::Message + prost::Name>(message: &M) -> Value {
    let mut dynamic = DynamicMessage::new(descriptor::<M>());
    dynamic
        .transcode_from(message)
        .expect("a message has its own descriptor");
    of_dynamic(dynamic)
}

/// The same of a message that is known by its descriptor alone.
pub fn of_dynamic(mut dynamic: DynamicMessage) -> Value {
    let descriptor = dynamic.descriptor();
    let mut value = dynamic.serialize(serde_json::value::Serializer).unwrap_or_else(|_| {
        drop_inexpressible(&mut dynamic);
        dynamic.serialize(serde_json::value::Serializer).unwrap_or_default()
    });
    if let Value::Object(fields) = &mut value {
        complete_list(&descriptor, fields);
    }
    value
}

/// The message that [`to_json`] has made this of.
pub fn from_json<M: prost::Message + prost::Name + Default>(text: &str) -> Result<M, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let dynamic = DynamicMessage::deserialize(descriptor::<M>(), &mut deserializer)?;
    deserializer.end()?;
    dynamic.transcode_to().map_err(serde_json::Error::custom)
}

/// A list without entries is `{"items": [], "revision": "0"}`, not `{}`: scripts iterate over it.
fn complete_list(descriptor: &MessageDescriptor, fields: &mut Map<String, Value>) {
    if !descriptor
        .get_field_by_name("items")
        .is_some_and(|field| field.is_list())
    {
        return;
    }
    fields.entry("items").or_insert_with(|| Value::Array(Vec::new()));
    if descriptor.get_field_by_name("revision").is_some() {
        fields
            .entry("revision")
            .or_insert_with(|| Value::String("0".to_owned()));
    }
}

/// Takes out what JSON cannot express, so that one odd clock does not cost a whole list: times beyond the year 9999 and
/// durations beyond ten thousand years.
fn drop_inexpressible(message: &mut DynamicMessage) {
    let expressible = |value: &DynamicMessage| value.serialize(serde_json::value::Serializer).is_ok();
    let mut bad = Vec::new();
    for (field, value) in message.fields_mut() {
        match value {
            Reflected::Message(inner) if expressible(inner) => {}
            Reflected::Message(inner) if is_well_known(inner) => bad.push(field),
            Reflected::Message(inner) => drop_inexpressible(inner),
            Reflected::List(values) => values
                .iter_mut()
                .filter_map(Reflected::as_message_mut)
                .for_each(drop_inexpressible),
            _ => {}
        }
    }
    for field in bad {
        message.clear_field(&field);
    }
}

fn is_well_known(message: &DynamicMessage) -> bool {
    message.descriptor().package_name() == "google.protobuf"
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::v1;

    #[test]
    fn what_was_written_is_read_back() {
        let link = v1::ExportAuditResponse {
            item: Some(v1::export_audit_response::Item::Link(v1::AuditLink {
                seq: 1 << 60,
                entry: vec![0, 255, 7],
                hash: vec![1; 32],
                relabelled: true,
            })),
        };
        assert_eq!(
            from_json::<v1::ExportAuditResponse>(&to_json(&link).to_string()).unwrap(),
            link
        );
        for wrong in ["", "{", "[]", r#"{"other": 1}"#, "{} {}"] {
            assert!(from_json::<v1::ExportAuditResponse>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_follow_the_proto3_mapping() {
        let agent = v1::Agent {
            id: "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21".to_owned(),
            status: v1::AgentStatus::Online.into(),
            last_seen: Some(Timestamp {
                seconds: 1_795_216_811,
                nanos: 0,
            }),
            revision: 12,
            ..Default::default()
        };
        assert_eq!(
            to_json(&agent),
            json!({
                "id": "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21",
                "status": "AGENT_STATUS_ONLINE",
                "lastSeen": "2026-11-20T23:20:11Z",
                "revision": "12",
            })
        );
    }

    #[test]
    fn an_empty_list_has_items_and_a_revision() {
        assert_eq!(
            to_json(&v1::ListAgentsResponse::default()),
            json!({"items": [], "revision": "0"})
        );
        assert_eq!(
            to_json(&v1::ListStatesResponse::default()),
            json!({"items": [], "revision": "0"})
        );
        assert_eq!(to_json(&v1::Agent::default()), json!({}));
    }

    #[test]
    fn a_time_that_json_cannot_express_is_left_out_and_the_rest_is_kept() {
        let state = |name: &str, seconds| v1::State {
            check: name.to_owned(),
            last_run: Some(Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        };
        let list = v1::ListStatesResponse {
            items: vec![state("a", i64::MAX), state("b", 0)],
            ..Default::default()
        };
        assert_eq!(
            to_json(&list),
            json!({"items": [{"check": "a"}, {"check": "b", "lastRun": "1970-01-01T00:00:00Z"}], "revision": "0"})
        );
    }
}
