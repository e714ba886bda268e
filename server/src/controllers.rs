//! The controller as operators see it: what it is, and that it shall be left. How each link is told is in `link::draining`.
//! Knows no transport.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use muster_proto::{error::FieldViolation, v1::EventSeverity};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    agents::{Agents, Told},
    clock::{self, Micros},
    config::check_endpoint,
    events::{self, Event},
    link::{
        Links,
        draining::{Draining, Plan},
    },
    pki::Pki,
    store::Db,
};

pub const DEFAULT_WITHIN: Duration = Duration::from_secs(60);
const MAX_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_ENDPOINTS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the request is not valid")]
    Invalid(Vec<FieldViolation>),
    #[error("the controller is stopping")]
    Stopping,
}

/// What stays the same as long as it runs.
#[derive(Clone, Debug)]
pub struct About {
    pub name: String,
    /// When the process started, and since when it holds the lease.
    pub started_at: Micros,
    pub active_since: Micros,
    /// The name of each listener, and where it listens.
    pub listeners: Vec<(&'static str, SocketAddr)>,
    pub database: Database,
    /// Of the database: how many times it was restored.
    pub epoch: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

#[derive(Debug)]
pub struct Controller {
    pub about: About,
    db: Db,
    links: Arc<Links>,
}

/// How an operator wants the links to go.
#[derive(Clone, Debug)]
pub struct Drain {
    pub within: Duration,
    /// Where to; empty: wherever else agents know.
    pub endpoints: Vec<String>,
}

impl Controller {
    pub fn new(about: About, db: Db, links: Arc<Links>) -> Self {
        Self { about, db, links }
    }

    /// Tells that it is active.
    pub async fn announce(&self, now: Micros) {
        let name = &self.about.name;
        let text = format!("controller {name} is the active one of its database");
        let event = Event::new("CONTROLLER_ACTIVE", None, text, now).with("controller", name);
        events::record(&self.db, vec![event]).await;
    }

    /// Tells when agents have a newer trust bundle than it has, until `shutdown`: it may have been standby while the CA was
    /// rotated on another host. What agents tell counts as well as what is on file, which a controller that was killed left
    /// behind them. Once it has newer keys, it may tell again.
    pub async fn watch_keys(&self, pki: Arc<Pki>, agents: Arc<Agents>, shutdown: CancellationToken) {
        let (mut told, mut keys) = (agents.newest_bundle(), pki.watch());
        let mut has_told = false;
        loop {
            let held = pki.trust_bundle_version();
            let newer = told.borrow_and_update().filter(|told| told.version > held);
            if let Some(newer) = newer
                && !has_told
            {
                self.tell_that_keys_are_old(held, newer).await;
            }
            has_told = newer.is_some();
            tokio::select! {
                () = shutdown.cancelled() => return,
                Ok(()) = told.changed() => {}
                Ok(()) = keys.changed() => {}
            }
        }
    }

    async fn tell_that_keys_are_old(&self, held: i64, newer: Told) {
        error!(
            held,
            told = newer.version,
            agent.id = %newer.by,
            "the keys in the data directory are older than those that an agent says it trusts; bring `pki` from the host of the last controller"
        );
        let name = &self.about.name;
        let text = format!(
            "the keys of controller {name} are older than those that agent {} says it trusts; bring the folder `pki` of the \
             controller that was active before",
            newer.by
        );
        let event = Event::new("CONTROLLER_KEYS_OLD", None, text, clock::now())
            .severity(EventSeverity::Error)
            .with("controller", name)
            .with("agent", newer.by);
        events::record(&self.db, vec![event]).await;
    }

    pub fn draining(&self) -> &Draining {
        self.links.draining()
    }

    /// Sends the links away. Once more is another time, and other endpoints, for those that are left.
    pub async fn drain(&self, drain: Drain, by: &str, now: Micros) -> Result<Arc<Plan>, Error> {
        let violations = drain.violations();
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let plan = self.draining().begin(drain.within, drain.endpoints, by, now);
        if plan.stops {
            return Err(Error::Stopping);
        }
        let links = self.links.count();
        info!(
            links,
            user = by,
            within_s = drain.within.as_secs(),
            "draining: links are sent away, and no new ones are taken"
        );
        let whereto = match plan.endpoints.as_slice() {
            [] => String::new(),
            endpoints => format!(" to {}", endpoints.join(", ")),
        };
        let text = format!(
            "controller {} sends its {links} links away{whereto} until {}, and takes no new ones: {by} wants it so",
            self.about.name,
            clock::to_text(plan.ends_at)
        );
        let event = Event::new("CONTROLLER_DRAINING", None, text, now)
            .severity(EventSeverity::Warning)
            .with("by", by)
            .with("links", links);
        events::record(&self.db, vec![event]).await;
        Ok(plan)
    }

    /// Takes links again. Once more is no error.
    pub async fn cancel_drain(&self, by: &str, now: Micros) {
        if !self.draining().cancel() {
            return;
        }
        info!(user = by, "no longer draining: links are taken again");
        let text = format!("controller {} takes links again: {by} wants it so", self.about.name);
        let event = Event::new("CONTROLLER_DRAIN_CANCELLED", None, text, now).with("by", by);
        events::record(&self.db, vec![event]).await;
    }
}

impl Drain {
    fn violations(&self) -> Vec<FieldViolation> {
        let mut violations = Vec::new();
        if self.within > MAX_WITHIN {
            violations.push(FieldViolation::new("within", "must be at most 24 hours"));
        }
        if self.endpoints.len() > MAX_ENDPOINTS {
            let text = format!("has more than {MAX_ENDPOINTS}");
            violations.push(FieldViolation::new("endpoints", text));
        }
        for (index, endpoint) in self.endpoints.iter().enumerate().take(MAX_ENDPOINTS) {
            if let Err(text) = check_endpoint(endpoint) {
                violations.push(FieldViolation::new(format!("endpoints[{index}]"), text));
            }
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_without_an_end_or_to_nowhere_is_refused() {
        let drain = |within, endpoints: &[&str]| Drain {
            within: Duration::from_secs(within),
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
        };
        assert!(drain(0, &[]).violations().is_empty());
        assert!(
            drain(86_400, &["b.example.com:8443", "[::1]:8443"])
                .violations()
                .is_empty()
        );
        assert_eq!(drain(86_401, &[]).violations()[0].field, "within");
        assert_eq!(drain(1, &["b:1", "nowhere"]).violations()[0].field, "endpoints[1]");
        assert_eq!(drain(1, &["b:1"; 17]).violations()[0].field, "endpoints");
    }
}
