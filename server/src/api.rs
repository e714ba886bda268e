//! gRPC: decodes a call, asks the domain, encodes the answer. Decides nothing and holds no SQL.

mod agents;
mod api_keys;
mod audit;
mod cas;
mod certificates;
mod controllers;
mod enrollment;
mod events;
mod explain;
mod forks;
mod grants;
mod history;
mod link;
mod logs;
mod manifests;
mod mask;
mod metrics;
mod paging;
mod policies;
mod preregistration;
mod problem;
mod renewal;
mod revocation;
mod roles;
mod scopes;
mod states;
#[cfg(test)]
mod tests;
mod token_templates;
mod tokens;
mod trust;
mod users;
mod watch;

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    extract::RawQuery,
    middleware,
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::header;
use muster_certs::pin::Pin;
use muster_proto::{
    DESCRIBED,
    error::{ErrorReason, Problem},
    v1::{
        access_service_server::AccessServiceServer, agent_service_server::AgentServiceServer,
        api_key_service_server::ApiKeyServiceServer, audit_service_server::AuditServiceServer,
        ca_service_server::CaServiceServer, certificate_service_server::CertificateServiceServer,
        controller_service_server::ControllerServiceServer, enrollment_service_server::EnrollmentServiceServer,
        event_service_server::EventServiceServer, explain_service_server::ExplainServiceServer,
        grant_service_server::GrantServiceServer, history_service_server::HistoryServiceServer,
        link_service_server::LinkServiceServer, log_service_server::LogServiceServer,
        manifest_service_server::ManifestServiceServer, metric_service_server::MetricServiceServer,
        policy_service_server::PolicyServiceServer, role_service_server::RoleServiceServer,
        state_service_server::StateServiceServer, token_service_server::TokenServiceServer,
        token_template_service_server::TokenTemplateServiceServer, user_service_server::UserServiceServer,
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, service::Routes};

use crate::{
    access::{Access, Guard, Listener, METHODS, OpCtx, plain, rates::Rates},
    agents::Agents,
    api_keys::ApiKeys,
    audit::Audit,
    cas::Cas,
    changes::Changes,
    clock,
    controllers::Controller,
    enroll::Enroller,
    fleet::Fleet,
    forks::Forks,
    grants::Grants,
    idempotency::Once,
    link::{Deps as LinkDeps, Links},
    manifests::Manifests,
    pki::Pki,
    policies::Policies,
    renewal::Renewer,
    rest,
    states::States,
    store::Db,
    telemetry::{self, Telemetry},
    token_templates::TokenTemplates,
    users::{By, Users},
};

/// A frame of a link is at most 1 MiB; a call of an operator may carry a thousand policies.
const MAX_FRAME: usize = 1 << 20;
const MAX_CALL: usize = 16 << 20;

/// What the calls work with.
#[derive(Clone, Debug)]
pub struct Api {
    pub db: Db,
    pub changes: Changes,
    pub pki: Arc<Pki>,
    pub agents: Arc<Agents>,
    pub policies: Arc<Policies>,
    pub manifests: Arc<Manifests>,
    pub states: Arc<States>,
    pub links: Arc<Links>,
    pub fleet: Fleet,
    pub enroller: Arc<Enroller>,
    pub forks: Arc<Forks>,
    pub renewer: Arc<Renewer>,
    pub cas: Arc<Cas>,
    pub controller: Arc<Controller>,
    pub users: Arc<Users>,
    pub grants: Arc<Grants>,
    pub api_keys: Arc<ApiKeys>,
    pub token_templates: Arc<TokenTemplates>,
    pub audit: Audit,
    pub rates: Arc<Rates>,
    pub link: LinkDeps,
    pub telemetry: Telemetry,
    /// Where agents reach the controller and what they know it by, for those who make tokens.
    pub endpoints: Vec<String>,
    pub pins: Vec<Pin>,
    /// Owns the tasks of links and watches.
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

impl Api {
    /// What the listener of agents serves.
    pub fn agent_router(self: &Arc<Self>) -> Router {
        let routes = Routes::default()
            .add_service(EnrollmentServiceServer::from_arc(self.clone()).max_decoding_message_size(64 << 10))
            .add_service(
                LinkServiceServer::from_arc(self.clone())
                    .max_decoding_message_size(MAX_FRAME)
                    .max_encoding_message_size(MAX_FRAME),
            );
        self.guarded(routes.prepare().into_axum_router(), Listener::Agents)
    }

    /// What the listener of operators serves.
    pub async fn operator_router(self: &Arc<Self>) -> Result<Router, tonic_reflection::server::Error> {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<AccessServiceServer<Self>>().await;
        health.set_serving::<AgentServiceServer<Self>>().await;
        health.set_serving::<ApiKeyServiceServer<Self>>().await;
        health.set_serving::<AuditServiceServer<Self>>().await;
        health.set_serving::<CaServiceServer<Self>>().await;
        health.set_serving::<CertificateServiceServer<Self>>().await;
        health.set_serving::<ControllerServiceServer<Self>>().await;
        health.set_serving::<EventServiceServer<Self>>().await;
        health.set_serving::<ExplainServiceServer<Self>>().await;
        health.set_serving::<GrantServiceServer<Self>>().await;
        health.set_serving::<HistoryServiceServer<Self>>().await;
        health.set_serving::<LogServiceServer<Self>>().await;
        health.set_serving::<ManifestServiceServer<Self>>().await;
        health.set_serving::<MetricServiceServer<Self>>().await;
        health.set_serving::<PolicyServiceServer<Self>>().await;
        health.set_serving::<RoleServiceServer<Self>>().await;
        health.set_serving::<StateServiceServer<Self>>().await;
        health.set_serving::<TokenServiceServer<Self>>().await;
        health.set_serving::<TokenTemplateServiceServer<Self>>().await;
        health.set_serving::<UserServiceServer<Self>>().await;
        // The descriptors hold what agents call as well; only what is served here is listed.
        let served: BTreeSet<&str> = METHODS
            .iter()
            .filter(|method| method.listener == Listener::Api)
            .filter_map(|method| method.path.strip_prefix('/')?.split_once('/'))
            .map(|(service, _)| service)
            .collect();
        let reflection = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIBED)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // Each version describes the other one too, since both are listed.
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET);
            served
                .iter()
                .fold(builder, |builder, service| builder.with_service_name(*service))
        };
        let routes = Routes::default()
            .add_service(AccessServiceServer::from_arc(self.clone()))
            .add_service(AgentServiceServer::from_arc(self.clone()))
            .add_service(ApiKeyServiceServer::from_arc(self.clone()).max_decoding_message_size(64 << 10))
            .add_service(AuditServiceServer::from_arc(self.clone()))
            .add_service(CaServiceServer::from_arc(self.clone()))
            .add_service(CertificateServiceServer::from_arc(self.clone()))
            .add_service(ControllerServiceServer::from_arc(self.clone()))
            .add_service(EventServiceServer::from_arc(self.clone()))
            .add_service(ExplainServiceServer::from_arc(self.clone()))
            .add_service(GrantServiceServer::from_arc(self.clone()).max_decoding_message_size(64 << 10))
            .add_service(HistoryServiceServer::from_arc(self.clone()))
            .add_service(LogServiceServer::from_arc(self.clone()))
            .add_service(ManifestServiceServer::from_arc(self.clone()).max_decoding_message_size(MAX_CALL))
            .add_service(MetricServiceServer::from_arc(self.clone()))
            .add_service(PolicyServiceServer::from_arc(self.clone()).max_decoding_message_size(MAX_CALL))
            .add_service(RoleServiceServer::from_arc(self.clone()).max_decoding_message_size(64 << 10))
            .add_service(StateServiceServer::from_arc(self.clone()))
            .add_service(TokenServiceServer::from_arc(self.clone()))
            .add_service(TokenTemplateServiceServer::from_arc(self.clone()))
            .add_service(UserServiceServer::from_arc(self.clone()).max_decoding_message_size(64 << 10))
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        let (telemetry, controller) = (self.telemetry.clone(), self.controller.clone());
        let (db, agents, cas) = (self.db.clone(), self.agents.clone(), self.cas.clone());
        let router = routes
            .prepare()
            .into_axum_router()
            .reset_fallback()
            .route(
                "/crl",
                get(async move |query: RawQuery| revocation_list(&cas, query).await),
            )
            .route("/healthz", get(async move || healthz(&db).await))
            .route("/metrics", get(async move || metrics(&telemetry, &agents, &controller)))
            .merge(rest::about())
            .method_not_allowed_fallback(rest::only_get);
        Ok(rest::beside(self.guarded(router, Listener::Api)))
    }

    /// Carries a change out to its end, even when the caller leaves halfway: what is committed has to reach memory.
    async fn whole<T, E>(&self, change: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, Problem>
    where
        T: Send + 'static,
        E: Into<Problem> + Send + 'static,
    {
        match self.tasks.spawn(change).await {
            Ok(done) => done.map_err(Into::into),
            Err(panic) => Err(problem::internal(&panic)),
        }
    }

    /// How a call is answered, which is known by its key when it comes again. No secret is in the answer.
    fn once<T, A, M>(
        &self,
        ctx: &OpCtx,
        key: &str,
        request: &M,
        answer: impl FnOnce(&T) -> A + Send + Sync + 'static,
    ) -> Result<Once<T, A>, Status>
    where
        A: prost::Message + Default,
        M: prost::Name,
    {
        Once::new(&self.pki, ctx.who(), key, request, answer)
            .map_err(|violation| problem::status(ctx, Problem::invalid_fields(vec![violation])))
    }

    fn guarded(&self, router: Router, listener: Listener) -> Router {
        let access = Access {
            db: self.db.clone(),
            agents: self.agents.clone(),
            users: self.users.clone(),
            api_keys: self.api_keys.clone(),
            grants: self.grants.clone(),
            audit: self.audit.clone(),
            rates: self.rates.clone(),
            telemetry: self.telemetry.clone(),
            tasks: self.tasks.clone(),
        };
        router.layer(middleware::from_fn_with_state(Guard { access, listener }, Guard::check))
    }
}

