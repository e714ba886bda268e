//! The controller as a whole: the one place that builds the graph of its parts, starts it and ends it in order. Knows every
//! part by its constructor and none from the inside.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    access::rates::Rates,
    agents::Agents,
    api::Api,
    api_keys::ApiKeys,
    audit,
    cas::Cas,
    changes::Changes,
    clock,
    config::{self, Config},
    controllers,
    disk::Disk,
    enroll::Enroller,
    fleet::Fleet,
    forks::Forks,
    grants::Grants,
    ingest::{self, Ingest},
    lease::{self, Lease},
    link::{self, Links, arrivals::Arrivals, bulletin::Bulletins},
    manifests::Manifests,
    net,
    pki::{self, Pki},
    policies::{self, Policies},
    renewal::Renewer,
    states::States,
    store::{self, Db},
    tasks::{
        self,
        controller_certificate::ControllerCertificate,
        reload::{self, Reload},
    },
    telemetry::Telemetry,
    token_templates::TokenTemplates,
    users::{self, Users},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to load the keys")]
    Pki(#[from] pki::Error),
    #[error("failed to take the lease of the database")]
    Lease(#[from] lease::Error),
    #[error("failed to load the database")]
    Store(#[from] store::Error),
    #[error("failed to load the inventory")]
    Agents(#[from] crate::agents::Error),
    #[error("failed to load the users")]
    Users(#[from] users::Error),
    #[error("failed to load the policies")]
    Policies(#[from] policies::Error),
    #[error("failed to make the controller's certificate")]
    Certificate(#[from] tasks::controller_certificate::Error),
    #[error("failed to configure TLS")]
    Tls(#[from] muster_certs::tls::Error),
    #[error("failed to listen on {addr}{}", way_out(source))]
    Listen {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("failed to start the threads of links")]
    Threads(#[source] io::Error),
    #[error("failed to describe the API")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the lease of the database was lost; another controller may be active")]
    LeaseLost,
}

fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (`ss -ltnp` shows what does; choose another address: agent_listen and api_listen in server.yaml, or the \
             options of those names of `dev`)"
        }
        _ => "",
    }
}

/// How long the end may take: a database that does not answer must not keep the process.
const STOP_WITHIN: Duration = Duration::from_millis(4_500);
/// Of that, how long agents may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_millis(2_500);
/// Over how much of that they are told: so much for each, that whoever takes them next is not stormed.
const LEAVE_EACH: Duration = Duration::from_micros(150);
const LEAVE_LAST: Duration = Duration::from_millis(1_500);

/// A controller that listens.
#[derive(Debug)]
pub struct Controller {
    pub agents_addr: SocketAddr,
    pub api_addr: SocketAddr,
    pub api: Arc<Api>,
    lease: Lease,
    /// Listeners, links, watches: ended first.
    serving: CancellationToken,
    served: TaskTracker,
    /// Where links live: there for as long as anything of `served` is.
    threads: net::Threads,
    /// Storing and tasks: ended when nothing more can come in.
    background: CancellationToken,
    backgrounds: TaskTracker,
}

/// Waits for the lease, then loads everything and listens. None: `shutdown` came first.
pub async fn start(config: Config, shutdown: &CancellationToken) -> Result<Option<Controller>, Error> {
    let process_started_at = clock::now();
    // For whoever starts it: what is wrong now is not to come out when another controller has failed.
    drop(load_keys(&config)?);
    for (what, addr) in [("agent_listen", config.agent_listen), ("api_listen", config.api_listen)] {
        if let Err(error) = net::bind(addr) {
            warn!(%addr, %error, "{what} cannot be listened on now; it has to be free when this controller becomes active");
        }
    }
    let Some(lease) = lease::acquire(&config.source(), shutdown).await? else {
        return Ok(None);
    };
    // Anew: the CA may have been rotated while this one was standby.
    let pki = Arc::new(load_keys(&config)?);
    let telemetry = Telemetry::new();
    telemetry.active(true);
    let started_at = clock::now();
    let disk = Disk::default();
    let disk_keeper = tasks::disk::Keeper::start(
        tasks::disk::Deps {
            disk: disk.clone(),
            data_dir: config.data_dir.clone(),
            limits: config.disk.limits,
            ballast: config.disk.ballast,
            telemetry: telemetry.clone(),
        },
        started_at,
    );
    let db = Db::open_under(&config.source(), lease.mandate()).await?;

    let changes = Changes::new(db.clone()).await?;
    let agents = Arc::new(Agents::load(db.clone(), changes.clone(), started_at).await?);
    let policies = Arc::new(Policies::load(db.clone(), changes.clone(), pki.clone()).await?);
    let states = Arc::new(States::load(db.clone(), changes.clone(), agents.clone(), policies.clone()).await?);
    let (ingest, ingest_handle) = Ingest::load(ingest::Deps {
        db: db.clone(),
        changes: changes.clone(),
        agents: agents.clone(),
        states: states.clone(),
        telemetry: telemetry.clone(),
        disk: disk.clone(),
        limits: config.limits.ingest,
    })
    .await?;
    let links = Arc::new(Links::new(config.link.heartbeat));
    let rights = Arc::new(Grants::load(&db).await?);
    let enroller = Arc::new(Enroller::new(
        db.clone(),
        changes.clone(),
        pki.clone(),
        agents.clone(),
        rights.clone(),
        links.clone(),
    ));

    let fleet = Fleet {
        agents: agents.clone(),
        states: states.clone(),
        links: links.clone(),
    };
    let grace = clock::from_duration(config.certificates.grace);
    let on_clone = config.enrollment.on_clone;
    let renewer = Renewer::new(db.clone(), pki.clone(), agents.clone(), links.clone(), grace, on_clone).await?;

    let users = Arc::new(Users::load(db.clone(), changes.clone(), pki.clone(), rights.clone(), started_at).await?);
    let grants = Arc::new(Grants::new(db.clone(), changes.clone(), rights, users.clone()));
    let api_keys = Arc::new(ApiKeys::load(db.clone(), changes.clone(), users.clone()).await?);
    let manifests = Arc::new(Manifests::new(
        db.clone(),
        changes.clone(),
        agents.clone(),
        policies.clone(),
        users.clone(),
        grants.clone(),
        api_keys.clone(),
    ));
    let (audit_keeper, audit) = audit::Keeper::load(
        db.clone(),
        pki.clone(),
        config.retention.audit,
        audit::Kept::new(&config.data_dir),
    )
    .await?;

    let certificate = ControllerCertificate::issue(pki.clone(), &config.name, SystemTime::now())?;
    let (agents_tcp, agents_addr) = listen(config.agent_listen)?;
    let (api_tcp, api_addr) = listen(config.api_listen)?;

    let (serving, served) = (CancellationToken::new(), TaskTracker::new());
    let (background, backgrounds) = (CancellationToken::new(), TaskTracker::new());
    let heartbeat = config.link.heartbeat;
    let concerning_links = link::bulletin::Sources {
        shutdown: serving.clone(),
        plan: links.draining().plans(),
        room: disk.follow(),
        trust: pki.watch(),
        policies: policies.watch(),
    };
    let about = controllers::About {
        name: config.name.clone(),
        started_at: process_started_at,
        active_since: started_at,
        listeners: vec![("agents", agents_addr), ("api", api_addr)],
        database: match config.database {
            config::Database::Sqlite => controllers::Database::Sqlite,
            config::Database::Postgres(_) => controllers::Database::Postgres,
        },
        epoch: db.epoch().await?,
    };
    let api = Arc::new(Api {
        db: db.clone(),
        changes: changes.clone(),
        pki: pki.clone(),
        agents: agents.clone(),
        policies: policies.clone(),
        manifests,
        states: states.clone(),
        links: links.clone(),
        fleet,
        enroller,
        forks: Arc::new(Forks::new(
            db.clone(),
            changes.clone(),
            pki.clone(),
            agents.clone(),
            grace,
            config.enrollment.on_clone,
        )),
        renewer: Arc::new(renewer),
        cas: Arc::new(Cas::new(db.clone(), pki.clone(), agents.clone(), links.clone(), grace)),
        controller: Arc::new(controllers::Controller::new(about, db.clone(), links.clone())),
        users: users.clone(),
        grants,
        api_keys: api_keys.clone(),
        token_templates: Arc::new(TokenTemplates::new(db.clone(), changes.clone(), users.clone())),
        audit,
        rates: Arc::new(Rates::new(config.limits.calls)),
        link: link::Deps {
            config: link::Config {
                heartbeat: clock::from_duration(heartbeat),
                controller_name: config.name.clone(),
                on_clone: config.enrollment.on_clone,
            },
            advertise: config.advertise.clone().into(),
            agents: agents.clone(),
            pki: pki.clone(),
            policies,
            ingest: ingest_handle,
            links,
            arrivals: Arc::new(Arrivals::new(config.limits.links_per_second, std::time::Instant::now())),
            telemetry: telemetry.clone(),
            bulletins: Arc::new(Bulletins::new(concerning_links, served.clone())),
        },
        telemetry: telemetry.clone(),
        endpoints: config.endpoints(agents_addr),
        pins: pki.pins().to_vec(),
        tasks: served.clone(),
        shutdown: serving.clone(),
    });

    let api_certificate = muster_certs::tls::ApiCertificate::new(certificate.served());
    let mut reload = Reload {
        db: db.clone(),
        pki: pki.clone(),
        telemetry: telemetry.clone(),
        api: config
            .api_certificate
            .clone()
            .map(|files| reload::Api::new(files, api_certificate.clone())),
    };
    reload.look(SystemTime::now()).await;
    let trust_domain = pki.trust_domain();
    let threads = net::Threads::start("links").map_err(Error::Threads)?;
    let agents_listener = net::Listener {
        name: "agents",
        tcp: agents_tcp,
        threads: Some(threads.clone()),
        tls: muster_certs::tls::agent_listener(certificate.served(), pki.agents_clients(), trust_domain)?,
        limits: config.agent_limits(),
        proxies: config.agent_proxy_protocol.clone(),
        metrics: telemetry.listener("agents"),
        // Links are cut by the agent, and what is no link ends soon.
        distrust: None,
    };
    let api_listener = net::Listener {
        name: "api",
        tcp: api_tcp,
        // One call may be work for all cores.
        threads: None,
        tls: muster_certs::tls::api_listener(&api_certificate, pki.users_clients(), trust_domain)?,
        limits: config.api_limits(),
        proxies: Vec::new(),
        metrics: telemetry.listener("api"),
        distrust: Some(pki.watch_distrust()),
    };
    served.spawn(net::serve(agents_listener, api.agent_router(), serving.clone()));
    served.spawn(net::serve(api_listener, api.operator_router().await?, serving.clone()));

    backgrounds.spawn(changes.clone().run(background.clone()));
    let (storing, stop) = (api.enroller.clone(), background.clone());
    backgrounds.spawn(async move { storing.run(stop).await });
    backgrounds.spawn(ingest.run(background.clone()));
    backgrounds.spawn(audit_keeper.run(background.clone()));
    backgrounds.spawn(certificate.run(background.clone()));
    backgrounds.spawn(reload.run(background.clone()));
    backgrounds.spawn(tasks::liveness::run(agents.clone(), heartbeat, background.clone()));
    let (watching, keys, inventory, stop) = (api.clone(), pki.clone(), agents.clone(), background.clone());
    backgrounds.spawn(async move { watching.controller.watch_keys(keys, inventory, stop).await });
    let identity = tasks::identity::Deps {
        db: db.clone(),
        fleet: api.fleet.clone(),
        pki: pki.clone(),
        telemetry: telemetry.clone(),
        users,
        api_keys,
        grace,
        keep_deleted: clock::from_duration(config.retention.deleted_agents),
    };
    backgrounds.spawn(tasks::identity::run(identity, background.clone()));
    backgrounds.spawn(disk_keeper.run(db.clone(), background.clone()));
    backgrounds.spawn(tasks::retention::run(
        db,
        config.retention.clone(),
        disk.follow(),
        background.clone(),
    ));
    let stop = background.clone();
    backgrounds.spawn(async move { states.run_reconcile(stop).await });
    let stop = background.clone();
    backgrounds.spawn(async move { agents.run_persist(stop).await });
    backgrounds.close();

    api.controller.announce(started_at).await;
    info!(agents = %agents_addr, api = %api_addr, name = config.name, "the controller is ready");
    Ok(Some(Controller {
        agents_addr,
        api_addr,
        api,
        lease,
        serving,
        served,
        threads,
        background,
        backgrounds,
    }))
}

impl Controller {
    /// Serves until `shutdown`, then ends in order. A lease that is lost meanwhile ends it at once: another controller may
    /// write already, so nothing more is stored by this one.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self {
            api,
            mut lease,
            serving,
            served,
            threads: _threads,
            background,
            backgrounds,
            ..
        } = self;
        // Links told and no new ones taken, no new work, all that came in stored, the database closed.
        let stop = async {
            let links = &api.links;
            let within = LEAVE_EACH.saturating_mul(u32::try_from(links.count()).unwrap_or(u32::MAX));
            links.draining().stop(within.min(LEAVE_LAST), clock::now());
            // Whoever is still there afterwards is told by the end of its link.
            let _ = tokio::time::timeout(LEAVE_WITHIN, links.emptied()).await;
            serving.cancel();
            served.close();
            served.wait().await;
            background.cancel();
            backgrounds.wait().await;
            api.db.close().await;
        };
        let whole = async {
            shutdown.cancelled().await;
            info!("stopping");
            match tokio::time::timeout(STOP_WITHIN, stop).await {
                Ok(()) => info!("stopped"),
                Err(_) => {
                    warn!("the database did not take all in time; what it did not take was not acknowledged either")
                }
            }
        };
        tokio::select! {
            () = whole => Ok(()),
            () = lease.lost() => {
                error!("the lease is lost; stopping at once");
                Err(Error::LeaseLost)
            }
        }
    }
}

/// The whole life of a controller.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    match start(config, &shutdown).await? {
        Some(controller) => controller.run(shutdown).await,
        None => Ok(()),
    }
}

fn load_keys(config: &Config) -> Result<Pki, pki::Error> {
    Ok(Pki::load(&config.pki_dir())?
        .of_domain(&config.trust_domain)?
        .with_lifetimes(config.certificates.clone()))
}

fn listen(addr: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { addr, source };
    let tcp = net::bind(addr).map_err(failed)?;
    let addr = tcp.local_addr().map_err(failed)?;
    Ok((tcp, addr))
}
