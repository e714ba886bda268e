//! The network as it is, seen from an agent: endpoints that come and go, proxies, boxes that inspect, both families.

use std::fs;

use muster_tests::{
    Agent, ConnectProxy, Controller, Proxy, ServerYaml,
    inspection::{self, Inspection},
    name_server::NameServer,
    poll::{self, SECOND},
    proxy::Fault,
};
use serde_json::{Value, json};

use super::drain::transitions;

/// Waits until the agent is connected there, and gives its status.
#[track_caller]
fn connected_at(agent: &Agent, endpoint: &str) -> Value {
    poll::until(&format!("connected at {endpoint}"), 40 * SECOND, || {
        let status = agent.status()?;
        let connection = &status["connection"];
        if connection["state"] == "connected" && connection["endpoint"] == endpoint {
            Ok(status)
        } else {
            Err(connection.to_string())
        }
    })
}

#[test]
fn an_agent_takes_the_second_endpoint_and_goes_back_to_the_first_when_that_answers() {
    let controller = Controller::start();
    let first = Proxy::to(&controller.endpoint());
    first.set(Fault::Refuse);
    let mut setup = controller.agent("web-01");
    setup.config["server"]["endpoints"] = json!([first.endpoint(), controller.endpoint()]);
    setup.config["server"]["fail_back"] = json!("2s");
    let agent = setup.start();
    connected_at(&agent, &controller.endpoint());
    let looked = first.carried().len();
    poll::until("the first one is asked again", 30 * SECOND, || {
        match first.carried().len() {
            now if now > looked => Ok(()),
            now => Err(now),
        }
    });
    connected_at(&agent, &controller.endpoint());

    first.set(Fault::Forward);
    let before = transitions(&controller);
    let status = connected_at(&agent, &first.endpoint());
    let places: Vec<_> = status["endpoints"].as_array().expect("a list").iter().collect();
    assert_eq!(
        places[0],
        &json!({ "endpoint": first.endpoint(), "source": "configured" })
    );
    assert_eq!(places[1]["endpoint"], controller.endpoint());
    let text = agent.verb(&["status"]).expect_code(0).stdout;
    assert!(
        text.contains(&format!("endpoints   {}, configured", first.endpoint())),
        "{text}"
    );
    controller.wait_for_agent("web-01", "ONLINE");
    assert_eq!(transitions(&controller), before, "a move is no outage");
}

#[test]
fn agents_that_are_drained_move_to_the_endpoint_they_are_sent_to_and_are_never_offline() {
    let controller = Controller::start();
    let elsewhere = Proxy::to(&controller.endpoint());
    let agent = controller.agent("web-01").start();
    connected_at(&agent, &controller.endpoint());
    controller.wait_for_agent("web-01", "ONLINE");
    let before = transitions(&controller);
    controller
        .ctl()
        .ok(&["controller", "drain", "--within", "0s", "--to", &elsewhere.endpoint()]);
    poll::until("the agent goes where it was sent", 30 * SECOND, || {
        match elsewhere.carried().len() {
            0 => Err(agent.status()?["connection"].to_string()),
            _ => Ok(()),
        }
    });
    // That leads to the same controller, which takes no links yet.
    controller.ctl().ok(&["controller", "drain", "--cancel"]);
    poll::until("it is connected again", 40 * SECOND, || {
        let status = agent.status()?;
        if status["connection"]["state"] == "connected" {
            Ok(())
        } else {
            Err(status["connection"].to_string())
        }
    });
    controller.wait_for_agent("web-01", "ONLINE");
    assert_eq!(transitions(&controller), before, "a move is no outage");
}

