//! The command line as people and pipelines use it: contexts, logging in, waiting, finding out why it fails, the same call with
//! other tools.

use std::{fs, path::Path};

use muster_tests::{
    Controller, Ctl, Process, binaries,
    ctl::Outcome,
    poll::{self, SECOND},
    process, settings, tools,
};
use serde_json::Value;

use crate::cas::openssl::Pki;

/// `musterctl` with nothing but these arguments, at home in this folder.
fn bare(home: &Path, arguments: &[&str]) -> Outcome {
    let mut command = process::clean_command(binaries::path("musterctl"), home);
    command.args(arguments);
    Outcome::of(command)
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// Words as a POSIX shell reads them, of what is quoted by single quotes and backslashes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let word = words.last_mut().expect("there is one");
        match character {
            '\'' => is_quoted = !is_quoted,
            '\\' if !is_quoted => word.extend(characters.next()),
            ' ' if !is_quoted => words.push(String::new()),
            other => word.push(other),
        }
    }
    words
}

/// Runs the `curl` that is shown for a command, and gives what it prints.
fn shown_curl(ctl: &Ctl, controller: &Controller, arguments: &[&str]) -> Value {
    let shown = ctl.run(&[&["--show-rpc"], arguments].concat()).expect_code(0);
    run_curl(&shown, controller)
}

fn run_curl(shown: &Outcome, controller: &Controller) -> Value {
    let line = shown.stderr.lines().find(|line| line.starts_with("curl "));
    let line = line.unwrap_or_else(|| panic!("no curl is shown:\n{shown}"));
    let words = words(line);
    let mut curl = process::clean_command(tools::find("curl").expect("curl"), &controller.path("."));
    curl.env("PATH", settings::path()).args(&words[1..]);
    let outcome = Outcome::of(curl).expect_code(0);
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}:\n{outcome}"))
}

#[test]
fn the_curl_that_is_shown_for_a_call_gives_the_same() {
    if tools::find("curl").is_none() {
        return tools::skipped("curl of --show-rpc", "curl is not installed");
    }
    let controller = Controller::start();
    let ctl = controller.ctl();
    let id = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
    let preregister = [
        "agent",
        "preregister",
        "--id",
        id,
        "--name",
        "web 01",
        "--label",
        "env=prod",
    ];
    ctl.ok(&preregister);
    ctl.ok(&["context", "export-pem"]);

    let list = ["agent", "list", "-l", "env in (prod,dev),!spot"];
    let curl = shown_curl(&ctl, &controller, &list);
    assert_eq!(curl["items"], ctl.json(&list)["items"]);
    assert_eq!(curl["items"][0]["name"], "web 01");
    let get = ["agent", "get", "web 01"];
    assert_eq!(shown_curl(&ctl, &controller, &get)["agent"], ctl.json(&get));
    // One that changes something, and has a body.
    let label = ["agent", "label", "web 01", "team=it's"];
    let curl = shown_curl(&ctl, &controller, &["agent", "label", "web 01", "team=its"]);
    assert_eq!(curl["agent"]["name"], "web 01", "{label:?}");
    // With an API key, which no line holds.
    let key = ctl.ok(&["apikey", "create", "--role", "viewer", "-o", "name"]).stdout;
    let file = controller.path("key");
    muster_certs::file::write_secret(&file, key.as_bytes()).expect("a key");
    let by_key = |arguments: &[&str]| {
        ctl.run(&[&["--api-key-file", &text(&file)], arguments].concat())
            .expect_code(0)
    };
    by_key(&["context", "export-pem"]);
    let shown = by_key(&["--show-rpc", "whoami"]);
    let secret = key.trim().rsplit('_').next().expect("a secret");
    assert!(!shown.stderr.contains(secret), "{shown}");
    let arguments = ["--api-key-file", &text(&file), "whoami"];
    let curl = shown_curl(&ctl, &controller, &arguments);
    assert!(curl["apiKey"].is_string(), "{curl}");

    if let Some(grpcurl) = tools::find("grpcurl") {
        ctl.ok(&["context", "export-pem"]);
        let shown = ctl.run(&["--show-rpc", "agent", "get", "web 01"]).expect_code(0);
        let line = shown.stderr.lines().find(|line| line.starts_with("grpcurl "));
        let words = words(line.expect("a line"));
        let mut command = process::clean_command(grpcurl, &controller.path("."));
        command.args(&words[1..]);
        Outcome::of(command).expect_code(0);
    } else {
        tools::skipped("grpcurl of --show-rpc with -insecure", "grpcurl is not installed");
    }
}

