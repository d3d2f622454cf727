//! Databases in and systems out: how fast a prepared log is drained into ours, how fast tables are read, how soon a commit
//! is with a handler, and what goes through to sinks; beside the tools that come with the databases, and Debezium's engine.
//!
//! What is drained waits in the database before the clock starts. A drain of ours ends when the last change is durable in
//! our log, and its time includes the start of the service; a peer's ends with its process, which keeps nothing.

mod latency;
mod mariadb;
mod postgres;
mod sinks;

pub(crate) use latency::measure as measure_commit;
pub(crate) use mariadb::measure as measure_mariadb;
pub(crate) use postgres::{measure_drain, measure_large, measure_reading};
pub(crate) use sinks::measure as measure_sinks;

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cdc_tests::harness::{Launch, PATIENCE, Server};
use cdc_tests::http::Request;
use cdc_tests::latency::median;

use crate::table::{Table, grouped, mib};

/// What a drain took.
struct Drained {
    took: Duration,
    /// The largest resident memory of the service.
    peak_bytes: u64,
    launch: Launch,
}

/// Rates of both sides, a figure for each round, and the service's memory at most.
#[derive(Default)]
struct Sides {
    ours: Vec<f64>,
    peer: Vec<f64>,
    peak_bytes: u64,
}

impl Sides {
    /// Adds a round of so many changes.
    fn add(&mut self, changes: u64, drained: &Drained, peer_took: Duration) {
        let (ours, peer) = (per_second(changes, drained.took), per_second(changes, peer_took));
        eprintln!("  round {}: {}, peer {}", self.ours.len() + 1, rate(ours), rate(peer));
        self.ours.push(ours);
        self.peer.push(peer);
        self.peak_bytes = self.peak_bytes.max(drained.peak_bytes);
    }

    fn ours(&self) -> f64 {
        median(&self.ours)
    }

    fn peer(&self) -> f64 {
        median(&self.peer)
    }

    fn shown(&self) -> String {
        format!("{}, {} at most", rate(self.ours()), mib(self.peak_bytes))
    }

    /// A line of the table.
    fn row(&self, table: &mut Table, what: &str, bar: f64) {
        table.against_peer(what, self.shown(), rate(self.peer()), self.ours() / self.peer(), bar);
    }
}

/// Both sides on the same changes, in turns who is first.
fn in_turns(round: usize, service: impl FnOnce() -> Drained, peer: impl FnOnce() -> Duration) -> (Drained, Duration) {
    if round.is_multiple_of(2) {
        let took = peer();
        (service(), took)
    } else {
        let drained = service();
        (drained, peer())
    }
}

/// A service whose configuration file holds this text, without the built-in subscribers: what is measured is the source.
fn configured(text: &str) -> Launch {
    Launch::configured(&format!("builtin-subscribers = \"none\"\n{text}"))
}

/// Lets the service begin to follow the source `bench`, and stops it again: what comes now waits in the database.
fn follow_once(launch: &Launch) -> Launch {
    let server = launch.start();
    until_following(&server);
    server.stop()
}

fn until_following(server: &Server) {
    wait("the source to follow", server, |server| {
        server.get("/sources/bench").expect(200).json()["state"] == "following"
    });
}

/// Starts the service and lets it take everything up to this sequence number.
fn drain(launch: &Launch, until_sequence: u64) -> Drained {
    let began = Instant::now();
    let server = launch.start();
    let mut connection = server.connect();
    wait("everything to be captured", &server, |_| {
        let answer = connection.exchange(&Request::get("/stats")).expect("statistics are answered").expect(200);
        answer.json()["stats"]["currentSequence"].as_u64() >= Some(until_sequence)
    });
    let took = began.elapsed();
    let peak_bytes = server.memory().peak;
    let reached = server.current_sequence();
    assert_eq!(reached, until_sequence, "no more than was waiting");
    Drained { took, peak_bytes, launch: server.stop() }
}

/// Asks every few milliseconds, so that asking costs nothing beside what is measured.
fn wait(what: &str, server: &Server, mut is_so: impl FnMut(&Server) -> bool) {
    let began = Instant::now();
    while !is_so(server) {
        assert!(began.elapsed() < 4 * PATIENCE, "still waiting for {what}:\n{}", server.log());
        thread::sleep(Duration::from_millis(10));
    }
}

/// How long a command takes that must succeed. What it writes goes nowhere.
fn timed(command: &mut Command) -> Duration {
    let began = Instant::now();
    let ended = command.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let ended = ended.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(ended.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
    began.elapsed()
}

fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn rate(per_second: f64) -> String {
    format!("{}/s", grouped(per_second))
}
