//! Events from a file: a JSON object on each line, as `cdc tail --json` and `/events` write them.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::AuthoringError;
use crate::store::{Event, Operation, Write};

/// What of a line is looked at. Nothing but the table is needed: whoever tries something out writes little.
#[derive(Deserialize)]
struct Line<'a> {
    table: String,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    timestamp: u64,
    #[serde(default)]
    key: Option<String>,
    #[serde(default, borrow)]
    before: Option<&'a RawValue>,
    #[serde(default, borrow)]
    after: Option<&'a RawValue>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    sequence_number: Option<u64>,
    #[serde(default)]
    schema_version: Option<u32>,
}

/// Reads events. Those without a sequence number get that of their line; without a key, the text of the member `id`.
pub(super) fn read(source: impl BufRead, path: &Path) -> Result<Vec<Event>, AuthoringError> {
    let mut events = Vec::new();
    for (at, line) in source.lines().enumerate() {
        let wrong = |reason: String| AuthoringError::NotAnEvent { path: path.to_owned(), line: at + 1, reason };
        let line = line.map_err(|source| AuthoringError::Unreadable { path: path.to_owned(), source })?;
        if line.trim().is_empty() {
            continue;
        }
        let parsed: Line<'_> = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
        let operation = match parsed.operation.as_deref().unwrap_or("INSERT").to_ascii_uppercase().as_str() {
            "INSERT" => Operation::Insert,
            "UPDATE" => Operation::Update,
            "DELETE" => Operation::Delete,
            "TRUNCATE" => Operation::Truncate,
            other => return Err(wrong(format!("operation is {other}; there are INSERT, UPDATE, DELETE and TRUNCATE"))),
        };
        let key = parsed.key.or_else(|| parsed.after.or(parsed.before).and_then(id)).unwrap_or_default();
        let image = |image: Option<&RawValue>| image.map(|image| Bytes::copy_from_slice(image.get().as_bytes()));
        events.push(Event {
            sequence: parsed.metadata.sequence_number.unwrap_or(at as u64 + 1),
            timestamp_ms: parsed.timestamp,
            write: Write {
                table: Arc::from(parsed.table),
                key: Bytes::from(key),
                operation,
                before: image(parsed.before),
                after: image(parsed.after),
                schema_version: parsed.metadata.schema_version.unwrap_or(1),
                origin: None,
                position: None,
            },
        });
    }
    Ok(events)
}

fn id(image: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Row {
        id: serde_json::Value,
    }
    match serde_json::from_str::<Row>(image.get()).ok()?.id {
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Event>, String> {
        super::read(text.as_bytes(), Path::new("e.ndjson")).map_err(|error| error.to_string())
    }

    #[test]
    fn events_are_read_as_they_are_written_elsewhere() {
        let line = r#"{"id":"evt_5_7","operation":"UPDATE","table":"t","timestamp":5,"before":{"id":1},"after":{"id":1,"n":1.00},"metadata":{"sequenceNumber":7,"source":"cdc-engine","schemaVersion":2}}"#;
        let events = read(line).expect("an event");
        assert_eq!((events[0].sequence, events[0].timestamp_ms, events[0].write.schema_version), (7, 5, 2));
        assert_eq!(events[0].write.after.as_deref(), Some(br#"{"id":1,"n":1.00}"#.as_slice()));
        assert_eq!(events[0].write.key, "1");
    }

    #[test]
    fn whoever_tries_something_out_writes_little() {
        let events = read("{\"table\":\"t\",\"after\":{\"id\":\"a\"}}\n\n{\"table\":\"t\",\"operation\":\"delete\"}\n");
        let events = events.expect("two events");
        assert_eq!((events[0].sequence, events[1].sequence), (1, 3));
        assert_eq!((&events[0].write.key[..], events[1].write.operation), (b"a".as_slice(), Operation::Delete));
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        assert_eq!(read("{\"table\":\"t\"}\n{").expect_err("no JSON").split(": ").next(), Some("e.ndjson:2"));
        assert!(read(r#"{"after":{}}"#).expect_err("no table").contains("table"));
        assert!(read(r#"{"table":"t","operation":"MERGE"}"#).expect_err("no operation").contains("MERGE"));
    }
}
