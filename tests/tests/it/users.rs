//! Operators through the real binaries: keys that stay where they are made, renewals in place, and the end of trust.

use std::{
    fs,
    future::poll_fn,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    pin::pin,
    time::SystemTime,
};

use hyper::body::Body as _;
use muster_certs::{ca::Ca, certificate::Certificate, csr, key::KeyPair, pem};
use muster_proto::v1::{ListUsersRequest, ListUsersResponse, user_service_client::UserServiceClient};
use muster_tests::{
    Controller, Process, binaries,
    ctl::Outcome,
    dial,
    poll::{self, SECOND},
    process, tools,
};
use serde_json::Value;
use tonic::{Code, Status, body::Body, transport::Channel};
use tower::ServiceExt as _;

fn create(controller: &Controller, name: &str) -> PathBuf {
    let file = controller.path(&format!("{name}.yaml"));
    let ctl = controller.ctl();
    ctl.ok(&[
        "user".as_ref(),
        "create".as_ref(),
        name.as_ref(),
        "--role".as_ref(),
        "admin".as_ref(),
        "--out".as_ref(),
        file.as_os_str(),
    ]);
    file
}

fn user(controller: &Controller, name: &str) -> Value {
    controller.ctl().json(&["user", "get", name])
}

fn serial(context: &Path) -> String {
    dial::operator(context).serial().to_owned()
}

