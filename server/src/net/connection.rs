//! The handle that requests have to the connection they came in on. It carries signals only; the task of the connection,
//! in `http`, acts on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use super::admission::Slot;

/// One connection, seen from its requests. Clones are the same connection.
#[derive(Debug, Clone)]
pub struct Connection(Arc<State>);

#[derive(Debug)]
struct State {
    /// Its place among the connections that are not links; none once promoted.
    slot: Mutex<Option<Slot>>,
    promoted: AtomicBool,
    requested: AtomicBool,
    close: CancellationToken,
    /// What it ends with, as soon as somebody has said so.
    ends_with: SetOnce<CancellationToken>,
}

impl Connection {
    pub(super) fn new(slot: Slot) -> Self {
        Self::with_slot(Some(slot))
    }

    /// A connection that no listener counts, for calls that are made within this process.
    pub fn detached() -> Self {
        Self::with_slot(None)
    }

    /// Says that this connection carries an active link: it may stay, and no longer counts against the limits of those
    /// that have yet to show what they are. A link that has ended closes its connection.
    pub fn promote(&self) {
        self.0.promoted.store(true, Ordering::Release);
        self.release();
    }

    /// Ends the connection in order: the peer may read its answer and leave, then no new requests are taken, and those that
    /// are under way may finish within a few seconds.
    pub fn close(&self) {
        self.0.close.cancel();
    }

    /// Ends the connection within a second of the token's cancellation, whatever is under way then. The first token counts.
    pub fn end_with(&self, token: &CancellationToken) {
        if !self.0.ends_with.initialized() {
            // Another request of this connection may have been first.
            let _ = self.0.ends_with.set(token.clone());
        }
    }

    /// Resolves when the token of [`Connection::end_with`] is cancelled.
    pub(super) async fn ended(&self) {
        self.0.ends_with.wait().await.cancelled().await;
    }

    pub fn is_promoted(&self) -> bool {
        self.0.promoted.load(Ordering::Acquire)
    }

    /// Resolves when [`Connection::close`] has been called.
    pub async fn closing(&self) {
        self.0.close.cancelled().await;
    }

    pub(super) fn request_began(&self) {
        self.0.requested.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_requested(&self) -> bool {
        self.0.requested.load(Ordering::Relaxed)
    }

    /// Gives its place to others. Handles may outlive the connection, and must not keep it.
    pub(super) fn release(&self) {
        let slot = self.0.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(slot);
    }

    fn with_slot(slot: Option<Slot>) -> Self {
        Self(Arc::new(State {
            slot: Mutex::new(slot),
            promoted: AtomicBool::new(false),
            requested: AtomicBool::new(false),
            close: CancellationToken::new(),
            ends_with: SetOnce::new(),
        }))
    }
}
