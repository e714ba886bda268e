//! Names and labels as they are on the controller now. One page of each is enough for who types; what takes longer than a moment
//! is not there.

use std::time::Duration;

use muster_proto::v1;
use prost_types::FieldMask;

use super::Chosen;
use crate::{
    app::Session,
    client::{Client, Manner},
    context::{self, Context, Stored},
    problem::{Problem, status::Asked},
};

/// A person that has pressed Tab waits no longer, unless --timeout says so.
const MOMENT: Duration = Duration::from_millis(300);
const PAGE: i32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Agent,
    /// "key=value", and where a selector goes on, what is before it.
    Label,
    Policy,
    User,
    Role,
    Permission,
    Token,
    TokenTemplate,
    ApiKey,
    Context,
}

pub(super) async fn names(kind: Kind, current: &str, chosen: &Chosen, session: &Session) -> Vec<String> {
    let global = session.global();
    let config = chosen.config.as_deref().or(global.config());
    if kind == Kind::Context {
        let stored = Stored::open(config);
        return stored.map_or_else(|_| Vec::new(), |stored| stored.names().map(str::to_owned).collect());
    }
    let moment = global.timeout.unwrap_or(MOMENT);
    let asking = async {
        let context = chosen.context.as_deref().or(global.context());
        let key = context::explicit_api_key(chosen.api_key_file.as_deref().or(global.api_key_file()))?;
        let context = Context::load(config, context, key)?;
        let asked = Asked::new("complete a name");
        let client = Client::connect(&context, Manner::alone(moment), &asked).await?;
        ask(kind, current, &client, &asked).await
    };
    match tokio::time::timeout(moment, asking).await {
        Ok(Ok(names)) => names,
        _ => Vec::new(),
    }
}

async fn ask(kind: Kind, current: &str, client: &Client, asked: &Asked) -> Result<Vec<String>, Problem> {
    let mask = |path: &str| {
        Some(FieldMask {
            paths: vec![path.to_owned()],
        })
    };
    let agents = async |path: &str| {
        let request = v1::ListAgentsRequest {
            page_size: PAGE,
            read_mask: mask(path),
            ..Default::default()
        };
        let call = async |request| client.agents().list_agents(request).await;
        client.call(asked, call, request).await
    };
    Ok(match kind {
        Kind::Agent => {
            let list = agents("name").await?;
            list.items.into_iter().map(|agent| agent.name).collect()
        }
        Kind::Label => labels(current, &agents("labels").await?.items),
        Kind::Policy => {
            let request = v1::ListPoliciesRequest {
                page_size: PAGE,
                read_mask: mask("metadata.name"),
                ..Default::default()
            };
            let call = async |request| client.policies().list_policies(request).await;
            let list = client.call(asked, call, request).await?;
            let names = list.items.into_iter().filter_map(|policy| policy.metadata);
            names.map(|metadata| metadata.name).collect()
        }
        Kind::User => {
            let request = v1::ListUsersRequest {
                page_size: PAGE,
                ..Default::default()
            };
            let call = async |request| client.users().list_users(request).await;
            let list = client.call(asked, call, request).await?;
            list.items.into_iter().map(|user| user.name).collect()
        }
        Kind::Role => {
            let request = v1::ListRolesRequest {
                page_size: PAGE,
                ..Default::default()
            };
            let call = async |request| client.roles().list_roles(request).await;
            let list = client.call(asked, call, request).await?;
            list.items.into_iter().map(|role| role.name).collect()
        }
        Kind::Permission => {
            let call = async |request| client.roles().list_permissions(request).await;
            let list = client.call(asked, call, v1::ListPermissionsRequest {}).await?;
            list.items.into_iter().map(|permission| permission.name).collect()
        }
        Kind::Token => {
            let request = v1::ListTokensRequest {
                page_size: PAGE,
                ..Default::default()
            };
            let call = async |request| client.tokens().list_tokens(request).await;
            let list = client.call(asked, call, request).await?;
            list.items.into_iter().map(|token| token.id).collect()
        }
        Kind::TokenTemplate => {
            let request = v1::ListTokenTemplatesRequest {
                page_size: PAGE,
                ..Default::default()
            };
            let call = async |request| client.token_templates().list_token_templates(request).await;
            let list = client.call(asked, call, request).await?;
            list.items.into_iter().map(|template| template.name).collect()
        }
        Kind::ApiKey => {
            let request = v1::ListApiKeysRequest {
                page_size: PAGE,
                ..Default::default()
            };
            let call = async |request| client.api_keys().list_api_keys(request).await;
            let list = client.call(asked, call, request).await?;
            list.items.into_iter().map(|key| key.id).collect()
        }
        Kind::Context => Vec::new(),
    })
}

/// Of a selector the last term is completed, and what is before it stays.
fn labels(current: &str, agents: &[v1::Agent]) -> Vec<String> {
    let before = current.rfind(',').map_or("", |comma| &current[..=comma]);
    let of = |agent: &v1::Agent| -> Vec<String> {
        let labels = agent.labels.iter();
        labels
            .map(|label| format!("{before}{}={}", label.key, label.value))
            .collect()
    };
    agents.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_term_of_a_selector_is_completed() {
        let label = |key: &str, value: &str| v1::Label {
            key: key.to_owned(),
            value: value.to_owned(),
            ..Default::default()
        };
        let agent = v1::Agent {
            labels: vec![label("env", "prod"), label("role", "db")],
            ..Default::default()
        };
        assert_eq!(labels("", std::slice::from_ref(&agent)), ["env=prod", "role=db"]);
        assert_eq!(
            labels("env=prod,ro", &[agent]),
            ["env=prod,env=prod", "env=prod,role=db"]
        );
    }
}
