//! What guests get, without a guest: keys and values, log lines, limits. With guests, the suite tests all of it.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use wasmtime::ResourceLimiter;
use wasmtime::component::{Resource, ResourceTable};

use super::bindings::wasi::keyvalue::atomics::Host as _;
use super::bindings::wasi::keyvalue::batch::Host as _;
use super::bindings::wasi::keyvalue::store::{Error, Host as _, HostBucket as _};
use super::keyvalue::{Bucket, KeyValue, KeyValueGrant, Namespace, Quota, Usage, View};
use super::limits::{GuestLimits, Limiter};
use super::output::{Output, Stream};

struct Kept(BTreeMap<Vec<u8>, Bytes>);

impl Namespace for Kept {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, String> {
        Ok(self.0.get(key).cloned())
    }

    fn keys(&self, after: Option<&[u8]>, max: usize) -> Result<Vec<Bytes>, String> {
        let keys = self.0.keys().filter(|key| after.is_none_or(|after| key.as_slice() > after));
        Ok(keys.take(max).map(|key| Bytes::copy_from_slice(key)).collect())
    }
}

fn keyvalue(kept: impl IntoIterator<Item = String>, quota: Option<Quota>, usage: Usage) -> KeyValue {
    let kept = kept.into_iter().map(|key| (key.into_bytes(), Bytes::from_static(b"old"))).collect();
    KeyValue::new(Some(KeyValueGrant { namespace: Arc::new(Kept(kept)), quota, usage }))
}

/// Works on the bucket of a key-value store, as a guest would.
fn with<T>(keyvalue: &mut KeyValue, work: impl FnOnce(&mut View<'_>, fn() -> Resource<Bucket>) -> T) -> T {
    let mut table = ResourceTable::new();
    work(&mut View { keyvalue, table: &mut table }, || Resource::new_own(0))
}

#[test]
fn what_is_written_is_read_before_it_is_durable_and_taken_once() {
    let mut keyvalue = keyvalue(["a".to_owned(), "b".to_owned()], None, Usage::default());
    with(&mut keyvalue, |view, bucket| {
        view.set(bucket(), "a".into(), b"new".to_vec()).unwrap().unwrap();
        view.delete(bucket(), "b".into()).unwrap().unwrap();
        let found = view.get_many(bucket(), vec!["a".into(), "b".into(), "c".into()]).unwrap().unwrap();
        assert_eq!(found, [Some(("a".to_owned(), b"new".to_vec())), None, None]);
        assert!(!view.exists(bucket(), "b".into()).unwrap().unwrap());
        assert_eq!(view.increment(bucket(), "n".into(), 2).unwrap().unwrap(), 2);
        assert_eq!(view.increment(bucket(), "n".into(), 3).unwrap().unwrap(), 5);
        assert!(matches!(view.increment(bucket(), "a".into(), 1).unwrap(), Err(Error::Other(_))));
    });
    let (writes, _) = keyvalue.take();
    let keys: Vec<_> = writes.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
    assert_eq!(
        keys,
        [(b"a".as_slice(), Some(b"new".as_slice())), (b"b".as_slice(), None), (b"n".as_slice(), Some(b"5".as_slice()))]
    );
    assert!(keyvalue.take().0.is_empty());
}

#[test]
fn keys_are_listed_page_by_page_with_what_was_written_in_its_place() {
    let kept = (0..2_500).map(|number| format!("k{number:05}"));
    let mut keyvalue = keyvalue(kept, None, Usage::default());
    let listed = with(&mut keyvalue, |view, bucket| {
        view.set(bucket(), "k00500a".into(), Vec::new()).unwrap().unwrap();
        view.set(bucket(), "zz".into(), Vec::new()).unwrap().unwrap();
        view.set(bucket(), "a".into(), Vec::new()).unwrap().unwrap();
        view.delete(bucket(), "k01500".into()).unwrap().unwrap();
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let page = view.list_keys(bucket(), cursor).unwrap().unwrap();
            listed.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                break listed;
            }
        }
    });
    let mut expected: Vec<String> = (0..2_500).filter(|number| *number != 1_500).map(|n| format!("k{n:05}")).collect();
    expected.extend(["a".into(), "k00500a".into(), "zz".into()]);
    expected.sort();
    assert_eq!(listed, expected);
    let unknown = with(&mut keyvalue, |view, bucket| view.list_keys(bucket(), Some(u64::MAX)).unwrap());
    assert!(matches!(unknown, Err(Error::Other(_))));
}

