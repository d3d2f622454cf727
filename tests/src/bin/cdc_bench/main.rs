//! The benchmark: every row of the table in README's "Performance", service and peers side by side in one run.
//!
//! Rounds are interleaved (service, peers, service, peers, …) so that a noisy neighbour hits all of them, medians are
//! shown, and the ratios are what counts: absolute figures belong to the machine named below the table. A missed bar is
//! shown and is no failure of the run; a request that is not answered as it should be is one.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be taken as meant shall stop the run")]

mod databases;
mod edge;
mod engine;
mod machine;
mod peer;
mod reads;
mod rows;
mod starts;
mod streams;
mod subscribers;
mod table;
mod writes;

use std::time::Duration;

/// One part of the benchmark: takes its measurements and adds its rows.
type Measure = fn(Scale, &mut table::Table);

/// What can be measured by itself: its name, what it is, and how.
const PARTS: [(&str, &str, Measure); 18] = [
    ("engine", "the engine as a component", engine::measure),
    ("writes", "writes", writes::measure),
    ("starts", "starts and idle memory", starts::measure),
    ("long-log", "queries and starts over a long log", reads::measure_long_log),
    ("snapshots", "snapshots", reads::measure_snapshot),
    ("streams", "live streams", streams::measure),
    ("latency", "from a commit to the handler", subscribers::measure_time_to_handler),
    ("delivery", "delivery to a handler", subscribers::measure_delivery),
    ("many", "many subscriptions", subscribers::measure_many),
    ("filter", "a filter's cost", subscribers::measure_filter),
    ("fresh", "fresh guests", subscribers::measure_fresh),
    ("postgres", "a slot of PostgreSQL drained", databases::measure_drain),
    ("mariadb", "a binary log of MariaDB drained", databases::measure_mariadb),
    ("reading", "a table of PostgreSQL read at first", databases::measure_reading),
    ("large", "one large transaction", databases::measure_large),
    ("commit", "from a commit in PostgreSQL to a handler", databases::measure_commit),
    ("sinks", "from PostgreSQL to other systems", databases::measure_sinks),
    ("edge", "the engine at the edge", edge::measure),
];

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    rounds: usize,
    /// Of one round of requests against one server.
    round: Duration,
    /// Events in the log for queries and starts.
    log_events: u64,
    snapshot_rows: u64,
    /// Inserts whose bytes on disk are counted.
    stored_inserts: u64,
    starts: usize,
    stream_readers: usize,
    stream_events: u64,
    /// Writes, one at a time, that are followed to a handler.
    handler_events: u64,
    /// Rows of one load that are delivered.
    delivered_rows: u64,
    subscriptions: usize,
    /// Batches that a filter sees.
    filter_batches: u32,
    fresh_guests: u32,
    /// Changes that wait in a database.
    database_changes: u64,
    /// How often they are drained by both sides.
    database_rounds: usize,
}

const FULL: Scale = Scale {
    rounds: 5,
    round: Duration::from_secs(3),
    log_events: 1_000_000,
    snapshot_rows: 100_000,
    stored_inserts: 100_000,
    starts: 9,
    stream_readers: 1_000,
    stream_events: 1_000,
    handler_events: 500,
    delivered_rows: 100_000,
    subscriptions: 50,
    filter_batches: 10_000,
    fresh_guests: 1_000,
    database_changes: 1_000_000,
    database_rounds: 3,
};

/// Proves that the benchmark still runs; its figures mean little.
const QUICK: Scale = Scale {
    rounds: 2,
    round: Duration::from_millis(300),
    log_events: 30_000,
    snapshot_rows: 10_000,
    stored_inserts: 5_000,
    starts: 3,
    stream_readers: 100,
    stream_events: 100,
    handler_events: 50,
    delivered_rows: 10_000,
    subscriptions: 10,
    filter_batches: 100,
    fresh_guests: 100,
    database_changes: 10_000,
    database_rounds: 1,
};

fn main() {
    let (mut scale, mut wanted) = (FULL, Vec::new());
    for argument in std::env::args().skip(1) {
        if argument == "--quick" {
            scale = QUICK;
        } else if PARTS.iter().any(|(part, ..)| *part == argument) {
            wanted.push(argument);
        } else {
            eprintln!("usage: cdc-bench [--quick] [PART...]\n\nParts, of which none named means all:");
            PARTS.iter().for_each(|(part, what, _)| eprintln!("  {part:<12}{what}"));
            std::process::exit(2);
        }
    }
    let mut report = table::Table::default();
    for (part, what, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == part) {
            eprintln!("measuring {what} …");
            measure(scale, &mut report);
        }
    }
    println!("{report}");
    println!("{}", machine::describe());
    if scale.log_events < FULL.log_events {
        println!("quick run: small data, short rounds; the bars are meant for the full one");
    }
}
