//! How soon the controller answers operators: a page of a list, one agent, and a change that a hundred watchers are told of; with
//! a fleet in the inventory, and beside a bare server that sends as many bytes over the same TLS and the same HTTP/2. Times are
//! those of one caller after the other; what a call costs is time of the CPU.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use muster_certs::{tls, tokio_rustls::TlsConnector};
use muster_proto::{
    ids::AgentId,
    v1::{
        self, ListEventsRequest, ListEventsResponse,
        agent_service_client::AgentServiceClient,
        event_service_client::EventServiceClient,
        event_service_server::{EventService, EventServiceServer},
    },
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Controller,
    bare::{Bare, Door},
    operators::Operator,
    process,
    swarm::{figure::rounded, latency::Latency, usage},
};

/// What the process of the floor is started with.
pub const FLOOR: &str = "floor";

const PAGE: i32 = 500;
const GETS: usize = 5_000;
const PAGES: usize = 300;
const WATCHERS: usize = 100;
const CHANGES: usize = 200;
/// Agents that are put there at the same time.
const PARALLEL: usize = 32;
const WARM_UP: usize = 50;
/// The limits of one caller are not what is measured.
pub(crate) const LIMITS: &str =
    "limits: { reads_per_second: 1000000, changes_per_second: 1000000, watches_per_second: 1000000 }";

/// # Errors
/// When a call fails.
pub fn measure(agents: usize) -> anyhow::Result<Value> {
    let mut controller = Controller::start_with(LIMITS);
    let pid = controller.process().pid();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let admin = Operator::admin(&controller).await;
        let ids = fill(&admin, agents).await?;
        let mut client = AgentServiceClient::new(admin.service()).max_decoding_message_size(16 << 20);

        let list = v1::ListAgentsRequest {
            page_size: PAGE,
            ..v1::ListAgentsRequest::default()
        };
        let page = client.list_agents(list.clone()).await?.into_inner();
        let one = v1::GetAgentRequest {
            agent: ids[0].clone(),
            ..Default::default()
        };
        let shown = client.get_agent(one).await?.into_inner();
        let mut asked = 0;
        let get = measured(pid, GETS, async || {
            asked += 1;
            let agent = ids[asked * 7919 % ids.len()].clone();
            let request = v1::GetAgentRequest {
                agent,
                ..Default::default()
            };
            client.get_agent(request).await.map(drop)
        })
        .await?;
        let mut client = AgentServiceClient::new(admin.service()).max_decoding_message_size(16 << 20);
        let pages = measured(pid, PAGES, async || client.list_agents(list.clone()).await.map(drop)).await?;
        let watches = watched(&controller, &admin, &ids, pid).await?;

        let floor = Floor::start()?;
        let bare = async |bytes: usize, calls: usize| {
            let mut client = EventServiceClient::new(floor.channel().await?).max_decoding_message_size(16 << 20);
            let request = ListEventsRequest {
                page_size: i32::try_from(bytes)?,
                ..ListEventsRequest::default()
            };
            measured(floor.child.id(), calls, async || {
                client.list_events(request.clone()).await.map(drop)
            })
            .await
        };
        let bare_get = bare(shown.encoded_len(), GETS).await?;
        let bare_pages = bare(page.encoded_len(), PAGES).await?;
        Ok(json!({
            "agents": agents,
            "database": if controller.database_url().is_some() { "postgresql" } else { "sqlite" },
            "get": beside(&get, &bare_get, shown.encoded_len()),
            "list_page": beside(&pages, &bare_pages, page.encoded_len()),
            "page_size": page.items.len(),
            "watch": watches,
        }))
    })
}

/// One kind of call.
struct Measured {
    latency: Latency,
    cpu: Duration,
    calls: usize,
}

impl Measured {
    fn cpu_micros(&self) -> f64 {
        rounded(self.cpu.as_secs_f64() * 1e6 / self.calls as f64)
    }

    fn to_json(&self) -> Value {
        json!({ "latency": self.latency.to_json(), "cpu_us_per_call": self.cpu_micros() })
    }
}

fn beside(measured: &Measured, floor: &Measured, bytes: usize) -> Value {
    let p50 = |of: &Measured| of.latency.percentile(50.0).unwrap_or_default().as_secs_f64();
    let mut document = measured.to_json();
    document["bytes"] = json!(bytes);
    document["floor"] = floor.to_json();
    document["ratio_to_floor"] = json!({
        "p50": rounded(p50(measured) / p50(floor)),
        "cpu": rounded(measured.cpu_micros() / floor.cpu_micros()),
    });
    document
}

async fn measured(
    pid: u32,
    calls: usize,
    mut call: impl AsyncFnMut() -> Result<(), Status>,
) -> anyhow::Result<Measured> {
    for _ in 0..WARM_UP {
        call().await?;
    }
    let latency = Latency::default();
    let before = usage::cpu(pid)?;
    for _ in 0..calls {
        let start = Instant::now();
        call().await?;
        latency.add(start.elapsed());
    }
    let cpu = usage::cpu(pid)? - before;
    Ok(Measured { latency, cpu, calls })
}

