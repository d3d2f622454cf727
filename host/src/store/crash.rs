//! Tests: what a start makes of a data folder after a crash, after damage, and after someone's `rm`.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::contract::{
    all, batch, collection, commit, document, documents, insert, schema, sequences, text, tiny, write,
};
use super::log::frame::{self, HEADER, Header};
use super::log::recovery::{self, Tail};
use super::log::segment::{SEGMENT_HEADER, encode_header, file_name};
use super::memory::MemoryStore;
use super::*;

fn open(dir: &Path) -> Result<Arc<EmbeddedStore>, OpenError> {
    let mut options = EmbeddedOptions::new(dir);
    options.retention = Retention::unlimited();
    EmbeddedStore::open(options)
}

/// A folder with three batches and no checkpoint, as a crash leaves it.
fn crashed() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    commit(&*store, batch(1, vec![insert("t", "a", "1"), insert("t", "b", "1")])).unwrap();
    commit(&*store, batch(2, vec![write("t", "a", Operation::Update, Some("2"))])).unwrap();
    commit(&*store, batch(3, vec![insert("t", "c", "3"), insert("t", "d", "3")])).unwrap();
    drop(store);
    let segment = dir.path().join("log").join(file_name(1));
    (dir, segment)
}

/// Offset and length of each frame of a segment's bytes.
fn frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER;
    while let Ok(header) = Header::decode(&bytes[at..]) {
        found.push((at, header.len() as usize));
        at += header.len() as usize;
    }
    found
}

fn newest(store: &dyn Store) -> Sequence {
    store.view().unwrap().bounds().newest
}

#[test]
fn a_write_torn_at_any_byte_costs_only_itself() {
    let (dir, segment) = crashed();
    let whole = fs::read(&segment).unwrap();
    let frames = frames(&whole);
    assert_eq!(frames.len(), 3);
    let (last, len) = frames[2];
    for cut in last..last + len {
        for tail in ["nothing", "zeros", "garbage"] {
            let mut bytes = whole.clone();
            match tail {
                "nothing" => bytes.truncate(cut),
                "zeros" => bytes[cut..].fill(0),
                _ => bytes[cut..last + len + 100].iter_mut().enumerate().for_each(|(i, b)| *b = (i * 7 + 13) as u8),
            }
            let scan = recovery::scan(1, &bytes, |_, _| ()).unwrap();
            assert_eq!(scan.index.next, 4, "cut at {cut}, {tail}");
            assert!(!matches!(scan.tail, Tail::Damaged(..)), "cut at {cut}, {tail}");
            // The whole way through a start is slower, so only for some.
            if cut % 40 == 0 || cut == last + len - 1 {
                fs::write(&segment, &bytes).unwrap();
                let store = open(dir.path()).unwrap();
                assert_eq!(newest(&*store), 3);
                assert_eq!(store.view().unwrap().row("t", "a").unwrap(), Some(text("2")));
                assert_eq!(store.view().unwrap().row("t", "c").unwrap(), None);
                assert_eq!(commit(&*store, batch(9, vec![insert("t", "e", "5")])).unwrap(), 4);
                drop(store);
                assert_eq!(newest(&*open(dir.path()).unwrap()), 4);
                fs::remove_file(dir.path().join("views.redb")).unwrap();
            }
        }
    }
}

#[test]
fn what_is_cut_off_is_kept() {
    let (dir, segment) = crashed();
    let mut bytes = fs::read(&segment).unwrap();
    let (last, len) = frames(&bytes)[2];
    bytes.truncate(last + len - 1);
    fs::write(&segment, &bytes).unwrap();
    drop(open(dir.path()).unwrap());
    let kept = fs::read(segment.with_extension("seg.torn")).unwrap();
    assert_eq!(kept, &bytes[last..]);
}

