//! Where controllers may be, in the order in which they are tried: those of `agent.yaml`, those that the controller has told
//! of, those that DNS names. What is tried when, and what comes of it, is the business of those who connect.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use self::srv::Record;
use crate::{
    config::{Config, Endpoint, srv::SrvName},
    dial::causes,
    state_dir::StateDir,
};

mod kept;
pub mod srv;

/// Of each source.
pub const MAX: usize = 32;

/// What DNS says is not asked for again before.
const LOOK_UP: Duration = Duration::from_secs(60);

/// One place where a controller may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub endpoint: Endpoint,
    pub source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The machine's own configuration.
    File,
    /// The controller has told of it in advance.
    Controller,
    /// An SRV record names it.
    Dns,
    /// The controller has named it when it sent the agent away.
    Drain,
}

/// What is known of endpoints beside the configuration. Clones share it.
#[derive(Debug, Clone)]
pub struct Endpoints(Arc<Known>);

#[derive(Debug)]
struct Known {
    path: PathBuf,
    told: Mutex<Vec<Endpoint>>,
    named: Mutex<Option<Named>>,
}

/// What DNS has said.
#[derive(Debug)]
struct Named {
    name: SrvName,
    at: Instant,
    records: Vec<Record>,
    endpoints: Vec<Endpoint>,
}

impl Endpoints {
    /// With what was kept by an earlier start.
    pub fn load(state: &StateDir) -> Endpoints {
        let path = state.endpoints();
        let told = Mutex::new(kept::load(&path));
        Endpoints(Arc::new(Known {
            path,
            told,
            named: Mutex::default(),
        }))
    }

    /// All there are now, each once: under the source that comes first.
    pub fn all(&self, config: &Config) -> Vec<Candidate> {
        let mut all = Vec::new();
        add(&mut all, Source::File, &config.server.endpoints);
        if config.allow.endpoints {
            add(&mut all, Source::Controller, &self.lock());
        }
        if let Some(named) = &*self.named()
            && Some(&named.name) == config.server.srv.as_ref()
        {
            add(&mut all, Source::Dns, &named.endpoints);
        }
        all
    }

    /// Asks DNS, where an SRV record is configured and it was not asked a short time ago. What it said before counts on when it
    /// says nothing now.
    pub async fn look_up(&self, config: &Config) -> Result<(), srv::Error> {
        let Some(name) = &config.server.srv else { return Ok(()) };
        let is_fresh = |named: &Named| named.name == *name && named.at.elapsed() < LOOK_UP;
        if self.named().as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        let records = srv::look_up(name).await?;
        self.found(name, records, rand::random);
        Ok(())
    }

    fn found(&self, name: &SrvName, mut records: Vec<Record>, random: impl FnMut() -> f64) {
        records.sort();
        let mut named = self.named();
        // The lot among equals is drawn once, so that an agent does not prefer another one from one time to the next.
        let drawn = named.take().filter(|it| it.name == *name && it.records == records);
        let endpoints = drawn.map_or_else(|| srv::order(records.clone(), random), |it| it.endpoints);
        *named = Some(Named {
            name: name.clone(),
            at: Instant::now(),
            records,
            endpoints,
        });
    }

    /// The controller says where controllers are. It is kept for the next start; nothing said changes nothing.
    pub fn told(&self, texts: &[String]) {
        let endpoints = parse(texts);
        let mut told = self.lock();
        if endpoints.is_empty() || *told == endpoints {
            return;
        }
        tracing::info!(
            endpoints = list(&endpoints),
            "the controller tells where controllers are"
        );
        if let Err(error) = kept::save(&self.0.path, &endpoints) {
            let error = causes(&error);
            tracing::warn!(
                error,
                "the endpoints that the controller told of are known until the agent stops"
            );
        }
        *told = endpoints;
    }

