//! Every exit code of `docs/exit-codes.md`, in the situations that the page names, by the real binaries.

mod agent;
mod ctl;

use std::{collections::BTreeSet, fs};

use muster_tests::binaries;

/// The codes of the table below a heading of the page.
fn told(program: &str) -> BTreeSet<i32> {
    let page = fs::read_to_string(binaries::workspace().join("docs/exit-codes.md")).expect("the page");
    let (_, below) = page.split_once(&format!("\n## {program}\n")).expect("a heading");
    let table = below.split("\n## ").next().unwrap_or_default();
    let first = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse().ok();
    table.lines().filter_map(first).collect()
}

#[test]
fn the_page_and_the_tests_have_the_same_codes() {
    for (program, tested) in [("musterctl", ctl::CODES), ("muster-agent", agent::CODES)] {
        assert_eq!(told(program), tested.iter().copied().collect(), "{program}");
    }
}
