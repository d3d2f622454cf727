//! Events as the messages that a sink sends.

use cdc_rest::Operation;
use cdc_rest::envelope::{Format, Message, Tombstones};

use crate::Event;

/// The messages of an event, in their order. Without tombstones each has a value.
pub(crate) fn messages(format: Format, tombstones: Tombstones, event: &Event<'_>) -> Vec<Message> {
    let mut messages = Vec::with_capacity(1);
    let subject = &event.subject;
    if format == Format::Native {
        // It has been written already.
        let key = (subject.event.operation != Operation::Truncate).then(|| subject.key.as_bytes().to_vec());
        let value = Some(event.native.to_vec());
        messages.push(Message { key, value, headers: Vec::new(), content_type: format.content_type() });
    } else {
        format.messages(subject, tombstones, &mut messages);
    }
    messages
}

/// The id of an event's message: the event's own, and for a further message its number behind it.
pub(crate) fn message_id(event: &Event<'_>, number: usize) -> String {
    match number {
        0 => event.subject.id.to_owned(),
        _ => format!("{}.{number}", event.subject.id),
    }
}
