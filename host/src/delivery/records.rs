//! What the store keeps of a subscription, as documents of these collections:
//!
//! | collection | key | value |
//! | --- | --- | --- |
//! | `subscriptions` | id | [`Definition`], JSON |
//! | `progress` | id, `/`, lane | [`Progress`], JSON |
//! | `dead/<id>` | sequence number, 8 bytes big-endian, then the row's table and key for rows of a snapshot | [`DeadLetter`], JSON |
//! | `keyvalue/<id>` | the guest's key | the guest's value |
//!
//! Where a lane stands is a cursor of the store, `<id>/<lane>`, because cursors hold back retention.

use std::sync::Arc;

use bytes::Bytes;
use cdc_rest::{SubscriptionId, SubscriptionSpec};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::deps::now_ms;
use crate::guest::Usage;
use crate::store::{Document, Event, Operation, Origin, Sequence, Write};

/// The collection of definitions.
pub(super) const DEFINITIONS: &str = "subscriptions";
/// The collection of what lanes have noted.
pub(super) const PROGRESS: &str = "progress";

/// A definition, and what was decided when it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Definition {
    /// The definition as `PUT /subscriptions/:id` takes it.
    pub(super) spec: Box<RawValue>,
    /// Whether it stands in the configuration, which then is where it is changed.
    pub(super) is_declared: bool,
    /// When it was made, in ms since 1970.
    pub(super) created_ms: u64,
    /// The last event before its first.
    pub(super) started_after: Sequence,
    /// Whether somebody paused it.
    pub(super) is_paused: bool,
    /// Why delivery stopped by itself, until somebody resumes it.
    pub(super) stopped: Option<String>,
    /// How many lanes the cursors are of.
    pub(super) lanes: u16,
    /// Raised whenever events come again that were acknowledged: what a receiver noted under another epoch says nothing.
    /// Begins with the time at which the subscription was made, so that one of the same name has others.
    #[serde(default)]
    pub(super) epoch: u64,
}

impl Definition {
    pub(super) fn spec_json(spec: &SubscriptionSpec) -> Box<RawValue> {
        let mut out = Vec::new();
        spec.write(&mut out);
        let text = String::from_utf8(out).unwrap_or_default();
        RawValue::from_string(text).unwrap_or_default()
    }

    /// Events come again that were acknowledged.
    pub(super) fn raise_epoch(&mut self) {
        self.epoch = now_ms().max(self.epoch + 1);
    }

    pub(super) fn document(&self, id: &SubscriptionId) -> Document {
        put(DEFINITIONS, id.as_str().as_bytes(), self)
    }
}

/// What a lane has noted beside its cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Progress {
    /// What the subscriber keeps in its key-value store.
    #[serde(default)]
    pub(super) keyvalue_bytes: u64,
    /// How many keys that is.
    #[serde(default)]
    pub(super) keyvalue_keys: u64,
    /// What the separate filter component keeps in its own.
    #[serde(default)]
    pub(super) filter_keyvalue_bytes: u64,
    /// How many keys that is.
    #[serde(default)]
    pub(super) filter_keyvalue_keys: u64,
    /// The snapshot that is being delivered, while it is.
    #[serde(default)]
    pub(super) snapshot: Option<SnapshotProgress>,
}

/// How far the snapshot is delivered that comes before the events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SnapshotProgress {
    /// What it is a snapshot at.
    pub(super) at: Sequence,
    /// The table under way; tables before it, by name, are done.
    pub(super) table: String,
    /// The last row of it that is done.
    pub(super) after: Option<String>,
}

impl Progress {
    pub(super) fn usage(&self) -> Usage {
        Usage { bytes: self.keyvalue_bytes, keys: self.keyvalue_keys }
    }

    pub(super) fn filter_usage(&self) -> Usage {
        Usage { bytes: self.filter_keyvalue_bytes, keys: self.filter_keyvalue_keys }
    }

    pub(super) fn document(&self, cursor: &str) -> Document {
        put(PROGRESS, cursor.as_bytes(), self)
    }
}

/// An event that a subscriber refused for good, with everything that a later attempt needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetter {
    pub(super) sequence: Sequence,
    pub(super) timestamp_ms: u64,
    pub(super) table: String,
    pub(super) key: String,
    pub(super) operation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Box<RawValue>>,
    pub(super) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<DeadOrigin>,
    /// What happened: `reject`, `retry`, `trap`, `timeout`, `exit` or `wrong-answer`.
    pub(super) kind: String,
    /// The last message.
    pub(super) reason: String,
    /// How often it was tried.
    pub(super) attempts: u32,
    /// When it was given up, in ms since 1970.
    pub(super) given_up_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadOrigin {
    source: String,
    transaction: Option<String>,
    position: Option<String>,
    snapshot: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    committed_at_ms: Option<u64>,
    /// A JSON array of strings, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unavailable: Option<String>,
}

