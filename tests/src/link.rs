//! The agent's end of a link in the hand of a test: frames are sent and received one by one, with the identity that the
//! real agent enrolled. For what no real agent does, and for what it does unseen.

use std::time::Duration;

use muster_certs::identity_file::IdentityFile;
use muster_proto::v1::{
    ConnectRequest, ConnectResponse, connect_request, connect_response, link_service_client::LinkServiceClient,
};
use tokio::{runtime::Runtime, sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{Controller, agent::Setup, dial};

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
            let identity = IdentityFile::load(&setup.path("state/identity.pem")).map_err(text)?;
            let channel = dial::channel(controller, controller.agents_port, Some(&identity))
                .await
                .map_err(text)?;
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

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
