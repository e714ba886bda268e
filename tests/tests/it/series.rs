//! An agent that invents series is stopped, and nobody else is: not even the series that it had before.

use muster_proto::v1::{self, MetricBatch, MetricFamily, MetricLabel, Sample, record::Body};
use muster_server::clock;
use muster_tests::{
    Controller,
    poll::{self, SECOND},
};

use super::logs::{linked, send};

/// Series of one metric, by the values of a label.
fn batch(at: i64, values: impl IntoIterator<Item = String>) -> v1::Record {
    let sample = |value: String| Sample {
        labels: vec![MetricLabel {
            name: "request".into(),
            value,
        }],
        value: 1.0,
    };
    v1::Record {
        time_unix_micros: at,
        body: Some(Body::Metrics(MetricBatch {
            job: "app".into(),
            families: vec![MetricFamily {
                name: "requests_total".into(),
                samples: values.into_iter().map(sample).collect(),
                ..MetricFamily::default()
            }],
        })),
    }
}

#[test]
fn an_agent_that_invents_series_loses_the_new_ones_and_nobody_else_anything() {
    // A hundred at once.
    let mut controller = Controller::start_with("limits: { agent_new_series_per_minute: 10 }");
    let [mad, good] = ["mad", "good"].map(|name| {
        let setup = controller.agent(name);
        setup.enroll().expect_code(0);
        setup
    });
    let usual = || (0..80).map(|n| format!("usual-{n}"));
    let (mut mad_link, _) = linked(&controller, &mad);
    let (mut good_link, _) = linked(&controller, &good);
    let mut now = clock::now();
    assert_eq!(
        send(&mut mad_link, v1::Lane::Metrics, "1-a", 1, vec![batch(now, usual())]),
        []
    );
    let mut refused = 0;
    for round in 1..=10_u64 {
        now += 1;
        let invented = (0..50).map(|n| format!("{round}-{n}"));
        let mixed = batch(now, usual().chain(invented.clone()));
        let alone = batch(now, invented.map(|value| format!("more-{value}")));
        let rejected = send(&mut mad_link, v1::Lane::Metrics, "1-a", 2 * round, vec![mixed, alone]);
        refused += rejected.len();
        assert!(
            rejected
                .iter()
                .all(|it| it.reason.contains("agent_new_series_per_minute")),
            "{rejected:?}"
        );
        let own = vec![batch(now, usual())];
        assert_eq!(
            send(&mut good_link, v1::Lane::Metrics, "1-a", round, own),
            [],
            "the good one"
        );
    }
    assert!(refused >= 18, "{refused}");

    // 20 or a few more of 1,000 new ones were taken.
    let counted = controller.metric("muster_controller_samples_refused_total");
    assert!((960..=980).contains(&counted), "{counted}");
    let values = |agent: &str| {
        let query = format!("requests_total{{instance=\"{agent}\"}}");
        controller
            .ctl()
            .items(&["metric", "query", &query])
            .expect("values")
            .len()
    };
    assert_eq!(values("good"), 80);
    assert_eq!(values("mad"), 80, "what it had before goes on");

    let event = poll::until("an event", 20 * SECOND, || {
        match controller.ctl().events("AGENT_NEW_SERIES_REFUSED")?.as_slice() {
            [event] => Ok(event.clone()),
            events => Err(format!("{events:?}")),
        }
    });
    assert_eq!(event["agentName"], "mad", "{event}");
    let warnings = |name: &str| controller.ctl().json(&["agent", "get", name])["warnings"].to_string();
    assert!(warnings("mad").contains("new series"), "{}", warnings("mad"));
    assert!(!warnings("good").contains("new series"), "{}", warnings("good"));

    // To a controller that has just started all series are new.
    drop((mad_link, good_link));
    controller.kill();
    controller.run();
    let (mut good_link, _) = linked(&controller, &good);
    now = clock::now();
    assert_eq!(
        send(&mut good_link, v1::Lane::Metrics, "2-b", 1, vec![batch(now, usual())]),
        []
    );
    assert_eq!(controller.metric("muster_controller_samples_refused_total"), 0);
}
