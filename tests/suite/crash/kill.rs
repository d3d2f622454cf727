//! `kill -9` under load, again and again on the same folder.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::assert_consistent;
use cdc_tests::captured::{Captured, Tables, read_log};
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::http::{Connection, Request};
use cdc_tests::random::{Random, scramble};

const ROUNDS: u64 = 12;
const WRITERS: u64 = 8;

/// What one writer knows when its server is gone.
struct Account {
    /// The events it was answered.
    acknowledged: Vec<Captured>,
    /// The rows of the request that was never answered: captured whole or not at all, nobody can know.
    in_doubt: BTreeSet<String>,
}

#[test]
fn twelve_kills_under_eight_writers_lose_and_double_nothing() {
    let mut random = Random::seeded(2_026);
    let mut launch = Launch::new().options("--retention-events 1000000 --checkpoint-interval-ms 100");
    let mut known: Vec<Captured> = Vec::new();
    let mut rows = Tables::default();
    for round in 0..ROUNDS {
        let server = launch.start();
        // From a kill at the first answers to one with some thousands of writes since the last checkpoint.
        let enough = 20 + random.below(1 << (4 + round));
        let (accounts, killed) = write_until_killed(server, enough, round, &rows);

        let server = killed.start();
        let (log, tables) = assert_consistent(&server);
        assert!(log.len() >= known.len() && log[..known.len()] == known, "the kill changed what was there before");
        let mut unaccounted: BTreeSet<u64> = log[known.len()..].iter().map(|event| event.sequence).collect();
        for acknowledged in accounts.iter().flat_map(|account| &account.acknowledged) {
            assert!(unaccounted.remove(&acknowledged.sequence), "{acknowledged:?} is not there, or is there for two");
            assert_eq!(&log[acknowledged.sequence as usize - 1], acknowledged);
        }
        for sequence in unaccounted {
            let event = &log[sequence as usize - 1];
            let key = key(event);
            assert!(accounts.iter().any(|account| account.in_doubt.contains(&key)), "nobody wrote {event:?}");
        }

        launch = server.stop();
        launch.data().verify().expect_success();
        (known, rows) = (log, tables);
    }
    assert!(known.len() > 1_000, "the writers hardly wrote: {}", known.len());
}

fn write_until_killed(server: Server, enough: u64, round: u64, rows: &Tables) -> (Vec<Account>, Launch) {
    let answered = AtomicU64::new(0);
    let address = server.address();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let table = table_of(number);
                let prefix = format!("w{number}-");
                let mine = rows
                    .0
                    .get(&table)
                    .map(|rows| rows.keys().filter(|key| key.starts_with(&prefix)).cloned().collect());
                let writer = Writer {
                    random: Random::seeded(round * WRITERS + number),
                    table,
                    prefix: format!("{prefix}{round}-"),
                    keys: mine.unwrap_or_default(),
                    inserted: 0,
                };
                let answered = &answered;
                scope.spawn(move || writer.write(Connection::open(address), answered))
            })
            .collect();
        until("the writers to be answered often enough", || (answered.load(Ordering::Relaxed) >= enough).then_some(()));
        let launch = server.kill();
        (writers.into_iter().map(|writer| writer.join().unwrap()).collect(), launch)
    })
}

fn table_of(writer: u64) -> String {
    format!("table_{}", writer % 3)
}

fn key(event: &Captured) -> String {
    cdc_tests::captured::key_text(event.after.as_ref().or(event.before.as_ref()).unwrap(), "id")
}

/// Writes to rows that no other writer touches, so that it knows what must be there.
struct Writer {
    random: Random,
    table: String,
    prefix: String,
    keys: Vec<String>,
    inserted: u64,
}

