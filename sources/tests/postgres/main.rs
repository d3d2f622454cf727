//! The PostgreSQL feed against real servers.
#![allow(clippy::unwrap_used)]

mod auditing;
#[path = "../auditor/mod.rs"]
mod auditor;
mod checked;
mod failover;
mod keyless;
mod model;
mod parallel;
mod reading;
mod schema;
mod settings;
mod streaming;
mod trouble;
mod two_phase;
mod values;
