//! `docs/api.md`, as it is written there: what it shows is run.

use std::fs;

use muster_certs::file;
use muster_tests::{
    Controller, binaries,
    ctl::Outcome,
    poll::{self, SECOND},
    process, settings, tools,
};

use crate::cas::openssl::Pki;

const SERVER: &str = "basicConstraints = CA:FALSE\nkeyUsage = digitalSignature\nextendedKeyUsage = serverAuth\n\
                      subjectAltName = DNS:localhost\n";

/// A block of the page under `<!-- run: NAME -->`.
struct Block {
    name: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let page = fs::read_to_string(binaries::workspace().join("docs/api.md")).expect("the page");
    let marked = page.split("<!-- run: ").skip(1).map(|rest| {
        let (name, rest) = rest.split_once(" -->\n```").expect("a block follows");
        let (_, text) = rest.split_once('\n').expect("it begins");
        let (text, _) = text.split_once("\n```").expect("it ends");
        Block {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    });
    marked.collect()
}

#[test]
fn what_the_page_of_the_api_shows_goes_as_written() {
    let Some(pki) = Pki::create() else { return };
    pki.below("root", "served", "localhost", SERVER);
    let key = pki.path("served-key.pem");
    let secret = fs::read(&key).expect("a key");
    fs::remove_file(&key).expect("it is removed");
    file::write_secret(&key, &secret).expect("for its owner alone");
    let settings = format!(
        "api_certificate: {{ certificate: \"{}\", key: \"{}\" }}",
        pki.path("served.pem").display(),
        key.display()
    );
    let controller = Controller::start_with(&settings);
    let dir = controller.path("");
    fs::copy(pki.path("root.pem"), dir.join("roots.pem")).expect("a copy");
    let _agent = controller.agent("web-01").start();
    poll::until("the agent is online", 20 * SECOND, || {
        controller.ctl().agent_is("web-01", "ONLINE")
    });
    let label = ["agent", "label", "web-01", "env=prod"];
    controller.ctl().ok(&label);

    // What others need in order to be tried.
    let (buf, python) = (tools::buf(), tools::python("python"));
    if buf.is_none() {
        tools::skipped("buf curl of docs/api.md", "buf is not installed (tests/run.sh tools)");
    }
    if python.is_none() {
        tools::skipped("Python of docs/api.md", "grpcio is not installed (tests/run.sh tools)");
    }
    let mut script = String::new();
    for block in blocks() {
        let text = match block.name.as_str() {
            "python" if python.is_none() => continue,
            "buf" if buf.is_none() => continue,
            "python" => format!("python - <<'END'\n{}\nEND", block.text),
            // Which a person ends by Ctrl-C.
            "watch" => block.text.replace("curl --no-buffer", "until_synced curl --no-buffer"),
            _ => block.text,
        };
        script += &format!("echo '--- {}'\n{text}\n", block.name);
    }
    let prelude = "until_synced() { timeout 30 \"$@\" | sed '/SYNCED/q'; }\n";
    let beside =
        |program: Option<std::path::PathBuf>| program.map(|path| path.with_file_name("").display().to_string());
    let path: Vec<String> = [beside(buf), beside(python), Some(settings::path())]
        .into_iter()
        .flatten()
        .collect();
    let mut command = process::clean_command("bash", &dir);
    command
        .current_dir(&dir)
        .env("PATH", path.join(":"))
        .env("MUSTER", format!("localhost:{}", controller.api_port))
        .env("MUSTER_CONFIG", dir.join("tester.yaml"))
        .args(["-e", "-u", "-c", &format!("{prelude}{script}")]);
    let outcome = Outcome::of(command).expect_code(0);

    let mut wanted = vec!["\"counts\"", "WATCH_EVENT_TYPE_SYNCED", "\"reason\":\"NOT_FOUND\""];
    if tools::buf().is_some() {
        wanted.extend(["muster.v1.AgentService/ListAgents", "\"apiKey\""]);
    }
    if tools::python("python").is_some() {
        wanted.extend([
            "agents: web-01",
            "all there at revision",
            "called by",
            "failed with NOT_FOUND",
        ]);
    }
    for text in wanted {
        assert!(outcome.stdout.contains(text), "'{text}' was not shown:\n{outcome}");
    }
}

#[test]
fn every_way_to_call_is_on_the_page() {
    let names: Vec<String> = blocks().into_iter().map(|block| block.name).collect();
    for name in ["certificate", "key", "curl", "buf", "python", "watch", "error"] {
        assert!(names.iter().any(|known| known == name), "{name} is not among {names:?}");
    }
}
