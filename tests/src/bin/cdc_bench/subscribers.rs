//! Subscribers: how soon a handler has an event, what a filter costs, what delivery and capture cost each other, and how
//! long a fresh guest takes.
//!
//! What runs in a service is seen from outside: an event is acknowledged when `GET /subscriptions/:id` says so. Only the
//! time from a commit to the handler is by the service's own clock: two HTTP requests on the way would hide it. Services run without the built-in subscribers, so that what is
//! measured is the subscription that was made. Filters and fresh guests are measured in this process, on the runtime
//! that the service has.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use cdc_host::guest::{Grants, Guest, GuestEvent, GuestLimits, HttpGrant, Instance, Output, Runtime, RuntimeOptions};
use cdc_host::sandbox::CompileWith;
use cdc_host::store::Operation;
use cdc_tests::guests;
use cdc_tests::harness::{Launch, PATIENCE, Server};
use cdc_tests::http::{Connection, Request};
use cdc_tests::latency::{Latencies, median};
use serde_json::{Value, json};

use crate::Scale;
use crate::rows::{ROW_BYTES, assert_captured, bulk_request, write_row};
use crate::table::{Table, grouped, ms};

const ROWS_PER_BULK_REQUEST: u64 = 5_000;
/// The batch of a subscription that says nothing of it.
const BATCH: usize = 256;

/// How soon a handler has an event: by the service's own clock, from the commit until the handler is entered, and seen
/// from outside, from a write until the handler's own request for it is here.
pub(crate) fn measure_time_to_handler(scale: Scale, table: &mut Table) {
    let delays = measure_delays(scale);
    let share = |bound: f64| format!("{:.1} % within {}", delays.share_within(bound) * 100.0, ms_of(bound));
    table.against_bar(
        "commit to handler entered, idle, one subscription (the service's histogram)",
        format!("p50 <= {}, p99 <= {}; {}", ms_of(delays.quantile(0.5)), ms_of(delays.quantile(0.99)), share(0.000_5)),
        "p50 < 0.5, p99 < 2 ms",
        delays.quantile(0.5) <= 0.000_5 && delays.quantile(0.99) <= 0.002,
    );
    let outside = TimesToHandler::measure(scale, &service());
    table.note("POST sent to the handler's own HTTP request received, fsync included", outside.shown(), "-");
}

/// Bounds of a histogram in ms.
fn ms_of(seconds: f64) -> String {
    format!("{} ms", seconds * 1e3)
}

/// Writes one row after the other to a service that has nothing else to do, and reads its histogram.
fn measure_delays(scale: Scale) -> Histogram {
    const PAUSE: Duration = Duration::from_millis(25);
    const WARM_UP: u64 = 20;
    let server = service();
    upload(&server, "noop", &guests::rust("noop"));
    subscribe(&server, "s", &json!({"subscriber": {"component": "noop"}}));
    let mut connection = server.connect();
    let mut write = |number| {
        thread::sleep(PAUSE);
        let mut row = Vec::new();
        write_row(number, &mut row);
        connection.exchange(&Request::post("/data/users", row)).expect("a write is answered").expect(200);
    };
    (0..WARM_UP).for_each(&mut write);
    await_sequence(&server, "s", "acknowledgedSequence", WARM_UP);
    let before = Histogram::read(&server);
    (WARM_UP..WARM_UP + scale.handler_events).for_each(&mut write);
    await_sequence(&server, "s", "acknowledgedSequence", WARM_UP + scale.handler_events);
    let delays = Histogram::read(&server).since(&before);
    assert_eq!(delays.count(), scale.handler_events, "each write was a batch");
    delays
}

/// `cdc_subscription_delivery_seconds` of the only subscription: upper bounds, and how many are at or below each.
struct Histogram(Vec<(f64, u64)>);

