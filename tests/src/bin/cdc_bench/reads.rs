//! Queries and starts over a long log, and snapshots while writes go on.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cdc_tests::harness::{Launch, Memory, Server};
use cdc_tests::http::{Connection, Request};
use cdc_tests::latency::{Latencies, median};
use cdc_tests::load::{self, Until};

use crate::Scale;
use crate::peer::Peer;
use crate::rows;
use crate::starts::{shown, start_to_first_answer};
use crate::subscribers;
use crate::table::{Table, grouped, mib, ms};

const TABLES: u64 = 20;

pub(crate) fn measure_long_log(scale: Scale, table: &mut Table) {
    let server = Launch::new().options("--retention-events 2000000").start();
    for index in 0..TABLES {
        rows::load(server.address(), &format!("table_{index}"), 0..scale.log_events / TABLES);
    }
    change_some_rows(&server, scale);
    measure_queries(&server, scale, table);
    measure_starts(server, scale, table);
}

/// One row in a hundred is updated and one in a thousand deleted, so that a filter by operation has something to find
/// and much to pass over.
fn change_some_rows(server: &Server, scale: Scale) {
    let per_table = scale.log_events / TABLES;
    let send = |method: &str, count: u64, body: &str| {
        load::run(server.address(), 32, Until::Sent(count), |number, out| {
            let (table, row) = (number % TABLES, number / TABLES % per_table);
            write!(out, "{method} /data/table_{table}/user_{row:010} HTTP/1.1\r\nhost: localhost\r\n").unwrap();
            if !body.is_empty() {
                write!(out, "content-type: application/json\r\ncontent-length: {}\r\n", body.len()).unwrap();
            }
            write!(out, "\r\n{body}").unwrap();
        })
        .expect("the load runs")
        .expect_all_good();
    };
    send("PUT", scale.log_events / 100, r#"{"is_active":false}"#);
    send("DELETE", scale.log_events / 1_000, "");
}

fn write_query(number: u64, more: &str, out: &mut Vec<u8>) {
    const OPERATIONS: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];
    let (table, operation) = (number % TABLES, OPERATIONS[(number % 3) as usize]);
    write!(
        out,
        "GET /events?table=table_{table}&operation={operation}&limit=10{more} HTTP/1.1\r\nhost: localhost\r\n\r\n"
    )
    .unwrap();
}

fn measure_queries(server: &Server, scale: Scale, table: &mut Table) {
    // Bare hyper answers one of the very pages, from memory.
    let page = server.get("/events?table=table_0&operation=UPDATE&limit=10").expect(200);
    assert_eq!(page.json()["count"], 10);
    let page_file = server.data().beside("page");
    fs::write(&page_file, &page.body).unwrap();
    let hyper = Peer::bare_hyper(Some(&page_file));

    let mut one = Latencies::default();
    let (mut rates, mut peer_rates, mut new_rates) = (Vec::new(), Vec::new(), Vec::new());
    // A query that was asked before is answered from memory while nothing is written; these never were.
    let asked = AtomicU64::new(0);
    let write_new_query = |number: u64, out: &mut Vec<u8>| {
        let after = asked.fetch_add(1, Ordering::Relaxed) % (scale.log_events / 2);
        write_query(number, &format!("&order=desc&after={after}"), out);
    };
    for round in 0..=scale.rounds {
        let until = Until::Elapsed(scale.round);
        let run = |address, connections| {
            let write = |number: u64, out: &mut Vec<u8>| write_query(number, "", out);
            load::run(address, connections, until, write).expect("the load runs").expect_all_good()
        };
        let alone = load::run(server.address(), 1, until, write_new_query).expect("the load runs").expect_all_good();
        let service = run(server.address(), 32);
        let new = load::run(server.address(), 32, until, write_new_query).expect("the load runs").expect_all_good();
        let peer = run(hyper.address, 32);
        if round > 0 {
            one.merge(&alone.latencies);
            rates.push(service.per_second());
            new_rates.push(new.per_second());
            peer_rates.push(peer.per_second());
        }
    }
    let p99 = one.quantile(0.99);
    table.against_bar(
        &format!("filtered GET /events over {} events, 1 connection", grouped(scale.log_events as f64)),
        format!("p50 {}, p99 {}", ms(one.quantile(0.5)), ms(p99)),
        "p99 < 2 ms",
        p99 < Duration::from_millis(2),
    );
    let (rate, peer_rate) = (median(&rates), median(&peer_rates));
    let what = "the same, 32 connections, against bare hyper";
    table.against_peer(
        what,
        format!("{}/s", grouped(rate)),
        format!("{}/s", grouped(peer_rate)),
        rate / peer_rate,
        0.5,
    );
    let new_rate = median(&new_rates);
    table.note(
        "the same with queries that nobody asked before",
        format!("{}/s", grouped(new_rate)),
        &format!("{:.2} of bare hyper", new_rate / peer_rate),
    );
}

