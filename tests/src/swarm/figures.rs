//! All figures of the link, each taken several times on a controller of its own, and once those of links that are cut: which
//! runs there are, and what of their documents is a figure. The medians are given, and of what must not happen the sum.

use std::{fs, time::Duration};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    cli::{ChaosArgs, FiguresArgs, FleetArgs, LoadArgs, Profile, RunArgs, TargetArgs},
    figure::{median, rounded},
    progress::say,
    swarm,
};

/// One kind of run, and the figures that come of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scenario {
    /// Heartbeats only; a frame to all; a controller that is killed.
    Idle,
    /// Metrics, and ten times as many.
    Metrics,
    /// An hour without a controller.
    Outage,
    /// Links that are cut.
    Chaos,
}

struct Figure {
    number: u8,
    scenario: Scenario,
    name: &'static str,
    /// Where it stands in the document of a run.
    path: &'static [&'static str],
    wanted: &'static str,
}

const fn figure(
    number: u8,
    scenario: Scenario,
    name: &'static str,
    path: &'static [&'static str],
    wanted: &'static str,
) -> Figure {
    Figure {
        number,
        scenario,
        name,
        path,
        wanted,
    }
}

const FIGURES: &[Figure] = &[
    figure(
        1,
        Scenario::Idle,
        "kib_per_link_idle",
        &["memory_idle", "kib_per_link"],
        "<= 42",
    ),
    figure(
        1,
        Scenario::Idle,
        "kib_per_link_idle_floor",
        &["floor", "kib_per_link_idle"],
        "",
    ),
    figure(
        1,
        Scenario::Metrics,
        "kib_per_link_after_traffic",
        &["memory_after_traffic", "kib_per_link"],
        "<= 60",
    ),
    figure(
        1,
        Scenario::Idle,
        "kib_per_link_after_traffic_floor",
        &["floor", "kib_per_link_after_traffic"],
        "",
    ),
    figure(
        1,
        Scenario::Metrics,
        "kib_per_link_after_burst",
        &["memory_after_burst", "kib_per_link"],
        "",
    ),
    figure(
        1,
        Scenario::Idle,
        "cpu_percent_with_heartbeats",
        &["load", "cpu_percent_of_a_core"],
        "<= 2",
    ),
    figure(
        1,
        Scenario::Idle,
        "cpu_percent_with_heartbeats_floor",
        &["floor", "cpu_percent_with_heartbeats"],
        "",
    ),
    figure(
        2,
        Scenario::Idle,
        "frame_to_all_and_back_s",
        &["broadcast", "to_last_answer_s"],
        "<= 1.5 x floor",
    ),
    figure(
        2,
        Scenario::Idle,
        "frame_to_all_and_back_s_floor",
        &["floor", "broadcast_to_last_answer_s"],
        "",
    ),
    figure(
        2,
        Scenario::Idle,
        "frame_to_all_cpu_us_each",
        &["broadcast", "cpu_us_per_agent"],
        "<= 25",
    ),
    figure(
        3,
        Scenario::Idle,
        "links_per_cpu_second",
        &["cold_restart", "links_per_cpu_second"],
        ">= 3000",
    ),
    figure(
        3,
        Scenario::Idle,
        "links_per_cpu_second_floor",
        &["floor", "connects_per_cpu_second"],
        "",
    ),
    figure(
        3,
        Scenario::Idle,
        "all_back_s",
        &["cold_restart", "all_back_s"],
        "<= 20",
    ),
    figure(3, Scenario::Idle, "outage_s", &["cold_restart", "outage_s"], "< 5"),
    figure(
        4,
        Scenario::Metrics,
        "samples_per_second",
        &["load", "samples_per_second"],
        "",
    ),
    figure(
        4,
        Scenario::Metrics,
        "cpu_percent",
        &["load", "cpu_percent_of_a_core"],
        "<= 40",
    ),
    figure(
        4,
        Scenario::Metrics,
        "ack_p99_ms",
        &["load", "acks", "p99_ms"],
        "<= 1000",
    ),
    figure(
        4,
        Scenario::Metrics,
        "burst_samples_per_second",
        &["burst", "samples_per_second"],
        "",
    ),
    figure(
        4,
        Scenario::Metrics,
        "burst_ack_p99_ms",
        &["burst", "acks", "p99_ms"],
        "",
    ),
    figure(
        5,
        Scenario::Outage,
        "live_p99_ms",
        &["lateness_of_live_records", "p99_ms"],
        "",
    ),
    figure(
        5,
        Scenario::Outage,
        "live_latest_ms",
        &["lateness_of_live_records", "max_ms"],
        "<= 2000",
    ),
    figure(6, Scenario::Chaos, "cuts", &["load", "cuts"], ""),
    figure(6, Scenario::Chaos, "ack_p99_ms", &["load", "acks", "p99_ms"], ""),
];

