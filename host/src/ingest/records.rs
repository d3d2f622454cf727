//! Commits of records: documents and cursors that no engine decides on.

use std::sync::{Arc, Mutex, PoisonError};

use super::Record;
use crate::store::{Batch, Done, Store, StoreError};

/// Records are merged into one commit up to about this size, so that no batch becomes too large because of others.
const BYTES_MAX: usize = 1 << 20;

/// Gives records to the store, in order and as few batches; each learns what became of its own.
pub(super) fn commit(store: &dyn Store, records: Vec<Record>) {
    let mut batch = Batch::default();
    let mut waiting: Vec<Done> = Vec::new();
    let mut bytes = 0;
    for record in records {
        let more = bytes_of(&record);
        if !waiting.is_empty() && bytes + more > BYTES_MAX {
            append(store, std::mem::take(&mut batch), std::mem::take(&mut waiting));
            bytes = 0;
        }
        bytes += more;
        batch.documents.extend(record.documents);
        batch.cursors.extend(record.cursors);
        waiting.push(record.done);
    }
    if !waiting.is_empty() {
        append(store, batch, waiting);
    }
}

/// Adds records that wait to a batch of changes, the first of them and not too many; answers whom to tell.
pub(super) fn join(batch: &mut Batch, held: &mut Vec<Record>) -> Vec<Done> {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        bytes += bytes_of(record);
        bytes <= BYTES_MAX
    };
    let count = held.iter().take_while(fits).count();
    let mut waiting = Vec::with_capacity(count);
    for record in held.drain(..count) {
        batch.documents.extend(record.documents);
        batch.cursors.extend(record.cursors);
        waiting.push(record.done);
    }
    waiting
}

fn bytes_of(record: &Record) -> usize {
    let value = |value: &Option<bytes::Bytes>| value.as_ref().map_or(0, bytes::Bytes::len);
    let documents = record.documents.iter().map(|document| 8 + document.key.len() + value(&document.value));
    let cursors = record.cursors.iter().map(|(name, _)| 10 + name.len());
    documents.sum::<usize>() + cursors.sum::<usize>()
}

fn append(store: &dyn Store, mut batch: Batch, waiting: Vec<Done>) {
    // A record has no time of its own: the log's goes on with the next event.
    batch.timestamp_ms = store.head().timestamp_ms;
    // Whoever waits is told by the store, or here when it does not take the batch.
    let waiting = Arc::new(Mutex::new(waiting));
    let tell = move |outcome: Result<(), StoreError>| {
        let waiting = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for done in waiting {
            done(outcome.clone());
        }
    };
    let refuse = tell.clone();
    if let Err(error) = store.append(Arc::new(batch), Box::new(tell)) {
        refuse(Err(error));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;
    use crate::store::{Document, EmbeddedOptions, EmbeddedStore};

    type Told = Receiver<(usize, Result<(), StoreError>)>;

    /// Records of one document each, the same one, and what they are told.
    fn records(values: &[usize]) -> (Vec<Record>, Told) {
        let (tell, told) = channel();
        let record = |(i, len): (usize, &usize)| {
            let tell = tell.clone();
            let value = Some(vec![i as u8; *len].into());
            Record {
                documents: vec![Document { collection: "c".into(), key: "k".into(), value }],
                cursors: vec![("s".into(), i as u64 + 1)],
                done: Box::new(move |outcome| tell.send((i, outcome)).unwrap()),
                may_wait: false,
            }
        };
        (values.iter().enumerate().map(record).collect(), told)
    }

    fn next(told: &Told) -> (usize, Result<(), StoreError>) {
        told.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn records_that_wait_are_one_commit_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
        let (some, told) = records(&[10; 100]);
        commit(&*store, some);
        for i in 0..100 {
            let (which, outcome) = next(&told);
            outcome.unwrap();
            assert_eq!(which, i);
        }
        assert_eq!(store.metrics().batches, 1);
        let view = store.view().unwrap();
        assert_eq!(view.document("c", b"k").unwrap().unwrap(), vec![99; 10], "the last one counts");
        assert_eq!((view.cursor("s"), view.bounds().newest), (Some(100), 0));
    }

    #[test]
    fn a_record_that_is_too_large_fails_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = EmbeddedOptions::new(dir.path());
        options.batch_bytes_max = BYTES_MAX + 1000;
        let store = EmbeddedStore::open(options).unwrap();
        let (some, told) = records(&[10, BYTES_MAX * 2, 20, BYTES_MAX - 500, 30]);
        commit(&*store, some);
        let mut outcomes: Vec<_> = (0..5).map(|_| next(&told)).collect();
        outcomes.sort_by_key(|(which, _)| *which);
        for (which, outcome) in outcomes {
            assert_eq!(matches!(outcome, Err(StoreError::TooLarge(_))), which == 1, "{which}: {outcome:?}");
            assert_eq!(outcome.is_ok(), which != 1);
        }
        assert_eq!(store.view().unwrap().document("c", b"k").unwrap().unwrap(), vec![4; 30]);
    }

    #[test]
    fn a_store_that_takes_no_more_tells_every_record_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
        store.close().unwrap();
        let (some, told) = records(&[1, 2]);
        commit(&*store, some);
        assert!(matches!(next(&told), (0, Err(StoreError::Failed(_)))));
        assert!(matches!(next(&told), (1, Err(StoreError::Failed(_)))));
        assert!(told.recv().is_err(), "nobody is told twice");
    }
}
