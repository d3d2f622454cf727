//! Events as the messages that a sink sends.

use cdc_rest::envelope::{Format, Message};

use crate::Event;

/// The messages of an event that have a value, in their order. Tombstones are left out: they tell a log to forget a
/// key, and of our receivers Kafka alone does that.
pub(crate) fn messages(format: Format, event: &Event<'_>) -> Vec<Message> {
    let mut messages = with_tombstones(format, event);
    messages.retain(|message| message.value.is_some());
    messages
}

/// All messages of an event, in their order.
pub(crate) fn with_tombstones(format: Format, event: &Event<'_>) -> Vec<Message> {
    let subject = &event.subject;
    let is_keyed = subject.event.operation != cdc_rest::Operation::Truncate;
    let _ = format;
    vec![Message {
        key: is_keyed.then(|| subject.key.as_bytes().to_vec()),
        value: Some(event.native.to_vec()),
        headers: Vec::new(),
        content_type: cdc_rest::JSON,
    }]
}

/// The id of an event's message: the event's own, and for a further message its number behind it.
pub(crate) fn message_id(event: &Event<'_>, number: usize) -> String {
    match number {
        0 => event.subject.id.to_owned(),
        _ => format!("{}.{number}", event.subject.id),
    }
}
