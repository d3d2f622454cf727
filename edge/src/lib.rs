//! The edge worker: the service's REST routes answered by the engine core where there is no host of ours.
//!
//! [`worker`] is pure: a request, a store and the time become an answer. Whoever embeds it brings the HTTP and a
//! [`Store`](cdc_engine::store::Store). [`kv`] is such a store over any key-value store that can compare and
//! swap. The edge is not the native service: there is no log of ours, no ingest queue, no
//! delivery; what is missing answers 501 and `GET /` names what is there.
//!
//! Invariants:
//! - Routes, statuses and JSON shapes are those of `cdc-rest`; nothing here renders or judges by itself.
//! - A write is answered with 200 only after the store has taken it.

#[cfg(all(target_family = "wasm", feature = "component"))]
mod component;
pub mod kv;
pub mod worker;
