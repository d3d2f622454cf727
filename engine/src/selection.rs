//! Selections: which events a subscription is about, and a durable cursor for embedders without a delivery.

use crate::event::{Event, Operation};
use crate::store::{EventRange, Store, StoreError, View};

/// The longest pattern and the most of them: a selection is matched against every event.
const MAX_PATTERN_BYTES: usize = 256;
const MAX_PATTERNS: usize = 1_000;
/// How far one poll looks before it answers with what it has.
const MAX_POLL_SCAN: u32 = 10_000;
const MAX_POLL_BYTES: u32 = 4 << 20;

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Table names, `*` standing for any run of characters; empty for all.
    pub tables: Vec<String>,
    /// Empty for all.
    pub operations: Vec<Operation>,
}

/// Why a subscription call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscribeError {
    /// The selection is not one.
    InvalidSelection(String),
    /// The sequence number is not one that the subscription could have been given.
    InvalidSequence(String),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for SubscribeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A selection, validated and compiled.
#[derive(Debug)]
pub struct Matcher {
    /// None for every table.
    tables: Option<Vec<String>>,
    /// One bit for each operation.
    operations: u8,
}

impl Matcher {
    /// Validates and compiles a selection.
    pub fn new(selection: &Selection) -> Result<Self, SubscribeError> {
        if selection.tables.len() > MAX_PATTERNS {
            return Err(SubscribeError::InvalidSelection(format!("more than {MAX_PATTERNS} tables are named")));
        }
        for pattern in &selection.tables {
            if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
                return Err(SubscribeError::InvalidSelection(format!(
                    "a table name or pattern must be 1 to {MAX_PATTERN_BYTES} bytes long"
                )));
            }
            if pattern.chars().any(|character| character.is_control() || character == '/') {
                return Err(SubscribeError::InvalidSelection(format!("{pattern:?} matches no table name")));
            }
        }
        let every = selection.tables.is_empty() || selection.tables.iter().any(|pattern| pattern == "*");
        let operations = selection.operations.iter().fold(0, |bits, &operation| bits | bit(operation));
        Ok(Self {
            tables: (!every).then(|| selection.tables.clone()),
            operations: if operations == 0 { u8::MAX } else { operations },
        })
    }

    /// Whether an event is selected.
    #[must_use]
    pub fn matches(&self, table: &str, operation: Operation) -> bool {
        self.operations & bit(operation) != 0
            && self.tables.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| glob(pattern, table)))
    }
}

fn bit(operation: Operation) -> u8 {
    match operation {
        Operation::Insert => 1,
        Operation::Update => 2,
        Operation::Delete => 4,
        Operation::Truncate => 8,
    }
}

/// Whether the text is the pattern, `*` standing for any run of characters. Goes back to the last `*` only, so the cost
/// is bounded by the product of the lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Events that a subscription has not acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// Acknowledge this when all of them are done.
    pub acknowledge_up_to: u64,
}

/// The next selected events after the subscription's cursor.
pub fn poll<S: Store>(
    store: &S,
    subscription: &str,
    selection: &Selection,
    max_events: u32,
) -> Result<Delivery, SubscribeError> {
    let matcher = Matcher::new(selection)?;
    let view = store.view()?;
    let bounds = view.bounds();
    let mut after = view.cursor(subscription)?.unwrap_or(bounds.oldest.saturating_sub(1));
    let mut delivery = Delivery { events: Vec::new(), acknowledge_up_to: after };
    let mut scanned = 0;
    while scanned < MAX_POLL_SCAN && delivery.events.len() < max_events as usize && after < bounds.newest {
        let slice = view.events(&EventRange {
            after,
            until: bounds.newest,
            max_events: max_events.clamp(1, MAX_POLL_SCAN),
            max_bytes: MAX_POLL_BYTES,
            ..EventRange::default()
        })?;
        let Some(last) = slice.entries.last().map(|event| event.sequence) else { break };
        scanned += slice.entries.len() as u32;
        after = last;
        for event in &slice.entries {
            if delivery.events.len() == max_events as usize {
                break;
            }
            delivery.acknowledge_up_to = event.sequence;
            if matcher.matches(slice.texts.text(event.table)?, event.operation) {
                delivery.events.push(event.event(&slice.texts)?);
            }
        }
    }
    Ok(delivery)
}

