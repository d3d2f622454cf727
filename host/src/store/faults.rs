//! Tests: disks that fail. The real medium, with a failure put in its way on demand.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::contract::{all, batch, collection, commit, document, documents, insert, schema, sequences, text};
use super::medium::{Disk, Medium, MediumFile};
use super::*;

/// What the next calls do.
#[derive(Debug, Default)]
struct Plan {
    /// The next write of events writes this much and then fails so.
    write: Option<(usize, io::ErrorKind)>,
    sync: bool,
    /// Syncs wait as long as this holds.
    is_stuck: bool,
    /// The log's thread has come to such a sync.
    is_waiting: bool,
}

#[derive(Debug, Default)]
struct Faults {
    disk: Disk,
    plan: Arc<(Mutex<Plan>, Condvar)>,
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn MediumFile>,
    plan: Arc<(Mutex<Plan>, Condvar)>,
}

impl Faults {
    fn wrap(&self, file: Arc<dyn MediumFile>) -> Arc<dyn MediumFile> {
        Arc::new(FaultyFile { file, plan: self.plan.clone() })
    }

    fn set(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.plan.0.lock().unwrap());
        self.plan.1.notify_all();
    }
}

impl Medium for Faults {
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn MediumFile>> {
        Ok(self.wrap(self.disk.open(path, write)?))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediumFile>> {
        Ok(self.wrap(self.disk.create(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_folder(folder)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }
}

impl MediumFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let is_events = parts.iter().any(|part| part.iter().any(|byte| *byte != 0));
        let fault = if is_events { self.plan.0.lock().unwrap().write.take() } else { None };
        let Some((written, kind)) = fault else { return self.file.write_at(parts, offset) };
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).take(written).collect();
        self.file.write_at(&[IoSlice::new(&bytes)], offset)?;
        Err(kind.into())
    }
    fn sync(&self) -> io::Result<()> {
        let mut plan = self.plan.0.lock().unwrap();
        while plan.is_stuck && std::thread::current().name() == Some("cdc-log") {
            plan.is_waiting = true;
            plan = self.plan.1.wait(plan).unwrap();
        }
        if plan.sync && std::thread::current().name() == Some("cdc-log") {
            return Err(io::Error::other("injected"));
        }
        drop(plan);
        self.file.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

struct Bench {
    faults: Arc<Faults>,
    options: EmbeddedOptions,
    store: Arc<EmbeddedStore>,
    fatal: Arc<AtomicUsize>,
    dir: Arc<tempfile::TempDir>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A test that failed must not hang as well.
        self.faults.set(|plan| plan.is_stuck = false);
    }
}

fn bench(change: impl FnOnce(&mut EmbeddedOptions)) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let fatal = Arc::new(AtomicUsize::new(0));
    let mut options = EmbeddedOptions::new(dir.path());
    options.medium = faults.clone();
    let counted = fatal.clone();
    options.on_fatal = Some(Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    change(&mut options);
    let store = EmbeddedStore::open(options.clone()).unwrap();
    commit(&*store, Batch { schemas: vec![schema("t", 1, "s")], ..batch(1, vec![insert("t", "a", "1")]) }).unwrap();
    Bench { faults, options, store, fatal, dir: Arc::new(dir) }
}

/// Drops the store without closing it and opens it again.
fn reopen(bench: Bench) -> (Arc<tempfile::TempDir>, Arc<EmbeddedStore>) {
    let (options, dir) = (bench.options.clone(), bench.dir.clone());
    drop(bench);
    (dir, EmbeddedStore::open(options).unwrap())
}

/// Stages a batch; its fate comes later.
fn stage(store: &dyn Store, batch: Batch) -> Receiver<Result<(), StoreError>> {
    let (fate, told) = channel();
    store.append(Arc::new(batch), Box::new(move |result| fate.send(result).unwrap())).unwrap();
    told
}

fn fate(told: &Receiver<Result<(), StoreError>>) -> Result<(), StoreError> {
    told.recv_timeout(Duration::from_secs(60)).unwrap()
}

/// Stages a batch and waits until it is written and stuck in its sync.
fn stuck(bench: &Bench) -> Receiver<Result<(), StoreError>> {
    bench.faults.set(|plan| plan.is_stuck = true);
    let told = stage(&*bench.store, batch(2, vec![insert("t", "b", "2")]));
    while !bench.faults.plan.0.lock().unwrap().is_waiting {
        std::thread::yield_now();
    }
    told
}

#[test]
fn a_full_disk_gives_up_what_is_staged_and_nothing_else() {
    for written in [0, 1, 44, 60] {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::WriteZero, io::ErrorKind::QuotaExceeded] {
            let bench = bench(|_| ());
            let store = bench.store.clone();
            // One batch is being synced, two wait behind it; the write of those two fails.
            let first = stuck(&bench);
            let generation = store.head().schema_generation;
            let second = stage(&*store, batch(3, vec![insert("t", "c", "3")]));
            let third =
                stage(&*store, Batch { schemas: vec![schema("u", 1, "s")], ..batch(4, vec![insert("u", "d", "4")]) });
            assert_eq!(store.head().sequence, 4);
            bench.faults.set(|plan| {
                plan.write = Some((written, kind));
                plan.is_stuck = false;
            });
            fate(&first).unwrap();
            assert!(matches!(fate(&second), Err(StoreError::Full(_))));
            assert!(matches!(fate(&third), Err(StoreError::GivenUp(_))));
            assert_eq!((store.head().sequence, store.head().tables), (2, 1));
            assert!(store.head().schema_generation > generation);
            let keys = ["b", "c"];
            assert_eq!(store.head_rows("t", &keys).unwrap(), [Some(text("2")), None]);
            assert!(store.head_schema("u").is_none());
            assert!(store.failed().is_none());
            // There is room again.
            assert_eq!(commit(&*store, batch(5, vec![insert("t", "e", "5")])).unwrap(), 3);
            assert_eq!(sequences(&*store.view().unwrap(), &all()), (vec![1, 2, 3], true));
            drop(store);
            let (_dir, store) = reopen(bench);
            assert_eq!(sequences(&*store.view().unwrap(), &all()), (vec![1, 2, 3], true));
            assert_eq!(store.view().unwrap().row("t", "c").unwrap(), None);
        }
    }
}

#[test]
fn documents_that_find_no_room_leave_no_trace() {
    let bench = bench(|_| ());
    let store = bench.store.clone();
    commit(&*store, documents(&*store, vec![document("c", "k", Some("1"))])).unwrap();
    let first = stuck(&bench);
    let record = vec![document("c", "k", Some("2")), document("d", "k", Some("2"))];
    let second = stage(&*store, Batch { cursors: vec![("s".into(), 1)], ..documents(&*store, record) });
    let third = stage(&*store, documents(&*store, vec![document("c", "", None)]));
    assert_eq!(store.head_document("d", b"k").unwrap(), Some(text("2")), "the head shows what is staged");
    assert_eq!(store.view().unwrap().document("d", b"k").unwrap(), None, "readers see what is durable");
    bench.faults.set(|plan| {
        plan.write = Some((50, io::ErrorKind::StorageFull));
        plan.is_stuck = false;
    });
    fate(&first).unwrap();
    assert!(matches!(fate(&second), Err(StoreError::Full(_))));
    assert!(matches!(fate(&third), Err(StoreError::GivenUp(_))));
    assert_eq!(store.head_document("c", b"k").unwrap(), Some(text("1")));
    // There is room again: the collection that was given up may be made by another name.
    commit(&*store, documents(&*store, vec![document("e", "k", Some("3"))])).unwrap();
    let check = |store: &EmbeddedStore| {
        let view = store.view().unwrap();
        assert_eq!((view.cursor("s"), collection(&*view, "d")), (None, vec![]));
        assert_eq!(collection(&*view, "c"), [(text("k"), text("1"))]);
        assert_eq!(collection(&*view, "e"), [(text("k"), text("3"))]);
    };
    check(&store);
    drop(store);
    let (_dir, store) = reopen(bench);
    check(&store);
}

#[test]
fn a_failed_sync_stops_the_store() {
    let bench = bench(|_| ());
    let store = bench.store.clone();
    let first = stuck(&bench);
    let second = stage(&*store, batch(3, vec![insert("t", "c", "3")]));
    bench.faults.set(|plan| {
        plan.sync = true;
        plan.is_stuck = false;
    });
    assert!(matches!(fate(&first), Err(StoreError::Failed(reason)) if reason.contains("start again")));
    assert!(matches!(fate(&second), Err(StoreError::Failed(_))));
    assert!(matches!(store.failed(), Some(StoreError::Failed(_))));
    bench.faults.set(|plan| plan.sync = false);
    assert!(matches!(store.append(Arc::new(batch(4, vec![])), Box::new(|_| ())), Err(StoreError::Failed(_))));
    assert_eq!(bench.fatal.load(Ordering::SeqCst), 1);
    assert_eq!(sequences(&*store.view().unwrap(), &all()), (vec![1], true), "reading goes on");
    assert!(store.close().is_err());
    drop(store);
    let (_dir, store) = reopen(bench);
    let newest = store.view().unwrap().bounds().newest;
    assert!((1..=3).contains(&newest), "what was not acknowledged may be there, in order");
}

#[test]
fn a_failed_write_stops_the_store() {
    let bench = bench(|_| ());
    bench.faults.set(|plan| plan.write = Some((10, io::ErrorKind::Other)));
    let told = stage(&*bench.store, batch(2, vec![insert("t", "b", "2")]));
    assert!(matches!(fate(&told), Err(StoreError::Failed(_))));
    assert!(bench.store.append(Arc::new(batch(4, vec![])), Box::new(|_| ())).is_err());
    assert_eq!(bench.fatal.load(Ordering::SeqCst), 1);
    let (_dir, store) = reopen(bench);
    assert_eq!(store.view().unwrap().bounds().newest, 1);
}

#[test]
fn readers_see_nothing_that_is_not_durable() {
    let bench = bench(|_| ());
    let told = stuck(&bench);
    let view = bench.store.view().unwrap();
    assert_eq!((view.bounds().newest, view.row("t", "b").unwrap()), (1, None));
    assert_eq!(bench.store.head().sequence, 2);
    bench.faults.set(|plan| plan.is_stuck = false);
    fate(&told).unwrap();
    assert_eq!(bench.store.view().unwrap().bounds().newest, 2);
}

#[test]
fn a_full_queue_makes_writers_wait() {
    for change in
        [(|options| options.queue_batches_max = 2) as fn(&mut EmbeddedOptions), |options| options.queue_bytes_max = 160]
    {
        let bench = bench(change);
        let mut told = vec![stuck(&bench)];
        told.push(stage(&*bench.store, batch(3, vec![insert("t", "c", "3")])));
        let store = bench.store.clone();
        let (staged, is_staged) = channel();
        let writer = std::thread::spawn(move || {
            let told = stage(&*store, batch(4, vec![insert("t", "d", "4")]));
            staged.send(()).unwrap();
            told
        });
        assert!(is_staged.recv_timeout(Duration::from_millis(20)).is_err(), "the third waits");
        bench.faults.set(|plan| plan.is_stuck = false);
        is_staged.recv_timeout(Duration::from_secs(60)).unwrap();
        told.push(writer.join().unwrap());
        told.iter().for_each(|told| fate(told).unwrap());
    }
}

#[test]
fn a_batch_that_is_too_large_is_refused() {
    let bench = bench(|options| options.batch_bytes_max = 1000);
    let large = "x".repeat(1001);
    let documents = documents(&*bench.store, vec![document("c", "k", Some(&large))]);
    for large in [batch(2, vec![insert("t", "b", &large)]), documents] {
        let error = bench.store.append(Arc::new(large), Box::new(|_| panic!("nothing was staged"))).unwrap_err();
        assert!(matches!(error, StoreError::TooLarge(reason) if reason.contains("1000")));
    }
    assert_eq!(bench.store.head().sequence, 1);
}

#[test]
fn a_failed_interval_sync_stops_the_store() {
    let bench = bench(|options| options.durability = Durability::Interval(Duration::from_millis(1)));
    bench.faults.set(|plan| plan.sync = true);
    // Acknowledged before the sync; the failure comes without another write.
    let _told = stage(&*bench.store, batch(2, vec![insert("t", "b", "2")]));
    while bench.fatal.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    assert!(bench.store.failed().is_some());
}
