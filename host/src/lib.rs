//! The service: runs the engine component, keeps the durable log, serves the REST API.
//!
//! Data flows one way: `api` and sources → `ingest` → `sandbox` (the engine) → `store` → views. `ARCHITECTURE.md` has
//! the map and says who may import whom.

pub mod api;
pub mod app;
pub mod authoring;
pub mod check;
mod client;
pub mod components;
pub mod config;
pub mod delivery;
pub mod gate;
pub mod guest;
pub mod ingest;
pub mod live;
pub mod logging;
pub mod metrics;
mod native_code;
pub mod readers;
mod refused_heads;
pub mod sandbox;
pub mod schemas;
pub mod selection;
pub mod server;
pub mod source;
pub mod steering;
pub mod store;
pub mod tail;
pub mod terminal;
