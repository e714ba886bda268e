//! Room: what is free, what is refused for it, the ballast, and what in the data directory takes how much.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{Finding, Report};
use crate::{
    config::{Config, Database},
    disk::{Judge, Level, Space, ballast, space::size_text},
    store::{control_file, history_file, inspect::log_file},
};

/// Files that are not the controller's; of more, the largest are named.
const MAX_OTHERS: usize = 10;
/// Entries of a folder that are looked at, and how deep.
const MAX_ENTRIES: usize = 100_000;
const MAX_DEPTH: usize = 8;

/// Gives the file system's room, where it can be told.
pub(super) fn look(config: &Config, is_running: bool, report: &mut Report) -> Option<Space> {
    let place = config.data_dir.display();
    let space = match Space::of(&config.data_dir) {
        Ok(space) => space,
        Err(error) => {
            let what = format!("how full the file system of {place} is cannot be told");
            report.add(Finding::problem("disk", what, error.to_string()).hint("see that it is mounted"));
            return None;
        }
    };
    let ballast = config.data_dir.join(ballast::FILE);
    let held = ballast::held(&ballast);
    let target = ballast::Ballast::new(&config.data_dir, config.disk.ballast).target(space);
    let free = format!("{} is free on the file system of {place}", space.to_text());
    let limits = config.disk.limits;
    let judged = Space {
        free: space.free.saturating_sub(target.saturating_sub(held)),
        ..space
    };
    report.add(match Judge::new(limits).look(judged, 0) {
        Level::Ample => Finding::ok("disk", free),
        Level::Low => {
            let why = format!(
                "less than {} is free: metrics and logs are not taken and wait with the agents",
                limits.metrics
            );
            Finding::warning("disk", free, why).hint(MAKE_ROOM)
        }
        Level::Full => {
            let why = format!(
                "less than {} is free: nothing is taken, and all waits with the agents",
                limits.results
            );
            Finding::problem("disk", free, why).hint(MAKE_ROOM)
        }
    });
    report.add(match (target, held) {
        (0, _) => Finding::ok(
            "ballast",
            "no room is set aside for operators' changes on a full disk; none is wanted",
        ),
        (_, 0) if is_running => Finding::warning(
            "ballast",
            "no room is set aside for operators' changes",
            "the disk was full and the room was given to them, or there was never enough",
        )
        .hint("make room; it is set aside again by itself"),
        (_, 0) => Finding::ok(
            "ballast",
            format!("{} will be set aside when the controller runs", size_text(target)),
        ),
        (_, held) => Finding::ok(
            "ballast",
            format!("{} is set aside for operators' changes", size_text(held)),
        ),
    });
    own(config, held, report);
    others(config, report);
    Some(space)
}

const MAKE_ROOM: &str =
    "remove what is not the controller's, make the disk larger, or keep less: retention in server.yaml, and a restart";

fn own(config: &Config, ballast: u64, report: &mut Report) {
    if config.database == Database::Sqlite {
        for file in [control_file(&config.data_dir), history_file(&config.data_dir)] {
            let log = log_file(&file);
            report.uses(name(&file), size(&file));
            report.uses(format!("{} (its log)", name(&log)), size(&log));
        }
    }
    report.uses("ballast", ballast);
}

/// What is neither the controller's nor known to it: backups, context files, whatever people have put there.
fn others(config: &Config, report: &mut Report) {
    let known = [
        "pki",
        "control.db",
        "history.db",
        "server.yaml",
        "controller.lock",
        ballast::FILE,
    ];
    let Ok(entries) = fs::read_dir(&config.data_dir) else {
        return;
    };
    let mut left = MAX_ENTRIES;
    let mut found: Vec<(String, u64)> = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let of_sqlite = ["-wal", "-shm"].iter().find_map(|end| name.strip_suffix(end));
        if known.contains(&of_sqlite.unwrap_or(&name)) {
            continue;
        }
        found.push((name, tree(&entry.path(), MAX_DEPTH, &mut left)));
    }
    found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let rest: u64 = found.iter().skip(MAX_OTHERS).map(|(_, bytes)| bytes).sum();
    for (name, bytes) in found.iter().take(MAX_OTHERS) {
        report.uses(format!("{name} (not the controller's)"), *bytes);
    }
    if rest > 0 {
        report.uses(
            format!("{} more (not the controller's)", found.len() - MAX_OTHERS),
            rest,
        );
    }
}

/// Of a file, or of a folder with all in it, as far as it is deep.
fn tree(path: &Path, depth: usize, left: &mut usize) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else {
        return 0;
    };
    let mut bytes = found.blocks().saturating_mul(512);
    if found.is_dir() && depth > 0 {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if *left == 0 {
                break;
            }
            *left -= 1;
            bytes = bytes.saturating_add(tree(&entry.path(), depth - 1, left));
        }
    }
    bytes
}

/// What a file takes of the disk; 0: it is not there.
pub(super) fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.blocks().saturating_mul(512))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
