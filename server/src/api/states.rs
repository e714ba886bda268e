//! `StateService`.

use std::{cmp::Reverse, sync::Arc};

use muster_proto::{
    ids::AgentId,
    selector::Selector,
    v1::{
        self, Arrival, CheckState, Freshness, ListStatesRequest, ListStatesResponse, StateCounts, StateType,
        WatchEventType, WatchStatesRequest, WatchStatesResponse, state_service_server::StateService,
    },
};
use tonic::{Request, Response, Status};

use super::{
    Api,
    mask::Mask,
    paging,
    problem::{self, context, status},
    watch::{Events, Watch},
};
use crate::{
    access::{OpCtx, scope::Scopes},
    agents::{Agents, Entry},
    arrival,
    clock::{self, to_optional_timestamp},
    policies::Policies,
    states::{States, View},
    store::{Change, ChangeKind},
};

/// The place of a state in a list: worst first when only problems are asked for, then name, id, check.
type Place = (Reverse<u8>, String, AgentId, String);

#[tonic::async_trait]
impl StateService for Api {
    async fn list_states(&self, request: Request<ListStatesRequest>) -> Result<Response<ListStatesResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let filter = Filter::of(
            self,
            &ctx,
            &request.selector,
            &request.agent,
            request.check,
            request.problems,
        )?;
        let mask = Mask::of::<v1::State>(request.read_mask.as_ref()).map_err(|error| status(&ctx, error))?;
        let size = paging::size(request.page_size, 500, 1_000).map_err(|error| status(&ctx, error))?;
        let revision = self.changes.revision();
        let (now, compiled) = (clock::now(), self.policies.current());
        let mut counts = StateCounts::default();
        let mut views: Vec<(Place, View)> = Vec::new();
        self.agents.each(|agent| {
            if !filter.takes_agent(agent) {
                return;
            }
            for view in self.states.views(agent, &compiled, now) {
                if !filter.takes_check(&view.policy.key.name) {
                    continue;
                }
                count(&mut counts, &view);
                if filter.takes_state(&view) {
                    views.push((place(&view, filter.problems), view));
                }
            }
        });
        views.sort_by(|a, b| a.0.cmp(&b.0));
        let total_size = i32::try_from(views.len()).unwrap_or(i32::MAX);
        let write = |(place, _): &(Place, View)| format!("{} {} {} {}", place.0.0, place.2, place.3, place.1);
        let (page, next_page_token) = paging::page(
            views,
            size,
            &request.page_token,
            |(place, _)| place.clone(),
            write,
            read_place,
        )
        .map_err(|error| status(&ctx, error))?;
        let items = page.iter().map(|(_, view)| mask.keep(to_state(view))).collect();
        Ok(Response::new(ListStatesResponse {
            items,
            revision,
            next_page_token,
            total_size,
            counts: Some(counts),
        }))
    }

    type WatchStatesStream = Events<WatchStatesResponse>;

    async fn watch_states(
        &self,
        request: Request<WatchStatesRequest>,
    ) -> Result<Response<Self::WatchStatesStream>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let filter = Filter::of(
            self,
            &ctx,
            &request.selector,
            &request.agent,
            request.check,
            request.problems,
        )?;
        let watch = StateWatch {
            filter,
            agents: self.agents.clone(),
            policies: self.policies.clone(),
            states: self.states.clone(),
            shown: (request.revision == 0).then(Default::default),
        };
        self.watch(ctx, request.revision, watch).await
    }
}

/// Which states are asked for.
struct Filter {
    selector: Selector,
    scopes: Scopes,
    agent: Option<AgentId>,
    /// Empty: all.
    check: String,
    problems: bool,
}

impl Filter {
    fn of(api: &Api, ctx: &OpCtx, selector: &str, agent: &str, check: String, problems: bool) -> Result<Self, Status> {
        let scopes = ctx.scopes();
        let agent = match agent {
            "" => None,
            text => Some(api.agents.find(text, &scopes).map_err(|error| status(ctx, error))?),
        };
        Ok(Self {
            selector: problem::selector(ctx, selector)?,
            scopes,
            agent,
            check,
            problems,
        })
    }

    fn takes_agent(&self, agent: &Entry) -> bool {
        self.agent.is_none_or(|id| id == agent.id) && agent.is_in(&self.scopes) && agent.matches(&self.selector)
    }

    fn takes_check(&self, check: &str) -> bool {
        self.check.is_empty() || self.check == check
    }

    fn takes_state(&self, view: &View) -> bool {
        !self.problems || view.is_problem()
    }
}

fn place(view: &View, worst_first: bool) -> Place {
    let severity = if worst_first { view.severity() } else { 0 };
    (
        Reverse(severity),
        view.agent_name.clone(),
        view.agent,
        view.policy.key.name.clone(),
    )
}