/// Does what a `grpcurl` with these options does: by reflection, with a host name that is verified.
const CALL: &str = r#"
import json, os, re, sys, grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
line = json.loads(sys.argv[1])
read = lambda name: open(line[name], "rb").read() if name in line else None
credentials = grpc.ssl_channel_credentials(read("-cacert"), read("-key"), read("-cert"))
options = [("grpc.ssl_target_name_override", line["-servername"])]
header = line.get("-H", "")
if "-expand-headers" in line:
    header = re.sub(r"\$\{(\w+)\}", lambda found: os.environ[found[1]], header)
metadata = [tuple(header.split(": ", 1))] if header else []
class WithHeader(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    def intercept_unary_unary(self, call, details, request):
        return call(details._replace(metadata=metadata), request)
    intercept_stream_stream = intercept_unary_unary
channel = grpc.intercept_channel(grpc.secure_channel(line["address"], credentials, options), WithHeader())
pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
service, method = line["method"].split("/")
method = pool.FindServiceByName(service).methods_by_name[method]
request = json_format.Parse(line.get("-d", "{}"), GetMessageClass(method.input_type)(), descriptor_pool=pool)
answer = GetMessageClass(method.output_type)
call = channel.unary_unary("/" + line["method"], type(request).SerializeToString, answer.FromString)
print(json_format.MessageToJson(call(request, timeout=30), descriptor_pool=pool))
"#;

/// Makes the call of the `grpcurl` that is shown, as somebody who reads its options would.
fn run_grpcurl(shown: &Outcome, home: &Path, key: &str) -> Option<Value> {
    let python = tools::python("python")?;
    let line = shown.stderr.lines().find(|line| line.starts_with("grpcurl "));
    let words = words(line.unwrap_or_else(|| panic!("no grpcurl is shown:\n{shown}")));
    let mut read = serde_json::Map::new();
    let mut rest = Vec::new();
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        let value = match word.as_str() {
            "-expand-headers" => Value::Bool(true),
            "-cacert" | "-servername" | "-cert" | "-key" | "-H" | "-d" => words.next().expect("a value").into(),
            option if option.starts_with('-') => panic!("{option} is an option that nobody here knows"),
            _ => {
                rest.push(word);
                continue;
            }
        };
        read.insert(word, value);
    }
    let [address, method] = <[String; 2]>::try_from(rest).unwrap_or_else(|rest| panic!("{rest:?}"));
    read.insert("address".to_owned(), address.into());
    read.insert("method".to_owned(), method.into());
    let mut command = process::clean_command(python, home);
    command
        .env("MUSTER_API_KEY", key)
        .args(["-c", CALL])
        .arg(Value::Object(read).to_string());
    let outcome = Outcome::of(command).expect_code(0);
    Some(serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}:\n{outcome}")))
}

