//! Follows a watch through cuts: resumes from the last revision, with back-off, and lists again when that revision is
//! gone. What to do is decided by [`Follower`], which knows no stream; [`run`] moves the bytes and waits.

mod follower;

use std::time::Duration;

use muster_proto::{json, v1};
use prost::{Message, Name};
use serde_json::Value;
use tokio::time::Instant;
use tonic::{Response, Status, Streaming};

use crate::{
    app::Session,
    client::Client,
    output::{
        Row,
        table::Cell,
        watch::{Change, WatchPrinter},
    },
    problem::{Problem, status::Asked},
};
use follower::{Ended, Follower};

/// One response of a watch call.
pub trait Event: Message + Name + Default + Clone {
    type Item: Row + Clone + Default;

    fn new(kind: v1::WatchEventType, item: Option<Self::Item>, revision: i64) -> Self;
    fn kind(&self) -> v1::WatchEventType;
    fn item(&self) -> Option<&Self::Item>;
    fn revision(&self) -> i64;
    /// What is the same in all versions of an item.
    fn key(item: &Self::Item) -> String;
    /// Of the item's last change.
    fn item_revision(item: &Self::Item) -> i64;
    /// The item with only what names it.
    fn named(item: &Self::Item) -> Self::Item;
    /// A table row for an item that is gone.
    fn gone(item: &Self::Item) -> Vec<Cell>;
}

/// Prints changes until the user interrupts or the controller refuses for good. `open` starts the call from a revision.
pub async fn run<E, F, Opening>(
    session: &mut Session,
    client: &Client,
    asked: &Asked,
    mut open: F,
) -> Result<(), Problem>
where
    E: Event,
    F: FnMut(i64) -> Opening,
    Opening: Future<Output = Result<Response<Streaming<E>>, Status>>,
{
    let mut follower = Follower::<E>::default();
    let mut printer = WatchPrinter::new::<E::Item>(&session.printer);
    loop {
        let started = Instant::now();
        let ended = match open(follower.resume_from()).await {
            Ok(response) => {
                if follower.opened() {
                    session.printer.note("connected again")?;
                }
                let mut stream = response.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(event)) => {
                            for event in follower.take(event) {
                                print(session, &mut printer, &event)?;
                            }
                        }
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                }
            }
            Err(status) => Some(status),
        };
        match follower.end(ended.as_ref(), started.elapsed(), rand::random()) {
            Ended::Refused => {
                let status = ended.unwrap_or_else(|| Status::unavailable("the controller ended the watch"));
                return Err(client.problem(asked, &status));
            }
            Ended::Relist => {
                session
                    .printer
                    .note("the controller no longer holds where this watch was; listing again")?;
            }
            Ended::Resume { after, first } => {
                if first {
                    let why = ended.map_or_else(
                        || "the controller ended the watch".to_owned(),
                        |status| client.problem(asked, &status).why.clone(),
                    );
                    session
                        .printer
                        .note(&format!("watch interrupted: {why}; trying again"))?;
                }
                tokio::time::sleep(after).await;
            }
        }
    }
}

fn print<E: Event>(session: &mut Session, printer: &mut WatchPrinter, event: &E) -> Result<(), Problem> {
    let change = match (event.kind(), event.item()) {
        (v1::WatchEventType::Put, Some(item)) => Change::Put(item.clone()),
        (v1::WatchEventType::Delete, Some(item)) => Change::Delete(item.clone()),
        (v1::WatchEventType::Synced, _) => Change::Synced,
        // A kind of a later release.
        _ => return Ok(()),
    };
    let json = || -> Value { json::to_json(event) };
    Ok(printer.print(&mut session.printer, &change, E::gone, json)?)
}

/// Between tries: at most this long.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Event for v1::WatchAgentsResponse {
    type Item = v1::Agent;

    fn new(kind: v1::WatchEventType, agent: Option<v1::Agent>, revision: i64) -> Self {
        v1::WatchAgentsResponse {
            r#type: kind.into(),
            agent,
            revision,
        }
    }

    fn kind(&self) -> v1::WatchEventType {
        self.r#type()
    }

    fn item(&self) -> Option<&v1::Agent> {
        self.agent.as_ref()
    }

    fn revision(&self) -> i64 {
        self.revision
    }

    fn key(agent: &v1::Agent) -> String {
        agent.id.clone()
    }

    fn item_revision(agent: &v1::Agent) -> i64 {
        agent.revision
    }

    fn named(agent: &v1::Agent) -> v1::Agent {
        v1::Agent {
            id: agent.id.clone(),
            name: agent.name.clone(),
            ..Default::default()
        }
    }

    fn gone(agent: &v1::Agent) -> Vec<Cell> {
        crate::resources::agent::gone(agent)
    }
}

impl Event for v1::WatchStatesResponse {
    type Item = v1::State;

    fn new(kind: v1::WatchEventType, state: Option<v1::State>, revision: i64) -> Self {
        v1::WatchStatesResponse {
            r#type: kind.into(),
            state,
            revision,
        }
    }

    fn kind(&self) -> v1::WatchEventType {
        self.r#type()
    }

    fn item(&self) -> Option<&v1::State> {
        self.state.as_ref()
    }

    fn revision(&self) -> i64 {
        self.revision
    }

    fn key(state: &v1::State) -> String {
        format!("{}/{}", state.agent_id, state.check)
    }

    fn item_revision(state: &v1::State) -> i64 {
        state.revision
    }

    fn named(state: &v1::State) -> v1::State {
        v1::State {
            agent_id: state.agent_id.clone(),
            agent_name: state.agent_name.clone(),
            check: state.check.clone(),
            ..Default::default()
        }
    }

    fn gone(state: &v1::State) -> Vec<Cell> {
        crate::resources::state::gone(state)
    }
}
