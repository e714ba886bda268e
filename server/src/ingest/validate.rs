//! Which records can be stored at all: sizes, kinds, text that every database takes. A record that fails is rejected with
//! the reason and never asked for again.

use muster_proto::{
    ids,
    v1::{self, CheckState, Lane, LogSeverity, record::Body},
};
use prost::Message as _;

use super::SpoolId;

const MAX_RECORD: usize = 256 << 10;
const MAX_EVENT: usize = 16 << 10;
const MAX_FAMILIES: usize = 2_000;
const MAX_SAMPLES: usize = 10_000;
const MAX_LABELS: usize = 64;
/// Values of one result's performance data; an agent keeps 500.
const MAX_PERFDATA: usize = 1_000;
const MAX_ENTRIES: usize = 1_000;
const MAX_FIELDS: usize = 32;
/// Of one entry: its message, its fields with their names, and the name of its source or unit.
const MAX_MESSAGE: usize = 16 << 10;
const MAX_FIELDS_BYTES: usize = 8 << 10;
const MAX_UNIT: usize = 256;
/// The end of the year 9999, which is the last that a timestamp of the API can say.
const MAX_TIME: i64 = 253_402_300_799_999_999;

/// Why a record cannot be stored.
pub fn check(lane: Lane, record: &v1::Record) -> Result<(), String> {
    let bytes = record.encoded_len();
    if bytes > MAX_RECORD {
        return Err(format!("it has {bytes} bytes, more than {MAX_RECORD}"));
    }
    if !(1..=MAX_TIME).contains(&record.time_unix_micros) {
        return Err("it has no time".into());
    }
    match (&record.body, lane) {
        (Some(Body::CheckResult(result)), Lane::Results) => check_result(result),
        (Some(Body::Event(event)), Lane::Results) => check_event(event, bytes),
        (Some(Body::Gap(gap)), Lane::Results) => check_gap(gap),
        (Some(Body::Metrics(batch)), Lane::Metrics) => check_metrics(batch),
        (Some(Body::Logs(batch)), Lane::Logs) => check_logs(batch),
        (Some(_), _) => Err("its kind does not belong into this lane".into()),
        (None, _) => Err("its kind is not known to this controller".into()),
    }
}

fn check_result(result: &v1::CheckResult) -> Result<(), String> {
    if !ids::name_is_valid(&result.check) {
        return Err("it names no check".into());
    }
    match CheckState::try_from(result.state) {
        Ok(CheckState::Ok | CheckState::Warning | CheckState::Critical | CheckState::Unknown) => {}
        _ => return Err("it has no state".into()),
    }
    if result.metrics.len() > MAX_PERFDATA {
        return Err(format!("it has more than {MAX_PERFDATA} performance values"));
    }
    if result.duration_micros < 0 {
        return Err("its duration is negative".into());
    }
    let texts = [&result.output, &result.long_output, &result.perfdata];
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err("its text contains a NUL".into());
    }
    Ok(())
}

fn check_event(event: &v1::AgentEvent, bytes: usize) -> Result<(), String> {
    if bytes > MAX_EVENT {
        return Err(format!("an event of {bytes} bytes is too large"));
    }
    let is_reason = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if event.reason.is_empty() || event.reason.len() > 64 || !event.reason.bytes().all(is_reason) {
        return Err("its reason is not in UPPER_SNAKE".into());
    }
    let metadata = event.metadata.iter().flat_map(|(key, value)| [key, value]);
    if metadata.chain([&event.message]).any(|text| text.contains('\0')) {
        return Err("its text contains a NUL".into());
    }
    Ok(())
}

fn check_gap(gap: &v1::Gap) -> Result<(), String> {
    if gap.lane() == Lane::Unspecified || gap.spool_id.parse::<SpoolId>().is_err() {
        return Err("it is the gap of no spool".into());
    }
    if gap.first_seq == 0 || gap.first_seq > gap.last_seq {
        return Err("it is a gap without records".into());
    }
    Ok(())
}

fn check_metrics(batch: &v1::MetricBatch) -> Result<(), String> {
    let samples: usize = batch.families.iter().map(|family| family.samples.len()).sum();
    if batch.families.len() > MAX_FAMILIES || samples > MAX_SAMPLES {
        return Err(format!(
            "{samples} samples in {} families are too many",
            batch.families.len()
        ));
    }
    for family in &batch.families {
        if !is_metric_name(&family.name) {
            return Err(format!("{:?} is not a metric name", family.name));
        }
        for label in family.samples.iter().flat_map(|sample| &sample.labels) {
            if !is_label_name(&label.name) {
                return Err(format!("{:?} is not a label name", label.name));
            }
        }
        if family.samples.iter().any(|sample| sample.labels.len() > MAX_LABELS) {
            return Err(format!(
                "{} has a sample with more than {MAX_LABELS} labels",
                family.name
            ));
        }
    }
    Ok(())
}

