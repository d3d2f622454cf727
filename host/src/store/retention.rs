//! Tests: what is dropped, when, and what is not.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::contract::{all, batch, collection, commit, document, documents, insert, sequences, text};
use super::*;

fn open(dir: &Path, retention: Retention) -> Arc<EmbeddedStore> {
    let mut options = EmbeddedOptions::new(dir);
    options.retention = retention;
    options.segment_bytes = 64 << 10;
    EmbeddedStore::open(options).unwrap()
}

fn fill(store: &dyn Store, from: u64, to: u64, timestamp_ms: u64) {
    for i in from..to {
        commit(store, batch(timestamp_ms, vec![insert("t", &format!("{i}"), &format!("{i:0200}"))])).unwrap();
    }
}

fn oldest(store: &dyn Store) -> Sequence {
    store.view().unwrap().bounds().oldest
}

fn newest_events(events: u64) -> Retention {
    Retention { events: Some(events), ..Retention::default() }
}

#[test]
fn the_newest_events_are_kept_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), newest_events(100));
    fill(&*store, 0, 100, 1);
    assert_eq!(oldest(&*store), 1);
    fill(&*store, 100, 1000, 1);
    assert_eq!(oldest(&*store), 901);
    let view = store.view().unwrap();
    assert_eq!(sequences(&*view, &EventRange { after: 900, ..all() }).0.len(), 100);
    let dropped = EventRange { after: 899, ..all() };
    assert!(matches!(view.events(&dropped), Err(StoreError::Dropped { oldest: 901 })));
    assert!(matches!(view.events(&all()), Err(StoreError::Dropped { oldest: 901 })));
    assert!(view.events(&EventRange { after: 1000, ..all() }).unwrap().complete);
    assert_eq!(view.scan("t", None, 9999, usize::MAX).unwrap().len(), 1000, "rows stay");
    drop(view);
    drop(store);
    assert_eq!(oldest(&*open(dir.path(), newest_events(100))), 901, "after a crash");
}

#[test]
fn the_oldest_event_never_gets_older() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), newest_events(100));
    fill(&*store, 0, 500, 1);
    drop(store);
    let store = open(dir.path(), Retention::unlimited());
    assert_eq!(oldest(&*store), 401, "also when more is to be kept from now on");
    store.close().unwrap();
    drop(store);
    let store = open(dir.path(), newest_events(10));
    assert_eq!(oldest(&*store), 491, "fewer are to be kept from now on");
    fill(&*store, 500, 501, 1);
    assert_eq!(oldest(&*store), 492);
}

#[test]
fn segments_are_removed_and_views_that_read_them_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), newest_events(500));
    fill(&*store, 0, 400, 1);
    let view = store.view().unwrap();
    fill(&*store, 400, 3000, 1);
    store.close().unwrap();
    let names = std::fs::read_dir(dir.path().join("log")).unwrap().count();
    assert!(names <= 6, "{names} files are left");
    assert!(!dir.path().join("log").join(log::segment::file_name(1)).exists());
    assert_eq!(sequences(&*view, &all()).0.len(), 400);
    assert_eq!(sequences(&*view, &EventRange { key: Some("7"), ..all() }).0, [8]);
    drop((view, store));
    let store = open(dir.path(), newest_events(500));
    assert_eq!(oldest(&*store), 2501);
    assert_eq!(sequences(&*store.view().unwrap(), &EventRange { after: 2500, ..all() }).0.len(), 500);
}

#[test]
fn what_a_subscription_has_not_acknowledged_is_kept_up_to_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { unacknowledged_events: 300, ..newest_events(100) };
    let store = open(dir.path(), retention);
    let cursor = |sequence| Batch { cursors: vec![("slow".into(), sequence)], ..batch(1, vec![]) };
    commit(&*store, cursor(50)).unwrap();
    fill(&*store, 0, 200, 1);
    assert_eq!(oldest(&*store), 51);
    commit(&*store, cursor(80)).unwrap();
    assert_eq!(oldest(&*store), 81);
    fill(&*store, 200, 500, 1);
    assert_eq!(oldest(&*store), 201, "the limit");
    commit(&*store, cursor(Sequence::MAX)).unwrap();
    assert_eq!(oldest(&*store), 401, "the subscription is gone");
}

#[test]
fn a_subscription_that_lost_events_sees_it_in_the_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Retention { unacknowledged_events: 20, ..newest_events(10) });
    commit(&*store, Batch { cursors: vec![("slow".into(), 0)], ..batch(1, vec![]) }).unwrap();
    let is_lost = || {
        let view = store.view().unwrap();
        view.bounds().oldest > view.cursor("slow").unwrap() + 1
    };
    fill(&*store, 0, 20, 1);
    assert!(!is_lost());
    fill(&*store, 20, 21, 1);
    assert!(is_lost(), "event 1 is not kept");
    commit(&*store, Batch { cursors: vec![("slow".into(), 21)], ..batch(1, vec![]) }).unwrap();
    assert!(!is_lost());
}

/// Names and size of the log's segments.
fn segments(dir: &Path) -> (Vec<String>, u64) {
    let entries = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap());
    let mut segments: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .filter(|(name, _)| name.ends_with(".seg"))
        .collect();
    segments.sort();
    let size = segments.iter().map(|(_, len)| len).sum();
    (segments.into_iter().map(|(name, _)| name).collect(), size)
}

