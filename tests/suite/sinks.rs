//! Sinks through the whole service: the receivers stand behind a proxy that injects faults, the service is killed again and
//! again, and afterwards each receiver has exactly the expected set. What a sink does by itself is tested in `sinks/`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;

use cdc_test_servers::{Nats, Postgres, Proxy, Redis};
use cdc_tests::harness::{Data, Launch, Output, Server, cdc, until};
use cdc_tests::http::Request;
use cdc_tests::random::Random;
use cdc_tests::recorder::Recorder;
use serde_json::Value;

/// Rows that are written to.
const KEYS: u64 = 20;
/// Events of one round.
const EVENTS: u64 = 120;
/// Rounds: every fault four times, in two of them with a kill of the service.
const ROUNDS: usize = 16;

/// What a receiver holds of one event, in the order in which it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    /// By which a consumer tells repetitions: the message's own id.
    id: String,
    key: u64,
    n: u64,
}

impl Held {
    fn of(id: &str, event: &[u8]) -> Held {
        let event: Value = serde_json::from_slice(event).expect("an event is JSON");
        let number = |member: &str| event["after"][member].as_u64().expect("a number");
        Held { id: id.to_owned(), key: number("id"), n: number("n") }
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Refused,
    Hanging,
    CutInABatch,
    AnswersLost,
}

fn configured(subscriber: &str) -> Launch {
    Launch::configured(&format!(
        "retention-events = \"unlimited\"\nbuiltin-subscribers = \"none\"\n\n[subscriptions.out]\n\
         start = \"beginning\"\nsubscriber = {{ {subscriber} }}\nretry = {{ initialMs = 10, maxMs = 50 }}\n"
    ))
}

/// Writes to all rows in turn while the faults come and go, and answers how many events there are. `n` counts a row's.
fn through_faults(subscriber: &str, proxy: &Proxy, seed: u64) -> u64 {
    let mut random = Random::seeded(seed);
    let mut server = configured(subscriber).start();
    let mut written = 0;
    for round in 0..ROUNDS {
        let fault = [Fault::Refused, Fault::CutInABatch, Fault::AnswersLost, Fault::Hanging][round % 4];
        let retries = || status(&server)["sinceStart"]["retries"].as_u64().expect("retries are counted");
        let before = retries();
        match fault {
            Fault::Refused => proxy.refuse(),
            Fault::Hanging => proxy.hang(),
            Fault::CutInABatch => proxy.cut_after(2_000 + random.below(20_000)),
            Fault::AnswersLost => proxy.swallow_answers(),
        }
        write(&server, written, EVENTS);
        written += EVENTS;
        // The fault has hurt at least once; it may be over by now.
        until(&format!("{fault:?} to be noticed"), || (retries() > before).then_some(()));
        if round % 8 >= 4 {
            server = server.kill().start();
        }
        proxy.pass();
        // In some rounds what has gathered meets the next fault.
        if random.below(2) == 0 {
            until_acknowledged(&server, written);
        }
    }
    until_acknowledged(&server, written);
    assert_eq!(status(&server)["deadLetters"]["count"].as_u64().unwrap_or(0), 0, "{}", status(&server));
    server.stop();
    written
}

fn write(server: &Server, from: u64, events: u64) {
    let mut connection = server.connect();
    for at in from..from + events {
        let (key, n) = (at % KEYS, at / KEYS);
        let row = format!("{{\"id\":{key},\"n\":{n}}}");
        let request = match n {
            0 => Request::post("/data/items", row),
            _ => Request::put(&format!("/data/items/{key}"), row),
        };
        connection.exchange(&request).expect("a write is answered").expect(200);
    }
}

fn status(server: &Server) -> Value {
    server.get("/subscriptions/out").expect(200).json()
}

fn until_acknowledged(server: &Server, sequence: u64) {
    until("everything to be acknowledged", || {
        (status(server)["acknowledgedSequence"].as_u64() == Some(sequence)).then_some(())
    });
}

/// The expected set and no more, each row's events in their order. Answers how many came twice; a repetition has the id of
/// what it repeats, and nothing of its row is skipped behind it.
fn assert_exactly(written: u64, held: &[Held]) -> usize {
    let mut of_rows: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut ids: BTreeMap<&str, &Held> = BTreeMap::new();
    let mut repetitions = 0;
    for event in held {
        let row = of_rows.entry(event.key).or_default();
        match ids.insert(&event.id, event) {
            None => assert_eq!(event.n, row.iter().max().map_or(0, |n| n + 1), "a gap in {}: {row:?}", event.key),
            Some(first) => {
                assert_eq!(first, event, "an id that means two events");
                repetitions += 1;
            }
        }
        let last = row.last().copied();
        assert!(last.is_none_or(|last| event.n <= last + 1), "after a repetition {last:?} came {}", event.n);
        row.push(event.n);
    }
    let expected: BTreeSet<(u64, u64)> = (0..written).map(|at| (at % KEYS, at / KEYS)).collect();
    let found: BTreeSet<(u64, u64)> = held.iter().map(|event| (event.key, event.n)).collect();
    assert!(expected == found, "missing: {:?}", expected.difference(&found).collect::<Vec<_>>());
    assert_eq!(ids.len() as u64, written);
    repetitions
}

#[test]
fn redis_has_every_event_once_and_in_order_whatever_fails() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let sink = format!("sink = \"redis\", url = \"redis://127.0.0.1:{}\", timeoutMs = 300", proxy.port());
    let written = through_faults(&sink, &proxy, 11);
    let held = redis.entries("cdc.items").into_iter().map(|fields| {
        let fields: HashMap<String, String> = fields.into_iter().collect();
        Held::of(&fields["id"], fields["value"].as_bytes())
    });
    let held: Vec<Held> = held.collect();
    assert_eq!(assert_exactly(written, &held), 0, "Redis may have nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn jetstream_has_every_event_once_and_in_order_whatever_fails() {
    let nats = Nats::start();
    let proxy = Proxy::to(nats.port());
    let sink = format!(
        "sink = \"nats\", servers = [\"nats://127.0.0.1:{}\"], stream = \"CDC\", createStream = {{}}, timeoutMs = 300",
        proxy.port()
    );
    let written = tokio::task::block_in_place(|| through_faults(&sink, &proxy, 12));
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let stream = jetstream.get_stream("CDC").await.unwrap();
    let mut held = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        held.push(Held::of(message.headers.get("id").unwrap().as_str(), &message.payload));
    }
    assert_eq!(assert_exactly(written, &held), 0, "within the window nothing is there twice");
}

