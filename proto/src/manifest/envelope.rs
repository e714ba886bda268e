//! What is around a spec: apiVersion, kind, metadata; and the rules that a whole manifest must pass.

use std::collections::{BTreeMap, BTreeSet};

use super::{API_VERSION, Error, GRANT, KINDS, MAX_ERRORS, Manifest, Place, ROLE, TOKEN_TEMPLATE, place, rules, walk};
use crate::{
    document::{self, Key, Node, Value},
    excerpt::excerpt,
    ids, json, label,
    selector::Selector,
    suggest::suggest,
    v1::{self, manifest::Spec},
};

/// Where the message of a kind stands in a manifest of the contract.
fn field_of(kind: &str) -> &'static str {
    match kind {
        ROLE => "role",
        GRANT => "grant",
        TOKEN_TEMPLATE => "tokenTemplate",
        _ => "check",
    }
}

pub(super) fn manifests(source: &str, text: &str) -> Result<Vec<Manifest>, Vec<Error>> {
    let mut reader = Reader {
        source,
        ..Reader::default()
    };
    match document::parse(text) {
        Ok(documents) => documents.iter().for_each(|node| reader.document(node)),
        Err(document::Error { line, column, message }) => reader.found.add(Place { line, column }, message, None),
    }
    let mut errors = reader.found.errors;
    if errors.is_empty() {
        return Ok(reader.manifests);
    }
    errors.sort_by_key(|(place, ..)| *place);
    errors.truncate(MAX_ERRORS);
    let source = source.to_owned();
    let error = |(Place { line, column }, message, suggestion)| Error {
        source: source.clone(),
        line,
        column,
        message,
        suggestion,
    };
    Err(errors.into_iter().map(error).collect())
}

/// What is wrong, and which paths have been told of already.
#[derive(Default)]
pub(super) struct Found {
    errors: Vec<(Place, String, Option<String>)>,
    spoiled: BTreeSet<String>,
}

impl Found {
    pub fn add(&mut self, place: Place, message: impl Into<String>, suggestion: Option<String>) {
        self.errors.push((place, message.into(), suggestion));
    }

    /// Further complaints about this path, what is in it and what it is in would only follow from the first.
    pub fn spoil(&mut self, path: impl Into<String>) {
        self.spoiled.insert(path.into());
    }

    #[cfg(test)]
    pub fn suggestions(&self) -> Vec<&str> {
        self.errors
            .iter()
            .filter_map(|(_, _, meant)| meant.as_deref())
            .collect()
    }

    fn is_spoiled(&self, path: &str) -> bool {
        let within = |inner: &str, outer: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.spoiled
            .iter()
            .any(|spoiled| within(path, spoiled) || within(spoiled, path))
    }
}

#[derive(Default)]
struct Reader<'a> {
    source: &'a str,
    manifests: Vec<Manifest>,
    found: Found,
    names: BTreeMap<(String, String), usize>,
}

