//! A machine in the hands of a test: it enrolls, renews and connects call by call, as any program could, and shows what it was
//! answered. For what no real agent does, and for what it does unseen; the real one is `agent.rs`.

use std::path::Path;

use muster_certs::{csr, identity_file::IdentityFile, key::KeyPair};
use muster_proto::{
    error::{Problem, reason_name},
    v1::{
        ConnectRequest, ConnectResponse, EnrollRequest, EnrollResponse, Fingerprint, GetTrustBundleRequest,
        GetTrustBundleResponse, Hello, RenewRequest, connect_request::Frame,
        enrollment_service_client::EnrollmentServiceClient, link_service_client::LinkServiceClient,
    },
};
use tokio::{runtime::Runtime, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{Controller, dial};

/// A key with which requests are signed.
#[derive(Debug)]
pub struct Peer {
    pub key: KeyPair,
    pub name: String,
}

/// A link that was let in.
#[derive(Debug)]
pub struct Link {
    frames: Streaming<ConnectResponse>,
    _requests: mpsc::Sender<ConnectRequest>,
    runtime: Runtime,
}

impl Peer {
    /// With a key of its own.
    pub fn new(name: &str) -> Self {
        Self {
            key: KeyPair::generate().expect("a key"),
            name: name.to_owned(),
        }
    }

    /// What it enrolls with; without an id, which the controller makes then.
    pub fn request(&self, token: &str) -> EnrollRequest {
        EnrollRequest {
            token: token.to_owned(),
            csr: csr::create(&self.key).expect("a request"),
            name: self.name.clone(),
            agent_version: "1".to_owned(),
            ..EnrollRequest::default()
        }
    }

    pub fn enroll(&self, controller: &Controller, token: &str) -> Result<EnrollResponse, Status> {
        one(enroll_all(controller, vec![self.request(token)]))
    }

    /// The same as the agent with this id.
    pub fn enroll_as(&self, controller: &Controller, token: &str, id: &str) -> Result<EnrollResponse, Status> {
        let mut request = self.request(token);
        request.agent_id = id.to_owned();
        one(enroll_all(controller, vec![request]))
    }

    /// The identity that it has by an answer.
    pub fn identity(&self, certificates: Vec<Vec<u8>>) -> IdentityFile {
        let key = KeyPair::from_pem(&self.key.to_pem()).expect("a key");
        let chain = certificates.into_iter().map(Into::into).collect();
        IdentityFile::new(key, chain).expect("an identity")
    }
}

/// Each on a connection of its own, all at the same moment.
pub fn enroll_all(controller: &Controller, requests: Vec<EnrollRequest>) -> Vec<Result<EnrollResponse, Status>> {
    runtime().block_on(async {
        let mut channels = Vec::new();
        for _ in &requests {
            let channel = dial::channel(controller, controller.agents_port, None).await;
            channels.push(channel.expect("a connection"));
        }
        let mut calls = JoinSet::new();
        for (at, (request, channel)) in requests.into_iter().zip(channels).enumerate() {
            calls.spawn(async move {
                let answer = EnrollmentServiceClient::new(channel).enroll(request).await;
                (at, answer.map(tonic::Response::into_inner))
            });
        }
        let mut answers = calls.join_all().await;
        answers.sort_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    })
}

/// Renews with what `identity` shows, for a new key. The new certificate is not used by that.
pub fn renew(controller: &Controller, identity: &IdentityFile) -> Result<IdentityFile, Status> {
    let next = Peer::new("");
    let renewed = runtime().block_on(async {
        let request = RenewRequest {
            csr: csr::create(&next.key).expect("a request"),
            ..RenewRequest::default()
        };
        let mut client = EnrollmentServiceClient::new(channel(controller, identity).await?);
        client.renew(request).await.map(tonic::Response::into_inner)
    })?;
    Ok(next.identity(renewed.certificates))
}

/// A call that any certificate that counts may make, and that puts it into use.
pub fn use_certificate(controller: &Controller, identity: &IdentityFile) -> Result<GetTrustBundleResponse, Status> {
    runtime().block_on(async {
        let mut client = EnrollmentServiceClient::new(channel(controller, identity).await?);
        let answer = client.get_trust_bundle(GetTrustBundleRequest {}).await?;
        Ok(answer.into_inner())
    })
}

impl Link {
    /// A link up to Welcome.
    pub fn connect(controller: &Controller, identity: &IdentityFile) -> Result<Self, Status> {
        let runtime = runtime();
        let (requests, outbound) = mpsc::channel(4);
        let frames = runtime.block_on(async {
            let frame = Some(Frame::Hello(Hello {
                agent_id: agent_id(identity),
                agent_version: "1".to_owned(),
                protocol_version: 1,
                fingerprint: Some(Fingerprint {
                    process_nonce: identity.serial().to_owned(),
                    ..Fingerprint::default()
                }),
                ..Hello::default()
            }));
            let channel = channel(controller, identity).await?;
            requests.send(ConnectRequest { frame }).await.map_err(closed)?;
            let call = LinkServiceClient::new(channel)
                .connect(ReceiverStream::new(outbound))
                .await;
            let mut frames = call?.into_inner();
            frames.message().await?;
            Ok::<_, Status>(frames)
        })?;
        Ok(Self {
            frames,
            _requests: requests,
            runtime,
        })
    }

    /// Why it ends, as soon as it does.
    pub fn end(mut self) -> Option<Status> {
        self.runtime.block_on(async {
            loop {
                match self.frames.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(status) => return Some(status),
                }
            }
        })
    }
}

/// The reason in a refusal: `CERTIFICATE_REVOKED`.
pub fn reason(status: &Status) -> &'static str {
    match Problem::from_status(status) {
        Some(problem) => reason_name(problem.reason),
        None => "none",
    }
}

/// The UUID in an identity.
pub fn agent_id(identity: &IdentityFile) -> String {
    let uri = identity.identity().to_string();
    uri.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The identity of a real agent, as it is on its disk.
///
/// # Panics
/// When there is none.
pub fn load(path: &Path) -> IdentityFile {
    IdentityFile::load(path).expect("an identity")
}

async fn channel(controller: &Controller, identity: &IdentityFile) -> Result<tonic::transport::Channel, Status> {
    let channel = dial::channel(controller, controller.agents_port, Some(identity)).await;
    channel.map_err(closed)
}

fn closed(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("no connection: {error}"))
}

fn one<T>(answers: Vec<T>) -> T {
    answers.into_iter().next().expect("an answer for each request")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