/// The lines of the key in a context file.
fn key_lines(context: &Path) -> Vec<String> {
    let key = dial::operator(context).key().to_pem().to_string();
    let lines = key.lines().filter(|line| !line.starts_with('-'));
    lines.map(str::to_owned).collect()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

#[test]
fn the_key_of_an_operator_is_made_where_it_is_used_and_stays_there() {
    let controller = Controller::start();
    let file = create(&controller, "alice");
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    controller.ctl_as("alice.yaml").ok(&["agent", "list"]);

    let key = key_lines(&file);
    assert!(!key.is_empty());
    let elsewhere = files(&controller.data_dir())
        .into_iter()
        .chain([controller.path("controller.log")]);
    for path in elsewhere {
        let content = fs::read(&path).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        assert!(!key.iter().any(|line| content.contains(line)), "{}", path.display());
    }

    let alice = user(&controller, "alice");
    assert_eq!(alice["status"], "USER_STATUS_ACTIVE");
    assert_eq!(alice["certificates"][0]["serial"], serial(&file));
    let names: Vec<Value> = controller.ctl().items(&["user", "list"]).expect("a list");
    let names: Vec<&str> = names.iter().filter_map(|user| user["name"].as_str()).collect();
    assert!(names.contains(&"alice") && names.contains(&"tester"), "{names:?}");
    let table = controller.ctl().ok(&["user", "list"]).stdout;
    assert!(table.contains("alice") && table.contains("active"), "{table}");
    let yaml = controller.ctl().ok(&["user", "get", "alice", "-o", "yaml"]).stdout;
    assert!(yaml.contains("name: alice"), "{yaml}");
    controller
        .ctl()
        .run(&["user", "get", "nobody"])
        .expect_code(5)
        .explains();
}

#[test]
fn no_context_file_is_overwritten_and_a_failed_attempt_leaves_nothing() {
    let controller = Controller::start();
    let file = create(&controller, "alice");
    let before = fs::read_to_string(&file).expect("a file");
    let create = |name: &str, file: &str| {
        let path = controller.path(file);
        controller.ctl().run(&[
            "user".as_ref(),
            "create".as_ref(),
            name.as_ref(),
            "--role".as_ref(),
            "admin".as_ref(),
            "--out".as_ref(),
            path.as_os_str(),
        ])
    };
    create("bob", "alice.yaml").expect_code(2).explains().says(&["--out"]);
    controller.ctl().run(&["user", "get", "bob"]).expect_code(5);
    assert_eq!(fs::read_to_string(&file).expect("a file"), before);

    create("alice", "again.yaml")
        .expect_code(8)
        .explains()
        .says(&["ALREADY_EXISTS", "musterctl user renew alice"]);
    assert!(!controller.path("again.yaml").exists());
    let (_, request) = request(&controller, "bob.csr");
    let long = [
        "user", "create", "bob", "--role", "admin", "--ttl", "400d", "--csr", &request,
    ];
    let outcome = controller.ctl().run(&long);
    outcome.expect_code(2).explains().says(&["from 1 minute to 365 days"]);
}

/// A key, and the path of a file with a request for it.
fn request(controller: &Controller, file: &str) -> (KeyPair, String) {
    let key = KeyPair::generate().expect("a key");
    let path = controller.path(file);
    fs::write(&path, csr::create(&key).expect("a request")).expect("a file");
    (key, path.to_str().expect("a path").to_owned())
}

#[test]
fn a_colleague_gets_a_certificate_for_a_key_that_never_leaves_their_machine() {
    let controller = Controller::start();
    let (key, request) = request(&controller, "alice.csr");
    let printed = controller
        .ctl()
        .ok(&["user", "create", "alice", "--role", "admin", "--csr", &request])
        .stdout;
    let chain = pem::certificates(&printed).expect("certificates and nothing else");
    let leaf = Certificate::parse(&chain[0]).expect("a certificate");
    assert_eq!(leaf.public_key_der, key.public_key().der());
    assert_eq!(leaf.uris, ["spiffe://example.muster/user/alice"]);

    // With the rest of what a context needs, to which the colleague adds the key as the file says.
    let file = controller.path("alice.yaml");
    let path = file.to_str().expect("a path");
    let ctl = controller.ctl();
    let outcome = ctl.ok(&["user", "renew", "alice", "--csr", &request, "--out", path]);
    outcome.says(&["key is missing", "sed"]);
    let pem: String = key.to_pem().lines().map(|line| format!("      {line}\n")).collect();
    let context = fs::read_to_string(&file).expect("a file") + "    key: |\n" + &pem;
    fs::write(&file, context).expect("a file");
    controller.ctl_as("alice.yaml").ok(&["agent", "list"]);

    let garbage = controller.path("garbage.csr");
    fs::write(&garbage, "no request").expect("a file");
    let garbage = garbage.to_str().expect("a path");
    let outcome = ctl.run(&["user", "create", "bob", "--role", "admin", "--csr", garbage]);
    outcome.expect_code(2).explains().says(&["openssl req"]);
}

#[test]
fn requests_of_openssl_are_good_with_every_kind_of_key_that_is_accepted() {
    if tools::find("openssl").is_none() {
        return tools::skipped("requests of somebody else", "openssl is not installed");
    }
    let controller = Controller::start();
    let kinds: [(&str, &[&str], i32); 4] = [
        ("p256", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], 0),
        ("p384", &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"], 0),
        ("ed25519", &["ed25519"], 0),
        ("rsa", &["rsa:2048"], 2),
    ];
    for (name, kind, code) in kinds {
        let path = |end: &str| {
            controller
                .path(&format!("{name}.{end}"))
                .to_str()
                .expect("a path")
                .to_owned()
        };
        let mut openssl = process::clean_command("openssl", &controller.path("."));
        openssl.args(["req", "-new", "-newkey"]).args(kind);
        openssl.args([
            "-nodes",
            "-subj",
            "/CN=root",
            "-keyout",
            &path("key"),
            "-out",
            &path("csr"),
        ]);
        Outcome::of(openssl).expect_code(0);
        let create = ["user", "create", name, "--role", "viewer", "--csr", &path("csr")];
        let outcome = controller.ctl().run(&create);
        let outcome = outcome.expect_code(code);
        if code == 0 {
            let chain = pem::certificates(&outcome.stdout).expect("certificates");
            let leaf = Certificate::parse(&chain[0]).expect("a certificate");
            assert_eq!(leaf.uris, [format!("spiffe://example.muster/user/{name}")]);
        }
    }

    // What `docs/users.md` says: the context file without a key from the one, the key from the other.
    let path = |file: &str| controller.path(file).to_str().expect("a path").to_owned();
    let renew = [
        "user",
        "renew",
        "p256",
        "--csr",
        &path("p256.csr"),
        "--out",
        &path("p256.yaml"),
    ];
    controller.ctl().ok(&renew);
    let recipe = "umask 077; (cat p256.yaml; echo '    key: |'; sed 's/^/      /' p256.key) > whole.yaml";
    let mut shell = process::clean_command("sh", &controller.path("."));
    shell.current_dir(controller.path(".")).args(["-c", recipe]);
    Outcome::of(shell).expect_code(0);
    controller.ctl_as("whole.yaml").ok(&["agent", "list"]);
}

#[test]
fn a_context_renews_itself_in_its_own_file() {
    let controller = Controller::start();
    let file = controller.path("tester.yaml");
    let (before, key) = (serial(&file), key_lines(&file));
    let outcome = controller.ctl().ok(&["user", "renew", "--ttl", "90d"]);
    outcome.says(&["has a new key"]);
    let after = serial(&file);
    assert_ne!(after, before);
    assert_ne!(key_lines(&file), key);
    controller.ctl().ok(&["agent", "list"]);

    let tester = user(&controller, "tester");
    let serials: Vec<&str> = tester["certificates"]
        .as_array()
        .expect("certificates")
        .iter()
        .filter_map(|certificate| certificate["serial"].as_str())
        .collect();
    assert_eq!(serials, [&after, &before]);
    let renewed = controller.ctl().events("USER_RENEWED").expect("events");
    assert_eq!(renewed.len(), 1, "{renewed:?}");
    // Where it goes is said for another operator alone.
    controller
        .ctl()
        .run(&["user", "renew", "--out", "x.yaml"])
        .expect_code(2)
        .explains();
}

#[test]
fn a_renewal_that_does_not_come_to_its_end_leaves_the_context_as_it_was() {
    let mut controller = Controller::start();
    let file = controller.path("tester.yaml");
    let before = fs::read_to_string(&file).expect("a file");
    controller.stop();
    controller.ctl().run(&["user", "renew"]).expect_code(3).explains();
    assert_eq!(fs::read_to_string(&file).expect("a file"), before);
    controller.run();
    controller.ctl().ok(&["user", "renew"]);
}

#[test]
fn an_expired_certificate_does_not_renew_itself_and_another_operator_makes_a_new_one() {
    let controller = Controller::start();
    let file = create(&controller, "alice");
    expire(&controller, &file);
    let before = fs::read_to_string(&file).expect("a file");
    let alice = controller.ctl_as("alice.yaml");
    let refused = alice.run(&["user", "renew"]).expect_code(4).explains();
    refused.says(&[
        "CERTIFICATE_EXPIRED",
        "musterctl user renew NAME",
        "muster-server admin create",
    ]);
    assert_eq!(fs::read_to_string(&file).expect("a file"), before);

    let file = controller.path("alice-2.yaml");
    let path = file.to_str().expect("a path");
    controller.ctl().ok(&["user", "renew", "alice", "--out", path]);
    controller.ctl_as("alice-2.yaml").ok(&["agent", "list"]);
}

#[test]
fn a_revoked_operator_is_out_at_once_with_every_connection_and_for_good() {
    let mut controller = Controller::start();
    let file = create(&controller, "alice");
    let mut watch = watch(&controller, &file);
    poll::until("the watch is there", 20 * SECOND, || {
        let output = watch.output();
        if output.contains("AGE") || output.contains("NAME") {
            Ok(())
        } else {
            Err(output)
        }
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let kept = runtime.block_on(connection(&controller, &file));

    let reason = ["--reason", "laptop was stolen"];
    controller
        .ctl()
        .ok(&[&["user", "revoke", "alice"], &reason[..]].concat());
    assert_eq!(watch.wait(10 * SECOND).code(), Some(4), "{}", watch.output());
    assert!(watch.output().contains("CERTIFICATE_REVOKED"), "{}", watch.output());
    // On a connection that a program keeps, calls are refused until it ends; this one is not opened again.
    poll::until("the connection ends", 10 * SECOND, || {
        let refused = runtime.block_on(list(&kept)).expect_err("nothing is let in");
        match refused.code() {
            Code::Unauthenticated => Err(refused),
            _ => Ok(()),
        }
    });

    let out = |controller: &Controller| {
        let outcome = controller.ctl_as("alice.yaml").run(&["agent", "list"]);
        outcome.expect_code(4).explains().says(&["CERTIFICATE_REVOKED"]);
    };
    out(&controller);
    controller.ctl_as("alice.yaml").run(&["user", "renew"]).expect_code(4);
    let alice = user(&controller, "alice");
    assert_eq!(alice["status"], "USER_STATUS_REVOKED");
    assert_eq!(alice["certificates"][0]["revokeReason"], "laptop was stolen");
    let told = controller.ctl().events("USER_REVOKED").expect("events");
    assert!(
        told.iter()
            .any(|event| event["message"].as_str().is_some_and(|text| text.contains("stolen")))
    );
    assert!(
        runtime.block_on(is_listed(&controller, &serial(&file))),
        "the CRL has it"
    );
    assert!(!runtime.block_on(is_listed(&controller, &serial(&controller.path("tester.yaml")))));

    controller.kill();
    controller.run();
    out(&controller);

    // The name comes back when somebody says so, and what was revoked does not.
    let again = controller.path("alice-2.yaml");
    let again = again.to_str().expect("a path");
    let create = ["user", "create", "alice", "--role", "admin", "--out", again];
    controller
        .ctl()
        .run(&create)
        .expect_code(8)
        .explains()
        .says(&["--reinstate"]);
    controller.ctl().ok(&[&create[..], &["--reinstate"]].concat());
    controller.ctl_as("alice-2.yaml").ok(&["agent", "list"]);
    out(&controller);
}

#[test]
fn the_last_operator_stays_and_the_host_lets_everybody_in_again() {
    let controller = Controller::start();
    // Of `init`.
    controller.ctl().ok(&["user", "revoke", "admin"]);
    let refused = controller
        .ctl()
        .run(&["user", "revoke", "tester"])
        .expect_code(8)
        .explains();
    refused.says(&["LAST_ADMIN", "musterctl user create", "muster-server admin create"]);
    controller.ctl().ok(&["agent", "list"]);

    // On the host, beside the running controller.
    controller.create_admin("oncall", "oncall.yaml").expect_code(0);
    controller
        .ctl_as("oncall.yaml")
        .ok(&["user", "revoke", "tester", "--reason", "left"]);
    controller.ctl().run(&["agent", "list"]).expect_code(4);
    let again = controller.create_admin("tester", "tester-2.yaml").expect_code(0);
    assert!(again.stdout.contains("who was revoked"), "{again}");
    controller.ctl_as("tester-2.yaml").ok(&["agent", "list"]);
    controller.ctl().run(&["agent", "list"]).expect_code(4);
}

#[test]
fn a_renewal_takes_an_operator_over_to_the_next_ca() {
    let controller = Controller::start();
    let file = create(&controller, "alice");
    let step = |step: &str| controller.ctl().ok(&["ca", step, "--yes"]);
    let ca = |name: &str| user(&controller, name)["certificates"][0]["ca"].clone();
    let before = ca("alice");
    step("prepare");
    step("activate");
    controller.ctl_as("alice.yaml").ok(&["agent", "list"]);
    controller.ctl_as("alice.yaml").ok(&["user", "renew"]);
    assert_ne!(ca("alice"), before);
    let roots = roots(&file);
    assert_eq!(roots, 2, "the old one and the new one");
    step("retire");
    controller.ctl_as("alice.yaml").ok(&["agent", "list"]);
    // Who has not renewed goes on until the end of the certificate, and renews then as before.
    controller.ctl().ok(&["user", "renew"]);
    assert_ne!(ca("tester"), before);
    controller.ctl().ok(&["agent", "list"]);
}

/// Puts a certificate into a context file that is as good as the one in it, and over.
fn expire(controller: &Controller, context: &Path) {
    let read = |name: &str| fs::read_to_string(controller.data_dir().join("pki").join(name)).expect("a file");
    let ca = Ca::load(&read("issuing.pem"), &read("issuing-key.pem")).expect("a CA");
    let identity = dial::operator(context);
    let now = SystemTime::now();
    let past = now - 600 * SECOND..now - SECOND;
    let expired = ca
        .issue(identity.identity(), &identity.key().public_key(), past)
        .expect("a certificate");
    let text = fs::read_to_string(context).expect("a file");
    let (head, rest) = text.split_once("    certificate: |\n").expect("a certificate");
    let (_, key) = rest.split_once("    key: |\n").expect("a key");
    let chain = pem::encode_certificates([&expired.der, ca.certificate_der()]);
    let chain: String = chain.lines().map(|line| format!("      {line}\n")).collect();
    let text = format!("{head}    certificate: |\n{chain}    key: |\n{key}");
    muster_certs::file::write_secret(context, text.as_bytes()).expect("a file");
}

/// How many roots a context file trusts.
fn roots(context: &Path) -> usize {
    let text = fs::read_to_string(context).expect("a file");
    let ca = text.split("    ca: |\n").nth(1).expect("roots");
    let ca = ca.split("    certificate: ").next().expect("roots");
    ca.matches("BEGIN CERTIFICATE").count()
}

fn watch(controller: &Controller, context: &Path) -> Process {
    let mut command = process::clean_command(binaries::path("musterctl"), &controller.path("."));
    command.arg("--config").arg(context).args(["agent", "watch"]);
    Process::start("musterctl", command, controller.path("watch.log"))
}

/// A connection on which one call has been made.
async fn connection(controller: &Controller, context: &Path) -> Channel {
    let identity = dial::operator(context);
    let channel = dial::channel(controller, controller.api_port, Some(&identity)).await;
    let channel = channel.expect("a connection");
    list(&channel).await.expect("it is let in");
    channel
}

async fn list(channel: &Channel) -> Result<ListUsersResponse, Status> {
    let mut users = UserServiceClient::new(channel.clone());
    Ok(users.list_users(ListUsersRequest::default()).await?.into_inner())
}

/// Whether the revocation list of the controller holds a serial number.
async fn is_listed(controller: &Controller, serial: &str) -> bool {
    let bytes: Vec<u8> = (0..serial.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&serial[at..at + 2], 16).expect("hexadecimal"))
        .collect();
    let channel = dial::channel(controller, controller.api_port, None).await;
    let request = http::Request::get("http://controller/crl").body(Body::empty());
    let answer = channel
        .expect("a connection")
        .oneshot(request.expect("a request"))
        .await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 200);
    let (mut body, mut list) = (pin!(answer.into_body()), Vec::new());
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        list.extend(frame.expect("a list").into_data().unwrap_or_default());
    }
    list.windows(bytes.len()).any(|window| window == bytes)
}
