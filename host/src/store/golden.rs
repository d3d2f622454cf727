//! Tests: the log's format, version 1, as bytes that are kept. Old files must be readable for ever, and today's writer
//! must write what it wrote before; a change of either is a new format version, with its own files.
//!
//! `CDC_BLESS=1` writes the files anew. A new version of the compressor may call for that, if the old ones still read.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::fs;
use std::path::PathBuf;

use super::contract::{all, batch, commit, insert, schema, sequences, text, write};
use super::log::footer;
use super::log::pack;
use super::log::recovery::{self, Tail};
use super::log::segment::file_name;
use super::*;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/log").join(name)
}

/// One of everything that a log can hold.
fn batches() -> Vec<Batch> {
    let origin = Origin {
        source: "orders-db".into(),
        transaction: Some("7421".into()),
        position: Some("0/16B3748".into()),
        snapshot: false,
    };
    let origin = Some(Arc::new(origin));
    let image = |i: u64| format!("{{\"id\":{i},\"name\":\"row {i}\",\"note\":\"{:x}\"}}", i.wrapping_mul(0x9E37_79B9));
    let mut batches = vec![
        Batch {
            schemas: vec![schema("users", 1, "{\"columns\":[]}")],
            ..batch(1_700_000_000_000, vec![insert("users", "1", &image(1)), insert("users", "2", &image(2))])
        },
        Batch {
            positions: vec![("orders-db".into(), "0/16B3748".into())],
            cursors: vec![("audit".into(), 2)],
            ..batch(1_700_000_000_005, vec![])
        },
        batch(
            1_700_000_000_010,
            vec![
                Write {
                    before: Some(text(image(1))),
                    origin: origin.clone(),
                    ..write("users", "1", Operation::Update, Some(&image(10)))
                },
                Write { before: Some(text(image(2))), origin, ..write("users", "2", Operation::Delete, None) },
                write("orders", "", Operation::Truncate, None),
            ],
        ),
        // Compressed, and in more than one frame.
        batch(1_700_000_000_020, (0..30).map(|i| insert("orders", &i.to_string(), &image(i).repeat(150))).collect()),
    ];
    batches.extend((0..40).map(|i| batch(1_700_000_001_000 + i, vec![insert("users", &format!("s{i}"), &image(i))])));
    batches
}

fn events() -> Vec<Event> {
    let mut events = Vec::new();
    for batch in batches() {
        for write in batch.writes {
            events.push(Event { sequence: events.len() as u64 + 1, timestamp_ms: batch.timestamp_ms, write });
        }
    }
    events
}

/// As written, as sealed, as packed.
fn written() -> [(&'static str, Vec<u8>); 3] {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
    for batch in batches() {
        commit(&*store, batch).unwrap();
    }
    drop(store);
    let mut bytes = fs::read(dir.path().join("log").join(file_name(1))).unwrap();
    let scan = recovery::scan(1, &bytes, |_, _| ()).unwrap();
    assert_eq!(scan.tail, Tail::Clean);
    bytes.truncate(scan.index.end as usize);
    let mut sealed = bytes.clone();
    sealed.extend(footer::encode(&scan.index, false));
    let (mut packed, index) = pack::repack(1, &bytes).unwrap();
    packed.extend(footer::encode(&index, true));
    [("v1-written.seg", bytes), ("v1-sealed.seg", sealed), ("v1-packed.seg", packed)]
}

#[test]
fn todays_writer_writes_format_1_byte_for_byte() {
    for (name, bytes) in written() {
        if std::env::var_os("CDC_BLESS").is_some() {
            fs::create_dir_all(file("")).unwrap();
            fs::write(file(name), &bytes).unwrap();
        }
        assert!(fs::read(file(name)).unwrap() == bytes, "{name} is not what is written now");
    }
}

#[test]
fn kept_files_of_format_1_are_read() {
    for name in ["v1-written.seg", "v1-sealed.seg", "v1-packed.seg"] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        fs::copy(file(name), dir.path().join("log").join(file_name(1))).unwrap();
        assert_eq!(verify(dir.path()).unwrap().findings, [], "{name}");
        let mut options = EmbeddedOptions::new(dir.path());
        options.retention = Retention::unlimited();
        let store = EmbeddedStore::open(options).unwrap();
        let view = store.view().unwrap();
        assert_eq!(view.events(&all()).unwrap().events, events(), "{name}");
        assert_eq!(view.schema("users", None), Some(schema("users", 1, "{\"columns\":[]}")));
        assert_eq!(view.position("orders-db").as_deref(), Some("0/16B3748"));
        assert_eq!(view.cursor("audit"), Some(2));
        assert_eq!(view.row("users", "2").unwrap(), None);
        assert_eq!(view.counters().tables[0].by_operation, [30, 0, 0, 1]);
        assert_eq!(sequences(&*view, &EventRange { key: Some("s7"), ..all() }).0, [43]);
        let range = EventRange { since_ms: Some(1_700_000_001_037), ..all() };
        assert_eq!(sequences(&*view, &range).0, [74, 75]);
        let range = EventRange { operation: Some(Operation::Delete), newest_first: true, ..all() };
        assert_eq!(sequences(&*view, &range).0, [4]);
        drop(view);
        assert_eq!(commit(&*store, batch(1_800_000_000_000, vec![insert("users", "new", "{}")])).unwrap(), 76);
    }
}

#[test]
fn damaged_bytes_are_never_a_panic() {
    let (_, bytes) = written().into_iter().next_back().unwrap();
    let mut seed = 1u64;
    for _ in 0..300 {
        let mut bytes = bytes[..2000].to_vec();
        for _ in 0..4 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = (seed >> 20) as u8;
        }
        recover_bytes(&bytes);
    }
    recover_bytes(&[]);
    assert!(recover_bytes(&bytes) > 0);
}
