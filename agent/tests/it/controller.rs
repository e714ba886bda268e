//! A controller of a few hundred lines: enrolls, welcomes, stores records in memory, and misbehaves on demand.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use muster_agent::config::Config;
use muster_certs::{
    Identity,
    ca::{Ca, backdated},
    csr, file,
    identity::TrustDomain,
    key::KeyPair,
    pin::Pin,
    sign::SigningKey,
    tls,
    token::Token,
    tokio_rustls::TlsAcceptor,
};
use muster_proto::{
    error::Problem,
    ids::AgentId,
    policy_set,
    v1::{self, connect_request::Frame as In, connect_response::Frame as Out},
};
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming, service::Routes};

const PATIENCE: Duration = Duration::from_secs(20);
pub const DOMAIN: &str = "example.muster";

/// What a controller does with a request to enroll, other than to grant it.
pub enum Answer {
    /// Issues, but the answer never arrives.
    Lose,
    Refuse(Problem),
}

#[derive(Debug, Clone)]
enum Command {
    Send(Box<v1::ConnectResponse>),
    Cut,
}

/// All that it has seen.
#[derive(Default)]
pub struct Seen {
    pub answers: VecDeque<Answer>,
    pub enrollments: Vec<v1::EnrollRequest>,
    pub hellos: Vec<v1::Hello>,
    /// Per spool and lane, in order; each record once.
    pub stored: BTreeMap<(String, i32), Vec<v1::Record>>,
    /// Records of a spool that came again after they were stored.
    pub repeated: usize,
    pub facts: Vec<v1::Facts>,
    pub statuses: Vec<v1::PolicyStatus>,
    pub heartbeats: Vec<v1::Heartbeat>,
    pub goodbyes: Vec<v1::GoodbyeReason>,
    pub links: usize,
    /// Stores, but does not say so.
    pub silent: bool,
    /// Of a spool it never heard of.
    pub acks_too_much: bool,
    /// The next one.
    pub refuses_links: Option<Problem>,
    /// What it says when it is asked whether it takes links.
    pub draining: bool,
    /// How often it was.
    pub asked: usize,
}

pub struct Controller {
    pub address: SocketAddr,
    pub pin: Pin,
    pub token: Token,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

struct Shared {
    trust_domain: TrustDomain,
    root: Ca,
    issuing: Ca,
    signer: SigningKey,
    seen: Mutex<Seen>,
    changed: watch::Sender<()>,
    commands: broadcast::Sender<Command>,
    acceptor: TlsAcceptor,
    tasks: TaskTracker,
}

impl Controller {
    pub async fn start() -> Controller {
        let now = SystemTime::now();
        let trust_domain: TrustDomain = DOMAIN.parse().unwrap();
        let root = Ca::create_root(&trust_domain, now).unwrap();
        let issuing = Ca::create_issuing(&root, now).unwrap();
        let key = KeyPair::generate().unwrap();
        let identity = Identity::controller(&trust_domain, "controller1").unwrap();
        let leaf = issuing
            .issue(&identity, &key.public_key(), backdated(now, Duration::from_secs(3600)))
            .unwrap();
        let chain = vec![
            leaf.der,
            issuing.certificate_der().clone(),
            root.certificate_der().clone(),
        ];
        let certificate = tls::ServerCertificate::new(chain, &key).unwrap();
        let clients = tls::ClientAuthorities::new(&[issuing.certificate_der().clone()]).unwrap();
        let config = tls::agent_listener(&certificate, &clients, &trust_domain).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pin = Pin::of_certificate(root.certificate_der()).unwrap();
        let shared = Arc::new(Shared {
            trust_domain,
            root,
            issuing,
            signer: SigningKey::generate().unwrap(),
            seen: Mutex::default(),
            changed: watch::channel(()).0,
            commands: broadcast::channel(64).0,
            acceptor: TlsAcceptor::from(config),
            tasks: TaskTracker::new(),
        });
        let stop = CancellationToken::new();
        serve(listener, &shared, &stop);
        Controller {
            address,
            pin,
            token: Token::generate().unwrap(),
            shared,
            stop,
        }
    }

    /// Another address that leads to it.
    pub async fn second_address(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        serve(listener, &self.shared, &self.stop);
        address
    }

    /// The configuration of an agent that joins this controller, with all its files in `dir`.
    pub fn config(&self, dir: &Path) -> Config {
        let token_file = dir.join("join-token");
        file::write_secret(&token_file, format!("{}\n", *self.token.expose()).as_bytes()).unwrap();
        let mut config = Config::default();
        config.server.endpoints = vec![self.address.to_string().parse().unwrap()];
        config.server.ca_pin = vec![self.pin];
        config.server.token_file = Some(token_file);
        config.agent.id_file = dir.join("etc/agent-id");
        config.agent.state_dir = dir.join("state");
        config.agent.name = "web-01".into();
        config
    }

    pub fn set(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.shared.seen.lock().unwrap());
    }

