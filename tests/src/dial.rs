//! Connections to a controller as any program could open them: with an identity or without, and no further than the caller
//! wants. What is said on them is the test's.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hyper_util::rt::TokioIo;
use muster_certs::{
    identity::TrustDomain,
    identity_file::IdentityFile,
    pem, tls,
    tokio_rustls::{TlsConnector, client::TlsStream},
};
use muster_proto::document::{self, Node, Value};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::Controller;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// TLS to one of the controller's ports.
pub async fn tls(
    controller: &Controller,
    port: u16,
    identity: Option<&IdentityFile>,
) -> Result<TlsStream<TcpStream>, Error> {
    tls_over(&roots(controller), connected(port).await?, identity).await
}

/// The file with the root of the controller's CA.
pub fn roots(controller: &Controller) -> PathBuf {
    controller.data_dir().join("pki/root.pem")
}

async fn connected(port: u16) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn tls_over(
    roots: &Path,
    tcp: TcpStream,
    identity: Option<&IdentityFile>,
) -> Result<TlsStream<TcpStream>, Error> {
    let roots = pem::certificates(&fs::read_to_string(roots)?)?;
    let config = tls::operator(&roots, &trust_domain(), identity)?;
    Ok(TlsConnector::from(config)
        .connect(tls::server_name("127.0.0.1"), tcp)
        .await?)
}

/// The same, ready for gRPC.
pub async fn channel(controller: &Controller, port: u16, identity: Option<&IdentityFile>) -> Result<Channel, Error> {
    over(tls(controller, port, identity).await?).await
}

/// The same for whoever knows no more of the controller than a port and that file.
pub async fn channel_to(port: u16, roots: &Path, identity: Option<&IdentityFile>) -> Result<Channel, Error> {
    over(tls_over(roots, connected(port).await?, identity).await?).await
}

/// The same over a connection on which something was said before.
pub async fn channel_over(
    controller: &Controller,
    tcp: TcpStream,
    identity: Option<&IdentityFile>,
) -> Result<Channel, Error> {
    over(tls_over(&roots(controller), tcp, identity).await?).await
}

async fn over(tls: TlsStream<TcpStream>) -> Result<Channel, Error> {
    let mut stream = Some(TokioIo::new(tls));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async { stream }
    });
    Ok(Endpoint::from_static("http://controller")
        .connect_with_connector(connector)
        .await?)
}

/// The trust domain of every controller of the harness.
pub fn trust_domain() -> TrustDomain {
    "example.muster".parse().expect("a trust domain")
}

/// The identity in a context file of `musterctl`.
///
/// # Panics
/// When the file is not one.
pub fn operator(context_file: &Path) -> IdentityFile {
    IdentityFile::from_pem(&operator_pem(context_file)).expect("an identity")
}

/// The same as key and certificate in PEM, for programs that are not ours.
///
/// # Panics
/// When the file is not one.
pub fn operator_pem(context_file: &Path) -> String {
    let text = fs::read_to_string(context_file).expect("the context file");
    let documents = document::parse(&text).expect("YAML");
    let context = field(&documents[0], "contexts");
    let Value::Seq(contexts) = &context.value else {
        panic!("no contexts in {text}")
    };
    let part = |name: &str| match &field(&contexts[0], name).value {
        Value::String(text) => text.clone(),
        other => panic!("{name} is {other:?}"),
    };
    format!("{}\n{}", part("key"), part("certificate"))
}

fn field<'a>(node: &'a Node, name: &str) -> &'a Node {
    let Value::Map(entries) = &node.value else {
        panic!("no map in line {}", node.line)
    };
    let found = entries.iter().find(|(key, _)| key.text == name);
    &found.unwrap_or_else(|| panic!("no {name} in line {}", node.line)).1
}
