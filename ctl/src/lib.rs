//! musterctl, the command line of Muster: asks the controller through its API and shows the answer. Knows nothing of the
//! server's or the agent's insides.

pub mod age;
pub mod app;
pub mod cli;
pub mod client;
pub mod context;
pub mod count;
pub mod exit;
pub mod habits;
pub mod manifests;
pub mod output;
pub mod paging;
pub mod problem;
pub mod resources;
pub mod terminal;
pub mod verbs;
pub mod watching;
pub mod when;
