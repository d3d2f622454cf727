#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::capture::{Action, Capture};
use crate::memory::{MemoryStore, change, declaration};
use crate::oracle::portable::pick;
use crate::oracle::{self, column, word};
use crate::store::Store;

/// Ten events at 1,000 to 10,000 ms: `a` gets the odd ones, `b` the even ones; each writes the row 1 or 2 of its table.
fn ten() -> MemoryStore {
    let store = MemoryStore::default();
    for n in 1..=10_u64 {
        let table = if n % 2 == 1 { "a" } else { "b" };
        let image = format!("{{\"id\":{},\"n\":{n}}}", n.div_ceil(2) % 2 + 1);
        store.capture(n * 1_000, vec![change(Action::Upsert, table, &[], &image)]);
    }
    store
}

fn drop_until(store: &MemoryStore, sequence: u64) {
    store.change(|state| state.dropped = sequence);
}

fn page(store: &MemoryStore, query: EventQuery) -> Result<(Vec<u64>, u64), QueryError> {
    let page = events(&store.view().unwrap(), query)?;
    Ok((page.entries.iter().map(|event| event.sequence).collect(), page.next_after))
}

fn query() -> EventQuery {
    EventQuery { limit: 1_000, ..EventQuery::default() }
}

#[test]
fn after_reads_forward_page_by_page_to_the_end_and_waits_there() {
    let store = ten();
    let after = |after| page(&store, EventQuery { after: Some(after), limit: 4, ..query() }).unwrap();
    assert_eq!(after(0), (vec![1, 2, 3, 4], 4));
    assert_eq!(after(4), (vec![5, 6, 7, 8], 8));
    assert_eq!(after(8), (vec![9, 10], 10));
    assert_eq!(after(10), (vec![], 10));
}

#[test]
fn a_page_that_a_filter_ends_leads_past_all_that_was_looked_at() {
    let store = ten();
    let of_b = |after| {
        page(&store, EventQuery { table: Some("b".to_owned()), after: Some(after), limit: 3, ..query() }).unwrap()
    };
    assert_eq!(of_b(0), (vec![2, 4, 6], 6));
    assert_eq!(of_b(6), (vec![8, 10], 10));
    let none = EventQuery { table: Some("nothing".to_owned()), after: Some(3), ..query() };
    assert_eq!(page(&store, none).unwrap(), (vec![], 10));
}

#[test]
fn without_after_the_newest_are_answered_in_the_order_asked_for() {
    let store = ten();
    let newest = |order, limit| page(&store, EventQuery { limit, order, ..query() }).unwrap();
    assert_eq!(newest(Order::Ascending, 3), (vec![8, 9, 10], 10));
    assert_eq!(newest(Order::Descending, 3), (vec![10, 9, 8], 10));
    assert_eq!(newest(Order::Ascending, 100).0.len(), 10);
}

#[test]
fn descending_with_after_goes_down_from_the_newest_to_it() {
    let store = ten();
    let down = |limit| page(&store, EventQuery { after: Some(6), order: Order::Descending, limit, ..query() }).unwrap();
    assert_eq!(down(2), (vec![10, 9], 10));
    assert_eq!(down(100), (vec![10, 9, 8, 7], 10));
}

#[test]
fn since_is_strictly_later() {
    let store = ten();
    assert_eq!(page(&store, EventQuery { since_ms: Some(8_000), ..query() }).unwrap().0, [9, 10]);
    assert_eq!(
        page(&store, EventQuery { since_ms: Some(7_999), after: Some(0), limit: 1, ..query() }).unwrap(),
        (vec![8], 8)
    );
    assert_eq!(page(&store, EventQuery { since_ms: Some(u64::MAX), ..query() }).unwrap(), (vec![], 10));
}

#[test]
fn a_key_and_an_operation_select_too_and_all_conditions_must_hold() {
    let store = ten();
    let key = EventQuery { key: Some("1".to_owned()), ..query() };
    let found = page(&store, key.clone()).unwrap().0;
    assert_eq!(found, [3, 4, 7, 8]);
    let update = EventQuery { operation: Some(Operation::Update), table: Some("a".to_owned()), ..key };
    assert_eq!(page(&store, update).unwrap().0, [7]);
}

