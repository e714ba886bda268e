//! The agent's end of the link: connects, stays connected, goes to the next controller when one fails, with growing and
//! jittered waits. The protocol is in `session`, one connection in `driver`, what waits to be sent in `queue`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_certs::{rustls::ClientConfig, tls};
use muster_proto::v1;
use tokio::{
    sync::{OwnedMutexGuard, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use self::{
    driver::{Ended, Reason},
    queue::Queue,
    route::Route,
    session::{CAPABILITIES, Closed, PROTOCOL_VERSION},
};
use crate::{
    backoff::Backoff,
    clock::{self, Now},
    config::{Config, Endpoint},
    dial::{causes, dial},
    endpoints::{Candidate, Endpoints},
    identity::Holder,
    policy::Policies,
    state_dir::StateDir,
    status::{Board, State},
};

mod copy;
mod driver;
mod fail_back;
pub mod queue;
mod route;
pub mod session;

/// What Hello tells an operator; the log has all of it.
const MAX_WARNINGS: usize = 20;

/// All that the link talks to.
#[derive(Debug)]
pub struct Link {
    pub identity: Holder,
    pub state: StateDir,
    pub endpoints: Endpoints,
    pub queue: Arc<Queue>,
    pub policies: Arc<Policies>,
    pub facts: watch::Receiver<Arc<v1::Facts>>,
    pub config: watch::Receiver<Arc<Config>>,
    pub board: Board,
    pub fingerprint: v1::Fingerprint,
    /// What an operator should know beside the warnings of the configuration.
    pub warnings: Vec<String>,
}

/// Why a link is over for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Stopped,
    /// The identity on disk is that of a new agent: begin anew with it.
    Forked,
}

impl Link {
    /// Until `stop`, then with a goodbye, or until this machine has become another agent. Fails only when no TLS can be set
    /// up at all.
    pub async fn run(mut self, stop: CancellationToken) -> Result<Left, tls::Error> {
        let mut backoff = Backoff::default();
        let mut route = Route::default();
        while !stop.is_cancelled() {
            if let Some((refusal, endpoint)) = self.identity.take_copy() {
                // Its certificate opens nothing as long as the other machine is there.
                self.lost(&copy::explain(&refusal), Some(&endpoint));
                let tls = self.identity.current().tls()?;
                if self.fork(&refusal, &endpoint, &tls, &stop).await {
                    return Ok(Left::Forked);
                }
                self.wait(copy::delay(rand::random()), &stop).await;
                continue;
            }
            let config = self.config.borrow_and_update().clone();
            let looked_up = tokio::select! {
                looked_up = self.endpoints.look_up(&config) => looked_up,
                () = stop.cancelled() => break,
            };
            let known = self.endpoints.all(&config);
            self.board.endpoints(&known);
            if let Err(error) = looked_up {
                let why = causes(&error);
                tracing::warn!(why, "DNS does not name the endpoints of controllers");
                if known.is_empty() {
                    self.lost(&why, None);
                    self.wait(backoff.next(rand::random()), &stop).await;
                    continue;
                }
            }
            let Some(candidate) = route.next(&known) else {
                self.lost("no endpoint of a controller is known", None);
                // DNS may name one later.
                let patience = config
                    .server
                    .srv
                    .as_ref()
                    .map_or(Duration::MAX, |_| backoff.next(rand::random()));
                self.wait(patience, &stop).await;
                continue;
            };
            let endpoint = &candidate.endpoint;
            self.board.enter(State::Connecting, SystemTime::now(), |connection| {
                connection.lead_to(endpoint, &config);
            });
            let opening = tokio::select! {
                opening = self.identity.opening() => opening,
                () = stop.cancelled() => break,
            };
            let identity = self.identity.current();
            let (tls, serial) = (identity.tls()?, identity.serial().to_owned());
            let ended = self.connect(&candidate, &tls, &serial, opening, &stop).await;
            if ended.reason.is_stop() {
                break;
            }
            match &ended.reason {
                Reason::Closed(Closed::Drained { to, .. }) => {
                    let to = if config.allow.endpoints { to.clone() } else { Vec::new() };
                    route.drained(endpoint, to);
                }
                Reason::Closed(Closed::Returning(to)) => route.go(to.clone()),
                _ if ended.was_active => route.held(),
                reason if reason.is_busy() => {}
                _ => route.failed(),
            }
            backoff.held(ended.active_for);
            let refusal = ended.reason.refusal();
            let delay = self.after(ended.reason, endpoint, known.len() > 1, &serial, &mut backoff);
            if let Some(refusal) = refusal
                && self.fork(&refusal, endpoint, &tls, &stop).await
            {
                return Ok(Left::Forked);
            }
            self.wait(delay, &stop).await;
        }
        self.board.enter(State::Stopped, SystemTime::now(), |_| {});
        Ok(Left::Stopped)
    }

    async fn connect(
        &mut self,
        candidate: &Candidate,
        tls: &Arc<ClientConfig>,
        serial: &str,
        opening: OwnedMutexGuard<()>,
        stop: &CancellationToken,
    ) -> Ended {
        let config = self.config.borrow().clone();
        let channel = tokio::select! {
            channel = dial(&candidate.endpoint, &config.server.proxying, tls.clone()) => channel,
            () = stop.cancelled() => return Ended::early(Reason::Closed(Closed::Stopped)),
        };
        match channel {
            Ok(channel) => driver::drive(self, candidate, channel, serial, opening, stop).await,
            Err(error) => Ended::early(Reason::Dial(error)),
        }
    }

    /// Tells why the connection is gone, mends what can be mended here, and says how long to wait.
    fn after(
        &mut self,
        reason: Reason,
        endpoint: &Endpoint,
        has_others: bool,
        serial: &str,
        backoff: &mut Backoff,
    ) -> Duration {
        let why = reason.to_string();
        match reason {
            Reason::Reloaded => {
                tracing::info!(endpoint = %endpoint, "connecting again with the new configuration");
                return Duration::ZERO;
            }
            Reason::Renewed => {
                tracing::info!(endpoint = %endpoint, "connecting again with the new certificate");
                return Duration::ZERO;
            }
            Reason::Closed(Closed::Drained { .. } | Closed::Returning(_)) => {
                tracing::info!(endpoint = %endpoint, reason = why, "leaving for another endpoint");
                return Duration::ZERO;
            }
            _ => {}
        }
        if reason.is_of_certificate() {
            self.identity.refused(serial);
        }
        if let Reason::Closed(Closed::ForeignSpool(_)) = reason {
            let id = self.next_spool(0);
            self.queue.renumber(&id, clock::unix_micros(SystemTime::now()));
        }
        if reason.refusal().is_some_and(|refusal| copy::is_refused(&refusal)) {
            self.identity.set_refused(true);
        }
        let delay = delay_after(&reason, has_others, backoff, rand::random());
        if reason.is_planned() {
            tracing::info!(endpoint = %endpoint, reason = why, delay_ms = millis(delay), "the link has ended");
        } else {
            tracing::warn!(endpoint = %endpoint, reason = why, delay_ms = millis(delay), "the link is down");
        }
        let why = match reason.advice() {
            Some(advice) => {
                tracing::error!("{advice}");
                format!("{why}; {advice}")
            }
            None => why,
        };
        self.lost(&why, Some(endpoint));
        delay
    }

    /// The id of one whose records come after all that there are, and after those of this generation.
    fn next_spool(&self, above: u64) -> String {
        let used = queue::generation(self.queue.lock().spool_id()).unwrap_or(0);
        self.state.next_spool_id(above.max(used), SystemTime::now())
    }

    fn lost(&self, why: &str, endpoint: Option<&Endpoint>) {
        self.board.enter(State::Connecting, SystemTime::now(), |connection| {
            if let Some(endpoint) = endpoint {
                connection.lead_to(endpoint, &self.config.borrow());
            }
            connection.last_error = match endpoint {
                Some(endpoint) => format!("{endpoint}: {why}"),
                None => why.to_owned(),
            };
        });
    }

    /// A new configuration may hold what was missing, and a new certificate may open what was closed: they end the wait.
    async fn wait(&mut self, delay: Duration, stop: &CancellationToken) {
        let mut identity = self.identity.follow();
        tokio::select! {
            () = sleep(delay) => {}
            () = stop.cancelled() => {}
            Ok(()) = self.config.changed() => {}
            Ok(()) = identity.changed() => {}
        }
    }

    fn hello(&self, now: Now) -> v1::Hello {
        let config = self.config.borrow();
        let identity = self.identity.current();
        v1::Hello {
            agent_id: identity.id().to_string(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: PROTOCOL_VERSION,
            capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
            fingerprint: Some(self.identity.fingerprint(&self.fingerprint)),
            spools: self.queue.lock().spools(),
            policy_set_digest: self.policies.digest(),
            facts_digest: self.facts.borrow().digest.clone(),
            policy_status_digest: self.policies.status().borrow().digest.clone(),
            labels: config.agent.labels.clone(),
            warnings: config
                .warnings
                .iter()
                .map(ToString::to_string)
                .chain(self.warnings.iter().cloned())
                .take(MAX_WARNINGS)
                .collect(),
            time_unix_micros: now.unix_micros,
            trust_bundle_version: identity.trust().version(),
        }
    }
}

/// How long to stay away after a link that ended like this. What one controller says of when to come back holds for that one,
/// unless it is the right one and has too much to do.
fn delay_after(reason: &Reason, has_others: bool, backoff: &mut Backoff, random: f64) -> Duration {
    match reason.refusal() {
        Some(refusal) if copy::is_refused(&refusal) => copy::delay(rand::random()),
        Some(refusal) if reason.is_busy() || !has_others => backoff.after(&refusal, random),
        _ => backoff.next(random),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use muster_proto::{error::Problem, v1::ErrorReason};
    use tonic::Code;

    use super::*;

    #[test]
    fn a_busy_controller_is_waited_for_and_one_that_leaves_is_left_for_another() {
        let wait = Duration::from_secs(17);
        let told = |code, reason| {
            let problem = Problem::new(code, reason, "not now").with_retry_after(wait);
            Reason::Status(Box::new(problem.into()))
        };
        let busy = told(Code::ResourceExhausted, ErrorReason::RateLimited);
        let leaving = told(Code::Unavailable, ErrorReason::ControllerDraining);
        let mut backoff = Backoff::default();
        for has_others in [true, false] {
            assert_eq!(delay_after(&busy, has_others, &mut backoff, 0.0), wait);
        }
        assert_eq!(delay_after(&leaving, true, &mut backoff, 1.0), Duration::from_secs(1));
        assert_eq!(
            delay_after(&leaving, false, &mut backoff, 0.0),
            wait,
            "there is nobody else"
        );
        assert_eq!(
            delay_after(&Reason::Eof, true, &mut backoff, 1.0),
            Duration::from_secs(4)
        );
        assert!(busy.is_busy() && !leaving.is_busy());
    }
}