#[test]
fn a_batch_of_several_frames_is_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    commit(&*store, batch(1, vec![insert("t", "a", "1")])).unwrap();
    let large = (0..5000).map(|i| insert("t", &format!("k{i}"), &format!("{i:0100}"))).collect();
    commit(&*store, Batch { schemas: vec![schema("t", 1, "s")], ..batch(2, large) }).unwrap();
    drop(store);
    let segment = dir.path().join("log").join(file_name(1));
    let whole = fs::read(&segment).unwrap();
    let frames = frames(&whole);
    assert!(frames.len() > 3, "the batch takes several frames");
    for (at, len) in &frames[1..] {
        for cut in [*at, at + HEADER / 2, at + len / 2, at + len - 1] {
            let scan = recovery::scan(1, &whole[..cut], |_, _| ()).unwrap();
            assert_eq!(scan.index.next, 2);
        }
    }
    let (last, len) = frames[frames.len() - 1];
    fs::write(&segment, &whole[..last + len - 1]).unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(newest(&*store), 1);
    assert!(store.head_schema("t").is_none());
}

#[test]
fn writes_of_one_sync_may_be_torn_in_any_order() {
    // Three batches written together: the sync never finished, and the disk kept the first and the third only.
    let mut bytes = encode_header(1).to_vec();
    let mut starts = Vec::new();
    for i in 0..3 {
        let mut encoded = frame::encode(&batch(1, vec![insert("t", "k", "v")]), i + 1);
        encoded.finish(SEGMENT_HEADER as u32);
        starts.push(bytes.len());
        bytes.extend_from_slice(&encoded.bytes);
    }
    bytes[starts[1] + 20] ^= 1;
    let scan = recovery::scan(1, &bytes, |_, _| ()).unwrap();
    assert_eq!(scan.index.next, 2);
    assert!(matches!(scan.tail, Tail::Torn(_)));
}

#[test]
fn damage_to_what_was_acknowledged_is_refused_and_named() {
    let (dir, segment) = crashed();
    let whole = fs::read(&segment).unwrap();
    let (at, len) = frames(&whole)[1];
    for offset in at..at + len {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1 << (offset % 8);
        let scan = recovery::scan(1, &bytes, |_, _| ()).unwrap();
        assert!(matches!(scan.tail, Tail::Damaged(place, _) if place == at as u64), "bit flip at {offset}");
    }
    let mut bytes = whole.clone();
    bytes[at + len - 1] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Corrupt { file, offset, .. } if *file == segment && *offset == at as u64));
    let message = error.to_string();
    assert!(message.contains("00000001.seg") && message.contains(&at.to_string()) && message.contains("backup"));
    assert_eq!(fs::read(&segment).unwrap(), bytes, "nothing was changed");
}

#[test]
fn damage_in_a_sealed_segment_is_named_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let fill = |store: &EmbeddedStore| {
        for i in 0..600 {
            commit(store, batch(i, vec![insert("t", &format!("{i}"), &format!("{i:0200}"))])).unwrap();
        }
    };
    let open = || {
        let mut options = EmbeddedOptions::new(dir.path());
        options.retention = Retention::unlimited();
        options.segment_bytes = 64 << 10;
        EmbeddedStore::open(options)
    };
    let store = open().unwrap();
    fill(&store);
    store.close().unwrap();
    drop(store);
    let segment = dir.path().join("log").join(file_name(1));
    let clean = fs::read(&segment).unwrap();

    // A frame.
    let mut bytes = clean.clone();
    bytes[SEGMENT_HEADER + HEADER + 20] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let store = open().unwrap();
    let error = store.view().unwrap().events(&all()).unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt(message) if message.contains("00000001.seg") && message.contains(" 64"))
    );
    assert!(store.view().unwrap().events(&EventRange { after: 500, ..all() }).is_ok(), "the rest is readable");
    drop(store);

    // The footer: nothing is lost.
    let mut bytes = clean.clone();
    let len = bytes.len();
    bytes[len - 100] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let store = open().unwrap();
    let view = store.view().unwrap();
    assert_eq!(sequences(&*view, &EventRange { key: Some("7"), ..all() }), (vec![8], true));
    assert_eq!(sequences(&*view, &all()).0.len(), 600);
    drop((view, store));

    // The trailer as well.
    let mut bytes = clean.clone();
    bytes[len - 1] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let store = open().unwrap();
    assert_eq!(sequences(&*store.view().unwrap(), &EventRange { key: Some("7"), ..all() }), (vec![8], true));
}

