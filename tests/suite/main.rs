//! The suite: the service as its users see it, over HTTP, the command line and the data folder.
//!
//! Every test starts a service of its own on a folder of its own (a start takes milliseconds), depends on no other test
//! and on no order, and waits for conditions instead of for time.
#![allow(clippy::unwrap_used, reason = "test code: a broken expectation shall stop the test at its place")]

mod architecture;
mod bad_input;
mod chaos;
mod component_contract;
mod conformance;
mod consumers;
mod crash;
mod engine_component;
mod fuzz_smoke;
mod gate;
mod golden;
mod lifecycle;
mod live;
mod owners;
mod property;
mod reach;
mod reference;
mod reference_load;
mod replica_audit;
mod rest;
mod sinks;
mod sources;
mod subscribers;
