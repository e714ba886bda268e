//! How long `musterctl` takes: to start, to make one call, and to list a fleet; beside a process that does nothing, and a bare
//! client that makes the same calls on a connection of its own. Times are of whole processes, from their start to their end.

use std::{
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use muster_proto::v1::{self, agent_service_client::AgentServiceClient};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tower::ServiceExt as _;

use crate::{
    Controller, api_latency, binaries,
    ctl::Outcome,
    dial,
    operators::Operator,
    process,
    swarm::figure::{median, rounded},
};

/// What the bare client is started with: port, file of roots, context file, and [`WHAT`] it lists.
pub const BARE: &str = "bare";

const STARTS: usize = 50;
const LISTS: usize = 5;
const WARM_UP: usize = 2;
/// What `musterctl` asks for when it wants the whole list.
const PAGE: i32 = 500;
/// One agent; all of them; all of them as JSON, over REST.
const WHAT: [&str; 3] = ["one", "all", "json"];

/// # Errors
/// When a call fails.
pub fn measure(agents: usize) -> anyhow::Result<Value> {
    let controller = Controller::start_with(api_latency::LIMITS);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async { api_latency::fill(&Operator::admin(&controller).await, agents).await })?;

    let context = controller.path("tester.yaml");
    let home = controller.path(".");
    let ctl = |arguments: &[&str]| {
        let mut command = process::clean_command(binaries::path("musterctl"), &home);
        command.arg("--config").arg(&context).args(arguments);
        command
    };
    let bare = |what: &str| {
        let mut command = process::clean_command(binaries::path("ctl-speed"), &home);
        command.args([BARE, &controller.api_port.to_string()]);
        command.arg(dial::roots(&controller)).arg(&context).arg(what);
        command
    };

    let nothing = || process::clean_command("/bin/true", &home);
    let [nothing, version, one, bare_one] = timed(
        STARTS,
        [
            &nothing,
            &|| ctl(&["version"]),
            &|| ctl(&["agent", "list", "--limit", "1", "-o", "json"]),
            &|| bare("one"),
        ],
    )?;
    let [all, table, bare_all, bare_json] = timed(
        LISTS,
        [
            &|| ctl(&["agent", "list", "-o", "json"]),
            &|| ctl(&["agent", "list"]),
            &|| bare("all"),
            &|| bare("json"),
        ],
    )?;

    let listed: Value = serde_json::from_str(&all.last)?;
    let items = listed["items"].as_array().map_or(0, Vec::len);
    anyhow::ensure!(items == agents, "{items} of {agents} agents were listed");
    let lines = table.last.lines().count();
    anyhow::ensure!(lines > agents, "the table has {lines} lines for {agents} agents");
    for bare in [&bare_all, &bare_json] {
        let counted: usize = bare.last.trim().parse()?;
        anyhow::ensure!(
            counted == agents,
            "the bare client has got {counted} of {agents} agents"
        );
    }
    Ok(json!({
        "agents": agents,
        "database": if controller.database_url().is_some() { "postgresql" } else { "sqlite" },
        "start": {
            "runs": STARTS,
            "nothing_ms": nothing.median(),
            "version_ms": version.median(),
            "list_one_ms": one.median(),
            "bare_call_ms": bare_one.median(),
        },
        "list": {
            "runs": LISTS,
            "json_ms": all.median(),
            "table_ms": table.median(),
            "bare_ms": bare_all.median(),
            "bare_json_ms": bare_json.median(),
            "ratio_of_json_to_bare": rounded(all.median() / bare_json.median()),
            "ratio_of_table_to_bare": rounded(table.median() / bare_all.median()),
            "bytes_of_json": all.last.len(),
            "bytes_of_table": table.last.len(),
        },
    }))
}

/// Runs of one command.
#[derive(Default)]
struct Timed {
    took: Vec<Duration>,
    /// What the last one has printed.
    last: String,
}

impl Timed {
    /// In milliseconds.
    fn median(&self) -> f64 {
        let millis = self.took.iter().map(|took| took.as_secs_f64() * 1e3).collect();
        median(millis).map_or(0.0, rounded)
    }
}

/// In turn, so that what slows the host down for a while slows all of them.
fn timed<const N: usize>(runs: usize, commands: [&dyn Fn() -> Command; N]) -> anyhow::Result<[Timed; N]> {
    let mut all = std::array::from_fn(|_| Timed::default());
    for run in 0..WARM_UP + runs {
        for (command, timed) in commands.iter().zip(&mut all) {
            let command = command();
            let start = Instant::now();
            let outcome = Outcome::of(command);
            let took = start.elapsed();
            anyhow::ensure!(outcome.code == 0, "{outcome}");
            timed.last = outcome.stdout;
            if run >= WARM_UP {
                timed.took.push(took);
            }
        }
    }
    Ok(all)
}

/// The process of the bare client: prints how many agents it has got.
pub fn bare(arguments: &[String]) -> ExitCode {
    match count(arguments) {
        Ok(count) => {
            println!("{count}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the bare client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn count(arguments: &[String]) -> anyhow::Result<usize> {
    let [port, roots, context, what] = arguments else {
        anyhow::bail!("port, roots, context, one of {WHAT:?}");
    };
    let port = port.parse()?;
    let identity = dial::operator(Path::new(context));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = dial::channel_to(port, Path::new(roots), Some(&identity)).await;
        let channel = channel
            .map_err(anyhow::Error::from_boxed)
            .context("it cannot connect")?;
        match what.as_str() {
            "json" => count_json(channel).await,
            "one" => count_messages(channel, 1).await,
            _ => count_messages(channel, PAGE).await,
        }
    })
}

/// Of one agent there is one page.
async fn count_messages(channel: Channel, page_size: i32) -> anyhow::Result<usize> {
    let mut client = AgentServiceClient::new(channel).max_decoding_message_size(16 << 20);
    let mut count = 0;
    let mut page_token = String::new();
    loop {
        let request = v1::ListAgentsRequest {
            page_size,
            page_token,
            ..v1::ListAgentsRequest::default()
        };
        let answer = client.list_agents(request).await?.into_inner();
        count += answer.items.len();
        page_token = answer.next_page_token;
        if page_token.is_empty() || page_size == 1 {
            return Ok(count);
        }
    }
}

async fn count_json(channel: Channel) -> anyhow::Result<usize> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        items: Vec<IgnoredAny>,
        #[serde(default)]
        next_page_token: String,
    }
    let mut count = 0;
    let mut page_token = String::new();
    loop {
        // As a whole, since it may hold anything.
        let encoded: String = page_token.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("http://controller/v1/agents?pageSize={PAGE}&pageToken={encoded}");
        let request = http::Request::get(path).body(tonic::body::Body::empty())?;
        let answer = channel.clone().oneshot(request).await?;
        let page: Page = serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;
        count += page.items.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(count);
        }
    }
}