#[test]
fn without_views_row_state_is_rebuilt_while_the_log_reaches_back() {
    let (dir, segment) = crashed();
    let store = open(dir.path()).unwrap();
    let before = store.view().unwrap();
    let (rows, counters) = (before.scan("t", None, 99, 9999).unwrap(), before.counters());
    drop(before);
    store.close().unwrap();
    drop(store);
    fs::remove_file(dir.path().join("views.redb")).unwrap();
    let store = open(dir.path()).unwrap();
    let view = store.view().unwrap();
    assert_eq!((view.scan("t", None, 99, 9999).unwrap(), view.counters()), (rows, counters));
    drop(view);
    store.close().unwrap();
    drop(store);

    fs::rename(&segment, segment.with_file_name(file_name(9))).unwrap();
    fs::remove_file(dir.path().join("views.redb")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Missing { reason, .. } if reason.contains("cannot be rebuilt")), "{error}");
}

#[test]
fn a_log_that_lacks_acknowledged_events_is_refused() {
    let (dir, segment) = crashed();
    let store = open(dir.path()).unwrap();
    store.close().unwrap();
    drop(store);
    let bytes = fs::read(&segment).unwrap();
    let (last, _) = frames(&bytes)[2];
    fs::write(&segment, &bytes[..last]).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Missing { reason, .. } if reason.contains("are missing")), "{error}");

    fs::remove_dir_all(dir.path().join("log")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Missing { reason, .. } if reason.contains("the folder is missing")), "{error}");
}

#[test]
fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(dir.path());
    options.segment_bytes = 64 << 10;
    let store = EmbeddedStore::open(options.clone()).unwrap();
    for i in 0..3000 {
        commit(&*store, batch(i, vec![insert("t", &format!("{i}"), &format!("{i:0200}"))])).unwrap();
    }
    store.close().unwrap();
    drop(store);
    let mut names: Vec<_> = fs::read_dir(dir.path().join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() > 2);
    fs::remove_file(&names[1]).unwrap();
    let error = EmbeddedStore::open(options).unwrap_err();
    assert!(matches!(&error, OpenError::Missing { path, .. } if *path == names[2]), "{error}");
}

#[test]
fn a_position_that_was_forgotten_stays_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    for (position, wanted) in [("0/1", Some("0/1")), ("", None), ("0/2", Some("0/2"))] {
        let store = open(dir.path()).unwrap();
        commit(&*store, Batch { positions: vec![("pg".into(), position.into())], ..batch(1, vec![]) }).unwrap();
        // Closing checkpoints, so the next one starts from the views and not from the log.
        store.close().unwrap();
        drop(store);
        let store = open(dir.path()).unwrap();
        assert_eq!(store.view().unwrap().position("pg").as_deref(), wanted);
    }
}

#[test]
fn newer_formats_are_refused_by_name() {
    let (dir, segment) = crashed();
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&4u32.to_le_bytes(), 8).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::NewerFormat { file, found: 4, known: 3 } if *file == segment));
    assert!(error.to_string().contains("version 4") && error.to_string().contains("up to 3"));

    file.write_all_at(&3u32.to_le_bytes(), 8).unwrap();
    open(dir.path()).unwrap().close().unwrap();
    let views = dir.path().join("views.redb");
    let db = redb::Database::create(&views).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 7).unwrap();
    write.commit().unwrap();
    drop(db);
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::NewerFormat { file, found: 7, known: 2 } if *file == views));
}

#[test]
fn a_folder_has_one_owner() {
    let (dir, _) = crashed();
    let store = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Locked { pid, .. } if *pid == Some(std::process::id())));
    let dir_name = dir.path().display().to_string();
    assert!(error.to_string().contains(&dir_name) && error.to_string().contains(&std::process::id().to_string()));
    drop(store);
    open(dir.path()).unwrap();
}