impl DeadLetter {
    pub(super) fn new(event: &Event, kind: &str, reason: String, attempts: u32, given_up_ms: u64) -> Self {
        let write = &event.write;
        let image = |image: &Option<Bytes>| {
            let text = image.as_deref().and_then(|image| std::str::from_utf8(image).ok())?;
            RawValue::from_string(text.to_owned()).ok()
        };
        Self {
            sequence: event.sequence,
            timestamp_ms: event.timestamp_ms,
            table: write.table.to_string(),
            key: String::from_utf8_lossy(&write.key).into_owned(),
            operation: operation_name(write.operation).to_owned(),
            before: image(&write.before),
            after: image(&write.after),
            schema_version: write.schema_version,
            origin: write.origin.as_deref().map(|origin| DeadOrigin {
                source: origin.source.clone(),
                transaction: origin.transaction.clone(),
                position: write.position_text().map(str::to_owned),
                snapshot: origin.snapshot,
                committed_at_ms: origin.committed_at_ms,
                unavailable: origin.unavailable.clone(),
            }),
            kind: kind.to_owned(),
            reason,
            attempts,
            given_up_ms,
        }
    }

    /// The event as it was.
    pub(super) fn event(&self) -> Event {
        let image =
            |image: &Option<Box<RawValue>>| image.as_ref().map(|image| Bytes::copy_from_slice(image.get().as_bytes()));
        Event {
            sequence: self.sequence,
            timestamp_ms: self.timestamp_ms,
            write: Write {
                table: self.table.as_str().into(),
                key: Bytes::copy_from_slice(self.key.as_bytes()),
                operation: operation(&self.operation),
                before: image(&self.before),
                after: image(&self.after),
                schema_version: self.schema_version,
                origin: self.origin.as_ref().map(|origin| {
                    Arc::new(Origin {
                        source: origin.source.clone(),
                        transaction: origin.transaction.clone(),
                        committed_at_ms: origin.committed_at_ms,
                        snapshot: origin.snapshot,
                        unavailable: origin.unavailable.clone(),
                    })
                }),
                position: self.origin.as_ref().and_then(|origin| origin.position.clone()).map(Bytes::from),
            },
        }
    }

    /// What it is kept under.
    pub(super) fn document_key(event: &Event) -> Vec<u8> {
        let mut key = event.sequence.to_be_bytes().to_vec();
        if is_row(event) {
            key.extend_from_slice(event.write.table.as_bytes());
            key.push(b'\n');
            key.extend_from_slice(&event.write.key);
        }
        key
    }

    pub(super) fn document(&self, id: &SubscriptionId) -> Document {
        put(&dead_letters(id), &Self::document_key(&self.event()), self)
    }
}

/// The source of the rows of a subscription's own snapshot.
pub(super) const SNAPSHOT_SOURCE: &str = "snapshot";

/// Whether it is a row of a subscription's own snapshot.
pub(super) fn is_row(event: &Event) -> bool {
    event.write.origin.as_ref().is_some_and(|origin| origin.snapshot && origin.source == SNAPSHOT_SOURCE)
}

/// The operation's name in events.
pub(super) fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Insert => "INSERT",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Truncate => "TRUNCATE",
    }
}

fn operation(name: &str) -> Operation {
    match name {
        "INSERT" => Operation::Insert,
        "UPDATE" => Operation::Update,
        "DELETE" => Operation::Delete,
        _ => Operation::Truncate,
    }
}

/// The collection of a subscription's dead letters.
pub(super) fn dead_letters(id: &SubscriptionId) -> String {
    format!("dead/{}", id.as_str())
}

/// The collection of a subscription's keys and values; a filter of its own has a second one.
pub(super) fn keyvalue(id: &SubscriptionId, is_filter: bool) -> String {
    let suffix = if is_filter { "/filter" } else { "" };
    format!("keyvalue/{}{suffix}", id.as_str())
}

/// The cursor of a lane, which is its key in `progress` too.
pub(super) fn cursor(id: &SubscriptionId, lane: u16) -> String {
    format!("{}/{lane}", id.as_str())
}

fn put(collection: &str, key: &[u8], value: &impl Serialize) -> Document {
    // Numbers, texts and JSON texts: there is nothing that cannot be written.
    let value = serde_json::to_vec(value).unwrap_or_default();
    Document { collection: collection.into(), key: Bytes::copy_from_slice(key), value: Some(value.into()) }
}

/// A document that is to go.
pub(super) fn remove(collection: &str, key: &[u8]) -> Document {
    Document { collection: collection.into(), key: Bytes::copy_from_slice(key), value: None }
}
