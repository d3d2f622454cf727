//! The PostgreSQL feed against real servers.
#![allow(clippy::unwrap_used)]

mod checked;
mod failover;
mod keyless;
mod model;
mod reading;
mod schema;
mod settings;
mod streaming;
mod trouble;
mod two_phase;
mod values;
