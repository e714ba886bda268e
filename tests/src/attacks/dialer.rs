//! Connections of an attacker: from any loopback address, with any certificate or none, and what became of them in a few
//! words. It believes every server; nothing of it is fit for anything but attacks.

use std::{
    collections::VecDeque,
    convert::Infallible,
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    body::{Body, Bytes, Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use muster_certs::{
    rustls::{
        self, ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion,
        client::{
            ResolvesClientCert,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        pki_types::{CertificateDer, ServerName, UnixTime},
        sign::CertifiedKey,
        version::TLS13,
    },
    tls,
    tokio_rustls::{TlsConnector, client::TlsStream},
};
use muster_proto::error::{Problem, code_name, reason_name};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tonic::{Code, Status};

use super::forge::Credentials;

/// The longest that an attacker waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What a connection that has ended still brings of a call.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Where an attack goes to and comes from.
#[derive(Clone, Copy, Debug)]
pub struct Dialer {
    pub agents_port: u16,
    pub api_port: u16,
    pub source: Ipv4Addr,
}

/// A call over HTTP/2 with a body that need not be any message.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<Vec<u8>>,
    /// Whether the body ends.
    pub ends: bool,
    pub patience: Duration,
}

impl Call {
    /// A proper call of gRPC with this as its only message.
    pub fn grpc(path: &str, message: &[u8]) -> Self {
        let length = (message.len() as u32).to_be_bytes();
        Self::framed(path, [&[0], length.as_slice(), message].concat())
    }

    /// The same over REST. `body`: JSON, for what takes one.
    pub fn rest(method: &'static str, path: &str, body: Option<&str>) -> Self {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        Self {
            method,
            path: path.to_owned(),
            headers: body
                .iter()
                .map(|_| header("content-type", "application/json"))
                .collect(),
            body: body.iter().map(|body| body.as_bytes().to_vec()).collect(),
            ends: true,
            patience: PATIENCE,
        }
    }

    /// One whose frames are made by the caller.
    pub fn framed(path: &str, body: Vec<u8>) -> Self {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        Self {
            method: "POST",
            path: path.to_owned(),
            headers: vec![header("content-type", "application/grpc"), header("te", "trailers")],
            body: vec![body],
            ends: true,
            patience: PATIENCE,
        }
    }

    /// With this header, instead of one of the same name.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }
}

impl Dialer {
    /// The same from 127.<network>.0.<host>: whoever misbehaves there harms no other case.
    pub fn from(self, network: u8, host: u8) -> Self {
        Self {
            source: Ipv4Addr::new(127, network, 0, host),
            ..self
        }
    }

    pub fn ports(&self) -> [u16; 2] {
        [self.agents_port, self.api_port]
    }

    pub async fn tcp(&self, port: u16) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((self.source, 0)))?;
        let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// As a client of ours would, but for the certificate.
    pub async fn tls(&self, port: u16, client: Option<&Credentials>) -> Result<TlsStream<TcpStream>, String> {
        self.tls_with(port, client, &[&TLS13], &[b"h2"]).await
    }

    pub async fn tls_with(
        &self,
        port: u16,
        client: Option<&Credentials>,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> Result<TlsStream<TcpStream>, String> {
        let connect = async {
            let tcp = self.tcp(port).await?;
            let connector = TlsConnector::from(Arc::new(config(client, versions, protocols)));
            connector.connect(tls::server_name("controller"), tcp).await
        };
        match timeout(PATIENCE, connect).await {
            Ok(connected) => connected.map_err(|error| ending(&error)),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    /// Makes a call on a connection of its own. What comes back is a status with its reason, or how the connection ended.
    pub async fn call(&self, port: u16, client: Option<&Credentials>, call: Call) -> String {
        match self.tls(port, client).await {
            Ok(stream) => answer(stream, call).await,
            Err(ending) => ending,
        }
    }
}

async fn answer(stream: TlsStream<TcpStream>, call: Call) -> String {
    let patience = call.patience;
    let answered = async {
        let (mut sender, connection) = match http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await {
            Ok(parts) => parts,
            Err(error) => return ending(&error),
        };
        let mut connection = std::pin::pin!(connection);
        let mut request = http::Request::builder()
            .method(call.method)
            .uri(format!("https://controller{}", call.path));
        for (name, value) in &call.headers {
            request = request.header(name.as_str(), value.as_slice());
        }
        let chunks = call.body.into_iter().map(Bytes::from).collect();
        let body = Chunks {
            chunks,
            ends: call.ends,
        };
        let request = match request.body(body) {
            Ok(request) => request,
            Err(error) => return format!("not sent: {error}"),
        };
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| ending(&error))?;
            status(response).await
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = exchange.as_mut() => answer.unwrap_or_else(|ending| ending),
            // What ended the connection is known here, and by the call only that it was ended.
            ended = connection.as_mut() => match ended {
                Err(error) => ending(&error),
                // A call that had not begun by then waits for ever.
                Ok(()) => match timeout(LAST_WORD, exchange).await {
                    Ok(answer) => answer.unwrap_or_else(|ending| ending),
                    Err(_) => "closed".to_owned(),
                },
            },
        }
    };
    timeout(patience, answered)
        .await
        .unwrap_or_else(|_| "no answer".to_owned())
}

async fn status(response: http::Response<Incoming>) -> Result<String, String> {
    let (head, mut body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Ok(text(&status));
    }
    let is_problem = head
        .headers
        .get("content-type")
        .is_some_and(|value| value == "application/problem+json");
    // These two say more than the code of the problem.
    if is_problem && ![405, 415].contains(&head.status.as_u16()) {
        return Ok(problem(&mut body).await);
    }
    if head.status != http::StatusCode::OK {
        return Ok(format!("HTTP {}", head.status.as_u16()));
    }
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| ending(&error))?;
        if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
            return Ok(text(&status));
        }
    }
    Ok("HTTP 200".to_owned())
}

