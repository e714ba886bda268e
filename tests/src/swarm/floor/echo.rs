//! The process at the other end of the floor: an echo on a bare server. A number on its input sends one frame to all links, and
//! the seconds until so many have answered are printed.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures_util::stream::{self, BoxStream};
use muster_proto::v1::{
    ConnectRequest, ConnectResponse, ControllerHeartbeat,
    connect_request::Frame as In,
    connect_response::Frame as Out,
    link_service_server::{LinkService, LinkServiceServer},
};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
};
use tonic::{Request, Response, Status, Streaming};

use super::frames;
use crate::bare::Bare;

#[derive(Clone)]
struct Echo(Arc<Shared>);

struct Shared {
    to_all: watch::Sender<u64>,
    frame: ConnectResponse,
    answers: AtomicU64,
    wanted: AtomicU64,
    all_answered: Notify,
}

/// Until its input ends.
pub async fn serve() -> anyhow::Result<()> {
    let bare = Bare::listen()?;
    let echo = Echo(Arc::new(Shared {
        to_all: watch::Sender::new(0),
        frame: frames::to_all(),
        answers: AtomicU64::new(0),
        wanted: AtomicU64::new(u64::MAX),
        all_answered: Notify::new(),
    }));
    tokio::select! {
        () = bare.serve(LinkServiceServer::new(echo.clone())) => Ok(()),
        obeyed = obey(&echo.0) => obeyed,
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
                        In::PolicyStatus(_) => echo.0.answered(),
                        _ => break false,
                    },
                    Ok(()) = to_all.changed() => break true,
                }
            };
            let frame = match is_asked {
                true => echo.0.frame.clone(),
                false => ConnectResponse {
                    frame: Some(Out::Heartbeat(ControllerHeartbeat::default())),
                },
            };
            Some((Ok(frame), (echo, inbound, to_all)))
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
