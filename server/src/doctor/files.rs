//! Modes and owners in the data directory: secrets for their owner alone, and all of it of one owner, since a tool that was run
//! as root leaves files that the controller cannot open.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{Finding, Report};
use crate::config::Config;

/// Files of others may be many; those that are looked at are ours.
const OWN: [&str; 9] = [
    "control.db",
    "control.db-wal",
    "control.db-shm",
    "history.db",
    "history.db-wal",
    "history.db-shm",
    "controller.lock",
    "ballast",
    "pki",
];

pub(super) fn look(config: &Config, report: &mut Report) {
    let Ok(data_dir) = fs::metadata(&config.data_dir) else {
        let what = format!("there is no data directory {}", config.data_dir.display());
        let finding = Finding::problem("files", what, "data_dir in the configuration names it");
        report.add(finding.hint("set a controller up: muster-server init"));
        return;
    };
    let before = report.findings.len();
    let mut paths = vec![config.data_dir.clone()];
    paths.extend(OWN.map(|name| config.data_dir.join(name)));
    paths.extend(keys(&config.data_dir.join("pki"), 2));
    for path in paths {
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        let mode = found.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 && is_secret(&path, &found) {
            let wanted = if found.is_dir() { 700 } else { 600 };
            let what = format!("{} is open to other users (mode {mode:04o})", path.display());
            let finding = Finding::problem("files", what, "what is in it is for the controller alone");
            report.add(finding.hint(format!("chmod {wanted} {}", path.display())));
        }
        if found.uid() != data_dir.uid() {
            let what = format!("{} belongs to user {}", path.display(), found.uid());
            let why = format!(
                "the data directory is user {}'s, and so is the controller",
                data_dir.uid()
            );
            let advice = format!("chown {}:{} {}", data_dir.uid(), data_dir.gid(), path.display());
            report.add(Finding::problem("files", what, why).hint(advice));
        }
    }
    if report.findings.len() == before {
        let what = format!("all in {} is its owner's alone", config.data_dir.display());
        report.add(Finding::ok("files", what));
    }
}

/// All below the folder of the keys, as deep as it goes.
fn keys(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            paths.extend(keys(&path, depth - 1));
        }
        paths.push(path);
    }
    paths
}

/// Certificates are for everybody, and so is the list of them.
fn is_secret(path: &Path, found: &fs::Metadata) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_of_pki = path.extension().is_some_and(|end| end == "pem" || end == "json");
    found.is_dir() || !is_of_pki || name.ends_with("-key.pem")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_key_that_others_can_read_is_a_problem_and_a_certificate_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            if !path.exists() {
                fs::write(&path, "x").expect("a file");
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        };
        let mut config = Config::new("c1", "example.muster".parse().expect("a domain"), dir.path().to_owned());
        let found = |config: &Config| {
            let mut report = Report::default();
            look(config, &mut report);
            report.findings
        };
        set("", 0o700);
        fs::create_dir(dir.path().join("pki")).expect("a folder");
        set("pki", 0o700);
        set("pki/root.pem", 0o644);
        set("pki/root-key.pem", 0o600);
        set("control.db", 0o600);
        assert!(found(&config).iter().all(|finding| finding.level == Level::Ok));
        set("pki/root-key.pem", 0o640);
        set("control.db", 0o604);
        let problems = found(&config);
        let whats: Vec<&str> = problems.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(whats.len(), 2, "{whats:?}");
        assert!(
            whats
                .iter()
                .any(|what| what.contains("root-key.pem") && what.contains("0640")),
            "{whats:?}"
        );
        assert!(problems.iter().all(|finding| finding.advice.starts_with("chmod 600 ")));
        config.data_dir = dir.path().join("nowhere");
        assert_eq!(found(&config)[0].level, Level::Problem);
    }
}
