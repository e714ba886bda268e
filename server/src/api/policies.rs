//! `PolicyService`.

use std::{collections::BTreeMap, sync::Arc};

use muster_proto::v1::{
    self, AppliedPolicy, ApplyAction, ApplyPoliciesRequest, ApplyPoliciesResponse, DeletePolicyRequest,
    DeletePolicyResponse, GetPolicyRequest, GetPolicyResponse, ListPoliciesRequest, ListPoliciesResponse, PolicyCounts,
    PolicyOutcome, policy::Spec, policy_service_server::PolicyService,
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    Api,
    mask::Mask,
    paging,
    problem::{context, invalid_field, status},
};
use crate::{
    access::OpCtx,
    clock,
    manifests::document,
    policies::{Action, Compiled, Error, Freeze, Key, Policy},
};

#[tonic::async_trait]
impl PolicyService for Api {
    async fn apply_policies(
        &self,
        request: Request<ApplyPoliciesRequest>,
    ) -> Result<Response<ApplyPoliciesResponse>, Status> {
        let ctx = context(&request)?;
        let (policies, scopes, wanted) = (self.policies.clone(), ctx.scopes(), request.into_inner().policies);
        let caller = ctx.who();
        self.note_policies(&ctx, &wanted);
        let applied = self
            .whole(async move { policies.apply(wanted, &scopes, &caller, clock::now()).await })
            .await
            .map_err(|problem| status(&ctx, problem))?;
        for (policy, action) in applied.iter().filter(|(_, action)| *action != Action::Unchanged) {
            info!(policy = %policy.key, version = policy.version, ?action, user = ctx.user(), request.id = ctx.request_id, "policy applied");
        }
        ctx.note.after(&audited(applied.iter().map(|(policy, _)| policy)));
        let counts = self.counts(applied.iter().map(|(policy, _)| policy));
        let revision = applied
            .iter()
            .map(|(policy, _)| policy.revision)
            .max()
            .unwrap_or_default();
        let results = applied
            .iter()
            .map(|(policy, action)| AppliedPolicy {
                policy: Some(to_policy(policy, counts.get(&policy.key))),
                action: match action {
                    Action::Created => ApplyAction::Created,
                    Action::Updated => ApplyAction::Updated,
                    Action::Unchanged => ApplyAction::Unchanged,
                } as i32,
            })
            .collect();
        Ok(Response::new(ApplyPoliciesResponse { results, revision }))
    }

    async fn get_policy(&self, request: Request<GetPolicyRequest>) -> Result<Response<GetPolicyResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let mask = Mask::of::<v1::Policy>(request.read_mask.as_ref()).map_err(|error| status(&ctx, error))?;
        let key = key(&ctx, request.kind, request.name)?;
        let policy = self
            .policies
            .current()
            .policies
            .get(&key)
            .filter(|policy| ctx.scopes().has(&policy.scope))
            .cloned()
            .ok_or_else(|| status(&ctx, Error::NotFound(key.clone())))?;
        let counts = self.counts([&policy]);
        Ok(Response::new(GetPolicyResponse {
            policy: Some(mask.keep(to_policy(&policy, counts.get(&key)))),
        }))
    }

    async fn list_policies(
        &self,
        request: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        if !request.kind.is_empty() {
            check_kind(&ctx, &request.kind)?;
        }
        let mask = Mask::of::<v1::Policy>(request.read_mask.as_ref()).map_err(|error| status(&ctx, error))?;
        let size = paging::size(request.page_size, 500, 1_000).map_err(|error| status(&ctx, error))?;
        let revision = self.changes.revision();
        let compiled: Arc<Compiled> = self.policies.current();
        let scopes = ctx.scopes();
        let of_kind = |policy: &&Arc<Policy>| {
            (request.kind.is_empty() || policy.key.kind == request.kind) && scopes.has(&policy.scope)
        };
        let all: Vec<Arc<Policy>> = compiled.policies.values().filter(of_kind).cloned().collect();
        let total_size = i32::try_from(all.len()).unwrap_or(i32::MAX);
        let read = |token: &str| {
            let (kind, name) = token.split_once('/')?;
            Some(Key {
                kind: kind.into(),
                name: name.into(),
            })
        };
        let write = |policy: &Arc<Policy>| policy.key.to_string();
        let (page, next_page_token) =
            paging::page(all, size, &request.page_token, |policy| policy.key.clone(), write, read)
                .map_err(|error| status(&ctx, error))?;
        let counts = self.counts(&page);
        let items = page
            .iter()
            .map(|policy| mask.keep(to_policy(policy, counts.get(&policy.key))))
            .collect();
        Ok(Response::new(ListPoliciesResponse {
            items,
            revision,
            next_page_token,
            total_size,
            freeze: compiled.freeze.as_deref().map(to_freeze),
        }))
    }

    async fn freeze_policies(
        &self,
        request: Request<v1::FreezePoliciesRequest>,
    ) -> Result<Response<v1::FreezePoliciesResponse>, Status> {
        let ctx = context(&request)?;
        let freeze = Freeze {
            at: clock::now(),
            caller: ctx.who(),
            reason: request.into_inner().reason,
        };
        ctx.note.resource("policies", "freeze");
        let freeze = self.freeze(&ctx, Some(freeze)).await?;
        Ok(Response::new(v1::FreezePoliciesResponse { freeze }))
    }

    async fn unfreeze_policies(
        &self,
        request: Request<v1::UnfreezePoliciesRequest>,
    ) -> Result<Response<v1::UnfreezePoliciesResponse>, Status> {
        let ctx = context(&request)?;
        ctx.note.resource("policies", "freeze");
        self.freeze(&ctx, None).await?;
        Ok(Response::new(v1::UnfreezePoliciesResponse {}))
    }

    async fn delete_policy(
        &self,
        request: Request<DeletePolicyRequest>,
    ) -> Result<Response<DeletePolicyResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let (key, seen) = (key(&ctx, request.kind, request.name)?, request.revision);
        let (policies, scopes, gone) = (self.policies.clone(), ctx.scopes(), key.clone());
        let caller = ctx.who();
        ctx.note.resource("policy", &key);
        if let Some(before) = self.policies.current().policies.get(&key) {
            ctx.note.before(&audited([before]));
        }
        let revision = self
            .whole(async move { policies.delete(&gone, seen, &scopes, &caller, clock::now()).await })
            .await
            .map_err(|problem| status(&ctx, problem))?;
        info!(policy = %key, user = ctx.user(), request.id = ctx.request_id, "policy deleted");
        Ok(Response::new(DeletePolicyResponse { revision }))
    }
}

