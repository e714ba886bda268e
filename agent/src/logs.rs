//! The agent's own log as records: what it says at a level or above is kept for a second, and then goes the way of all records.
//! So that nothing that is said of a record of logs makes another one, the queue's own lines are left out, and those that are
//! about the lane of logs. Bounded by lines in a second and lines that wait; what is beyond is counted, and told of.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use muster_proto::v1::{Lane, LogBatch, LogEntry, LogSeverity, Record, record::Body};
use prost::Message as _;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::layer::{Context, Layer};

use crate::{
    clock::unix_micros,
    link::queue::{Recorder, lane_name},
};

/// The name of this log.
const SOURCE: &str = "agent";
/// Lines that are taken in a second, and lines that wait until the queue is open.
const PER_SECOND: u32 = 20;
const MAX_WAITING: usize = 256;
/// So many lines of one moment there are not: a clock that is further behind the last one was set back. Microseconds.
const SET_BACK: i64 = 100_000;
/// How long lines are gathered for one record.
const GATHER: Duration = Duration::from_secs(1);
/// A record is not larger than this, so that it fits into a frame with others.
const BATCH_BYTES: usize = 6 * 1024;
/// Of one line; what is longer is cut.
const MAX_MESSAGE: usize = 4 * 1024;
const MAX_FIELDS: usize = 16;
const MAX_VALUE: usize = 1024;
/// Modules whose lines would make records of records.
const LEFT_OUT: [&str; 2] = ["muster_agent::link::queue", "muster_agent::logs"];

/// What the agent has said and not recorded yet. Cheap to clone; takes nothing before it has a level.
#[derive(Clone, Debug, Default)]
pub struct OwnLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Debug)]
struct Waiting {
    level: LevelFilter,
    entries: Vec<LogEntry>,
    /// Microseconds; no two lines have one, until the clock is set back.
    last_at: i64,
    /// Since 1970, and what came in it.
    second: i64,
    in_second: u32,
    /// Since that was told last, and since the start.
    untold: u64,
    dropped: u64,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            level: LevelFilter::OFF,
            entries: Vec::new(),
            last_at: 0,
            second: 0,
            in_second: 0,
            untold: 0,
            dropped: 0,
        }
    }
}

impl OwnLog {
    pub fn set_level(&self, level: LevelFilter) {
        self.lock().level = level;
    }

    /// Lines that were not kept, since the start.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Until `shutdown`; what was said before is recorded then.
    pub async fn run(self, recorder: Recorder, shutdown: CancellationToken) {
        let gathered = async {
            loop {
                self.0.came.notified().await;
                sleep(GATHER).await;
                self.record(&recorder);
            }
        };
        let _: Option<()> = shutdown.run_until_cancelled(gathered).await;
        self.record(&recorder);
    }

    fn record(&self, recorder: &Recorder) {
        for batch in batches(self.take(unix_micros(SystemTime::now()))) {
            let time_unix_micros = batch.entries.first().map_or(0, |entry| entry.time_unix_micros);
            recorder.record(
                Lane::Logs,
                Record {
                    time_unix_micros,
                    body: Some(Body::Logs(batch)),
                },
            );
        }
    }

    /// All that waits, and how many lines are missing.
    fn take(&self, now: i64) -> Vec<LogEntry> {
        let mut waiting = self.lock();
        let mut entries = std::mem::take(&mut waiting.entries);
        let untold = std::mem::take(&mut waiting.untold);
        if untold > 0 {
            entries.push(LogEntry {
                time_unix_micros: waiting.time(now),
                severity: LogSeverity::Warning.into(),
                unit: "logs".to_owned(),
                message: format!("{untold} lines were dropped: more than {PER_SECOND} came in a second"),
                fields: [("dropped".to_owned(), untold.to_string())].into(),
            });
        }
        entries
    }

    fn push(&self, line: Line, now: i64) {
        let mut waiting = self.lock();
        let second = now / 1_000_000;
        if waiting.second != second {
            (waiting.second, waiting.in_second) = (second, 0);
        }
        if waiting.in_second >= PER_SECOND || waiting.entries.len() >= MAX_WAITING {
            waiting.untold += 1;
            waiting.dropped += 1;
            return;
        }
        waiting.in_second += 1;
        let entry = LogEntry {
            time_unix_micros: waiting.time(now),
            severity: line.severity.into(),
            unit: line.unit,
            message: line.message,
            fields: line.fields,
        };
        waiting.entries.push(entry);
        drop(waiting);
        self.0.came.notify_one();
    }

    /// Whether lines from there are taken at all.
    pub(crate) fn takes(&self, metadata: &Metadata<'_>) -> bool {
        let level = self.lock().level;
        let is_ours = metadata.target().starts_with("muster_");
        // What the libraries have to say is of interest only when it is bad.
        let level = if is_ours { level } else { level.min(LevelFilter::WARN) };
        metadata.is_event() && *metadata.level() <= level && !is_left_out(metadata.target())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// A time that no line before it has, unless the clock was set back.
    fn time(&mut self, now: i64) -> i64 {
        let is_set_back = self.last_at - now > SET_BACK;
        self.last_at = if is_set_back { now } else { now.max(self.last_at + 1) };
        self.last_at
    }
}

/// As a layer of the process's log.
impl<S: Subscriber> Layer<S> for OwnLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line {
            severity: severity(*metadata.level()),
            unit: unit(metadata.target()).to_owned(),
            message: String::new(),
            fields: BTreeMap::new(),
        };
        event.record(&mut line);
        let is_of_logs = line.fields.get("lane").is_some_and(|lane| {
            let lane = lane.as_str();
            lane == lane_name(Lane::Logs) || lane == Lane::Logs.as_str_name()
        });
        if !is_of_logs {
            self.push(line, unix_micros(SystemTime::now()));
        }
    }
}

/// One line as it was said.
#[derive(Debug)]
struct Line {
    severity: LogSeverity,
    unit: String,
    message: String,
    fields: BTreeMap<String, String>,
}

impl Line {
    fn add(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = cut(value, MAX_MESSAGE);
        } else if self.fields.len() < MAX_FIELDS {
            self.fields.insert(field.name().to_owned(), cut(value, MAX_VALUE));
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, crate::dial::causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

fn is_left_out(target: &str) -> bool {
    LEFT_OUT.iter().any(|module| {
        target
            .strip_prefix(module)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

/// A module of the agent without the name of the crate; a library as it is.
fn unit(target: &str) -> &str {
    target.strip_prefix("muster_agent::").unwrap_or(target)
}

fn severity(level: Level) -> LogSeverity {
    match level {
        Level::ERROR => LogSeverity::Error,
        Level::WARN => LogSeverity::Warning,
        Level::INFO => LogSeverity::Info,
        _ => LogSeverity::Debug,
    }
}

/// At most `max` bytes, and no NUL, which not every database takes.
fn cut(text: String, max: usize) -> String {
    let mut text = text.replace('\0', "");
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    text
}

fn batches(entries: Vec<LogEntry>) -> Vec<LogBatch> {
    let mut batches: Vec<LogBatch> = Vec::new();
    let mut size = usize::MAX;
    for entry in entries {
        let bytes = entry.encoded_len();
        if size.saturating_add(bytes) > BATCH_BYTES {
            size = 0;
            batches.push(LogBatch {
                source: SOURCE.to_owned(),
                entries: Vec::new(),
            });
        }
        size += bytes;
        if let Some(batch) = batches.last_mut() {
            batch.entries.push(entry);
        }
    }
    batches
}

#[cfg(test)]
mod tests;
