//! A segment of the log as a crash, a broken disk or somebody with an editor may leave it.
//!
//! The store is included as source: the crate that it belongs to would bring wasmtime along.
#![no_main]

#[path = "../doors/log.rs"]
mod door;
#[allow(dead_code, unused_imports)]
#[path = "../../../host/src/store/mod.rs"]
mod store;

libfuzzer_sys::fuzz_target!(|data: &[u8]| door::log(data, store::recover_bytes));