#[test]
fn asking_below_what_retention_keeps_is_told_and_asking_for_all_is_not() {
    let store = ten();
    drop_until(&store, 4);
    let after = |after| page(&store, EventQuery { after: Some(after), ..query() });
    assert_eq!(after(3), Err(QueryError::Store(StoreError::Dropped(5))));
    assert_eq!(after(0), Err(QueryError::Store(StoreError::Dropped(5))));
    assert_eq!(after(4).unwrap().0, [5, 6, 7, 8, 9, 10]);
    assert_eq!(page(&store, query()).unwrap().0, [5, 6, 7, 8, 9, 10]);
    drop_until(&store, 10);
    assert_eq!(page(&store, query()).unwrap(), (vec![], 10));
    assert_eq!(after(10).unwrap(), (vec![], 10));
    assert_eq!(after(9), Err(QueryError::Store(StoreError::Dropped(11))));
}

#[test]
fn an_asker_who_has_seen_another_log_is_told() {
    let store = ten();
    for after in [11, u64::MAX] {
        let future = page(&store, EventQuery { after: Some(after), ..query() });
        assert_eq!(future, Err(QueryError::InTheFuture(10)));
    }
    let empty = MemoryStore::default();
    assert_eq!(page(&empty, EventQuery { after: Some(1), ..query() }), Err(QueryError::InTheFuture(0)));
    assert_eq!(page(&empty, EventQuery { after: Some(0), ..query() }).unwrap(), (vec![], 0));
    assert_eq!(page(&empty, query()).unwrap(), (vec![], 0));
}

