//! The process at the other end of the floor: an accept loop, TLS, HTTP/2 and an echo. Makes its own CA, and prints on its
//! first line how to get in; a number on its input sends one frame to all links, and the seconds until so many have answered
//! are printed.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use futures_util::stream::{self, BoxStream};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use muster_certs::{
    Identity,
    ca::{self, Ca},
    identity_file::IdentityFile,
    key::KeyPair,
    tls::{self, ClientAuthorities, ServerCertificate},
    tokio_rustls::TlsAcceptor,
};
use muster_proto::v1::{
    ConnectRequest, ConnectResponse, ControllerHeartbeat,
    connect_request::Frame as In,
    connect_response::Frame as Out,
    link_service_server::{LinkService, LinkServiceServer},
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Notify, watch},
    task::spawn_blocking,
};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::dial;

/// In a heartbeat: send it back, and: it is an answer.
pub const ASK: i64 = 1;
pub const ANSWER: i64 = 2;

/// Connections that the kernel keeps until they are taken.
const BACKLOG: u32 = 4_096;

#[derive(Clone)]
struct Echo(Arc<Shared>);

struct Shared {
    to_all: watch::Sender<u64>,
    answers: AtomicU64,
    wanted: AtomicU64,
    all_answered: Notify,
}

/// Until its input ends.
pub async fn serve() -> anyhow::Result<()> {
    let now = SystemTime::now();
    let domain = dial::trust_domain();
    let root = Ca::create_root(&domain, now)?;
    let issuing = Ca::create_issuing(&root, now)?;
    let issue = |identity: &Identity| -> anyhow::Result<IdentityFile> {
        let key = KeyPair::generate()?;
        let issued = issuing.issue(identity, &key.public_key(), ca::backdated(now, ca::AGENT_LIFETIME))?;
        let above = [issuing.certificate_der().clone(), root.certificate_der().clone()];
        Ok(IdentityFile::new(key, [vec![issued.der], above.to_vec()].concat())?)
    };
    let server = issue(&Identity::controller(&domain, "floor")?)?;
    let client = issue(&Identity::agent(&domain, Default::default()))?;
    let certificate = ServerCertificate::new(server.chain().to_vec(), server.key())?;
    let authorities = ClientAuthorities::new(&[issuing.certificate_der().clone()])?;
    let acceptor = TlsAcceptor::from(tls::agent_listener(&certificate, &authorities, &domain)?);

    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(BACKLOG)?;
    let hello = json!({
        "address": listener.local_addr()?.to_string(),
        "root": root.certificate_pem(),
        "identity": &*client.to_pem(),
    });
    println!("{hello}");
    let echo = Echo(Arc::new(Shared {
        to_all: watch::Sender::new(0),
        answers: AtomicU64::new(0),
        wanted: AtomicU64::new(u64::MAX),
        all_answered: Notify::new(),
    }));
    let connections = TaskTracker::new();
    tokio::select! {
        () = accept(listener, acceptor, echo.clone(), connections) => Ok(()),
        obeyed = obey(&echo.0) => obeyed,
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, echo: Echo, connections: TaskTracker) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, echo) = (acceptor.clone(), echo.clone());
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = TowerToHyperService::new(LinkServiceServer::new(echo));
            let builder = http2::Builder::new(TokioExecutor::new());
            // A link that breaks is the client's to notice.
            let _ = Box::pin(builder.serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

async fn obey(shared: &Shared) -> anyhow::Result<()> {
    loop {
        let read = spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = read.await??;
        if line.is_empty() {
            return Ok(());
        }
        let wanted = line.trim().parse()?;
        shared.answers.store(0, Ordering::Relaxed);
        shared.wanted.store(wanted, Ordering::Relaxed);
        let start = Instant::now();
        shared.to_all.send_modify(|number| *number += 1);
        shared.all_answered.notified().await;
        println!("{}", start.elapsed().as_secs_f64());
    }
}

#[tonic::async_trait]
impl LinkService for Echo {
    type ConnectStream = BoxStream<'static, Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let to_all = self.0.to_all.subscribe();
        let answers = stream::unfold((self.clone(), request.into_inner(), to_all), async |state| {
            let (echo, mut inbound, mut to_all) = state;
            let is_asked = loop {
                tokio::select! {
                    frame = inbound.message() => match frame.ok()??.frame? {
                        In::Heartbeat(heartbeat) if heartbeat.echo_unix_micros == ANSWER => echo.0.answered(),
                        _ => break false,
                    },
                    Ok(()) = to_all.changed() => break true,
                }
            };
            let heartbeat = ControllerHeartbeat {
                time_unix_micros: 0,
                answer_now: is_asked,
            };
            let frame = Some(Out::Heartbeat(heartbeat));
            Some((Ok(ConnectResponse { frame }), (echo, inbound, to_all)))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

impl Shared {
    fn answered(&self) {
        let count = self.answers.fetch_add(1, Ordering::Relaxed) + 1;
        if count == self.wanted.load(Ordering::Relaxed) {
            self.all_answered.notify_one();
        }
    }
}
