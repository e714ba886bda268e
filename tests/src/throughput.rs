//! What an enrollment costs the controller, beside what nobody can do without: a connection with TLS on both sides, and a
//! signature. Time of the CPU and not of a clock, so that it is a figure of the controller and not of the machine's load.
//! Whether what was answered is durable is tried by killing the controller.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use hyper_util::rt::TokioIo;
use muster_certs::{
    Identity,
    ca::{self, Ca},
    csr,
    identity_file::IdentityFile,
    key::KeyPair,
    pem,
    rustls::ClientConfig,
    tls,
    tokio_rustls::{TlsConnector, client::TlsStream},
};
use muster_proto::{
    ids::AgentId,
    v1::{EnrollRequest, enrollment_service_client::EnrollmentServiceClient},
};
use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpStream, task::JoinSet};
use tonic::transport::Endpoint;

use crate::{Controller, dial};

/// More are waited for all the same; a machine with few cores has nothing of more at a time.
const PARALLEL: usize = 64;
/// Before anything is measured: pages of memory, the code of the first call, the first keys.
const WARM_UP: usize = 100;

/// Enrolls that many machines, each on a connection of its own as machines do, and measures the floor as often.
///
/// # Panics
/// When an enrollment is refused or not there after the controller was killed: the figure would be none.
pub fn measure(enrollments: usize) -> Value {
    let mut controller = Controller::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let uses = (enrollments + WARM_UP).to_string();
    let token = controller.token(&["--uses", &uses]).secret;

    let signing = signing(enrollments);
    runtime.block_on(enroll_all(&controller, requests(&token, 0..WARM_UP)));
    let requests = requests(&token, WARM_UP..enrollments + WARM_UP);
    let (before, start) = (cpu(&mut controller), Instant::now());
    let identity = runtime
        .block_on(enroll_all(&controller, requests))
        .expect("one was enrolled at least");
    let (enrolling, took) = (cpu(&mut controller) - before, start.elapsed());

    // Killed before anything else, so that nothing of it is durable by another's doing.
    controller.kill();
    controller.run();
    let stored = controller
        .ctl()
        .items(&["agent", "list"])
        .expect("the agents are listed")
        .len();
    assert_eq!(stored, enrollments + WARM_UP, "all that was answered is there");

    runtime.block_on(connect_all(&controller, &identity, WARM_UP));
    let before = cpu(&mut controller);
    runtime.block_on(connect_all(&controller, &identity, enrollments));
    let connecting = cpu(&mut controller) - before;

    let each = |total: Duration| total.as_secs_f64() * 1e3 / enrollments as f64;
    let floor = each(connecting) + each(signing);
    json!({
        "enrollments": enrollments,
        "stored_after_kill": stored - WARM_UP,
        "database": if controller.database_url().is_some() { "postgresql" } else { "sqlite" },
        "parallel": PARALLEL,
        "controller_cpu_ms_per_enrollment": rounded(each(enrolling)),
        "enrollments_per_cpu_second": rounded(enrollments as f64 / enrolling.as_secs_f64()),
        "enrollments_per_second": rounded(enrollments as f64 / took.as_secs_f64()),
        "floor": {
            "mtls_connection_cpu_ms": rounded(each(connecting)),
            "signing_cpu_ms": rounded(each(signing)),
            "sum_cpu_ms": rounded(floor),
        },
        "ratio_to_floor": rounded(each(enrolling) / floor),
    })
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// User and system time of the controller so far.
fn cpu(controller: &mut Controller) -> Duration {
    let ticks = controller.process().cpu_ticks();
    Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64)
}

/// The time of this thread for as many certificates of agents.
fn signing(count: usize) -> Duration {
    let now = SystemTime::now();
    let root = Ca::create_root(&dial::trust_domain(), now).expect("a root");
    let issuing = Ca::create_issuing(&root, now).expect("an issuing CA");
    let key = KeyPair::generate().expect("a key").public_key();
    let identity = Identity::agent(&dial::trust_domain(), Default::default());
    let thread_time = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(
            time.tv_sec.unsigned_abs(),
            u32::try_from(time.tv_nsec).unwrap_or_default(),
        )
    };
    let start = thread_time();
    for _ in 0..count {
        let validity = ca::backdated(now, ca::USER_LIFETIME);
        issuing.issue(&identity, &key, validity).expect("a certificate");
    }
    thread_time() - start
}

fn requests(token: &str, machines: std::ops::Range<usize>) -> Vec<(KeyPair, EnrollRequest)> {
    let request = |machine| {
        let key = KeyPair::generate().expect("a key");
        let request = EnrollRequest {
            token: token.to_owned(),
            agent_id: AgentId::random().to_string(),
            csr: csr::create(&key).expect("a request"),
            name: format!("machine-{machine}"),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..EnrollRequest::default()
        };
        (key, request)
    };
    machines.map(request).collect()
}

/// One of the identities that came of it.
async fn enroll_all(controller: &Controller, requests: Vec<(KeyPair, EnrollRequest)>) -> Option<IdentityFile> {
    let config = config(controller, None);
    let port = controller.agents_port;
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..PARALLEL {
        let (config, requests, next) = (config.clone(), requests.clone(), next.clone());
        workers.spawn(async move {
            let mut identity = None;
            while let Some((key, request)) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut stream = Some(TokioIo::new(connect(&config, port).await));
                let connector = tower::service_fn(move |_: http::Uri| {
                    let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
                    async { stream.map_err(std::io::Error::from) }
                });
                let endpoint = Endpoint::from_static("http://controller");
                let channel = endpoint.connect_with_connector(connector).await.expect("HTTP/2");
                let enrolled = EnrollmentServiceClient::new(channel).enroll(request.clone()).await;
                let chain = enrolled.expect("an enrollment").into_inner().certificates;
                identity.get_or_insert_with(|| {
                    let key = KeyPair::from_pem(&key.to_pem()).expect("the key");
                    IdentityFile::new(key, chain.into_iter().map(Into::into).collect()).expect("an identity")
                });
            }
            identity
        });
    }
    workers.join_all().await.into_iter().flatten().next()
}

/// As many connections on which nothing is asked.
async fn connect_all(controller: &Controller, identity: &IdentityFile, count: usize) {
    let config = config(controller, Some(identity));
    let port = controller.agents_port;
    let left = Arc::new(AtomicUsize::new(count));
    let mut workers = JoinSet::new();
    for _ in 0..PARALLEL {
        let (config, left) = (config.clone(), left.clone());
        workers.spawn(async move {
            let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            while take().is_ok() {
                let mut stream = connect(&config, port).await;
                // Its first bytes show that the controller has verified the certificate.
                let _ = stream.read_u8().await.expect("the controller says something");
            }
        });
    }
    workers.join_all().await;
}

fn config(controller: &Controller, identity: Option<&IdentityFile>) -> Arc<ClientConfig> {
    let roots = fs::read_to_string(controller.data_dir().join("pki/root.pem")).expect("the root");
    let roots = pem::certificates(&roots).expect("a certificate");
    tls::operator(&roots, &dial::trust_domain(), identity).expect("a configuration")
}

async fn connect(config: &Arc<ClientConfig>, port: u16) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    tcp.set_nodelay(true).expect("an option");
    TlsConnector::from(config.clone())
        .connect(tls::server_name("127.0.0.1"), tcp)
        .await
        .expect("TLS")
}
