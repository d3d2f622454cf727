//! PostgreSQL in, systems out: a slot drained through the service into NATS JetStream, Redis, and a PostgreSQL replica.

use std::time::Instant;

use cdc_test_servers::{Nats, Postgres, Redis};

use super::postgres::Followed;
use super::{per_second, rate};
use crate::Scale;
use crate::subscribers::await_sequence;
use crate::table::{Table, grouped, mib};

/// Shown without bars: what the receiver takes is as much its own doing.
pub(crate) fn measure(scale: Scale, table: &mut Table) {
    let nats = Nats::start();
    let stream = "createStream = { subjects = [\"cdc.>\"] }, stream = \"CDC\"";
    measure_one(scale, table, "NATS JetStream", &format!("sink = \"nats\", servers = [\"{}\"], {stream}", nats.url()));
    let redis = Redis::start();
    measure_one(scale, table, "Redis Streams", &format!("sink = \"redis\", url = \"{}\"", redis.url()));
    let replica = Postgres::start();
    let to = format!("sink = \"postgres\", url = \"{}\", createTables = true", replica.url("postgres"));
    measure_one(scale, table, "a PostgreSQL replica", &to);
    let rows = replica.psql("postgres", "SELECT count(*) FROM changes");
    assert_eq!(rows, changes(scale).to_string(), "the replica has every row");
}

/// Fewer than are drained elsewhere: the rates do not change with it.
fn changes(scale: Scale) -> u64 {
    scale.database_changes / 4
}

fn measure_one(scale: Scale, table: &mut Table, name: &str, subscriber: &str) {
    let changes = changes(scale);
    let subscription = format!(
        "[subscriptions.out]\nstart = \"beginning\"\nsubscriber = {{ {subscriber} }}\nbatch = {{ maxEvents = 2000 }}\n"
    );
    let bench = Followed::start(&[], &subscription);
    bench.call("fill", 1, changes, 100);
    let began = Instant::now();
    let server = bench.launch.start();
    await_sequence(&server, "out", "acknowledgedSequence", changes);
    let took = began.elapsed();
    table.note(
        &format!("PostgreSQL to {name}: {} inserts of a slot, until acknowledged", grouped(changes as f64)),
        format!("{}, {} at most", rate(per_second(changes, took)), mib(server.memory().peak)),
        "-",
    );
}
