//! The agent's end of a link in the hand of a test: frames are sent and received one by one, with the identity that the
//! real agent enrolled. For what no real agent does, and for what it does unseen.

use std::{io, time::Duration};

use hyper_util::rt::TokioIo;
use muster_certs::{
    identity_file::IdentityFile,
    pem, tls,
    tokio_rustls::{TlsConnector, client::TlsStream},
};
use muster_proto::v1::{
    ConnectRequest, ConnectResponse, connect_request, connect_response, link_service_client::LinkServiceClient,
};
use tokio::{net::TcpStream, runtime::Runtime, sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use crate::{Controller, agent::Setup};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Link {
    requests: mpsc::Sender<ConnectRequest>,
    frames: Streaming<ConnectResponse>,
    runtime: Runtime,
}

impl Link {
    /// Connects with the identity of an enrolled agent. Nothing has been sent yet.
    pub fn connect(controller: &Controller, setup: &Setup) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(text)?;
        let (requests, outbound) = mpsc::channel(64);
        let frames = runtime.block_on(async {
            let channel = dial(controller, setup).await.map_err(text)?;
            let call = LinkServiceClient::new(channel)
                .connect(ReceiverStream::new(outbound))
                .await;
            call.map(tonic::Response::into_inner).map_err(text)
        })?;
        Ok(Self {
            requests,
            frames,
            runtime,
        })
    }

    pub fn send(&mut self, frame: connect_request::Frame) -> Result<(), String> {
        let request = ConnectRequest { frame: Some(frame) };
        self.runtime
            .block_on(async { time::timeout(PATIENCE, self.requests.send(request)).await })
            .map_err(text)?
            .map_err(text)
    }

    /// The next frame that means something to this side.
    pub fn receive(&mut self) -> Result<connect_response::Frame, String> {
        loop {
            let message = self
                .runtime
                .block_on(async { time::timeout(PATIENCE, self.frames.message()).await });
            match message.map_err(text)?.map_err(text)? {
                Some(ConnectResponse { frame: Some(frame) }) => return Ok(frame),
                Some(ConnectResponse { frame: None }) => {}
                None => return Err("the stream has ended".to_owned()),
            }
        }
    }
}

async fn dial(controller: &Controller, setup: &Setup) -> Result<Channel, Box<dyn std::error::Error>> {
    let identity = IdentityFile::load(&setup.path("state/identity.pem"))?;
    let roots = pem::certificates(&std::fs::read_to_string(controller.data_dir().join("pki/root.pem"))?)?;
    let tls = tls::link(&roots, identity.identity().trust_domain(), &identity)?;
    let tcp = TcpStream::connect(controller.endpoint()).await?;
    tcp.set_nodelay(true)?;
    let stream = TlsConnector::from(tls)
        .connect(tls::server_name("127.0.0.1"), tcp)
        .await?;
    let mut stream: Option<TokioIo<TlsStream<TcpStream>>> = Some(TokioIo::new(stream));
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

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
