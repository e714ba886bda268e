//! Which fields of an answer its caller wants, as `google.protobuf.FieldMask` says them.

use std::collections::BTreeMap;

use muster_proto::{
    error::{FieldViolation, Problem},
    json::descriptor,
};
use prost::Name;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use prost_types::FieldMask;

/// Of a message that is to be shown; none: all of it.
#[derive(Debug)]
pub struct Mask(Option<Part>);

/// By numbers of fields.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Fields(BTreeMap<u32, Part>),
}

impl Mask {
    /// `read_mask` of a request whose answer has messages `M`.
    pub fn of<M: Name>(mask: Option<&FieldMask>) -> Result<Self, Problem> {
        let Some(FieldMask { paths }) = mask.filter(|mask| !mask.paths.is_empty()) else {
            return Ok(Self(None));
        };
        let (root, mut wanted) = (descriptor::<M>(), Part::Fields(BTreeMap::new()));
        let mut violations = Vec::new();
        for path in paths {
            match fields(&root, path) {
                Ok(fields) => wanted.add(&fields),
                Err(text) => violations.push(FieldViolation::new("read_mask", text)),
            }
        }
        match violations.is_empty() {
            true => Ok(Self(Some(wanted))),
            false => Err(Problem::invalid_fields(violations)),
        }
    }

    /// What is wanted of a message.
    pub fn keep<M: Name + Default>(&self, message: M) -> M {
        let Some(wanted) = &self.0 else { return message };
        let mut dynamic = DynamicMessage::new(descriptor::<M>());
        dynamic
            .transcode_from(&message)
            .expect("a message has its own descriptor");
        wanted.prune(&mut dynamic);
        dynamic.transcode_to().expect("a message has its own descriptor")
    }
}

impl Part {
    fn add(&mut self, path: &[u32]) {
        let Part::Fields(fields) = self else { return };
        match path.split_first() {
            None => *self = Part::Whole,
            Some((first, rest)) => {
                let part = fields.entry(*first);
                part.or_insert_with(|| Part::Fields(BTreeMap::new())).add(rest);
            }
        }
    }

    fn prune(&self, message: &mut DynamicMessage) {
        let Part::Fields(wanted) = self else { return };
        let mut unwanted: Vec<FieldDescriptor> = Vec::new();
        for (field, value) in message.fields_mut() {
            match (wanted.get(&field.number()), value) {
                (None, _) => unwanted.push(field),
                (Some(part), Value::Message(inner)) => part.prune(inner),
                (Some(_), _) => {}
            }
        }
        for field in unwanted {
            message.clear_field(&field);
        }
    }
}

/// The numbers of a path, or what is wrong with it. Only the last field may be a list or a map.
fn fields(root: &MessageDescriptor, path: &str) -> Result<Vec<u32>, String> {
    let (mut numbers, mut above) = (Vec::new(), Some(root.clone()));
    for name in path.split('.') {
        let found = above.as_ref().and_then(|above| above.get_field_by_name(name));
        let field = found.ok_or_else(|| format!("has {path:?}, which is no field of {}", root.name()))?;
        numbers.push(field.number());
        above = match field.kind() {
            Kind::Message(inner) if !field.is_list() && !field.is_map() => Some(inner),
            _ => None,
        };
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::{self, Agent, policy::Spec};

    use super::*;

    fn mask<M: Name>(paths: &[&str]) -> Result<Mask, Problem> {
        let paths = paths.iter().map(ToString::to_string).collect();
        Mask::of::<M>(Some(&FieldMask { paths }))
    }

    fn agent() -> Agent {
        Agent {
            id: "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21".into(),
            name: "db-01".into(),
            labels: vec![v1::Label::default()],
            facts: [("os".to_owned(), "linux".to_owned())].into(),
            certificate: Some(v1::AgentCertificate {
                serial: "01".into(),
                ca: "c1".into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn without_a_mask_all_is_there() {
        assert_eq!(mask::<Agent>(&[]).unwrap().keep(agent()), agent());
        assert_eq!(Mask::of::<Agent>(None).unwrap().keep(agent()), agent());
    }

    #[test]
    fn with_a_mask_there_is_what_it_names_and_nothing_else() {
        let kept = mask::<Agent>(&["name", "facts", "last_seen"]).unwrap().keep(agent());
        let named = Agent {
            name: "db-01".into(),
            facts: agent().facts,
            ..Default::default()
        };
        assert_eq!(kept, named);
    }

    #[test]
    fn of_a_part_there_is_what_is_named_of_it_or_all() {
        let serial = |paths: &[&str]| mask::<Agent>(paths).unwrap().keep(agent()).certificate.unwrap();
        let only = v1::AgentCertificate {
            serial: "01".into(),
            ..Default::default()
        };
        assert_eq!(serial(&["certificate.serial"]), only);
        let whole = agent().certificate.unwrap();
        assert_eq!(serial(&["certificate", "certificate.serial"]), whole);
        assert_eq!(serial(&["certificate.serial", "certificate"]), whole);
        let none = mask::<Agent>(&["connection.session_id"]).unwrap().keep(agent());
        assert_eq!(none, Agent::default());
    }

    #[test]
    fn a_choice_is_named_by_what_was_chosen() {
        let policy = v1::Policy {
            kind: "Check".into(),
            spec: Some(Spec::Check(v1::Check {
                selector: "*".into(),
                description: "long".into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let kept = mask::<v1::Policy>(&["check.selector"]).unwrap().keep(policy);
        let check = v1::Check {
            selector: "*".into(),
            ..Default::default()
        };
        assert_eq!((kept.kind.as_str(), kept.spec), ("", Some(Spec::Check(check))));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_named() {
        for wrong in [
            "nothing",
            "",
            "name.first",
            "certificate.",
            ".name",
            "labels.key",
            "facts.os",
            "statusReason",
            "certificate..serial",
        ] {
            let problem = mask::<Agent>(&["name", wrong]).unwrap_err();
            assert_eq!(problem.fields.len(), 1, "{wrong:?}");
            assert_eq!(problem.fields[0].field, "read_mask");
            assert!(
                problem.fields[0].description.contains(&format!("{wrong:?}")),
                "{problem}"
            );
        }
    }
}
