//! What a check must be like to be accepted. The controller decides by this; the command line says the same before it asks.

use std::time::Duration;

use prost::Message as _;

use super::{DEFAULT_INTERVAL, MAX_ENCODED, MAX_PARAMETERS, MAX_TEXT, expand, normalize, runs};
use crate::{duration, error::FieldViolation, excerpt::excerpt, selector::Selector, suggest::suggest, v1};

const MAX_DESCRIPTION: usize = 1_024;
const MAX_PARAMETER_NAME: usize = 63;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// All that is wrong with a check, as paths within it: `schedule.retryInterval`. Texts with parameters are looked at as
/// they are after these were put in.
pub fn validate(check: &v1::Check) -> Vec<FieldViolation> {
    let mut found = Violations::default();
    let size = check.encoded_len();
    if size > MAX_ENCODED {
        // Nothing else is looked at: all work below is bounded by this.
        found.add(
            "",
            format!("the check has {size} bytes, at most {MAX_ENCODED} are allowed"),
        );
        return found.0;
    }
    description(check, &mut found);
    selector(check, &mut found);
    schedule(check, &mut found);
    parameters(check, &mut found);
    let mut check = check.clone();
    normalize(&mut check);
    run(&check, &mut found);
    found.0
}

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Violations(Vec<FieldViolation>);

impl Violations {
    pub fn add(&mut self, field: &str, description: impl Into<String>) {
        self.0.push(FieldViolation::new(field, description));
    }

    /// The value, unless it is wrong.
    pub fn take<T, E: std::fmt::Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// A duration that is there, unless it is malformed or out of range.
    pub fn duration(
        &mut self,
        field: &str,
        value: Option<&prost_types::Duration>,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let given = duration::from_proto(value?);
        if given.is_none_or(|given| !range.contains(&given)) {
            let [least, most] = [*range.start(), *range.end()].map(duration::format);
            let found = given.map_or_else(|| "a negative one".to_owned(), duration::format);
            self.add(
                field,
                format!("expected a duration of {least} to {most}, found {found}"),
            );
        }
        given.filter(|given| range.contains(given))
    }

    /// A text of bounded length that a program or a protocol can take.
    pub fn text(&mut self, field: &str, text: &str) {
        if text.len() > MAX_TEXT {
            self.add(
                field,
                format!("it has {} bytes, at most {MAX_TEXT} are allowed", text.len()),
            );
        } else if text.contains('\0') {
            self.add(field, "it holds a NUL character, which no program can be given");
        }
    }
}

fn description(check: &v1::Check, found: &mut Violations) {
    let length = check.description.len();
    if length > MAX_DESCRIPTION {
        found.add(
            "description",
            format!("it has {length} bytes, at most {MAX_DESCRIPTION} are allowed"),
        );
    }
}

fn selector(check: &v1::Check, found: &mut Violations) {
    if check.selector.is_empty() {
        found.add(
            "selector",
            "it is required; `*` is every agent, `env=prod` those with that label",
        );
    } else {
        found.take("selector", Selector::parse(&check.selector));
    }
}

fn schedule(check: &v1::Check, found: &mut Violations) {
    let schedule = check.schedule.unwrap_or_default();
    let interval = match &schedule.interval {
        None => Some(DEFAULT_INTERVAL),
        given => found.duration("schedule.interval", given.as_ref(), SECOND..=DAY),
    };
    let retry = found.duration("schedule.retryInterval", schedule.retry_interval.as_ref(), SECOND..=DAY);
    let timeout = found.duration("timeout", check.timeout.as_ref(), SECOND..=HOUR);
    if let (Some(interval), Some(retry)) = (interval, retry)
        && retry > interval
    {
        let [retry, interval] = [retry, interval].map(duration::format);
        let text =
            format!("{retry} is longer than the interval ({interval}); a soft problem is looked at sooner, not later");
        found.add("schedule.retryInterval", text);
    }
    if let (Some(interval), Some(timeout)) = (interval, timeout)
        && timeout > interval
    {
        let [timeout, interval] = [timeout, interval].map(duration::format);
        let text = format!(
            "{timeout} is longer than the interval ({interval}), so that runs would overlap; shorten it or lengthen the interval"
        );
        found.add("timeout", text);
    }
    if schedule.attempts > 100 {
        found.add(
            "schedule.attempts",
            format!("expected 1 to 100, found {}", schedule.attempts),
        );
    }
}

fn parameters(check: &v1::Check, found: &mut Violations) {
    let count = check.parameters.len();
    if count > MAX_PARAMETERS {
        found.add(
            "parameters",
            format!("{count} parameters are more than the {MAX_PARAMETERS} that are allowed"),
        );
    }
    for (name, value) in &check.parameters {
        let field = format!("parameters[{}]", excerpt(name));
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || name.len() > MAX_PARAMETER_NAME || !name.bytes().all(good) {
            let text =
                "a parameter's name starts with a letter or `_` and has at most 63 letters, digits, `_`, `-` and `.`";
            found.add(&field, text);
        }
        found.text(&field, value);
    }
}

fn run(check: &v1::Check, found: &mut Violations) {
    let all = runs::KINDS.join(", ");
    let Some(run) = &check.run else {
        found.add("run", format!("it is required: what to run, exactly one of {all}"));
        return;
    };
    match runs::kinds(run).as_slice() {
        [] => return found.add("run", format!("exactly one of {all} is required, found none")),
        [_] => {}
        several => {
            let text = format!(
                "exactly one of {all} is required, found {}; make a check of each",
                several.join(" and ")
            );
            return found.add("run", text);
        }
    }
    let before = found.0.len();
    let mut expanded = run.clone();
    expand::for_each_text(
        &mut expanded,
        &mut |field, text| match expand::put_in(text, &check.parameters) {
            Ok(value) => {
                *text = value;
                found.text(field, text);
            }
            Err(error) => found.add(field, reference_problem(&error, check)),
        },
    );
    // A text that could not be expanded would be reported a second time as a bad threshold or path.
    if found.0.len() == before {
        runs::validate(&expanded, found);
    }
}

fn reference_problem(error: &expand::Error, check: &v1::Check) -> String {
    let name = match error {
        expand::Error::NotClosed => {
            return "a `${` is never closed by `}`; where `${` itself is meant, write `$${`".to_owned();
        }
        expand::Error::Unknown(name) => excerpt(name),
    };
    let names = || check.parameters.keys().map(String::as_str);
    let advice = match suggest(&name, names()) {
        Some(meant) => format!("did you mean `${{{meant}}}`?"),
        None if check.parameters.is_empty() => "the check has no parameters".to_owned(),
        None => format!("the parameters are {}", names().collect::<Vec<_>>().join(", ")),
    };
    format!("there is no parameter `{name}`; {advice} (where `${{` itself is meant, write `$${{`)")
}