#[test]
fn a_webhook_has_every_event_in_order_and_repetitions_have_the_same_id() {
    let recorder = Recorder::start();
    let proxy = Proxy::to(recorder.port());
    let sink = format!("sink = \"webhook\", url = \"http://127.0.0.1:{}/items\", timeoutMs = 300", proxy.port());
    let written = through_faults(&sink, &proxy, 13);
    let held: Vec<Held> = recorder
        .exchanges()
        .iter()
        .map(|exchange| Held::of(exchange.header("webhook-id").expect("every request has one"), &exchange.body))
        .collect();
    // Answers were lost, so some came again: otherwise this would have tested nothing.
    assert!(assert_exactly(written, &held) > 0);
}

#[test]
fn check_says_in_plain_words_what_is_missing_before_sinks_work() {
    let (redis, postgres) = (Redis::with(&["--requirepass", "open-sesame"]), Postgres::start());
    let down = Proxy::to(1);
    down.refuse();
    let data = Data::new();
    let file = data.beside("cdc.toml");
    let text = format!(
        "[subscriptions.good]\nsubscriber = {{ sink = \"redis\", url = \"{redis}\", password = \"open-sesame\" }}\n\
         [subscriptions.locked]\nsubscriber = {{ sink = \"redis\", url = \"{redis}\", password = \"guessed-it\" }}\n\
         [subscriptions.down]\nsubscriber = {{ sink = \"nats\", servers = [\"nats://127.0.0.1:{down}\"] }}\n\
         [subscriptions.bare]\ntables = [\"items\"]\nsubscriber = {{ sink = \"postgres\", url = \"{postgres}\" }}\n",
        redis = redis.url(),
        down = down.port(),
        postgres = postgres.url("postgres"),
    );
    std::fs::write(&file, text).unwrap();
    let check =
        |arguments: &[&str]| Output::of(Command::new(cdc()).arg("check").args(arguments).arg("--config").arg(&file));
    let all = check(&[]);
    assert_eq!(all.status.code(), Some(1), "{all:?}");
    let said = |subscription: &str| {
        let (_, rest) = all.stdout.split_once(&format!("subscription {subscription} ")).expect("each is named");
        rest.split("\nsubscription ").next().unwrap_or_default().to_owned()
    };
    assert!(!said("good").contains("missing  "), "{}", all.stdout);
    assert!(said("locked").contains("Password authentication failed"), "{}", all.stdout);
    assert!(said("down").contains(&format!("127.0.0.1:{}", down.port())), "{}", all.stdout);
    assert!(said("bare").contains("CREATE TABLE"), "{}", all.stdout);
    assert!(!format!("{all:?}").contains("guessed-it") && !format!("{all:?}").contains(Postgres::PASSWORD), "{all:?}");
    assert_eq!(check(&["good"]).status.code(), Some(0));
}
