//! REST as programs of others meet it: against its own description, with keys, and over streams.

use std::{fs, io::BufRead as _, io::BufReader, process::Stdio};

use muster_tests::{
    Controller, binaries,
    ctl::Outcome,
    dial,
    poll::{self, SECOND},
    process, tools, turn,
};
use serde_json::{Value, json};

/// What ends the caller or the controller, in the hands of somebody who may do everything.
const FATAL: &[&str] = &[
    "DrainController",
    "PrepareCa",
    "ActivateCa",
    "RetireCa",
    "RevokeApiKey",
    "DeleteGrant",
];
/// They do not end by themselves.
const ENDLESS: &[&str] = &["WatchAgents", "WatchStates"];

const POLICY: &str = "apiVersion: muster/v1\nkind: Check\nmetadata: { name: here }\nspec:\n  selector: \"*\"\n  \
                      schedule: { interval: 60s }\n  run: { command: [/bin/true] }\n";

/// An operator with `curl`.
struct Client<'a> {
    controller: &'a Controller,
    /// Of the command line.
    credentials: Vec<String>,
}

impl<'a> Client<'a> {
    fn admin(controller: &'a Controller) -> Self {
        let pem = controller.path("admin.pem");
        fs::write(&pem, dial::operator_pem(&controller.path("tester.yaml"))).expect("a file");
        Self {
            controller,
            credentials: vec!["--cert".into(), pem.display().to_string()],
        }
    }

