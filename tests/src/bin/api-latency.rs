//! `api-latency [AGENTS]`: how soon operators are answered, and what that costs, with so many agents (10000) in the inventory;
//! beside the same over a bare server. Prints JSON.

use std::process::ExitCode;

use muster_tests::api_latency;

const AGENTS: usize = 10_000;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some(api_latency::FLOOR) {
        return api_latency::floor();
    }
    let agents = match argument.map(|count| count.parse()) {
        None => AGENTS,
        Some(Ok(count)) if count > 0 => count,
        Some(_) => {
            eprintln!("usage: api-latency [AGENTS]");
            return ExitCode::from(2);
        }
    };
    match api_latency::measure(agents) {
        Ok(document) => {
            println!("{document:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("api-latency: {error:#}");
            ExitCode::FAILURE
        }
    }
}