#[test]
fn what_the_controller_tells_of_endpoints_leads_to_it_after_a_restart() {
    let controller = Controller::start();
    let configured = Proxy::to(&controller.endpoint());
    let mut setup = controller.agent("web-01");
    setup.config["server"]["endpoints"] = json!([configured.endpoint()]);
    let mut agent = setup.start();
    connected_at(&agent, &configured.endpoint());
    let told = json!({ "endpoint": controller.endpoint(), "source": "told by the controller" });
    poll::until("the agent is told", 20 * SECOND, || {
        let status = agent.status()?;
        if status["endpoints"][1] == told {
            Ok(())
        } else {
            Err(status["endpoints"].to_string())
        }
    });
    agent.stop();
    configured.set(Fault::Refuse);
    agent.run();
    connected_at(&agent, &controller.endpoint());

    // The machine has the last word.
    agent.stop();
    agent.setup_mut().config["allow"] = json!({ "endpoints": false });
    agent.run();
    let status = poll::until("what is told counts for nothing", 20 * SECOND, || {
        let status = agent.status()?;
        let is_lost = status["connection"]["state"] == "connecting" && !status["connection"]["lastError"].is_null();
        if is_lost {
            Ok(status)
        } else {
            Err(status["connection"].to_string())
        }
    });
    assert_eq!(status["endpoints"].as_array().map(Vec::len), Some(1), "{status}");
}

#[test]
fn everything_goes_through_a_proxy_that_knows_the_agent_by_its_password() {
    let controller = Controller::start_with(&ServerYaml::new().agent_certificates("20s").to_string());
    // muster:open sesame
    let proxy = ConnectProxy::with_authorization(&controller.endpoint(), "Basic bXVzdGVyOm9wZW4gc2VzYW1l");
    let mut setup = controller.agent("web-01").through("controller.invalid:8443");
    setup.config["server"]["proxy"] = json!(proxy.url());

    let outcome = setup.enroll_once().expect_code(3);
    for part in [
        "failed to connect to controller.invalid:8443 through the proxy http://127.0.0.1:",
        "407 Proxy Authentication Required",
        "server.proxy_credentials_file",
    ] {
        assert!(outcome.stderr.contains(part), "'{part}' is not in {outcome}");
    }
    setup.write("proxy-credentials", "muster:shut sesame\n");
    setup.config["server"]["proxy_credentials_file"] = json!(setup.path("proxy-credentials"));
    let outcome = setup.enroll_once().expect_code(3);
    assert!(
        outcome.stderr.contains("does not take the user and password"),
        "{outcome}"
    );
    assert!(!outcome.stderr.contains("shut"), "{outcome}");

    setup.write("proxy-credentials", "muster:open sesame\n");
    setup.enroll_once().expect_code(0);
    let agent = setup.start();
    let status = connected_at(&agent, "controller.invalid:8443");
    assert_eq!(status["connection"]["proxy"], proxy.url());
    let text = agent.verb(&["status"]).expect_code(0).stdout;
    assert!(
        text.contains(&format!("at controller.invalid:8443 through the proxy {}", proxy.url())),
        "{text}"
    );
    poll::until("the certificate is renewed through it", 40 * SECOND, || {
        let status = agent.status()?;
        match status["certificate"]["renewals"].as_u64() {
            Some(1..) => Ok(()),
            _ => Err(status["certificate"].to_string()),
        }
    });
    let asked = proxy.asked();
    assert!(
        asked.iter().all(|asked| asked.endpoint == "controller.invalid:8443"),
        "{asked:?}"
    );
    assert!(
        asked.iter().filter(|asked| asked.status == 200).count() >= 3,
        "{asked:?}"
    );
    let everything = agent.log() + &agent.status().expect("a status").to_string();
    assert!(
        !everything.contains("sesame") && !everything.contains("bXVzdGVy"),
        "{everything}"
    );
}

#[test]
fn what_needs_no_proxy_is_reached_without_it() {
    let controller = Controller::start();
    let mut setup = controller.agent("web-01");
    // Nothing listens there.
    setup.config["server"]["proxy"] = json!("http://127.0.0.1:1");
    let outcome = setup.enroll_once().expect_code(3);
    assert!(outcome.stderr.contains("the proxy cannot be reached"), "{outcome}");
    setup.config["server"]["no_proxy"] = json!(["example.com", "127.0.0.0/8"]);
    setup.enroll_once().expect_code(0);
}

