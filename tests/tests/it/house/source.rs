//! The source tree as the house test reads it: files, their code, the paths that code names. It knows no rule.

use std::{fs, path::Path};

use muster_tests::{binaries, process, settings};
use serde_json::Value;

pub struct Source {
    /// From the root of the workspace.
    pub path: String,
    pub text: String,
}

impl Source {
    /// The lines that are not comments, with their numbers.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Lines before the in-file tests.
    pub fn production_lines(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines
            .windows(2)
            .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
        tests.unwrap_or(lines.len())
    }

    /// Every path that is imported, one by one, and every path that is named in an expression or a type.
    pub fn paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        let mut import: Option<(usize, String)> = None;
        for (number, line) in self.code() {
            let trimmed = line.trim();
            let is_import = import.is_some()
                || ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
                    .iter()
                    .any(|start| trimmed.starts_with(start));
            if !is_import {
                paths.extend(named(line).map(|path| (number, path)));
                continue;
            }
            let (start, mut text) = import.take().unwrap_or((number, String::new()));
            text.push_str(trimmed);
            if trimmed.ends_with(';') {
                let tree = text
                    .split_once("use ")
                    .map_or("", |(_, tree)| tree)
                    .trim_end_matches(';');
                paths.extend(expand("", tree).into_iter().map(|path| (start, path)));
            } else {
                import = Some((start, text));
            }
        }
        paths
    }
}

/// Every Rust file of the workspace.
pub fn sources() -> Vec<Source> {
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

/// The packages of the workspace, as cargo has them.
pub fn packages() -> Vec<Value> {
    let mut command = process::command(settings::cargo());
    command
        .current_dir(binaries::workspace())
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"]);
    let output = command.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"].as_array().cloned().expect("packages are a list")
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
            let text = fs::read_to_string(&path).expect("a source file is text");
            files.push(Source { path: name, text });
        }
    }
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        return vec![format!("{prefix}{tree}")];
    };
    let inside = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    let prefix = format!("{prefix}{}", head.trim());
    let mut depth = 0;
    inside
        .split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        })
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| expand(&prefix, part))
        .collect()
}

/// Words of a line that hold `::`, which are paths: `tokio::time::sleep`. What stands in quotes is text.
fn named(line: &str) -> impl Iterator<Item = String> {
    line.split('"')
        .step_by(2)
        .flat_map(|code| code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')))
        .filter(|word| word.contains("::"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_taken_apart_and_texts_are_not_paths() {
        let text = "use a::{b, c::{self, d}};\npub use e;\n// use f;\nfn g() { h::i(\"j::k\"); }\n";
        let source = Source {
            path: String::new(),
            text: text.to_owned(),
        };
        let paths: Vec<String> = source.paths().into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, ["a::b", "a::c::self", "a::c::d", "e", "h::i"]);
    }
}
