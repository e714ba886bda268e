//! The services of the fake controller, as thin as can be.

use std::{pin::Pin, result::Result};

use muster_proto::v1::{
    self, agent_service_server::AgentService, manifest_service_server::ManifestService,
    metric_service_server::MetricService, policy_service_server::PolicyService, state_service_server::StateService,
    token_service_server::TokenService,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::{Controller, Script, page};

type Answer<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The one of this name or id, or else the first: most tests have one.
fn named(script: &Script, agent: &str) -> Option<v1::Agent> {
    let is = |it: &&v1::Agent| it.name == agent || it.id == agent;
    script.agents.iter().find(is).or(script.agents.first()).cloned()
}

#[tonic::async_trait]
impl AgentService for Controller {
    type WatchAgentsStream = Events<v1::WatchAgentsResponse>;

    async fn list_agents(&self, request: Request<v1::ListAgentsRequest>) -> Answer<v1::ListAgentsResponse> {
        let answer = self.answer(request, |script, request| {
            let (items, next_page_token) = page(&script.agents, script.page, request.page_size, &request.page_token);
            // Every page is read at another revision.
            let revision = 100 + i64::from(!request.page_token.is_empty());
            let total_size = script.agents.len() as i32;
            v1::ListAgentsResponse {
                items,
                revision,
                next_page_token,
                total_size,
                fleet_size: script.fleet_size,
            }
        });
        answer.await
    }

    async fn get_agent(&self, request: Request<v1::GetAgentRequest>) -> Answer<v1::GetAgentResponse> {
        if request.get_ref().agent == "nobody" {
            return Err(Status::not_found("there is no agent nobody"));
        }
        self.answer(request, |script, request| v1::GetAgentResponse {
            agent: named(script, &request.agent),
        })
        .await
    }

    async fn watch_agents(&self, request: Request<v1::WatchAgentsRequest>) -> Answer<Self::WatchAgentsStream> {
        let answer = self.answer(request, |script, _| -> Self::WatchAgentsStream {
            let events = tokio_stream::iter(script.watches.pop_front().unwrap_or_default());
            if script.watches.is_empty() {
                Box::pin(events.chain(tokio_stream::pending()))
            } else {
                Box::pin(events)
            }
        });
        answer.await
    }

    async fn update_agent_labels(
        &self,
        request: Request<v1::UpdateAgentLabelsRequest>,
    ) -> Answer<v1::UpdateAgentLabelsResponse> {
        self.answer(request, |script, request| v1::UpdateAgentLabelsResponse {
            agent: named(script, &request.agent),
        })
        .await
    }

    async fn preregister_agent(&self, _: Request<v1::PreregisterAgentRequest>) -> Answer<v1::PreregisterAgentResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn revoke_agent(&self, _: Request<v1::RevokeAgentRequest>) -> Answer<v1::RevokeAgentResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn delete_agent(&self, _: Request<v1::DeleteAgentRequest>) -> Answer<v1::DeleteAgentResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn readmit_agent(&self, _: Request<v1::ReadmitAgentRequest>) -> Answer<v1::ReadmitAgentResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn fork_agent(&self, _: Request<v1::ForkAgentRequest>) -> Answer<v1::ForkAgentResponse> {
        Err(Status::unimplemented("not scripted"))
    }
}

#[tonic::async_trait]
impl StateService for Controller {
    type WatchStatesStream = Events<v1::WatchStatesResponse>;

    async fn list_states(&self, request: Request<v1::ListStatesRequest>) -> Answer<v1::ListStatesResponse> {
        let answer = self.answer(request, |script, request| {
            let (items, next_page_token) = page(&script.states, script.page, request.page_size, &request.page_token);
            let (total_size, counts) = (script.states.len() as i32, Some(script.counts));
            v1::ListStatesResponse {
                items,
                revision: 100,
                next_page_token,
                total_size,
                counts,
            }
        });
        answer.await
    }

    async fn watch_states(&self, request: Request<v1::WatchStatesRequest>) -> Answer<Self::WatchStatesStream> {
        self.answer(request, |_, _| -> Self::WatchStatesStream {
            Box::pin(tokio_stream::pending())
        })
        .await
    }
}

#[tonic::async_trait]
impl ManifestService for Controller {
    async fn plan_manifests(&self, request: Request<v1::PlanManifestsRequest>) -> Answer<v1::PlanManifestsResponse> {
        self.answer(request, |script, _| v1::PlanManifestsResponse {
            plan: Some(script.plan.clone()),
        })
        .await
    }

    async fn apply_manifests(&self, request: Request<v1::ApplyManifestsRequest>) -> Answer<v1::ApplyManifestsResponse> {
        self.answer(request, |script, _| v1::ApplyManifestsResponse {
            plan: Some(script.plan.clone()),
        })
        .await
    }

    async fn list_manifest_versions(
        &self,
        request: Request<v1::ListManifestVersionsRequest>,
    ) -> Answer<v1::ListManifestVersionsResponse> {
        self.answer(request, |_, _| v1::ListManifestVersionsResponse::default())
            .await
    }
}

#[tonic::async_trait]
impl PolicyService for Controller {
    async fn apply_policies(&self, _: Request<v1::ApplyPoliciesRequest>) -> Answer<v1::ApplyPoliciesResponse> {
        Err(Status::unimplemented("musterctl applies manifests"))
    }

    async fn get_policy(&self, request: Request<v1::GetPolicyRequest>) -> Answer<v1::GetPolicyResponse> {
        self.answer(request, |script, _| v1::GetPolicyResponse {
            policy: script.policies.first().cloned(),
        })
        .await
    }

    async fn list_policies(&self, request: Request<v1::ListPoliciesRequest>) -> Answer<v1::ListPoliciesResponse> {
        let answer = self.answer(request, |script, request| {
            let (items, next_page_token) = page(&script.policies, script.page, request.page_size, &request.page_token);
            let total_size = script.policies.len() as i32;
            v1::ListPoliciesResponse {
                items,
                revision: 100,
                next_page_token,
                total_size,
                freeze: None,
            }
        });
        answer.await
    }

    async fn freeze_policies(&self, request: Request<v1::FreezePoliciesRequest>) -> Answer<v1::FreezePoliciesResponse> {
        self.answer(request, |_, _| v1::FreezePoliciesResponse::default()).await
    }

    async fn unfreeze_policies(
        &self,
        request: Request<v1::UnfreezePoliciesRequest>,
    ) -> Answer<v1::UnfreezePoliciesResponse> {
        self.answer(request, |_, _| v1::UnfreezePoliciesResponse::default())
            .await
    }

    async fn delete_policy(&self, request: Request<v1::DeletePolicyRequest>) -> Answer<v1::DeletePolicyResponse> {
        self.answer(request, |_, _| v1::DeletePolicyResponse { revision: 101 })
            .await
    }
}

#[tonic::async_trait]
impl TokenService for Controller {
    async fn create_token(&self, request: Request<v1::CreateTokenRequest>) -> Answer<v1::CreateTokenResponse> {
        self.answer(request, |script, _| script.token.clone()).await
    }

    async fn list_tokens(&self, _: Request<v1::ListTokensRequest>) -> Answer<v1::ListTokensResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_token(&self, _: Request<v1::GetTokenRequest>) -> Answer<v1::GetTokenResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn revoke_token(&self, _: Request<v1::RevokeTokenRequest>) -> Answer<v1::RevokeTokenResponse> {
        Err(Status::unimplemented("not scripted"))
    }
}

#[tonic::async_trait]
impl MetricService for Controller {
    async fn query_metrics(&self, request: Request<v1::QueryMetricsRequest>) -> Answer<v1::QueryMetricsResponse> {
        let answer = self.answer(request, |script, request| {
            let (items, next_page_token) = page(&script.metrics, script.page, request.page_size, &request.page_token);
            v1::QueryMetricsResponse {
                items,
                revision: 100,
                next_page_token,
            }
        });
        answer.await
    }
}
