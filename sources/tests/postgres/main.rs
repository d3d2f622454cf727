//! The PostgreSQL feed against real servers.
#![allow(clippy::unwrap_used)]

mod model;
mod reading;
mod streaming;
mod trouble;
mod values;
