//! Where the binaries under test are. Built by cargo once per test run, so that a test never meets those of yesterday.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{process, settings};

/// The path of a binary of this workspace.
///
/// # Panics
/// When it cannot be built or is not there.
pub fn path(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let path = DIR.get_or_init(find_or_build).join(name);
    assert!(
        path.is_file(),
        "{} is missing: build it with `cargo build --workspace --bins`",
        path.display()
    );
    path
}

/// The root of the source tree.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
}

fn find_or_build() -> PathBuf {
    if let Some(dir) = settings::binary_dir() {
        return dir;
    }
    // target/debug/deps/it-0123 lies beside what cargo builds with the same profile, and target/debug/attack among it.
    let program = std::env::current_exe().expect("the program has a path");
    let beside = program.parent().expect("the program lies in a directory");
    let dir = match beside.file_name() {
        Some(name) if name == "deps" => beside.parent().expect("deps lies in target/<profile>"),
        _ => beside,
    };
    let dir = dir.to_owned();
    let mut build = process::command(settings::cargo());
    build
        .current_dir(workspace())
        .args(["build", "--workspace", "--bins", "--locked", "--quiet"]);
    if dir.ends_with("release") {
        build.arg("--release");
    }
    let built = build.output().expect("cargo starts");
    assert!(
        built.status.success(),
        "the binaries under test do not build:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    dir
}
