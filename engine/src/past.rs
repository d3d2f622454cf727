//! The past of a table: which rows differ from the present, and where in the log their images are.
//!
//! The log goes forward only, but every update and delete carries the image before it. So the state after event `S` is
//! the present state, but for every key that changed after `S`: that one's image is the one before its first change
//! after `S`. And the state that replaying `F..=T` leads to is the state before `F`, but for every key that changed in
//! `F..=T`: that one's image is the one after its last change in `F..=T`. Only keys and sequence numbers are held;
//! images are read from the log when their turn comes.

use std::collections::BTreeMap;
use std::collections::btree_map;

use crate::event::Operation;
use crate::store::{Entry, EventRange, StoreError, View};
use crate::texts::Texts;

/// How many events are read at once.
const STEP_EVENTS: u32 = 1_000;
const STEP_BYTES: u32 = 1 << 20;

/// What stands in place of a present row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// The image before this event.
    Before(u64),
    /// The image after this event.
    After(u64),
    /// No row.
    Absent,
}

/// Why the past is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PastError {
    /// More keys changed than may be remembered.
    TooManyKeys,
    /// The store failed, or retention has dropped what is needed.
    Store(StoreError),
}

impl From<StoreError> for PastError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The rows that differ from the present ones, by key.
pub type Overrides = BTreeMap<String, Override>;

/// How the table right after event `at` differs from the present one.
pub fn undo<V: View>(view: &V, table: &str, at: u64, max_keys: usize) -> Result<Overrides, PastError> {
    let mut overrides = Overrides::new();
    each_event(view, table, at, view.bounds().newest, |event, texts| {
        if let btree_map::Entry::Vacant(entry) = overrides.entry(texts.text(event.key)?.to_owned()) {
            entry.insert(if event.before.is_some() { Override::Before(event.sequence) } else { Override::Absent });
        }
        if overrides.len() > max_keys { Err(PastError::TooManyKeys) } else { Ok(()) }
    })?;
    Ok(overrides)
}

/// What replaying the events `from..=to` does to a table, on top of `undone`, the way back from the present to `to`.
/// Answers how many events were applied.
pub fn redo<V: View>(
    view: &V,
    table: &str,
    from: u64,
    to: u64,
    undone: &mut Overrides,
    max_keys: usize,
) -> Result<u64, PastError> {
    let mut events = 0;
    each_event(view, table, from - 1, to, |event, texts| {
        events += 1;
        let image = if event.after.is_some() { Override::After(event.sequence) } else { Override::Absent };
        undone.insert(texts.text(event.key)?.to_owned(), image);
        if undone.len() > max_keys { Err(PastError::TooManyKeys) } else { Ok(()) }
    })?;
    Ok(events)
}

/// Every event of a table in `after+1..=until`, oldest first.
fn each_event<V: View>(
    view: &V,
    table: &str,
    mut after: u64,
    until: u64,
    mut visit: impl FnMut(&Entry, &Texts) -> Result<(), PastError>,
) -> Result<(), PastError> {
    while after < until {
        let slice = view.events(&EventRange {
            after,
            until,
            table: Some(table.to_owned()),
            max_events: STEP_EVENTS,
            max_bytes: STEP_BYTES,
            ..EventRange::default()
        })?;
        let Some(last) = slice.entries.last() else { break };
        after = last.sequence;
        for event in &slice.entries {
            if event.operation == Operation::Truncate {
                let message = format!("event {} truncates the table: its past cannot be rebuilt", event.sequence);
                return Err(PastError::Store(StoreError::Failed(message)));
            }
            visit(event, &slice.texts)?;
        }
        if slice.complete {
            break;
        }
    }
    Ok(())
}

/// The image that an override stands for.
pub fn image<V: View>(view: &V, key: &str, place: Override) -> Result<Option<String>, StoreError> {
    let (sequence, before) = match place {
        Override::Absent => return Ok(None),
        Override::Before(sequence) => (sequence, true),
        Override::After(sequence) => (sequence, false),
    };
    let range =
        EventRange { after: sequence - 1, until: sequence, max_events: 1, max_bytes: 1, ..EventRange::default() };
    let slice = view.events(&range)?;
    let image = slice.entries.first().and_then(|event| if before { event.before } else { event.after });
    let lost = || StoreError::Failed(format!("event {sequence} of row {key:?} has lost its image"));
    Ok(Some(slice.texts.text(image.ok_or_else(lost)?)?.to_owned()))
}
