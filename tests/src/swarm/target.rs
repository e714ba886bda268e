//! The controller that a swarm turns to: one that is there, or one of its own. How to reach it, what it uses of the machine,
//! and how to kill it. What it knows is asked in `ask.rs`.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use muster_certs::pin::Pin;

use super::{
    cli::{TargetArgs, resolve},
    usage,
};
use crate::Controller;

/// From the start of the process to its first listener.
const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub host: String,
    pub pins: Vec<Pin>,
    pub token: String,
    /// The context file of an admin.
    pub context: PathBuf,
    own: Option<Box<Controller>>,
    pid: Option<u32>,
    /// CPU of processes of it that have ended.
    spent: Duration,
}

impl Target {
    /// # Panics
    /// When a controller of its own does not start: the harness tells why.
    pub fn open(args: &TargetArgs, agents: u32) -> anyhow::Result<Self> {
        if args.start_controller {
            let settings = match &args.settings {
                Some(file) => fs::read_to_string(file).with_context(|| file.display().to_string())?,
                None => String::new(),
            };
            return Self::start(&settings, agents);
        }
        let (Some(controller), Some(token), Some(context)) = (&args.controller, &args.token_file, &args.context) else {
            bail!("--controller, --token-file and --context belong together");
        };
        let token = fs::read_to_string(token).with_context(|| token.display().to_string())?;
        let address = resolve(controller).with_context(|| format!("no controller at {controller}"))?;
        Ok(Self {
            address,
            host: controller.rsplit_once(':').map_or("", |(host, _)| host).to_owned(),
            pins: args.pin.clone(),
            token: token.trim().to_owned(),
            context: context.clone(),
            own: None,
            pid: args.pid,
            spent: Duration::ZERO,
        })
    }

    /// A controller of its own with these lines in its `server.yaml`.
    pub fn start(settings: &str, agents: u32) -> anyhow::Result<Self> {
        let mut controller = Controller::start_with(settings);
        let token = controller.token(&["--uses", &agents.to_string()]);
        Ok(Self {
            address: SocketAddr::from(([127, 0, 0, 1], controller.agents_port)),
            host: "127.0.0.1".to_owned(),
            pins: vec![token.pin.parse()?],
            token: token.secret,
            context: controller.path("tester.yaml"),
            pid: Some(controller.process().pid()),
            own: Some(Box::new(controller)),
            spent: Duration::ZERO,
        })
    }

    /// What kind of database a controller of its own has.
    pub fn database(&self) -> Option<&'static str> {
        let own = self.own.as_ref()?;
        Some(if own.database_url().is_some() {
            "postgresql"
        } else {
            "sqlite"
        })
    }

    /// Of all its processes so far; nothing when it is not on this machine.
    pub fn cpu(&self) -> Option<Duration> {
        Some(self.spent + usage::cpu(self.pid?).ok()?)
    }

    /// Bytes.
    pub fn memory(&self) -> Option<u64> {
        usage::memory(self.pid?).ok()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.spent = self.cpu().unwrap_or(self.spent);
        self.pid = None;
        if let Some(own) = &mut self.own {
            own.kill();
        }
    }

    /// Starts it again and returns once it listens to agents.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        let Some(own) = &mut self.own else {
            bail!("only a controller of the swarm's own can be started again");
        };
        own.launch();
        self.pid = Some(own.process().pid());
        let started = Instant::now();
        loop {
            match TcpStream::connect_timeout(&self.address, Duration::from_secs(1)) {
                Ok(_) => return Ok(()),
                Err(_) if !own.is_running() => bail!("the controller has ended:\n{}", own.log()),
                Err(error) if started.elapsed() > START => {
                    return Err(error).context("the controller does not listen");
                }
                Err(error) => pause(&error),
            }
        }
    }

    /// The end of what a controller of its own has said.
    pub fn log_tail(&self) -> String {
        let log = self.own.as_ref().map(|own| own.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "between two looks at a listener, on a thread that has nothing else to do"
)]
fn pause(_: &io::Error) {
    std::thread::sleep(Duration::from_millis(5));
}
