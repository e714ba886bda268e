//! A controller for tests: the services of the API on a real socket, with TLS as certs makes it. It answers what the test
//! has put into its [`Script`] and remembers what it was asked.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fmt::Debug,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use muster_certs::{
    Identity,
    ca::{self, Ca},
    file,
    identity::TrustDomain,
    key::KeyPair,
    pem,
    tls::{self, ServerCertificate},
    tokio_rustls::TlsAcceptor,
};
use muster_proto::v1::{
    self, agent_service_server::AgentServiceServer, manifest_service_server::ManifestServiceServer,
    metric_service_server::MetricServiceServer, policy_service_server::PolicyServiceServer,
    state_service_server::StateServiceServer, token_service_server::TokenServiceServer,
};
use musterctl::{app, exit::Exit};
use tokio::{
    io::{DuplexStream, copy_bidirectional, duplex},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Response, Status, transport::Server};

use crate::terminal::{Screen, terminal};

mod services;

/// What the controller holds and how it behaves. Every call takes the next of `failures` first, if there is one.
#[derive(Default)]
pub struct Script {
    pub agents: Vec<v1::Agent>,
    pub fleet_size: i32,
    pub states: Vec<v1::State>,
    pub counts: v1::StateCounts,
    pub policies: Vec<v1::Policy>,
    pub metrics: Vec<v1::MetricValue>,
    pub token: v1::CreateTokenResponse,
    /// Of manifests that are planned or applied.
    pub plan: v1::Plan,
    /// The largest page, whatever is asked for.
    pub page: usize,
    pub failures: VecDeque<Status>,
    /// Never answers.
    pub silent: bool,
    /// For each watch that is opened what it sends; the last one then stays open.
    pub watches: VecDeque<Vec<Result<v1::WatchAgentsResponse, Status>>>,
    pub asked: Vec<String>,
}

pub struct Fake {
    pub address: SocketAddr,
    pub script: Arc<Mutex<Script>>,
    pki: Pki,
    folder: tempfile::TempDir,
    /// Ends with the value.
    _tasks: JoinSet<()>,
}

/// What one run of the program gave.
#[derive(Debug)]
pub struct Run {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

impl Fake {
    pub async fn start(script: Script) -> Fake {
        let pki = Pki::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script));
        let mut tasks = JoinSet::new();
        let (connections, incoming) = mpsc::channel(8);
        tasks.spawn(accept(listener, TlsAcceptor::from(pki.server()), connections));
        let controller = Controller { script: script.clone() };
        let router = Server::builder()
            .add_service(AgentServiceServer::new(controller.clone()))
            .add_service(StateServiceServer::new(controller.clone()))
            .add_service(ManifestServiceServer::new(controller.clone()))
            .add_service(PolicyServiceServer::new(controller.clone()))
            .add_service(TokenServiceServer::new(controller.clone()))
            .add_service(MetricServiceServer::new(controller));
        let incoming = ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
        tasks.spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        let fake = Fake {
            address,
            script,
            pki,
            folder: tempfile::tempdir().unwrap(),
            _tasks: tasks,
        };
        fake.write_context(&fake.context(), &fake.pki);
        fake
    }

    /// The context file of an admin.
    pub fn context(&self) -> PathBuf {
        self.folder.path().join("admin.yaml")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A context file for this controller with the roots and the user of `pki`.
    pub fn write_context(&self, path: &Path, pki: &Pki) {
        file::write_secret(path, pki.context(&self.address.to_string(), &pki.root).as_bytes()).unwrap();
    }

    /// A context file whose user is of `pki`, and whose roots are right.
    pub fn write_context_of_stranger(&self, path: &Path, pki: &Pki) {
        file::write_secret(path, pki.context(&self.address.to_string(), &self.pki.root).as_bytes()).unwrap();
    }

    pub async fn run(&self, arguments: &[&str]) -> Run {
        self.run_with_input(arguments, "").await
    }

    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Run {
        let config = self.context().display().to_string();
        let arguments = [&["--config", &config], arguments].concat();
        run(&arguments, input).await
    }

    pub fn asked(&self) -> Vec<String> {
        self.script.lock().unwrap().asked.clone()
    }

    /// Nothing that changes anything, or reads it, was asked for.
    #[track_caller]
    pub fn was_left_alone(&self) {
        assert_eq!(self.asked(), Vec::<String>::new());
    }
}

