//! What the suites and the benchmark share: a harness that runs the real `cdc` binary, a raw HTTP client that shows every
//! byte, and a load generator that costs little beside the server it loads.
//!
//! Nothing here links the engine or knows the host's inside: the service is seen as its users see it, over HTTP, the
//! command line and the data folder.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "test code: a broken expectation shall stop the test at its place, and the users of this crate are tests"
)]

pub mod captured;
pub mod conformance;
pub mod guests;
pub mod harness;
pub mod http;
pub mod json;
pub mod latency;
pub mod load;
pub mod random;
pub mod recorder;
pub mod rows;
pub mod truth;
pub mod walk;