/// Who changes something by this call.
fn by(ctx: &OpCtx) -> By {
    let operator = ctx.operator();
    By {
        subject: operator.map(|operator| operator.subject.clone()),
        rights: operator.map(|operator| operator.rights.clone()).unwrap_or_default(),
        ended: operator.map(|operator| operator.ended.clone()),
    }
}

/// The revocation list of the CA that issues, or with `?ca=ID` of another one.
async fn revocation_list(cas: &Cas, RawQuery(query): RawQuery) -> Response {
    let ca = query.as_deref().and_then(|query| query.strip_prefix("ca="));
    match cas.revocation_list(ca, clock::now()).await {
        Ok(Some(list)) => ([(header::CONTENT_TYPE, "application/pkix-crl")], list.to_vec()).into_response(),
        Ok(None) => plain(&Problem::new(
            Code::NotFound,
            ErrorReason::NotFound,
            "there is no such CA",
        )),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to make a revocation list"
            );
            plain(&unavailable("no list can be made now"))
        }
    }
}

/// 200 while the database answers.
async fn healthz(db: &Db) -> Response {
    match db.ping().await {
        Ok(()) => "ok\n".into_response(),
        Err(_) => plain(&unavailable("the database does not answer")),
    }
}

fn unavailable(text: &str) -> Problem {
    Problem::new(Code::Unavailable, ErrorReason::Unavailable, text)
}

fn metrics(
    telemetry: &Telemetry,
    agents: &Agents,
    controller: &Controller,
) -> ([(header::HeaderName, &'static str); 1], String) {
    for (status, count) in agents.count_by_status() {
        telemetry.agents(status, count);
    }
    telemetry.links(&agents.links(clock::now()));
    telemetry.draining(controller.draining().plan().is_some());
    ([(header::CONTENT_TYPE, telemetry::CONTENT_TYPE)], telemetry.render())
}
