//! `ApiKeyService`.

use std::sync::Arc;

use muster_proto::v1::{self, ApiKeyStatus, api_key_service_server::ApiKeyService};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    Api, paging,
    problem::{context, invalid_field, status},
};
use crate::{
    api_keys::{DEFAULT_TTL, NewApiKey},
    clock::{self, Micros, to_optional_timestamp},
    store::ApiKeyRow,
};

#[tonic::async_trait]
impl ApiKeyService for Api {
    async fn create_api_key(
        &self,
        request: Request<v1::CreateApiKeyRequest>,
    ) -> Result<Response<v1::CreateApiKeyResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let ttl = match request.ttl {
            None => DEFAULT_TTL,
            Some(ttl) => ttl
                .try_into()
                .map_err(|_| status(&ctx, invalid_field("ttl", "must not be negative")))?,
        };
        let once = self.once(&ctx, &request.idempotency_key, &request, |row: &ApiKeyRow| {
            v1::CreateApiKeyResponse {
                api_key: Some(encode(row.clone(), row.created_at)),
                secret: String::new(),
            }
        })?;
        let new = NewApiKey {
            description: request.description,
            ttl,
            role: request.role,
            scope: request.scope,
            sources: request.sources,
        };
        let (keys, grants, by) = (Arc::clone(&self.api_keys), Arc::clone(&self.grants), super::by(&ctx));
        let change = async move { keys.create(new, once, &grants, &by, clock::now()).await };
        let (done, key) = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        info!(
            apikey.id = key.id(),
            repeated = done.is_repeated,
            user = ctx.user(),
            request.id = ctx.request_id,
            "API key created"
        );
        ctx.note.resource("apikey", key.id());
        if let Some(shown) = &done.answer.api_key {
            ctx.note.after(shown);
        }
        Ok(Response::new(v1::CreateApiKeyResponse {
            secret: key.expose().to_string(),
            ..done.answer
        }))
    }

    async fn list_api_keys(
        &self,
        request: Request<v1::ListApiKeysRequest>,
    ) -> Result<Response<v1::ListApiKeysResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let size = paging::size(request.page_size, 500, 1_000).map_err(|problem| status(&ctx, problem))?;
        let (revision, now) = (self.changes.revision(), clock::now());
        let mut rows = self.api_keys.list();
        rows.retain(|row| request.show_ended || standing(row, now) == ApiKeyStatus::Active);
        let (rows, next_page_token) = paging::page(
            rows,
            size,
            &request.page_token,
            |row| (-row.created_at, row.id.clone()),
            |row| format!("{}-{}", row.created_at, row.id),
            |text| {
                let (at, id) = text.split_once('-')?;
                Some((-at.parse::<i64>().ok()?, id.to_owned()))
            },
        )
        .map_err(|problem| status(&ctx, problem))?;
        Ok(Response::new(v1::ListApiKeysResponse {
            items: rows.into_iter().map(|row| encode(row, now)).collect(),
            revision,
            next_page_token,
        }))
    }

    async fn get_api_key(
        &self,
        request: Request<v1::GetApiKeyRequest>,
    ) -> Result<Response<v1::GetApiKeyResponse>, Status> {
        let ctx = context(&request)?;
        let row = self.api_keys.get(&request.into_inner().id);
        let row = row.map_err(|error| status(&ctx, error))?;
        Ok(Response::new(v1::GetApiKeyResponse {
            api_key: Some(encode(row, clock::now())),
        }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<v1::RevokeApiKeyRequest>,
    ) -> Result<Response<v1::RevokeApiKeyResponse>, Status> {
        let ctx = context(&request)?;
        let id = request.into_inner().id;
        ctx.note.resource("apikey", &id);
        if let Ok(before) = self.api_keys.get(&id) {
            ctx.note.before(&encode(before, clock::now()));
        }
        let (keys, grants, by) = (Arc::clone(&self.api_keys), Arc::clone(&self.grants), super::by(&ctx));
        let revoked = id.clone();
        let change = async move { keys.revoke(&revoked, &grants, &by, clock::now()).await };
        let row = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        info!(
            apikey.id = id,
            user = ctx.user(),
            request.id = ctx.request_id,
            "API key revoked"
        );
        let shown = encode(row, clock::now());
        ctx.note.after(&shown);
        Ok(Response::new(v1::RevokeApiKeyResponse { api_key: Some(shown) }))
    }
}

fn standing(row: &ApiKeyRow, now: Micros) -> ApiKeyStatus {
    match row {
        row if row.revoked_at > 0 => ApiKeyStatus::Revoked,
        row if row.expires_at <= now => ApiKeyStatus::Expired,
        _ => ApiKeyStatus::Active,
    }
}

fn encode(row: ApiKeyRow, now: Micros) -> v1::ApiKey {
    v1::ApiKey {
        status: standing(&row, now) as i32,
        id: row.id,
        description: row.description,
        sources: serde_json::from_str(&row.sources).unwrap_or_default(),
        creator: row.creator,
        create_time: to_optional_timestamp(row.created_at),
        expire_time: to_optional_timestamp(row.expires_at),
        revoke_time: to_optional_timestamp(row.revoked_at),
        last_used_time: to_optional_timestamp(row.last_used_at),
        revision: row.revision,
    }
}
