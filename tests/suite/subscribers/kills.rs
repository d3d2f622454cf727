//! Kills during delivery: nothing acknowledged is lost, and only what was not acknowledged comes again.

use std::collections::HashMap;

use cdc_tests::guests;
use cdc_tests::harness::{Launch, until};
use cdc_tests::recorder::Recorder;
use serde_json::json;

use super::{caught_up, counter, load, subscribe, upload};

const EVENTS: u64 = 100_000;
const KILLS: usize = 6;
const BATCH: usize = 256;

#[test]
fn after_kills_every_event_has_arrived_in_order_and_only_unacknowledged_batches_came_twice() {
    let recorder = Recorder::start();
    let launch = Launch::new().options("--builtin-subscribers none --retention-events unlimited");
    let mut server = launch.start();
    upload(&server, "hostile", &guests::rust("hostile")).expect(200);
    let mut definition = counter(&recorder);
    definition["batch"] = json!({"maxEvents": BATCH});
    subscribe(&server, "s", &definition);
    for portion in 0..10 {
        load(&server, "t", portion * EVENTS / 10, EVENTS / 10);
    }
    for kill in 1..=KILLS {
        // At different moments of delivery, each well before the end.
        let wanted = EVENTS as usize * kill / (KILLS + 2);
        until("more to be delivered", || (recorder.sequences().len() >= wanted).then_some(()));
        server = server.kill().start();
    }
    caught_up(&server, "s");

    let batches = recorder.batches();
    // Within each life of the service batches go on in order; a new life begins at most one batch earlier.
    let mut newest = 0;
    let mut restarts = 0;
    let mut seen: HashMap<u64, u32> = HashMap::new();
    for batch in &batches {
        assert!(batch.windows(2).all(|pair| pair[1] == pair[0] + 1), "a batch is a run of the log");
        let first = batch[0];
        if first <= newest {
            restarts += 1;
            assert!(newest - first < BATCH as u64, "event {first} came again after {newest}");
        } else {
            assert_eq!(first, newest + 1, "nothing is left out");
        }
        newest = newest.max(*batch.last().unwrap());
        for sequence in batch {
            *seen.entry(*sequence).or_default() += 1;
        }
    }
    assert_eq!(newest, EVENTS);
    assert_eq!(seen.len() as u64, EVENTS);
    assert!(restarts <= KILLS, "{restarts} batches came again after {KILLS} kills");
    assert!(seen.values().all(|count| *count <= 2));
}
