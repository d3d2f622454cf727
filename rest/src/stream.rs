//! Events as Server-Sent Events (`text/event-stream`).
//!
//! An event is a message of the default type, which `EventSource.onmessage` gets without being told of operations; its
//! id is its sequence number, its data the event as `GET /events` shows it, or in another format if that was asked for. JSON as we write it has no line break, so
//! one `data:` line holds it.
//!
//! A position is an id without data: no message for the page, but where the browser goes on after a break. So a reader
//! whose table is quiet does not fall behind what retention keeps.

use crate::envelope::{Format, Subject};
use crate::event::{EventRef, write_event};
use crate::{Problem, json};

/// The `Content-Type` of a stream.
pub const EVENT_STREAM: &str = "text/event-stream";

/// Writes an event; answers where its JSON begins. Two line breaks follow it.
pub fn write_stream_event(out: &mut Vec<u8>, event: &EventRef<'_>) -> usize {
    write_message(out, event.sequence, |out| write_event(out, event))
}

/// Writes an event in a format; answers where its JSON begins. Two line breaks follow it.
pub fn write_stream_envelope(out: &mut Vec<u8>, format: Format, subject: &Subject<'_>) -> usize {
    write_message(out, subject.event.sequence, |out| format.write(out, subject))
}

fn write_message(out: &mut Vec<u8>, sequence: u64, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    out.extend_from_slice(b"id: ");
    json::integer(out, sequence);
    out.extend_from_slice(b"\ndata: ");
    let begin = out.len();
    write(out);
    out.extend_from_slice(b"\n\n");
    begin
}

/// Writes a comment, which readers skip, and that everything up to and with this event has been sent.
pub fn write_stream_position(out: &mut Vec<u8>, comment: &str, sequence: u64) {
    out.extend_from_slice(b": ");
    out.extend_from_slice(comment.as_bytes());
    out.extend_from_slice(b"\nid: ");
    json::integer(out, sequence);
    out.extend_from_slice(b"\n\n");
}

/// Writes why the stream ends here.
pub fn write_stream_error(out: &mut Vec<u8>, problem: &Problem) {
    out.extend_from_slice(b"event: error\ndata: ");
    problem.write(out);
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Operation;
    use crate::golden::assert_golden;

    #[test]
    fn a_stream_reads_as_published() {
        let event = EventRef {
            sequence: 42,
            timestamp_ms: 1_699_380_000_000,
            table: "a\nb",
            operation: Operation::Insert,
            before: None,
            after: Some(br#"{"id":"u1","text":"one\ntwo"}"#),
            schema_version: 1,
            origin: None,
        };
        let mut out = Vec::new();
        write_stream_position(&mut out, "open", 41);
        let begin = write_stream_event(&mut out, &event);
        let mut json = Vec::new();
        write_event(&mut json, &event);
        assert_eq!(out[begin..out.len() - 2], json);
        write_stream_position(&mut out, "heartbeat", 50);
        write_stream_error(&mut out, &Problem::dropped(60));
        assert_golden("events.stream", &out);
    }
}