#[test]
fn folders_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let error = open(&file).unwrap_err();
    assert!(matches!(&error, OpenError::Folder { path, .. } if *path == file), "{error}");
    assert!(error.to_string().contains("Choose a data folder"));
    fs::write(dir.path().join("log"), "in the way").unwrap();
    assert!(matches!(open(dir.path()).unwrap_err(), OpenError::Folder { .. }));
    fs::remove_file(dir.path().join("log")).unwrap();
    fs::write(dir.path().join("views.redb"), "no database").unwrap();
    assert!(matches!(open(dir.path()).unwrap_err(), OpenError::Views { .. }));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(dir.path());
    options.segment_bytes = 1;
    assert!(matches!(EmbeddedStore::open(options).unwrap_err(), OpenError::Option(_)));
}

#[test]
fn a_checkpoint_cut_short_is_completed_by_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let fill = |store: &EmbeddedStore, image: &str| {
        let writes = (0..600).map(|i| insert("t", &format!("{:03}", i * 7 % 600), &format!("{image}{i:0200}")));
        commit(store, batch(1, writes.collect())).unwrap();
    };
    let store = open(dir.path()).unwrap();
    fill(&store, "old");
    store.close().unwrap();
    drop(store);
    let store = open(dir.path()).unwrap();
    fill(&store, "new");
    commit(&*store, batch(2, (0..100).map(|i| write("t", &format!("{i:03}"), Operation::Delete, None)).collect()))
        .unwrap();
    drop(store);

    // The checkpoint of that, and what is on disk after each of its commits.
    let mut options = EmbeddedOptions::new(dir.path());
    options.retention = Retention::unlimited();
    let opened = open::open(options).unwrap();
    let version = opened.shared.lock_head().version.clone();
    let views = dir.path().join("views.redb");
    let mut images = Vec::new();
    let keeper = opened.keeper;
    let partly = |_| images.push(fs::read(&views).unwrap());
    keeper.views.write(&version.rows.active, &version.facts, &keeper.written, &Retention::unlimited(), partly).unwrap();
    drop((keeper.views, version, opened.shared, opened.appender, opened.lock));
    assert!(images.len() > 5);
    for image in images.iter().step_by(4) {
        fs::write(&views, image).unwrap();
        assert_eq!(verify(dir.path()).unwrap().findings, []);
        let store = open(dir.path()).unwrap();
        let view = store.view().unwrap();
        let rows = view.scan("t", None, 9999, usize::MAX).unwrap();
        assert_eq!(rows.len(), 500);
        assert!(rows.iter().all(|row| row.image.starts_with(b"new")));
        assert_eq!(view.counters().tables[0].by_operation, [1200, 0, 100, 0]);
    }
}

#[test]
fn documents_outlive_a_crash_a_checkpoint_and_both() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let key = |i: u16| i.to_be_bytes().to_vec();
    let some = (0..500).map(|i| document("kept", key(i), Some(&format!("{i:0100}"))));
    let gone = (0..500).map(|i| document("gone", key(i), Some("x")));
    commit(&*store, Batch { cursors: vec![("s".into(), 1)], ..documents(&*store, some.chain(gone).collect()) })
        .unwrap();
    let is_whole = |store: &EmbeddedStore, first: &str| {
        let view = store.view().unwrap();
        let kept = collection(&*view, "kept");
        assert_eq!((kept.len(), &kept[0].1[..], view.cursor("s")), (500, first.as_bytes(), Some(1)));
        kept
    };
    is_whole(&store, &format!("{:0100}", 0));
    drop(store);
    let store = open(dir.path()).unwrap();
    is_whole(&store, &format!("{:0100}", 0));
    assert_eq!(collection(&*store.view().unwrap(), "gone").len(), 500);
    store.close().unwrap();
    drop(store);
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.findings, report.documents, report.rows), (vec![], 1000, 0));

    // On top of a checkpoint: a value replaced, a collection removed.
    let store = open(dir.path()).unwrap();
    commit(&*store, documents(&*store, vec![document("kept", key(0), Some("new")), document("gone", "", None)]))
        .unwrap();
    drop(store);
    let store = open(dir.path()).unwrap();
    is_whole(&store, "new");
    assert_eq!(collection(&*store.view().unwrap(), "gone"), []);
    store.close().unwrap();
    drop(store);
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.findings, report.documents), (vec![], 500));
    assert!(fs::metadata(dir.path().join("views.redb")).unwrap().len() > 0);

    // Without the checkpoint, from the log.
    fs::remove_file(dir.path().join("views.redb")).unwrap();
    let store = open(dir.path()).unwrap();
    is_whole(&store, "new");
    assert_eq!(collection(&*store.view().unwrap(), "gone"), []);
}

