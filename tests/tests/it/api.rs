//! The two listeners as other programs meet them: who is let in where, reflection, health, and the reasons of refusals.

use std::{fs, path::PathBuf, process::Command};

use muster_proto::document::{self, Node, Value as Yaml};
use muster_tests::{Controller, binaries, ctl::Outcome, process, tools};
use serde_json::Value;

/// buf's exit code for a call that ended with a gRPC status.
const fn rpc(code: i32) -> i32 {
    code << 3
}
const INVALID_ARGUMENT: i32 = rpc(3);
const PERMISSION_DENIED: i32 = rpc(7);
const UNAUTHENTICATED: i32 = rpc(16);

const LIST_AGENTS: &str = "muster.v1.AgentService/ListAgents";
const ENROLL: &str = "muster.v1.EnrollmentService/Enroll";

#[test]
fn an_admin_lists_services_by_reflection_and_calls_them() {
    let Some(clients) = Clients::new() else { return };
    let controller = &clients.controller;
    let services = clients
        .run("admin", &["--list-services", &format!("https://{}", controller.api())])
        .expect_code(0);
    for service in [
        "AgentService",
        "PolicyService",
        "StateService",
        "TokenService",
        "UserService",
        "MetricService",
    ] {
        assert!(
            services
                .stdout
                .lines()
                .any(|line| line == format!("muster.v1.{service}")),
            "{services}"
        );
    }
    // What agents call is not served here, and so is not listed.
    assert!(!services.stdout.contains("LinkService"), "{services}");

    let answer = clients
        .call("admin", &controller.api(), LIST_AGENTS, "{}")
        .expect_code(0);
    let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!(answer["items"][0]["name"], "web-01", "{answer}");
    assert_eq!(answer["items"][0]["id"], clients.agent_id, "{answer}");

    let v1alpha = [
        "--reflect-protocol",
        "grpc-v1alpha",
        "--list-services",
        &format!("https://{}", controller.api()),
    ];
    clients.run("admin", &v1alpha).expect_code(0);
}

#[test]
fn without_a_certificate_the_api_refuses_everything() {
    let Some(clients) = Clients::new() else { return };
    let api = clients.controller.api();
    let refused = clients
        .call("nobody", &api, LIST_AGENTS, "{}")
        .expect_code(UNAUTHENTICATED);
    assert_reason(&refused, "CERTIFICATE_REQUIRED");
    let reflection = clients.run("nobody", &["--list-services", &format!("https://{api}")]);
    assert_ne!(reflection.code, 0, "{reflection}");
}

#[test]
fn an_agents_certificate_is_refused_at_the_api() {
    let Some(clients) = Clients::new() else { return };
    let refused = clients
        .call("agent", &clients.controller.api(), LIST_AGENTS, "{}")
        .expect_code(PERMISSION_DENIED);
    assert_reason(&refused, "METHOD_NOT_ALLOWED");
}

#[test]
fn an_operators_certificate_is_refused_at_the_agents_listener() {
    let Some(clients) = Clients::new() else { return };
    let refused = clients
        .call("admin", &clients.controller.endpoint(), ENROLL, "{}")
        .expect_code(PERMISSION_DENIED);
    assert_reason(&refused, "METHOD_NOT_ALLOWED");
}

#[test]
fn a_certificate_of_another_muster_is_refused_in_the_handshake() {
    let Some(clients) = Clients::new() else { return };
    let other = Controller::start();
    let refused = clients.call("admin", &other.api(), LIST_AGENTS, "{}");
    // Whether buf reads the alert or finds the connection closed is a matter of time; it never gets as far as an answer.
    assert!(refused.code != 0 && refused.stdout.is_empty(), "{refused}");
    assert!(!refused.stderr.contains("ErrorInfo"), "{refused}");
}

#[test]
fn methods_of_operators_are_not_served_to_agents() {
    let Some(clients) = Clients::new() else { return };
    for who in ["nobody", "agent"] {
        let refused = clients.call(who, &clients.controller.endpoint(), LIST_AGENTS, "{}");
        assert_ne!(refused.code, 0, "{refused}");
    }
}

