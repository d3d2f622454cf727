//! The fuzz targets' checks in every run: the same mutations of a small corpus each time, for a few seconds. To
//! look for longer is what `tests/fuzz` is for (see its `Cargo.toml`), whose doors and seeds these are.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cdc_tests::harness::repository;
use cdc_tests::random::Random;

#[path = "../fuzz/doors/json.rs"]
mod json;
#[path = "../fuzz/doors/log.rs"]
mod log;

/// The longest input. Longer ones find little more.
const MAX_BYTES: usize = 10_240;

/// Shows a door this many mutations of the seeds in a folder, and says which one it was when the door fails.
fn run(folder: &str, cases: u64, words: &[&[u8]], door: impl Fn(&[u8])) {
    let mut files: Vec<_> =
        fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.into_iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty());
    let check = |case: &str, data: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| door(data))) {
            eprintln!("{case} of {folder}: \"{}\"", data.escape_ascii());
            resume_unwind(panic);
        }
    };
    for seed in &seeds {
        check("a seed", seed);
    }
    for case in 0..cases {
        let mut random = Random::seeded(case);
        let mut data = random.pick(&seeds).clone();
        for _ in 0..=random.below(4) {
            mutate(&mut data, &mut random, &seeds, words);
        }
        data.truncate(MAX_BYTES);
        check(&format!("case {case}"), &data);
    }
}

fn mutate(data: &mut Vec<u8>, random: &mut Random, seeds: &[Vec<u8>], words: &[&[u8]]) {
    let at = random.below(data.len() as u64 + 1) as usize;
    let end = (at + 1 + random.below(16) as usize).min(data.len());
    match random.below(8) {
        0 if at < data.len() => data[at] ^= 1 << random.below(8),
        1 if at < data.len() => data[at] = random.number() as u8,
        // Sizes and counts are where off-by-one lives.
        2 if at < data.len() => data[at] = *random.pick(&[0, 1, 2, 0x7f, 0x80, 0xfe, 0xff]),
        3 => drop(data.drain(at.min(end)..end)),
        4 => drop(data.splice(at..at, random.pick(words).iter().copied())),
        5 => {
            let again = data[at.min(end)..end].to_vec();
            drop(data.splice(at..at, again));
        }
        6 => {
            let other = random.pick(seeds);
            let from = random.below(other.len() as u64 + 1) as usize;
            data.truncate(at);
            data.extend_from_slice(&other[from..]);
        }
        _ => data.truncate(at),
    }
}

/// What the inputs of a door are made of: divided by spaces, of which a doubled one stands for itself.
fn words(text: &[u8]) -> Vec<&[u8]> {
    text.split(|&byte| byte == b' ').map(|word| if word.is_empty() { b" " } else { word }).collect()
}

#[test]
fn rows_of_any_bytes_are_taken_as_serde_json_takes_them() {
    let words = words(
        b"{ } [ ] \" \\ , :  \n \t null true false - 0 1 . e E+ \\u00e9 \\ud83d \\ude00 \"a\":1 {\"a\": \xff \xc3\xa9 \0 \
          \x1f",
    );
    run("tests/fuzz/seeds/json_door", 200_000, &words, json::json);
}

#[test]
fn heads_of_any_bytes_are_routed_or_refused() {
    let words = words(
        b"\n / ? & = % %2F %25 %ff + .. data events snapshot replica schema history stats replay after limit at -1 \
          18446744073709551615 upsert=true application/json ; charset= \xff \0",
    );
    run("tests/fuzz/seeds/rest_head", 100_000, &words, cdc_rest::fuzz::head);
}

#[test]
fn bodies_of_any_bytes_are_taken_apart_or_refused() {
    let words = words(
        b"{ } [ ] \" \\ , : \n \r\n  null \"columns\" \"name\" \"type\" \"primaryKey\" \"table\" \"from\" \"to\" 0 -1 \
          18446744073709551616 \xff \0 \xef\xbb\xbf",
    );
    run("tests/fuzz/seeds/rest_body", 100_000, &words, cdc_rest::fuzz::body);
}

#[test]
fn segments_of_any_bytes_are_recovered_or_refused() {
    let words = words(
        b"\0\0\0\0 \xff\xff\xff\xff \x80 \xff\xff\xff\xff\x0f \xc1\xcd\x00\x00 \xc1\xcd\x01\x00 \xc1\xcd\x02\x00 \
          \xc1\xcd\x04\x00 \x01\x00\x00\x00 {} cdc-log\n",
    );
    // The log's golden files: one of everything that it can hold.
    run("tests/golden/log", 12_000, &words, |data| log::log(data, cdc_host::store::recover_bytes));
}