/// What must not happen, ever.
const NEVER: &[(&str, &[&str])] = &[
    ("lost", &["account", "lost"]),
    ("doubled", &["account", "doubled"]),
    ("dropped", &["account", "dropped"]),
    ("rejected", &["rejected"]),
    ("false_offline", &["false_offline"]),
];

/// # Errors
/// When a run does not come to its end.
pub fn measure(args: &FiguresArgs) -> anyhow::Result<Outcome> {
    let mut document = Map::new();
    document.insert("agents".to_owned(), json!(args.agents));
    document.insert("runs".to_owned(), json!(args.runs));
    document.insert("cores".to_owned(), json!(std::thread::available_parallelism()?.get()));
    let mut is_right = true;
    let mut figures: Map<String, Value> = Map::new();
    let mut all = Map::new();
    for scenario in [Scenario::Idle, Scenario::Metrics, Scenario::Outage, Scenario::Chaos] {
        let of_scenario: Vec<&Figure> = FIGURES
            .iter()
            .filter(|figure| figure.scenario == scenario && args.takes(figure.number))
            .collect();
        if of_scenario.is_empty() {
            continue;
        }
        let name = format!("{scenario:?}").to_lowercase();
        let mut documents = Vec::new();
        // Of links that are cut it matters that nothing is lost, and not how fast that was.
        let runs = if scenario == Scenario::Chaos { 1 } else { args.runs };
        for number in 1..=runs {
            say(&format!("run {number} of {runs}: {name}"));
            let outcome = swarm(&scenario.args(args)).with_context(|| name.clone())?;
            is_right &= outcome.is_right;
            documents.push(outcome.document);
        }
        for figure in of_scenario {
            let values: Vec<f64> = documents.iter().filter_map(|run| number_at(run, figure.path)).collect();
            let entry = figures.entry(figure.number.to_string()).or_insert_with(|| json!({}));
            entry[figure.name] = json!({ "median": median(values.clone()), "all": values, "wanted": figure.wanted });
        }
        let mut never = Map::new();
        for (what, path) in NEVER {
            let sum: f64 = documents.iter().filter_map(|run| number_at(run, path)).sum();
            never.insert((*what).to_owned(), json!(rounded(sum)));
        }
        all.insert(name, json!({ "never": never, "documents": documents }));
        document.insert("figures".to_owned(), Value::Object(figures.clone()));
        document.insert("scenarios".to_owned(), Value::Object(all.clone()));
        // What there is so far stays, whatever happens to the rest.
        if let Some(file) = &args.json {
            let text = format!("{:#}\n", Value::Object(document.clone()));
            fs::write(file, text).with_context(|| file.display().to_string())?;
        }
    }
    Ok(Outcome {
        document: Value::Object(document),
        is_right,
    })
}

impl FiguresArgs {
    fn takes(&self, figure: u8) -> bool {
        self.only.is_empty() || self.only.contains(&figure)
    }
}

impl Scenario {
    fn args(self, args: &FiguresArgs) -> RunArgs {
        let minute = Duration::from_secs(60);
        let tenth = (args.agents / 10).max(1);
        let (agents, profile, duration) = match self {
            Scenario::Idle => (args.agents, Profile::Idle, minute),
            Scenario::Metrics => (args.agents, Profile::Metrics, args.duration),
            Scenario::Outage => (tenth, Profile::Mixed, minute),
            Scenario::Chaos => (tenth, Profile::Mixed, args.duration),
        };
        RunArgs {
            target: TargetArgs {
                start_controller: true,
                settings: None,
                controller: None,
                pin: Vec::new(),
                token_file: None,
                context: None,
                pid: None,
            },
            fleet: FleetArgs {
                agents,
                sources: None,
                ramp: None,
                disk_spool: None,
            },
            load: LoadArgs {
                profile,
                duration,
                series: 100,
                metrics_interval: Duration::from_secs(15),
                logs_interval: Duration::from_secs(15),
                checks: 10,
                burst: (self == Scenario::Metrics).then_some(10),
                burst_duration: Duration::from_secs(30),
            },
            chaos: ChaosArgs {
                cut: (self == Scenario::Chaos).then_some(1.0),
                restart_controller: None,
                skew: Duration::ZERO,
                outage: (self == Scenario::Outage).then_some(60 * minute),
            },
            floor: self == Scenario::Idle,
            broadcast: self == Scenario::Idle,
            cold_restart: self == Scenario::Idle,
        }
    }
}

fn number_at(document: &Value, path: &[&str]) -> Option<f64> {
    path.iter().try_fold(document, |value, key| value.get(key))?.as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_found_by_its_path_or_is_not_there() {
        let document = json!({ "load": { "acks": { "p99_ms": 12.5 } }, "memory": null });
        assert_eq!(number_at(&document, &["load", "acks", "p99_ms"]), Some(12.5));
        assert_eq!(number_at(&document, &["load", "acks", "p50_ms"]), None);
        assert_eq!(number_at(&document, &["memory", "kib"]), None);
    }
}
