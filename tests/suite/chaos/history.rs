//! The log of a source, held to what a log has to be.

use std::collections::HashMap;

use cdc_tests::harness::Server;
use serde_json::Value;

/// What the log holds, when it is in order.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Events by table and operation.
    pub(super) counts: HashMap<(String, String), u64>,
}

impl History {
    pub(super) fn count(&self, table: &str, operation: &str) -> u64 {
        self.counts.get(&(table.to_owned(), operation.to_owned())).copied().unwrap_or(0)
    }
}

/// Reads the whole log, and fails where a sequence number is missing, a position comes twice or too late, a transaction
/// is torn, or an event does not begin where the one before it of the same row ended. `place` makes a position
/// comparable, and the same for two positions only if they are the same.
pub(super) fn check<P: Ord + std::fmt::Debug>(server: &Server, place: impl Fn(&str) -> P) -> History {
    let mut history = History::default();
    let mut after = 0;
    let mut last: Option<(P, String)> = None;
    let mut ended: std::collections::HashSet<String> = std::collections::HashSet::new();
    let mut rows: HashMap<(String, String), Option<Value>> = HashMap::new();
    loop {
        let page = server.get(&format!("/events?after={after}&limit=10000")).expect(200).json();
        let events = page["events"].as_array().expect("a page has events");
        if events.is_empty() {
            return history;
        }
        for event in events {
            let sequence = event["metadata"]["sequenceNumber"].as_u64().expect("an event has a place");
            assert_eq!(sequence, after + 1, "no sequence number is missing");
            after = sequence;
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let (table, operation) = (text("table"), text("operation"));
            *history.counts.entry((table.clone(), operation.clone())).or_default() += 1;
            if let Some(position) = event["metadata"]["position"].as_str() {
                let transaction = event["metadata"]["transaction"].as_str().unwrap_or_default().to_owned();
                let here = place(position);
                if let Some((before, running)) = &last {
                    assert!(*before < here, "event {sequence}: {here:?} comes after {before:?}");
                    if *running != transaction {
                        assert!(!ended.contains(&transaction), "event {sequence}: {transaction} is torn");
                        ended.insert(running.clone());
                    }
                }
                last = Some((here, transaction));
            }
            // Every row's images are a chain.
            let id = event["after"].as_object().or(event["before"].as_object()).map(|row| key(&table, row));
            if let Some(id) = id {
                let before = event.get("before").cloned();
                if let Some(known) = rows.get(&(table.clone(), id.clone())) {
                    assert_eq!(
                        known.as_ref(),
                        before.as_ref(),
                        "event {sequence} of {table} {id} begins where it ended"
                    );
                }
                rows.insert((table, id), event.get("after").cloned());
            }
        }
    }
}

/// The rows of these tests are keyed by `id`, but for pgbench's own.
fn key(table: &str, row: &serde_json::Map<String, Value>) -> String {
    let column = match table {
        "pgbench_accounts" => "aid",
        "pgbench_branches" => "bid",
        "pgbench_tellers" => "tid",
        _ => "id",
    };
    row.get(column).expect("a row has its key").to_string()
}