#[test]
fn an_enrollment_says_by_code_and_reason_what_is_wrong() {
    let Some(clients) = Clients::new() else { return };
    let endpoint = clients.controller.endpoint();
    let refused = clients.call("nobody", &endpoint, ENROLL, r#"{"token": "mst_x_y", "name": "x"}"#);
    assert_reason(&refused.expect_code(UNAUTHENTICATED), "TOKEN_INVALID");
    let token = clients.controller.token(&["--uses", "1"]);
    let request = serde_json::json!({ "token": token.secret, "name": "x", "csr": "AAAA" }).to_string();
    let refused = clients.call("nobody", &endpoint, ENROLL, &request);
    assert_reason(&refused.expect_code(INVALID_ARGUMENT), "CSR_INVALID");
}

#[test]
fn a_selector_with_a_syntax_error_is_refused_with_its_position() {
    let Some(clients) = Clients::new() else { return };
    let refused = clients.call(
        "admin",
        &clients.controller.api(),
        LIST_AGENTS,
        r#"{"selector": "env=prod,,"}"#,
    );
    assert_reason(&refused.expect_code(INVALID_ARGUMENT), "INVALID_SELECTOR");
}

#[test]
fn health_is_told_to_everybody() {
    let controller = Controller::start();
    for version in ["--http1.1", "--http2"] {
        let mut command = process::clean_command("curl", "/".as_ref());
        command.args([
            "--silent",
            "--insecure",
            "--fail",
            version,
            &format!("https://{}/healthz", controller.api()),
        ]);
        Outcome::of(command).expect_code(0);
    }
    let Some(clients) = Clients::new() else { return };
    // The standard protocol, spelled out here since reflection is not for everybody.
    let schema = clients.controller.path("health.proto");
    let text = "syntax = \"proto3\";\npackage grpc.health.v1;\nservice Health { rpc Check(HealthCheckRequest) returns \
                (HealthCheckResponse); }\nmessage HealthCheckRequest { string service = 1; }\nmessage \
                HealthCheckResponse { enum ServingStatus { UNKNOWN = 0; SERVING = 1; } ServingStatus status = 1; }\n";
    fs::write(&schema, text).expect("the schema is written");
    let url = format!("https://{}/grpc.health.v1.Health/Check", clients.controller.api());
    let health = clients
        .run("nobody", &["--schema", schema.to_str().expect("a path"), &url])
        .expect_code(0);
    assert!(health.stdout.contains("SERVING"), "{health}");
}

#[test]
fn metrics_of_the_controller_are_told_to_admins_alone() {
    let Some(clients) = Clients::new() else { return };
    let url = format!("https://{}/metrics", clients.controller.api());
    let curl = |who: &str| {
        let mut command = process::clean_command("curl", "/".as_ref());
        command.args(["--silent", "--insecure", "--fail", &url]);
        clients.show(&mut command, who);
        Outcome::of(command)
    };
    let metrics = curl("admin").expect_code(0);
    assert!(metrics.stdout.contains("muster_controller_"), "{metrics}");
    assert_ne!(curl("nobody").code, 0);
    assert_ne!(curl("agent").code, 0);
}

/// A controller with one enrolled agent, and `buf` as three kinds of client: `admin`, `agent`, `nobody`.
struct Clients {
    controller: Controller,
    agent_id: String,
    buf: PathBuf,
}

impl Clients {
    fn new() -> Option<Self> {
        let Some(buf) = tools::buf() else {
            tools::skipped("the API by buf curl", "buf is not installed (tests/run.sh tools)");
            return None;
        };
        let controller = Controller::start();
        let setup = controller.agent("web-01");
        setup.enroll().expect_code(0);
        let identity = fs::read_to_string(setup.path("state/identity.pem")).expect("an identity");
        // The file holds the key and the chain; buf and curl look for each of them by its kind.
        fs::write(controller.path("agent.pem"), identity).expect("a copy");
        let agent_id = fs::read_to_string(setup.path("agent-id"))
            .expect("an id")
            .trim()
            .to_owned();

        let context = fs::read_to_string(controller.path("tester.yaml")).expect("a context");
        let documents = document::parse(&context).expect("YAML");
        let first = sequence(field(&documents[0], "contexts"));
        let pem = ["key", "certificate"]
            .map(|name| string(field(&first[0], name)))
            .concat();
        fs::write(controller.path("admin.pem"), pem).expect("a copy");
        Some(Self {
            controller,
            agent_id,
            buf,
        })
    }

    fn call(&self, who: &str, address: &str, method: &str, request: &str) -> Outcome {
        let schema = binaries::workspace().join("proto");
        let url = format!("https://{address}/{method}");
        self.run(
            who,
            &["--schema", schema.to_str().expect("a path"), "--data", request, &url],
        )
    }

    fn run(&self, who: &str, arguments: &[&str]) -> Outcome {
        let mut command = process::clean_command(&self.buf, &self.controller.path(""));
        // A controller is known by the URI in its certificate, which buf does not look at.
        command
            .args(["curl", "--protocol", "grpc", "--insecure"])
            .args(arguments);
        self.show(&mut command, who);
        Outcome::of(command)
    }

    /// Lets a client show the certificate of `who`.
    fn show(&self, command: &mut Command, who: &str) {
        if who != "nobody" {
            let pem = self.controller.path(&format!("{who}.pem"));
            command.arg("--cert").arg(&pem).arg("--key").arg(&pem);
        }
    }
}

#[track_caller]
fn assert_reason(outcome: &Outcome, reason: &str) {
    let error: Value = serde_json::from_str(&outcome.stderr).unwrap_or_else(|_| panic!("no error in JSON:\n{outcome}"));
    let details = error["details"]
        .as_array()
        .unwrap_or_else(|| panic!("no details:\n{outcome}"));
    let info = details.iter().find(|detail| detail["type"] == "google.rpc.ErrorInfo");
    let info = base64(info.and_then(|info| info["value"].as_str()).expect("an ErrorInfo"));
    // Strings stand in a message as they are, each after its length.
    let has = |text: &str| {
        let field = [&[text.len() as u8], text.as_bytes()].concat();
        info.windows(field.len()).any(|window| window == field)
    };
    assert!(
        has(reason) && has("muster"),
        "not {reason}: {:?}\n{outcome}",
        String::from_utf8_lossy(&info)
    );
}

fn base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text
        .bytes()
        .filter_map(|byte| alphabet.iter().position(|digit| *digit == byte));
    let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0, 0);
    for digit in digits {
        buffer = (buffer << 6 | digit) & 0xfff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
        }
    }
    bytes
}

fn field<'a>(node: &'a Node, name: &str) -> &'a Node {
    let Yaml::Map(entries) = &node.value else {
        panic!("no mapping")
    };
    entries
        .iter()
        .find(|(key, _)| key.text == name)
        .map_or_else(|| panic!("no {name}"), |(_, value)| value)
}

fn sequence(node: &Node) -> &[Node] {
    let Yaml::Seq(items) = &node.value else {
        panic!("no sequence")
    };
    items
}

fn string(node: &Node) -> &str {
    let Yaml::String(text) = &node.value else {
        panic!("no text")
    };
    text
}
