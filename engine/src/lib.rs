//! The change data capture engine: a pure core, and the WASI component around it.
//!
//! The core decides what becomes of a change, what a query answers and what a table looked like. It is a function of
//! its input, the [`store`] it is handed and `now`: no clock, file, socket or thread (the `clippy.toml` beside this
//! crate bans them). `component.rs` is the shell: it converts between the core's types and those of `wit/engine`, and
//! exists in WASM builds with the feature `component` only, so that whoever links the core into a module of their own
//! exports and imports nothing of it.
//!
//! Invariants:
//! - State lives in the store. What the core keeps between calls is a cache that the store's head can void.
//! - JSON is kept as it came. Images are text that is scanned, cut and joined, never parsed into values and written
//!   back.
//! - A refused change leaves no trace; a batch is committed as a whole or not at all.

pub mod capture;
pub mod event;
pub mod follow;
pub mod image;
pub mod key;
pub mod past;
pub mod query;
pub mod refusal;
mod rows;
pub mod schema;
pub mod selection;
pub mod snapshot;
pub mod store;
pub mod texts;

#[cfg(all(target_family = "wasm", feature = "component"))]
mod component;
// In WASM builds the `test` of each test module is that of wasm-bindgen, whose runner knows Node and browsers.
#[cfg(test)]
mod draws;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod oracle;
