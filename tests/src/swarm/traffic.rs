//! What simulated agents report: results, batches of metrics and lines of logs that look like those of real ones, at the times of their
//! profile. Every record of a lane has a number and a time of its own, by which it is found again at the controller. Nothing
//! is run and nothing is measured for them.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use muster_proto::v1::{
    self, CheckResult, CheckState, Lane, LogBatch, LogEntry, LogSeverity, MetricBatch, MetricFamily, MetricLabel,
    MetricType, Sample,
};

use super::cli::LoadArgs;

/// Series in one family, as of one metric for several devices.
const FAMILY: u32 = 10;

/// Entries in one batch of a log.
pub const LINES: u32 = 5;

/// What precedes the number in the output of a result.
const MARK: &str = "record ";

/// How many records an agent has made of one lane, and the time of the last one.
#[derive(Debug, Default)]
pub struct Made {
    count: AtomicU64,
    last_at: AtomicI64,
}

impl Made {
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The number of the next record and a time for it that no other of the lane has. Called by its agent alone.
    /// `times`: so many from that one on are of this record.
    fn next(&self, at: i64, times: u32) -> (u64, i64) {
        let at = at.max(self.last_at.load(Ordering::Relaxed) + 1);
        self.last_at.store(at + i64::from(times) - 1, Ordering::Relaxed);
        (self.count.fetch_add(1, Ordering::Relaxed) + 1, at)
    }
}

/// The name of one of the checks of a swarm, which are numbered from 0 on.
pub fn check_name(run: &str, number: u64) -> String {
    format!("{run}-check-{number}")
}

/// The number in the output of a result.
pub fn number(output: &str) -> Option<u64> {
    let (_, rest) = output.split_once(MARK)?;
    rest.split(' ').next()?.parse().ok()
}

/// Time from one record of a lane to the next; none: the profile has nothing for it.
pub fn interval(load: &LoadArgs, lane: Lane, rate: f64) -> Option<Duration> {
    let (has, usual) = match lane {
        Lane::Metrics => (load.profile.has_metrics(), load.metrics_interval),
        Lane::Logs => (load.profile.has_logs(), load.logs_interval),
        _ => (load.profile.has_checks(), Duration::from_secs(60) / load.checks),
    };
    (has && rate > 0.0).then(|| usual.div_f64(rate))
}

/// The next record of a lane.
pub fn record(load: &LoadArgs, run: &str, lane: Lane, made: &Made, at: i64) -> v1::Record {
    let times = if lane == Lane::Logs { LINES } else { 1 };
    let (number, at) = made.next(at, times);
    let body = match lane {
        Lane::Logs => v1::record::Body::Logs(lines(number, at)),
        Lane::Metrics => v1::record::Body::Metrics(batch(load.series, number)),
        _ => v1::record::Body::CheckResult(result(run, u64::from(load.checks), number)),
    };
    v1::Record {
        time_unix_micros: at,
        body: Some(body),
    }
}

fn result(run: &str, checks: u64, number: u64) -> CheckResult {
    // One of fifty has something to tell, so that states change.
    let (state, word) = match number % 50 {
        0 => (CheckState::Warning, "WARNING"),
        _ => (CheckState::Ok, "OK"),
    };
    let used = number % 100;
    CheckResult {
        check: check_name(run, number % checks),
        version: 1,
        state: state.into(),
        end: v1::RunEnd::Exited.into(),
        exit_code: i32::from(state == CheckState::Warning),
        duration_micros: 1_500 + number as i64 % 1_000,
        output: format!("SWARM {word} - {MARK}{number} of this agent: {used} % used"),
        perfdata: format!("used={used}%;80;90;0;100"),
        metrics: vec![v1::Perfdata {
            label: "used".to_owned(),
            value: Some(used as f64),
            unit: "%".to_owned(),
            warning: "80".to_owned(),
            critical: "90".to_owned(),
            min: Some(0.0),
            max: Some(100.0),
        }],
        ..CheckResult::default()
    }
}

/// Lines of one program, each at a time of its own.
fn lines(number: u64, at: i64) -> LogBatch {
    let entry = |line: u32| LogEntry {
        time_unix_micros: at + i64::from(line),
        severity: match (number + u64::from(line)) % 20 {
            0 => LogSeverity::Error.into(),
            1..=4 => LogSeverity::Warning.into(),
            _ => LogSeverity::Info.into(),
        },
        unit: "swarm.service".to_owned(),
        message: format!("{MARK}{number} of this agent, line {line}: a request for /v1/things took longer than usual"),
        fields: [("request", number.to_string()), ("took_ms", (number % 900).to_string())]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
    };
    LogBatch {
        source: "swarm".to_owned(),
        entries: (0..LINES).map(entry).collect(),
    }
}

/// Of so many series.
pub fn batch(series: u32, number: u64) -> MetricBatch {
    let sample = |index: u32| Sample {
        labels: vec![MetricLabel {
            name: "device".to_owned(),
            value: format!("disk{}", index % FAMILY),
        }],
        // Most series of a machine are counters that move a little.
        value: (number * 997 + u64::from(index) * 31) as f64,
    };
    let family = |first: u32| MetricFamily {
        name: format!("swarm_disk_{}_bytes_total", first / FAMILY),
        r#type: MetricType::Counter.into(),
        samples: (first..series.min(first + FAMILY)).map(sample).collect(),
    };
    MetricBatch {
        job: "swarm".to_owned(),
        families: (0..series).step_by(FAMILY as usize).map(family).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_is_found_by_its_number() {
        for wanted in [1, 50, 1_234_567] {
            let result = result("swarm-1", 10, wanted);
            assert_eq!(number(&result.output), Some(wanted), "{}", result.output);
        }
        for other in ["", "record ", "OK - record x of", "records 12"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn a_batch_has_as_many_series_as_were_asked_for() {
        for series in [1, 10, 99, 100] {
            let samples: usize = batch(series, 7)
                .families
                .iter()
                .map(|family| family.samples.len())
                .sum();
            assert_eq!(samples, series as usize);
        }
    }

    #[test]
    fn no_two_records_of_an_agent_have_one_time() {
        let made = Made::default();
        assert_eq!(
            (made.next(5, 1), made.next(5, 3), made.next(3, 1)),
            ((1, 5), (2, 6), (3, 9))
        );
        assert_eq!(made.count(), 3);
    }
}
