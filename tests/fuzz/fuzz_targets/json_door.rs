//! Rows as anybody may send them.
#![no_main]

#[path = "../doors/json.rs"]
mod door;

libfuzzer_sys::fuzz_target!(|data: &[u8]| door::json(data));
