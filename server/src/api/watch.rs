//! What all watches share: first what is there, then every change, until the watcher leaves or falls behind.

use std::{pin::Pin, time::Duration};

use futures_util::Stream;
use muster_proto::error::{ErrorReason, Problem};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};

use super::{Api, problem};
use crate::{access::OpCtx, changes, store::Change};

pub type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Events that wait for a slow watcher, and how long it may take to read one.
const BACKLOG: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);

/// One kind of watch.
pub trait Watch: Send + 'static {
    type Event: Send + 'static;

    /// All that matches now.
    fn initial(&mut self, revision: i64) -> Vec<Self::Event>;
    /// What a change means to this watcher.
    fn of_change(&mut self, change: &Change) -> Option<Self::Event>;
    fn synced(&self, revision: i64) -> Self::Event;
}

impl Api {
    /// Starts a watch after `revision`; 0: with what is there.
    pub(super) async fn watch<W: Watch>(
        &self,
        ctx: OpCtx,
        revision: i64,
        mut watch: W,
    ) -> Result<Response<Events<W::Event>>, Status> {
        let mut follower = match revision {
            0 => self.changes.follow(),
            // Who has a scope cannot be told what has left it since: it would be told of everything that has changed.
            1.. if !ctx.scopes().is_all() => {
                let problem = Problem::new(
                    Code::OutOfRange,
                    ErrorReason::RevisionGone,
                    "a watch of a caller with a scope begins anew: watch from revision 0",
                );
                return Err(problem::status(&ctx, problem));
            }
            1.. => self
                .changes
                .follow_after(revision)
                .await
                .map_err(|error| problem::status(&ctx, error))?,
            _ => {
                return Err(problem::status(
                    &ctx,
                    problem::invalid_field("revision", "must not be negative"),
                ));
            }
        };
        let (sender, events) = mpsc::channel(BACKLOG);
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            if revision == 0 {
                let now = follower.revision();
                let synced = watch.synced(now);
                for event in watch.initial(now).into_iter().chain([synced]) {
                    if !send(&sender, Ok(event)).await {
                        return;
                    }
                }
            }
            loop {
                let next = tokio::select! {
                    () = shutdown.cancelled() => Err(changes::Error::Closed.into()),
                    () = sender.closed() => return,
                    why = ctx.distrusted() => Err(problem::distrusted(why)),
                    next = follower.next() => next.map_err(Problem::from),
                };
                let event = match next {
                    Ok(change) => match watch.of_change(&change) {
                        Some(event) => Ok(event),
                        None => continue,
                    },
                    Err(error) => Err(problem::status(&ctx, error)),
                };
                let is_end = event.is_err();
                if !send(&sender, event).await || is_end {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }
}

/// False when the watcher has left or does not read.
async fn send<T>(sender: &mpsc::Sender<Result<T, Status>>, event: Result<T, Status>) -> bool {
    matches!(tokio::time::timeout(PATIENCE, sender.send(event)).await, Ok(Ok(())))
}
