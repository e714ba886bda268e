//! A stream beside which a task does something else most of the time. It is polled when it was woken itself, and not whenever
//! its task is: a task that waits for a dozen signals would look after all of them for every frame otherwise.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{Stream, task::AtomicWaker};

pub struct Aside<S> {
    stream: Pin<Box<S>>,
    bell: Arc<Bell>,
}

struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl<S: Stream> Aside<S> {
    pub fn new(stream: S) -> Self {
        let bell = Bell {
            // Whoever waits has to be asked once.
            rung: AtomicBool::new(true),
            task: AtomicWaker::new(),
        };
        Self {
            stream: Box::pin(stream),
            bell: Arc::new(bell),
        }
    }
}

impl<S: Stream> Stream for Aside<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // First, so that a bell that rings from here on is heard.
        self.bell.task.register(cx.waker());
        if !self.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(self.bell.clone());
        let polled = self.stream.as_mut().poll_next(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            self.bell.rung.store(true, Ordering::Release);
        }
        polled
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn};

    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_not_whenever_its_task_is() {
        let (polls, rings, others) = (Cell::new(0), Notify::new(), Notify::new());
        let waiting = stream::unfold((), async |()| {
            let mut ring = Box::pin(rings.notified());
            poll_fn(|cx| {
                polls.set(polls.get() + 1);
                ring.as_mut().poll(cx)
            })
            .await;
            Some(("ring", ()))
        });
        let mut aside = Aside::new(waiting);
        for _ in 0..10 {
            others.notify_one();
            let first = tokio::select! {
                biased;
                ring = aside.next() => ring.expect("no end"),
                () = others.notified() => "other",
            };
            assert_eq!(first, "other");
        }
        assert_eq!(polls.get(), 1);

        // Also when it has something again at once.
        rings.notify_one();
        assert_eq!(aside.next().await, Some("ring"));
        rings.notify_one();
        assert_eq!(aside.next().await, Some("ring"));
        assert_eq!(aside.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_task_that_takes_it_over_is_woken() {
        let (send, receive) = futures_channel::mpsc::channel::<u32>(1);
        let mut aside = Aside::new(receive);
        assert_eq!(aside.next().now_or_never(), None);
        let mut send = send;
        let (got, ()) = tokio::join!(aside.next(), async {
            tokio::task::yield_now().await;
            send.try_send(7).expect("room");
        });
        assert_eq!(got, Some(7));
        drop(send);
        assert_eq!(aside.next().await, None);
    }
}