impl Histogram {
    fn read(server: &Server) -> Histogram {
        let metrics = server.get("/metrics").expect(200);
        let buckets = metrics.text().lines().filter_map(|line| {
            let rest = line.strip_prefix("cdc_subscription_delivery_seconds_bucket{")?;
            let (labels, count) = rest.split_once("} ")?;
            let (_, bound) = labels.split_once("le=\"")?;
            let (bound, _) = bound.split_once('"')?;
            Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().expect("a count")))
        });
        Histogram(buckets.collect())
    }

    fn since(&self, before: &Histogram) -> Histogram {
        let earlier = |bound: f64| before.0.iter().find(|(other, _)| *other == bound).map_or(0, |(_, count)| *count);
        Histogram(self.0.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect())
    }

    fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    fn share_within(&self, bound: f64) -> f64 {
        let within = self.0.iter().rev().find(|(other, _)| *other <= bound).map_or(0, |(_, count)| *count);
        within as f64 / self.count() as f64
    }

    /// The upper bound of the bucket that this quantile is in.
    fn quantile(&self, share: f64) -> f64 {
        let wanted = share * self.count() as f64;
        self.0.iter().find(|(_, count)| *count as f64 >= wanted).map_or(f64::INFINITY, |(bound, _)| *bound)
    }
}

#[derive(Default)]
struct TimesToHandler {
    since_request: Latencies,
    /// Zero for those that were here before it.
    since_answer: Latencies,
    before_answer: u64,
}

impl TimesToHandler {
    fn measure(scale: Scale, server: &Server) -> TimesToHandler {
        /// Long enough for what a delivery leaves to do (noting it in the log) to be over.
        const PAUSE: Duration = Duration::from_millis(25);
        const WARM_UP: u64 = 20;

        let arrivals = Arrivals::start();
        upload(server, "counter", &guests::rust("hostile"));
        let url = format!("http://{}", arrivals.address);
        let config = json!({"mode": "counter", "url": format!("{url}/done")});
        let grants = json!({"config": config, "keyvalue": true, "http": [url]});
        subscribe(server, "s", &json!({"subscriber": {"component": "counter"}, "grants": grants}));

        let mut times = TimesToHandler::default();
        let mut connection = server.connect();
        for number in 0..WARM_UP + scale.handler_events {
            thread::sleep(PAUSE);
            let mut row = Vec::new();
            write_row(number, &mut row);
            let request = Request::post("/data/users", row);
            let sent = Instant::now();
            connection.exchange(&request).expect("a write is answered").expect(200);
            let answered = Instant::now();
            let (body, arrived) = arrivals.next();
            assert_eq!(body.trim(), (number + 1).to_string(), "the handler got another event");
            if number >= WARM_UP {
                times.since_request.record(arrived.saturating_duration_since(sent));
                times.since_answer.record(arrived.saturating_duration_since(answered));
                times.before_answer += u64::from(arrived < answered);
            }
        }
        times
    }

    fn shown(&self) -> String {
        let [p50, p99] = [0.5, 0.99].map(|share| ms(self.since_request.quantile(share)));
        let early = self.before_answer as f64 / self.since_request.count() as f64 * 100.0;
        let late = ms(self.since_answer.quantile(0.99));
        format!("p50 {p50}, p99 {p99}; {early:.0} % before the writer's answer, 99 % within {late} of it")
    }
}

/// A handler that does nothing: beside a bulk load, and through what has piled up.
///
/// It keeps up when everything is delivered a tenth of the load's time after the load at the latest.
pub(crate) fn measure_delivery(scale: Scale, table: &mut Table) {
    let rows = scale.delivered_rows;
    let (mut captured, mut delivered, mut lags) = (Vec::new(), Vec::new(), Vec::new());
    let (mut drained, mut scanned) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let server = service();
        upload(&server, "noop", &guests::rust("noop"));
        subscribe(&server, "s", &json!({"subscriber": {"component": "noop"}}));

        let prepared = Prepared::new("loaded", rows);
        let is_loading = AtomicBool::new(true);
        let began = Instant::now();
        let (took, lag) = thread::scope(|scope| {
            let watch = scope.spawn(|| largest_lag(&server, &is_loading));
            let took = prepared.load(&server);
            is_loading.store(false, Ordering::SeqCst);
            (took, watch.join().expect("the watch ends"))
        });
        await_sequence(&server, "s", "acknowledgedSequence", rows);
        delivered.push(rows as f64 / began.elapsed().as_secs_f64());
        captured.push(rows as f64 / took.as_secs_f64());
        lags.push(lag as f64);

        // A lag of so many events, and how long it takes to be gone.
        server.post("/subscriptions/s/pause", "").expect(200);
        let lag = 2 * rows;
        Prepared::new("piled_up", lag).load(&server);
        let began = Instant::now();
        server.post("/subscriptions/s/resume", "").expect(200);
        await_sequence(&server, "s", "acknowledgedSequence", rows + lag);
        drained.push(lag as f64 / began.elapsed().as_secs_f64());

        // The same events read and decoded by a lane that selects none of them: the log's raw replay rate.
        let selects_none = json!({"tables": ["nothing"], "subscriber": {"component": "noop"}, "start": rows + 1});
        let began = Instant::now();
        subscribe(&server, "raw", &selects_none);
        await_sequence(&server, "raw", "scannedSequence", rows + lag);
        scanned.push(lag as f64 / began.elapsed().as_secs_f64());
    }
    let [captured, delivered, lags, drained, scanned] =
        [captured, delivered, lags, drained, scanned].map(|v| median(&v));
    table.against_peer(
        &format!("delivery to one no-op handler while {} rows are loaded (peer: capture)", grouped(rows as f64)),
        format!("{} events/s, lag at most {}", grouped(delivered), grouped(lags)),
        format!("{} rows/s", grouped(captured)),
        delivered / captured,
        0.9,
    );
    table.against_bar(
        &format!("a lag of {} events drained by it", grouped(2.0 * rows as f64)),
        format!(
            "{} events/s, {:.2} of {}/s for a scan that selects none",
            grouped(drained),
            drained / scanned,
            grouped(scanned)
        ),
        ">= 200,000/s or 0.5",
        drained >= 200_000.0 || drained >= 0.5 * scanned,
    );
}