/// What went wrong over REST, in the words of gRPC.
async fn problem(body: &mut Incoming) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        bytes.extend(frame.into_data().unwrap_or_default());
    }
    let problem: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    match (problem["code"].as_str(), problem["reason"].as_str()) {
        (Some(code), Some(reason)) => format!("{code} {reason}"),
        _ => format!("a problem that is none: {problem}"),
    }
}

/// `UNAUTHENTICATED TOKEN_INVALID`.
pub fn text(status: &Status) -> String {
    let code = code_name(status.code());
    match Problem::from_status(status) {
        Some(problem) => format!("{code} {}", reason_name(problem.reason)),
        None if status.code() == Code::Ok => "OK".to_owned(),
        None => format!("{code} without a reason"),
    }
}

/// How a connection ended, by the first cause that says so.
pub fn ending(error: &(dyn Error + 'static)) -> String {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref::<rustls::Error>() {
            return format!("TLS alert {alert:?}");
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return format!("TLS: {error}");
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            match io.get_ref() {
                Some(inner) => {
                    next = Some(inner);
                    continue;
                }
                None => return format!("closed ({})", io.kind()),
            }
        }
        // HTTP/2 shows what it met as text only.
        let text = error.to_string();
        if let Some((_, alert)) = text.split_once("received fatal alert: ") {
            return format!("TLS alert {alert}");
        }
        if text.contains("excessive load") {
            return "GOAWAY ENHANCE_YOUR_CALM".to_owned();
        }
        if ["close_notify", "connection closed", "broken pipe", "reset by peer"]
            .iter()
            .any(|end| text.contains(end))
        {
            return "closed".to_owned();
        }
        match error.source() {
            Some(source) => next = Some(source),
            None => return format!("closed: {text}"),
        }
    }
    "closed".to_owned()
}

fn config(
    client: Option<&Credentials>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(versions)
        .expect("versions that the library knows")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => builder.with_client_cert_resolver(Arc::new(Always(Arc::new(CertifiedKey::new(
            client.chain.clone(),
            Arc::clone(&client.key),
        ))))),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

/// Shows the same certificate to everybody, whatever it is and whoever is asked for.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A body that is sent piece by piece, and perhaps never ends.
struct Chunks {
    chunks: VecDeque<Bytes>,
    ends: bool,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.chunks.pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            None if self.ends => Poll::Ready(None),
            // Nobody wakes it, which is the point.
            None => Poll::Pending,
        }
    }
}