    /// Waits until `look` finds what it looks for in what the controller has seen.
    pub async fn wait<T>(&self, what: &str, mut look: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut changed = self.shared.changed.subscribe();
        let found = timeout(PATIENCE, async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = look(&self.shared.seen.lock().unwrap()) {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| {
            let seen = self.shared.seen.lock().unwrap();
            panic!(
                "{what}: not seen; links {}, hellos {:#?}",
                seen.links,
                seen.hellos.last()
            )
        })
    }

    pub fn send(&self, frame: Out) {
        let response = v1::ConnectResponse { frame: Some(frame) };
        self.shared.commands.send(Command::Send(Box::new(response))).unwrap();
    }

    pub fn root_pem(&self) -> String {
        self.shared.root.certificate_pem()
    }

    /// Ends all links without a word.
    pub fn cut(&self) {
        self.shared.commands.send(Command::Cut).unwrap();
    }

    /// A signed policy with a check that runs each second.
    pub fn check(&self, name: &str, version: i64) -> v1::Signed {
        let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let check = v1::Check {
            selector: "*".into(),
            schedule: Some(v1::Schedule {
                interval: second,
                ..Default::default()
            }),
            timeout: second,
            run: Some(v1::Run {
                command: vec!["/bin/echo".into(), "fine".into()],
                ..Default::default()
            }),
            ..Default::default()
        };
        let payload = v1::PolicyPayload {
            trust_domain: DOMAIN.into(),
            kind: "Check".into(),
            name: name.into(),
            version,
            selector: "*".into(),
            features: vec!["check".into(), "run.command".into()],
            body: check.encode_to_vec(),
        };
        let bytes = payload.encode_to_vec();
        let signature = self.shared.signer.sign(&policy_set::dsse_type("Check"), &bytes);
        v1::Signed {
            payload: bytes.into(),
            key_id: self.shared.signer.key_id(),
            signature,
        }
    }

    /// The whole set in one frame.
    pub fn sync(&self, policies: &[v1::Signed]) -> Out {
        let payloads: Vec<_> = policies
            .iter()
            .map(|signed| v1::PolicyPayload::decode(signed.payload.clone()).unwrap())
            .collect();
        let members = payloads
            .iter()
            .zip(policies)
            .map(|(it, signed)| (&*it.kind, &*it.name, it.version, &*signed.payload));
        let set_digest = policy_set::digest(members);
        Out::PolicySync(v1::PolicySync {
            set_digest,
            added: policies.to_vec(),
            ..Default::default()
        })
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = self.shared.commands.send(Command::Cut);
    }
}

fn serve(listener: TcpListener, shared: &Arc<Shared>, stop: &CancellationToken) {
    let (accepting, stop) = (accept(listener, shared.clone()), stop.clone());
    shared
        .tasks
        .spawn(async move { stop.run_until_cancelled(accepting).await });
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let connection = shared.clone();
        shared.tasks.spawn(async move {
            let Ok(stream) = connection.acceptor.accept(stream).await else {
                return;
            };
            let services = Services(connection);
            let routes = Routes::new(v1::enrollment_service_server::EnrollmentServiceServer::new(
                services.clone(),
            ))
            .add_service(v1::link_service_server::LinkServiceServer::new(services));
            let service = TowerToHyperService::new(routes.prepare());
            let _ = auto::Builder::new(TokioExecutor::new())
                .http2_only()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Seen {
    fn welcome(&self, hello: &v1::Hello) -> v1::Welcome {
        let acked = hello.spools.iter().map(|spool| {
            let stored = self
                .stored
                .get(&(spool.spool_id.clone(), spool.lane))
                .map_or(0, Vec::len);
            let through_seq = if self.acks_too_much {
                spool.last_seq + 100
            } else {
                stored as u64
            };
            v1::AckedSpool {
                spool_id: spool.spool_id.clone(),
                lane: spool.lane,
                through_seq,
            }
        });
        let window = |lane: v1::Lane| v1::LaneWindow {
            lane: lane.into(),
            window_bytes: 256 * 1024,
        };
        v1::Welcome {
            session_id: format!("session-{}", self.links + 1),
            heartbeat_interval_micros: 200_000,
            acked: acked.collect(),
            windows: vec![window(v1::Lane::Results), window(v1::Lane::Metrics)],
            controller_name: "controller1".into(),
            ..Default::default()
        }
    }

    /// Stores what is new, and says through which number all is stored.
    fn store(&mut self, records: v1::Records) -> u64 {
        let stored = self.stored.entry((records.spool_id, records.lane)).or_default();
        for (seq, record) in (records.first_seq..).zip(records.records) {
            let last = stored.len() as u64;
            if seq <= last {
                self.repeated += 1;
            } else {
                assert_eq!(seq, last + 1, "a record was passed over");
                stored.push(record);
            }
        }
        stored.len() as u64
    }

    /// The results of all spools.
    pub fn results(&self) -> Vec<&v1::CheckResult> {
        let records = self
            .stored
            .iter()
            .filter(|((_, lane), _)| *lane == i32::from(v1::Lane::Results));
        records
            .flat_map(|(_, records)| records)
            .filter_map(|record| match &record.body {
                Some(v1::record::Body::CheckResult(result)) => Some(result),
                _ => None,
            })
            .collect()
    }
}

impl Shared {
    async fn receive(&self, frame: v1::ConnectRequest, outgoing: &Frames) {
        let mut ack = None;
        self.note(|seen| match frame.frame {
            Some(In::Records(records)) => {
                let (lane, spool_id) = (records.lane, records.spool_id.clone());
                let through_seq = seen.store(records);
                let window_bytes = 256 * 1024;
                ack = (!seen.silent).then_some(v1::Ack {
                    lane,
                    spool_id,
                    through_seq,
                    rejected: vec![],
                    window_bytes,
                    resends: 0,
                });
            }
            Some(In::Facts(facts)) => seen.facts.push(facts),
            Some(In::PolicyStatus(status)) => seen.statuses.push(status),
            Some(In::Heartbeat(heartbeat)) => seen.heartbeats.push(heartbeat),
            Some(In::Goodbye(goodbye)) => seen.goodbyes.push(goodbye.reason()),
            Some(In::TrustBundleStatus(_)) => {}
            Some(In::Hello(_)) | None => panic!("a frame that no agent sends"),
        });
        if let Some(ack) = ack {
            send(outgoing, Out::Ack(ack)).await;
        }
        let time_unix_micros = 1;
        let heartbeat = v1::ControllerHeartbeat {
            time_unix_micros,
            answer_now: false,
        };
        send(outgoing, Out::Heartbeat(heartbeat)).await;
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.changed.send_replace(());
    }
}

#[derive(Clone)]
struct Services(Arc<Shared>);

#[tonic::async_trait]
impl v1::enrollment_service_server::EnrollmentService for Services {
    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::EnrollResponse>, Status> {
        let shared = &self.0;
        let request = request.into_inner();
        let mut answer = None;
        shared.note(|seen| {
            seen.enrollments.push(request.clone());
            answer = seen.answers.pop_front();
        });
        if let Some(Answer::Refuse(problem)) = answer {
            return Err(problem.into());
        }
        let id: AgentId = request.agent_id.parse().unwrap();
        let key = csr::verify(&request.csr).unwrap();
        let identity = Identity::agent(&shared.trust_domain, id.uuid());
        let validity = backdated(SystemTime::now(), Duration::from_secs(3600));
        let leaf = shared.issuing.issue(&identity, &key, validity).unwrap();
        if let Some(Answer::Lose) = answer {
            return Err(Status::unavailable("the network is gone"));
        }
        let policy_key = v1::PolicyKey {
            key_id: shared.signer.key_id(),
            public_key: shared.signer.public_key_der(),
        };
        Ok(Response::new(v1::EnrollResponse {
            agent_id: id.to_string(),
            certificates: vec![leaf.der.to_vec(), shared.issuing.certificate_der().to_vec()],
            trust_bundle: Some(v1::TrustBundle {
                version: 1,
                trust_domain: DOMAIN.into(),
                roots: vec![shared.root.certificate_der().to_vec()],
                policy_keys: vec![policy_key],
            }),
            name: request.name,
            time_unix_micros: 1,
        }))
    }

    async fn renew(&self, _: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn fork(&self, _: Request<v1::ForkRequest>) -> Result<Response<v1::ForkResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<v1::GetTrustBundleRequest>,
    ) -> Result<Response<v1::GetTrustBundleResponse>, Status> {
        let mut answer = v1::GetTrustBundleResponse::default();
        self.0.note(|seen| {
            seen.asked += 1;
            answer.draining = seen.draining;
        });
        Ok(Response::new(answer))
    }
}

type Frames = mpsc::Sender<Result<v1::ConnectResponse, Status>>;

#[tonic::async_trait]
impl v1::link_service_server::LinkService for Services {
    type ConnectStream = ReceiverStream<Result<v1::ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.and_then(|first| first.frame);
        let Some(In::Hello(hello)) = first else {
            return Err(Status::invalid_argument("no hello"));
        };
        let shared = self.0.clone();
        let mut commands = shared.commands.subscribe();
        let (outgoing, stream) = mpsc::channel(64);
        let mut welcome = None;
        let mut refusal = None;
        shared.note(|seen| {
            refusal = seen.refuses_links.take();
            welcome = Some(seen.welcome(&hello));
            seen.hellos.push(hello);
            seen.links += 1;
        });
        if let Some(problem) = refusal {
            return Err(problem.into());
        }
        send(&outgoing, Out::Welcome(welcome.unwrap())).await;
        self.0.tasks.spawn(async move {
            loop {
                tokio::select! {
                    frame = frames.message() => match frame {
                        Ok(Some(frame)) => shared.receive(frame, &outgoing).await,
                        _ => return,
                    },
                    command = commands.recv() => match command {
                        Ok(Command::Send(response)) => drop(outgoing.send(Ok(*response)).await),
                        _ => return,
                    },
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

async fn send(outgoing: &Frames, frame: Out) {
    let _ = outgoing.send(Ok(v1::ConnectResponse { frame: Some(frame) })).await;
}