    fn named(&self) -> std::sync::MutexGuard<'_, Option<Named>> {
        self.0.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Endpoint>> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Source::File => "configured",
            Source::Controller => "told by the controller",
            Source::Dns => "named by DNS",
            Source::Drain => "sent there by the controller",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What another machine has sent as endpoints: those that are, up to the limit.
pub fn parse(texts: &[String]) -> Vec<Endpoint> {
    texts.iter().take(MAX).filter_map(|text| text.parse().ok()).collect()
}

fn add(all: &mut Vec<Candidate>, source: Source, endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        if all.iter().all(|it| it.endpoint != *endpoint) {
            all.push(Candidate {
                endpoint: endpoint.clone(),
                source,
            });
        }
    }
}

fn list(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(endpoints: &[&str]) -> Vec<String> {
        endpoints.iter().map(ToString::to_string).collect()
    }

    fn shown(endpoints: &Endpoints, config: &Config) -> Vec<(String, Source)> {
        let all = endpoints.all(config);
        all.into_iter().map(|it| (it.endpoint.to_string(), it.source)).collect()
    }

    fn config(text: &str) -> Config {
        Config::parse("agent.yaml", text).unwrap()
    }

    #[test]
    fn the_file_comes_first_and_what_the_controller_told_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let endpoints = Endpoints::load(&state);
        let config = config("server: { endpoints: [\"a:1\", \"b:1\"] }");
        endpoints.told(&texts(&["b:1", "c:1", "no endpoint", "[::1]:1"]));
        let expected = [
            ("a:1".to_owned(), Source::File),
            ("b:1".to_owned(), Source::File),
            ("c:1".to_owned(), Source::Controller),
            ("[::1]:1".to_owned(), Source::Controller),
        ];
        assert_eq!(shown(&endpoints, &config), expected);
        assert_eq!(shown(&Endpoints::load(&state), &config), expected);
        // Nothing is said of them: nothing changes.
        endpoints.told(&[]);
        endpoints.told(&texts(&["no endpoint"]));
        assert_eq!(shown(&Endpoints::load(&state), &config), expected);
        endpoints.told(&texts(&["d:1"]));
        assert_eq!(
            shown(&Endpoints::load(&state), &config)[2],
            ("d:1".to_owned(), Source::Controller)
        );
    }

    #[test]
    fn a_machine_that_does_not_allow_it_goes_where_its_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let endpoints = Endpoints::load(&StateDir::create(&dir.path().join("state")).unwrap());
        endpoints.told(&texts(&["c:1"]));
        let config = config("server: { endpoints: [\"a:1\"] }\nallow: { endpoints: false }");
        assert_eq!(shown(&endpoints, &config), [("a:1".to_owned(), Source::File)]);
    }

    #[test]
    fn more_than_anybody_needs_is_cut_off() {
        let many: Vec<String> = (1..100).map(|n| format!("a:{n}")).collect();
        assert_eq!(parse(&many).len(), MAX);
    }

    #[test]
    fn what_dns_names_comes_last_and_in_one_order_as_long_as_it_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let endpoints = Endpoints::load(&StateDir::create(&dir.path().join("state")).unwrap());
        let config = config("server: { endpoints: [\"a:1\"], srv: _muster._tcp.lan }");
        let name = config.server.srv.clone().unwrap();
        let records = |texts: &[&str]| srv::tests::equals(texts);
        endpoints.told(&texts(&["c:1"]));
        endpoints.found(&name, records(&["x:1", "y:1", "a:1"]), || 0.99);
        let order = shown(&endpoints, &config);
        let sources: Vec<Source> = order.iter().map(|(_, source)| *source).collect();
        assert_eq!(sources, [Source::File, Source::Controller, Source::Dns, Source::Dns]);
        for lot in [0.0, 0.5, 0.99] {
            endpoints.found(&name, records(&["y:1", "a:1", "x:1"]), || lot);
            assert_eq!(shown(&endpoints, &config), order);
        }
        endpoints.found(&name, records(&["z:1"]), || 0.0);
        assert_eq!(shown(&endpoints, &config)[2], ("z:1".to_owned(), Source::Dns));
        let without = super::tests::config("server: { endpoints: [\"a:1\"] }");
        assert_eq!(
            shown(&endpoints, &without).len(),
            2,
            "what is not configured counts for nothing"
        );
    }
}
