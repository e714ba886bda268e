//! The life of the process: arguments in, exit code out. All else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_agent::cli::main()
}