impl Api {
    async fn freeze(&self, ctx: &OpCtx, freeze: Option<Freeze>) -> Result<Option<v1::PolicyFreeze>, Status> {
        let (policies, by) = (self.policies.clone(), ctx.user());
        let is_frozen = freeze.is_some();
        let change = async move { policies.freeze(freeze, &by, clock::now()).await };
        let freeze = self.whole(change).await.map_err(|problem| status(ctx, problem))?;
        info!(
            is_frozen,
            user = ctx.user(),
            request.id = ctx.request_id,
            "the delivery of policies"
        );
        Ok(freeze.as_deref().map(to_freeze))
    }

    /// What the audit log keeps of policies as they are before a change.
    fn note_policies(&self, ctx: &OpCtx, wanted: &[v1::Policy]) {
        let key = |policy: &v1::Policy| Key {
            kind: policy.kind.clone(),
            name: policy.metadata.as_ref().map(|it| it.name.clone()).unwrap_or_default(),
        };
        let keys: Vec<Key> = wanted.iter().map(key).collect();
        let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
        ctx.note.resource("policy", names.join(","));
        let current = self.policies.current();
        let before: Vec<_> = keys.iter().filter_map(|key| current.policies.get(key)).collect();
        if !before.is_empty() {
            ctx.note.before(&audited(before));
        }
    }

    /// How far each of the policies has come in the fleet.
    fn counts<'a>(&self, policies: impl IntoIterator<Item = &'a Arc<Policy>>) -> BTreeMap<Key, PolicyCounts> {
        let mut counts: BTreeMap<Key, PolicyCounts> = BTreeMap::new();
        let versions: BTreeMap<Key, i64> = policies
            .into_iter()
            .map(|policy| (policy.key.clone(), policy.version))
            .collect();
        let compiled = self.policies.current();
        self.agents.each(|agent| {
            let set = compiled.set_for(agent);
            for key in versions.keys().filter(|key| set.policies.contains_key(key)) {
                counts.entry(key.clone()).or_default().assigned += 1;
            }
            for report in &agent.policy_status.policies {
                let key = Key {
                    kind: report.kind.clone(),
                    name: report.name.clone(),
                };
                if versions.get(&key) != Some(&report.version) || !set.policies.contains_key(&key) {
                    continue;
                }
                let counts = counts.entry(key).or_default();
                match report.outcome() {
                    PolicyOutcome::Applied => counts.applied += 1,
                    PolicyOutcome::Refused | PolicyOutcome::NotSupported => counts.refused += 1,
                    PolicyOutcome::Unspecified => {}
                }
            }
        });
        counts
    }
}

fn check_kind(ctx: &OpCtx, kind: &str) -> Result<(), Status> {
    if kind == Key::CHECK {
        return Ok(());
    }
    Err(status(
        ctx,
        invalid_field("kind", format!("is {kind:?}; the only kind is {}", Key::CHECK)),
    ))
}

fn key(ctx: &OpCtx, kind: String, name: String) -> Result<Key, Status> {
    check_kind(ctx, &kind)?;
    Ok(Key { kind, name })
}

/// Without what depends on the fleet.
fn audited<'a>(policies: impl IntoIterator<Item = &'a Arc<Policy>>) -> ListPoliciesResponse {
    ListPoliciesResponse {
        items: policies.into_iter().map(|policy| to_policy(policy, None)).collect(),
        ..ListPoliciesResponse::default()
    }
}

fn to_freeze(freeze: &Freeze) -> v1::PolicyFreeze {
    v1::PolicyFreeze {
        time: Some(clock::to_timestamp(freeze.at)),
        caller: freeze.caller.clone(),
        reason: freeze.reason.clone(),
    }
}

fn to_policy(policy: &Policy, counts: Option<&PolicyCounts>) -> v1::Policy {
    v1::Policy {
        kind: policy.key.kind.clone(),
        metadata: Some(document::metadata(policy)),
        spec: Some(Spec::Check(policy.check.clone())),
        counts: Some(counts.cloned().unwrap_or_default()),
    }
}