    fn with_key(controller: &'a Controller, key: &str) -> Self {
        Self {
            controller,
            credentials: vec!["--header".into(), format!("authorization: Bearer {key}")],
        }
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> std::process::Command {
        let mut curl = process::clean_command("curl", self.controller.path("").as_path());
        // A controller's own certificate has no host name.
        curl.args(["--silent", "--show-error", "--insecure", "--no-buffer"])
            .arg(format!("https://{}{path}", self.controller.api()))
            .args(&self.credentials)
            .args(arguments);
        curl
    }

    /// The status and the JSON of an answer.
    fn call(&self, path: &str, arguments: &[&str]) -> (u16, Value) {
        let outcome =
            Outcome::of(self.curl(path, &[arguments, &["--write-out", "\n%{http_code}"]].concat())).expect_code(0);
        let (body, status) = outcome.stdout.rsplit_once('\n').expect("a status");
        let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON:\n{outcome}"));
        (status.parse().expect("a number"), body)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(path, &["--json", &body.to_string()])
    }

    /// A key with this role.
    fn key(&self, role: &str) -> String {
        let (status, made) = self.post("/v1/apikeys", &json!({ "role": role, "ttl": "3600s" }));
        assert_eq!(status, 200, "{made}");
        made["secret"].as_str().expect("a secret").to_owned()
    }
}

#[test]
fn schemathesis_finds_no_failure_and_nothing_but_what_is_described() {
    let _turn = turn::of_heavy_tests();
    let Some(schemathesis) = tools::python("st") else {
        tools::skipped("REST by schemathesis", "it is not installed (tests/run.sh tools)");
        return;
    };
    let controller = Controller::start();
    controller.apply(POLICY);
    let _agent = controller.agent("web-01").start();
    poll::until("the agent is online", 20 * SECOND, || {
        controller.ctl().agent_is("web-01", "ONLINE")
    });
    let admin = Client::admin(&controller);
    // Both at once: the user who makes them is gone after the first run.
    let keys = ["admin", "viewer"].map(|role| admin.key(role));
    let run = |key: &str, chosen: &[&str], choice: &str| {
        let mut command = process::clean_command(&schemathesis, &controller.path(""));
        command
            .current_dir(controller.path(""))
            .arg("--config-file")
            .arg(binaries::workspace().join("tests/run/schemathesis.toml"))
            .arg("run")
            .arg(binaries::workspace().join("docs/openapi.json"))
            .args(["--url", &format!("https://{}", controller.api())])
            .args(["--tls-verify", "false", "--request-timeout", "20", "--no-color"])
            .args(["--header", &format!("Authorization: Bearer {key}")])
            .args([
                "--max-examples",
                "15",
                "--seed",
                "7",
                "--generation-database",
                "none",
                "--workers",
                "2",
            ])
            // Where it could go without them it says so, and that is no failure.
            .args(["--warnings", "off", "--continue-on-failure"]);
        for operation in chosen {
            command.args([choice, operation]);
        }
        Outcome::of(command).expect_code(0);
    };
    run(&keys[0], &[FATAL, ENDLESS].concat(), "--exclude-operation-id");
    // Whoever may not do them is refused as described.
    run(&keys[1], FATAL, "--include-operation-id");
    assert!(!controller.log().contains("panicked"), "{}", controller.log());
}

#[test]
fn a_key_opens_what_was_granted_to_it_and_never_beside_a_certificate() {
    let controller = Controller::start();
    let admin = Client::admin(&controller);
    let key = admin.key("viewer");
    let viewer = Client::with_key(&controller, &key);
    assert_eq!(viewer.call("/v1/agents", &[]).0, 200);
    let (status, refused) = viewer.post("/v1/tokens", &json!({}));
    assert_eq!(
        (status, &refused["reason"]),
        (403, &json!("PERMISSION_MISSING")),
        "{refused}"
    );

    let header = format!("authorization: Bearer {key}");
    let (status, refused) = admin.call("/v1/agents", &["--header", &header]);
    assert_eq!(
        (status, &refused["code"]),
        (401, &json!("UNAUTHENTICATED")),
        "{refused}"
    );
    let nobody = Client::with_key(&controller, "mk_nothing");
    let (status, refused) = nobody.call("/v1/agents", &[]);
    assert_eq!(
        (status, &refused["reason"]),
        (401, &json!("API_KEY_INVALID")),
        "{refused}"
    );
}

#[test]
fn the_description_and_its_page_are_for_operators_and_the_page_is_held_to_itself() {
    let controller = Controller::start();
    let admin = Client::admin(&controller);
    let (status, description) = admin.call("/openapi.json", &[]);
    assert_eq!((status, &description["openapi"]), (200, &json!("3.1.0")));
    let page = Outcome::of(admin.curl("/docs", &["--include"])).expect_code(0).stdout;
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    for path in ["/docs", "/openapi.json", "/v1/agents"] {
        let refused = Outcome::of(
            Client {
                credentials: Vec::new(),
                ..admin
            }
            .curl(path, &["--include"]),
        )
        .stdout;
        assert!(refused.starts_with("HTTP/2 401"), "{path}: {refused}");
        assert!(refused.contains("application/problem+json"), "{path}: {refused}");
        assert!(refused.contains("www-authenticate: Bearer"), "{path}: {refused}");
    }
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let controller = Controller::start();
    let admin = Client::admin(&controller);
    let large = controller.path("large.json");
    fs::write(&large, vec![b' '; 17 << 20]).expect("a file");
    let (status, refused) = admin.call("/v1/tokens", &["--json", &format!("@{}", large.display())]);
    assert_eq!(
        (status, &refused["reason"]),
        (400, &json!("INVALID_FIELD")),
        "{refused}"
    );
}

#[test]
fn a_watch_goes_on_after_the_last_event_that_its_caller_has_got() {
    let controller = Controller::start();
    controller.agent("web-01").enroll().expect_code(0);
    let admin = Client::admin(&controller);
    let label = |value: &str| {
        let body = json!({ "set": { "step": value } }).to_string();
        let (status, changed) = admin.call("/v1/agents/web-01/labels", &["--request", "PATCH", "--json", &body]);
        assert_eq!(status, 200, "{changed}");
    };
    let accept = ["--header", "accept: text/event-stream"];
    let first = events(&admin, &accept, "SYNCED");
    let id = first
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("id: "))
        .expect("an id")
        .to_owned();
    assert_eq!(
        first.matches("id: ").count(),
        1,
        "only from where it is safe to go on:\n{first}"
    );
    label("one");
    let resumed = [
        "--header",
        "accept: text/event-stream",
        "--header",
        &format!("last-event-id: {id}"),
    ];
    let second = events(&admin, &resumed, r#""value":"one""#);
    assert!(!second.contains("SYNCED"), "{second}");

    let lines = events(&admin, &[], "SYNCED");
    assert!(
        lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{lines}"
    );
    let (status, gone) = admin.call("/v1/agents:watch?revision=999999", &accept);
    assert_eq!((status, &gone["reason"]), (400, &json!("REVISION_GONE")), "{gone}");
}

/// What a watch of agents sends until a line has this in it.
fn events(client: &Client<'_>, arguments: &[&str], until: &str) -> String {
    let mut command = client.curl("/v1/agents:watch", &[&["--max-time", "30"], arguments].concat());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("curl starts");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let mut text = String::new();
    for line in output.lines().map_while(Result::ok) {
        text += &format!("{line}\n");
        if line.contains(until) {
            break;
        }
    }
    child.kill().expect("it is ended");
    child.wait().expect("it has ended");
    assert!(text.contains(until), "{until} did not come:\n{text}");
    text
}
