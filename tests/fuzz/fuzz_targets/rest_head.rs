//! Methods, paths, queries and headers as anybody may send them, divided by line feeds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cdc_rest::fuzz::head(data));
