//! The rules of the house that a compiler does not see: who may import whom, where SQL lives, how long a file may be.

mod source;

use std::{collections::BTreeSet, path::Path};

use source::{packages, sources};

/// Lines of one file, in-file tests apart.
const LONGEST_FILE: usize = 600;

/// A crate of the workspace and the crates of the workspace that it may depend on.
const EDGES: &[(&str, &[&str])] = &[
    ("muster-proto", &[]),
    ("muster-certs", &[]),
    ("muster-agent", &["muster-proto", "muster-certs"]),
    ("muster-server", &["muster-proto", "muster-certs", "muster-agent"]),
    ("musterctl", &["muster-proto", "muster-certs"]),
    (
        "muster-tests",
        &[
            "muster-proto",
            "muster-certs",
            "muster-agent",
            "muster-server",
            "musterctl",
        ],
    ),
];

/// A crate of others and the only crates of the workspace that may depend on it.
const HOMES: &[(&str, &[&str])] = &[
    ("sqlx", &["muster-server"]),
    ("axum", &["muster-server"]),
    ("rcgen", &["muster-certs"]),
    ("x509-parser", &["muster-certs"]),
    ("aws-lc-rs", &["muster-certs"]),
    ("sysinfo", &["muster-agent"]),
    ("procfs", &["muster-agent"]),
    ("clap", &["muster-server", "muster-agent", "musterctl", "muster-tests"]),
    ("comfy-table", &["musterctl"]),
];

/// What these crates must never learn of.
const NEVER: &[(&str, &[&str])] = &[
    ("muster-certs", &["tonic", "prost", "sqlx"]),
    ("muster-proto", &["tokio", "sqlx", "rustls"]),
];

/// Folders in which a name may be used, for names that have a home within a crate.
const ROOMS: &[(&str, &[&str])] = &[
    (
        "muster_agent",
        &["server/src/dev.rs", "server/src/dev/", "agent/", "tests/"],
    ),
    ("sqlx", &["server/src/store.rs", "server/src/store/"]),
    // The domain knows no transport.
    ("axum", TRANSPORT_ROOMS),
    ("tonic", TRANSPORT_ROOMS),
    ("rcgen", &["certs/src/"]),
    ("sysinfo", &["agent/src/"]),
    (
        "anyhow",
        &["server/src/main.rs", "agent/src/main.rs", "ctl/src/", "tests/"],
    ),
];

const TRANSPORT_ROOMS: &[&str] = &[
    "server/src/api",
    "server/src/access/",
    "server/src/net/",
    "server/src/rest",
    "proto/",
    "agent/",
    "ctl/",
    "tests/",
];

/// The storeys of the server from top to bottom: a lower one never names an upper one. What is in no list is domain.
const TRANSPORT: &[&str] = &["api", "rest", "prom", "web"];
const BELOW_STORE: &[&str] = &["store", "clock"];
const PROCESS: &[&str] = &["main", "cli", "app", "dev", "init", "admin", "backup", "doctor"];

#[test]
fn crates_depend_only_on_crates_below_them() {
    let mut wrong = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().expect("a package has a name");
        let (_, allowed) = EDGES
            .iter()
            .find(|(crate_name, _)| *crate_name == name)
            .unwrap_or_else(|| {
                panic!("{name} is new: give it a line in EDGES, and in the design's picture of who may import whom")
            });
        for dependency in package["dependencies"].as_array().expect("dependencies are a list") {
            let to = dependency["name"].as_str().expect("a dependency has a name");
            let ours = EDGES.iter().any(|(crate_name, _)| *crate_name == to);
            if ours && !allowed.contains(&to) {
                wrong.push(format!("{name} -> {to}"));
            }
            if HOMES
                .iter()
                .any(|(theirs, homes)| *theirs == to && !homes.contains(&name))
            {
                wrong.push(format!("{name} -> {to}, which has another home"));
            }
            if NEVER.iter().any(|(ours, never)| *ours == name && never.contains(&to)) && dependency["kind"].is_null() {
                wrong.push(format!("{name} -> {to}, which it must never learn of"));
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden dependencies:\n{}", wrong.join("\n"));
}

#[test]
fn names_are_used_only_in_their_rooms() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (number, path) in file.paths() {
            for (name, rooms) in ROOMS {
                let at_home = rooms.iter().any(|room| file.path.starts_with(room));
                if !at_home && path.split("::").next() == Some(name) {
                    wrong.push(format!(
                        "{}:{number}: {path}, outside of {}",
                        file.path,
                        rooms.join(", ")
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_storey_of_the_server_never_names_one_above_it() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some(room) = file.path.strip_prefix("server/src/") else {
            continue;
        };
        let room = room.split('/').next().unwrap_or(room).trim_end_matches(".rs");
        // A test may build the whole house around its room.
        if PROCESS.contains(&room) || room == "lib" || file.path.ends_with("/tests.rs") || file.path.contains("/tests/")
        {
            continue;
        }
        for (number, path) in file.paths() {
            let Some(other) = path.strip_prefix("crate::").and_then(|path| path.split("::").next()) else {
                continue;
            };
            let above = PROCESS.contains(&other)
                || TRANSPORT.contains(&other) && !TRANSPORT.contains(&room)
                || room == "store" && !BELOW_STORE.contains(&other);
            if above {
                wrong.push(format!("{}:{number}: {path} is above it", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_sql_is_in_the_store() {
    let starts = [
        "SELECT ",
        "INSERT INTO ",
        "UPDATE ",
        "DELETE FROM ",
        "CREATE TABLE ",
        "DROP ",
        "ALTER TABLE ",
        "BEGIN IMMEDIATE",
    ];
    let mut wrong = Vec::new();
    for file in sources() {
        if file.path.starts_with("server/src/store") || file.path.starts_with("tests/") {
            continue;
        }
        for (number, line) in file.code() {
            let quoted = line.split('"').skip(1).step_by(2).any(|text| {
                let text = text.trim_start();
                starts.iter().any(|start| text.starts_with(start))
            });
            if quoted {
                wrong.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "SQL outside of server/src/store:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn no_file_is_longer_than_a_room_may_be() {
    let mut lengths: Vec<(usize, String)> = sources()
        .into_iter()
        .map(|file| (file.production_lines(), file.path))
        .collect();
    lengths.sort();
    let at = |percent: usize| lengths[(lengths.len() - 1) * percent / 100].0;
    println!(
        "{} files: median {} lines, 90th percentile {}, longest:",
        lengths.len(),
        at(50),
        at(90)
    );
    for (lines, path) in lengths.iter().rev().take(5) {
        println!("{lines:5} {path}");
    }
    let long: Vec<_> = lengths.iter().filter(|(lines, _)| *lines > LONGEST_FILE).collect();
    assert!(long.is_empty(), "longer than {LONGEST_FILE} lines: {long:?}");
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|file| !file.text.starts_with("//! ") && !file.path.ends_with("/tests.rs"))
        .map(|file| file.path)
        .collect();
    assert!(silent.is_empty(), "without a //! header: {silent:?}");
}

#[test]
fn no_module_is_named_for_what_has_no_name() {
    let vague: BTreeSet<&str> = ["common", "utils", "util", "helpers", "helper", "types", "misc", "mod"].into();
    let wrong: Vec<String> = sources()
        .into_iter()
        .map(|file| file.path)
        .filter(|path| {
            Path::new(path)
                .file_stem()
                .is_some_and(|stem| vague.contains(stem.to_str().unwrap_or_default()))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
