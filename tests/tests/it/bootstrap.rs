//! From a token to a machine: what `musterctl token create --format` prints is taken by those it is for, and makes real
//! machines agents.

mod formats;
mod machines;
mod waiting;

use muster_tests::Controller;

const ID: &str = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";

/// What is printed for the machine with the known id. Only that goes to stdout.
fn printed(controller: &Controller, format: &str, more: &[&str]) -> String {
    let arguments = ["token", "create", "--agent-id", ID, "--format", format];
    let outcome = controller.ctl().ok(&[&arguments[..], more].concat());
    assert!(!outcome.stderr.contains("mst_"), "{outcome}");
    outcome.stdout
}