#[test]
fn a_row_is_read_by_the_parts_of_its_key() {
    let store = MemoryStore::default();
    let columns = [column("x", "String", false), column("y", "Number", false)];
    Capture::default().declare(&store, 0, declaration("pairs", &columns, &["x", "y"])).unwrap();
    store.capture(0, vec![change(Action::Insert, "pairs", &[], r#"{"x":"a/b","y":42}"#)]);
    store.insert("t", 42);
    let read = |table: &str, key: &[&str]| {
        let key: Vec<String> = key.iter().map(|&part| part.to_owned()).collect();
        row(&store.view().unwrap(), table, &key)
    };
    assert_eq!(read("pairs", &["a/b", "42"]).unwrap(), r#"{"x":"a/b","y":42}"#);
    assert_eq!(read("t", &["42"]).unwrap(), r#"{"id":42}"#);
    for (table, key) in [
        ("t", vec!["43"]),
        ("t", vec!["4", "2"]),
        ("t", vec![""]),
        ("pairs", vec!["a/b"]),
        ("t", vec![&"x".repeat(9_999)]),
    ] {
        let Err(QueryError::UnknownRow(message)) = read(table, &key) else { panic!("{key:?} is found") };
        assert!(message.len() < 300, "{message}");
    }
    assert_eq!(read("nothing", &["1"]), Err(QueryError::UnknownTable("nothing".to_owned())));
}

#[test]
fn schemas_are_read_at_every_version() {
    let store = MemoryStore::default();
    store.insert("t", 1);
    store.capture(0, vec![change(Action::Update, "t", &["1"], r#"{"a":1}"#)]);
    store.insert("s", 1);
    let view = store.view().unwrap();
    assert_eq!(schema(&view, "t", None).unwrap().version, 2);
    assert_eq!(schema(&view, "t", Some(1)).unwrap().columns.len(), 1);
    for version in [0, 3, u32::MAX] {
        assert_eq!(schema(&view, "t", Some(version)), Err(QueryError::UnknownVersion(version)));
    }
    let unknown = QueryError::UnknownTable("nothing".to_owned());
    assert_eq!(schema(&view, "nothing", Some(1)), Err(unknown.clone()));
    assert_eq!(schema_history(&view, "nothing"), Err(unknown));
    let versions: Vec<u32> = schema_history(&view, "t").unwrap().iter().map(|schema| schema.version).collect();
    assert_eq!(versions, [1, 2]);
    let names: Vec<String> = schemas(&view).unwrap().into_iter().map(|schema| schema.name).collect();
    assert_eq!(names, ["s", "t"]);
}

#[test]
fn statistics_of_an_empty_log_are_empty() {
    let store = MemoryStore::default();
    let columns = [column("id", "String", false)];
    Capture::default().declare(&store, 0, declaration("t", &columns, &["id"])).unwrap();
    let statistics = statistics(&store.view().unwrap(), 1_000_000).unwrap();
    assert_eq!((statistics.total_events, statistics.last_event_time_ms, statistics.current_sequence), (0, None, 0));
    assert_eq!((statistics.tables, statistics.events_per_second), (vec![], 0.0));
}

#[test]
fn statistics_count_what_was_ever_captured() {
    let store = ten();
    store
        .capture(10_500, vec![change(Action::Delete, "a", &["1"], ""), change(Action::Insert, "c", &[], "{\"id\":1}")]);
    drop_until(&store, 5);
    let statistics = statistics(&store.view().unwrap(), 11_900).unwrap();
    assert_eq!((statistics.inserts, statistics.updates, statistics.deletes, statistics.truncates), (5, 6, 1, 0));
    assert_eq!((statistics.total_events, statistics.current_sequence), (12, 12));
    assert_eq!(statistics.last_event_time_ms, Some(10_500));
    assert_eq!(statistics.tables, [("a".to_owned(), 6), ("b".to_owned(), 5), ("c".to_owned(), 1)]);
    // The events at 2,000 to 10,500 ms lie within the last ten seconds, as far as seconds tell.
    assert_eq!(statistics.events_per_second, 1.1);
}

#[test]
fn the_rate_falls_to_nothing_when_nothing_happens_and_the_future_does_not_count() {
    let store = ten();
    let rate = |now_ms| statistics(&store.view().unwrap(), now_ms).unwrap().events_per_second;
    assert_eq!([rate(10_000), rate(15_999), rate(19_999), rate(20_000)], [1.0, 0.5, 0.1, 0.0]);
    // A clock that went backwards.
    assert_eq!([rate(3_000), rate(0)], [0.3, 0.0]);
}

proptest! {
    #![proptest_config(oracle::config(128))]

    /// Reading on with `next_after` finds every event that fits, each once, in order, whatever the limit; and one page
    /// backwards is the end of that list.
    #[test]
    fn pages_of_any_size_make_up_the_whole(
        batches in oracle::batches(6, 10),
        limit in 1..7_u32,
        table in prop::option::of(pick(&["a", "pairs", "typed"])),
        operation in prop::option::of(pick(&[Operation::Insert, Operation::Update, Operation::Delete])),
        key in prop::option::of(pick(&["1", "2", "x"])),
        since_ms in prop::option::of(0..7_000_u64),
        dropped in 0..10_u64,
    ) {
        let (store, oracle) = MemoryStore::filled(&batches);
        let newest = oracle.events.len() as u64;
        let dropped = dropped.min(newest);
        drop_until(&store, dropped);
        let state = store.state();
        let expected: Vec<u64> = oracle.events.iter()
            .filter(|event| event.sequence > dropped)
            .filter(|event| table.is_none_or(|table| event.table == table))
            .filter(|event| operation.is_none_or(|operation| event.operation == word(operation)))
            .filter(|event| key.is_none_or(|key| event.key == key))
            .map(|event| event.sequence)
            .filter(|&sequence| since_ms.is_none_or(|ms| state.events[sequence as usize - 1].timestamp_ms > ms))
            .collect();
        let query = |after, order| EventQuery {
            table: table.map(str::to_owned),
            operation,
            key: key.map(str::to_owned),
            since_ms,
            after,
            limit,
            order,
        };
        let mut found = Vec::new();
        let mut after = dropped;
        loop {
            let (more, next_after) = page(&store, query(Some(after), Order::Ascending)).unwrap();
            prop_assert!(more.len() <= limit as usize);
            prop_assert!(next_after > after || next_after == newest);
            found.extend(more);
            after = next_after;
            if after == newest {
                break;
            }
        }
        prop_assert_eq!(&found, &expected);
        let mut last = page(&store, query(None, Order::Ascending)).unwrap().0;
        prop_assert_eq!(&last, &expected[expected.len().saturating_sub(limit as usize)..]);
        last.reverse();
        prop_assert_eq!(page(&store, query(None, Order::Descending)).unwrap().0, last);
    }
}
