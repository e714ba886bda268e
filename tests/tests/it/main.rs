//! Tests of the whole: the source tree's own rules, and the real binaries through their public interfaces.

mod api;
mod attacks;
mod bad_input;
mod bootstrap;
mod by_hand;
mod cas;
mod clocks;
mod clones;
mod crash_points;
mod deploy;
mod durability;
mod enrolling;
mod freshness;
mod house;
mod ingest;
mod inventory;
mod listeners;
mod living_fleet;
mod main_job;
mod matching;
mod operator;
mod plugins;
mod readme;
mod store;
mod throughput;
mod users;