#[test]
fn logging_in_makes_a_context_of_what_one_was_given() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    let home = tempfile::tempdir().expect("a directory");
    let api = format!("127.0.0.1:{}", controller.api_port);
    let pin = controller.token(&[]).pin;
    let pem = controller.path("pem");
    ctl.ok(&["context", "export-pem", &text(&pem)]);
    let files: Vec<String> = ["ca.pem", "cert.pem", "key.pem"]
        .iter()
        .map(|kind| {
            let mut found = fs::read_dir(&pem).expect("a folder").flatten();
            let file = found.find(|file| text(file.path()).ends_with(kind));
            text(file.unwrap_or_else(|| panic!("no {kind}")).path())
        })
        .collect();
    let [ca, certificate, key] = &files[..] else {
        unreachable!()
    };

    // By a pin, with certificate and key.
    let by_pin = [
        "login",
        &api,
        "--ca-pin",
        &pin,
        "--certificate",
        certificate,
        "--key",
        key,
        "--name",
        "lab",
    ];
    let wrong = by_pin.map(|word| {
        if word == pin {
            "sha256:0000000000000000000000000000000000000000000000000000000000000000"
        } else {
            word
        }
    });
    bare(home.path(), &wrong).expect_code(3).explains();
    let file = home.path().join(".config/muster/config.yaml");
    assert!(!file.exists(), "nothing is written before the controller is known");
    bare(home.path(), &by_pin).expect_code(0);
    bare(home.path(), &["agent", "list"]).expect_code(0);
    bare(home.path(), &by_pin).expect_code(8).explains().says(&["--force"]);
    bare(home.path(), &[&by_pin[..], &["--force"]].concat()).expect_code(0);

    // By the CA, with an API key from standard input and from a file; it is refused when it is not good.
    let secret = ctl.ok(&["apikey", "create", "--role", "viewer", "-o", "name"]).stdout;
    let path = home.path().join("key");
    muster_certs::file::write_secret(&path, secret.as_bytes()).expect("a key");
    let by_key = [
        "login",
        &api,
        "--ca",
        ca,
        "--api-key-file",
        &text(&path),
        "--name",
        "ci",
    ];
    bare(home.path(), &by_key).expect_code(0);
    let who = bare(home.path(), &["whoami", "-o", "name"]).expect_code(0).stdout;
    assert!(who.starts_with("apikey/"), "what was logged into is used: {who}");
    for id in ctl.ok(&["apikey", "list", "-o", "name"]).stdout.lines() {
        ctl.ok(&["apikey", "revoke", id]);
    }
    let again = [&by_key[..], &["--force"]].concat();
    bare(home.path(), &again).expect_code(4).explains();

    // A context file of the controller's.
    let admin = text(controller.path("tester.yaml"));
    bare(home.path(), &["login", "--from", &admin, "--name", "admin"]).expect_code(0);
    let names = bare(home.path(), &["context", "list", "-o", "name"])
        .expect_code(0)
        .stdout;
    assert_eq!(names, "lab\nci\nadmin\n");
    bare(home.path(), &["--context", "lab", "agent", "list"]).expect_code(0);
    for arguments in [
        &["login"][..],
        &["login", &api],
        &["login", &api, "--ca-pin", &pin, "--name", "x"],
        &["login", &api, "--ca", "/nowhere", "--certificate", certificate],
    ] {
        let outcome = bare(tempfile::tempdir().expect("a directory").path(), arguments);
        outcome.expect_code(2).explains();
    }
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let mut controller = Controller::start();
    let ctl = controller.ctl();
    let found = |outcome: &Outcome| -> Vec<(String, String)> {
        let document: Value =
            serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"));
        let items = document["items"].as_array().expect("items");
        let word = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        items
            .iter()
            .map(|item| (word(item, "check"), word(item, "result")))
            .collect()
    };
    let well = ctl.run(&["doctor", "-o", "json"]).expect_code(0);
    for (check, result) in found(&well) {
        assert_eq!(result, "ok", "{check}: {well}");
    }
    let page = ctl.ok(&["doctor"]).stdout;
    assert!(page.contains("clock") && page.contains("permissions"), "{page}");

    let home = controller.path(".");
    bare(&home, &["doctor"])
        .expect_code(1)
        .says(&["muster-server admin create"]);
    controller.stop();
    let away = ctl.run(&["doctor", "-o", "json"]).expect_code(3);
    let result = |check: &str| {
        found(&away)
            .into_iter()
            .find(|(name, _)| name == check)
            .expect("it is there")
            .1
    };
    assert_eq!(
        [result("context file"), result("connection"), result("TLS")],
        ["ok", "wrong", "skipped"]
    );
}

