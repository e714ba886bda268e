//! `plan-scale [AGENTS [POLICIES]]`: what a plan of so many policies (200) costs with so many agents (10000) in the inventory, in
//! time and memory, beside a bare call that carries as many bytes. Prints JSON.

use std::process::ExitCode;

use muster_tests::{api_latency, plan_scale};

const AGENTS: usize = 10_000;
const POLICIES: usize = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) == Some(api_latency::FLOOR) {
        return api_latency::floor();
    }
    let numbers: Option<Vec<usize>> = arguments
        .iter()
        .map(|text| text.parse().ok().filter(|number| *number > 0))
        .collect();
    let (agents, policies) = match numbers.as_deref() {
        Some([]) => (AGENTS, POLICIES),
        Some([agents]) => (*agents, POLICIES),
        Some([agents, policies]) => (*agents, *policies),
        _ => {
            eprintln!("usage: plan-scale [AGENTS [POLICIES]]");
            return ExitCode::from(2);
        }
    };
    match plan_scale::measure(agents, policies) {
        Ok(document) => {
            println!("{document:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("plan-scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}
