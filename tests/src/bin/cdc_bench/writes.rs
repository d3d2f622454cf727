//! Single-row POST against the peers, bulk load against single-row POST, and what a captured insert takes on disk.

use std::net::SocketAddr;
use std::time::Instant;

use cdc_tests::harness::{Launch, Server, folder_bytes};
use cdc_tests::http::Connection;
use cdc_tests::latency::{Latencies, median};
use cdc_tests::load::{self, Until};

use crate::Scale;
use crate::peer::Peer;
use crate::rows::{assert_captured, bulk_request, write_insert};
use crate::subscribers::await_delivery;
use crate::table::{Table, grouped, ms};

const CONNECTIONS: usize = 32;
const ROWS_PER_BULK_REQUEST: u64 = 5_000;

/// One server under single-row writes, with what its rounds came to.
struct Contender {
    address: SocketAddr,
    inserted: u64,
    rates: Vec<f64>,
    latencies: Latencies,
}

impl Contender {
    fn new(address: SocketAddr) -> Contender {
        Contender { address, inserted: 0, rates: Vec::new(), latencies: Latencies::default() }
    }

    fn round(&mut self, until: Until, counts: bool) {
        let first = self.inserted;
        let outcome =
            load::run(self.address, CONNECTIONS, until, |number, out| write_insert("users", first + number, out))
                .expect("the load runs")
                .expect_all_good();
        self.inserted += outcome.answers;
        if counts {
            self.rates.push(outcome.per_second());
            self.latencies.merge(&outcome.latencies);
        }
    }

    fn rate(&self) -> f64 {
        median(&self.rates)
    }

    fn shown(&self) -> String {
        let p99 = ms(self.latencies.quantile(0.99));
        format!("{}/s, p50 {}, p99 {p99}", grouped(self.rate()), ms(self.latencies.quantile(0.5)))
    }
}

pub(crate) fn measure(scale: Scale, table: &mut Table) {
    let server = Launch::new().start();
    let quiet_server = Launch::new().options("--builtin-subscribers none").start();
    let node_process = Peer::node();
    let hyper_process = Peer::bare_hyper(None);
    let mut service = Contender::new(server.address());
    let mut quiet = Contender::new(quiet_server.address());
    let mut hyper = Contender::new(hyper_process.address);
    let mut node = node_process.as_ref().map(|peer| Contender::new(peer.address));
    let (mut bulk_rates, mut behind) = (Vec::new(), Vec::new());
    for round in 0..=scale.rounds {
        // Round 0 warms up compilers, caches and allocators.
        let counts = round > 0;
        let until = Until::Elapsed(scale.round);
        service.round(until, counts);
        // What one leaves behind is not to be measured with the next.
        let left = await_delivery(&server);
        if let Some(node) = &mut node {
            node.round(until, counts);
        }
        hyper.round(until, counts);
        quiet.round(until, counts);
        let rate = bulk_round(&server, scale, round as u64);
        await_delivery(&server);
        if counts {
            bulk_rates.push(rate);
            behind.push(left.as_secs_f64());
        }
    }

    let what = "single-row POST, 32 connections, durable, against in-memory node:http";
    match &node {
        Some(node) => {
            table.against_peer(what, service.shown(), node.shown(), service.rate() / node.rate(), 2.0);
        }
        None => table.note(what, service.shown(), "no node on this machine"),
    }
    let what = "the same against bare hyper";
    table.against_peer(what, service.shown(), hyper.shown(), service.rate() / hyper.rate(), 0.5);
    let left = format!("the three have all of it {:.2} s after", median(&behind));
    table.note("the same with the built-in subscribers switched off", quiet.shown(), &left);
    let bulk = median(&bulk_rates);
    table.against_peer(
        "bulk NDJSON load, durable, against single-row POST",
        format!("{} rows/s", grouped(bulk)),
        format!("{} rows/s", grouped(service.rate())),
        bulk / service.rate(),
        5.0,
    );
    drop((server, quiet_server, node_process, hyper_process));
    measure_disk(scale, table);
}

/// Bulk loads for about a round's time over one connection; answers rows per second.
fn bulk_round(server: &Server, scale: Scale, round: u64) -> f64 {
    let mut connection = Connection::open(server.address());
    let began = Instant::now();
    let mut loaded = 0;
    // Each round has a table of its own, so that no key comes twice. Making the bodies is not part of the time.
    let mut spent = std::time::Duration::ZERO;
    while began.elapsed() < scale.round {
        let request = bulk_request(&format!("bulk_{round}"), loaded..loaded + ROWS_PER_BULK_REQUEST);
        let sent = Instant::now();
        let answer = connection.exchange(&request).expect("a bulk load is answered").expect(200);
        spent += sent.elapsed();
        assert_captured(answer.text(), ROWS_PER_BULK_REQUEST);
        loaded += ROWS_PER_BULK_REQUEST;
    }
    loaded as f64 / spent.as_secs_f64()
}

/// Single-row inserts are the worst case for the log: small batches compress least.
fn measure_disk(scale: Scale, table: &mut Table) {
    let server = Launch::new().options("--retention-events 10000000").start();
    let mut service = Contender::new(server.address());
    service.round(Until::Sent(scale.stored_inserts), true);
    let data = server.data().clone();
    server.stop();
    let (apparent, blocks) = folder_bytes(data.path());
    let per_insert = |bytes: u64| bytes as f64 / scale.stored_inserts as f64;
    table.against_bar(
        "bytes on disk per captured 150-byte insert, rows and indexes included",
        format!("{:.0} in blocks, {:.0} apparent", per_insert(blocks), per_insert(apparent)),
        "<= 500",
        per_insert(blocks.max(apparent)) <= 500.0,
    );
}
