//! The engine at the edge: how large each artefact is, how soon each runtime answers, and what a request costs in it, beside
//! the native service. What is durable differs: the native service and the component's host sync each write, a Durable
//! Object is on disk without a sync of its own, Deno and Node keep everything in memory.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use cdc_test_edge::javascript::{JsServer, Runtime, package};
use cdc_test_edge::{EdgeServer, Provider, component};
use cdc_tests::harness::{Launch, PATIENCE};
use cdc_tests::http::{Connection, Request};
use cdc_tests::latency::median;
use cdc_tests::load::{self, Until};

use crate::Scale;
use crate::rows::write_insert;
use crate::table::{Table, grouped, ms};

const CONNECTIONS: usize = 32;
/// Rows that are there when they are read.
const ROWS: u64 = 100;

pub(crate) fn measure(scale: Scale, table: &mut Table) {
    let size = |file: &Path| fs::metadata(file).expect("it was built").len() as f64;
    let engine = cdc_host::sandbox::built_in_component().len() as f64;
    table.note(
        "size of the engine component, the edge component, and the JavaScript package's WebAssembly",
        format!(
            "{} KB, {} KB, {} KB",
            grouped(engine / 1e3),
            grouped(size(component()) / 1e3),
            grouped(size(&package().join("cdc.wasm")) / 1e3)
        ),
        "-",
    );
    measure_one(scale, table, "native service, each write synced", || {
        let server = Launch::new().options("--builtin-subscribers none").start();
        (server.address(), server)
    });
    measure_one(scale, table, "wasi:http component, an instance a request, each write synced", || {
        let folder = tempfile::tempdir().expect("the temp folder is writable");
        let server = EdgeServer::start(Provider::open(&folder.path().join("keys")), |_| None);
        (server.address(), (server, folder))
    });
    for (what, runtime) in [
        ("Durable Object in workerd, on disk", Runtime::Workerd),
        ("Deno, in memory", Runtime::Deno),
        ("Node, in memory", Runtime::Node),
    ] {
        measure_one(scale, table, what, || {
            let folder = tempfile::tempdir().expect("the temp folder is writable");
            let server = JsServer::start(runtime, folder.path());
            (server.address(), (server, folder))
        });
    }
}

/// Starts a runtime several times, and loads the last one. `start` answers its address, and what keeps it alive.
fn measure_one<S>(scale: Scale, table: &mut Table, what: &str, start: impl Fn() -> (SocketAddr, S)) {
    let mut starts = Vec::new();
    let mut running = None;
    for _ in 0..scale.starts.min(5) {
        drop(running.take());
        let began = Instant::now();
        let (address, server) = start();
        first_answer(address);
        starts.push(began.elapsed().as_secs_f64());
        running = Some((address, server));
    }
    let (address, _server) = running.expect("it was started");
    let mut inserted = 0;
    let mut shown = |connections, until| {
        let first = inserted;
        let outcome = load::run(address, connections, until, |number, out| write_insert("users", first + number, out));
        let outcome = outcome.expect("the load runs").expect_all_good();
        inserted += outcome.answers;
        format!("{}/s, p50 {}", grouped(outcome.per_second()), ms(outcome.latencies.quantile(0.5)))
    };
    shown(1, Until::Sent(ROWS));
    let (alone, together) = (shown(1, Until::Elapsed(scale.round)), shown(CONNECTIONS, Until::Elapsed(scale.round)));
    let read = load::run(address, 1, Until::Elapsed(scale.round), |number, out| {
        let request = format!("GET /data/users/user_{:010} HTTP/1.1\r\nhost: localhost\r\n\r\n", number % ROWS);
        out.extend_from_slice(request.as_bytes());
    });
    let read = read.expect("the load runs").expect_all_good();
    table.note(
        &format!("{what}: first answer after"),
        format!("{}; POST {alone}", ms(Duration::from_secs_f64(median(&starts)))),
        &format!(
            "32 connections {together}; GET row {}/s, p50 {}",
            grouped(read.per_second()),
            ms(read.latencies.quantile(0.5))
        ),
    );
}

/// Waits until a service captures: what a start is for.
fn first_answer(address: SocketAddr) {
    let began = Instant::now();
    let row = Request::post("/data/started", r#"{"id":1}"#);
    while !Connection::open(address).exchange(&row).is_ok_and(|answer| answer.status == 200) {
        assert!(began.elapsed() < PATIENCE, "no answer from {address}");
    }
}