/// Moves a subscription's cursor; a number below it changes nothing, so an acknowledgement may be repeated.
pub fn acknowledge<S: Store>(store: &S, subscription: &str, up_to: u64) -> Result<(), SubscribeError> {
    let view = store.view()?;
    let newest = view.bounds().newest;
    if up_to > newest {
        return Err(SubscribeError::InvalidSequence(format!("{up_to} lies beyond the newest event, {newest}")));
    }
    if view.cursor(subscription)?.is_some_and(|cursor| cursor >= up_to) {
        return Ok(());
    }
    Ok(store.save_cursor(subscription, up_to)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::memory::MemoryStore;

    fn matcher(tables: &[&str], operations: &[Operation]) -> Matcher {
        let tables = tables.iter().map(|&table| table.to_owned()).collect();
        Matcher::new(&Selection { tables, operations: operations.to_vec() }).unwrap()
    }

    #[test]
    fn an_empty_selection_is_everything() {
        assert!(matcher(&[], &[]).matches("t", Operation::Truncate));
        assert!(matcher(&["x", "*"], &[]).matches("t", Operation::Insert));
    }

    #[test]
    fn tables_and_operations_must_both_fit() {
        let matcher = matcher(&["user*", "*.log", "a*b*c"], &[Operation::Insert, Operation::Delete]);
        for table in ["users", "user", "public.log", "abc", "a1b2bc"] {
            assert!(matcher.matches(table, Operation::Insert), "{table}");
            assert!(!matcher.matches(table, Operation::Update), "{table}");
        }
        for table in ["use", "public.logs", "acb", "ab"] {
            assert!(!matcher.matches(table, Operation::Insert), "{table}");
        }
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused() {
        for pattern in ["", "a/b", "a\nb", &"x".repeat(257)] {
            let selection = Selection { tables: vec![pattern.to_owned()], operations: vec![] };
            assert!(matches!(Matcher::new(&selection), Err(SubscribeError::InvalidSelection(_))), "{pattern:?}");
        }
    }

    #[test]
    fn a_subscription_gets_the_same_again_until_it_acknowledges() {
        let store = MemoryStore::default();
        for id in 1..=5 {
            store.insert(if id % 2 == 0 { "even" } else { "odd" }, id);
        }
        let odd = Selection { tables: vec!["odd".to_owned()], operations: vec![] };
        let sequences = |delivery: &Delivery| delivery.events.iter().map(|event| event.sequence).collect::<Vec<_>>();
        for _ in 0..2 {
            let delivery = poll(&store, "s", &odd, 2).unwrap();
            assert_eq!((sequences(&delivery), delivery.acknowledge_up_to), (vec![1, 3], 3));
        }
        acknowledge(&store, "s", 3).unwrap();
        acknowledge(&store, "s", 1).unwrap();
        let delivery = poll(&store, "s", &odd, 2).unwrap();
        assert_eq!((sequences(&delivery), delivery.acknowledge_up_to), (vec![5], 5));
        acknowledge(&store, "s", 5).unwrap();
        assert!(poll(&store, "s", &odd, 2).unwrap().events.is_empty());
        assert!(matches!(acknowledge(&store, "s", 6), Err(SubscribeError::InvalidSequence(_))));
    }

    #[test]
    fn what_is_passed_over_can_be_acknowledged_too() {
        let store = MemoryStore::default();
        store.insert("t", 1);
        let none = Selection { tables: vec!["other".to_owned()], operations: vec![] };
        let delivery = poll(&store, "s", &none, 10).unwrap();
        assert_eq!((delivery.events.len(), delivery.acknowledge_up_to), (0, 1));
    }
}