#[test]
fn a_batch_of_many_documents_is_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    commit(&*store, batch(1, vec![insert("t", "a", "1")])).unwrap();
    let many = (0..3000u16).map(|i| document("c", i.to_be_bytes().to_vec(), Some(&format!("{i:0100}")))).collect();
    let cursors = vec![("s".into(), 1)];
    commit(&*store, Batch { writes: vec![insert("t", "b", "2")], cursors, ..documents(&*store, many) }).unwrap();
    drop(store);
    let segment = dir.path().join("log").join(file_name(1));
    let whole = fs::read(&segment).unwrap();
    let frames = frames(&whole);
    assert!(frames.len() > 4, "the batch takes several frames");
    for (at, len) in &frames[1..] {
        for cut in [*at, at + HEADER / 2, at + len / 2, at + len - 1] {
            assert_eq!(recovery::scan(1, &whole[..cut], |_, _| ()).unwrap().index.next, 2);
        }
    }
    let (last, len) = frames[frames.len() - 1];
    fs::write(&segment, &whole[..last + len - 1]).unwrap();
    let store = open(dir.path()).unwrap();
    let view = store.view().unwrap();
    assert_eq!((newest(&*store), view.cursor("s"), collection(&*view, "c")), (1, None, vec![]));
    drop((view, store));
    fs::remove_file(dir.path().join("views.redb")).unwrap();
    fs::write(&segment, &whole).unwrap();
    let store = open(dir.path()).unwrap();
    let view = store.view().unwrap();
    assert_eq!((newest(&*store), view.cursor("s"), collection(&*view, "c").len()), (2, Some(1), 3000));
}

#[test]
fn a_collection_made_again_after_a_checkpoint_cut_short_has_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let views = dir.path().join("views.redb");
    let store = open(dir.path()).unwrap();
    commit(&*store, documents(&*store, vec![document("a", "old", Some("1"))])).unwrap();
    commit(&*store, documents(&*store, vec![document("a", "", None), document("a", "new", Some("1"))])).unwrap();
    store.close().unwrap();
    drop(store);
    let before = fs::read(&views).unwrap();
    let name = |i: u8| format!("b{i}");
    let batch = Batch { documents: (0..20).map(|i| document(&name(i), "k", Some("2"))).collect(), ..batch(0, vec![]) };
    let store = open(dir.path()).unwrap();
    commit(&*store, batch.clone()).unwrap();
    drop(store);
    fs::write(&views, before).unwrap();

    // A checkpoint of that by the process which wrote the first one, and what is on disk after each of its commits. The
    // next start replays what made the first collection again, and numbers all that come after otherwise.
    let mut options = EmbeddedOptions::new(dir.path());
    options.retention = Retention::unlimited();
    let opened = open::open(options).unwrap();
    let keeper = opened.keeper;
    let written = &keeper.written;
    let rows = rows::Rows::new(Arc::new(keeper.views.base(0).unwrap()));
    let mut version = shared::Version { ordinal: 0, facts: written.clone(), rows };
    version.apply(&batch, &Retention::unlimited());
    let mut images = Vec::new();
    let partly = |_| images.push(fs::read(&views).unwrap());
    keeper.views.write(&version.rows.active, &version.facts, written, &Retention::unlimited(), partly).unwrap();
    drop((keeper.views, version, opened.shared, opened.appender, opened.lock));
    assert!(images.len() > 2);
    for image in images {
        fs::write(&views, image).unwrap();
        assert_eq!(verify(dir.path()).unwrap().findings, []);
        let store = open(dir.path()).unwrap();
        let view = store.view().unwrap();
        assert_eq!(collection(&*view, "a"), [(text("new"), text("1"))]);
        assert!((0..20).all(|i| collection(&*view, &name(i)) == [(text("k"), text("2"))]));
    }
}

