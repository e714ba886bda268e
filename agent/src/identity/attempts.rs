//! Enrollment until it works: the one loop behind `enroll` and `run`. What an attempt does, `enroll` knows; who hears of those
//! that failed and how long all of it may take is the caller's business.

use std::{sync::Arc, time::Duration};

use muster_proto::v1;
use tokio::{sync::watch, time::sleep};

use super::{Enrollment, Error, Identity, enroll};
use crate::{backoff::Backoff, config::Config, state_dir::StateDir};

/// After a refusal that only a person can mend.
const REFUSED: Duration = Duration::from_secs(60);

/// What ends the attempts before one of them has worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Whatever only a person can mend.
    Refused,
    /// Only that there is nothing to begin with. All else may be mended while the agent runs.
    Enrolled,
}

/// `failed` is told of each attempt after which there will be another, and when. A change of the configuration ends the wait.
pub async fn enroll_until(
    until: Until,
    config: &mut watch::Receiver<Arc<Config>>,
    state: &StateDir,
    fingerprint: &v1::Fingerprint,
    failed: impl FnMut(&Error, Duration),
) -> Result<Identity, Error> {
    let attempt = |config: Arc<Config>| async move {
        enroll(&Enrollment {
            config: &config,
            state,
            fingerprint: fingerprint.clone(),
        })
        .await
    };
    repeat(until, config, attempt, failed).await
}

async fn repeat<T, A: Future<Output = Result<T, Error>>>(
    until: Until,
    config: &mut watch::Receiver<Arc<Config>>,
    attempt: impl Fn(Arc<Config>) -> A,
    mut failed: impl FnMut(&Error, Duration),
) -> Result<T, Error> {
    let mut backoff = Backoff::default();
    let mut is_first = true;
    loop {
        let settings = config.borrow_and_update().clone();
        let error = match attempt(settings).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let is_first = std::mem::take(&mut is_first);
        let delay = match until {
            _ if error.is_transient() => match error.refusal() {
                Some(problem) => backoff.after(problem, rand::random()),
                None => backoff.next(rand::random()),
            },
            Until::Refused => return Err(error),
            Until::Enrolled if is_first && error.is_incomplete() => return Err(error),
            Until::Enrolled => REFUSED,
        };
        failed(&error, delay);
        tokio::select! {
            () = sleep(delay) => {}
            Ok(()) = config.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque};

    use muster_proto::{error::Problem, v1::ErrorReason};
    use tokio::time::Instant;
    use tonic::Code;

    use super::*;

    fn refused(code: Code) -> Error {
        Error::Refused {
            endpoint: "a:1".parse().unwrap(),
            id: muster_proto::ids::AgentId::random(),
            id_file: "/agent-id".into(),
            problem: Box::new(Problem::new(code, ErrorReason::Unspecified, "no")),
        }
    }

    /// Runs the loop over attempts that end like this, and works in the end. The waits it told of.
    async fn waits(until: Until, attempts: Vec<Error>) -> Result<Vec<Duration>, Error> {
        let (_sender, mut config) = watch::channel(Arc::new(Config::default()));
        let attempts = RefCell::new(VecDeque::from(attempts));
        let mut waits = Vec::new();
        let attempt = |_| async { attempts.borrow_mut().pop_front().map_or(Ok(()), Err) };
        repeat(until, &mut config, attempt, |_, delay| waits.push(delay)).await?;
        Ok(waits)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_after_longer_and_longer_waits() {
        let start = Instant::now();
        let many = (0..20).map(|_| refused(Code::Unavailable)).collect();
        let waits = waits(Until::Refused, many).await.unwrap();
        assert_eq!(waits.len(), 20);
        for (number, wait) in waits.iter().enumerate() {
            assert!(*wait <= Duration::from_secs(1 << number.min(6)).min(Duration::from_secs(60)));
        }
        assert!(start.elapsed() >= waits.iter().sum::<Duration>());
    }

    #[tokio::test(start_paused = true)]
    async fn the_controller_says_when_to_come_back() {
        let mut error = refused(Code::ResourceExhausted);
        if let Error::Refused { problem, .. } = &mut error {
            problem.retry_after = Some(Duration::from_secs(30));
        }
        let waits = waits(Until::Refused, vec![error]).await.unwrap();
        let told = Duration::from_secs(30);
        assert!((told..=told + told / 10).contains(&waits[0]), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_a_person_can_mend_ends_it_or_is_waited_for() {
        let wrong_token = || vec![refused(Code::Unavailable), refused(Code::Unauthenticated)];
        let error = waits(Until::Refused, wrong_token()).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        let waits = waits(Until::Enrolled, wrong_token()).await.unwrap();
        assert_eq!(waits[1], REFUSED);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_to_begin_with_ends_it_and_later_does_not() {
        let no_token = || Error::NoToken { path: None };
        for until in [Until::Refused, Until::Enrolled] {
            let error = waits(until, vec![no_token()]).await.unwrap_err();
            assert!(error.is_incomplete(), "{until:?}: {error}");
        }
        let later = vec![refused(Code::Unavailable), no_token()];
        assert_eq!(waits(Until::Enrolled, later).await.unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_configuration_ends_the_wait() {
        let (sender, mut config) = watch::channel(Arc::new(Config::default()));
        let attempts = RefCell::new(VecDeque::from([refused(Code::Unauthenticated)]));
        let attempt = |_| async { attempts.borrow_mut().pop_front().map_or(Ok(()), Err) };
        let start = Instant::now();
        let failed = |_: &Error, _| {
            sender.send_replace(Arc::new(Config::default()));
        };
        repeat(Until::Enrolled, &mut config, attempt, failed).await.unwrap();
        assert!(start.elapsed() < REFUSED);
    }
}
