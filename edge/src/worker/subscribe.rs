//! Subscriptions without a delivery: whoever embeds the engine asks for what is new, and acknowledges it when it is done.

use cdc_engine::event::Operation;
use cdc_engine::selection::{self, Selection, SubscribeError};
use cdc_engine::store::Store;
use cdc_rest::{Code, EventRef, Problem, SubscriptionId, write_event};

use super::{Worker, explain};

/// Events that a subscription has not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// A JSON array of events as `GET /events` shows them, oldest first.
    pub events: Vec<u8>,
    /// How many there are.
    pub count: usize,
    /// To acknowledge when all of them are done. It may have moved on although there are none.
    pub acknowledge_up_to: u64,
}

/// The next events of a subscription: at most `max_events` behind what it has acknowledged, or behind the oldest that the
/// log keeps. `tables` are names, or patterns with `*`; `operations` as events show them; none of either means all.
pub fn poll<S: Store>(
    store: &S,
    subscription: &str,
    tables: Vec<String>,
    operations: &[String],
    max_events: u32,
) -> Result<Delivery, Problem> {
    let id = SubscriptionId::parse(subscription)?;
    let operations = operations.iter().map(|name| operation(name)).collect::<Result<_, _>>()?;
    let selection = Selection { tables, operations };
    let found = selection::poll(store, id.as_str(), &selection, max_events).map_err(explain)?;
    let mut events = vec![b'['];
    for (at, event) in found.events.iter().enumerate() {
        if at > 0 {
            events.push(b',');
        }
        let shown = EventRef {
            sequence: event.sequence,
            timestamp_ms: event.timestamp_ms,
            table: &event.table,
            operation: super::convert::rest_operation(event.operation),
            before: event.before.as_deref().map(str::as_bytes),
            after: event.after.as_deref().map(str::as_bytes),
            schema_version: event.schema_version,
            // Nothing is followed at the edge, so nothing came from elsewhere.
            origin: None,
        };
        write_event(&mut events, &shown);
    }
    events.push(b']');
    Ok(Delivery { events, count: found.events.len(), acknowledge_up_to: found.acknowledge_up_to })
}

impl Worker {
    /// Moves a subscription's cursor, durably. Below where it is it changes nothing.
    pub fn acknowledge<S: Store>(&mut self, store: &S, subscription: &str, up_to: u64) -> Result<(), Problem> {
        let id = SubscriptionId::parse(subscription)?;
        let moved = self.until_first_or(
            |_| selection::acknowledge(store, id.as_str(), up_to),
            |error| matches!(error, SubscribeError::Store(error) if super::is_conflict(error)),
        );
        moved.map_err(explain)
    }
}

fn operation(name: &str) -> Result<Operation, Problem> {
    Ok(match name {
        "INSERT" => Operation::Insert,
        "UPDATE" => Operation::Update,
        "DELETE" => Operation::Delete,
        "TRUNCATE" => Operation::Truncate,
        other => {
            let detail = format!("{other:?} is no operation; they are INSERT, UPDATE, DELETE and TRUNCATE");
            return Err(Problem::new(Code::InvalidSubscription, detail));
        }
    })
}

fn explain(error: SubscribeError) -> Problem {
    match error {
        SubscribeError::InvalidSelection(message) | SubscribeError::InvalidSequence(message) => {
            Problem::new(Code::InvalidSubscription, message)
        }
        SubscribeError::Store(error) => explain::store(error),
    }
}
