//! `swarm`: a fleet of simulated agents, for sizing a controller. `swarm --help` says what it can do.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_tests::swarm::main()
}
