//! `AgentService`.

use std::{collections::BTreeSet, sync::Arc};

use muster_proto::{
    ids::AgentId,
    selector::Selector,
    v1::{
        self, AgentStatus, CheckState, Freshness, GetAgentRequest, GetAgentResponse, LabelSource, Lane,
        ListAgentsRequest, ListAgentsResponse, PolicyOutcome, UpdateAgentLabelsRequest, UpdateAgentLabelsResponse,
        WatchAgentsRequest, WatchAgentsResponse, WatchEventType, agent_service_server::AgentService,
    },
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    Api,
    mask::Mask,
    paging,
    problem::{self, context, status},
    watch::{Events, Watch},
};
use crate::{
    access::{OpCtx, labels, scope::Scopes},
    agents::{Agents, Entry, OnClone},
    clock::{self, Micros, to_duration, to_optional_timestamp, to_span, to_timestamp},
    controllers::Controller,
    ingest::lane_name,
    policies::{Compiled, Policies, PolicySet},
    states::{States, View},
    store::{Change, ChangeKind},
    tokens::label_violations,
};

#[tonic::async_trait]
impl AgentService for Api {
    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let selector = problem::selector(&ctx, &request.selector)?;
        let mask = Mask::of::<v1::Agent>(request.read_mask.as_ref()).map_err(|error| status(&ctx, error))?;
        let size = paging::size(request.page_size, 500, 1_000).map_err(|error| status(&ctx, error))?;
        // The revision first: what is read after it is at least that new.
        let revision = self.changes.revision();
        let read = |token: &str| {
            let (id, name) = token.split_once(' ')?;
            Some((name.to_owned(), id.parse().ok()?))
        };
        let mut page = paging::First::after(&request.page_token, size, read).map_err(|error| status(&ctx, error))?;
        let (mut fleet_size, mut total_size) = (0, 0);
        let scopes = ctx.scopes();
        self.agents.each(|entry| {
            if !entry.is_in(&scopes) {
                return;
            }
            fleet_size += 1;
            if entry.matches(&selector) {
                total_size += 1;
                page.offer((entry.name.as_str(), entry.id), |(name, id)| (name.to_owned(), id));
            }
        });
        let (keys, next_page_token) = page.end(|(name, id): &(String, AgentId)| format!("{id} {name}"));
        let view = Viewer::of(self, clock::now());
        let items = keys
            .into_iter()
            .filter_map(|(_, id)| Some(mask.keep(self.agents.with(id, |entry| view.agent(entry))?)))
            .collect();
        Ok(Response::new(ListAgentsResponse {
            items,
            revision,
            next_page_token,
            total_size,
            fleet_size,
        }))
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Result<Response<GetAgentResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let mask = Mask::of::<v1::Agent>(request.read_mask.as_ref()).map_err(|error| status(&ctx, error))?;
        let id = self
            .agents
            .find(&request.agent, &ctx.scopes())
            .map_err(|error| status(&ctx, error))?;
        let entry = self.agents.get(id).ok_or_else(|| status(&ctx, gone(id)))?;
        let mut agent = Viewer::of(self, clock::now()).agent(&entry);
        if let Some(policies) = &mut agent.policies {
            policies.reports = entry.policy_status.policies;
        }
        Ok(Response::new(GetAgentResponse {
            agent: Some(mask.keep(agent)),
        }))
    }

    type WatchAgentsStream = Events<WatchAgentsResponse>;

    async fn watch_agents(
        &self,
        request: Request<WatchAgentsRequest>,
    ) -> Result<Response<Self::WatchAgentsStream>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let selector = problem::selector(&ctx, &request.selector)?;
        let shown = (request.revision == 0).then(BTreeSet::new);
        let watch = AgentWatch {
            selector,
            scopes: ctx.scopes(),
            agents: self.agents.clone(),
            policies: self.policies.clone(),
            states: self.states.clone(),
            controller: self.controller.clone(),
            shown,
        };
        self.watch(ctx, request.revision, watch).await
    }

    async fn update_agent_labels(
        &self,
        request: Request<UpdateAgentLabelsRequest>,
    ) -> Result<Response<UpdateAgentLabelsResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let violations = label_violations("set", &request.set);
        if !violations.is_empty() {
            return Err(status(&ctx, muster_proto::error::Problem::invalid_fields(violations)));
        }
        if let Some(key) = request.remove.iter().find(|key| request.set.contains_key(*key)) {
            let text = format!("has {key}, which is also in set");
            return Err(status(&ctx, problem::invalid_field("remove", text)));
        }
        let id = noted(self, &ctx, &request.agent)?;
        let (agents, links) = (self.agents.clone(), self.links.clone());
        let (grants, scopes) = (self.grants.clone(), ctx.scopes());
        let change = async move {
            let may_become = |before: &_, after: &_| labels::check(&scopes, grants.rights(), before, after);
            let entry = agents
                .update_labels(
                    id,
                    &request.set,
                    &request.remove,
                    request.revision,
                    may_become,
                    clock::now(),
                )
                .await?;
            links.nudge(id);
            Ok::<_, crate::agents::Error>(entry)
        };
        let entry = self.whole(change).await.map_err(|problem| status(&ctx, problem))?;
        info!(agent.id = %id, user = ctx.user(), request.id = ctx.request_id, "labels changed");
        ctx.note.after(&audited(&entry));
        let agent = Viewer::of(self, clock::now()).agent(&entry);
        Ok(Response::new(UpdateAgentLabelsResponse { agent: Some(agent) }))
    }

    async fn preregister_agent(
        &self,
        request: Request<muster_proto::v1::PreregisterAgentRequest>,
    ) -> Result<Response<muster_proto::v1::PreregisterAgentResponse>, Status> {
        super::preregistration::preregister_agent(self, request).await
    }

    async fn revoke_agent(
        &self,
        request: Request<muster_proto::v1::RevokeAgentRequest>,
    ) -> Result<Response<muster_proto::v1::RevokeAgentResponse>, Status> {
        super::revocation::revoke_agent(self, request).await
    }

    async fn delete_agent(
        &self,
        request: Request<muster_proto::v1::DeleteAgentRequest>,
    ) -> Result<Response<muster_proto::v1::DeleteAgentResponse>, Status> {
        super::revocation::delete_agent(self, request).await
    }

    async fn readmit_agent(
        &self,
        request: Request<muster_proto::v1::ReadmitAgentRequest>,
    ) -> Result<Response<muster_proto::v1::ReadmitAgentResponse>, Status> {
        super::revocation::readmit_agent(self, request).await
    }

    async fn fork_agent(
        &self,
        request: Request<muster_proto::v1::ForkAgentRequest>,
    ) -> Result<Response<muster_proto::v1::ForkAgentResponse>, Status> {
        super::forks::fork_agent(self, request).await
    }
}

