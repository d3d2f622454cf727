//! Envelopes: an event in the form that its consumer already reads.
//!
//! Pure: a [`Format`] and a [`Subject`] become [`Message`]s for sinks ([`Format::messages`]), or JSON for streams and
//! `GET /events?format=` ([`Format::write`]).

mod cloudevents;
mod debezium;
mod image;
mod position;
mod sequin;
#[cfg(test)]
mod tests;
mod time;

use std::borrow::Cow;

use crate::event::OWN_SOURCE;
use crate::{EventRef, Operation, TableSchema, write_event};
use cloudevents::Mode;
use debezium::Schemas;

/// The media type of one CloudEvent.
const CLOUDEVENTS_JSON: &str = "application/cloudevents+json";

/// How events are written for who reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `native`: as `GET /events` shows them.
    #[default]
    Native,
    /// `debezium`: Debezium's change event, payload only (`schemas.enable=false`).
    Debezium,
    /// `debezium-schema`: the same with `schema` beside `payload`, in key and value.
    DebeziumSchema,
    /// `cloudevents`: CloudEvents 1.0, structured mode.
    CloudEvents,
    /// `cloudevents-binary`: attributes as headers, the data as the body. For sinks only.
    CloudEventsBinary,
    /// `sequin`: Sequin's change message.
    Sequin,
}

/// An event with what envelopes tell beside it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The event.
    pub event: EventRef<'a>,
    /// Its id.
    pub id: &'a str,
    /// The row's key as events have it: a single key column's text as it is; of several the texts with `%` and `/` in
    /// them as `%25` and `%2F`, joined by `/`. Empty for a truncate.
    pub key: &'a str,
    /// The schema that the event was captured under.
    pub schema: &'a TableSchema,
    /// The id of the subscription that it is written for; none in streams and pages, which are the same for everybody.
    pub subscription: Option<&'a str>,
}

/// What a consumer gets: in brokers a record, over HTTP a body with headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What records are partitioned and compacted by; none for a truncate.
    pub key: Option<Vec<u8>>,
    /// None is a tombstone: everything with this key may be forgotten.
    pub value: Option<Vec<u8>>,
    /// Beside `content-type`, which `content_type` is. Names are as HTTP has them, `ce-id`; Kafka's binding of
    /// CloudEvents spells the same `ce_id`. Values are plain text: over HTTP they go through [`http_header_value`].
    pub headers: Vec<(&'static str, String)>,
    /// The value's media type; also of a tombstone, which has none.
    pub content_type: &'static str,
}

/// Whether a deleted row gets a second message that has its key and no value, by which Kafka's log compaction forgets
/// it. Only Debezium's formats have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tombstones {
    /// Deletes are one message: for receivers that do not compact, or cannot take a message without a value.
    #[default]
    Off,
    /// Deletes are two messages, as with Debezium's `tombstones.on.delete=true`.
    On,
}

impl Format {
    /// Every format.
    pub const ALL: &'static [Self] =
        &[Self::Native, Self::Debezium, Self::DebeziumSchema, Self::CloudEvents, Self::CloudEventsBinary, Self::Sequin];

    /// The formats of streams and pages, which have no headers of their own for each event.
    pub const READABLE: &'static [Self] =
        &[Self::Native, Self::Debezium, Self::DebeziumSchema, Self::CloudEvents, Self::Sequin];

