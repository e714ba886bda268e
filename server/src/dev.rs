//! `muster-server dev`: everything on one machine in one process, for a first look. The controller and the agent are the
//! real ones, and the agent enrolls over TLS with a token like any other. Nothing here is used in production.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_certs::{file, identity::TrustDomain};
use muster_proto::{
    duration, manifest,
    v1::{self, AgentStatus, TokenTemplateSpec, policy::Spec},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

use crate::{
    access::scope::Scopes,
    admin,
    app::{self, Controller},
    cli, clock,
    config::Config,
    idempotency::Once,
    net::reachable,
    pki::{self, Pki},
    policies, tokens,
};

const NAME: &str = "dev";
const TRUST_DOMAIN: &str = "dev.muster";
/// How long the agent may take to enroll and connect.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The example policies, as they are in the packages.
const POLICIES: [(&str, &str); 9] = [
    (
        "agent-process.yaml",
        include_str!("../../deploy/policies/agent-process.yaml"),
    ),
    (
        "controller-agents.yaml",
        include_str!("../../deploy/policies/controller-agents.yaml"),
    ),
    (
        "controller-health.yaml",
        include_str!("../../deploy/policies/controller-health.yaml"),
    ),
    ("disk-root.yaml", include_str!("../../deploy/policies/disk-root.yaml")),
    ("disk-tmp.yaml", include_str!("../../deploy/policies/disk-tmp.yaml")),
    (
        "inodes-root.yaml",
        include_str!("../../deploy/policies/inodes-root.yaml"),
    ),
    ("load.yaml", include_str!("../../deploy/policies/load.yaml")),
    ("memory.yaml", include_str!("../../deploy/policies/memory.yaml")),
    ("processes.yaml", include_str!("../../deploy/policies/processes.yaml")),
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("failed to make the folder {}", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: file::Error,
    },
    #[error("failed to write a file of the controller")]
    File(#[from] file::Error),
    #[error("failed to remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to make or load the keys")]
    Pki(#[from] pki::Error),
    #[error("failed to start the controller")]
    Controller(#[from] app::Error),
    #[error("failed to make the admin")]
    Admin(#[from] admin::Error),
    #[error("failed to make the agent's token")]
    Token(#[from] tokens::Error),
    #[error("failed to apply the example policies")]
    Policies(#[from] policies::Error),
    #[error("the example policy {0} is not valid: {1}")]
    Example(&'static str, String),
    #[error("the agent's configuration is not valid")]
    AgentConfig(#[from] muster_agent::config::Error),
    #[error("the agent has stopped")]
    Agent(#[from] muster_agent::app::Error),
    #[error("the agent did not connect within {} s; the log above tells why", READY_WITHIN.as_secs())]
    NotReady,
}

pub async fn run(options: cli::Dev, shutdown: CancellationToken) -> Result<(), Error> {
    options.check().map_err(Error::Usage)?;
    let place = Place::of(options.data_dir.clone())?;
    let result = run_in(&place, &options, shutdown).await;
    place.leave()?;
    result
}

async fn run_in(place: &Place, options: &cli::Dev, shutdown: CancellationToken) -> Result<(), Error> {
    let dir = place.dir.as_path();
    // What an earlier run wrote must not be taken for this one's.
    remove(&dir.join("endpoints.json"))?;
    let mut config = Config::new(NAME, trust_domain()?, dir.to_owned());
    config.agent_listen = options.agent_listen;
    config.api_listen = options.api_listen;
    // Often in memory, and for a first look.
    config.disk.ballast = 0;
    if !config.pki_dir().exists() {
        Pki::create(&config.pki_dir(), &config.trust_domain, SystemTime::now())?;
    }
    let user_ttl = config.certificates.user;
    let Some(controller) = app::start(config, &shutdown).await? else {
        return Ok(());
    };
    let (agents_addr, api_addr) = (controller.agents_addr, controller.api_addr);

    let api = &controller.api;
    let context = admin::create(&api.db, &api.pki, "admin", user_ttl, SystemTime::now()).await?;
    context.write(&dir.join("admin.yaml"), NAME, reachable(api_addr))?;
    api.policies
        .apply(
            examples(reachable(agents_addr), reachable(api_addr))?,
            &Scopes::all(),
            crate::users::HOST,
            clock::now(),
        )
        .await?;
    let agent_config = agent_config(dir, &controller).await?;

    let agent_stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let agent = tasks.spawn(muster_agent::app::run(agent_config, agent_stop.clone()));
    tasks.close();
    let api = controller.api.clone();
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ready = ready(&api) => match ready {
            Ok(()) => {
                announce(place, agents_addr, api_addr)?;
                wait_for_end(agent, &shutdown).await
            }
            Err(error) => Err(error),
        },
    };
    // The agent first, so that its goodbye is heard.
    agent_stop.cancel();
    tasks.wait().await;
    shutdown.cancel();
    controller.run(shutdown).await?;
    outcome
}

/// Until `shutdown`; an agent that ends by itself ends all.
async fn wait_for_end(
    agent: tokio::task::JoinHandle<Result<(), muster_agent::app::Error>>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = agent => match ended {
            Ok(result) => Ok(result?),
            Err(panic) => {
                error!(error = %panic, "the agent has broken down");
                Err(Error::NotReady)
            }
        },
    }
}

/// When the agent of this machine is online.
async fn ready(api: &Arc<crate::api::Api>) -> Result<(), Error> {
    let online = async {
        let mut changes = api.changes.follow();
        loop {
            let mut is_online = false;
            api.agents
                .each(|entry| is_online |= entry.status == AgentStatus::Online && entry.connection.is_some());
            if is_online {
                return Ok(());
            }
            changes.next().await.map_err(|_| Error::NotReady)?;
        }
    };
    tokio::time::timeout(READY_WITHIN, online)
        .await
        .map_err(|_| Error::NotReady)?
}

async fn agent_config(dir: &Path, controller: &Controller) -> Result<muster_agent::config::Config, Error> {
    let agent_dir = dir.join("agent");
    create_private(&agent_dir)?;
    let token_file = agent_dir.join("join-token");
    if !agent_dir.join("state").join("identity.pem").exists() {
        let new = tokens::NewToken {
            spec: TokenTemplateSpec {
                ttl: Some(duration::to_proto(Duration::from_secs(600))),
                labels: [
                    ("env".to_owned(), NAME.to_owned()),
                    ("role".to_owned(), "controller".to_owned()),
                ]
                .into(),
                description: "the agent of muster-server dev".into(),
                ..TokenTemplateSpec::default()
            },
            ..tokens::NewToken::new("dev")
        };
        let api = &controller.api;
        let once = Once::plain(|_| ());
        let ca = api.pki.active_id();
        let (_, token) = tokens::create(&api.db, &api.changes, new, &ca, once, clock::now()).await?;
        file::write_secret(&token_file, token.expose().as_bytes())?;
    }
    let pins: Vec<String> = controller.api.pins.iter().map(ToString::to_string).collect();
    // JSON is YAML: the agent reads its configuration as it would from a file.
    let config = serde_json::json!({
        "server": {
            "endpoints": [reachable(controller.agents_addr).to_string()],
            "ca_pin": pins,
            "token_file": token_file,
        },
        "agent": { "id_file": agent_dir.join("agent-id"), "state_dir": agent_dir.join("state") },
    });
    Ok(muster_agent::config::Config::parse(
        "the agent of muster-server dev",
        &config.to_string(),
    )?)
}

/// The example policies, with the addresses that were chosen.
fn examples(agents: SocketAddr, api: SocketAddr) -> Result<Vec<v1::Policy>, Error> {
    let mut examples = Vec::new();
    for (name, text) in POLICIES {
        let invalid = |errors: Vec<manifest::Error>| {
            Error::Example(
                name,
                errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            )
        };
        examples.extend(
            manifest::parse(name, text)
                .map_err(invalid)?
                .into_iter()
                .filter_map(|manifest| manifest::to_policy(manifest.document)),
        );
    }
    for policy in &mut examples {
        let address = match policy.metadata.as_ref().map(|metadata| metadata.name.as_str()) {
            Some("controller-agents") => agents,
            Some("controller-health") => api,
            _ => continue,
        };
        if let Some(Spec::Check(check)) = &mut policy.spec {
            check.parameters.insert("address".into(), address.to_string());
        }
    }
    Ok(examples)
}

/// Writes `endpoints.json`, the sign for scripts that all is ready, and tells people what to type.
#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn announce(place: &Place, agents: SocketAddr, api: SocketAddr) -> Result<(), Error> {
    let endpoints = serde_json::json!({ "agents": agents.to_string(), "api": api.to_string() });
    file::write_public(&place.dir.join("endpoints.json"), format!("{endpoints}\n").as_bytes())?;
    let dir = place.dir.display();
    let and_then = if place.is_temporary {
        " and removes that directory"
    } else {
        ""
    };
    println!(
        "\nMuster is ready.\n\n  \
           agents connect to    {agents}\n  \
           operators connect to {api}\n  \
           everything is in     {dir}\n\n\
         In another terminal:\n\n  \
           export MUSTER_CONFIG={dir}/admin.yaml\n  \
           cargo run --release --bin musterctl -- agent list\n  \
           cargo run --release --bin musterctl -- state list\n  \
           cargo run --release --bin musterctl -- metric query node_load1\n\n\
         Ctrl-C stops it{and_then}."
    );
    Ok(())
}

/// The data directory; one that was made for this run goes with it.
struct Place {
    dir: PathBuf,
    is_temporary: bool,
}

impl Place {
    fn of(dir: Option<PathBuf>) -> Result<Self, Error> {
        let is_temporary = dir.is_none();
        let dir = match dir {
            Some(dir) => std::path::absolute(&dir).unwrap_or(dir),
            None => std::env::temp_dir().join(format!("muster-dev-{}", uuid::Uuid::new_v4().simple())),
        };
        create_private(&dir)?;
        Ok(Self { dir, is_temporary })
    }

    fn leave(self) -> Result<(), Error> {
        if self.is_temporary {
            std::fs::remove_dir_all(&self.dir).map_err(|source| Error::Remove { path: self.dir, source })?;
        }
        Ok(())
    }
}

fn create_private(path: &Path) -> Result<(), Error> {
    file::create_private_dir(path).map_err(|source| Error::Folder {
        path: path.to_owned(),
        source,
    })
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Remove {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn trust_domain() -> Result<TrustDomain, Error> {
    TRUST_DOMAIN
        .parse()
        .map_err(|_| Error::Usage(format!("{TRUST_DOMAIN} is not a trust domain")))
}
