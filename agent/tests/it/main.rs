//! The agent as a whole against a controller that does what a test tells it, over real TLS on the loopback interface.

mod controller;
mod enrollment;
mod life;
mod link;
