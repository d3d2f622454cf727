//! Envelopes: an event in the form that its consumer already reads.
//!
//! Pure: a [`Format`] and a [`Subject`] become [`Message`]s, for sinks, streams and `GET /events?format=` alike.

use crate::{EventRef, TableSchema};

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
    /// The row's key as events have it: the key columns' text, `%` and `/` in them percent-encoded, joined by `/`.
    /// Empty for a truncate.
    pub key: &'a str,
    /// The schema that the event was captured under.
    pub schema: &'a TableSchema,
}

/// What a consumer gets: in brokers a record, over HTTP a body with headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What records are partitioned and compacted by; none for a truncate.
    pub key: Option<Vec<u8>>,
    /// None is a tombstone: everything with this key may be forgotten.
    pub value: Option<Vec<u8>>,
    /// Beside `content-type`, which `content_type` is.
    pub headers: Vec<(&'static str, String)>,
    /// The value's media type.
    pub content_type: &'static str,
}
