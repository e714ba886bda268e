//! The rules of the house that a compiler does not see: who may import whom, where SQL lives, how long a file may be.

use std::{collections::BTreeSet, fs, path::Path};

use muster_tests::{binaries, process, settings};
use serde_json::Value;

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
    ("clap", &["muster-server", "muster-agent", "musterctl"]),
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
    ("axum", &["server/src/"]),
    ("rcgen", &["certs/src/"]),
    ("sysinfo", &["agent/src/"]),
    (
        "anyhow",
        &["server/src/main.rs", "agent/src/main.rs", "ctl/src/", "tests/"],
    ),
];

/// The storeys of the server from top to bottom: a lower one never names an upper one. What is in no list is domain.
const TRANSPORT: &[&str] = &["api", "rest", "prom", "web"];
const PROCESS: &[&str] = &["main", "cli", "app", "dev", "init", "admin"];

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
        for (number, line) in file.code() {
            for (name, rooms) in ROOMS {
                let at_home = rooms.iter().any(|room| file.path.starts_with(room));
                if !at_home && names(line, name) {
                    wrong.push(format!(
                        "{}:{number}: {name} is used outside of {}",
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
        let Some(inside) = file.path.strip_prefix("server/src/") else {
            continue;
        };
        let room = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
        let above: Vec<&str> = match room {
            _ if PROCESS.contains(&room) || room == "lib" => continue,
            _ if TRANSPORT.contains(&room) => PROCESS.to_vec(),
            _ => PROCESS.iter().chain(TRANSPORT).copied().collect(),
        };
        for (number, line) in file.code() {
            if let Some(name) = above.iter().find(|name| names(line, &format!("crate::{name}"))) {
                wrong.push(format!("{}:{number}: names {name}, which is above it", file.path));
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

struct Source {
    /// From the root of the workspace.
    path: String,
    text: String,
}

impl Source {
    /// The lines that are not comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Lines before the in-file tests.
    fn production_lines(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines
            .windows(2)
            .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
        tests.unwrap_or(lines.len())
    }
}

/// Every Rust file of the workspace.
fn sources() -> Vec<Source> {
    let root = binaries::workspace();
    let mut files = Vec::new();
    for package in packages() {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a package has a manifest"));
        collect(
            manifest.parent().expect("a manifest lies in a folder"),
            root,
            &mut files,
        );
    }
    assert!(
        files.len() > 20,
        "only {} files were found under {}",
        files.len(),
        root.display()
    );
    files
}

fn collect(dir: &Path, root: &Path, files: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("a source folder can be listed") {
        let path = entry.expect("an entry of a source folder").path();
        if path.is_dir() {
            collect(&path, root, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root)
                .expect("it lies in the workspace")
                .display()
                .to_string();
            files.push(Source {
                path: name,
                text: fs::read_to_string(&path).expect("a source file is text"),
            });
        }
    }
}

/// Whether a line of code names a path that starts with `name`.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + name.len()..].chars().next();
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        let after_is_path = after.is_some_and(|c| c == ':' || c == ';' || c == ' ' || c == ',');
        !is_word(before)
            && before != Some('"')
            && after_is_path
            && (after == Some(':') || line.trim_start().starts_with("use "))
    })
}

fn packages() -> Vec<Value> {
    let mut command = process::command(settings::cargo());
    command
        .current_dir(binaries::workspace())
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"]);
    let output = command.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"].as_array().cloned().expect("packages are a list")
}