/// The agent that a change is about, with what the audit log keeps of it as it is before.
pub(super) fn noted(api: &Api, ctx: &OpCtx, text: &str) -> Result<AgentId, Status> {
    let id = api
        .agents
        .find(text, &ctx.scopes())
        .map_err(|error| status(ctx, error))?;
    ctx.note.agent(id);
    if let Some(entry) = api.agents.get(id) {
        ctx.note.before(&audited(&entry));
    }
    Ok(id)
}

/// What of an agent changes by the hand of operators alone: the audit log has digests of this.
pub(super) fn audited(entry: &Entry) -> v1::Agent {
    let mut labels = entry.labels();
    labels.retain(|label| label.source() != LabelSource::Agent);
    v1::Agent {
        id: entry.id.to_string(),
        name: entry.name.clone(),
        status: match entry.status {
            AgentStatus::Revoked => AgentStatus::Revoked.into(),
            _ => AgentStatus::Unspecified.into(),
        },
        labels,
        readmit_until: to_optional_timestamp(entry.readmit_until),
        fork_until: to_optional_timestamp(entry.fork_until),
        ..v1::Agent::default()
    }
}

/// An agent as it is now.
pub(super) fn encode(api: &Api, entry: &Entry) -> v1::Agent {
    Viewer::of(api, clock::now()).agent(entry)
}

