//! What the property tests draw, as a number that every platform must find: natively, under Node and in a browser they
//! see the same cases. When a strategy changes, so does its number.
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};
use xxhash_rust::xxh3::Xxh3;

/// The hash of the first values that a strategy draws from the seed of [`crate::oracle::config`], as `Debug` shows them.
pub(crate) fn digest(strategy: impl Strategy, cases: u32) -> u64 {
    let config = ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let mut hash = Xxh3::new();
    for _ in 0..cases {
        hash.update(format!("{:?}", strategy.new_tree(&mut runner).unwrap().current()).as_bytes());
    }
    hash.digest()
}
