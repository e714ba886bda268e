//! `ManifestService`.

use std::sync::Arc;

use muster_proto::v1::{
    self, ApplyManifestsRequest, ApplyManifestsResponse, ListManifestVersionsRequest, ListManifestVersionsResponse,
    ManifestVersion, PlanManifestsRequest, PlanManifestsResponse, manifest_service_server::ManifestService,
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    Api, paging,
    problem::{context, invalid_field, status},
};
use crate::{
    access::{
        Note, OpCtx,
        permission::{
            AGENTS_READ, GRANTS_READ, GRANTS_WRITE, POLICIES_READ, POLICIES_WRITE, ROLES_READ, ROLES_WRITE,
            TOKENS_READ, TOKENS_WRITE,
        },
        scope::{Scope, Scopes},
    },
    clock,
    manifests::{Change, DEFAULT_AGENTS, Draft, Error, MAX_AGENTS, Needed, Plan, PlannedAgent, Reach, Wanted},
    policies::Key,
};

const READ: Needed = Needed {
    policies: POLICIES_READ,
    roles: ROLES_READ,
    grants: GRANTS_READ,
    token_templates: TOKENS_READ,
};
const WRITE: Needed = Needed {
    policies: POLICIES_WRITE,
    roles: ROLES_WRITE,
    grants: GRANTS_WRITE,
    token_templates: TOKENS_WRITE,
};

#[tonic::async_trait]
impl ManifestService for Api {
    async fn plan_manifests(
        &self,
        request: Request<PlanManifestsRequest>,
    ) -> Result<Response<PlanManifestsResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let max_agents = match usize::try_from(request.max_agents) {
            Ok(0) => DEFAULT_AGENTS,
            Ok(count) if count <= MAX_AGENTS => count,
            _ => {
                let text = format!("must be from 1 to {MAX_AGENTS}, or 0 for {DEFAULT_AGENTS}");
                return Err(status(&ctx, invalid_field("max_agents", text)));
            }
        };
        let wanted = Wanted {
            manifests: request.manifests,
            owner: request.owner,
            prune: request.prune,
            delete: request.delete,
        };
        let plan = self
            .manifests
            .plan(wanted, &reach(&ctx, READ), max_agents, clock::now())
            .await
            .map_err(|problem| status(&ctx, problem))?;
        Ok(Response::new(PlanManifestsResponse {
            plan: Some(encode(plan)),
        }))
    }

    async fn apply_manifests(
        &self,
        request: Request<ApplyManifestsRequest>,
    ) -> Result<Response<ApplyManifestsResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let digest = request.digest;
        let wanted = Wanted {
            manifests: request.manifests,
            owner: request.owner,
            prune: request.prune,
            delete: request.delete,
        };
        ctx.note.resource("manifests", named(&wanted.manifests));
        let (manifests, reach, by) = (Arc::clone(&self.manifests), reach(&ctx, WRITE), super::by(&ctx));
        let note = ctx.note.clone();
        let change = async move {
            let mut after = None;
            let before = |drafts: &[Draft]| after = note_drafts(&note, drafts);
            let applied = manifests.apply(wanted, &reach, &digest, before, &by, clock::now());
            let plan = applied.await?;
            if let Some(after) = after {
                note.after(&after);
            }
            Ok::<_, Error>(plan)
        };
        let plan = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        for change in plan.changes.iter().filter(|change| change.is_change()) {
            info!(
                kind = change.kind,
                name = change.name,
                action = change.action.as_str_name(),
                agents = change.starts + change.stops + change.updates,
                user = ctx.user(),
                request.id = ctx.request_id,
                "manifest applied"
            );
        }
        Ok(Response::new(ApplyManifestsResponse {
            plan: Some(encode(plan)),
        }))
    }

    async fn list_manifest_versions(
        &self,
        request: Request<ListManifestVersionsRequest>,
    ) -> Result<Response<ListManifestVersionsResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let size = paging::size(request.page_size, 100, 100).map_err(|error| status(&ctx, error))?;
        let before = match request.page_token.as_str() {
            "" => i64::MAX,
            token => token
                .parse()
                .map_err(|_| status(&ctx, invalid_field("page_token", "is not one that a list has returned")))?,
        };
        let reach = reach(&ctx, READ);
        let scoped = |scopes: &Scopes, needed| permitted(!scopes.is_none(), needed).map(|()| scopes.clone());
        let scopes = match request.kind.as_str() {
            Key::CHECK => scoped(&reach.policies, READ.policies),
            muster_proto::manifest::TOKEN_TEMPLATE => scoped(&reach.token_templates, READ.token_templates),
            muster_proto::manifest::ROLE => permitted(reach.roles, READ.roles).map(|()| Scopes::all()),
            muster_proto::manifest::GRANT => permitted(reach.grants, READ.grants).map(|()| Scopes::all()),
            other => {
                let kinds = muster_proto::manifest::KINDS.join(", ");
                let text = format!("is {other:?}; the kinds are {kinds}");
                return Err(status(&ctx, invalid_field("kind", text)));
            }
        };
        let scopes = scopes.map_err(|error| status(&ctx, error))?;
        // One more, which a deletion at the end of the page is told by.
        let found = self.manifests.versions(&request.kind, &request.name, before, size + 1);
        let found = found.await.map_err(|error| status(&ctx, error))?;
        let has_more = found.len() > size;
        let next_page_token = match found.get(size.wrapping_sub(1)) {
            Some(last) if has_more => last.revision.to_string(),
            _ => String::new(),
        };
        let is_there: Vec<bool> = (0..found.len())
            .map(|index| is_there(&scopes, &found[index..]))
            .collect();
        let mut items: Vec<ManifestVersion> = found
            .into_iter()
            .zip(is_there)
            .filter_map(|(version, is_there)| is_there.then_some(version))
            .collect();
        items.truncate(size);
        if items.is_empty() && before == i64::MAX {
            let (kind, name) = (request.kind, request.name);
            return Err(status(&ctx, Error::NotFound { kind, name }));
        }
        Ok(Response::new(ListManifestVersionsResponse { items, next_page_token }))
    }
}

