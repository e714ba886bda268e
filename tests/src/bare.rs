//! A server with nothing behind it: its own CA, an accept loop, TLS and HTTP/2 as a controller has them, and one service of the
//! generated code. What a controller needs beyond it is the controller's. Runs in a process of its own, and prints on its first
//! line how to get in.

use std::{convert::Infallible, fmt, net::SocketAddr, sync::Arc, time::SystemTime};

use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use muster_certs::{
    Identity,
    ca::{self, Ca},
    identity_file::IdentityFile,
    key::KeyPair,
    pem,
    rustls::ClientConfig,
    tls::{self, ClientAuthorities, ServerCertificate},
    tokio_rustls::TlsAcceptor,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::task::TaskTracker;
use tonic::{body::Body, codegen::Service};

use crate::dial;

/// Connections that the kernel keeps until they are taken.
const BACKLOG: u32 = 4_096;

/// A listener that nobody has connected to yet.
pub struct Bare {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

/// How to get in.
#[derive(Clone, Debug)]
pub struct Door {
    pub address: SocketAddr,
    pub tls: Arc<ClientConfig>,
}

impl fmt::Debug for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bare")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Bare {
    /// # Errors
    /// When it cannot listen.
    pub fn listen() -> anyhow::Result<Self> {
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
        Ok(Self { listener, acceptor })
    }

    /// Until it is dropped, or cannot accept any longer.
    pub async fn serve<S>(self, service: S)
    where
        S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        let connections = TaskTracker::new();
        while let Ok((stream, _)) = self.listener.accept().await {
            let (acceptor, service) = (self.acceptor.clone(), service.clone());
            connections.spawn(async move {
                let _ = stream.set_nodelay(true);
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = TowerToHyperService::new(service);
                let builder = http2::Builder::new(TokioExecutor::new());
                // A connection that breaks is the client's to notice.
                let _ = Box::pin(builder.serve_connection(TokioIo::new(stream), service)).await;
            });
        }
    }
}

impl Door {
    /// Of the first line that the process has printed.
    ///
    /// # Errors
    /// When it is no such line.
    pub fn read(line: &str) -> anyhow::Result<Self> {
        let hello: Value = serde_json::from_str(line)?;
        let part = |name: &str| hello[name].as_str().unwrap_or_default().to_owned();
        let identity = IdentityFile::from_pem(&part("identity"))?;
        let roots = pem::certificates(&part("root"))?;
        Ok(Self {
            address: part("address").parse()?,
            tls: tls::link(&roots, &dial::trust_domain(), &identity)?,
        })
    }
}
