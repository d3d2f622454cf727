#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::capture::{Action, Capture};
use crate::event::Operation;
use crate::memory::{Change, MemoryStore, State, change, declaration};
use crate::oracle::{self, column};
use crate::store::Store;

type Rows = Vec<(String, String)>;

const ALL: usize = usize::MAX;

fn write(store: &MemoryStore, changes: Vec<Change>) {
    assert!(store.capture(1_000, changes).outcomes.iter().all(Result::is_ok));
}

fn insert(image: &str) -> Change {
    change(Action::Insert, "t", &[], image)
}

fn update(id: &str, image: &str) -> Change {
    change(Action::Update, "t", &[id], image)
}

fn delete(id: &str) -> Change {
    change(Action::Delete, "t", &[id], "")
}

/// Seven events: 1 inserts b, 2 inserts d, 3 updates b, 4 inserts c, 5 deletes b, 6 is another table's, 7 inserts b
/// anew.
fn seven() -> MemoryStore {
    let store = MemoryStore::default();
    write(&store, vec![insert(r#"{"id":"b","n":1}"#), insert(r#"{"id":"d","n":1}"#)]);
    write(&store, vec![update("b", r#"{"n":2}"#), insert(r#"{"id":"c","n":1}"#), delete("b")]);
    store.insert("other", 1);
    write(&store, vec![insert(r#"{"id":"b","m":3}"#)]);
    store
}

fn drop_until(store: &MemoryStore, sequence: u64) {
    store.change(|state| state.dropped = sequence);
}

/// All rows, in pages of this size.
fn all<V: View>(mut snapshot: TableSnapshot<V>, max_rows: u32, max_bytes: u32) -> Rows {
    let mut rows = Rows::new();
    loop {
        let page = snapshot.next(max_rows, max_bytes).unwrap();
        assert!(page.len() <= max_rows.max(1) as usize);
        if page.is_empty() {
            assert!(snapshot.next(max_rows, max_bytes).unwrap().is_empty(), "there are rows behind the end");
            return rows;
        }
        rows.extend(page.into_iter().map(|row| (row.key, row.image)));
    }
}

fn at(store: &MemoryStore, at: Option<u64>) -> Result<Rows, SnapshotError> {
    Ok(all(TableSnapshot::open(store.view().unwrap(), "t", at, ALL)?, 10, 1 << 20))
}

fn replayed(store: &MemoryStore) -> Rows {
    all(TableSnapshot::replay(store.view().unwrap(), "t", ALL).unwrap(), 10, 1 << 20)
}

fn rows(rows: &[(&str, &str)]) -> Rows {
    rows.iter().map(|&(key, image)| (key.to_owned(), image.to_owned())).collect()
}

fn check(store: &MemoryStore, from: Option<u64>, to: Option<u64>) -> Result<ReplayReport, SnapshotError> {
    verify(&store.view().unwrap(), "t", from, to, ALL)
}

fn equal(report: &ReplayReport) -> bool {
    (report.replayed_rows, report.replayed_checksum) == (report.live_rows, report.live_checksum)
}

#[test]
fn a_snapshot_is_the_table_as_it_is() {
    let store = seven();
    let snapshot = TableSnapshot::open(store.view().unwrap(), "t", None, ALL).unwrap();
    assert_eq!((snapshot.sequence(), snapshot.timestamp_ms(), snapshot.schema().version), (7, 1_001, 2));
    assert_eq!(
        all(snapshot, 10, 1 << 20),
        rows(&[("b", r#"{"id":"b","m":3}"#), ("c", r#"{"id":"c","n":1}"#), ("d", r#"{"id":"d","n":1}"#)])
    );
}

#[test]
fn what_is_written_while_a_snapshot_is_read_is_not_in_it() {
    let store = seven();
    let mut snapshot = TableSnapshot::open(store.view().unwrap(), "t", None, ALL).unwrap();
    assert_eq!(snapshot.next(1, 1 << 20).unwrap()[0].key, "b");
    write(&store, vec![delete("c"), insert(r#"{"id":"bb"}"#)]);
    let rest: Vec<String> = all(snapshot, 10, 1 << 20).into_iter().map(|(key, _)| key).collect();
    assert_eq!(rest, ["c", "d"]);
}

#[test]
fn a_past_snapshot_is_the_table_right_after_that_event() {
    let store = seven();
    let (b1, b2) = (r#"{"id":"b","n":1}"#, r#"{"id":"b","n":2}"#);
    let (c, d) = (("c", r#"{"id":"c","n":1}"#), ("d", r#"{"id":"d","n":1}"#));
    let after = |sequence| at(&store, Some(sequence)).unwrap();
    assert_eq!(after(0), rows(&[]));
    assert_eq!(after(1), rows(&[("b", b1)]));
    assert_eq!(after(2), rows(&[("b", b1), d]));
    assert_eq!(after(3), rows(&[("b", b2), d]));
    assert_eq!(after(4), rows(&[("b", b2), c, d]));
    assert_eq!(after(5), rows(&[c, d]));
    assert_eq!(after(6), rows(&[c, d]));
    assert_eq!(after(7), at(&store, None).unwrap());
}

#[test]
fn rows_only_in_the_past_come_in_key_order_between_and_behind_the_present_ones() {
    let store = MemoryStore::default();
    let images = ["a", "b", "c", "d", "e"].map(|id| insert(&format!("{{\"id\":\"{id}\"}}")));
    write(&store, images.to_vec());
    write(&store, vec![delete("e"), delete("a"), delete("c")]);
    let snapshot = TableSnapshot::open(store.view().unwrap(), "t", Some(5), ALL).unwrap();
    let keys: Vec<String> = all(snapshot, 1, 1 << 20).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_past_snapshot_has_the_schema_of_its_time() {
    let store = seven();
    let version = |at| TableSnapshot::open(store.view().unwrap(), "t", at, ALL).unwrap().schema().version;
    // Version 2 came with event 7.
    assert_eq!(
        [version(Some(0)), version(Some(2)), version(Some(6)), version(Some(7)), version(None)],
        [1, 1, 1, 2, 2]
    );
    // The table's events until 6 are gone: its last one before is not known any more, but the next one is.
    drop_until(&store, 5);
    assert_eq!([version(Some(7)), version(None)], [2, 2]);
}

#[test]
fn a_snapshot_needs_its_table() {
    let store = seven();
    let unknown = Err(SnapshotError::UnknownTable("nothing".to_owned()));
    let view = || store.view().unwrap();
    assert_eq!(TableSnapshot::open(view(), "nothing", None, ALL).map(drop), unknown);
    assert_eq!(TableSnapshot::open(view(), "nothing", Some(99), ALL).map(drop), unknown);
    assert_eq!(TableSnapshot::replay(view(), "nothing", ALL).map(drop), unknown);
    assert_eq!(verify(&view(), "nothing", None, None, ALL).map(drop), unknown);
}

#[test]
fn the_future_has_no_snapshot() {
    let store = seven();
    for sequence in [8, u64::MAX] {
        assert_eq!(at(&store, Some(sequence)), Err(SnapshotError::InTheFuture(7)));
        assert_eq!(check(&store, None, Some(sequence)), Err(SnapshotError::InTheFuture(7)));
    }
    assert_eq!(check(&store, Some(9), None), Err(SnapshotError::InTheFuture(7)));
    assert_eq!(check(&store, Some(u64::MAX), None), Err(SnapshotError::InTheFuture(7)));
}

#[test]
fn the_past_ends_where_retention_has_dropped_events() {
    let store = seven();
    let expected = at(&store, Some(4)).unwrap();
    drop_until(&store, 4);
    let dropped = SnapshotError::Store(StoreError::Dropped(5));
    // Everything after event 4 is there, and that is all that the way back to it takes.
    assert_eq!(at(&store, Some(4)).unwrap(), expected);
    assert_eq!(at(&store, Some(3)), Err(dropped.clone()));
    assert_eq!(check(&store, Some(4), None), Err(dropped.clone()));
    assert_eq!(check(&store, Some(5), Some(3)), Err(dropped.clone()));
    assert_eq!(check(&store, None, None).unwrap().from_sequence, 5);
    drop_until(&store, 7);
    assert_eq!(at(&store, Some(7)).unwrap().len(), 3);
    assert_eq!(at(&store, Some(6)), Err(SnapshotError::Store(StoreError::Dropped(8))));
    let nothing = check(&store, None, None).unwrap();
    assert_eq!((nothing.from_sequence, nothing.to_sequence, nothing.events, nothing.live_rows), (8, 7, 0, 3));
    assert!(equal(&nothing));
    assert_eq!(replayed(&store), at(&store, None).unwrap());
}

#[test]
fn a_look_too_far_back_is_refused_with_the_limit() {
    let store = seven();
    let open = |at, max_keys| TableSnapshot::open(store.view().unwrap(), "t", Some(at), max_keys).map(drop);
    // Three keys changed since the beginning, two since event 3, none since 7.
    assert_eq!(open(0, 2), Err(SnapshotError::TooFarBack(2)));
    assert_eq!(open(0, 3), Ok(()));
    assert_eq!(open(3, 1), Err(SnapshotError::TooFarBack(1)));
    assert_eq!(open(3, 2), Ok(()));
    assert_eq!(open(7, 0), Ok(()));
    let view = || store.view().unwrap();
    assert_eq!(TableSnapshot::replay(view(), "t", 2).map(drop), Err(SnapshotError::TooFarBack(2)));
    assert_eq!(verify(&view(), "t", Some(1), None, 2).map(drop), Err(SnapshotError::TooFarBack(2)));
    assert!(verify(&view(), "t", Some(5), None, 2).is_ok());
}

#[test]
fn a_truncate_ends_the_past_with_a_reason() {
    let store = seven();
    store.change(|state| {
        let last = state.events.last_mut().unwrap();
        (last.operation, last.key, last.after) = (Operation::Truncate, String::new(), None);
    });
    let Err(SnapshotError::Store(StoreError::Failed(message))) = at(&store, Some(2)) else { panic!("there is a past") };
    assert!(message.contains("event 7"), "{message}");
}

#[test]
fn an_event_without_the_image_it_must_have_is_an_error_and_not_a_missing_row() {
    let store = seven();
    store.change(|state| state.events[6].after = None);
    // The event now looks like a delete, so the row is gone by replay: that is for `verify` to tell.
    assert!(!equal(&check(&store, None, None).unwrap()));
    let mut snapshot = TableSnapshot::open(store.view().unwrap(), "t", Some(2), ALL).unwrap();
    // Dropped while the snapshot is read: a view never changes, but this one is made to.
    snapshot.view = {
        let mut state = State::clone(&store.state());
        state.events[2].before = None;
        state.into()
    };
    assert!(matches!(snapshot.next(10, 1 << 20), Err(StoreError::Failed(message)) if message.contains("event 3")));
}

#[test]
fn replay_rebuilds_the_table_from_nothing() {
    let store = seven();
    assert_eq!(replayed(&store), at(&store, None).unwrap());
    let report = check(&store, None, None).unwrap();
    assert_eq!((report.from_sequence, report.to_sequence, report.events), (1, 7, 6));
    assert_eq!((report.replayed_rows, report.live_rows), (3, 3));
    assert!(equal(&report));
}

#[test]
fn replay_of_a_table_without_events_is_empty() {
    let store = MemoryStore::default();
    let columns = [column("id", "String", false)];
    Capture::default().declare(&store, 0, declaration("t", &columns, &["id"])).unwrap();
    assert_eq!(at(&store, None).unwrap(), []);
    assert_eq!(at(&store, Some(0)).unwrap(), []);
    let report = check(&store, None, None).unwrap();
    assert_eq!((report.from_sequence, report.to_sequence, report.events, report.live_rows), (1, 0, 0, 0));
    assert!(equal(&report));
}

#[test]
fn a_row_that_the_log_does_not_explain_is_found() {
    let tampered = |change: fn(&mut State)| {
        let store = seven();
        assert!(equal(&check(&store, None, None).unwrap()));
        store.change(change);
        check(&store, None, None).unwrap()
    };
    let added = tampered(|state| drop(state.rows.insert(("t".into(), "x".into()), "{}".into())));
    assert_eq!((added.replayed_rows, added.live_rows), (3, 4));
    let lost = tampered(|state| drop(state.rows.remove(&("t".into(), "d".into()))));
    assert_eq!((lost.replayed_rows, lost.live_rows), (3, 2));
    let changed = tampered(|state| drop(state.rows.insert(("t".into(), "d".into()), r#"{"id":"d","n":9}"#.into())));
    assert_eq!((changed.replayed_rows, changed.live_rows), (3, 3));
    assert!(!equal(&changed));
    let swapped = tampered(|state| {
        let image = state.rows.remove(&("t".into(), "d".into())).unwrap();
        state.rows.insert(("t".into(), "e".into()), image);
    });
    assert!(!equal(&swapped));
    let of_another_table = tampered(|state| drop(state.rows.insert(("z".into(), "x".into()), "{}".into())));
    assert!(equal(&of_another_table));
}

#[test]
fn a_row_that_was_changed_before_it_came_into_being_is_found_also_when_looked_at_in_the_past() {
    let store = seven();
    // As if event 1, the insert of `b`, had never been logged for this table.
    store.change(|state| state.events[0].table = "other".to_owned());
    let report = check(&store, Some(1), Some(2)).unwrap();
    assert_eq!((report.replayed_rows, report.live_rows), (1, 2));
}

#[test]
fn part_of_the_log_is_replayed_onto_the_table_before_it() {
    let store = seven();
    for from in 1..=7 {
        for to in from..=7 {
            let report = check(&store, Some(from), Some(to)).unwrap();
            let events = (from..=to).filter(|&sequence| sequence != 6).count() as u64;
            assert_eq!((report.from_sequence, report.to_sequence, report.events), (from, to, events));
            assert_eq!(report.live_rows, at(&store, Some(to)).unwrap().len() as u64);
            assert!(equal(&report), "{report:?}");
        }
    }
    // An update with a wrong after image is found by every range that ends with it or lies open at it.
    store.change(|state| state.events[1].after = Some("{}".to_owned()));
    assert!(!equal(&check(&store, Some(2), Some(2)).unwrap()));
    assert!(!equal(&check(&store, None, None).unwrap()));
    assert!(equal(&check(&store, Some(3), None).unwrap()));
}

#[test]
fn a_page_of_no_bytes_or_rows_still_holds_a_row() {
    let store = seven();
    for sequence in [None, Some(4), Some(3)] {
        let expected = at(&store, sequence).unwrap();
        for (max_rows, max_bytes) in [(0, 1 << 20), (10, 0), (0, 0), (1, 1)] {
            let snapshot = TableSnapshot::open(store.view().unwrap(), "t", sequence, ALL).unwrap();
            assert_eq!(all(snapshot, max_rows, max_bytes), expected);
        }
    }
}

proptest! {
    #![proptest_config(oracle::config(96))]

    /// At every sequence number that is kept, in pages of any size: the rows are the oracle's, and what the log says
    /// they should be.
    #[test]
    fn every_past_state_is_the_one_that_was(
        batches in oracle::batches(5, 10),
        dropped in 0..12_u64,
        max_rows in 1..5_u32,
        max_bytes in 0..100_u32,
        from in any::<u32>(),
        to in any::<u32>(),
    ) {
        let (store, oracle) = MemoryStore::filled(&batches);
        let newest = oracle.events.len() as u64;
        let dropped = dropped.min(newest);
        drop_until(&store, dropped);
        for (table, of_table) in &oracle.tables {
            let rows_at = |sequence| oracle.rows_at(table, sequence).into_iter().collect();
            let expected: Vec<Rows> = (0..=newest).map(rows_at).collect();
            let open = |at| TableSnapshot::open(store.view().unwrap(), table, at, ALL);
            prop_assert_eq!(&all(open(None).unwrap(), max_rows, max_bytes), &expected[newest as usize]);
            for sequence in 0..dropped.min(newest.saturating_sub(1)) {
                prop_assert_eq!(
                    open(Some(sequence)).map(drop),
                    Err(SnapshotError::Store(StoreError::Dropped(dropped + 1)))
                );
            }
            for sequence in dropped..=newest {
                let snapshot = open(Some(sequence)).unwrap();
                // The version that the last event until then names, where that is kept.
                let last = oracle.events[dropped as usize..sequence as usize].iter().rev().find(|e| &e.table == table);
                if let Some(last) = last.filter(|_| sequence < newest) {
                    prop_assert_eq!(snapshot.schema().version, last.schema_version);
                }
                prop_assert!(snapshot.schema().version <= of_table.versions.len() as u32);
                prop_assert_eq!(&all(snapshot, max_rows, max_bytes), &expected[sequence as usize]);
            }
            let replay = TableSnapshot::replay(store.view().unwrap(), table, ALL).unwrap();
            prop_assert_eq!(&all(replay, max_rows, max_bytes), &expected[newest as usize]);

            let kept = newest - dropped;
            if kept > 0 {
                let (from, to) = (dropped + 1 + u64::from(from) % kept, dropped + 1 + u64::from(to) % kept);
                let (from, to) = (from.min(to), from.max(to));
                let report = verify(&store.view().unwrap(), table, Some(from), Some(to), ALL).unwrap();
                let events = oracle.events[from as usize - 1..to as usize].iter().filter(|e| &e.table == table).count();
                prop_assert_eq!(report.events, events as u64);
                prop_assert_eq!(report.live_rows, expected[to as usize].len() as u64);
                prop_assert!(equal(&report), "{:?}", report);
            }
        }
    }
}
