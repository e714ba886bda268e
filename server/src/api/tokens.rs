//! `TokenService`.

use std::collections::HashMap;

use muster_proto::{
    error::{ErrorReason, Problem},
    ids::AgentId,
    v1::{
        self, CreateTokenRequest, CreateTokenResponse, Token, TokenStatus, TokenUse, token_service_server::TokenService,
    },
};
use tonic::{Code, Request, Response, Status};
use tracing::info;

use super::{
    Api, paging,
    problem::{context, invalid_field, status},
    scopes::{has_scope, scope_for_new},
};
use crate::{
    access::{labels, scope::Scopes},
    agents::OnClone,
    clock::{self, Micros, to_duration, to_optional_timestamp},
    store::{TokenRow, UseRow},
    token_templates::{self, Template},
    tokens::{self, NewToken},
};

/// Uses that are told of one token.
const MAX_USES: i64 = 1_000;

#[tonic::async_trait]
impl TokenService for Api {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let (ca_pins, endpoints) = (self.pki.pins(), self.endpoints.clone());
        let once = self.once(&ctx, &request.idempotency_key, &request, move |row: &TokenRow| {
            CreateTokenResponse {
                token: Some(encode(row.clone(), row.created_at)),
                secret: String::new(),
                ca_pins: ca_pins.iter().map(ToString::to_string).collect(),
                endpoints,
            }
        })?;
        let agent_id = match request.agent_id.as_str() {
            "" => None,
            text => Some(
                text.parse::<AgentId>()
                    .map_err(|_| status(&ctx, invalid_field("agent_id", "is not a UUID")))?,
            ),
        };
        // One that is there and out of reach is not there.
        if let Some(id) = agent_id
            && self.agents.with(id, |entry| entry.is_in(&ctx.scopes())) == Some(false)
        {
            return Err(status(&ctx, crate::agents::Error::NotFound(id.to_string())));
        }
        let (scopes, creator) = (ctx.scopes(), ctx.user());
        let make = |template| self.new_token(&request, template, agent_id, creator, &scopes);
        let (ca, now) = (self.pki.pinned(), clock::now());
        let created = tokens::create_by(&self.db, &self.changes, &request.template, make, &ca, once, now).await;
        let (done, token) = created.map_err(|problem: Problem| status(&ctx, problem))?;
        // What a call has made that came before may be out of the caller's reach by now.
        if let Some(made) = done.answer.token.as_ref().filter(|made| !has_scope(&ctx, &made.scope)) {
            return Err(status(&ctx, unknown(&made.id)));
        }
        info!(
            token.id = token.id(),
            repeated = done.is_repeated,
            user = ctx.user(),
            request.id = ctx.request_id,
            "token created"
        );
        ctx.note.resource("token", token.id());
        if let Some(shown) = &done.answer.token {
            ctx.note.after(shown);
        }
        Ok(Response::new(CreateTokenResponse {
            secret: token.expose().to_string(),
            ..done.answer
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let size = paging::size(request.page_size, 500, 1_000).map_err(|problem| status(&ctx, problem))?;
        let (revision, now) = (self.changes.revision(), clock::now());
        let failed = |error| status(&ctx, tokens::Error::from(error));
        let mut rows = self.db.token_list(request.show_ended, now).await.map_err(failed)?;
        rows.retain(|row| has_scope(&ctx, &row.scope));
        let mut last: HashMap<String, UseRow> = HashMap::new();
        for row in self.db.token_last_uses().await.map_err(failed)? {
            last.insert(row.token_id.clone(), row);
        }
        let total_size = i32::try_from(rows.len()).unwrap_or(i32::MAX);
        let key = |row: &TokenRow| (-row.created_at, row.id.clone());
        let (rows, next_page_token) = paging::page(
            rows,
            size,
            &request.page_token,
            key,
            |row| format!("{}-{}", row.created_at, row.id),
            |text| {
                let (at, id) = text.split_once('-')?;
                Some((-at.parse::<i64>().ok()?, id.to_owned()))
            },
        )
        .map_err(|problem| status(&ctx, problem))?;
        let items = rows
            .into_iter()
            .map(|row| {
                let redemptions = last.get(&row.id).map(|row| self.token_use(row)).into_iter().collect();
                Token {
                    redemptions,
                    ..encode(row, now)
                }
            })
            .collect();
        Ok(Response::new(v1::ListTokensResponse {
            items,
            revision,
            next_page_token,
            total_size,
        }))
    }

    async fn get_token(&self, request: Request<v1::GetTokenRequest>) -> Result<Response<v1::GetTokenResponse>, Status> {
        let ctx = context(&request)?;
        let id = request.into_inner().id;
        let failed = |error| status(&ctx, tokens::Error::from(error));
        let row = self.db.token_get(&id).await.map_err(failed)?;
        let row = row.filter(|row| has_scope(&ctx, &row.scope));
        let row = row.ok_or_else(|| status(&ctx, unknown(&id)))?;
        let uses = self.db.token_uses(&id, MAX_USES).await.map_err(failed)?;
        let token = Token {
            redemptions: uses.iter().map(|row| self.token_use(row)).collect(),
            ..encode(row, clock::now())
        };
        Ok(Response::new(v1::GetTokenResponse { token: Some(token) }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let (id, seen) = (request.id, request.revision);
        let found = self.db.token_get(&id).await;
        let found = found.map_err(|error| status(&ctx, tokens::Error::from(error)))?;
        if !found.is_some_and(|row| has_scope(&ctx, &row.scope)) {
            return Err(status(&ctx, unknown(&id)));
        }
        ctx.note.resource("token", &id);
        let row = tokens::revoke(&self.db, &self.changes, &id, seen, &ctx.user(), clock::now())
            .await
            .map_err(|error| status(&ctx, error))?
            .ok_or_else(|| status(&ctx, unknown(&id)))?;
        info!(
            token.id = id,
            user = ctx.user(),
            request.id = ctx.request_id,
            "token revoked"
        );
        Ok(Response::new(v1::RevokeTokenResponse {
            token: Some(encode(row, clock::now())),
        }))
    }
}

impl Api {
    /// What a token shall be, by somebody who reaches this.
    fn new_token(
        &self,
        request: &CreateTokenRequest,
        template: Option<Template>,
        agent_id: Option<AgentId>,
        creator: String,
        scopes: &Scopes,
    ) -> Result<NewToken, Problem> {
        let template = template.filter(|template| scopes.has(&template.scope));
        if template.is_none() && !request.template.is_empty() {
            return Err(token_templates::Error::NotFound(request.template.clone()).into());
        }
        let scope = match (request.scope.as_str(), &template) {
            ("", Some(template)) => scope_for_new(scopes, &template.scope.to_string())?,
            (asked, _) => scope_for_new(scopes, asked)?,
        };
        let spec = token_templates::fill(request, template.as_ref().map(|template| &template.spec));
        // Those of a template too: whose scopes look at which labels may have changed since it was made.
        let own = Scopes::of(scope.clone());
        labels::check(&own, self.grants.rights(), &Default::default(), &spec.labels)?;
        Ok(NewToken {
            spec,
            creator,
            agent_id,
            scope,
        })
    }

    fn token_use(&self, row: &UseRow) -> TokenUse {
        let id = row.agent_id.parse::<AgentId>().ok();
        let name = id.and_then(|id| self.agents.with(id, |entry| entry.name.clone()));
        TokenUse {
            agent_id: row.agent_id.clone(),
            agent_name: name.unwrap_or_default(),
            time: to_optional_timestamp(row.created_at),
            source: row.source.clone(),
        }
    }
}

fn unknown(id: &str) -> Problem {
    Problem::new(Code::NotFound, ErrorReason::NotFound, format!("there is no token {id}"))
}

fn encode(row: TokenRow, now: Micros) -> Token {
    let standing = match &row {
        row if row.revoked_at > 0 => TokenStatus::Revoked,
        row if row.expires_at <= now => TokenStatus::Expired,
        row if row.uses_left <= 0 => TokenStatus::UsedUp,
        _ => TokenStatus::Active,
    };
    let on_clone = match OnClone::parse(&row.on_clone) {
        Ok(Some(OnClone::Refuse)) => v1::OnClone::Refuse,
        Ok(Some(OnClone::Fork)) => v1::OnClone::Fork,
        _ => v1::OnClone::Unspecified,
    };
    Token {
        id: row.id,
        description: row.description,
        labels: serde_json::from_str(&row.labels).unwrap_or_default(),
        uses: i32::try_from(row.uses).unwrap_or(i32::MAX),
        uses_left: i32::try_from(row.uses_left).unwrap_or(i32::MAX),
        create_time: to_optional_timestamp(row.created_at),
        expire_time: to_optional_timestamp(row.expires_at),
        creator: row.creator,
        revision: row.revision,
        status: standing as i32,
        agent_id: row.agent_id,
        source: row.source,
        allow_reenroll: row.allow_reenroll,
        ephemeral: (row.ephemeral > 0).then(|| to_duration(row.ephemeral)),
        on_clone: on_clone as i32,
        revoke_time: to_optional_timestamp(row.revoked_at),
        redemptions: Vec::new(),
        revoke_reason: row.revoke_reason,
        scope: row.scope,
    }
}
