//! What ends a call, or would if it could.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::exports::cdc::subscriber::handling::{Failure, Remedy};
use crate::settings::{failure, setting};
use crate::wasi::keyvalue::store::open;

const MIB: usize = 1 << 20;

pub fn run_forever() -> ! {
    loop {
        black_box(());
    }
}

pub fn take_all_memory() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1u8; MIB]));
    }
}

pub fn recurse_forever() -> ! {
    fn recurse(depth: u64) -> u64 {
        // Its result is used, so that the call is no jump.
        if black_box(depth) == u64::MAX { depth } else { recurse(depth + 1) + 1 }
    }
    panic!("came back from depth {}", recurse(0));
}

pub fn sleep(ms: u64) -> Result<(), Failure> {
    std::thread::sleep(Duration::from_millis(ms));
    Ok(())
}

pub fn spin(ms: u64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(ms) {
        (0..1_000).for_each(|turn| _ = black_box(turn));
    }
}

pub fn fail_at_length() -> Result<(), Failure> {
    let bytes = setting("bytes").unwrap_or(64 * MIB);
    Err(failure(Remedy::Retry, "x".repeat(bytes)))
}

pub fn flood_the_log() -> Result<(), Failure> {
    let line = "flood ".repeat(setting::<usize>("bytes").unwrap_or(100).div_ceil(6));
    for number in 0..setting("lines").unwrap_or(1_000_000u64) {
        println!("{number} {line}");
    }
    Ok(())
}

pub fn fill_the_quota() -> Result<(), Failure> {
    let value = vec![b'x'; setting("bytes").unwrap_or(64 << 10)];
    let bucket = open("default").map_err(|error| failure(Remedy::Reject, format!("{error:?}")))?;
    let mut number = 0u64;
    loop {
        if let Err(error) = bucket.set(&format!("filler/{number:020}"), &value) {
            return Err(failure(Remedy::Reject, format!("after {number} values: {error:?}")));
        }
        number += 1;
    }
}
