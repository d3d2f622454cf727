//! Guests: subscriber components in a sandbox of their own each.
//!
//! A guest is compiled once and instantiated as often as needed. It gets what its subscription grants and nothing else:
//! no files, no sockets, no environment. Whatever it does wrong ends its own call and costs its own instance.
//!
//! Invariants:
//! - A call ends: by itself, by its time limit while it runs (epochs), or by its time limit while it waits.
//! - What a call that trapped has written into its key-value store is gone with the instance.
//! - A connection is made only to an address that was checked against the grant.

mod bindings;
mod component;
mod contract;
mod egress;
mod instance;
mod keyvalue;
mod limits;
mod output;
mod runtime;
#[cfg(test)]
mod tests;

pub use component::{COMPILE_GUEST, Guest, Misfit, World, precompile, replica_component};
pub use egress::HttpGrant;
pub use instance::{CallError, Failure, Grants, GuestEvent, Instance, Remedy};
pub use keyvalue::{KeyValueGrant, KeyWrite, Namespace, Quota, Usage};
pub use limits::GuestLimits;
pub use output::{Output, Stream, WriteLine};
pub use runtime::{MEMORY_BYTES_MAX, NoRuntime, Runtime, RuntimeOptions, TABLE_ELEMENTS_MAX};