fn check_logs(batch: &v1::LogBatch) -> Result<(), String> {
    let count = batch.entries.len();
    if count == 0 || count > MAX_ENTRIES {
        return Err(format!("it has {count} entries, not 1 to {MAX_ENTRIES}"));
    }
    let is_name = |text: &str| text.len() <= MAX_UNIT && !text.chars().any(char::is_control);
    if batch.source.is_empty() || !is_name(&batch.source) {
        return Err("it names no log".into());
    }
    for entry in &batch.entries {
        if !(1..=MAX_TIME).contains(&entry.time_unix_micros) {
            return Err("it has an entry without a time".into());
        }
        if matches!(
            LogSeverity::try_from(entry.severity),
            Err(_) | Ok(LogSeverity::Unspecified)
        ) {
            return Err("it has an entry without a severity".into());
        }
        let fields = || entry.fields.iter().flat_map(|(key, value)| [key, value]);
        let is_bounded = entry.message.len() <= MAX_MESSAGE
            && is_name(&entry.unit)
            && entry.fields.len() <= MAX_FIELDS
            && fields().map(String::len).sum::<usize>() <= MAX_FIELDS_BYTES;
        if !is_bounded {
            return Err("it has an entry that is too large".into());
        }
        if fields().chain([&entry.message]).any(|text| text.contains('\0')) {
            return Err("its text contains a NUL".into());
        }
    }
    Ok(())
}

/// Prometheus' rule for metric names.
pub fn is_metric_name(name: &str) -> bool {
    is_identifier(name, |byte| byte == b'_' || byte == b':')
}

/// Prometheus' rule for label names.
pub fn is_label_name(name: &str) -> bool {
    is_identifier(name, |byte| byte == b'_')
}

fn is_identifier(name: &str, also: impl Fn(u8) -> bool) -> bool {
    name.len() <= 256
        && !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || also(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: Body) -> v1::Record {
        v1::Record {
            time_unix_micros: 1,
            body: Some(body),
        }
    }

    fn result(output: &str, state: CheckState) -> Body {
        let output = output.to_owned();
        Body::CheckResult(v1::CheckResult {
            check: "disk".into(),
            state: state as i32,
            output,
            ..Default::default()
        })
    }

    #[test]
    fn a_result_in_its_lane_is_taken() {
        assert_eq!(check(Lane::Results, &record(result("fine", CheckState::Ok))), Ok(()));
    }

    #[test]
    fn what_no_store_can_take_is_refused_with_the_reason() {
        let event = |reason: &str| {
            Body::Event(v1::AgentEvent {
                reason: reason.into(),
                ..Default::default()
            })
        };
        let metrics = |name: &str| {
            let families = vec![v1::MetricFamily {
                name: name.into(),
                ..Default::default()
            }];
            Body::Metrics(v1::MetricBatch {
                job: "node".into(),
                families,
            })
        };
        let logs = |at: i64, severity: LogSeverity, message: &str| {
            Body::Logs(v1::LogBatch {
                source: "agent".into(),
                entries: vec![v1::LogEntry {
                    time_unix_micros: at,
                    severity: severity.into(),
                    message: message.into(),
                    ..Default::default()
                }],
            })
        };
        assert_eq!(check(Lane::Logs, &record(logs(1, LogSeverity::Info, "fine"))), Ok(()));
        let cases = [
            (Lane::Results, result("a\0b", CheckState::Ok), "NUL"),
            (Lane::Results, result("", CheckState::Pending), "no state"),
            (Lane::Results, result(&"x".repeat(300 << 10), CheckState::Ok), "bytes"),
            (Lane::Metrics, result("", CheckState::Ok), "lane"),
            (Lane::Results, metrics("up"), "lane"),
            (Lane::Results, event("lower"), "UPPER_SNAKE"),
            (Lane::Metrics, metrics("1up"), "metric name"),
            (Lane::Logs, logs(1, LogSeverity::Info, "a\0b"), "NUL"),
            (Lane::Logs, logs(1, LogSeverity::Unspecified, ""), "severity"),
            (Lane::Logs, logs(0, LogSeverity::Info, ""), "time"),
            (
                Lane::Logs,
                logs(1, LogSeverity::Info, &"x".repeat(17 << 10)),
                "too large",
            ),
            (Lane::Results, logs(1, LogSeverity::Info, "fine"), "lane"),
        ];
        for (lane, body, reason) in cases {
            let refused = check(lane, &record(body)).expect_err(reason);
            assert!(refused.contains(reason), "{refused}");
        }
        for time in [i64::MIN, 0, i64::MAX] {
            let mut record = record(result("", CheckState::Ok));
            record.time_unix_micros = time;
            assert_eq!(check(Lane::Results, &record), Err("it has no time".into()), "{time}");
        }
        let crowded = v1::CheckResult {
            check: "disk".into(),
            state: CheckState::Ok as i32,
            metrics: vec![v1::Perfdata::default(); 100_000],
            ..Default::default()
        };
        let refused = check(Lane::Results, &record(Body::CheckResult(crowded))).expect_err("too many values");
        assert!(refused.contains("performance values"), "{refused}");
        let nothing = v1::Record {
            time_unix_micros: 1,
            body: None,
        };
        assert!(
            check(Lane::Results, &nothing)
                .expect_err("unknown kind")
                .contains("not known")
        );
    }
}