fn read_place(token: &str) -> Option<Place> {
    let mut parts = token.splitn(4, ' ');
    let severity = parts.next()?.parse().ok()?;
    let (agent, check, name) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    Some((Reverse(severity), name.to_owned(), agent, check.to_owned()))
}

/// Each state is in one count; what is not fresh is not counted as what it was.
fn count(counts: &mut StateCounts, view: &View) {
    let count = match (view.fresh.freshness, view.entry.state) {
        (Freshness::Unreachable, _) => &mut counts.unreachable,
        (Freshness::Stale, _) => &mut counts.stale,
        (_, CheckState::Ok) => &mut counts.ok,
        (_, CheckState::Warning) => &mut counts.warning,
        (_, CheckState::Critical) => &mut counts.critical,
        (_, CheckState::Unknown) => &mut counts.unknown,
        (_, CheckState::Pending | CheckState::Unspecified) => &mut counts.pending,
    };
    *count += 1;
}

fn to_state(view: &View) -> v1::State {
    let entry = &view.entry;
    let is_fresh = view.fresh.freshness == Freshness::Fresh;
    let result = entry.last_result();
    v1::State {
        agent_id: view.agent.to_string(),
        agent_name: view.agent_name.clone(),
        check: view.policy.key.name.clone(),
        state: if is_fresh { entry.state } else { CheckState::Unknown } as i32,
        last_state: entry.state as i32,
        r#type: if entry.hard { StateType::Hard } else { StateType::Soft } as i32,
        freshness: view.fresh.freshness as i32,
        attempt: i32::try_from(entry.attempt).unwrap_or(i32::MAX),
        attempts: i32::try_from(view.policy.timings.attempts).unwrap_or(i32::MAX),
        since: to_optional_timestamp(if is_fresh { entry.state_since } else { view.fresh.since }),
        last_run: to_optional_timestamp(entry.last_run),
        receive_time: to_optional_timestamp(entry.last_received),
        arrival: match entry.last_received {
            0 => Arrival::Unspecified,
            received_at => arrival::of(entry.last_run, received_at),
        } as i32,
        duration_micros: result.duration_micros,
        end: result.end,
        exit_code: result.exit_code,
        version: result.version,
        output: result.output,
        long_output: result.long_output,
        perfdata: result.perfdata,
        metrics: result.metrics,
        note: view.fresh.note.clone(),
        revision: entry.revision,
    }
}

struct StateWatch {
    filter: Filter,
    agents: Arc<Agents>,
    policies: Arc<Policies>,
    states: Arc<States>,
    /// What the watcher has, by change id; unknown when it has resumed.
    shown: Option<std::collections::HashSet<String>>,
}

impl StateWatch {
    fn put(&mut self, view: &View, revision: i64) -> WatchStatesResponse {
        if let Some(shown) = &mut self.shown {
            shown.insert(format!("{}/{}", view.agent, view.policy.key.name));
        }
        WatchStatesResponse {
            r#type: WatchEventType::Put as i32,
            state: Some(to_state(view)),
            revision,
        }
    }

    /// The state of a change, if it is there and asked for.
    fn view(&self, agent: AgentId, check: &str) -> Option<View> {
        let agent = self.agents.get(agent).filter(|agent| self.filter.takes_agent(agent))?;
        let view = self
            .states
            .view_of(&agent, check, &self.policies.current(), clock::now())?;
        (self.filter.takes_check(check) && self.filter.takes_state(&view)).then_some(view)
    }
}

impl Watch for StateWatch {
    type Event = WatchStatesResponse;

    fn initial(&mut self, revision: i64) -> Vec<WatchStatesResponse> {
        let (now, compiled) = (clock::now(), self.policies.current());
        let mut views = Vec::new();
        let agents = self.agents.clone();
        agents.each(|agent| {
            if self.filter.takes_agent(agent) {
                views.extend(self.states.views(agent, &compiled, now));
            }
        });
        views.retain(|view| self.filter.takes_check(&view.policy.key.name) && self.filter.takes_state(view));
        views.sort_by_key(|view| place(view, false));
        views.iter().map(|view| self.put(view, revision)).collect()
    }

    fn of_change(&mut self, change: &Change) -> Option<WatchStatesResponse> {
        if change.kind != ChangeKind::State {
            return None;
        }
        let (agent, check) = change.id.split_once('/')?;
        if let Some(view) = self.view(agent.parse().ok()?, check) {
            return Some(self.put(&view, change.revision));
        }
        if !self.shown.as_mut().is_none_or(|shown| shown.remove(&change.id)) {
            return None;
        }
        let state = v1::State {
            agent_id: agent.into(),
            check: check.into(),
            ..v1::State::default()
        };
        Some(WatchStatesResponse {
            r#type: WatchEventType::Delete as i32,
            state: Some(state),
            revision: change.revision,
        })
    }

    fn synced(&self, revision: i64) -> WatchStatesResponse {
        WatchStatesResponse {
            r#type: WatchEventType::Synced as i32,
            state: None,
            revision,
        }
    }
}