#[test]
fn a_quota_counts_what_is_kept_and_not_what_was() {
    let quota = Some(Quota { bytes: 20, keys: 2 });
    let mut keyvalue = keyvalue([], quota, Usage::default());
    with(&mut keyvalue, |view, bucket| {
        view.set(bucket(), "a".into(), vec![0; 9]).unwrap().unwrap();
        view.set(bucket(), "a".into(), vec![0; 19]).unwrap().unwrap();
        let full = view.set(bucket(), "b".into(), Vec::new()).unwrap();
        assert!(matches!(full, Err(Error::Other(message)) if message.contains("21 of 20 bytes")));
        view.delete(bucket(), "a".into()).unwrap().unwrap();
        view.set(bucket(), "b".into(), Vec::new()).unwrap().unwrap();
        view.set(bucket(), "c".into(), Vec::new()).unwrap().unwrap();
        let many = view.set(bucket(), "d".into(), Vec::new()).unwrap();
        assert!(matches!(many, Err(Error::Other(message)) if message.contains("3 of 2 keys")));
    });
    assert_eq!(keyvalue.take().1, Usage { bytes: 2, keys: 2 });
}

#[test]
fn keys_have_a_length_and_a_store_has_to_be_granted() {
    let mut keyvalue = keyvalue([], None, Usage::default());
    with(&mut keyvalue, |view, bucket| {
        for key in [String::new(), "x".repeat(1_025)] {
            assert!(matches!(view.set(bucket(), key, Vec::new()).unwrap(), Err(Error::Other(_))));
        }
        assert!(matches!(view.open("other".into()).unwrap(), Err(Error::NoSuchStore)));
        assert!(view.open("default".into()).unwrap().is_ok());
    });
    let mut nothing = KeyValue::new(None);
    let opened = with(&mut nothing, |view, _| view.open(String::new()).unwrap().map(drop));
    assert!(matches!(opened, Err(Error::AccessDenied)));
}

/// Output that remembers its lines.
fn output(bytes_per_second: u32) -> (Output, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = lines.clone();
    let write = Arc::new(move |stream, line: &str| written.lock().unwrap().push(format!("{stream:?} {line}")));
    (Output::new(bytes_per_second, write), lines)
}

#[test]
fn lines_are_whole_and_cannot_forge_others() {
    let (output, lines) = output(1_000_000);
    output.take(Stream::Out, b"one\ntw");
    output.take(Stream::Err, b"err\x1b[31m\r\n");
    output.take(Stream::Out, b"o\n");
    output.take(Stream::Out, &[b'x'; 5_000]);
    output.flush();
    let lines = lines.lock().unwrap();
    assert_eq!(lines[..3], ["Out one", "Err err\u{fffd}[31m", "Out two"]);
    assert_eq!((lines[3].len(), lines[4].len()), (4 + 4_096, 4 + 904), "a long line is cut");
}

#[test]
fn too_many_lines_are_dropped_and_counted() {
    let (output, lines) = output(10);
    for _ in 0..30 {
        output.take(Stream::Out, b"123456789\n");
    }
    assert_eq!(lines.lock().unwrap().len(), 10, "ten seconds' worth at once");
    assert_eq!(output.dropped_lines(), 20);
}

#[test]
fn the_end_of_standard_error_is_kept_for_the_report() {
    let (output, _) = output(0);
    output.take(Stream::Err, &[b'-'; 3_000]);
    output.take(Stream::Err, b"the cause\n");
    let tail = output.take_error_tail();
    assert!(tail.ends_with("the cause") && tail.len() <= 1_024, "{tail}");
    assert!(output.take_error_tail().is_empty());
}

#[test]
fn memory_and_tables_grow_up_to_their_limits() {
    let limits = GuestLimits { memory_bytes: 100, table_elements: 5, instances: 3, ..GuestLimits::default() };
    let mut limiter = Limiter::new(limits);
    // The limit is for all memories together.
    assert!(limiter.memory_growing(0, 60, None).unwrap());
    assert!(limiter.memory_growing(0, 40, None).unwrap());
    assert!(!limiter.memory_growing(40, 41, None).unwrap());
    assert!(limiter.refused.take().unwrap().contains("memoryBytes is 100"));
    assert!(limiter.table_growing(0, 5, None).unwrap());
    assert!(!limiter.table_growing(5, 6, None).unwrap());
    assert!(limiter.refused.unwrap().contains("tableElements is 5"));
    assert_eq!(Limiter::new(limits).instances(), 3);
}
