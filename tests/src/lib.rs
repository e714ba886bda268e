//! The harness: real binaries in real processes, each with its own directory, ports and database, gone when dropped. A
//! system test is written against what a user has: the command line, the config files, the network.
//!
//! It is not a place for tests (`tests/it`), and it never looks into a process or a database.
//!
//! ```no_run
//! use muster_tests::{Controller, poll::{self, SECOND}};
//!
//! let controller = Controller::start();
//! let agent = controller.agent("web-01").start();
//! poll::until("the agent is online", 10 * SECOND, || controller.ctl().agent_is("web-01", "ONLINE"));
//! # drop(agent);
//! ```

pub mod agent;
pub mod api_latency;
pub mod attacks;
pub mod bare;
pub mod binaries;
pub mod connect_proxy;
pub mod controller;
pub mod ctl;
pub mod ctl_speed;
pub mod dev;
pub mod dial;
pub mod inspection;
pub mod isolated_root;
pub mod link;
pub mod name_server;
pub mod operators;
pub mod peer;
pub mod plan_scale;
pub mod poll;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod server_yaml;
pub mod settings;
pub mod small_disk;
pub mod strace;
pub mod swarm;
pub mod throughput;
pub mod tools;
pub mod turn;

pub use agent::Agent;
pub use connect_proxy::ConnectProxy;
pub use controller::Controller;
pub use ctl::Ctl;
pub use dev::Dev;
pub use isolated_root::IsolatedRoot;
pub use process::Process;
pub use proxy::Proxy;
pub use server_yaml::ServerYaml;
pub use small_disk::SmallDisk;
