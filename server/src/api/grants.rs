//! `GrantService`, and `AccessService`: what was granted to whom, and what that is for the caller.

use std::sync::Arc;

use muster_proto::v1::{
    self, access_service_server::AccessService, create_grant_request, get_caller_response::Caller as Shown, grant,
    grant_service_server::GrantService,
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    Api, paging,
    problem::{context, invalid_field, status, through_another_door},
};
use crate::{
    access::{
        permission,
        rights::{Grant, Subject},
    },
    clock::{self, to_optional_timestamp},
    grants,
};

#[tonic::async_trait]
impl GrantService for Api {
    async fn create_grant(
        &self,
        request: Request<v1::CreateGrantRequest>,
    ) -> Result<Response<v1::CreateGrantResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let subject = match request.subject {
            Some(create_grant_request::Subject::User(name)) if !name.is_empty() => Subject::User(name),
            Some(create_grant_request::Subject::ApiKey(id)) if !id.is_empty() => Subject::ApiKey(id),
            _ => {
                let text = "is missing: the name of a user, or the id of an API key";
                return Err(status(&ctx, invalid_field("subject", text)));
            }
        };
        if let Subject::ApiKey(id) = &subject {
            let key = self.api_keys.get(id).map_err(|error| status(&ctx, error))?;
            if key.revoked_at > 0 || key.expires_at <= clock::now() {
                return Err(status(&ctx, grants::Error::NoSubject(subject)));
            }
        }
        let (grants, by) = (Arc::clone(&self.grants), super::by(&ctx));
        let change = async move {
            grants
                .create(subject, &request.role, &request.scope, &by, clock::now())
                .await
        };
        let grant = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        info!(
            grant.id = grant.id,
            role = grant.role,
            subject = %grant.subject,
            scope = %grant.scope,
            user = ctx.user(),
            request.id = ctx.request_id,
            "role granted"
        );
        ctx.note.resource("grant", &grant.id);
        let grant = encode(grant);
        ctx.note.after(&grant);
        Ok(Response::new(v1::CreateGrantResponse { grant: Some(grant) }))
    }

    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let size = paging::size(request.page_size, 500, 1_000).map_err(|problem| status(&ctx, problem))?;
        let revision = self.changes.revision();
        let is_meant = |grant: &Grant| {
            let is_subject = match (request.user.as_str(), request.api_key.as_str()) {
                ("", "") => true,
                (user, key) => match &grant.subject {
                    Subject::User(name) => name == user,
                    Subject::ApiKey(id) => id == key,
                },
            };
            is_subject && (request.role.is_empty() || grant.role == request.role)
        };
        let mut grants = self.grants.rights().grants();
        grants.retain(is_meant);
        let place = |grant: &Grant| (grant.subject.clone(), grant.role.clone(), grant.scope.to_string());
        let (grants, next_page_token) = paging::page(
            grants,
            size,
            &request.page_token,
            place,
            |grant| grant.id.clone(),
            |id| self.grants.rights().grant(id).as_ref().map(place),
        )
        .map_err(|problem| status(&ctx, problem))?;
        Ok(Response::new(v1::ListGrantsResponse {
            items: grants.into_iter().map(encode).collect(),
            revision,
            next_page_token,
        }))
    }

    async fn get_grant(&self, request: Request<v1::GetGrantRequest>) -> Result<Response<v1::GetGrantResponse>, Status> {
        let ctx = context(&request)?;
        let id = request.into_inner().id;
        let grant = self.grants.rights().grant(&id);
        let grant = grant.ok_or_else(|| status(&ctx, grants::Error::NoGrant(id)))?;
        Ok(Response::new(v1::GetGrantResponse {
            grant: Some(encode(grant)),
        }))
    }

    async fn delete_grant(
        &self,
        request: Request<v1::DeleteGrantRequest>,
    ) -> Result<Response<v1::DeleteGrantResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let (id, seen) = (request.id, request.revision);
        ctx.note.resource("grant", &id);
        if let Some(before) = self.grants.rights().grant(&id) {
            ctx.note.before(&encode(before));
        }
        let (grants, by, gone) = (Arc::clone(&self.grants), super::by(&ctx), id.clone());
        let change = async move { grants.delete(&gone, seen, &by, clock::now()).await };
        self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        info!(
            grant.id = id,
            user = ctx.user(),
            request.id = ctx.request_id,
            "grant deleted"
        );
        Ok(Response::new(v1::DeleteGrantResponse {}))
    }
}

#[tonic::async_trait]
impl AccessService for Api {
    async fn get_caller(
        &self,
        request: Request<v1::GetCallerRequest>,
    ) -> Result<Response<v1::GetCallerResponse>, Status> {
        let ctx = context(&request)?;
        let operator = ctx.operator().ok_or_else(|| status(&ctx, through_another_door()))?;
        let permissions = permission::ALL.iter().filter_map(|permission| {
            let scopes = operator.rights.scopes(permission);
            (!scopes.is_none()).then(|| v1::EffectivePermission {
                name: permission.name.to_owned(),
                scopes: match scopes.is_all() {
                    true => Vec::new(),
                    false => scopes.iter().map(ToString::to_string).collect(),
                },
            })
        });
        Ok(Response::new(v1::GetCallerResponse {
            caller: Some(match &operator.subject {
                Subject::User(name) => Shown::User(name.clone()),
                Subject::ApiKey(id) => Shown::ApiKey(id.clone()),
            }),
            grants: operator.rights.grants.iter().cloned().map(encode).collect(),
            permissions: permissions.collect(),
            source: ctx.source.ip().to_string(),
            trust_domain: self.pki.trust_domain().to_string(),
        }))
    }
}

pub(super) fn encode(grant: Grant) -> v1::Grant {
    v1::Grant {
        id: grant.id,
        subject: Some(match grant.subject {
            Subject::User(name) => grant::Subject::User(name),
            Subject::ApiKey(id) => grant::Subject::ApiKey(id),
        }),
        role: grant.role,
        scope: grant.scope.to_string(),
        creator: grant.creator,
        create_time: to_optional_timestamp(grant.created_at),
        revision: grant.revision,
        owner: grant.owner,
        labels: grant.labels,
    }
}
