//! What becomes of templates of tokens. A template keeps to the rules of tokens: it is there for who has its scope, and gives no
//! labels beyond that.

use std::collections::BTreeMap;

use muster_proto::{
    error::FieldViolation,
    ids, token,
    v1::{PolicyMetadata, TokenTemplateSpec},
};

use super::{
    super::{Error, Manifests, Reach},
    Pair,
    gather::kept,
};
use crate::{
    access::{
        labels,
        scope::{Scope, Scopes, Unclear},
    },
    policies::draft::NAME_RULE,
    token_templates::{self, Template},
    tokens::label_violations,
};

impl Manifests {
    /// `known`: all that there are, by name.
    pub(super) fn token_template(
        &self,
        index: usize,
        metadata: PolicyMetadata,
        spec: TokenTemplateSpec,
        known: &BTreeMap<String, Template>,
        reach: &Reach,
    ) -> Result<Result<Pair<Template>, Vec<FieldViolation>>, Error> {
        let mut violations = Vec::new();
        let mut violate = |field: &str, text: String| {
            violations.push(FieldViolation::new(format!("manifests[{index}].{field}"), text));
        };
        let name = metadata.name;
        if !ids::name_is_valid(&name) {
            violate("metadata.name", NAME_RULE.into());
        }
        if !metadata.owner.is_empty() && !ids::name_is_valid(&metadata.owner) {
            violate("metadata.owner", NAME_RULE.into());
        }
        for violation in label_violations("metadata.labels", &metadata.labels) {
            violate(&violation.field, violation.description);
        }
        for violation in token::validate(&spec) {
            violate(&format!("tokenTemplate.{}", violation.field), violation.description);
        }
        let asked = Scope::parse(&metadata.scope).unwrap_or_else(|error| {
            violate("metadata.scope", error.to_string());
            Scope::ALL
        });
        let found = known.get(&name).cloned();
        let scope = match &found {
            Some(found) if !reach.token_templates.has(&found.scope) => {
                return Err(token_templates::Error::Taken(name).into());
            }
            // It keeps the one that it was made in.
            Some(found) if asked.is_all() || asked == found.scope => found.scope.clone(),
            Some(_) => return Err(token_templates::Error::Foreign(name).into()),
            None => match reach.token_templates.for_new(&asked) {
                Ok(scope) => scope,
                Err(Unclear::Foreign) => return Err(token_templates::Error::Foreign(name).into()),
                Err(Unclear::Several) => {
                    let text = "is missing: the caller has several scopes; `musterctl whoami` shows them";
                    violate("metadata.scope", text.into());
                    Scope::ALL
                }
            },
        };
        if !violations.is_empty() {
            return Ok(Err(violations));
        }
        token_templates::is_current(metadata.revision, found.as_ref().map_or(0, |found| found.revision))?;
        let wanted = Template {
            owner: kept(metadata.owner, found.as_ref().map(|found| &found.owner)),
            name,
            spec,
            labels: metadata.labels,
            scope,
            creator: String::new(),
            created_at: 0,
            updated_at: 0,
            revision: 0,
        };
        let is_unchanged = found.as_ref().is_some_and(|found| found.is_same(&wanted));
        if !is_unchanged {
            let own = Scopes::of(wanted.scope.clone());
            let allowed = labels::check(&own, self.grants.rights(), &BTreeMap::new(), &wanted.spec.labels);
            allowed.map_err(|source| token_templates::Error::Labels {
                name: wanted.name.clone(),
                source,
            })?;
        }
        Ok(Ok(Pair {
            found,
            wanted: Some(wanted),
        }))
    }
}
