//! Templates of bootstrap tokens: on file, looked up, put there and taken away, and what a token is that is made by one. Who may
//! see which is decided above; they are made and changed by `manifests`.

use std::{collections::BTreeMap, sync::Arc};

use muster_proto::{
    json, manifest,
    v1::{CreateTokenRequest, EventSeverity, TokenTemplateSpec},
};

use crate::{
    access::{labels, scope::Scope},
    changes::Changes,
    clock::Micros,
    events::Event,
    manifests::{
        document,
        versions::{self, Before, Step},
    },
    store::{self, ChangeKind, Db, Op, TokenTemplateRow, Tx},
    users::{self, By, Users},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no token template {0}")]
    NotFound(String),
    /// Somebody else has one of that name, whom the caller does not see.
    #[error("the name of token template {0} is taken")]
    Taken(String),
    #[error("token template {0} cannot be made in that scope")]
    Foreign(String),
    #[error("token template {name} gives labels that its scope does not allow")]
    Labels { name: String, source: labels::Refusal },
    #[error("the revision is {is} and not {seen}")]
    Conflict { seen: i64, is: i64 },
    #[error(transparent)]
    Users(#[from] users::Error),
    #[error("failed to store the token template")]
    Store(#[from] store::Error),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub name: String,
    pub spec: TokenTemplateSpec,
    /// For people; those of agents are in the spec.
    pub labels: BTreeMap<String, String>,
    pub scope: Scope,
    /// Who looks after it; empty: nobody in particular.
    pub owner: String,
    pub creator: String,
    pub created_at: Micros,
    pub updated_at: Micros,
    pub revision: i64,
}

impl Template {
    /// Whether it says the same, whoever made it and when.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.spec, &self.labels, &self.owner, &self.scope) == (&other.spec, &other.labels, &other.owner, &other.scope)
    }
}

#[derive(Debug)]
pub struct TokenTemplates {
    db: Db,
    changes: Changes,
    users: Arc<Users>,
}

impl TokenTemplates {
    pub fn new(db: Db, changes: Changes, users: Arc<Users>) -> Self {
        Self { db, changes, users }
    }

    /// By name.
    pub async fn list(&self) -> Result<Vec<Template>, Error> {
        Ok(list(&self.db).await?)
    }

    pub async fn get(&self, name: &str) -> Result<Option<Template>, Error> {
        let row = self.db.token_template_get(name).await?;
        Ok(row.map(template_of).transpose()?)
    }

    /// `seen`: the revision that the caller knows; 0: whatever it is. `is_there` says whether it is there for the caller.
    pub async fn delete(
        &self,
        name: &str,
        seen: i64,
        is_there: impl Fn(&Template) -> bool,
        by: &By,
        now: Micros,
    ) -> Result<(), Error> {
        let _writing = self.users.begin(by).await?;
        let found = self.get(name).await?.filter(is_there);
        let found = found.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        is_current(seen, found.revision)?;
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::TokenTemplate, name, Op::Delete).await?;
        remove(&mut tx, &found, revision, by, now).await?;
        tx.commit().await?;
        self.changes.committed();
        Ok(())
    }
}

/// Whether a caller knows what there is; 0: it need not.
pub fn is_current(seen: i64, is: i64) -> Result<(), Error> {
    match seen > 0 && seen != is {
        true => Err(Error::Conflict { seen, is }),
        false => Ok(()),
    }
}

pub async fn list(db: &Db) -> Result<Vec<Template>, store::Error> {
    db.token_template_list().await?.into_iter().map(template_of).collect()
}

/// What a token is: as the request says, else as the template does. Labels of both, and of one key that of the request.
pub fn fill(asked: &CreateTokenRequest, template: Option<&TokenTemplateSpec>) -> TokenTemplateSpec {
    let template = template.cloned().unwrap_or_default();
    let mut labels = template.labels;
    labels.extend(asked.labels.clone());
    // A time of zero is none, which somebody says against the template.
    let is_none = |span: &prost_types::Duration| span.seconds == 0 && span.nanos == 0;
    TokenTemplateSpec {
        ttl: asked.ttl.or(template.ttl),
        uses: if asked.uses == 0 { template.uses } else { asked.uses },
        labels,
        description: match asked.description.as_str() {
            "" => template.description,
            said => said.to_owned(),
        },
        source: asked.source.clone().unwrap_or(template.source),
        allow_reenroll: asked.allow_reenroll.unwrap_or(template.allow_reenroll),
        ephemeral: asked.ephemeral.or(template.ephemeral).filter(|span| !is_none(span)),
        on_clone: asked.on_clone.unwrap_or(template.on_clone),
    }
}