/// What may happen to a store.
#[derive(Clone, Debug)]
enum Step {
    Commit(Batch),
    /// The process dies, while this many bytes of another batch reach the disk.
    Crash(Batch, prop::sample::Index),
    Close,
    Checkpointed,
}

fn arb_write() -> impl Strategy<Value = Write> {
    let table = prop::sample::select(vec!["a", "b"]);
    let operation = prop::sample::select(vec![0, 0, 0, 1, 1, 2, 3]);
    (table, 0..40u8, operation, 0..300usize).prop_map(|(table, key, operation, size)| match operation {
        0 => insert(table, &format!("k{key}"), &format!("{size:0size$}")),
        1 => Write {
            before: Some(text("b")),
            ..write(table, &format!("k{key}"), Operation::Update, Some(&"xy".repeat(size)))
        },
        2 => write(table, &format!("k{key}"), Operation::Delete, None),
        _ => write(table, "", Operation::Truncate, None),
    })
}

fn arb_document() -> impl Strategy<Value = Document> {
    let name = prop::sample::select(vec!["a", "x"]);
    (name, 0..30u8, 0..200usize, 0..20u8).prop_map(|(name, key, size, kind)| match kind {
        0 => document(name, "", None),
        1..4 => document(name, vec![key, 0xff], None),
        _ => document(name, vec![key, 0xff], Some(&format!("{size:0size$}"))),
    })
}

fn arb_batch() -> impl Strategy<Value = Batch> {
    let writes = prop_oneof![2 => prop::collection::vec(arb_write(), 0..40), 1 => Just(vec![])];
    let documents = prop_oneof![1 => prop::collection::vec(arb_document(), 0..40), 1 => Just(vec![])];
    (writes, documents, any::<bool>(), 1..1000u64).prop_map(|(writes, documents, notes, number)| Batch {
        documents,
        positions: if notes { vec![("pg".into(), number.to_string())] } else { vec![] },
        cursors: if notes { vec![("s".into(), number)] } else { vec![] },
        schemas: if number % 9 == 0 { vec![schema("a", number as u32, "{}")] } else { vec![] },
        ..batch(1_000_000, writes)
    })
}

fn arb_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => arb_batch().prop_map(Step::Commit),
        2 => (arb_batch(), any::<prop::sample::Index>()).prop_map(|(batch, cut)| Step::Crash(batch, cut)),
        1 => Just(Step::Close),
        1 => Just(Step::Checkpointed),
    ];
    prop::collection::vec(step, 1..30)
}