#[test]
fn a_log_of_documents_alone_does_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Retention::unlimited());
    fill(&*store, 0, 3, 1);
    // Text that no compression makes small.
    let value = |i: u64| -> String {
        (0..60)
            .map(|part| format!("{:016x}", (i * 60 + part + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)))
            .collect()
    };
    let put = |store: &EmbeddedStore, from: u64, to: u64| {
        for i in from..to {
            commit(store, documents(store, vec![document("c", vec![i as u8 % 8], Some(&value(i)))])).unwrap();
        }
    };
    put(&store, 0, 500);
    let (names, _) = segments(dir.path());
    assert!(names.len() > 4 && names[1].starts_with("00000000000000000004"), "{names:?}");
    // Nothing is in a checkpoint yet: all of it is needed.
    drop(store);
    let store = open(dir.path(), Retention::unlimited());
    assert_eq!(store.view().unwrap().document("c", &[3]).unwrap(), Some(text(value(499))));
    put(&store, 500, 700);
    store.close().unwrap();
    drop(store);
    let (names, size) = segments(dir.path());
    assert!(names.len() <= 2 && size < 200_000, "{names:?} {size}");
    assert_eq!(verify(dir.path()).unwrap().findings, []);
    let store = open(dir.path(), Retention::unlimited());
    put(&store, 700, 703);
    fill(&*store, 3, 5, 1);
    put(&store, 703, 900);
    drop(store);
    assert_eq!(verify(dir.path()).unwrap().findings, []);
    let store = open(dir.path(), Retention::unlimited());
    let view = store.view().unwrap();
    assert_eq!(sequences(&*view, &all()).0, [1, 2, 3, 4, 5]);
    assert_eq!(sequences(&*view, &EventRange { newest_first: true, max_events: 2, ..all() }).0, [5, 4]);
    assert_eq!(view.document("c", &[3]).unwrap(), Some(text(value(899))));
    assert_eq!(view.document("c", &[0]).unwrap(), Some(text(value(896))));
}

#[test]
fn documents_behind_the_last_event_outlive_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(dir.path());
    options.retention = newest_events(1);
    options.segment_bytes = 64 << 10;
    // Only when the log asks for it.
    options.checkpoint_every = Duration::from_secs(3600);
    let store = EmbeddedStore::open(options.clone()).unwrap();
    let mut put = 0;
    for i in 0..400u64 {
        fill(&*store, i, i + 1, 1);
        commit(&*store, documents(&*store, vec![document("c", i.to_be_bytes().to_vec(), Some("v"))])).unwrap();
        put += 1;
        if i % 50 == 0 {
            // A checkpoint, which drops what it may; then a crash.
            store.close().unwrap_or_default();
            break;
        }
    }
    drop(store);
    for round in 0..6u64 {
        let store = EmbeddedStore::open(options.clone()).unwrap();
        assert_eq!(collection(&*store.view().unwrap(), "c").len(), put, "round {round}");
        let big: Vec<_> = (0..70).map(|i| insert("t", &format!("{i}"), &format!("{i:01000}"))).collect();
        commit(&*store, batch(1, big)).unwrap();
        let some = (0..5u8).map(|i| document("c", vec![round as u8, i], Some("v"))).collect();
        commit(&*store, documents(&*store, some)).unwrap();
        put += 5;
        if round % 2 == 0 {
            store.close().unwrap();
        }
    }
}

#[test]
fn old_events_are_dropped() {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { age_ms: Some(3_600_000), ..Retention::unlimited() };
    let store = open(dir.path(), retention);
    fill(&*store, 0, 700, now_ms - 3_700_000);
    fill(&*store, 700, 750, now_ms - 1000);
    store.close().unwrap();
    drop(store);
    let store = open(dir.path(), retention);
    assert_eq!(oldest(&*store), 701);
    assert_eq!(sequences(&*store.view().unwrap(), &EventRange { after: 700, ..all() }).0.len(), 50);
}

#[test]
fn a_large_log_is_cut_by_whole_segments() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { bytes: Some(200 << 10), ..Retention::unlimited() };
    let store = open(dir.path(), retention);
    fill(&*store, 0, 3000, 1);
    store.close().unwrap();
    drop(store);
    let store = open(dir.path(), retention);
    assert!(store.metrics().log_bytes < 400 << 10, "{}", store.metrics().log_bytes);
    let oldest = oldest(&*store);
    assert!(oldest > 1);
    assert_eq!(
        sequences(&*store.view().unwrap(), &EventRange { after: oldest - 1, ..all() }).0.len() as u64,
        3001 - oldest
    );
}

#[test]
fn checkpoints_come_by_time_without_another_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(dir.path());
    options.checkpoint_every = Duration::from_millis(1);
    let store = EmbeddedStore::open(options).unwrap();
    fill(&*store, 0, 3, 1);
    while store.metrics().checkpoint_sequence < 3 || store.metrics().overlay_entries > 0 {
        std::thread::yield_now();
    }
    assert_eq!(store.view().unwrap().scan("t", None, 9, 9999).unwrap().len(), 3);
}
