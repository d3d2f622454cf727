//! Events as JSON: one by one, and in pages. Images pass through as they are.

use crate::envelope::{Format, Subject};
use crate::json;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The row came into being.
    Insert,
    /// The row changed.
    Update,
    /// The row is gone.
    Delete,
    /// Every row of the table is gone.
    Truncate,
}

impl Operation {
    /// Every operation.
    pub const ALL: &[Self] = &[Self::Insert, Self::Update, Self::Delete, Self::Truncate];

    /// The name as events show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
        }
    }
}

/// An event, borrowed from wherever it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// Its place in the log.
    pub sequence: u64,
    /// When it was captured, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Its table.
    pub table: &'a str,
    /// What happened.
    pub operation: Operation,
    /// The row before, as JSON. Must be JSON: it is copied as it is.
    pub before: Option<&'a [u8]>,
    /// The row after, as JSON. Must be JSON: it is copied as it is.
    pub after: Option<&'a [u8]>,
    /// The version of the table's schema that it was captured under.
    pub schema_version: u32,
    /// Where it came from, when not through our own door.
    pub origin: Option<OriginRef<'a>>,
}

/// Where an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginRef<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The source's transaction.
    pub transaction: Option<&'a str>,
    /// The source's position.
    pub position: Option<&'a str>,
    /// Whether it is part of an initial snapshot.
    pub snapshot: bool,
    /// When the source's transaction was committed, in milliseconds since 1970 by the source's clock.
    pub committed_at_ms: Option<u64>,
    /// Names of columns whose values the source did not tell and nobody knew: the image lacks them. As a JSON array
    /// of strings; none if there are none.
    pub unavailable: Option<&'a str>,
}

/// The source that events name that came through our own door; the seed's name for it.
pub(crate) const OWN_SOURCE: &str = "cdc-engine";

/// The id of an event: `evt_<timestamp>_<sequence in base 36>`.
pub fn event_id(timestamp_ms: u64, sequence: u64) -> String {
    let mut out = Vec::with_capacity(32);
    write_id(&mut out, timestamp_ms, sequence);
    out.into_iter().map(char::from).collect()
}

