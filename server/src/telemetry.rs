//! The controller's own metrics, as it shows them at `/metrics`: one registry, and a cheap handle with a verb for each
//! thing that is counted. Not the metrics of the fleet, those are records of agents; nothing here is stored.

mod disk;
mod limits;
mod links;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Content type of [`Telemetry::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One label of a metric. Values are fixed words of ours, never input, so that no caller can make series at will.
type Label = (&'static str, &'static str);
type Counters<const N: usize> = Family<[Label; N], Counter>;
type Gauges<const N: usize> = Family<[Label; N], Gauge>;
type Histograms<const N: usize> = Family<[Label; N], Histogram, fn() -> Histogram>;

/// What became of records that agents sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Stored,
    /// Can never be stored; the agent was told so.
    Rejected,
    /// Had been stored before, and was acknowledged again.
    Duplicate,
}

/// Handle to all metrics of one controller.
#[derive(Debug, Clone)]
pub struct Telemetry(Arc<Metrics>);

#[derive(Debug)]
struct Metrics {
    registry: Registry,
    accepted: Counters<1>,
    refused: Counters<2>,
    open: Gauges<1>,
    handshake_failures: Counters<2>,
    accept_errors: Counters<1>,
    agents: Gauges<1>,
    links: links::Metrics,
    limits: limits::Metrics,
    certificates_late: Gauge,
    clocks_wrong: Gauge,
    ca_expiry: Gauge,
    api_certificate_expiry: Gauges<1>,
    records: Counters<2>,
    commit: Histogram,
    ack_latency: Histograms<1>,
    policy_syncs: Counter,
    enrollments: Counters<1>,
    renewals: Counters<1>,
    clones: Counters<1>,
    api_requests: Counters<2>,
    disk: disk::Gauges,
}

impl Telemetry {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("muster_controller");
        let accepted = Counters::<1>::default();
        registry.register(
            "connections_accepted",
            "Connections taken from the listening socket",
            accepted.clone(),
        );
        let refused = Counters::<2>::default();
        registry.register(
            "connections_refused",
            "Connections closed because a limit was reached",
            refused.clone(),
        );
        let open = Gauges::<1>::default();
        registry.register("connections_open", "Connections that are open now", open.clone());
        let handshake_failures = Counters::<2>::default();
        registry.register(
            "handshake_failures",
            "TLS handshakes that did not succeed",
            handshake_failures.clone(),
        );
        let accept_errors = Counters::<1>::default();
        registry.register(
            "accept_errors",
            "Failures to take a connection, such as too many open files",
            accept_errors.clone(),
        );
        let agents = Gauges::<1>::default();
        registry.register("agents", "Agents by status", agents.clone());
        let certificates_late = Gauge::default();
        registry.register(
            "agent_certificates_late",
            "Connected agents that have not renewed at three quarters of their certificate's life",
            certificates_late.clone(),
        );
        let clocks_wrong = Gauge::default();
        registry.register(
            "agent_clocks_wrong",
            "Connected agents whose clock is more than five seconds off",
            clocks_wrong.clone(),
        );
        let ca_expiry = Gauge::default();
        registry.register(
            "ca_expiry_timestamp_seconds",
            "When the CA that issues ends, in seconds since 1970",
            ca_expiry.clone(),
        );
        let api_certificate_expiry = Gauges::<1>::default();
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate with host names that a listener shows ends, in seconds since 1970",
            api_certificate_expiry.clone(),
        );
        let links = links::Metrics::register(&mut registry);
        let limits = limits::Metrics::register(&mut registry);
        let records = Counters::<2>::default();
        registry.register(
            "records",
            "Records that agents sent, by what became of them",
            records.clone(),
        );
        let commit = fast();
        registry.register_with_unit(
            "commit_duration",
            "Time of one group commit of records",
            Unit::Seconds,
            commit.clone(),
        );
        let ack_latency = Histograms::<1>::new_with_constructor(fast);
        registry.register_with_unit(
            "ack_latency",
            "From receiving records to acknowledging them",
            Unit::Seconds,
            ack_latency.clone(),
        );
        let policy_syncs = Counter::default();
        registry.register(
            "policy_syncs",
            "Policy sets sent to agents, whole or as differences",
            policy_syncs.clone(),
        );
        let enrollments = Counters::<1>::default();
        registry.register("enrollments", "Enrollment calls by result", enrollments.clone());
        let renewals = Counters::<1>::default();
        registry.register(
            "renewals",
            "Renewals of agents' certificates by result",
            renewals.clone(),
        );
        let clones = Counters::<1>::default();
        registry.register(
            "clones",
            "Machines that showed the identity of a connected agent, by what became of them",
            clones.clone(),
        );
        let api_requests = Counters::<2>::default();
        registry.register("api_requests", "Calls by method and status code", api_requests.clone());
        let disk = disk::Gauges::register(&mut registry);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", build);

        Self(Arc::new(Metrics {
            registry,
            accepted,
            refused,
            open,
            handshake_failures,
            accept_errors,
            agents,
            links,
            limits,
            certificates_late,
            clocks_wrong,
            ca_expiry,
            api_certificate_expiry,
            records,
            commit,
            ack_latency,
            policy_syncs,
            enrollments,
            renewals,
            clones,
            api_requests,
            disk,
        }))
    }

    /// Everything in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut out, &self.0.registry);
        out
    }

    /// What one listener counts; `name` is its label.
    pub fn listener(&self, name: &'static str) -> ListenerMetrics {
        ListenerMetrics {
            metrics: Arc::clone(&self.0),
            listener: ("listener", name),
        }
    }

    /// How many agents have a status now.
    pub fn agents(&self, status: &'static str, count: i64) {
        self.0.agents.get_or_create(&[("status", status)]).set(count);
    }

    pub fn records(&self, lane: &'static str, fate: Fate, count: u64) {
        let fate = match fate {
            Fate::Stored => "stored",
            Fate::Rejected => "rejected",
            Fate::Duplicate => "duplicate",
        };
        self.0
            .records
            .get_or_create(&[("lane", lane), ("fate", fate)])
            .inc_by(count);
    }

    pub fn commit(&self, took: Duration) {
        self.0.commit.observe(took.as_secs_f64());
    }

    pub fn ack_latency(&self, lane: &'static str, took: Duration) {
        self.0
            .ack_latency
            .get_or_create(&[("lane", lane)])
            .observe(took.as_secs_f64());
    }

    pub fn policy_sync(&self) {
        self.0.policy_syncs.inc();
    }

    /// `result` is "created", "attached", "repeated" or the reason of the refusal.
    pub fn enrollment(&self, result: &'static str) {
        self.0.enrollments.get_or_create(&[("result", result)]).inc();
    }

    pub fn identity(&self, certificates_late: usize, clocks_wrong: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.0.certificates_late.set(number(certificates_late));
        self.0.clocks_wrong.set(number(clocks_wrong));
    }

    /// `ends` is in microseconds.
    pub fn ca_expiry(&self, ends: i64) {
        self.0.ca_expiry.set(ends / 1_000_000);
    }

    /// Of the certificate from `api_certificate`; `ends` is in microseconds.
    pub fn api_certificate_expiry(&self, ends: i64) {
        let of_api = self.0.api_certificate_expiry.get_or_create(&[("listener", "api")]);
        of_api.set(ends / 1_000_000);
    }

    pub fn renewal(&self, result: &'static str) {
        self.0.renewals.get_or_create(&[("result", result)]).inc();
    }

    /// `fate` is "refused", "displaced" or "forked".
    pub fn clone_seen(&self, fate: &'static str) {
        self.0.clones.get_or_create(&[("fate", fate)]).inc();
    }

    /// `method` comes from the table of methods, `code` is the name of the gRPC code.
    pub fn api_request(&self, method: &'static str, code: &'static str) {
        self.0
            .api_requests
            .get_or_create(&[("method", method), ("code", code)])
            .inc();
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

/// What one listener counts.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    metrics: Arc<Metrics>,
    listener: Label,
}

impl ListenerMetrics {
    pub fn accepted(&self) {
        self.metrics.accepted.get_or_create(&[self.listener]).inc();
    }

    pub fn refused(&self, reason: &'static str) {
        self.metrics
            .refused
            .get_or_create(&[self.listener, ("reason", reason)])
            .inc();
    }

    pub fn opened(&self) {
        self.metrics.open.get_or_create(&[self.listener]).inc();
    }

    pub fn closed(&self) {
        self.metrics.open.get_or_create(&[self.listener]).dec();
    }

    pub fn handshake_failed(&self, reason: &'static str) {
        self.metrics
            .handshake_failures
            .get_or_create(&[self.listener, ("reason", reason)])
            .inc();
    }

    pub fn accept_failed(&self) {
        self.metrics.accept_errors.get_or_create(&[self.listener]).inc();
    }
}

/// Buckets from 0.25 ms to 8 s: a commit takes about a millisecond on a good disk and seconds on a sick one.
fn fast() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(
        0.000_25, 2.0, 16,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_with_name_unit_and_labels() {
        let telemetry = Telemetry::new();
        let listener = telemetry.listener("agents");
        listener.accepted();
        listener.opened();
        listener.refused("per_source");
        telemetry.records("results", Fate::Duplicate, 3);
        telemetry.commit(Duration::from_millis(2));
        telemetry.ack_latency("metrics", Duration::from_millis(3));
        telemetry.agents("online", 7);

        let text = telemetry.render();
        for line in [
            "# TYPE muster_controller_connections_accepted counter",
            "muster_controller_connections_accepted_total{listener=\"agents\"} 1",
            "muster_controller_connections_open{listener=\"agents\"} 1",
            "muster_controller_connections_refused_total{listener=\"agents\",reason=\"per_source\"} 1",
            "muster_controller_records_total{lane=\"results\",fate=\"duplicate\"} 3",
            "# UNIT muster_controller_commit_duration_seconds seconds",
            "muster_controller_commit_duration_seconds_count 1",
            "muster_controller_ack_latency_seconds_count{lane=\"metrics\"} 1",
            "muster_controller_agents{status=\"online\"} 7",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing from\n{text}");
        }
        assert!(text.contains(&format!(
            "muster_controller_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        )));
    }
}