impl Reader<'_> {
    fn document(&mut self, node: &Node) {
        let Value::Map(entries) = &node.value else {
            let message = format!(
                "expected a manifest, a map with apiVersion, kind, metadata and spec; found {}",
                node.describe()
            );
            return self.found.add(at(node), message, None);
        };
        // What `policy list -o yaml` shows.
        if let (
            Some(Node {
                value: Value::Seq(items),
                ..
            }),
            None,
        ) = (node.get("items"), node.get("kind"))
        {
            return items.iter().for_each(|item| self.document(item));
        }
        self.found.spoiled.clear();
        let before = self.found.errors.len();
        self.known_keys(
            entries,
            &["apiVersion", "kind", "metadata", "spec", "status"],
            "a manifest",
        );
        self.api_version(node);
        let kind = self.kind(node);
        let mut fields = BTreeMap::new();
        let metadata = self.metadata(node, kind, &mut fields);
        let Some(kind) = kind else { return };
        let spec = self.spec(node, kind, &mut fields);
        if self.found.errors.len() > before {
            return;
        }
        let (Some(metadata), Some(spec)) = (metadata, spec) else {
            return;
        };
        // A grant is what it says, and what it says twice the controller finds out.
        let is_named = !metadata.name.is_empty();
        if is_named && let Some(first) = self.names.insert((kind.to_owned(), metadata.name.clone()), node.line) {
            let message = format!("there is a {kind} `{}` in line {first} already", metadata.name);
            let place = place(&fields, "metadata.name").unwrap_or(at(node));
            return self.found.add(place, message, None);
        }
        let document = v1::Manifest {
            kind: kind.to_owned(),
            metadata: Some(metadata),
            spec: Some(spec),
        };
        self.manifests.push(Manifest {
            source: self.source.to_owned(),
            line: node.line,
            document,
            fields,
        });
    }

    fn known_keys(&mut self, entries: &[(Key, Node)], known: &[&'static str], of: &str) {
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let meant = suggest(&key.text, known.iter().copied());
            let message = match meant {
                Some(_) => format!("unknown field `{}`", excerpt(&key.text)),
                None => format!("unknown field `{}`; {of} has {}", excerpt(&key.text), known.join(", ")),
            };
            meant.into_iter().for_each(|meant| self.found.spoil(meant));
            self.found.add(at_key(key), message, meant.map(str::to_owned));
        }
    }

    fn api_version(&mut self, node: &Node) {
        match node.get("apiVersion") {
            Some(Node {
                value: Value::String(version),
                ..
            }) if version == API_VERSION => {}
            Some(other) => {
                let message = format!("expected apiVersion `{API_VERSION}`, found {}", other.describe());
                self.found.add(at(other), message, None);
            }
            None => self.missing(node, "apiVersion", &format!("`apiVersion: {API_VERSION}`")),
        }
    }

    fn kind(&mut self, node: &Node) -> Option<&'static str> {
        let Some(kind) = node.get("kind") else {
            self.missing(node, "kind", "`kind: Check`");
            return None;
        };
        let known = match &kind.value {
            Value::String(name) => KINDS.into_iter().find(|kind| kind == name),
            _ => None,
        };
        if known.is_none() {
            let meant = match &kind.value {
                Value::String(name) => suggest(name, KINDS),
                _ => None,
            };
            let message = format!(
                "expected a kind, which is {}; found {}",
                KINDS.join(" or "),
                kind.describe()
            );
            self.found.add(at(kind), message, meant.map(str::to_owned));
        }
        known
    }

    fn metadata(
        &mut self,
        node: &Node,
        kind: Option<&str>,
        fields: &mut BTreeMap<String, Place>,
    ) -> Option<v1::PolicyMetadata> {
        let Some(metadata) = node.get("metadata") else {
            if kind == Some(GRANT) {
                return Some(v1::PolicyMetadata::default());
            }
            self.missing(node, "metadata", "`metadata: { name: disk-root }`");
            return None;
        };
        fields.insert("metadata".to_owned(), at(metadata));
        let Value::Map(entries) = &metadata.value else {
            let message = format!(
                "expected a map like `{{ name: disk-root }}`, found {}",
                metadata.describe()
            );
            self.found.add(at(metadata), message, None);
            return None;
        };
        let mut known = vec!["name", "labels", "owner"];
        known.extend(match kind {
            // The scope of a grant stands in its spec.
            Some(ROLE | GRANT) => [].as_slice(),
            Some(TOKEN_TEMPLATE) => &["scope"],
            _ => &["scope", "version"],
        });
        known.extend(["revision", "createTime", "updateTime"]);
        self.known_keys(entries, &known, "metadata");
        let name = match kind {
            Some(GRANT) if metadata.get("name").is_none() => Some(String::new()),
            _ => self.name(metadata, fields),
        };
        let labels = self.labels(metadata, fields);
        let scope = self.scope(metadata, fields);
        let owner = self.owner(metadata, fields);
        Some(v1::PolicyMetadata {
            name: name?,
            labels,
            scope,
            owner,
            ..Default::default()
        })
    }

    fn owner(&mut self, metadata: &Node, fields: &mut BTreeMap<String, Place>) -> String {
        let node = match metadata.get("owner") {
            None | Some(Node { value: Value::Null, .. }) => return String::new(),
            Some(node) => node,
        };
        fields.insert("metadata.owner".to_owned(), at(node));
        let owner = walk::text(node).and_then(|owner| match owner.is_empty() || ids::name_is_valid(&owner) {
            true => Ok(owner),
            false => Err(format!(
                "owner: `{}` is no name; one has 1 to 63 of a-z, 0-9, `-`, `_` and `.`, with a letter or digit at both ends",
                excerpt(&owner)
            )),
        });
        owner.unwrap_or_else(|message| {
            self.found.add(at(node), message, None);
            String::new()
        })
    }

    fn name(&mut self, metadata: &Node, fields: &mut BTreeMap<String, Place>) -> Option<String> {
        let Some(node) = metadata.get("name") else {
            if !self.found.is_spoiled("name") {
                self.found.add(
                    at(metadata),
                    "metadata has no name; add one, for example `name: disk-root`",
                    None,
                );
            }
            return None;
        };
        fields.insert("metadata.name".to_owned(), at(node));
        let name = walk::text(node)
            .map_err(|message| self.found.add(at(node), message, None))
            .ok()?;
        if !ids::name_is_valid(&name) {
            let lower: String = name
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                        c.to_ascii_lowercase()
                    } else {
                        '-'
                    }
                })
                .take(ids::MAX_NAME)
                .collect();
            let meant = lower.trim_matches(['-', '_', '.']);
            let message = format!(
                "`{}` is no name; one has 1 to 63 of a-z, 0-9, `-`, `_` and `.`, with a letter or digit at both ends",
                excerpt(&name)
            );
            self.found
                .add(at(node), message, ids::name_is_valid(meant).then(|| meant.to_owned()));
        }
        Some(name)
    }

    fn labels(&mut self, metadata: &Node, fields: &mut BTreeMap<String, Place>) -> BTreeMap<String, String> {
        let entries = match metadata.get("labels") {
            None | Some(Node { value: Value::Null, .. }) => return BTreeMap::new(),
            Some(Node {
                value: Value::Map(entries),
                ..
            }) => entries,
            Some(other) => {
                let message = format!("expected a map like `{{ team: base }}`, found {}", other.describe());
                self.found.add(at(other), message, None);
                return BTreeMap::new();
            }
        };
        let mut labels = BTreeMap::new();
        for (key, node) in entries {
            fields.insert(format!("metadata.labels[{}]", key.text), at(node));
            let value = walk::text(node).and_then(|value| {
                label::check(&key.text, &value).map_err(|error| error.to_string())?;
                Ok(value)
            });
            match value {
                Ok(value) => drop(labels.insert(key.text.clone(), value)),
                Err(message) => self.found.add(at(node), message, None),
            }
        }
        if labels.len() > label::MAX_COUNT {
            let message = label::Error::Count { count: labels.len() }.to_string();
            self.found.add(at(metadata), message, None);
        }
        labels
    }

    /// What a scope may hold is the controller's to say; that it is no selector at all is better said here.
    fn scope(&mut self, metadata: &Node, fields: &mut BTreeMap<String, Place>) -> String {
        let node = match metadata.get("scope") {
            None | Some(Node { value: Value::Null, .. }) => return String::new(),
            Some(node) => node,
        };
        fields.insert("metadata.scope".to_owned(), at(node));
        let scope = walk::text(node).and_then(|scope| {
            if !scope.is_empty() {
                Selector::parse(&scope).map_err(|error| error.to_string())?;
            }
            Ok(scope)
        });
        scope.unwrap_or_else(|message| {
            self.found.add(at(node), format!("scope: {message}"), None);
            String::new()
        })
    }

    fn spec(&mut self, node: &Node, kind: &str, fields: &mut BTreeMap<String, Place>) -> Option<Spec> {
        let field = field_of(kind);
        let Some(spec) = node.get("spec") else {
            self.missing(node, "spec", "what the manifest says stands under `spec:`");
            return None;
        };
        fields.insert(field.to_owned(), at(spec));
        let descriptor = match kind {
            ROLE => json::descriptor::<v1::RoleSpec>(),
            GRANT => json::descriptor::<v1::GrantSpec>(),
            TOKEN_TEMPLATE => json::descriptor::<v1::TokenTemplateSpec>(),
            _ => json::descriptor::<v1::Check>(),
        };
        let mut walker = walk::Walker {
            found: &mut self.found,
            fields,
        };
        let message = walker.message(&descriptor, spec, field)?;
        let read = match kind {
            ROLE => Spec::Role(message.transcode_to().ok()?),
            GRANT => Spec::Grant(message.transcode_to().ok()?),
            TOKEN_TEMPLATE => Spec::TokenTemplate(message.transcode_to().ok()?),
            _ => Spec::Check(message.transcode_to().ok()?),
        };
        for violation in rules::violations(&read) {
            let violation = violation.within(field);
            if !self.found.is_spoiled(&violation.field) {
                let place = place(fields, &violation.field).unwrap_or(at(spec));
                let name = violation
                    .field
                    .strip_prefix(field)
                    .unwrap_or_default()
                    .trim_start_matches('.');
                let name = if name.is_empty() { "spec" } else { name };
                self.found
                    .add(place, format!("{name}: {}", violation.description), None);
            }
        }
        Some(read)
    }

    fn missing(&mut self, node: &Node, field: &str, example: &str) {
        if !self.found.is_spoiled(field) {
            self.found
                .add(at(node), format!("the manifest has no {field}; add {example}"), None);
        }
    }
}

pub(super) fn at(node: &Node) -> Place {
    Place {
        line: node.line,
        column: node.column,
    }
}

pub(super) fn at_key(key: &Key) -> Place {
    Place {
        line: key.line,
        column: key.column,
    }
}
