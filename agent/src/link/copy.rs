//! What a link does when the controller says that this machine is a copy of another one: it asks seldom, or the machine
//! becomes an agent of its own. How that is done, `identity::fork` knows.

use std::{sync::Arc, time::Duration};

use muster_certs::rustls::ClientConfig;
use muster_proto::{
    error::{Problem, reason_name},
    v1::ErrorReason,
};
use tokio_util::sync::CancellationToken;

use super::Link;
use crate::{
    config::Endpoint,
    dial::causes,
    identity::fork::{self, Fork},
};

/// A refused copy comes back after a time between these: the other machine may be gone by then, and hundreds of copies
/// shall not be felt.
const LEAST: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(300);

/// What only a person can mend.
pub(super) const ADVICE: &str = "this machine is a copy of another one that is running; to make it an agent of its own: \
                                 muster-agent seal && systemctl restart muster-agent, with a new token; or at the \
                                 controller: musterctl agent fork";

pub(super) fn explain(refusal: &Problem) -> String {
    format!("{}: {}; {ADVICE}", reason_name(refusal.reason), refusal.message)
}

pub(super) fn is_refused(problem: &Problem) -> bool {
    problem.reason == ErrorReason::CloneDetected
}

/// `jitter` is random.
pub(super) fn delay(jitter: u64) -> Duration {
    let span = u64::try_from((MOST - LEAST).as_millis()).unwrap_or(u64::MAX);
    LEAST + Duration::from_millis(jitter % (span + 1))
}

impl Link {
    /// True when this machine is another agent now.
    pub(super) async fn fork(
        &self,
        refusal: &Problem,
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
        stop: &CancellationToken,
    ) -> bool {
        if !fork::is_offered(refusal) {
            return false;
        }
        let config = self.config.borrow().clone();
        let identity = self.identity.current();
        let fork = Fork {
            config: &config,
            state: &self.state,
            identity: &identity,
            tls,
            fingerprint: &self.fingerprint,
        };
        let forked = tokio::select! {
            forked = fork::fork(&fork, endpoint) => forked,
            () = stop.cancelled() => return false,
        };
        match forked {
            Ok(id) => {
                tracing::info!(agent.id = %id, parent.id = %identity.id(), "this copy is an agent of its own now");
                true
            }
            Err(error) => {
                let why = causes(&error);
                tracing::warn!(endpoint = %endpoint, why, "the copy did not become an agent of its own");
                self.lost(&format!("failed to become an agent of its own: {why}"), Some(endpoint));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_come_back_between_one_and_five_minutes_and_not_together() {
        let delays: Vec<Duration> = (0..300u64)
            .map(|n| delay(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        assert!(delays.iter().all(|delay| (LEAST..=MOST).contains(delay)));
        let early = delays.iter().filter(|delay| **delay < Duration::from_secs(120)).count();
        assert!(
            (30..150).contains(&early),
            "{early} of 300 within the first of four minutes"
        );
    }
}
