//! The small form of `tests/prove.sh enroll-throughput`: that many enrollments at once are all durable when they are answered.

use muster_tests::throughput;

const ENROLLMENTS: usize = 300;

#[test]
fn every_enrollment_of_a_rush_outlives_the_controller_that_answered_it() {
    let figures = throughput::measure(ENROLLMENTS);
    println!("{figures:#}");
    assert_eq!(figures["stored_after_kill"], ENROLLMENTS);
}
