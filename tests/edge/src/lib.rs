//! A host for the edge component as runtimes are at their hardest: an instance for every request and many at once, over
//! a key-value provider that is durable, can compare and swap, and can be told to fail at every step.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "test code: a broken expectation shall stop the test at its place, and the users of this crate are tests"
)]

mod build;
pub mod javascript;
mod provider;
mod server;

pub use build::{component, without_outer_build};
pub use provider::{Provider, Steps};
pub use server::EdgeServer;