    /// The format of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.as_str() == name)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Debezium => "debezium",
            Self::DebeziumSchema => "debezium-schema",
            Self::CloudEvents => "cloudevents",
            Self::CloudEventsBinary => "cloudevents-binary",
            Self::Sequin => "sequin",
        }
    }

    /// The media type of one value.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::CloudEvents => CLOUDEVENTS_JSON,
            _ => crate::JSON,
        }
    }

    /// The media type of several values in one JSON array, which [`write_batch`] writes; none for the format whose
    /// values are nothing without their headers.
    pub fn batch_content_type(self) -> Option<&'static str> {
        match self {
            Self::CloudEvents => Some("application/cloudevents-batch+json"),
            Self::CloudEventsBinary => None,
            _ => Some(crate::JSON),
        }
    }

    /// Adds an event's messages: one, or two for a delete with [`Tombstones::On`].
    ///
    /// The key is the row's key as text, but for Debezium's formats an object of the key's columns. A truncate has none.
    pub fn messages(self, subject: &Subject<'_>, tombstones: Tombstones, out: &mut Vec<Message>) {
        match self {
            Self::Debezium => debezium::messages(subject, Schemas::Left, tombstones, out),
            Self::DebeziumSchema => debezium::messages(subject, Schemas::Shown, tombstones, out),
            Self::CloudEvents => cloudevents::message(subject, Mode::Structured, out),
            Self::CloudEventsBinary => cloudevents::message(subject, Mode::Binary, out),
            Self::Native | Self::Sequin => {
                let mut value = Vec::new();
                self.write(&mut value, subject);
                let content_type = self.content_type();
                out.push(Message { key: subject.text_key(), value: Some(value), headers: Vec::new(), content_type });
            }
        }
    }

    /// Writes an event as one JSON value, without line breaks of our own. [`Format::CloudEventsBinary`] becomes what
    /// [`Format::CloudEvents`] is, because its attributes have no place here.
    pub fn write(self, out: &mut Vec<u8>, subject: &Subject<'_>) {
        match self {
            Self::Native => write_event(out, &subject.event),
            Self::Debezium => debezium::write(out, subject, Schemas::Left),
            Self::DebeziumSchema => debezium::write(out, subject, Schemas::Shown),
            Self::CloudEvents | Self::CloudEventsBinary => cloudevents::write(out, subject),
            Self::Sequin => sequin::write(out, subject),
        }
    }
}

impl<'a> Subject<'a> {
    /// Whether the row was read from its table, and not a change to it.
    fn is_read(&self) -> bool {
        self.event.after.is_some() && self.event.origin.is_some_and(|origin| origin.snapshot)
    }

    /// The name of the table's source. Not the origin's: a row of a subscription's own first snapshot has another.
    fn source(&self) -> &'a str {
        self.schema.relation.as_ref().map_or(OWN_SOURCE, |relation| &relation.source)
    }

    /// The table's name in its database.
    fn relation_name(&self) -> &'a str {
        self.schema.relation.as_ref().map_or(self.event.table, |relation| &relation.name)
    }

    /// When the change was committed, or when it was captured if nobody tells.
    fn committed_at_ms(&self) -> u64 {
        self.event.origin.and_then(|origin| origin.committed_at_ms).unwrap_or(self.event.timestamp_ms)
    }

    /// Names of columns whose values nobody knows.
    fn unavailable(&self) -> Vec<Cow<'a, str>> {
        let names = self.event.origin.and_then(|origin| origin.unavailable);
        names.and_then(|names| serde_json::from_str(names).ok()).unwrap_or_default()
    }

    /// The row's key as text.
    fn text_key(&self) -> Option<Vec<u8>> {
        (self.event.operation != Operation::Truncate).then(|| self.key.as_bytes().to_vec())
    }
}

/// Writes values as one JSON array, for receivers that take several at once.
pub fn write_batch<'a>(out: &mut Vec<u8>, values: impl IntoIterator<Item = &'a [u8]>) {
    out.push(b'[');
    crate::json::list(out, values, |out, value| out.extend_from_slice(value));
    out.push(b']');
}

/// The value of a header as CloudEvents' HTTP binding spells it (section 3.1.3.2): space, `"`, `%` and everything that
/// is not printable ASCII percent-encoded.
pub fn http_header_value(text: &str) -> Cow<'_, str> {
    const ENCODED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'%');
    percent_encoding::utf8_percent_encode(text, ENCODED).into()
}