fn gone(id: AgentId) -> crate::agents::Error {
    crate::agents::Error::NotFound(id.to_string())
}

fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// Makes agents of entries, as of one moment.
pub(super) struct Viewer<'a> {
    states: &'a States,
    controller: &'a Controller,
    compiled: Arc<Compiled>,
    now: Micros,
}

impl<'a> Viewer<'a> {
    pub(super) fn of(api: &'a Api, now: Micros) -> Self {
        Self {
            states: &api.states,
            controller: &api.controller,
            compiled: api.policies.current(),
            now,
        }
    }

    pub(super) fn agent(&self, entry: &Entry) -> v1::Agent {
        let set = self.compiled.set_for(entry);
        let views = self.states.views(entry, &self.compiled, self.now);
        let stalled = entry
            .connection
            .as_ref()
            .and_then(|connection| connection.stalled_since(self.now));
        v1::Agent {
            id: entry.id.to_string(),
            name: entry.name.clone(),
            status: entry.status as i32,
            status_reason: entry.status_reason.clone(),
            status_since: to_optional_timestamp(entry.status_since),
            status_unconfirmed: entry.is_unconfirmed(),
            last_seen: to_optional_timestamp(entry.last_seen),
            version: entry.version.clone(),
            policies: Some(v1::AgentPolicies {
                assigned: count(set.policies.len()),
                applied: count(applied(entry, &set)),
                reports: Vec::new(),
            }),
            problems: Some(problems(&views)),
            labels: entry.labels(),
            facts: entry.facts.clone(),
            warnings: entry
                .conflict
                .warning(&entry.machines, self.now)
                .into_iter()
                .chain(stalled.map(|(lane, since)| stuck(lane, since, self.now)))
                .chain(entry.throttled_warning(self.now))
                .chain(entry.new_series_warning(self.now))
                .chain(entry.warnings.iter().cloned())
                .collect(),
            enroll_time: to_optional_timestamp(entry.enrolled_at),
            certificate: Some(v1::AgentCertificate {
                serial: entry.certificate.serial.clone(),
                expire_time: to_optional_timestamp(entry.certificate.not_after),
                issue_time: to_optional_timestamp(entry.certificate.issued_at),
                ca: entry.certificate.ca.clone(),
            }),
            connection: entry.connection.as_ref().map(|connection| {
                let report = connection.report.as_ref();
                v1::AgentConnection {
                    session_id: connection.session_id.clone(),
                    connect_time: Some(to_timestamp(connection.connected_at)),
                    remote_address: connection.remote.clone(),
                    round_trip_micros: report.and_then(|report| report.round_trip),
                    clock_skew_micros: entry.clock_skew,
                    lanes: report.map(|report| report.lanes.clone()).unwrap_or_default(),
                    controller: self.controller.about.name.clone(),
                    stalled_since: stalled.map(|(_, since)| to_timestamp(since)),
                    leaving: connection.leaving,
                }
            }),
            revision: entry.revision,
            ephemeral: (entry.ephemeral > 0).then(|| to_duration(entry.ephemeral)),
            on_clone: match entry.on_clone {
                None => v1::OnClone::Unspecified,
                Some(OnClone::Refuse) => v1::OnClone::Refuse,
                Some(OnClone::Fork) => v1::OnClone::Fork,
            } as i32,
            readmit_until: (entry.readmit_until > self.now).then(|| to_timestamp(entry.readmit_until)),
            fork_until: (entry.fork_until > self.now).then(|| to_timestamp(entry.fork_until)),
            forked_from: entry.forked_from.map(|id| id.to_string()).unwrap_or_default(),
            trust_bundle_version: entry.bundle_version,
        }
    }
}

