//! The way back: while a link to a later endpoint is healthy, those before it are asked now and then, and the first that
//! takes links is gone back to. How the agent leaves, the session knows.

use std::{sync::Arc, time::Duration};

use muster_proto::v1::{self, enrollment_service_client::EnrollmentServiceClient};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    config::{Config, Endpoint},
    dial::{causes, dial},
    endpoints::Endpoints,
    identity::Holder,
};

/// From the question to its answer, on an open connection.
const ANSWER: Duration = Duration::from_secs(5);

/// A part of the wait that comes on top at random, so that a fleet does not come back in one wave.
const JITTER: f64 = 0.2;

#[derive(Debug)]
pub(super) struct FailBack {
    pub identity: Holder,
    pub endpoints: Endpoints,
    pub config: watch::Receiver<Arc<Config>>,
    pub current: Endpoint,
}

impl FailBack {
    /// Returns an endpoint that comes before the current one and takes links. Begun when the link is.
    pub async fn found(self) -> Endpoint {
        loop {
            let after = self.config.borrow().server.fail_back;
            sleep(jittered(after, rand::random())).await;
            let config = self.config.borrow().clone();
            let all = self.endpoints.all(&config);
            for better in all.into_iter().take_while(|it| it.endpoint != self.current) {
                match self.ask(&better.endpoint, &config).await {
                    Ok(()) => return better.endpoint,
                    Err(why) => {
                        tracing::debug!(endpoint = %better.endpoint, why, "an endpoint that comes first is not there for the agent")
                    }
                }
            }
        }
    }

    /// Whether a controller of ours is there that takes links: one that drains answers as well.
    async fn ask(&self, endpoint: &Endpoint, config: &Config) -> Result<(), String> {
        // A renewal that is being proved has superseded the certificate that is shown here.
        let _opening = self.identity.opening().await;
        let tls = self.identity.current().tls().map_err(|error| causes(&error))?;
        let channel = dial(endpoint, &config.server.proxying, tls).await;
        let channel = channel.map_err(|error| format!("{error}: {}", error.cause()))?;
        let mut client = EnrollmentServiceClient::new(channel);
        match timeout(ANSWER, client.get_trust_bundle(v1::GetTrustBundleRequest {})).await {
            Ok(Ok(answer)) if answer.get_ref().draining => Err("it sends its agents away".to_owned()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

/// `random` in `0..1`.
fn jittered(after: Duration, random: f64) -> Duration {
    after + after.mul_f64(JITTER * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_healthy_for_the_whole_time_and_a_fleet_does_not_return_at_once() {
        let quarter = Duration::from_secs(900);
        assert_eq!(jittered(quarter, 0.0), quarter);
        assert_eq!(jittered(quarter, 1.0), Duration::from_secs(1080));
    }
}
