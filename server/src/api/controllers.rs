//! `ControllerService`.

use std::{ops::Range, sync::Arc, time::Duration};

use muster_proto::{
    error::{ErrorReason, Problem},
    v1::{self, ControllerStatus, controller_service_server::ControllerService},
};
use rand::RngExt as _;
use tonic::{Code, Request, Response, Status};

use super::{
    Api,
    problem::{context, invalid_field, shutting_down, status},
};
use crate::{
    clock::{self, to_optional_timestamp, to_timestamp},
    controllers::{DEFAULT_WITHIN, Database, Drain},
    link::draining::Plan,
};

/// When an agent that knows no other controller may try this one again: all together not too many each second, and soon after
/// the drain is cancelled all the same.
const RETRY: Range<Duration> = Duration::from_secs(10)..Duration::from_secs(30);
/// The same of one that is about to start again.
const RETRY_STOPPED: Range<Duration> = Duration::from_secs(1)..Duration::from_secs(3);

#[tonic::async_trait]
impl ControllerService for Api {
    async fn get_controller(
        &self,
        request: Request<v1::GetControllerRequest>,
    ) -> Result<Response<v1::GetControllerResponse>, Status> {
        context(&request)?;
        Ok(Response::new(v1::GetControllerResponse {
            controller: Some(self.encode_controller()),
        }))
    }

    async fn drain_controller(
        &self,
        request: Request<v1::DrainControllerRequest>,
    ) -> Result<Response<v1::DrainControllerResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let (controller, by) = (Arc::clone(&self.controller), ctx.user());
        ctx.note.resource("controller", &self.controller.about.name);
        if request.cancel {
            let cancel = async move {
                controller.cancel_drain(&by, clock::now()).await;
                Ok::<_, Problem>(())
            };
            self.whole(cancel).await.map_err(|problem| status(&ctx, problem))?;
        } else {
            let within = match request.within.map(Duration::try_from) {
                None => DEFAULT_WITHIN,
                Some(Ok(within)) => within,
                Some(Err(_)) => return Err(status(&ctx, invalid_field("within", "must not be negative"))),
            };
            let endpoints = request.endpoints;
            let drain = async move { controller.drain(Drain { within, endpoints }, &by, clock::now()).await };
            self.whole(drain).await.map_err(|problem| status(&ctx, problem))?;
        }
        Ok(Response::new(v1::DrainControllerResponse {
            controller: Some(self.encode_controller()),
        }))
    }
}

impl Api {
    fn encode_controller(&self) -> v1::Controller {
        let about = &self.controller.about;
        let plan = self.controller.draining().plan();
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let links = self.agents.links(clock::now());
        v1::Controller {
            name: about.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            status: match &plan {
                None => ControllerStatus::Active,
                Some(plan) if plan.stops => ControllerStatus::Stopping,
                Some(_) => ControllerStatus::Draining,
            } as i32,
            active_since: to_optional_timestamp(about.active_since),
            start_time: to_optional_timestamp(about.started_at),
            listeners: about
                .listeners
                .iter()
                .map(|(name, addr)| v1::ControllerListener {
                    name: (*name).to_owned(),
                    address: addr.to_string(),
                })
                .collect(),
            endpoints: self.endpoints.clone(),
            links: count(links.count()),
            links_leaving: count(links.leaving),
            database: match about.database {
                Database::Sqlite => v1::DatabaseKind::Sqlite,
                Database::Postgres => v1::DatabaseKind::Postgres,
            } as i32,
            lease: match about.database {
                Database::Sqlite => "file",
                Database::Postgres => "database",
            }
            .to_owned(),
            epoch: about.epoch,
            drain: plan.as_deref().map(encode_drain),
        }
    }

    /// Why no link is taken now.
    pub(super) fn takes_no_links(&self) -> Option<Problem> {
        let plan = self.controller.draining().plan()?;
        let (problem, retry) = match plan.stops {
            true => (shutting_down(), RETRY_STOPPED),
            false => (draining(), RETRY),
        };
        Some(problem.with_retry_after(rand::rng().random_range(retry)))
    }
}

/// To an agent that is sent elsewhere.
pub(super) fn draining() -> Problem {
    Problem::new(
        Code::Unavailable,
        ErrorReason::ControllerDraining,
        "the controller sends its agents away and takes no links; connect to another one, or later",
    )
}

fn encode_drain(plan: &Plan) -> v1::ControllerDrain {
    v1::ControllerDrain {
        start_time: Some(to_timestamp(plan.started_at)),
        end_time: Some(to_timestamp(plan.ends_at)),
        endpoints: plan.endpoints.clone(),
        by: plan.by.clone(),
    }
}
