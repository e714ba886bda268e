//! The floor: what links cost when nothing stands on them. The same TLS, the same HTTP/2 and the same generated code as those
//! of a controller, and behind it an echo, in a process of its own. What a controller needs beyond it is the controller's.

mod echo;
mod frames;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use http::Uri;
use muster_certs::rustls::ClientConfig;
use muster_proto::v1::{
    ConnectRequest, Heartbeat, Lane, Record, Records, connect_request::Frame as Out, connect_response::Frame as In,
    link_service_client::LinkServiceClient, record::Body,
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use echo::serve;

use super::{
    figure::{per_second, rounded, seconds},
    progress::say,
    traffic, usage,
    wire::{self, Route},
};
use crate::{bare::Door, process};

/// On each link, before its memory is taken once more; and batches of metrics, before it is taken a third time.
const MESSAGES: u64 = 200;
const BATCHES: u64 = 20;
const SERIES: u32 = 100;
/// In which each link says one thing and hears one, as agents do.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Links that are made at the same time.
const PARALLEL: usize = 64;
const SETTLE: Duration = Duration::from_secs(2);
/// Without any progress.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// The other process, ended with this value.
struct Echo {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// What all links have in common.
struct Links {
    tasks: TaskTracker,
    stop: CancellationToken,
    up: AtomicU64,
    echoed: AtomicU64,
    talk: watch::Sender<Talk>,
    /// To the frame that goes to all.
    answer: ConnectRequest,
}

/// So many messages on each link, each after the echo of the one before; links begin one after the other within this time.
#[derive(Debug, Clone, Copy, Default)]
struct Talk {
    messages: u64,
    of: Message,
    within: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
enum Message {
    #[default]
    Heartbeat,
    Batch,
}

/// # Errors
/// When the other process does not do as it should.
pub async fn measure(count: usize) -> anyhow::Result<Value> {
    say(&format!("the floor: {count} bare links"));
    let mut echo = Echo::start()?;
    let links = Arc::new(Links {
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        up: AtomicU64::new(0),
        echoed: AtomicU64::new(0),
        talk: watch::Sender::new(Talk::default()),
        answer: frames::answer(),
    });
    let measured = all(&mut echo, &links, count).await;
    links.stop.cancel();
    links.tasks.close();
    links.tasks.wait().await;
    measured
}

async fn all(echo: &mut Echo, links: &Arc<Links>, count: usize) -> anyhow::Result<Value> {
    let pid = echo.child.id();
    let empty = usage::memory(pid)?;
    let (start, before) = (Instant::now(), usage::cpu(pid)?);
    let mut next = 0;
    while next < count {
        let up = links.up.load(Ordering::Relaxed) as usize;
        while next < count && next < up + PARALLEL {
            let route = echo.route(next);
            links.tasks.spawn(link(links.clone(), route));
            next += 1;
        }
        sleep(Duration::from_millis(1)).await;
    }
    until("all links are up", &links.up, count as u64).await?;
    let (took, cpu) = (start.elapsed(), usage::cpu(pid)? - before);
    sleep(SETTLE).await;
    let idle = usage::memory(pid)?;

    let before = usage::cpu(pid)?;
    let to_last = echo.reach_all(count)?;
    let broadcast = usage::cpu(pid)? - before;

    let (start, before) = (Instant::now(), usage::cpu(pid)?);
    links.talk.send_replace(Talk {
        messages: 1,
        within: HEARTBEAT,
        ..Talk::default()
    });
    until("all heartbeats are echoed", &links.echoed, count as u64).await?;
    let heartbeats = (usage::cpu(pid)? - before).div_duration_f64(start.elapsed());

    links.talk.send_replace(Talk {
        messages: MESSAGES,
        ..Talk::default()
    });
    let wanted = (MESSAGES + 1) * count as u64;
    until("all messages are echoed", &links.echoed, wanted).await?;
    sleep(SETTLE).await;
    let talkative = usage::memory(pid)?;

    links.talk.send_replace(Talk {
        messages: BATCHES,
        of: Message::Batch,
        ..Talk::default()
    });
    let wanted = wanted + BATCHES * count as u64;
    until("all batches are echoed", &links.echoed, wanted).await?;
    sleep(SETTLE).await;
    let busy = usage::memory(pid)?;
    let kib = |bytes: u64| rounded((bytes as f64 - empty as f64) / count as f64 / 1024.0);
    Ok(json!({
        "links": count,
        "connect_seconds": seconds(took),
        "connects_per_cpu_second": per_second(count, cpu),
        "cpu_ms_per_connect": rounded(cpu.as_secs_f64() * 1e3 / count as f64),
        "cpu_percent_with_heartbeats": rounded(heartbeats * 100.0),
        "kib_per_link_idle": kib(idle),
        "kib_per_link_after_messages": kib(talkative),
        "kib_per_link_after_traffic": kib(busy),
        "broadcast_to_last_answer_s": rounded(to_last),
        "broadcast_cpu_us_per_link": rounded(broadcast.as_secs_f64() * 1e6 / count as f64),
    }))
}

/// As long as it gets more there is hope.
async fn until(what: &str, counted: &AtomicU64, wanted: u64) -> anyhow::Result<()> {
    let (mut count, mut since) = (0, Instant::now());
    while count < wanted {
        let now = counted.load(Ordering::Relaxed);
        if now > count {
            (count, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE {
            bail!(
                "the floor: {what}: {count} of {wanted}, and no more for {} s",
                PATIENCE.as_secs()
            );
        }
        sleep(LOOK).await;
    }
    Ok(())
}

impl Echo {
    fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = process::command(program);
        command.arg("echo-server").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the floor does not start")?;
        let commands = child.stdin.take().context("it has an input")?;
        let mut answers = BufReader::new(child.stdout.take().context("it has an output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let door = Door::read(&line).context("the floor does not say where it is")?;
        Ok(Self {
            tls: door.tls,
            address: door.address,
            child,
            commands,
            answers,
        })
    }

    fn route(&self, index: usize) -> Route {
        Route {
            to: self.address,
            host: "127.0.0.1".to_owned(),
            from: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + (index / 500) as u8)),
            tls: self.tls.clone(),
        }
    }

    /// Seconds from the first frame to the last answer.
    fn reach_all(&mut self, count: usize) -> anyhow::Result<f64> {
        writeln!(self.commands, "{count}")?;
        self.commands.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().context("the floor does not answer")
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One link: answers frames that were not asked for, and talks when it is to. A link that breaks is missed by its owner.
async fn link(links: Arc<Links>, route: Route) {
    let Ok((wire, running)) = wire::open(&route, links.stop.clone(), &links.tasks).await else {
        return;
    };
    let talking = Box::pin(async {
        let (outgoing, frames) = mpsc::channel(2);
        let mut client = LinkServiceClient::with_origin(wire, Uri::from_static("http://controller"));
        let mut incoming = client.connect(ReceiverStream::new(frames)).await.ok()?.into_inner();
        links.up.fetch_add(1, Ordering::Relaxed);
        let mut talk = links.talk.subscribe();
        let (mut left, mut of, mut begins) = (0, Message::default(), None);
        loop {
            let begin = begins.unwrap_or_else(Instant::now);
            tokio::select! {
                frame = incoming.message() => match frame.ok()??.frame? {
                    In::PolicySync(_) => outgoing.send(links.answer.clone()).await.ok()?,
                    _ => {
                        links.echoed.fetch_add(1, Ordering::Relaxed);
                        left -= 1;
                        if left > 0 {
                            outgoing.send(of.frame(left)).await.ok()?;
                        }
                    }
                },
                Ok(()) = talk.changed() => {
                    let talk = *talk.borrow_and_update();
                    (left, of) = (talk.messages, talk.of);
                    begins = Some(Instant::now() + talk.within.mul_f64(rand::random()));
                }
                () = sleep_until(begin.into()), if begins.is_some() => {
                    begins = None;
                    outgoing.send(of.frame(left)).await.ok()?;
                }
                () = links.stop.cancelled() => return Some(()),
            }
        }
    });
    tokio::select! {
        _ = talking => {}
        () = running => {}
    }
}

impl Message {
    fn frame(self, number: u64) -> ConnectRequest {
        match self {
            Message::Heartbeat => ConnectRequest {
                frame: Some(Out::Heartbeat(Heartbeat::default())),
            },
            Message::Batch => ConnectRequest {
                frame: Some(Out::Records(Records {
                    lane: Lane::Metrics.into(),
                    records: vec![Record {
                        time_unix_micros: 0,
                        body: Some(Body::Metrics(traffic::batch(SERIES, number))),
                    }],
                    ..Records::default()
                })),
            },
        }
    }
}
