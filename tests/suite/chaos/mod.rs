//! Real databases under load while everything is killed at random: the service, the database, the sink's database.
//! Afterwards the row state, the replica and the source are equal row by row, and the log has each change once, in order.

mod history;
mod mariadb;
mod postgres;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cdc_test_servers::Postgres;
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::random::Random;

/// How long the load goes on.
const LOAD: Duration = Duration::from_secs(60);
/// How often each of the three is killed.
const KILLS_OF_EACH: usize = 3;

/// The service with a source and a replica in PostgreSQL, as its configuration has them.
fn launch(source: &str, replica: &Postgres) -> Launch {
    Launch::configured(&format!(
        "retention-events = \"unlimited\"\nbuiltin-subscribers = \"none\"\n\n{source}\n\
         [subscriptions.replica]\nstart = \"beginning\"\n\
         subscriber = {{ sink = \"postgres\", url = \"{}\", createTables = true, table = \"{{table}}\" }}\n\
         batch = {{ maxEvents = 2000 }}\n\
         retry = {{ initialMs = 50, maxMs = 500 }}\n",
        replica.url("postgres")
    ))
}

/// What can be killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Service,
    Database,
    Sink,
}

/// Kills everything at random while the load goes on, each of the three as often as the others; answers the service.
fn kill_everything(mut server: Server, database: &dyn Database, sink: &Postgres, seed: u64) -> Server {
    let mut random = Random::seeded(seed);
    let mut victims: Vec<Victim> =
        (0..KILLS_OF_EACH).flat_map(|_| [Victim::Service, Victim::Database, Victim::Sink]).collect();
    // Fisher and Yates.
    for last in (1..victims.len()).rev() {
        victims.swap(last, random.below(last as u64 + 1) as usize);
    }
    let began = Instant::now();
    let count = victims.len() as u32;
    for (at, victim) in victims.into_iter().enumerate() {
        // Spread over the load, each within its share of the time.
        let share = LOAD / (count + 1);
        let moment = share * (at as u32 + 1) + share.mul_f64(random.below(100) as f64 / 120.0);
        std::thread::sleep(moment.saturating_sub(began.elapsed()));
        match victim {
            Victim::Service => server = server.kill().start(),
            Victim::Database => database.crash(),
            Victim::Sink => {
                sink.kill();
                // Long enough for batches to fail.
                std::thread::sleep(Duration::from_millis(200 + random.below(1_000)));
                sink.start_again();
            }
        }
    }
    std::thread::sleep(LOAD.saturating_sub(began.elapsed()));
    server
}

/// The database that is captured.
trait Database: Sync {
    /// `kill -9`, and started again.
    fn crash(&self);

    /// Works for a moment, until it is done or the database is gone; answers whether it did anything.
    fn work(&self);
}

/// Lets the database work until told to stop.
fn load(database: &dyn Database, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        database.work();
    }
}

/// Waits until a last change has come through to the row state and to the replica.
fn drained(server: &Server, replica: &Postgres, row: &str, is_last: impl Fn(&serde_json::Value) -> bool, sql: &str) {
    until("the last change to be captured", || {
        let answer = server.get(row);
        (answer.status == 200 && is_last(&answer.json())).then_some(())
    });
    let newest = server.current_sequence();
    until("the replica to acknowledge everything", || {
        let status = server.get("/subscriptions/replica").expect(200).json();
        (status["acknowledgedSequence"].as_u64() >= Some(newest)).then_some(())
    });
    assert_eq!(replica.psql("postgres", sql), "t", "the replica has the last change");
}