/// Agents with labels, as they are before their machines.
pub(crate) async fn fill(admin: &Operator, agents: usize) -> anyhow::Result<Vec<String>> {
    let ids: Arc<Vec<String>> = Arc::new((0..agents).map(|_| AgentId::random().to_string()).collect());
    let mut workers = JoinSet::new();
    for worker in 0..PARALLEL {
        let (ids, admin) = (ids.clone(), admin.clone());
        workers.spawn(async move {
            let mut client = AgentServiceClient::new(admin.service());
            for index in (worker..ids.len()).step_by(PARALLEL) {
                let label = |key: &str, value: String| (key.to_owned(), value);
                let request = v1::PreregisterAgentRequest {
                    id: ids[index].clone(),
                    name: format!("machine-{index:05}"),
                    labels: [
                        label("env", ["prod", "dev", "test"][index % 3].to_owned()),
                        label("zone", format!("zone-{}", index % 8)),
                    ]
                    .into(),
                    ..v1::PreregisterAgentRequest::default()
                };
                client.preregister_agent(request).await?;
            }
            Ok::<_, Status>(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    Ok(ids.to_vec())
}

/// From the call that changes something to each of those who are told.
async fn watched(controller: &Controller, admin: &Operator, ids: &[String], pid: u32) -> anyhow::Result<Value> {
    let (told, mut heard) = mpsc::channel(WATCHERS * 4);
    let mut watchers = JoinSet::new();
    let revision = AgentServiceClient::new(admin.service())
        .list_agents(v1::ListAgentsRequest {
            page_size: 1,
            ..Default::default()
        })
        .await?
        .into_inner()
        .revision;
    for _ in 0..WATCHERS {
        // Each on a connection of its own, as people have them.
        let watcher = Operator::admin(controller).await;
        let request = v1::WatchAgentsRequest {
            revision,
            ..Default::default()
        };
        let mut events = AgentServiceClient::new(watcher.service())
            .watch_agents(request)
            .await?
            .into_inner();
        let told = told.clone();
        watchers.spawn(async move {
            while let Ok(Some(_)) = events.message().await {
                if told.send(Instant::now()).await.is_err() {
                    break;
                }
            }
        });
    }
    let mut client = AgentServiceClient::new(admin.service());
    let (latency, answered) = (Latency::default(), Latency::default());
    let before = usage::cpu(pid)?;
    for change in 0..CHANGES {
        let request = v1::UpdateAgentLabelsRequest {
            agent: ids[change % ids.len()].clone(),
            set: [("round".to_owned(), change.to_string())].into(),
            ..v1::UpdateAgentLabelsRequest::default()
        };
        let start = Instant::now();
        client.update_agent_labels(request).await?;
        answered.add(start.elapsed());
        for _ in 0..WATCHERS {
            let at = tokio::time::timeout(Duration::from_secs(30), heard.recv()).await;
            let at = at.context("a watcher was told nothing")?.context("a watch has ended")?;
            latency.add(at.saturating_duration_since(start));
        }
    }
    let cpu = usage::cpu(pid)? - before;
    watchers.shutdown().await;
    Ok(json!({
        "watchers": WATCHERS,
        "change": answered.to_json(),
        "until_told": latency.to_json(),
        "cpu_us_per_event": rounded(cpu.as_secs_f64() * 1e6 / (CHANGES * WATCHERS) as f64),
    }))
}

/// The bare server.
pub(crate) struct Floor {
    child: Child,
    door: Door,
}

impl Floor {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut command = process::command(std::env::current_exe()?);
        command.arg(FLOOR).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the floor does not start")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("it has an output")?).read_line(&mut line)?;
        let door = Door::read(&line).context("the floor does not say where it is")?;
        Ok(Self { child, door })
    }

    pub(crate) async fn channel(&self) -> anyhow::Result<Channel> {
        let tcp = TcpStream::connect(self.door.address).await?;
        tcp.set_nodelay(true)?;
        let tls = TlsConnector::from(self.door.tls.clone());
        let mut stream = Some(TokioIo::new(tls.connect(tls::server_name("127.0.0.1"), tcp).await?));
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
            async { stream.map_err(std::io::Error::from) }
        });
        Ok(Endpoint::from_static("http://floor")
            .connect_with_connector(connector)
            .await?)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers with as many bytes as it is asked for.
struct Bytes;

#[tonic::async_trait]
impl EventService for Bytes {
    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let bytes = usize::try_from(request.into_inner().page_size).unwrap_or_default();
        Ok(Response::new(ListEventsResponse {
            next_page_token: "x".repeat(bytes),
            ..ListEventsResponse::default()
        }))
    }
}

/// The process of the floor: until its input ends.
pub fn floor() -> ExitCode {
    let served = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            runtime.block_on(async {
                let bare = Bare::listen()?;
                let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
                tokio::select! {
                    () = bare.serve(EventServiceServer::new(Bytes)) => {}
                    _ = ended => {}
                }
                Ok(())
            })
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}
