//! What a bootstrap token may be, whether it is asked for or a template describes it. Who may make one is the controller's business.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::{duration, error::FieldViolation, excerpt::excerpt, label, v1::TokenTemplateSpec};

pub const MIN_TIME: Duration = Duration::from_secs(60);
pub const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 3_600);
pub const MAX_USES: i32 = 1_000_000;
const MAX_DESCRIPTION: usize = 1_024;

/// Paths are those of the message.
pub fn validate(spec: &TokenTemplateSpec) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    let mut violate = |field: String, text: String| violations.push(FieldViolation::new(field, text));
    for (field, span) in [("ttl", &spec.ttl), ("ephemeral", &spec.ephemeral)] {
        let is_wrong = |span| !duration::from_proto(span).is_some_and(|it| (MIN_TIME..=MAX_TIME).contains(&it));
        if span.as_ref().is_some_and(is_wrong) {
            violate(field.into(), "must be from 1 minute to 366 days".into());
        }
    }
    if !(0..=MAX_USES).contains(&spec.uses) {
        violate("uses".into(), format!("must be from 1 to {MAX_USES}"));
    }
    if spec.description.len() > MAX_DESCRIPTION {
        violate("description".into(), format!("is longer than {MAX_DESCRIPTION} bytes"));
    }
    // Not a text that every database takes.
    if spec.description.contains('\0') {
        violate("description".into(), "contains a NUL".into());
    }
    if network(&spec.source).is_none() {
        let text = "is neither a network such as 10.1.0.0/16 nor an address";
        violate("source".into(), text.into());
    }
    if spec.labels.len() > label::MAX_COUNT {
        let text = format!("has more than {} labels", label::MAX_COUNT);
        violate("labels".into(), text);
    }
    for (key, value) in &spec.labels {
        if let Err(error) = label::check(key, value) {
            violate(format!("labels[{}]", excerpt(key)), error.to_string());
        }
    }
    violations
}

/// A network in CIDR notation or one address; an empty text is none. None: the text is neither.
pub fn network(text: &str) -> Option<Option<IpNet>> {
    if text.is_empty() {
        return Some(None);
    }
    let parsed = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.ok().map(|net| Some(net.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violated(change: impl FnOnce(&mut TokenTemplateSpec)) -> Vec<String> {
        let mut spec = TokenTemplateSpec::default();
        change(&mut spec);
        validate(&spec).into_iter().map(|violation| violation.field).collect()
    }

    fn time(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn what_no_token_can_be_is_named_field_by_field() {
        assert!(violated(|_| {}).is_empty());
        assert_eq!(violated(|spec| spec.ttl = time(59)), ["ttl"]);
        assert_eq!(violated(|spec| spec.ttl = time(-60)), ["ttl"]);
        assert_eq!(violated(|spec| spec.uses = -1), ["uses"]);
        assert_eq!(violated(|spec| spec.uses = MAX_USES + 1), ["uses"]);
        assert_eq!(violated(|spec| spec.source = "10.0.0.0/33".into()), ["source"]);
        assert_eq!(violated(|spec| spec.ephemeral = time(0)), ["ephemeral"]);
        assert_eq!(violated(|spec| spec.description = "a\0".into()), ["description"]);
        let labels = |spec: &mut TokenTemplateSpec| drop(spec.labels.insert("fact.os".into(), "x".into()));
        assert_eq!(violated(labels), ["labels[fact.os]"]);
    }

    #[test]
    fn a_source_is_a_network_or_one_address() {
        let contains = |text: &str, address: &str| {
            network(text)
                .flatten()
                .is_some_and(|network| network.contains(&address.parse::<IpAddr>().unwrap()))
        };
        assert!(contains("10.1.2.3/16", "10.1.255.1"));
        assert!(!contains("10.1.2.3/16", "10.2.0.1"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.8"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1"));
        assert_eq!(network(""), Some(None));
        for wrong in ["10.0.0.0/", "all", "10.0.0.0/8,11.0.0.0/8", " 10.0.0.0/8"] {
            assert_eq!(network(wrong), None, "{wrong:?}");
        }
    }
}
