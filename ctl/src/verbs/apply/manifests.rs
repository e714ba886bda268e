//! All manifests of one call: read together, checked together, and found again when the controller complains. How one is
//! read is `muster_proto::manifest`.

use std::collections::BTreeMap;

use muster_proto::{manifest, v1};

use super::{files::Source, findings::Finding};
use crate::resources::policy;

#[derive(Debug, Default)]
pub struct Manifests {
    /// In the order in which they are sent.
    pub policies: Vec<v1::Policy>,
    /// For each policy its source and its places there.
    origins: Vec<(usize, manifest::Manifest)>,
}

impl Manifests {
    /// All of them, or everything that is wrong with any of them.
    pub fn read(sources: &[Source]) -> Result<Manifests, Vec<Finding>> {
        let mut manifests = Manifests::default();
        let mut findings = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            match manifest::parse(&source.name, &source.text) {
                Ok(parsed) => manifests
                    .origins
                    .extend(parsed.into_iter().map(|manifest| (index, manifest))),
                Err(errors) => findings.extend(errors.into_iter().map(|error| Finding {
                    source: index,
                    line: error.line,
                    column: error.column,
                    message: error.message,
                    suggestion: error.suggestion,
                })),
            }
        }
        findings.extend(manifests.repeated(sources));
        if !findings.is_empty() {
            findings.sort();
            findings.dedup();
            return Err(findings);
        }
        manifests.policies = manifests
            .origins
            .iter()
            .map(|(_, manifest)| manifest.policy.clone())
            .collect();
        Ok(manifests)
    }

    /// One policy in two files: which is meant cannot be known. Within a file it has been noticed already.
    fn repeated(&self, sources: &[Source]) -> Vec<Finding> {
        let mut first: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut findings = Vec::new();
        for (source, manifest) in &self.origins {
            let reference = policy::reference(&manifest.policy);
            let place = manifest.place("metadata.name");
            match first.get(&reference) {
                Some((other, line)) if other != source => findings.push(Finding {
                    source: *source,
                    line: place.line,
                    column: place.column,
                    message: format!("{reference} is in {}:{line} already", sources[*other].name),
                    suggestion: None,
                }),
                Some(_) => {}
                None => drop(first.insert(reference, (*source, place.line))),
            }
        }
        findings
    }

    /// The place that a path of the request, such as `policies[3].check.selector`, came from.
    pub fn locate(&self, field: &str, description: &str) -> Option<Finding> {
        let (index, path) = field.strip_prefix("policies[")?.split_once(']')?;
        let (source, manifest) = self.origins.get(index.parse::<usize>().ok()?)?;
        let path = path.strip_prefix('.').unwrap_or(path);
        let place = manifest.place(path);
        // In a manifest the message of the kind is called spec.
        let name = match path.split_once('.') {
            Some(("metadata", _)) | None => path,
            Some((_, inner)) => inner,
        };
        let message = if name.is_empty() {
            description.to_owned()
        } else {
            format!("{name}: {description}")
        };
        Some(Finding {
            source: *source,
            line: place.line,
            column: place.column,
            message,
            suggestion: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, selector: &str) -> String {
        format!(
            "apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: {name} }}\nspec:\n  selector: \"{selector}\"\n  \
             run: {{ load: {{ warning: \"5\", critical: \"10\" }} }}\n"
        )
    }

    fn sources(texts: &[String]) -> Vec<Source> {
        let name = |index| format!("{index}.yaml");
        texts
            .iter()
            .enumerate()
            .map(|(index, text)| Source {
                name: name(index),
                text: text.clone(),
            })
            .collect()
    }

    #[test]
    fn the_mistakes_of_all_files_are_found_at_once() {
        let findings = Manifests::read(&sources(&[
            text("a", "env=prod").replace("selector", "selctor"),
            text("b", "*"),
            text("c", "env="),
            "a: [".to_owned(),
        ]))
        .unwrap_err();
        let places: Vec<_> = findings.iter().map(|finding| (finding.source, finding.line)).collect();
        assert!(
            places.contains(&(0, 5)) && places.iter().any(|place| place.0 == 3),
            "{findings:#?}"
        );
        assert!(!places.iter().any(|place| place.0 == 1), "{findings:#?}");
        assert_eq!(findings[0].suggestion.as_deref(), Some("selector"));
    }

    #[test]
    fn a_policy_in_two_files_is_a_mistake_of_the_second() {
        let findings = Manifests::read(&sources(&[text("a", "*"), text("b", "*"), text("a", "*")])).unwrap_err();
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].source, findings[0].line), (2, 3));
        assert_eq!(findings[0].message, "Check/a is in 0.yaml:3 already");
    }

    #[test]
    fn a_field_of_the_request_is_found_in_its_file() {
        let manifests =
            Manifests::read(&sources(&[text("a", "*"), text("b", "*") + "---\n" + &text("c", "*")])).unwrap();
        assert_eq!(manifests.policies.len(), 3);
        let finding = manifests.locate("policies[2].check.selector", "no such thing").unwrap();
        assert_eq!((finding.source, finding.line, finding.column), (1, 12, 13));
        assert_eq!(finding.message, "selector: no such thing");
        let finding = manifests.locate("policies[1].check.run.load.perCpu", "wrong").unwrap();
        assert_eq!(
            finding.line, 6,
            "what is not written is shown at what it would stand in"
        );
        let finding = manifests.locate("policies[0].metadata.name", "wrong").unwrap();
        assert_eq!(
            (finding.source, finding.line, &*finding.message),
            (0, 3, "metadata.name: wrong")
        );
    }

    #[test]
    fn a_field_that_is_in_no_manifest_has_no_place() {
        let manifests = Manifests::read(&sources(&[text("a", "*")])).unwrap();
        for field in [
            "policies",
            "policies[1].check",
            "policies[x].check",
            "selector",
            "policies[0",
        ] {
            assert_eq!(manifests.locate(field, ""), None, "{field}");
        }
        assert_eq!(manifests.locate("policies[0]", "wrong").unwrap().message, "wrong");
    }
}
