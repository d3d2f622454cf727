//! Events as a client reads them, and the rows that they add up to: the test's own, independent replay.

use std::collections::BTreeMap;

use crate::harness::Server;
use crate::json::{Members, elements};

/// One event of `/events`, its images as texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    pub sequence: u64,
    pub id: String,
    pub operation: String,
    pub table: String,
    pub timestamp: u64,
    pub before: Option<String>,
    pub after: Option<String>,
    pub schema_version: u64,
}

impl Captured {
    /// Takes an event's text; fails the test unless it has exactly the documented members in the documented order.
    #[track_caller]
    pub fn of(text: &str) -> Captured {
        let event = Members::of(text);
        let images: &[&str] = match event.string("operation").as_str() {
            "INSERT" => &["after"],
            "UPDATE" => &["before", "after"],
            "DELETE" => &["before"],
            other => panic!("an operation that nobody asked for: {other}"),
        };
        let names = [&["id", "operation", "table", "timestamp"], images, &["metadata"]].concat();
        assert_eq!(event.names(), names, "{text}");
        let metadata = Members::of(event.text("metadata"));
        assert_eq!(metadata.names(), ["sequenceNumber", "source", "schemaVersion"], "{text}");
        assert_eq!(metadata.string("source"), "cdc-engine");
        let (sequence, timestamp) = (metadata.number("sequenceNumber"), event.number("timestamp"));
        assert_eq!(event.string("id"), format!("evt_{timestamp}_{}", base_36(sequence)), "{text}");
        Captured {
            sequence,
            id: event.string("id"),
            operation: event.string("operation"),
            table: event.string("table"),
            timestamp,
            before: event.get("before").map(String::from),
            after: event.get("after").map(String::from),
            schema_version: metadata.number("schemaVersion"),
        }
    }

    /// The event in the answer to a single write.
    #[track_caller]
    pub fn of_write(answer: &str) -> Captured {
        let answer = Members::of(answer);
        assert_eq!(answer.names(), ["success", "event"]);
        assert_eq!(answer.text("success"), "true");
        Captured::of(answer.text("event"))
    }
}

fn base_36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(char::from_digit((number % 36) as u32, 36).expect("a digit below 36"));
        number /= 36;
    }
    digits.iter().rev().collect()
}

/// One answer of `/events`.
#[derive(Clone, Debug)]
pub struct Page {
    pub events: Vec<Captured>,
    pub next_after: u64,
    pub oldest: u64,
}

impl Page {
    #[track_caller]
    pub fn of(text: &str) -> Page {
        let page = Members::of(text);
        assert_eq!(page.names(), ["events", "count", "nextAfter", "oldestSequence"]);
        let events: Vec<Captured> = elements(page.text("events")).iter().map(|event| Captured::of(event)).collect();
        assert_eq!(page.number("count"), events.len() as u64);
        Page { events, next_after: page.number("nextAfter"), oldest: page.number("oldestSequence") }
    }

    /// The sequence numbers on the page.
    pub fn sequences(&self) -> Vec<u64> {
        self.events.iter().map(|event| event.sequence).collect()
    }
}

/// Reads the log from the event after `after` to its end, page by page; fails the test on a gap, on a repetition, and
/// on time that goes backwards.
#[track_caller]
pub fn read_log(server: &Server, after: u64) -> Vec<Captured> {
    let mut connection = server.connect();
    let mut events: Vec<Captured> = Vec::new();
    let mut next = after;
    loop {
        let request = crate::http::Request::get(&format!("/events?after={next}&limit=5000"));
        let answer = connection.exchange(&request).expect("a page is answered").expect(200);
        let page = Page::of(answer.text());
        for event in page.events {
            let newest = events.last();
            assert_eq!(event.sequence, newest.map_or(after, |newest| newest.sequence) + 1, "a gap or a repetition");
            assert!(newest.is_none_or(|newest| newest.timestamp <= event.timestamp), "time went backwards: {event:?}");
            events.push(event);
        }
        if page.next_after == next {
            return events;
        }
        next = page.next_after;
    }
}

/// The rows of all tables by key, in the byte order of the keys, as snapshots have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables(pub BTreeMap<String, BTreeMap<String, String>>);

impl Tables {
    /// Applies events in order; fails the test when an event does not fit the rows before it. `key_column` names a
    /// table's key column.
    #[track_caller]
    pub fn apply(&mut self, events: &[Captured], key_column: impl Fn(&str) -> &'static str) {
        for event in events {
            let rows = self.0.entry(event.table.clone()).or_default();
            let column = key_column(&event.table);
            let key = key_text(event.after.as_ref().or(event.before.as_ref()).expect("an event has an image"), column);
            assert_eq!(rows.get(&key), event.before.as_ref(), "the row before event {}", event.sequence);
            match &event.after {
                Some(image) => rows.insert(key, image.clone()),
                None => rows.remove(&key),
            };
        }
    }

    /// The images of a table in snapshot order.
    pub fn images(&self, table: &str) -> Vec<String> {
        self.0.get(table).map(|rows| rows.values().cloned().collect()).unwrap_or_default()
    }
}

/// A row's key as text: what a string says, or a number's digits.
#[track_caller]
pub fn key_text(image: &str, column: &str) -> String {
    let row = Members::of(image);
    let value = row.text(column);
    serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_string())
}

/// A table's rows as `/snapshot` has them, with the sequence number that they belong to.
#[track_caller]
pub fn read_snapshot(server: &Server, target: &str) -> (Vec<String>, u64) {
    let answer = server.get(target).expect(200);
    let snapshot = Members::of(answer.text());
    assert_eq!(snapshot.names(), ["table", "timestamp", "data", "schema", "sequenceNumber"]);
    (elements(snapshot.text("data")), snapshot.number("sequenceNumber"))
}

/// A table's rows as the replica has them.
#[track_caller]
pub fn read_replica(server: &Server, table: &str) -> Vec<String> {
    let answer = server.get(&format!("/replica/{table}")).expect(200);
    let replica = Members::of(answer.text());
    assert_eq!(replica.names(), ["table", "data", "count"]);
    let rows = elements(replica.text("data"));
    assert_eq!(replica.number("count"), rows.len() as u64);
    rows
}