pub(crate) fn write_id(out: &mut Vec<u8>, timestamp_ms: u64, sequence: u64) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    out.extend_from_slice(b"evt_");
    json::integer(out, timestamp_ms);
    out.push(b'_');
    // 13 digits hold every u64.
    let mut digits = [0; 13];
    let mut first = digits.len();
    let mut rest = sequence;
    loop {
        first -= 1;
        digits[first] = DIGITS[(rest % 36) as usize];
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

/// How long an event becomes, or a little more, so that the buffer grows once: what is fixed comes to at most 260
/// bytes without an origin.
fn length(event: &EventRef<'_>) -> usize {
    260 + event.table.len() + event.before.map_or(0, <[u8]>::len) + event.after.map_or(0, <[u8]>::len)
}

/// Writes an event.
pub fn write_event(out: &mut Vec<u8>, event: &EventRef<'_>) {
    out.reserve(length(event));
    out.extend_from_slice(b"{\"id\":\"");
    write_id(out, event.timestamp_ms, event.sequence);
    out.extend_from_slice(b"\",\"operation\":\"");
    out.extend_from_slice(event.operation.as_str().as_bytes());
    out.extend_from_slice(b"\",\"table\":");
    json::string(out, event.table);
    out.extend_from_slice(b",\"timestamp\":");
    json::integer(out, event.timestamp_ms);
    if let Some(before) = event.before {
        out.extend_from_slice(b",\"before\":");
        out.extend_from_slice(before);
    }
    if let Some(after) = event.after {
        out.extend_from_slice(b",\"after\":");
        out.extend_from_slice(after);
    }
    out.extend_from_slice(b",\"metadata\":");
    write_metadata(out, event);
    out.push(b'}');
}

/// Writes the `metadata` of an event.
pub(crate) fn write_metadata(out: &mut Vec<u8>, event: &EventRef<'_>) {
    out.extend_from_slice(b"{\"sequenceNumber\":");
    json::integer(out, event.sequence);
    out.extend_from_slice(b",\"source\":");
    json::string(out, event.origin.map_or(OWN_SOURCE, |origin| origin.source));
    out.extend_from_slice(b",\"schemaVersion\":");
    json::integer(out, event.schema_version);
    if let Some(origin) = event.origin {
        if let Some(transaction) = origin.transaction {
            out.extend_from_slice(b",\"transaction\":");
            json::string(out, transaction);
        }
        if let Some(position) = origin.position {
            out.extend_from_slice(b",\"position\":");
            json::string(out, position);
        }
        if let Some(committed_at_ms) = origin.committed_at_ms {
            out.extend_from_slice(b",\"committedAt\":");
            json::integer(out, committed_at_ms);
        }
        if origin.snapshot {
            out.extend_from_slice(b",\"snapshot\":true");
        }
        if let Some(unavailable) = origin.unavailable {
            out.extend_from_slice(b",\"unavailable\":");
            out.extend_from_slice(unavailable.as_bytes());
        }
    }
    out.push(b'}');
}

/// Writes the answer to a write that was captured: `POST` of one row, `PUT`, `DELETE`.
pub fn write_captured(out: &mut Vec<u8>, event: &EventRef<'_>) {
    const BEGINNING: &[u8] = b"{\"success\":true,\"event\":";
    out.reserve(BEGINNING.len() + length(event) + 1);
    out.extend_from_slice(BEGINNING);
    write_event(out, event);
    out.push(b'}');
}

/// The answer to `GET /events`, event by event.
#[derive(Debug)]
#[must_use = "an answer without its end is not JSON"]
pub struct EventsWriter {
    count: u64,
}

impl EventsWriter {
    /// Begins the answer.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"{\"events\":[");
        Self { count: 0 }
    }

    /// Adds an event.
    pub fn event(&mut self, out: &mut Vec<u8>, event: &EventRef<'_>) {
        self.next(out);
        write_event(out, event);
    }

    /// Adds an event in a format. The page around it is the same for all of them.
    pub fn envelope(&mut self, out: &mut Vec<u8>, format: Format, subject: &Subject<'_>) {
        self.next(out);
        format.write(out, subject);
    }

    fn next(&mut self, out: &mut Vec<u8>) {
        if self.count > 0 {
            out.push(b',');
        }
        self.count += 1;
    }

    /// Ends the answer: what to ask after for the next page, and the oldest event that is kept.
    pub fn end(self, out: &mut Vec<u8>, next_after: u64, oldest: u64) {
        out.extend_from_slice(b"],\"count\":");
        json::integer(out, self.count);
        out.extend_from_slice(b",\"nextAfter\":");
        json::integer(out, next_after);
        out.extend_from_slice(b",\"oldestSequence\":");
        json::integer(out, oldest);
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    const INSERTED: EventRef<'static> = EventRef {
        sequence: 1,
        timestamp_ms: 1_699_380_000_000,
        table: "users",
        operation: Operation::Insert,
        before: None,
        after: Some(br#"{"id":"user_123","balance":1.10,"email":"john@example.com","name":"John Doe"}"#),
        schema_version: 1,
        origin: None,
    };

    fn updated() -> EventRef<'static> {
        EventRef {
            sequence: 36,
            operation: Operation::Update,
            before: INSERTED.after,
            after: Some(br#"{"id":"user_123","balance":1.10,"email":"john@example.com","name":"John Smith"}"#),
            ..INSERTED
        }
    }

    fn deleted() -> EventRef<'static> {
        EventRef {
            sequence: u64::MAX,
            operation: Operation::Delete,
            before: INSERTED.after,
            after: None,
            schema_version: 2,
            origin: Some(OriginRef {
                source: "postgres",
                transaction: Some("741"),
                position: Some("0/16B3748"),
                snapshot: false,
                committed_at_ms: None,
                unavailable: None,
            }),
            ..INSERTED
        }
    }

    fn truncated() -> EventRef<'static> {
        let origin = OriginRef {
            source: "a\"b",
            transaction: None,
            position: None,
            snapshot: true,
            committed_at_ms: Some(1_699_380_000_001),
            unavailable: Some(r#"["note"]"#),
        };
        EventRef { sequence: 37, operation: Operation::Truncate, after: None, origin: Some(origin), ..INSERTED }
    }

    #[test]
    fn a_write_is_answered_with_its_event() {
        for (name, event) in [("insert.json", INSERTED), ("update.json", updated()), ("delete.json", deleted())] {
            let mut out = Vec::new();
            write_captured(&mut out, &event);
            assert_golden(name, &out);
        }
    }

    #[test]
    fn a_page_counts_its_events_and_says_where_to_go_on() {
        let mut out = Vec::new();
        let mut page = EventsWriter::begin(&mut out);
        for event in [INSERTED, updated(), truncated(), deleted()] {
            page.event(&mut out, &event);
        }
        page.end(&mut out, 40, 1);
        assert_golden("events.json", &out);
    }

    #[test]
    fn a_page_may_be_empty() {
        let mut out = Vec::new();
        EventsWriter::begin(&mut out).end(&mut out, 0, 1);
        assert_golden("events-empty.json", &out);
    }

    #[test]
    fn ids_have_the_sequence_in_base_36() {
        assert_eq!(event_id(5, 0), "evt_5_0");
        assert_eq!(event_id(5, 35), "evt_5_z");
        assert_eq!(event_id(5, 36), "evt_5_10");
        assert_eq!(event_id(1_699_380_000_000, u64::MAX), "evt_1699380000000_3w5e11264sgsf");
    }

    #[test]
    fn what_is_reserved_is_enough() {
        let mut out = Vec::new();
        write_event(
            &mut out,
            &EventRef { timestamp_ms: u64::MAX, schema_version: u32::MAX, sequence: u64::MAX, ..updated() },
        );
        assert!(out.len() <= length(&updated()));
    }
}
