//! `RoleService`.

use std::sync::Arc;

use muster_proto::v1::{self, role_service_server::RoleService};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    Api, paging,
    problem::{context, status},
};
use crate::{
    access::{METHODS, permission::Reach, rights::Role},
    clock::{self, to_optional_timestamp},
    grants::{self, NewRole},
};

#[tonic::async_trait]
impl RoleService for Api {
    async fn create_role(
        &self,
        request: Request<v1::CreateRoleRequest>,
    ) -> Result<Response<v1::CreateRoleResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let once = self.once(&ctx, &request.idempotency_key, &request, |role: &Role| {
            v1::CreateRoleResponse {
                role: Some(encode(role.clone())),
            }
        })?;
        let new = NewRole {
            name: request.name.clone(),
            description: request.description,
            permissions: request.permissions,
        };
        ctx.note.resource("role", &new.name);
        let (grants, by) = (Arc::clone(&self.grants), super::by(&ctx));
        let change = async move { grants.create_role(new, once, &by, clock::now()).await };
        let done = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        info!(
            role = request.name,
            repeated = done.is_repeated,
            user = ctx.user(),
            request.id = ctx.request_id,
            "role created"
        );
        if let Some(role) = &done.answer.role {
            ctx.note.after(role);
        }
        Ok(Response::new(done.answer))
    }

    async fn list_roles(
        &self,
        request: Request<v1::ListRolesRequest>,
    ) -> Result<Response<v1::ListRolesResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let size = paging::size(request.page_size, 500, 1_000).map_err(|problem| status(&ctx, problem))?;
        let revision = self.changes.revision();
        let (roles, next_page_token) = paging::page(
            self.grants.rights().roles(),
            size,
            &request.page_token,
            |role| (!role.built_in, role.name.clone()),
            |role| format!("{} {}", u8::from(!role.built_in), role.name),
            |text| {
                let (kind, name) = text.split_once(' ')?;
                Some((kind == "1", name.to_owned()))
            },
        )
        .map_err(|problem| status(&ctx, problem))?;
        Ok(Response::new(v1::ListRolesResponse {
            items: roles.into_iter().map(encode).collect(),
            revision,
            next_page_token,
        }))
    }

    async fn get_role(&self, request: Request<v1::GetRoleRequest>) -> Result<Response<v1::GetRoleResponse>, Status> {
        let ctx = context(&request)?;
        let name = request.into_inner().name;
        let role = self.grants.rights().role(&name);
        let role = role.ok_or_else(|| status(&ctx, grants::Error::NoRole(name)))?;
        Ok(Response::new(v1::GetRoleResponse {
            role: Some(encode(role)),
        }))
    }

    async fn update_role(
        &self,
        request: Request<v1::UpdateRoleRequest>,
    ) -> Result<Response<v1::UpdateRoleResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let seen = request.revision;
        let new = NewRole {
            name: request.name,
            description: request.description,
            permissions: request.permissions,
        };
        ctx.note.resource("role", &new.name);
        if let Some(before) = self.grants.rights().role(&new.name) {
            ctx.note.before(&encode(before));
        }
        let (grants, by) = (Arc::clone(&self.grants), super::by(&ctx));
        let change = async move { grants.update_role(new, seen, &by, clock::now()).await };
        let role = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        info!(
            role = role.name,
            user = ctx.user(),
            request.id = ctx.request_id,
            "role changed"
        );
        let role = encode(role);
        ctx.note.after(&role);
        Ok(Response::new(v1::UpdateRoleResponse { role: Some(role) }))
    }

    async fn delete_role(
        &self,
        request: Request<v1::DeleteRoleRequest>,
    ) -> Result<Response<v1::DeleteRoleResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        ctx.note.resource("role", &request.name);
        if let Some(before) = self.grants.rights().role(&request.name) {
            ctx.note.before(&encode(before));
        }
        let (grants, by) = (Arc::clone(&self.grants), super::by(&ctx));
        let name = request.name.clone();
        let change = async move { grants.delete_role(&name, request.revision, &by, clock::now()).await };
        self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        info!(
            role = request.name,
            user = ctx.user(),
            request.id = ctx.request_id,
            "role deleted"
        );
        Ok(Response::new(v1::DeleteRoleResponse {}))
    }

    async fn list_permissions(
        &self,
        _: Request<v1::ListPermissionsRequest>,
    ) -> Result<Response<v1::ListPermissionsResponse>, Status> {
        let items = grants::permissions().iter().map(|permission| v1::Permission {
            name: permission.name.to_owned(),
            description: permission.description.to_owned(),
            methods: METHODS
                .iter()
                .filter(|method| method.permission() == Some(*permission))
                .map(|method| method.path.to_owned())
                .collect(),
            scoped: permission.reach == Reach::Scoped,
        });
        Ok(Response::new(v1::ListPermissionsResponse { items: items.collect() }))
    }
}

fn encode(role: Role) -> v1::Role {
    v1::Role {
        permissions: role.permissions.names().map(str::to_owned).collect(),
        name: role.name,
        description: role.description,
        built_in: role.built_in,
        creator: role.creator,
        create_time: to_optional_timestamp(role.created_at),
        update_time: to_optional_timestamp(role.updated_at),
        revision: role.revision,
        owner: role.owner,
        labels: role.labels,
    }
}
