//! Asking a session whether its agent is still there. Whoever asks while a question is open waits for the same answer, and
//! an answer holds for a moment: hundreds of newcomers cost one question. Sends nothing itself, the driver does.

use std::time::Duration;

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

/// How long an answer holds.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Answered,
    Silent,
    /// The session has ended meanwhile.
    Ended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Asked(Instant),
    Answered(Instant),
    Ended,
}

#[derive(Debug, Default)]
pub(super) struct Probe {
    state: watch::Sender<State>,
    asked: Notify,
}

impl Probe {
    /// Asks, unless it is asked already or was answered a moment ago.
    pub async fn ask(&self, patience: Duration) -> Verdict {
        self.ask_at(patience, FRESH).await
    }

    /// As `ask`, and no earlier answer counts.
    pub async fn ask_anew(&self, patience: Duration) -> Verdict {
        self.ask_at(patience, Duration::ZERO).await
    }

    async fn ask_at(&self, patience: Duration, fresh: Duration) -> Verdict {
        let now = Instant::now();
        let mut states = self.state.subscribe();
        let mut since = now;
        let is_new = self.state.send_if_modified(|state| match *state {
            State::Asked(at) if now.duration_since(at) < patience => {
                since = at;
                false
            }
            State::Answered(at) if now.duration_since(at) < fresh => false,
            State::Ended => false,
            _ => {
                *state = State::Asked(now);
                true
            }
        });
        if is_new {
            self.asked.notify_one();
        }
        let answer = states.wait_for(|state| matches!(state, State::Answered(_) | State::Ended));
        match timeout_at(since + patience, answer).await {
            Ok(Ok(state)) if matches!(*state, State::Answered(_)) => Verdict::Answered,
            Ok(_) => Verdict::Ended,
            Err(_) => Verdict::Silent,
        }
    }

    /// Returns when a question is to be sent.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    pub fn answered(&self) {
        self.state.send_if_modified(|state| {
            let is_asked = matches!(state, State::Asked(_));
            if is_asked {
                *state = State::Answered(Instant::now());
            }
            is_asked
        });
    }

    pub fn ended(&self) {
        self.state.send_replace(State::Ended);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::join_all;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn hundreds_who_ask_at_once_cost_one_question() {
        let probe = Arc::new(Probe::default());
        let newcomers = join_all((0..299).map(|_| probe.ask(PATIENCE)));
        let questions = async {
            probe.asked().await;
            probe.answered();
            // Nobody asks a second time.
            tokio::time::timeout(Duration::from_millis(500), probe.asked())
                .await
                .is_err()
        };
        let (verdicts, once) = tokio::join!(newcomers, questions);
        assert!(once, "asked twice");
        assert_eq!(verdicts, vec![Verdict::Answered; 299]);
        // Neither does who comes a little later.
        assert_eq!(probe.ask(PATIENCE).await, Verdict::Answered);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_in_time_is_silent() {
        let probe = Probe::default();
        let started = Instant::now();
        assert_eq!(probe.ask(PATIENCE).await, Verdict::Silent);
        assert!(started.elapsed() >= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_session_ends_the_wait_at_once() {
        let probe = Probe::default();
        let started = Instant::now();
        let (verdict, ()) = tokio::join!(probe.ask(PATIENCE), async {
            probe.asked().await;
            probe.ended();
        });
        assert_eq!(verdict, Verdict::Ended);
        assert!(started.elapsed() < PATIENCE);
        assert_eq!(probe.ask(PATIENCE).await, Verdict::Ended, "and it stays ended");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_asked_for_is_none() {
        let probe = Probe::default();
        probe.answered();
        assert_eq!(probe.ask(PATIENCE).await, Verdict::Silent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_comes_again_is_not_judged_by_an_old_answer() {
        let probe = Probe::default();
        let (verdict, ()) = tokio::join!(probe.ask(PATIENCE), async {
            probe.asked().await;
            probe.answered();
        });
        assert_eq!(verdict, Verdict::Answered);
        assert_eq!(probe.ask_anew(PATIENCE).await, Verdict::Silent);
    }
}
