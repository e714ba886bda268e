//! `ExplainService`.

use muster_proto::{
    error::{ErrorReason, Problem},
    v1::{
        self, ExplainAccessRequest, ExplainAccessResponse, ExplainCheckRequest, ExplainCheckResponse, TraceResult,
        explain_access_request, explain_service_server::ExplainService,
    },
};
use tonic::{Code, Request, Response, Status};

use super::{
    Api,
    problem::{context, invalid_field, status},
};
use crate::{
    access::{
        OpCtx,
        permission::{AGENTS_READ, GRANTS_READ, Permission},
        rights::Subject,
        scope::Scopes,
    },
    agents::Entry,
    clock,
    explain::{self, Found, Trace, Wanted},
    manifests, policies,
    policies::Key,
};

#[tonic::async_trait]
impl ExplainService for Api {
    async fn explain_check(
        &self,
        request: Request<ExplainCheckRequest>,
    ) -> Result<Response<ExplainCheckResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let compiled = self.policies.current();
        let key = Key::check(&request.name);
        let policy = compiled
            .policies
            .get(&key)
            .filter(|policy| ctx.scopes().has(&policy.scope));
        let policy = policy.ok_or_else(|| status(&ctx, policies::Error::NotFound(key)))?;
        let agent = self.explained_agent(&ctx, &request.agent)?;
        let trace = explain::check(policy, &agent, compiled.freeze.as_deref());
        Ok(Response::new(ExplainCheckResponse {
            trace: Some(encode(trace)),
        }))
    }

    async fn explain_access(
        &self,
        request: Request<ExplainAccessRequest>,
    ) -> Result<Response<ExplainAccessResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let subject = match request.subject {
            Some(explain_access_request::Subject::User(name)) if !name.is_empty() => Subject::User(name),
            Some(explain_access_request::Subject::ApiKey(id)) if !id.is_empty() => Subject::ApiKey(id),
            _ => {
                let text = "is missing: the name of a user, or the id of an API key";
                return Err(status(&ctx, invalid_field("subject", text)));
            }
        };
        let is_self = ctx.operator().is_some_and(|operator| operator.subject == subject);
        if !is_self && !scopes(&ctx, GRANTS_READ).is_all() {
            return Err(status(&ctx, manifests::Error::Missing(GRANTS_READ)));
        }
        let wanted = Wanted::find(&request.method).ok_or_else(|| {
            let text = format!(
                "{:?} is no method of the API and no permission; `musterctl role permissions -o wide` lists both",
                request.method.chars().take(100).collect::<String>()
            );
            status(&ctx, invalid_field("method", text))
        })?;
        let agent = match request.agent.as_str() {
            "" => None,
            agent => Some(self.explained_agent(&ctx, agent)?),
        };
        let unusable = self.unusable(&subject).await.map_err(|problem| status(&ctx, problem))?;
        let trace = explain::access(&subject, &wanted, agent.as_ref(), self.grants.rights(), unusable);
        Ok(Response::new(ExplainAccessResponse {
            trace: Some(encode(trace)),
        }))
    }
}

impl Api {
    /// An agent that the caller sees.
    fn explained_agent(&self, ctx: &OpCtx, agent: &str) -> Result<Entry, Status> {
        let reach = scopes(ctx, AGENTS_READ);
        if reach.is_none() {
            return Err(status(ctx, manifests::Error::Missing(AGENTS_READ)));
        }
        let id = self
            .agents
            .find(agent, &reach)
            .map_err(|problem| status(ctx, problem))?;
        self.agents.get(id).ok_or_else(|| {
            let text = format!("there is no agent {id}");
            status(ctx, Problem::new(Code::NotFound, ErrorReason::NotFound, text))
        })
    }

    /// Why nobody gets in as this subject; an error when there is none of that name.
    async fn unusable(&self, subject: &Subject) -> Result<Option<String>, Problem> {
        let now = clock::now();
        Ok(match subject {
            Subject::User(name) => {
                let user = self.users.get(name).await?;
                let is_good = |it: &crate::store::UserCertificateRow| it.revoked_at == 0 && it.not_after > now;
                match (user.row.revoked_at > 0, user.certificates.iter().any(is_good)) {
                    (true, _) => Some(format!("{subject} is revoked")),
                    (false, false) => Some(format!(
                        "{subject} has no certificate that is good: musterctl user renew {name}"
                    )),
                    (false, true) => None,
                }
            }
            Subject::ApiKey(id) => {
                let key = self.api_keys.get(id)?;
                match (key.revoked_at > 0, key.expires_at <= now) {
                    (true, _) => Some(format!("{subject} is revoked")),
                    (false, true) => Some(format!("{subject} has expired")),
                    (false, false) => None,
                }
            }
        })
    }
}

fn scopes(ctx: &OpCtx, permission: &Permission) -> Scopes {
    match ctx.operator() {
        Some(operator) => operator.rights.scopes(permission),
        None => Scopes::default(),
    }
}

fn encode(trace: Trace) -> v1::Trace {
    v1::Trace {
        text: trace.text,
        result: match trace.found {
            Found::Yes => TraceResult::Yes,
            Found::No => TraceResult::No,
            Found::Note => TraceResult::Note,
        } as i32,
        parts: trace.parts.into_iter().map(encode).collect(),
    }
}
