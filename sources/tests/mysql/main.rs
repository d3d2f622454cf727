//! The MySQL feed against a real MariaDB: what it says of rows, tables and places, and over restarts.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod auditing;
#[path = "../auditor/mod.rs"]
mod auditor;
mod definitions;
mod keyless;
mod model;
mod reading;
mod silent;
mod standing;
mod streaming;
mod trouble;
mod values;
mod versioning;