impl Run {
    #[track_caller]
    pub fn expect(self, exit: Exit) -> Run {
        assert_eq!(self.exit, exit, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// What, why and do are all said, for a person.
    #[track_caller]
    pub fn explained(self) -> Run {
        for part in ["\n  what  ", "\n  why   ", "\n  do    "] {
            assert!(self.err.contains(part), "no {part:?}: {self:#?}");
        }
        assert!(self.err.starts_with("musterctl: "), "{self:#?}");
        assert_eq!(self.out, "", "an error leaves nothing on stdout");
        self
    }
}

/// The program without a controller of its own.
pub async fn run(arguments: &[&str], input: &str) -> Run {
    let (out, err) = (Screen::new(), Screen::new());
    let input = std::io::Cursor::new(input.to_owned().into_bytes());
    let exit = app::run(words(arguments), terminal(&out, &err, input), std::future::pending()).await;
    Run {
        exit,
        out: out.text(),
        err: err.text(),
    }
}

pub fn words(arguments: &[&str]) -> Vec<OsString> {
    ["musterctl"].iter().chain(arguments).map(Into::into).collect()
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, connections: mpsc::Sender<DuplexStream>) {
    let mut pipes = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        pipes.spawn(async move {
            // A client that is refused here finds that out by itself.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let (ours, mut theirs) = duplex(64 * 1024);
            if connections.send(ours).await.is_ok() {
                let _ = copy_bidirectional(&mut stream, &mut theirs).await;
            }
        });
    }
}

/// A CA with the certificates of a controller and a user.
pub struct Pki {
    root: Ca,
    issuing: Ca,
    trust_domain: TrustDomain,
}

impl Pki {
    pub fn new() -> Pki {
        let trust_domain: TrustDomain = "example.muster".parse().unwrap();
        let root = Ca::create_root(&trust_domain, SystemTime::now()).unwrap();
        let issuing = Ca::create_issuing(&root, SystemTime::now()).unwrap();
        Pki {
            root,
            issuing,
            trust_domain,
        }
    }

    fn server(&self) -> Arc<muster_certs::rustls::ServerConfig> {
        let name = "controller1".parse().unwrap();
        let (key, leaf) = self.issue(Identity::Controller {
            trust_domain: self.trust_domain.clone(),
            name,
        });
        let chain = vec![
            leaf,
            self.issuing.certificate_der().clone(),
            self.root.certificate_der().clone(),
        ];
        let certificate = ServerCertificate::new(chain, &key).unwrap();
        tls::api_listener(
            &certificate,
            &tls::ClientAuthorities::new(&[self.issuing.certificate_der().clone()]).unwrap(),
            &self.trust_domain,
        )
        .unwrap()
    }

    fn context(&self, server: &str, root: &Ca) -> String {
        let name = "admin".parse().unwrap();
        let (key, leaf) = self.issue(Identity::User {
            trust_domain: self.trust_domain.clone(),
            name,
        });
        let block = |text: &str| text.lines().map(|line| format!("      {line}\n")).collect::<String>();
        format!(
            "current: test\ncontexts:\n  - name: test\n    server: {server}\n    trust_domain: example.muster\n    \
             ca: |\n{}    certificate: |\n{}    key: |\n{}",
            block(&root.certificate_pem()),
            block(&pem::encode_certificates([&leaf, self.issuing.certificate_der()])),
            block(&key.to_pem()),
        )
    }

    fn issue(&self, identity: Identity) -> (KeyPair, muster_certs::CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        // The terminal's clock stands still and TLS has its own: a year holds both.
        let validity = SystemTime::now() - Duration::from_secs(3_600)..SystemTime::now() + ca::USER_LIFETIME * 12;
        let issued = self.issuing.issue(&identity, &key.public_key(), validity).unwrap();
        (key, issued.der)
    }
}

#[derive(Clone)]
struct Controller {
    script: Arc<Mutex<Script>>,
}

impl Controller {
    /// Every call goes through here: it is remembered, and perhaps fails or hangs.
    async fn answer<T: Debug, R>(
        &self,
        request: tonic::Request<T>,
        answer: impl FnOnce(&mut Script, T) -> R,
    ) -> Result<Response<R>, Status> {
        let answered = {
            let mut script = self.script.lock().unwrap();
            let message = request.into_inner();
            script.asked.push(format!("{message:?}"));
            if let Some(failure) = script.failures.pop_front() {
                return Err(failure);
            }
            (!script.silent).then(|| answer(&mut script, message))
        };
        match answered {
            Some(answer) => Ok(Response::new(answer)),
            None => std::future::pending().await,
        }
    }
}

/// A page of `all`; tokens are positions.
fn page<T: Clone>(all: &[T], largest: usize, asked: i32, token: &str) -> (Vec<T>, String) {
    let start: usize = token.parse().unwrap_or(0);
    let wanted = usize::try_from(asked).unwrap_or(0);
    let largest = if largest == 0 { all.len().max(1) } else { largest };
    let size = if wanted == 0 { largest } else { wanted.min(largest) };
    let end = (start + size).min(all.len());
    let next = if end < all.len() {
        end.to_string()
    } else {
        String::new()
    };
    (all[start.min(end)..end].to_vec(), next)
}