/// One as it shall be; `before`: the one that there is. The revision is that of the change, which is noted already.
pub async fn put(
    tx: &mut Tx,
    template: &Template,
    before: Option<&Template>,
    by: &By,
    now: Micros,
) -> Result<(), store::Error> {
    tx.token_template_put(&TokenTemplateRow {
        name: template.name.clone(),
        spec: json::to_json(&template.spec).to_string(),
        labels: serde_json::json!(template.labels).to_string(),
        scope: template.scope.to_string(),
        owner: template.owner.clone(),
        creator: template.creator.clone(),
        created_at: template.created_at,
        updated_at: template.updated_at,
        revision: template.revision,
    })
    .await?;
    let caller = by.caller();
    let step = step(template, template.revision, now, &caller);
    versions::put(tx, step, before.map(was), &document::token_template(template)).await?;
    let (reason, what) = match before {
        None => ("TOKEN_TEMPLATE_CREATED", "created"),
        Some(_) => ("TOKEN_TEMPLATE_UPDATED", "changed"),
    };
    tell(tx, reason, what, template, by, now).await
}

pub async fn remove(tx: &mut Tx, template: &Template, revision: i64, by: &By, now: Micros) -> Result<(), store::Error> {
    tx.token_template_delete(&template.name).await?;
    let caller = by.caller();
    versions::delete(tx, step(template, revision, now, &caller), was(template)).await?;
    tell(tx, "TOKEN_TEMPLATE_DELETED", "deleted", template, by, now).await
}

fn step<'a>(template: &'a Template, revision: i64, at: Micros, caller: &'a str) -> Step<'a> {
    Step {
        kind: manifest::TOKEN_TEMPLATE,
        name: &template.name,
        revision,
        at,
        caller,
    }
}

fn was(template: &Template) -> Before {
    Before::of(
        template.revision,
        template.updated_at,
        document::token_template(template),
    )
}

async fn tell(
    tx: &mut Tx,
    reason: &str,
    what: &str,
    template: &Template,
    by: &By,
    now: Micros,
) -> Result<(), store::Error> {
    let text = format!("{by} has {what} token template {}", template.name);
    let event = Event::new(reason, None, text, now)
        .severity(EventSeverity::Info)
        .with("by", by);
    tx.event_insert_all(&[event.into_row()]).await
}

pub fn template_of(row: TokenTemplateRow) -> Result<Template, store::Error> {
    let corrupt = |problem: String| store::Error::Corrupt {
        table: "token_templates",
        id: row.name.clone(),
        problem,
    };
    Ok(Template {
        spec: json::from_json(&row.spec).map_err(|error| corrupt(error.to_string()))?,
        labels: serde_json::from_str(&row.labels).map_err(|error| corrupt(error.to_string()))?,
        scope: Scope::parse(&row.scope).map_err(|error| corrupt(error.to_string()))?,
        name: row.name.clone(),
        owner: row.owner,
        creator: row.creator,
        created_at: row.created_at,
        updated_at: row.updated_at,
        revision: row.revision,
    })
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::OnClone;

    use super::*;

    fn time(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn template() -> TokenTemplateSpec {
        TokenTemplateSpec {
            ttl: time(3_600),
            uses: 10,
            labels: labels(&[("env", "prod"), ("role", "web")]),
            description: "web machines".into(),
            source: "10.0.0.0/8".into(),
            allow_reenroll: true,
            ephemeral: time(7_200),
            on_clone: OnClone::Fork.into(),
        }
    }

    #[test]
    fn what_is_not_asked_for_is_as_the_template_says() {
        let asked = CreateTokenRequest::default();
        assert_eq!(fill(&asked, Some(&template())), template());
        assert_eq!(fill(&asked, None), TokenTemplateSpec::default());
    }

    #[test]
    fn what_is_asked_for_wins_field_by_field() {
        let asked = CreateTokenRequest {
            ttl: time(60),
            uses: 1,
            labels: labels(&[("role", "db"), ("rack", "7")]),
            description: "one".into(),
            source: Some("192.0.2.7".into()),
            allow_reenroll: Some(true),
            ephemeral: time(61),
            on_clone: Some(OnClone::Refuse.into()),
            ..Default::default()
        };
        let made = fill(&asked, Some(&template()));
        assert_eq!(made.labels, labels(&[("env", "prod"), ("rack", "7"), ("role", "db")]));
        assert_eq!((made.ttl, made.uses, made.ephemeral), (time(60), 1, time(61)));
        assert_eq!((&*made.description, &*made.source), ("one", "192.0.2.7"));
        assert_eq!(made.on_clone(), OnClone::Refuse);
    }

    #[test]
    fn nothing_is_something_that_can_be_asked_for() {
        let asked = CreateTokenRequest {
            source: Some(String::new()),
            allow_reenroll: Some(false),
            ephemeral: time(0),
            on_clone: Some(OnClone::Unspecified.into()),
            ..Default::default()
        };
        let made = fill(&asked, Some(&template()));
        let kept = TokenTemplateSpec {
            ttl: time(3_600),
            uses: 10,
            labels: template().labels,
            description: template().description,
            ..Default::default()
        };
        assert_eq!(made, kept);
    }
}