impl Writer {
    fn write(mut self, mut connection: Connection, answered: &AtomicU64) -> Account {
        let mut account = Account { acknowledged: Vec::new(), in_doubt: BTreeSet::new() };
        loop {
            let (request, keys) = self.next_request();
            account.in_doubt = keys;
            let Ok(answer) = connection.exchange(&request) else { return account };
            let answer = answer.expect(200);
            account.acknowledged.push(Captured::of_write(answer.text()));
            account.in_doubt.clear();
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn next_request(&mut self) -> (Request, BTreeSet<String>) {
        let table = &self.table;
        let choice = self.random.below(10);
        if choice < 5 || self.keys.is_empty() {
            let key = format!("{}{}", self.prefix, self.inserted);
            self.inserted += 1;
            self.keys.push(key.clone());
            let text = "x".repeat(self.random.below(300) as usize);
            let body = format!(r#"{{"id":"{key}","n":{},"text":"{text}"}}"#, self.random.number());
            return (Request::post(&format!("/data/{table}"), body), BTreeSet::from([key]));
        }
        let index = self.random.below(self.keys.len() as u64) as usize;
        if choice < 8 {
            let key = self.keys[index].clone();
            let body = format!(r#"{{"n":{}}}"#, self.random.number());
            (Request::put(&format!("/data/{table}/{key}"), body), BTreeSet::from([key]))
        } else {
            let key = self.keys.swap_remove(index);
            (Request::delete(&format!("/data/{table}/{key}")), BTreeSet::from([key]))
        }
    }
}

#[test]
fn a_bulk_load_cut_off_by_a_kill_is_there_row_by_row_in_order() {
    let launch = Launch::new().options("--retention-events 1000000");
    let server = launch.start();
    let mut connection = server.connect();
    let head = Request::new("POST", "/data/t")
        .header("content-type", "application/x-ndjson")
        .header("content-length", "100000000");
    connection.send(&head.head()).unwrap();
    let rows: String = (0..20_000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    connection.send(rows.as_bytes()).unwrap();
    until("some of the load to be captured", || (server.current_sequence() > 0).then_some(()));
    let server = server.kill().start();
    let (log, _) = assert_consistent(&server);
    assert!(!log.is_empty(), "what a reader saw before the kill is there after it");
    for (index, event) in log.iter().enumerate() {
        assert_eq!(event.after, Some(format!(r#"{{"id":{index}}}"#)));
    }
}

/// What a writer of batches knows of its rows, all of which it gives the same number.
#[derive(Clone, Copy, Default)]
struct Numbers {
    /// The newest that was answered: no row may have a lower one.
    answered: u64,
    /// The newest that was tried: no row may have a higher one.
    tried: u64,
}

const BATCH: u64 = 50;

#[test]
fn kills_while_retention_drops_and_checkpoints_run_leave_every_row_as_it_was_answered() {
    let mut random = Random::seeded(7);
    // Without subscribers, which hold events until they are delivered: what is kept would change while it is looked at.
    let options = "--builtin-subscribers none --retention-events 500 --segment-bytes 64KiB --checkpoint-interval-ms 10";
    let mut launch = Launch::new().options(options);
    let mut writers = [Numbers::default(); 4];
    for _ in 0..6 {
        let server = launch.start();
        let (address, answers) = (server.address(), AtomicU64::new(0));
        let enough = 5 + random.below(60);
        thread::scope(|scope| {
            for (number, numbers) in writers.iter_mut().enumerate() {
                let answers = &answers;
                scope.spawn(move || write_batches(Connection::open(address), number, numbers, answers));
            }
            until("enough answers", || (answers.load(Ordering::Relaxed) >= enough).then_some(()));
            launch = server.kill();
        });
        // What a kill leaves is sound as it is, before a start repairs it.
        launch.data().verify().expect_success();
        let server = launch.start();
        for (number, numbers) in writers.iter_mut().enumerate() {
            let values = read_numbers(&server, number);
            let (lowest, highest) = (values.iter().min().copied(), values.iter().max().copied());
            assert!(lowest.unwrap_or(0) >= numbers.answered, "{lowest:?} where {} was answered", numbers.answered);
            assert!(
                highest.unwrap_or(0) <= numbers.tried,
                "{highest:?} where nobody wrote more than {}",
                numbers.tried
            );
            // A batch in doubt may be there in part: what is there now is what counts from here on.
            numbers.answered = lowest.unwrap_or(0);
        }
        assert_eq!(server.post("/replay", "").expect(200).json()["equal"], true);
        let oldest = server.get("/events?limit=1").expect(200).json()["oldestSequence"].as_u64().unwrap();
        let kept = read_log(&server, oldest - 1).len() as u64;
        assert_eq!(oldest + kept - 1, server.current_sequence());
        launch = server.kill();
    }
}

fn read_numbers(server: &Server, writer: usize) -> Vec<u64> {
    let answer = server.get(&format!("/snapshot/t{writer}"));
    if answer.status == 404 {
        return Vec::new();
    }
    let snapshot = answer.expect(200).json();
    snapshot["data"].as_array().unwrap().iter().map(|row| row["n"].as_u64().unwrap()).collect()
}

/// Writes the same rows over and over until the server is gone.
fn write_batches(mut connection: Connection, writer: usize, numbers: &mut Numbers, answers: &AtomicU64) {
    loop {
        numbers.tried += 1;
        let number = numbers.tried;
        let rows: Vec<String> = (0..BATCH)
            .map(|row| format!(r#"{{"id":{row},"n":{number},"noise":"{:016x}"}}"#, scramble(number * BATCH + row)))
            .collect();
        let request = Request::post(&format!("/data/t{writer}?upsert=true"), format!("[{}]", rows.join(",")));
        let Ok(answer) = connection.exchange(&request) else { return };
        assert_eq!(answer.expect(200).json()["captured"], BATCH);
        numbers.answered = number;
        answers.fetch_add(1, Ordering::Relaxed);
    }
}
