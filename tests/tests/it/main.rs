//! Tests of the whole: the source tree's own rules, and the real binaries through their public interfaces.

mod deploy;
mod house;