fn measure_starts(server: Server, scale: Scale, table: &mut Table) {
    let mut server = server;
    let (mut after_stop, mut after_kill) = (Vec::new(), Vec::new());
    for round in 0..scale.starts as u64 {
        let (started, took) = start_to_first_answer(&server.stop());
        after_stop.push(took.as_secs_f64());
        // Something must have happened since the last checkpoint for a kill to be one.
        rows::load(started.address(), &format!("late_{round}"), 0..scale.log_events / 100);
        let (started, took) = start_to_first_answer(&started.kill());
        after_kill.push(took.as_secs_f64());
        server = started;
    }
    let (stop, kill) = (median(&after_stop), median(&after_kill));
    table.against_bar(
        &format!("start to first answer, {} events in the log", grouped(scale.log_events as f64)),
        format!("{} after a clean stop, {} after kill -9", shown(stop), shown(kill)),
        "< 100 ms",
        stop.max(kill) < 0.1,
    );
}

pub(crate) fn measure_snapshot(scale: Scale, table: &mut Table) {
    let server = Launch::new().start();
    rows::load(server.address(), "users", 0..scale.snapshot_rows);
    subscribers::await_delivery(&server);
    // Before the first one: what the first leaves behind for the next to use again is growth too.
    let before = server.memory().resident;
    let alone: Vec<f64> = (0..scale.rounds).map(|_| snapshot(&server, scale).0.as_secs_f64()).collect();

    let is_done = AtomicBool::new(false);
    let (mut took, mut growth) = (Vec::new(), 0);
    let writes = thread::scope(|scope| {
        let writer = scope.spawn(|| write_beside(&server, scale, &is_done));
        for _ in 0..scale.rounds {
            let can_reset = Memory::reset_peak(server.process());
            let (time, sampled_peak) = snapshot(&server, scale);
            let peak = if can_reset { server.memory().peak } else { sampled_peak };
            took.push(time.as_secs_f64());
            growth = growth.max(peak.saturating_sub(before));
        }
        is_done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let time = median(&took);
    table.against_bar(
        &format!("snapshot of {} rows, writes beside it", grouped(scale.snapshot_rows as f64)),
        format!("{} ({} alone), memory +{}", shown(time), shown(median(&alone)), mib(growth)),
        "< 300 ms, +16 MiB",
        time < 0.3 && growth < 16 * 1024 * 1024,
    );
    let slowest = format!("p50 {}, p99 {}", ms(writes.quantile(0.5)), ms(writes.quantile(0.99)));
    table.note("single-row PUT beside the snapshots, 1 connection", slowest, "-");
}

/// Time to the last byte, and the largest resident size seen meanwhile.
fn snapshot(server: &Server, scale: Scale) -> (Duration, u64) {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = 0;
            while !is_done.load(Ordering::Relaxed) {
                peak = server.memory().resident.max(peak);
                thread::sleep(Duration::from_millis(1));
            }
            peak
        });
        let mut connection = server.connect();
        let began = Instant::now();
        let answer = connection.exchange(&Request::get("/snapshot/users")).expect("a snapshot is answered").expect(200);
        let took = began.elapsed();
        is_done.store(true, Ordering::Relaxed);
        assert!(
            answer.body.len() as u64 > scale.snapshot_rows * rows::ROW_BYTES as u64,
            "the snapshot is not complete"
        );
        (took, sampler.join().unwrap())
    })
}

/// Updates rows of the same table, one after the other, until it is enough.
fn write_beside(server: &Server, scale: Scale, is_done: &AtomicBool) -> Latencies {
    let mut connection: Connection = server.connect();
    let mut latencies = Latencies::default();
    let mut number = 0;
    while !is_done.load(Ordering::Relaxed) {
        let request =
            Request::put(&format!("/data/users/user_{:010}", number % scale.snapshot_rows), r#"{"is_active":null}"#);
        let began = Instant::now();
        connection.exchange(&request).expect("a write is answered").expect(200);
        latencies.record(began.elapsed());
        number += 7;
    }
    latencies
}