/// The largest lag that is seen until the load is over.
fn largest_lag(server: &Server, is_loading: &AtomicBool) -> u64 {
    let mut connection = server.connect();
    let mut largest = 0;
    while is_loading.load(Ordering::SeqCst) {
        largest = largest.max(figure(&mut connection, "s", "lagEvents"));
        thread::sleep(Duration::from_millis(5));
    }
    largest
}

/// Dozens of subscriptions, each with a condition of its own, against none.
pub(crate) fn measure_many(scale: Scale, table: &mut Table) {
    let rows = scale.delivered_rows;
    let (without, with) = (service(), service());
    upload(&with, "noop", &guests::rust("noop"));
    let ids: Vec<String> = (0..scale.subscriptions).map(|i| format!("s{i}")).collect();
    for (i, id) in ids.iter().enumerate() {
        // Balances lie between 10,000 and 100,000: from nearly all rows down to few are selected.
        let least = 10_000.0 + 90_000.0 * i as f64 / ids.len() as f64;
        let condition = format!("after.is_active && after.balance >= {least:.1}");
        subscribe(&with, id, &json!({"where": condition, "subscriber": {"component": "noop"}}));
    }
    let (mut rates, mut peer_rates, mut ratios, mut behind) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=scale.rounds as u64 {
        let prepared = Prepared::new(&format!("round_{round}"), rows);
        let peer_rate = rows as f64 / prepared.load(&without).as_secs_f64();
        let rate = rows as f64 / prepared.load(&with).as_secs_f64();
        let began = Instant::now();
        for id in &ids {
            await_sequence(&with, id, "acknowledgedSequence", (round + 1) * rows);
        }
        // Round 0 warms up.
        if round > 0 {
            rates.push(rate);
            peer_rates.push(peer_rate);
            ratios.push(rate / peer_rate);
            behind.push(began.elapsed().as_secs_f64());
        }
    }
    table.against_peer(
        &format!(
            "capture with {} subscriptions with `where` at once, {} rows (peer: none)",
            ids.len(),
            grouped(rows as f64)
        ),
        format!("{} rows/s; all complete {:.2} s after", grouped(median(&rates)), median(&behind)),
        format!("{} rows/s", grouped(median(&peer_rates))),
        median(&ratios),
        0.7,
    );
}

