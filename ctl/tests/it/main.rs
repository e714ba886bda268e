//! musterctl as a user has it, against a controller that says what the test tells it to: own TLS on a real socket, arguments
//! in, streams and an exit code out. The real controller is met in the tests of the workspace.

mod apply;
mod contexts;
mod errors;
mod fake;
mod lists;
mod terminal;
mod tokens;
mod watches;
