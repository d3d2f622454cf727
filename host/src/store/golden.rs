//! Tests: the log's format, versions 1 to 3, as bytes that are kept. Old files must be readable for ever, and today's
//! writer must write version 3 as it did before; a change of either is a new format version, with its own files.
//!
//! `CDC_BLESS=1` writes the files anew. A new version of the compressor may call for that, if the old ones still read.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::fs;
use std::path::PathBuf;

use super::contract::{all, batch, collection, commit, document, insert, schema, sequences, text, write};
use super::log::footer;
use super::log::pack;
use super::log::recovery::{self, Tail};
use super::log::segment::file_name;
use super::*;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/log").join(name)
}

/// One of everything that a log of version 1 can hold; as version 3 has it, with what else an origin tells there.
fn batches_1(version: u32) -> Vec<Batch> {
    let origin = Origin {
        source: "orders-db".into(),
        transaction: Some("7421".into()),
        snapshot: false,
        committed_at_ms: (version >= 3).then_some(1_700_000_000_009),
        unavailable: (version >= 3).then(|| "[\"note\"]".into()),
    };
    let origin = Some(Arc::new(origin));
    let position = Some(text("0/16B3748"));
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
                    position: position.clone(),
                    ..write("users", "1", Operation::Update, Some(&image(10)))
                },
                Write {
                    before: Some(text(image(2))),
                    origin,
                    position,
                    ..write("users", "2", Operation::Delete, None)
                },
                write("orders", "", Operation::Truncate, None),
            ],
        ),
        // Compressed, and in more than one frame.
        batch(1_700_000_000_020, (0..30).map(|i| insert("orders", &i.to_string(), &image(i).repeat(150))).collect()),
    ];
    batches.extend((0..40).map(|i| batch(1_700_000_001_000 + i, vec![insert("users", &format!("s{i}"), &image(i))])));
    batches
}

/// Documents as well: alone, with others, in one frame and in several, set and removed.
fn batches() -> Vec<Batch> {
    let mut batches = batches_1(3);
    let replica =
        |i: u32| document("replica:rows", i.to_be_bytes().to_vec(), Some(&format!("{{\"row\":{i}}}").repeat(60)));
    batches[1].documents =
        vec![document("subscriptions", "audit", Some("{}")), document("dead:audit", "7", Some("why"))];
    batches[3].documents = (0..200).map(replica).collect();
    for i in (4..batches.len()).step_by(5) {
        batches[i].documents = vec![
            document("subscriptions", format!("s{i}"), Some("{\"state\":\"running\"}")),
            document("subscriptions", format!("s{}", i - 5), None),
        ];
    }
    let timestamp_ms = batches[batches.len() - 1].timestamp_ms;
    batches.push(Batch {
        cursors: vec![("audit".into(), 70)],
        documents: vec![document("dead:audit", "", None), replica(3)],
        ..batch(timestamp_ms, vec![])
    });
    batches
}

fn events(version: u32) -> Vec<Event> {
    let mut events = Vec::new();
    for batch in batches_1(version) {
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
    [("v3-written.seg", bytes), ("v3-sealed.seg", sealed), ("v3-packed.seg", packed)]
}

#[test]
fn todays_writer_writes_format_3_byte_for_byte() {
    for (name, bytes) in written() {
        if std::env::var_os("CDC_BLESS").is_some() {
            fs::create_dir_all(file("")).unwrap();
            fs::write(file(name), &bytes).unwrap();
        }
        assert!(fs::read(file(name)).unwrap() == bytes, "{name} is not what is written now");
    }
}

#[test]
fn kept_files_are_read() {
    let formats = [(1, 2), (2, 70), (3, 70)];
    let files = formats.iter().flat_map(|format| ["written", "sealed", "packed"].map(|state| (format, state)));
    for (&(version, cursor), state) in files {
        let name = &format!("v{version}-{state}.seg");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        fs::copy(file(name), dir.path().join("log").join(file_name(1))).unwrap();
        assert_eq!(verify(dir.path()).unwrap().findings, [], "{name}");
        let mut options = EmbeddedOptions::new(dir.path());
        options.retention = Retention::unlimited();
        let store = EmbeddedStore::open(options).unwrap();
        let view = store.view().unwrap();
        assert_eq!(view.events(&all()).unwrap().events, events(version), "{name}");
        assert_eq!(view.schema("users", None), Some(schema("users", 1, "{\"columns\":[]}")));
        assert_eq!(view.position("orders-db").as_deref(), Some("0/16B3748"));
        assert_eq!(view.cursor("audit"), Some(cursor));
        if version >= 2 {
            kept_documents(&*view);
        }
        assert_eq!(view.row("users", "2").unwrap(), None);
        assert_eq!(view.counters().tables[0].by_operation, [30, 0, 0, 1]);
        assert_eq!(sequences(&*view, &EventRange { key: Some("s7"), ..all() }).0, [43]);
        let range = EventRange { since_ms: Some(1_700_000_001_037), ..all() };
        assert_eq!(sequences(&*view, &range).0, [74, 75]);
        let range = EventRange { operation: Some(Operation::Delete), newest_first: true, ..all() };
        assert_eq!(sequences(&*view, &range).0, [4]);
        drop(view);
        let new = Batch {
            documents: vec![document("new", "k", Some("v"))],
            ..batch(1_800_000_000_000, vec![insert("users", "new", "{}")])
        };
        assert_eq!(commit(&*store, new).unwrap(), 76);
        drop(store);
        // What was written on has the format of what was written: the newest segment.
        let segments = open::segments_in(&medium::Disk, &dir.path().join("log")).unwrap();
        let newest = fs::read(dir.path().join("log").join(segments[segments.len() - 1].file_name())).unwrap();
        assert_eq!(newest[8..12], 3u32.to_le_bytes(), "{name}");
        let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
        assert_eq!(store.view().unwrap().document("new", b"k").unwrap(), Some(text("v")));
    }
}

fn kept_documents(view: &dyn View) {
    let rows = collection(view, "replica:rows");
    assert_eq!(rows.len(), 200);
    assert!(rows.iter().zip(0u32..).all(|((key, _), i)| key[..] == i.to_be_bytes()));
    assert_eq!(collection(view, "dead:audit"), []);
    let names: Vec<_> = collection(view, "subscriptions").into_iter().map(|(key, _)| key).collect();
    assert_eq!(names, [text("audit"), text("s39")]);
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
