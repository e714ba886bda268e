//! `UserService`.

use std::{sync::Arc, time::Duration};

use muster_certs::{CertificateDer, Identity};
use muster_proto::{
    error::Problem,
    v1::{self, CertificateStatus, UserStatus, user_service_server::UserService},
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    Api, paging,
    problem::{context, invalid_field, status},
    revocation,
};
use crate::{
    access::OpCtx,
    clock::{self, Micros, to_optional_timestamp},
    pki::Pki,
    store::UserCertificateRow,
    users::{self, Issued, User},
};

#[tonic::async_trait]
impl UserService for Api {
    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::CreateUserResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let reinstate = request.reinstate;
        let pki = Arc::clone(&self.pki);
        let once = self.once(&ctx, &request.idempotency_key, &request, move |issued: &Issued| {
            v1::CreateUserResponse {
                user: Some(shown(&pki, &issued.user)),
                certificates: der(&issued.chain),
                roots: der(&pki.roots()),
                trust_domain: pki.trust_domain().to_string(),
            }
        })?;
        let wanted = wanted(request.name, request.csr, request.ttl).map_err(|problem| status(&ctx, problem))?;
        let by = super::by(&ctx);
        let name = wanted.name.clone();
        ctx.note.resource("user", &name);
        let grants = Arc::clone(&self.grants);
        let first = (!request.role.is_empty()).then_some((request.role, request.scope));
        let change = async move {
            grants
                .create_user(wanted, first, reinstate, once, &by, clock::now())
                .await
        };
        let done = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        info!(
            user.name = name,
            repeated = done.is_repeated,
            user = ctx.user(),
            request.id = ctx.request_id,
            "user created"
        );
        if let Some(user) = &done.answer.user {
            ctx.note.after(user);
        }
        Ok(Response::new(done.answer))
    }

    async fn list_users(
        &self,
        request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let size = paging::size(request.page_size, 500, 1_000).map_err(|problem| status(&ctx, problem))?;
        let revision = self.changes.revision();
        let users = self.users.list().await.map_err(|error| status(&ctx, error))?;
        let (users, next_page_token) = paging::page(
            users,
            size,
            &request.page_token,
            |user| user.row.name.clone(),
            |user| user.row.name.clone(),
            |text| Some(text.to_owned()),
        )
        .map_err(|problem| status(&ctx, problem))?;
        Ok(Response::new(v1::ListUsersResponse {
            items: users.iter().map(|user| self.user(user)).collect(),
            revision,
            next_page_token,
        }))
    }

    async fn get_user(&self, request: Request<v1::GetUserRequest>) -> Result<Response<v1::GetUserResponse>, Status> {
        let ctx = context(&request)?;
        let user = self.users.get(&request.into_inner().name).await;
        let user = user.map_err(|error| status(&ctx, error))?;
        Ok(Response::new(v1::GetUserResponse {
            user: Some(self.user(&user)),
        }))
    }

    async fn renew_user(
        &self,
        request: Request<v1::RenewUserRequest>,
    ) -> Result<Response<v1::RenewUserResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let name = match request.name {
            name if name.is_empty() => ctx.user(),
            name => name,
        };
        let wanted = wanted(name, request.csr, request.ttl).map_err(|problem| status(&ctx, problem))?;
        let (users, by) = (Arc::clone(&self.users), super::by(&ctx));
        self.note_user(&ctx, &wanted.name).await;
        let change = async move { users.renew(wanted, &by, clock::now()).await };
        let issued: Issued = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        tell(&ctx, &issued.user, "user renewed");
        let user = self.user(&issued.user);
        ctx.note.after(&user);
        Ok(Response::new(v1::RenewUserResponse {
            user: Some(user),
            certificates: der(&issued.chain),
            roots: der(&self.pki.roots()),
            trust_domain: self.pki.trust_domain().to_string(),
        }))
    }

    async fn revoke_user(
        &self,
        request: Request<v1::RevokeUserRequest>,
    ) -> Result<Response<v1::RevokeUserResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let reason = revocation::reason(request.reason).map_err(|problem| status(&ctx, problem))?;
        let (users, by) = (Arc::clone(&self.users), super::by(&ctx));
        self.note_user(&ctx, &request.name).await;
        let change = async move { users.revoke(&request.name, &reason, &by, clock::now()).await };
        let user = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        tell(&ctx, &user, "user revoked");
        let user = self.user(&user);
        ctx.note.after(&user);
        Ok(Response::new(v1::RevokeUserResponse { user: Some(user) }))
    }
}

impl Api {
    /// What the audit log keeps of a user as it is before a change.
    async fn note_user(&self, ctx: &OpCtx, name: &str) {
        ctx.note.resource("user", name);
        if let Ok(user) = self.users.get(name).await {
            ctx.note.before(&self.user(&user));
        }
    }

    fn user(&self, user: &User) -> v1::User {
        shown(&self.pki, user)
    }
}

fn shown(pki: &Pki, user: &User) -> v1::User {
    let now = clock::now();
    let identity = Identity::user(pki.trust_domain(), &user.row.name);
    let identity = identity.map(|identity| identity.to_string()).unwrap_or_default();
    let is_live = |row: &UserCertificateRow| row.revoked_at == 0 && row.not_after > now;
    let standing = match user {
        user if user.row.revoked_at > 0 => UserStatus::Revoked,
        user if user.certificates.iter().any(is_live) => UserStatus::Active,
        _ => UserStatus::Expired,
    };
    v1::User {
        name: user.row.name.clone(),
        status: standing as i32,
        create_time: to_optional_timestamp(user.row.created_at),
        revoke_time: to_optional_timestamp(user.row.revoked_at),
        certificates: user
            .certificates
            .iter()
            .map(|row| encode(row, &identity, now))
            .collect(),
    }
}

fn encode(row: &UserCertificateRow, identity: &str, now: Micros) -> v1::Certificate {
    let standing = match row {
        row if row.revoked_at > 0 => CertificateStatus::Revoked,
        row if row.not_after <= now => CertificateStatus::Expired,
        _ => CertificateStatus::Active,
    };
    v1::Certificate {
        serial: row.serial.clone(),
        identity: identity.to_owned(),
        name: row.user_name.clone(),
        status: standing as i32,
        issue_time: to_optional_timestamp(row.created_at),
        expire_time: to_optional_timestamp(row.not_after),
        revoke_time: to_optional_timestamp(row.revoked_at),
        revoke_reason: row.revoke_reason.clone(),
        ca: row.ca.clone(),
    }
}

fn wanted(name: String, csr: Vec<u8>, ttl: Option<prost_types::Duration>) -> Result<users::Request, Problem> {
    let ttl = ttl.map(Duration::try_from).transpose();
    Ok(users::Request {
        name,
        csr,
        ttl: ttl.map_err(|_| invalid_field("ttl", "must not be negative"))?,
    })
}

fn der(certificates: &[CertificateDer<'static>]) -> Vec<Vec<u8>> {
    certificates.iter().map(|certificate| certificate.to_vec()).collect()
}

fn tell(ctx: &OpCtx, user: &User, text: &str) {
    info!(
        user.name = user.row.name,
        user = ctx.user(),
        request.id = ctx.request_id,
        "{text}"
    );
}
