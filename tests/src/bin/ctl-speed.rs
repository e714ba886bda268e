//! `ctl-speed [AGENTS]`: how long `musterctl` takes to start and to list so many agents (10000), beside a process that does
//! nothing and a bare client. Prints JSON.

use std::process::ExitCode;

use muster_tests::ctl_speed;

const AGENTS: usize = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == ctl_speed::BARE
    {
        return ctl_speed::bare(rest);
    }
    let agents = match arguments.first().map(|count| count.parse()) {
        None => AGENTS,
        Some(Ok(count)) if count > 0 => count,
        Some(_) => {
            eprintln!("usage: ctl-speed [AGENTS]");
            return ExitCode::from(2);
        }
    };
    match ctl_speed::measure(agents) {
        Ok(document) => {
            println!("{document:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ctl-speed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