#[test]
fn what_inspects_tls_is_named_with_what_to_do() {
    let Some(inspection) = Inspection::start() else { return };
    let mut controller = Controller::start();
    let proxy = ConnectProxy::to(&inspection.endpoint());
    let mut setup = controller.agent("web-01");
    let genuine = controller.endpoint();
    let uninspected = |endpoint: &str| format!("have it let {endpoint} pass uninspected");
    let mut inspected = |proxy: Option<String>, endpoint: &str| {
        setup.config["server"]["endpoints"] = json!([endpoint]);
        setup.config["server"]["proxy"] = json!(proxy.unwrap_or_default());
        let outcome = setup.enroll_once().expect_code(3);
        for part in [inspection::ISSUER, "it was not sent", &uninspected(endpoint)] {
            assert!(outcome.stderr.contains(part), "'{part}' is not in {outcome}");
        }
    };
    inspected(None, &inspection.endpoint());
    inspected(Some(proxy.url()), &genuine);

    // An agent that has been a member for long, behind a new box.
    setup.config["server"] = controller.agent("web-01").config["server"].clone();
    let token = controller.token(&[]);
    setup.config["server"]["token_file"] = json!(setup.path("join-token"));
    setup.write_token(&token.secret);
    setup.config["server"]["ca_pin"] = json!([token.pin]);
    let mut agent = setup.through(&genuine).start();
    connected_at(&agent, &genuine);
    agent.setup_mut().config["server"]["proxy"] = json!(proxy.url());
    agent.reload();
    poll::until("the agent says who is between", 30 * SECOND, || {
        let status = agent.status()?;
        let told = status["connection"]["lastError"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let is_whole = told.contains(inspection::ISSUER) && told.contains(&uninspected(&genuine));
        if is_whole {
            Ok(())
        } else {
            Err(status["connection"].to_string())
        }
    });
    controller.stop();
}

#[test]
fn a_fleet_lives_on_ipv6_alone() {
    let mut controller = Controller::set_up("");
    let endpoint = format!("[::1]:{}", controller.agents_port);
    let config = fs::read_to_string(controller.config()).expect("a config");
    fs::write(controller.config(), config.replace(&controller.endpoint(), &endpoint)).expect("the config is written");
    controller.run();
    let token = controller.token(&[]);
    assert_eq!(token.endpoint, endpoint, "it is advertised");
    let agent = controller.agent("web-01").start();
    connected_at(&agent, &endpoint);
    let shown = controller.wait_for_agent("web-01", "ONLINE");
    assert!(
        shown["connection"]["remoteAddress"]
            .as_str()
            .is_some_and(|it| it.contains("::1")),
        "{shown}"
    );
}

#[test]
fn controllers_are_found_by_the_record_that_names_them() {
    let controller = Controller::start();
    let dead = 1;
    let records = vec![(10, 0, controller.agents_port, "localhost"), (0, 0, dead, "localhost")];
    let Some(names) = NameServer::start("DNS SRV", Vec::new()) else {
        return;
    };
    let mut setup = controller.agent("web-01").through("replaced");
    setup.config["server"]["endpoints"] = json!([]);
    setup.config["server"]["srv"] = json!("_muster._tcp.example.test");
    setup.wrapper = names.wrapper();
    let outcome = setup.enroll_once().expect_code(3);
    assert!(outcome.stderr.contains("DNS names no controller"), "{outcome}");
    assert!(
        outcome.stderr.contains("dig SRV _muster._tcp.example.test"),
        "{outcome}"
    );

    names.set(records);
    setup.enroll_once().expect_code(0);
    let agent = setup.start();
    let endpoint = format!("localhost:{}", controller.agents_port);
    let status = connected_at(&agent, &endpoint);
    let places = json!([
        { "endpoint": format!("localhost:{dead}"), "source": "named by DNS" },
        { "endpoint": endpoint, "source": "named by DNS" },
    ]);
    assert_eq!(status["endpoints"], places, "the lower priority comes first");
}