#[test]
fn waiting_ends_when_it_is_so_or_at_the_deadline() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    controller.apply(
        "apiVersion: muster/v1\nkind: Check\nmetadata: { name: load }\nspec:\n  selector: \"*\"\n  \
         schedule: { interval: 1s }\n  run: { load: { warning: \"1000\", critical: \"2000\" } }\n",
    );
    let wait = |name: &str, goal: &str, more: &[&str]| {
        let arguments = [&["wait", "agent", name, "--for", goal], more].concat();
        ctl.run(&arguments)
    };
    wait("web-01", "online", &[])
        .expect_code(5)
        .explains()
        .says(&["--allow-missing"]);
    wait("web-01", "absent", &[]).expect_code(0);
    wait("web-01", "online", &["--allow-missing", "--timeout", "1s"])
        .expect_code(6)
        .explains();

    // From before it is there.
    let mut command = process::clean_command(binaries::path("musterctl"), &controller.path("."));
    command.arg("--config").arg(controller.path("tester.yaml")).args([
        "wait",
        "agent",
        "web-01",
        "--for",
        "policy-applied",
        "--allow-missing",
        "--timeout",
        "60s",
    ]);
    let mut waiting = Process::start("musterctl", command, controller.path("wait.log"));
    poll::until("it is waited for", 20 * SECOND, || match waiting.output() {
        output if output.contains("is not there") => Ok(()),
        output => Err(output),
    });
    let mut agent = controller.agent("web-01").start();
    assert_eq!(waiting.wait(60 * SECOND).code(), Some(0), "{}", waiting.output());
    assert!(
        waiting.output().contains("1 of 1 policies applied"),
        "{}",
        waiting.output()
    );
    wait("web-01", "online", &["--timeout", "20s"]).expect_code(0);
    let shown = wait("web-01", "policy-applied", &["-o", "json"]).expect_code(0);
    assert!(
        shown.stdout.contains("AGENT_STATUS_ONLINE") && shown.stderr.is_empty(),
        "{shown}"
    );

    wait("web-01", "absent", &["--timeout", "1s"]).expect_code(6);
    agent.stop();
    let mut command = process::clean_command(binaries::path("musterctl"), &controller.path("."));
    command
        .arg("--config")
        .arg(controller.path("tester.yaml"))
        .args(["agent", "wait", "web-01", "--for=absent"]);
    let mut waiting = Process::start("musterctl", command, controller.path("absent.log"));
    poll::until("it is waited for", 20 * SECOND, || match waiting.output() {
        output if output.contains("web-01 is ") => Ok(()),
        output => Err(output),
    });
    ctl.ok(&["delete", "agent", "web-01"]);
    assert_eq!(waiting.wait(20 * SECOND).code(), Some(0), "{}", waiting.output());
}

#[test]
fn a_protected_context_is_changed_by_its_name_only() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    let name = ctl.json(&["context", "get"])["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    ctl.ok(&["context", "protect", &name]);
    let token = ["token", "create"];
    ctl.run(&token)
        .expect_code(2)
        .explains()
        .says(&["--confirm", "protected"]);
    assert_eq!(ctl.items(&["token", "list"]).expect("a list").len(), 0);
    ctl.ok(&[&token[..], &["--confirm", &name]].concat());
    // Its own certificate is renewed, and it stays what it was.
    ctl.ok(&["user", "renew", "--confirm", &name]);
    assert_eq!(ctl.json(&["context", "get"])["isProtected"], true);
}

