//! `TokenTemplateService`.

use std::sync::Arc;

use muster_proto::{
    error::{ErrorReason, Problem},
    v1::{self, token_template_service_server::TokenTemplateService},
};
use tonic::{Code, Request, Response, Status};
use tracing::info;

use super::{
    Api, paging,
    problem::{conflict, context, of_store, status},
    scopes::out_of_scope,
};
use crate::{
    clock::{self, to_optional_timestamp},
    token_templates::{Error, Template},
};

#[tonic::async_trait]
impl TokenTemplateService for Api {
    async fn list_token_templates(
        &self,
        request: Request<v1::ListTokenTemplatesRequest>,
    ) -> Result<Response<v1::ListTokenTemplatesResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let size = paging::size(request.page_size, 500, 1_000).map_err(|problem| status(&ctx, problem))?;
        let revision = self.changes.revision();
        let found = self.token_templates.list().await;
        let mut found = found.map_err(|error| status(&ctx, error))?;
        let scopes = ctx.scopes();
        found.retain(|template| scopes.has(&template.scope));
        let (found, next_page_token) = paging::page(
            found,
            size,
            &request.page_token,
            |template| template.name.clone(),
            |template| template.name.clone(),
            |text| Some(text.to_owned()),
        )
        .map_err(|problem| status(&ctx, problem))?;
        Ok(Response::new(v1::ListTokenTemplatesResponse {
            items: found.into_iter().map(encode).collect(),
            revision,
            next_page_token,
        }))
    }

    async fn get_token_template(
        &self,
        request: Request<v1::GetTokenTemplateRequest>,
    ) -> Result<Response<v1::GetTokenTemplateResponse>, Status> {
        let ctx = context(&request)?;
        let name = request.into_inner().name;
        let found = self.token_templates.get(&name).await;
        let found = found.map_err(|error| status(&ctx, error))?;
        let template = found.filter(|template| ctx.scopes().has(&template.scope));
        let template = template.ok_or_else(|| status(&ctx, Error::NotFound(name)))?;
        Ok(Response::new(v1::GetTokenTemplateResponse {
            template: Some(encode(template)),
        }))
    }

    async fn delete_token_template(
        &self,
        request: Request<v1::DeleteTokenTemplateRequest>,
    ) -> Result<Response<v1::DeleteTokenTemplateResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        ctx.note.resource("tokentemplate", &request.name);
        let found = self.token_templates.get(&request.name).await;
        if let Some(before) = found.map_err(|error| status(&ctx, error))? {
            ctx.note.before(&encode(before));
        }
        let (templates, by, scopes) = (Arc::clone(&self.token_templates), super::by(&ctx), ctx.scopes());
        let (name, seen) = (request.name.clone(), request.revision);
        let change = async move {
            let is_there = |template: &Template| scopes.has(&template.scope);
            templates.delete(&name, seen, is_there, &by, clock::now()).await
        };
        self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        info!(
            token_template = request.name,
            user = ctx.user(),
            request.id = ctx.request_id,
            "token template deleted"
        );
        Ok(Response::new(v1::DeleteTokenTemplateResponse {}))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(name) => Problem::new(
                Code::NotFound,
                ErrorReason::NotFound,
                format!("there is no token template {name}"),
            ),
            Error::Taken(name) => Problem::new(
                Code::AlreadyExists,
                ErrorReason::AlreadyExists,
                format!("the name TokenTemplate/{name} is taken by one of another scope; choose another"),
            ),
            Error::Foreign(name) => out_of_scope(format!(
                "TokenTemplate/{name} cannot be made in, or moved to, that scope; `musterctl whoami` shows the caller's"
            )),
            Error::Labels { name, source } => out_of_scope(format!("spec.labels of TokenTemplate/{name}: {source}")),
            Error::Conflict { seen, is } => conflict(seen, is),
            Error::Users(error) => error.into(),
            Error::Store(error) => of_store(&error),
        }
    }
}

fn encode(template: Template) -> v1::TokenTemplate {
    v1::TokenTemplate {
        name: template.name,
        labels: template.labels,
        owner: template.owner,
        scope: template.scope.to_string(),
        spec: Some(template.spec),
        creator: template.creator,
        create_time: to_optional_timestamp(template.created_at),
        update_time: to_optional_timestamp(template.updated_at),
        revision: template.revision,
    }
}
