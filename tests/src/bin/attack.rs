//! `attack`: attacks a controller of its own on loopback addresses and prints what each attack got. Its arguments:
//! `[--full] [--json FILE] [CATEGORY...]`. Ends with 1 when anything did not hold.

use std::{fs, process::ExitCode};

use muster_tests::attacks::{self, CATEGORIES, Form};

fn main() -> ExitCode {
    let mut form = Form::Small;
    let mut json = None;
    let mut chosen = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--full" => form = Form::Full,
            "--json" => json = arguments.next(),
            known if CATEGORIES.contains(&known) => chosen.push(known.to_owned()),
            other => {
                eprintln!(
                    "attack: what is {other}?\nusage: attack [--full] [--json FILE] [CATEGORY...]\ncategories: {}",
                    CATEGORIES.join(" ")
                );
                return ExitCode::from(2);
            }
        }
    }
    let mut categories: Vec<&str> = chosen.iter().map(String::as_str).collect();
    if categories.is_empty() {
        categories = CATEGORIES.to_vec();
    }
    let report = attacks::run(form, &categories, |category| println!("{category}"));
    let text = format!("{:#}", report.to_json());
    match json {
        Some(file) => fs::write(&file, text + "\n").unwrap_or_else(|error| panic!("{file} is not written: {error}")),
        None => println!("{text}"),
    }
    println!("{}", report.verdict());
    if report.held() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}
