//! `TokenService`.

use std::time::Duration;

use muster_proto::v1::{CreateTokenRequest, CreateTokenResponse, Token, token_service_server::TokenService};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    Api,
    problem::{context, invalid_field, status},
};
use crate::{
    clock::{self, to_optional_timestamp},
    store::TokenRow,
    tokens::{self, NewToken},
};

#[tonic::async_trait]
impl TokenService for Api {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let ttl = match request.ttl {
            None => tokens::DEFAULT_TTL,
            Some(ttl) => {
                Duration::try_from(ttl).map_err(|_| status(&ctx, invalid_field("ttl", "must not be negative")))?
            }
        };
        let new = NewToken {
            ttl,
            uses: if request.uses == 0 { 1 } else { request.uses },
            labels: request.labels.clone(),
            description: request.description,
            creator: ctx.user().to_owned(),
        };
        let (row, token) = tokens::create(&self.db, &self.changes, new, clock::now())
            .await
            .map_err(|error| status(&ctx, error))?;
        info!(
            token.id = row.id,
            user = ctx.user(),
            request.id = ctx.request_id,
            "token created"
        );
        Ok(Response::new(CreateTokenResponse {
            token: Some(to_token(row, request.labels)),
            secret: token.expose().to_string(),
            ca_pins: self.pins.iter().map(ToString::to_string).collect(),
            endpoints: self.endpoints.clone(),
        }))
    }

    async fn list_tokens(
        &self,
        _request: Request<muster_proto::v1::ListTokensRequest>,
    ) -> Result<Response<muster_proto::v1::ListTokensResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn get_token(
        &self,
        _request: Request<muster_proto::v1::GetTokenRequest>,
    ) -> Result<Response<muster_proto::v1::GetTokenResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn revoke_token(
        &self,
        _request: Request<muster_proto::v1::RevokeTokenRequest>,
    ) -> Result<Response<muster_proto::v1::RevokeTokenResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}

fn to_token(row: TokenRow, labels: std::collections::BTreeMap<String, String>) -> Token {
    Token {
        id: row.id,
        description: row.description,
        labels,
        uses: i32::try_from(row.uses).unwrap_or(i32::MAX),
        uses_left: i32::try_from(row.uses_left).unwrap_or(i32::MAX),
        create_time: to_optional_timestamp(row.created_at),
        expire_time: to_optional_timestamp(row.expires_at),
        creator: row.creator,
        revision: row.revision,
        ..Default::default()
    }
}
