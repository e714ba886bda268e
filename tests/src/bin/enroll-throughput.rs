//! `enroll-throughput [ENROLLMENTS]`: what an enrollment costs a controller of its own on loopback, and what the least is
//! that it could cost. Prints JSON.

use std::process::ExitCode;

use muster_tests::throughput;

const ENROLLMENTS: usize = 10_000;

fn main() -> ExitCode {
    let enrollments = match std::env::args().nth(1).map(|count| count.parse()) {
        None => ENROLLMENTS,
        Some(Ok(count)) if count > 0 => count,
        Some(_) => {
            eprintln!("usage: enroll-throughput [ENROLLMENTS]");
            return ExitCode::from(2);
        }
    };
    println!("{:#}", throughput::measure(enrollments));
    ExitCode::SUCCESS
}