/// For whoever looks at the agent.
fn stuck(lane: Lane, since: Micros, now: Micros) -> String {
    format!(
        "records of its queue {} wait, and for {} none of them was acknowledged",
        lane_name(lane),
        to_span(now - since)
    )
}

/// Policies of the set that the agent runs in the right version.
fn applied(entry: &Entry, set: &PolicySet) -> usize {
    let is_applied = |report: &&v1::PolicyReport| {
        report.outcome() == PolicyOutcome::Applied
            && report.kind == crate::policies::Key::CHECK
            && set
                .check(&report.name)
                .is_some_and(|policy| policy.version == report.version)
    };
    entry.policy_status.policies.iter().filter(is_applied).count()
}

fn problems(views: &[View]) -> v1::AgentProblems {
    let mut problems = v1::AgentProblems::default();
    for view in views {
        match (view.fresh.freshness, view.entry.state) {
            (Freshness::Unreachable, _) => problems.unreachable += 1,
            (Freshness::Stale, _) => problems.stale += 1,
            (_, CheckState::Warning) => problems.warning += 1,
            (_, CheckState::Critical) => problems.critical += 1,
            (_, CheckState::Unknown) => problems.unknown += 1,
            _ => {}
        }
    }
    problems
}

struct AgentWatch {
    selector: Selector,
    scopes: Scopes,
    agents: Arc<Agents>,
    policies: Arc<Policies>,
    states: Arc<States>,
    controller: Arc<Controller>,
    /// What the watcher has; unknown when it has resumed.
    shown: Option<BTreeSet<AgentId>>,
}

impl AgentWatch {
    fn takes(&self, entry: &Entry) -> bool {
        entry.is_in(&self.scopes) && entry.matches(&self.selector)
    }

    fn put(&mut self, entry: &Entry, revision: i64) -> WatchAgentsResponse {
        if let Some(shown) = &mut self.shown {
            shown.insert(entry.id);
        }
        let view = Viewer {
            states: &self.states,
            controller: &self.controller,
            compiled: self.policies.current(),
            now: clock::now(),
        };
        let agent = Some(view.agent(entry));
        WatchAgentsResponse {
            r#type: WatchEventType::Put as i32,
            agent,
            revision,
        }
    }
}

impl Watch for AgentWatch {
    type Event = WatchAgentsResponse;

    fn initial(&mut self, revision: i64) -> Vec<WatchAgentsResponse> {
        let mut entries = Vec::new();
        let agents = self.agents.clone();
        agents.each(|entry| {
            if self.takes(entry) {
                entries.push(entry.clone());
            }
        });
        entries.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        entries.iter().map(|entry| self.put(entry, revision)).collect()
    }

    fn of_change(&mut self, change: &Change) -> Option<WatchAgentsResponse> {
        if change.kind != ChangeKind::Agent {
            return None;
        }
        let id: AgentId = change.id.parse().ok()?;
        if let Some(entry) = self.agents.get(id).filter(|entry| self.takes(entry)) {
            return Some(self.put(&entry, change.revision));
        }
        if !self.shown.as_mut().is_none_or(|shown| shown.remove(&id)) {
            return None;
        }
        let agent = Some(v1::Agent {
            id: id.to_string(),
            ..v1::Agent::default()
        });
        Some(WatchAgentsResponse {
            r#type: WatchEventType::Delete as i32,
            agent,
            revision: change.revision,
        })
    }

    fn synced(&self, revision: i64) -> WatchAgentsResponse {
        WatchAgentsResponse {
            r#type: WatchEventType::Synced as i32,
            agent: None,
            revision,
        }
    }
}