/// Everything that two stores can be asked.
fn assert_same(store: &dyn Store, model: &dyn Store) {
    let (view, wanted) = (store.view().unwrap(), model.view().unwrap());
    assert_eq!(view.bounds(), wanted.bounds());
    assert_eq!(store.head().sequence, model.head().sequence);
    assert_eq!(view.counters(), wanted.counters());
    assert_eq!((view.cursor("s"), view.position("pg")), (wanted.cursor("s"), wanted.position("pg")));
    assert_eq!(view.schema_history("a"), wanted.schema_history("a"));
    for name in ["a", "x"] {
        assert_eq!(collection(&*view, name), collection(&*wanted, name));
        let page = |view: &dyn View| view.documents(name, Some(&[9]), 3, 99).unwrap();
        assert_eq!(page(&*view), page(&*wanted));
        for key in [[1, 0xff], [29, 0xff]] {
            assert_eq!(view.document(name, &key).unwrap(), wanted.document(name, &key).unwrap());
            assert_eq!(store.head_document(name, &key).unwrap(), model.head_document(name, &key).unwrap());
        }
    }
    for table in ["a", "b"] {
        assert_eq!(view.scan(table, None, 999, 1 << 20).unwrap(), wanted.scan(table, None, 999, 1 << 20).unwrap());
        assert_eq!(view.scan(table, Some("k2"), 3, 99).unwrap(), wanted.scan(table, Some("k2"), 3, 99).unwrap());
        for key in ["k1", "k39"] {
            assert_eq!(view.row(table, key).unwrap(), wanted.row(table, key).unwrap());
        }
    }
    let keys: Vec<String> = (0..40).rev().map(|key| format!("k{key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for table in ["a", "b", "none"] {
        // All, some that lie together, and one twice.
        for keys in [&keys[..], &keys[3..7], &["k4", "k39", "k4"]] {
            assert_eq!(store.head_rows(table, keys).unwrap(), model.head_rows(table, keys).unwrap(), "{keys:?}");
        }
    }
    let newest = view.bounds().newest;
    for newest_first in [false, true] {
        for range in [
            all(),
            EventRange { key: Some("k7"), ..all() },
            EventRange { table: Some("b"), max_events: 3, ..all() },
            EventRange { table: Some("a"), operation: Some(Operation::Truncate), ..all() },
            EventRange { operation: Some(Operation::Delete), max_bytes: 100, ..all() },
            EventRange { after: newest / 3, until: newest / 2, max_events: 5, ..all() },
        ] {
            let range = EventRange { newest_first, ..range };
            let (found, wanted) = (view.events(&range).unwrap(), wanted.events(&range).unwrap());
            assert_eq!((found.events, found.complete), (wanted.events, wanted.complete), "{range:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_store_that_crashes_is_the_model_that_does_not(steps in arb_steps()) {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let mut options = EmbeddedOptions::new(dir.path());
            options.retention = Retention::unlimited();
            tiny(&mut options);
            EmbeddedStore::open(options).unwrap()
        };
        let model = MemoryStore::new();
        let mut store = open();
        for step in steps {
            match step {
                Step::Commit(batch) => {
                    commit(&*model, batch.clone()).unwrap();
                    commit(&*store, batch).unwrap();
                }
                Step::Crash(batch, cut) => {
                    drop(store);
                    let log = dir.path().join("log");
                    let last = fs::read_dir(&log).unwrap().map(|e| e.unwrap().path())
                        .filter(|path| path.extension().is_some_and(|e| e == "seg")).max().unwrap();
                    let bytes = fs::read(&last).unwrap();
                    let end = frames(&bytes).last().map_or(SEGMENT_HEADER, |(at, len)| at + len);
                    let mut torn = frame::encode(&batch, model.head().sequence + 1);
                    torn.finish(end as u32);
                    if bytes.len() >= SEGMENT_HEADER {
                        let part = &torn.bytes[..cut.index(torn.bytes.len())];
                        fs::OpenOptions::new().write(true).open(&last).unwrap()
                            .write_all_at(part, end as u64).unwrap();
                        // The file's space is zeros written ahead: a batch that lacks nothing but zeros is whole.
                        if fs::read(&last).unwrap()[end..].starts_with(&torn.bytes) {
                            commit(&*model, batch).unwrap();
                        }
                    }
                    store = open();
                }
                Step::Close => {
                    store.close().unwrap();
                    drop(store);
                    store = open();
                }
                Step::Checkpointed => assert_same(&*store, &*model),
            }
        }
        assert_same(&*store, &*model);
        drop(store);
        prop_assert_eq!(verify(dir.path()).unwrap().findings, []);
        assert_same(&*open(), &*model);
    }
}