const SERVER: &str = "basicConstraints = CA:FALSE\nkeyUsage = digitalSignature\nextendedKeyUsage = serverAuth\n\
                      subjectAltName = DNS:localhost\n";

#[test]
fn a_controller_that_has_a_host_name_is_logged_into_by_it() {
    let Some(pki) = Pki::create() else { return };
    pki.below("root", "served", "localhost", SERVER);
    let key = pki.path("served-key.pem");
    let secret = fs::read(&key).expect("a key");
    fs::remove_file(&key).expect("it is removed");
    muster_certs::file::write_secret(&key, &secret).expect("for its owner alone");
    let controller = Controller::start_with(&format!(
        "api_certificate: {{ certificate: \"{}\", key: \"{}\" }}",
        text(pki.path("served.pem")),
        text(&key)
    ));
    let home = tempfile::tempdir().expect("a directory");
    let secret = controller
        .ctl()
        .ok(&["apikey", "create", "--role", "admin", "-o", "name"])
        .stdout;
    let path = home.path().join("key");
    muster_certs::file::write_secret(&path, secret.as_bytes()).expect("a key");
    let api = format!("localhost:{}", controller.api_port);
    let root = text(pki.path("root.pem"));
    let by_name = [
        "login",
        &api,
        "--ca",
        &root,
        "--server-name",
        "localhost",
        "--api-key-file",
        &text(&path),
    ];
    bare(home.path(), &by_name).expect_code(0);
    let context: Value =
        serde_json::from_str(&bare(home.path(), &["context", "get", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(
        [&context["name"], &context["trustDomain"], &context["serverName"]],
        ["localhost", "example.muster", "localhost"]
    );
    bare(home.path(), &["doctor"]).expect_code(0);
    if tools::find("curl").is_some() {
        bare(home.path(), &["context", "export-pem"]).expect_code(0);
        let shown = bare(home.path(), &["--show-rpc", "whoami"]).expect_code(0);
        assert!(!shown.stderr.contains("--insecure"), "{shown}");
        assert!(run_curl(&shown, &controller)["apiKey"].is_string(), "{shown}");
    }

    // grpcurl, with the key and with a certificate.
    bare(home.path(), &["context", "export-pem"]).expect_code(0);
    let shown = bare(home.path(), &["--show-rpc", "whoami"]).expect_code(0);
    let Some(answer) = run_grpcurl(&shown, home.path(), secret.trim()) else {
        return tools::skipped(
            "grpcurl of --show-rpc by grpcio",
            "tests/run.sh has not installed Python",
        );
    };
    assert!(answer["apiKey"].is_string(), "{answer}");
    let id = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
    let preregister = [
        "agent",
        "preregister",
        "--id",
        id,
        "--name",
        "web 01",
        "--label",
        "env=it",
    ];
    controller.ctl().ok(&preregister);
    let pem = text(controller.path("pem"));
    controller.ctl().ok(&["context", "export-pem", &pem]);
    let file = |ending: &str| {
        let mut found = fs::read_dir(&pem).expect("a folder").flatten();
        text(
            found
                .find(|file| text(file.path()).ends_with(ending))
                .expect("a file")
                .path(),
        )
    };
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let mut by_certificate = by_name[..6].to_vec();
    by_certificate.extend(["--certificate", &certificate, "--key", &key, "--name", "me"]);
    bare(home.path(), &by_certificate).expect_code(0);
    bare(home.path(), &["context", "export-pem"]).expect_code(0);
    let list = [
        "--show-rpc",
        "agent",
        "list",
        "-l",
        "env in (it,dev),!spot",
        "-o",
        "json",
    ];
    let shown = bare(home.path(), &list).expect_code(0);
    let answer = run_grpcurl(&shown, home.path(), "").expect("as before");
    let ours: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    assert_eq!([&answer["items"][0]["id"], &answer["items"][0]["name"]], [id, "web 01"]);
    assert_eq!(answer["items"][0]["labels"], ours["items"][0]["labels"]);
}