/// Whether the first of these is there for a caller: in the scope that it was in, or that what was deleted had been in.
fn is_there(scopes: &Scopes, from: &[ManifestVersion]) -> bool {
    if scopes.is_all() {
        return true;
    }
    let known = from.iter().take(2).find_map(|version| version.manifest.as_ref());
    let scope = known
        .and_then(|manifest| manifest.metadata.as_ref())
        .map(|metadata| Scope::parse(&metadata.scope));
    matches!(scope, Some(Ok(scope)) if scopes.has(&scope))
}

/// "Check/disk-root,Role/on-call", as far as the request names them.
fn named(manifests: &[v1::Manifest]) -> String {
    let name = |document: &v1::Manifest| {
        let name = document.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        format!("{}/{name}", muster_proto::manifest::kind(document))
    };
    manifests.iter().map(name).collect::<Vec<_>>().join(",")
}

/// What the audit log keeps of resources as they are before a change: of those that change, if any. Returns what it keeps of them
/// as they are after it, so that the end of one change can be told from the begin of the next.
fn note_drafts(note: &Note, drafts: &[Draft]) -> Option<ApplyManifestsRequest> {
    let changed: Vec<&Draft> = drafts.iter().filter(|draft| draft.is_change()).collect();
    if changed.is_empty() {
        return None;
    }
    let names: Vec<String> = changed
        .iter()
        .map(|draft| format!("{}/{}", draft.kind(), draft.name()))
        .collect();
    note.resource("manifests", names.join(","));
    let (before, after): (Vec<_>, Vec<_>) = changed.iter().map(|draft| draft.documents()).unzip();
    let some = |documents: Vec<Option<v1::Manifest>>| {
        let manifests: Vec<_> = documents.into_iter().flatten().map(as_written).collect();
        (!manifests.is_empty()).then(|| ApplyManifestsRequest {
            manifests,
            ..ApplyManifestsRequest::default()
        })
    };
    if let Some(before) = some(before) {
        note.before(&before);
    }
    some(after)
}

/// Without what the controller adds, which is there of a resource that was stored and not of one that will be.
fn as_written(mut manifest: v1::Manifest) -> v1::Manifest {
    manifest.metadata = manifest.metadata.map(|metadata| v1::PolicyMetadata {
        name: metadata.name,
        labels: metadata.labels,
        scope: metadata.scope,
        owner: metadata.owner,
        ..v1::PolicyMetadata::default()
    });
    manifest
}

/// For whoever may see the kinds, or write them.
fn reach(ctx: &OpCtx, needed: Needed) -> Reach {
    let scopes = |permission| match ctx.operator() {
        Some(operator) => operator.rights.scopes(permission),
        None => Scopes::default(),
    };
    Reach {
        policies: scopes(needed.policies),
        roles: scopes(needed.roles).is_all(),
        grants: scopes(needed.grants).is_all(),
        token_templates: scopes(needed.token_templates),
        agents: scopes(AGENTS_READ),
        needed,
    }
}

fn permitted(is_permitted: bool, needed: &'static crate::access::permission::Permission) -> Result<(), Error> {
    match is_permitted {
        true => Ok(()),
        false => Err(Error::Missing(needed)),
    }
}

fn encode(plan: Plan) -> v1::Plan {
    v1::Plan {
        changes: plan.changes.into_iter().map(encode_change).collect(),
        agents_touched: count(plan.agents_touched),
        agents_total: count(plan.agents_total),
        digest: plan.digest,
        revision: plan.revision,
    }
}

fn encode_change(change: Change) -> v1::PlannedChange {
    let agent = |agent: PlannedAgent| v1::PlannedAgent {
        id: agent.id.to_string(),
        name: agent.name,
        effect: agent.effect as i32,
        missing_features: agent.missing_features,
    };
    v1::PlannedChange {
        kind: change.kind,
        name: change.name,
        action: change.action as i32,
        fields: change.fields,
        starts: count(change.starts),
        stops: count(change.stops),
        updates: count(change.updates),
        unsupported: count(change.unsupported),
        agents: change.agents.into_iter().map(agent).collect(),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use muster_proto::error::{ErrorReason, Problem};

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_of_the_controller_and_no_goodbye() {
        let panic = tokio::task::spawn_blocking(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(Problem::from(Error::Unfinished(panic)).reason, ErrorReason::Internal);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(std::future::pending::<()>());
        tasks.abort_all();
        let stopped = tasks.join_next().await.expect("a task").unwrap_err();
        assert_eq!(
            Problem::from(Error::Unfinished(stopped)).reason,
            ErrorReason::ShuttingDown
        );
    }
}