/// A filter component against the same search for the same bytes in this process's own code.
pub(crate) fn measure_filter(scale: Scale, table: &mut Table) {
    let guests = Guests::new();
    let guest = guests.load(&guests::rust("status-filter"));
    let mut instance = instantiate(&guest);
    let images: Vec<String> = (0..BATCH as u64).map(image).collect();
    let ids: Vec<String> = (0..BATCH).map(|i| format!("{i:032x}")).collect();
    let keys: Vec<String> = (0..BATCH).map(|i| format!("\"user_{i:010}\"")).collect();
    let events: Vec<GuestEvent<'_>> = (0..BATCH)
        .map(|i| GuestEvent {
            sequence: i as u64 + 1,
            timestamp_ms: 1_699_380_000_000,
            id: &ids[i],
            table: "users",
            key: &keys[i],
            operation: Operation::Insert,
            before: None,
            after: Some(&images[i]),
            schema_version: 1,
            position: None,
            origin: None,
        })
        .collect();
    let native = |events: &[GuestEvent<'_>]| -> Vec<bool> {
        events.iter().map(|event| event.after.is_some_and(|row| row.contains(r#""status":"active""#))).collect()
    };
    let accepted = instance.accept(&events).expect("the filter answers");
    assert_eq!(accepted, native(&events), "both decide the same");
    assert!(accepted.contains(&true) && accepted.contains(&false), "there is something to decide");

    // Batch by batch in turn, each timed by itself: the median leaves out those that somebody else's work interrupted.
    let (mut guests, mut natives) = (Vec::new(), Vec::new());
    for _ in 0..scale.filter_batches {
        let began = Instant::now();
        black_box(instance.accept(black_box(&events)).expect("the filter answers"));
        guests.push(per_event_ns(began.elapsed()));
        let began = Instant::now();
        black_box(native(black_box(&events)));
        natives.push(per_event_ns(began.elapsed()));
    }
    let (guest, native) = (median(&guests), median(&natives));
    table.against_bar(
        &format!("filter component, per event in batches of {BATCH}, against native"),
        format!("{guest:.0} ns, native {native:.0} ns: {:.0} ns more", guest - native),
        "<= 1,000 ns more",
        guest - native <= 1_000.0,
    );
}

fn per_event_ns(batch: Duration) -> f64 {
    batch.as_nanos() as f64 / BATCH as f64
}

/// A row with a status in place of its city.
fn image(number: u64) -> String {
    const CITY: &str = r#""city":"Berlin""#;
    let mut row = Vec::with_capacity(ROW_BYTES);
    write_row(number, &mut row);
    let mut row = String::from_utf8(row).unwrap();
    let at = row.find(r#""city":"#).expect("a row has a city");
    let status = if number.is_multiple_of(2) { r#""status":"active""# } else { r#""status":"paused""# };
    row.replace_range(at..at + CITY.len(), status);
    row
}

/// Instances from the pool, one after the other.
pub(crate) fn measure_fresh(scale: Scale, table: &mut Table) {
    const WARM_UP: u32 = 10;
    let guests = Guests::new();
    let guest = guests.load(&guests::rust("noop"));
    let (mut made, mut ended) = (Duration::ZERO, Duration::ZERO);
    for i in 0..WARM_UP + scale.fresh_guests {
        let began = Instant::now();
        let instance = instantiate(&guest);
        let is_made = Instant::now();
        drop(instance);
        if i >= WARM_UP {
            made += is_made - began;
            ended += is_made.elapsed();
        }
    }
    let [made, ended] = [made, ended].map(|sum| sum / scale.fresh_guests);
    table.against_bar(
        &format!("instantiating a fresh guest, mean of {}", grouped(f64::from(scale.fresh_guests))),
        format!("{:.1} µs, and {:.1} µs to end it", made.as_secs_f64() * 1e6, ended.as_secs_f64() * 1e6),
        "< 100 µs",
        made < Duration::from_micros(100),
    );
}

/// The runtime that the service has, in this process.
struct Guests {
    runtime: Runtime,
    /// Guests call host functions that wait for this one; calls themselves stay on the calling thread.
    _tasks: tokio::runtime::Runtime,
}

impl Guests {
    fn new() -> Self {
        let tasks = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let runtime = Runtime::new(&RuntimeOptions::default(), tasks.handle().clone()).expect("guests can run here");
        Self { runtime, _tasks: tasks }
    }

    fn load(&self, component: &Path) -> Guest {
        let bytes = fs::read(component).unwrap();
        Guest::load(&self.runtime, &bytes, None, &CompileWith::ThisProcess).expect("the component fits")
    }
}

/// An instance as a lane makes it that grants nothing.
fn instantiate(guest: &Guest) -> Instance {
    let limits = GuestLimits::default();
    let grants = Grants {
        config: Arc::new(BTreeMap::new()),
        keyvalue: None,
        http: Arc::new(HttpGrant::default()),
        output: Output::new(limits.log_bytes_per_second, Arc::new(|_, _| {})),
    };
    Instance::new(guest, grants, limits, || {}).expect("the component starts")
}

/// A service whose only subscribers are those that are made, and whose log keeps all.
fn service() -> Server {
    service_with("")
}

fn service_with(options: &str) -> Server {
    Launch::new().options("--builtin-subscribers none --retention-events 10000000").options(options).start()
}

fn upload(server: &Server, name: &str, component: &Path) {
    let bytes = fs::read(component).unwrap();
    server.send(&Request::new("PUT", &format!("/components/{name}")).body("application/wasm", bytes)).expect(200);
}

fn subscribe(server: &Server, id: &str, definition: &Value) {
    server.put(&format!("/subscriptions/{id}"), &definition.to_string()).expect(200);
}

/// A figure of a subscription.
fn figure(connection: &mut Connection, id: &str, member: &str) -> u64 {
    let answer = connection.exchange(&Request::get(&format!("/subscriptions/{id}"))).expect("it is answered");
    let status = answer.expect(200).json();
    // A subscription that failed would be quick.
    assert_eq!((&status["state"], &status["sinceStart"]["retries"]), (&json!("running"), &json!(0)), "{status}");
    status[member].as_u64().expect("a number")
}

/// Waits until every subscription has acknowledged all that is in the log, so that whoever is measured next is measured
/// alone. Answers how long that took.
pub(crate) fn await_delivery(server: &Server) -> Duration {
    let began = Instant::now();
    loop {
        let all = server.get("/subscriptions").expect(200).json();
        let behind = |status: &Value| status["lagEvents"].as_u64() != Some(0);
        if !all["subscriptions"].as_array().expect("a list").iter().any(behind) {
            return began.elapsed();
        }
        assert!(began.elapsed() < 2 * PATIENCE, "subscriptions do not come to the end: {all}\n{}", server.log());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a subscription has come so far.
pub(crate) fn await_sequence(server: &Server, id: &str, member: &str, sequence: u64) {
    let deadline = Instant::now() + 5 * PATIENCE;
    let mut connection = server.connect();
    loop {
        let reached = figure(&mut connection, id, member);
        if reached >= sequence {
            return;
        }
        assert!(Instant::now() < deadline, "{id} is at {reached} of {sequence}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Bulk loads that are ready to be sent, so that making them is not part of the time.
struct Prepared(Vec<(Request, u64)>);

impl Prepared {
    fn new(table: &str, rows: u64) -> Prepared {
        let starts = (0..rows).step_by(ROWS_PER_BULK_REQUEST as usize);
        let requests = starts.map(|start| {
            let end = rows.min(start + ROWS_PER_BULK_REQUEST);
            (bulk_request(table, start..end), end - start)
        });
        Prepared(requests.collect())
    }

    /// Sends them one after the other; answers how long that took.
    fn load(&self, server: &Server) -> Duration {
        let mut connection = server.connect();
        let began = Instant::now();
        for (request, rows) in &self.0 {
            let answer = connection.exchange(request).expect("a bulk load is answered").expect(200);
            assert_captured(answer.text(), *rows);
        }
        began.elapsed()
    }
}

/// A server that notes when requests arrive.
struct Arrivals {
    address: SocketAddr,
    seen: mpsc::Receiver<(String, Instant)>,
}

impl Arrivals {
    fn start() -> Arrivals {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let (tell, seen) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tell = tell.clone();
                thread::spawn(move || note_requests(stream, &tell));
            }
        });
        Arrivals { address, seen }
    }

    /// The body of the next request, and when its first bytes were read.
    fn next(&self) -> (String, Instant) {
        self.seen.recv_timeout(PATIENCE).expect("the handler's request comes")
    }
}

/// Serves one connection until its client is gone.
fn note_requests(mut stream: TcpStream, tell: &mpsc::Sender<(String, Instant)>) {
    let _ = stream.set_nodelay(true);
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let mut arrived = None;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let at = *arrived.get_or_insert_with(Instant::now);
        bytes.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("bodies have a length");
        if body.len() < length.trim().parse().expect("a length") {
            continue;
        }
        let body = body.to_owned();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("the handler waits for the answer");
        bytes.clear();
        arrived = None;
        if tell.send((body, at)).is_err() {
            return;
        }
    }
}
