//! CloudEvents 1.0 (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>) in JSON and binary mode, with
//! the extensions Sequence and Partitioning.
//!
//! | attribute | value |
//! | --- | --- |
//! | `id` | the event's id |
//! | `source` | `/cdc/` and the source's name, percent-encoded |
//! | `type` | `dev.cdc.row.inserted`, `.updated`, `.deleted`, `.read`; `dev.cdc.table.truncated` |
//! | `subject` | the table, `/`, the row's key; of a truncate the table |
//! | `time` | when the change was committed, where the source tells; else when it was captured |
//! | `datacontenttype` | `application/json` |
//! | `sequence` | the event's sequence number, 20 digits |
//! | `partitionkey` | the row's key; of a truncate the table |
//!
//! `data` has `operation`, `table`, `key`, `before`, `after` and `metadata` as `GET /events` has them; `before`, `after`
//! and `key` are null where there is none.

use std::borrow::Cow;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Message, Subject, time};
use crate::{Operation, event, json};

/// Which mode of the binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Structured,
    Binary,
}

/// Adds an event's message.
pub(super) fn message(subject: &Subject<'_>, mode: Mode, out: &mut Vec<Message>) {
    let mut value = Vec::new();
    let (headers, content_type) = match mode {
        Mode::Structured => {
            write(&mut value, subject);
            (Vec::new(), super::CLOUDEVENTS_JSON)
        }
        Mode::Binary => {
            write_data(&mut value, subject);
            (attributes(subject).map(|(name, text)| (name, text.into_owned())).to_vec(), crate::JSON)
        }
    };
    out.push(Message { key: subject.text_key(), value: Some(value), headers, content_type });
}

/// Writes an event in structured mode.
pub(super) fn write(out: &mut Vec<u8>, subject: &Subject<'_>) {
    for (at, (name, text)) in attributes(subject).iter().enumerate() {
        out.push(if at == 0 { b'{' } else { b',' });
        // Headers have a prefix that members have not.
        json::string(out, name.strip_prefix("ce-").unwrap_or(name));
        out.push(b':');
        json::string(out, text);
    }
    out.extend_from_slice(b",\"datacontenttype\":\"application/json\",\"data\":");
    write_data(out, subject);
    out.push(b'}');
}

/// Every attribute but `datacontenttype`, which is a header of its own name.
fn attributes<'a>(subject: &Subject<'a>) -> [(&'static str, Cow<'a, str>); 8] {
    let event = &subject.event;
    let place = match subject.key {
        "" => event.table.to_owned(),
        key => format!("{}/{key}", event.table),
    };
    let kind = match event.operation {
        Operation::Truncate => "dev.cdc.table.truncated",
        Operation::Delete => "dev.cdc.row.deleted",
        _ if subject.is_read() => "dev.cdc.row.read",
        Operation::Insert => "dev.cdc.row.inserted",
        Operation::Update => "dev.cdc.row.updated",
    };
    let partition = if subject.key.is_empty() { event.table } else { subject.key };
    [
        ("ce-specversion", "1.0".into()),
        ("ce-id", subject.id.into()),
        ("ce-source", format!("/cdc/{}", utf8_percent_encode(subject.source(), UNRESERVED_KEPT)).into()),
        ("ce-type", kind.into()),
        ("ce-subject", without_controls(Cow::Owned(place))),
        ("ce-time", time::rfc3339(subject.committed_at_ms()).into()),
        ("ce-sequence", padded_sequence(event.sequence).into()),
        ("ce-partitionkey", without_controls(Cow::Borrowed(partition))),
    ]
}

/// 20 digits, which are enough for every sequence number, so that their texts have the numbers' order.
fn padded_sequence(sequence: u64) -> String {
    let mut out = "00000000000000000000".to_owned();
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(sequence);
    out.replace_range(20 - digits.len().., digits);
    out
}

/// What RFC 3986 calls unreserved stays as it is.
const UNRESERVED_KEPT: &percent_encoding::AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Attributes must not hold control characters and noncharacters (section "Type System"), which keys may:
/// percent-encoded they can be told apart.
fn without_controls(text: Cow<'_, str>) -> Cow<'_, str> {
    let is_allowed =
        |c: char| !c.is_control() && !matches!(u32::from(c), 0xFDD0..=0xFDEF) && u32::from(c) & 0xFFFE != 0xFFFE;
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || text.chars().all(is_allowed) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_allowed(c) {
            out.push(c);
        } else {
            out.extend(utf8_percent_encode(c.encode_utf8(&mut [0; 4]), NON_ALPHANUMERIC));
        }
    }
    Cow::Owned(out)
}

fn write_data(out: &mut Vec<u8>, subject: &Subject<'_>) {
    let event = &subject.event;
    out.reserve(512 + event.before.map_or(0, <[u8]>::len) + event.after.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"operation\":");
    json::string(out, event.operation.as_str());
    out.extend_from_slice(b",\"table\":");
    json::string(out, event.table);
    out.extend_from_slice(b",\"key\":");
    match event.operation {
        Operation::Truncate => out.extend_from_slice(b"null"),
        _ => json::string(out, subject.key),
    }
    for (name, image) in [(",\"before\":", event.before), (",\"after\":", event.after)] {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(image.unwrap_or(b"null"));
    }
    out.extend_from_slice(b",\"metadata\":");
    event::write_metadata(out, event);
    out.push(b'}');
}
