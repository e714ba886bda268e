//! Debian's monitoring plugins through an applied manifest: what arrives is what a run by hand gives.
//!
//! Values move between two runs, so one comparison says little. The check runs every other second, and the plugin is run by hand
//! again and again beside it: sooner or later nothing has moved, and then the two must be equal to the last character.
//! A time that was measured is never twice the same; those of check_http are compared as what they are, numbers.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command},
    thread,
};

use muster_tests::{
    Agent, Controller,
    ctl::Outcome,
    poll::{self, SECOND},
    process, tools,
};
use serde_json::Value;

const CHECK: &str = "plugin";

#[test]
fn check_disk_gives_the_same_as_by_hand() {
    // Two file systems that every Linux has and that little is written to.
    same_as_by_hand(
        "check_disk",
        &["-w", "10%", "-c", "5%", "-p", "/dev", "-p", "/dev/shm"],
        str::to_owned,
    );
}

#[test]
fn check_load_gives_the_same_as_by_hand() {
    same_as_by_hand("check_load", &["-w", "150,100,50", "-c", "300,200,100"], str::to_owned);
}

#[test]
fn check_procs_gives_the_same_as_by_hand() {
    // A process that only this test has, and that is there the whole time.
    let marker = format!("86399.{}", std::process::id());
    let _sleeper = Sleeper::start(&marker);
    same_as_by_hand("check_procs", &["-w", "2:", "-c", "1:", "-a", &marker], str::to_owned);
}

#[test]
fn check_http_gives_the_same_as_by_hand() {
    let port = serve_http();
    let port = port.to_string();
    let arguments = ["-I", "127.0.0.1", "-p", &port, "-u", "/status", "-w", "5", "-c", "9"];
    let state = same_as_by_hand("check_http", &arguments, without_times);
    // Of a plugin that is not installed there is nothing to look at, which was said.
    assert!(
        state.is_null() || state["output"].as_str().is_some_and(|output| output.contains("200 OK")),
        "{state}"
    );
}

/// Runs the plugin as a check of one agent and by hand, until both give the same exit code, text and performance data in
/// the same moment, and gives that state.
fn same_as_by_hand(plugin: &str, arguments: &[&str], comparable: impl Fn(&str) -> String) -> Value {
    let Some(path) = tools::plugin(plugin) else {
        tools::skipped(plugin, "it is not installed (Debian: monitoring-plugins-basic)");
        return Value::Null;
    };
    let controller = Controller::start();
    let _agent = start_with_check(&controller, &path, arguments);

    let state = poll::until("a run by hand and one by the agent are the same", 120 * SECOND, || {
        let mut command = process::clean_command(&path, "/".as_ref());
        command.args(arguments);
        let run = Outcome::of(command);
        let state = controller.ctl().state("host", CHECK)?;
        let text = |field: &str| comparable(state[field].as_str().unwrap_or_default().trim());
        let by_agent = (
            state["exitCode"].as_i64().unwrap_or(0),
            text("output"),
            text("perfdata"),
        );
        let (summary, perfdata) = run
            .stdout
            .split_once('|')
            .expect("these plugins print performance data");
        let by_hand = (
            i64::from(run.code),
            comparable(summary.trim()),
            comparable(perfdata.trim()),
        );
        if by_agent == by_hand {
            Ok(state)
        } else {
            Err(format!("by hand  {by_hand:?}\nby agent {by_agent:?}"))
        }
    });
    assert_consistent(&state);
    state
}

fn start_with_check(controller: &Controller, path: &std::path::Path, arguments: &[&str]) -> Agent {
    let argv: Vec<&str> = [path.to_str().expect("a path")]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    controller.apply(
        &serde_json::json!({
            "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": CHECK },
            "spec": { "selector": "*", "schedule": { "interval": "2s" }, "run": { "command": argv } },
        })
        .to_string(),
    );
    controller.agent("host").start()
}

/// The state follows from the exit code, and the parsed values say what the text does.
#[track_caller]
fn assert_consistent(state: &Value) {
    let expected = match state["exitCode"].as_i64().unwrap_or(0) {
        0 => "CHECK_STATE_OK",
        1 => "CHECK_STATE_WARNING",
        2 => "CHECK_STATE_CRITICAL",
        _ => "CHECK_STATE_UNKNOWN",
    };
    assert_eq!(state["state"], expected, "{state}");
    assert_eq!(state["end"], "RUN_END_EXITED", "{state}");
    let perfdata = state["perfdata"]
        .as_str()
        .expect("these plugins print performance data");
    let metrics = state["metrics"].as_array().expect("performance data is parsed");
    assert_eq!(metrics.len(), perfdata.split_whitespace().count(), "{state}");
    for (metric, text) in metrics.iter().zip(perfdata.split_whitespace()) {
        let (label, rest) = text.split_once('=').expect("label=value");
        assert_eq!(metric["label"], label.trim_matches('\''), "{text}");
        let value = rest.split(';').next().unwrap_or_default();
        let unit = metric["unit"].as_str().unwrap_or_default();
        let number: f64 = value
            .strip_suffix(unit)
            .and_then(|number| number.parse().ok())
            .expect("a number and its unit");
        assert_eq!(metric["value"].as_f64(), Some(number), "{text}");
    }
}

/// Without the digits of measured times: "in 0.003 second" and "time=0.002914s" keep their form only.
fn without_times(text: &str) -> String {
    let words: Vec<String> = text
        .split(' ')
        .map(|word| match word.strip_prefix("time=") {
            Some(rest) => format!(
                "time=#{}",
                rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
            ),
            None if word.parse::<f64>().is_ok() && word.contains('.') => "#".to_owned(),
            None => word.to_owned(),
        })
        .collect();
    words.join(" ")
}

/// A web server that says the same to everybody, until the test ends.
fn serve_http() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = BufReader::new(stream.try_clone().expect("a socket"));
            let mut line = String::new();
            while request.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                line.clear();
            }
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nServer: test\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\
                  Connection: close\r\n\r\nwell\n",
            );
        }
    });
    port
}

/// A process to be found by its arguments.
struct Sleeper(Child);

impl Sleeper {
    fn start(marker: &str) -> Self {
        let mut command: Command = process::clean_command(PathBuf::from("sleep"), "/".as_ref());
        Self(command.arg(marker).spawn().expect("sleep starts"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
