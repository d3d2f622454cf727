//! Bodies of every kind as anybody may send them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cdc_rest::fuzz::body(data));
