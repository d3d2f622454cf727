//! Portions of a source's log: each one call of the engine and one commit, in the order in which they came.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::writer::{Writer, store_error};
use super::{Followed, IngestError};
use crate::metrics::{Call, Metrics};
use crate::sandbox::{Portion, Refusal, RefusedChange, WitFollowError};
use crate::store::{Batch, Operation, Sequence, StoreError};

/// Why nothing of a portion was captured.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FollowError {
    /// A change cannot be captured.
    #[error("change {change} of the portion cannot be captured: {}", refusal.message)]
    Refused {
        /// Its place in the portion.
        change: u32,
        /// Why.
        refusal: Refusal,
    },
    /// What the portion goes on from is not what was captured last: a portion before it failed.
    #[error("the portion goes on from {after:?}, but what was captured ends at {position:?}")]
    OutOfOrder {
        /// The checkpoint that the portion goes on from.
        after: Option<String>,
        /// The checkpoint of what was captured last.
        position: Option<String>,
    },
    /// It met the fate that changes meet too.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

/// What became of a portion. It is durable.
#[derive(Clone, Debug)]
pub struct FollowReceipt {
    /// The time of its events, in ms since 1970.
    pub timestamp_ms: u64,
    /// Its first event's sequence number; the next event's, if it has none.
    pub first: Sequence,
    /// How many events it became.
    pub events: u32,
    /// Rows that were read and were not here before.
    pub read_inserts: u32,
    /// Rows that were read and were here otherwise.
    pub read_updates: u32,
}

impl FollowReceipt {
    fn new(timestamp_ms: u64, first: Sequence, events: u32, batch: Option<&Batch>) -> Self {
        let mut receipt = Self { timestamp_ms, first, events, read_inserts: 0, read_updates: 0 };
        let writes = batch.map_or(&[][..], |batch| &batch.writes);
        for write in writes.iter().filter(|write| write.origin.as_ref().is_some_and(|origin| origin.snapshot)) {
            match write.operation {
                Operation::Insert => receipt.read_inserts += 1,
                _ => receipt.read_updates += 1,
            }
        }
        receipt
    }
}

impl Writer {
    /// Captures a portion; its source is answered once it is durable.
    pub(super) fn follow(&mut self, followed: Followed) {
        let Followed { portion, reply, room } = followed;
        let changes = portion.len() as u64;
        let metrics = self.metrics.clone();
        let (receipt, batch) = match self.call_follow(&portion) {
            Ok((receipt, Some(batch))) => (receipt, batch),
            Ok((receipt, None)) => {
                drop(room);
                let _ = reply.send(Ok(receipt));
                return;
            }
            Err(error) => {
                count(&metrics, Err(&error), changes);
                drop(room);
                let _ = reply.send(Err(error));
                return;
            }
        };
        let mut batch = batch;
        let recorded = self.join_held(&mut batch);
        // The answer waits here until the store calls back, or is given at once when it does not take the batch.
        let pending = Arc::new(Mutex::new(Some((receipt, reply, room, recorded))));
        let finish = move |outcome: Result<(), StoreError>| {
            let taken = pending.lock().ok().and_then(|mut pending| pending.take());
            let Some((receipt, reply, room, recorded)) = taken else { return };
            recorded.into_iter().for_each(|done| done(outcome.clone()));
            let answer = outcome.map(|()| receipt).map_err(|error| FollowError::Ingest(IngestError::Store(error)));
            count(&metrics, answer.as_ref().map(|receipt| u64::from(receipt.events)), changes);
            drop(room);
            let _ = reply.send(answer);
        };
        let refuse = finish.clone();
        if let Err(error) = self.store.append(Arc::new(batch), Box::new(finish)) {
            refuse(Err(error));
        }
    }

    /// Calls the engine, and replaces the instance if it trapped.
    fn call_follow(&mut self, portion: &Portion) -> Result<(FollowReceipt, Option<Batch>), FollowError> {
        let generation = self.store.head().schema_generation;
        let position = self.store.head_position(portion.source());
        if !portion.is_from(position.as_deref()) {
            return Err(FollowError::OutOfOrder { after: portion.after().map(str::to_owned), position });
        }
        let start = Instant::now();
        let called = self.instance.follow(portion);
        self.metrics.engine.called(Call::Follow, start.elapsed());
        match called {
            Ok((Ok(followed), mut batch)) => {
                if let Some(batch) = &mut batch {
                    batch.generation = Some(generation);
                }
                let (timestamp_ms, first, events) = (followed.timestamp, followed.first, followed.events);
                Ok((FollowReceipt::new(timestamp_ms, first, events, batch.as_ref()), batch))
            }
            Ok((Err(WitFollowError::Refused(RefusedChange { change, refusal })), _)) => {
                Err(FollowError::Refused { change, refusal })
            }
            Ok((Err(WitFollowError::Store(error)), _)) => Err(store_error(error).into()),
            Err(error) => Err(self.trapped(&error).into()),
        }
    }
}

/// Counts a portion: what it became, or that it failed.
fn count(metrics: &Metrics, outcome: Result<u64, &FollowError>, changes: u64) {
    match outcome {
        Ok(events) => metrics.ingest.batch_done(events, 0, 0),
        Err(FollowError::Refused { .. }) => metrics.ingest.batch_done(0, 1, 0),
        Err(_) => metrics.ingest.batch_done(0, 0, changes),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::super::tests::start;
    use super::super::{Ingest, IngestOptions};
    use super::*;
    use crate::sandbox::{
        Action, Change, Column, ColumnType, Described, FollowAction, FollowChange, RefusalCode, Relation,
    };
    use crate::store::{Document, EmbeddedOptions, EmbeddedStore, EventRange, MemoryStore, Store, View};

    type Told = oneshot::Receiver<Result<FollowReceipt, FollowError>>;

    const OPTIONS: IngestOptions = IngestOptions { max_batch: 1_000, max_queue: 1_000 };

    fn described() -> Described {
        let column = |name: &str, column_type| Column {
            name: name.to_owned(),
            column_type,
            nullable: false,
            native_type: Some("bigint".to_owned()),
        };
        Described {
            name: "users".to_owned(),
            columns: vec![column("id", ColumnType::Number), column("n", ColumnType::Number)],
            primary_key: vec!["id".to_owned()],
            relation: Relation {
                source: "shop".to_owned(),
                connector: "postgresql".to_owned(),
                database: "shop".to_owned(),
                namespace: "public".to_owned(),
                name: "users".to_owned(),
            },
        }
    }

    /// Rows written (or read) one after another, from one checkpoint to another.
    fn portion(after: Option<&str>, rows: &[(&str, u32)], action: FollowAction, checkpoint: &str) -> Portion {
        let mut portion = Portion::new("shop", after);
        let table = portion.table(described());
        let transaction = portion.transaction(checkpoint, Some(1_234));
        for (place, (id, n)) in rows.iter().enumerate() {
            portion.change(&FollowChange {
                table,
                action,
                key: &[(*id).to_owned()],
                image: Some(&format!("{{\"id\":{id},\"n\":{n}}}")),
                unchanged: &[],
                previous_key: None,
                before: None,
                transaction: Some(transaction),
                position: Some(&format!("{checkpoint}/{place}")),
            });
        }
        portion.set_checkpoint(checkpoint.to_owned());
        portion
    }

    fn written(after: Option<&str>, rows: &[(&str, u32)], checkpoint: &str) -> Portion {
        portion(after, rows, FollowAction::Replace, checkpoint)
    }

    async fn told(receipt: Told) -> Result<FollowReceipt, FollowError> {
        tokio::time::timeout(Duration::from_secs(60), receipt).await.unwrap().unwrap()
    }

    async fn follow(ingest: &Ingest, portion: Portion) -> Result<FollowReceipt, FollowError> {
        told(ingest.follow(portion).await.unwrap()).await
    }

    fn position(store: &dyn Store) -> Option<String> {
        store.view().unwrap().position("shop")
    }

    fn events(view: &dyn View) -> Vec<crate::store::Event> {
        let range = EventRange { until: u64::MAX, max_events: 1_000, max_bytes: 1 << 20, ..EventRange::default() };
        view.events(&range).unwrap().events
    }

    #[tokio::test]
    async fn portions_are_sent_ahead_and_captured_in_turn() {
        let store = MemoryStore::new();
        let (ingest, thread) = start(store.clone(), &OPTIONS);
        let first = ingest.follow(written(None, &[("1", 1), ("2", 1)], "10")).await.unwrap();
        let second = ingest.follow(written(Some("10"), &[("1", 2)], "11")).await.unwrap();
        let read = portion(Some("11"), &[("1", 2), ("2", 5), ("3", 5)], FollowAction::Read, "12");
        let third = ingest.follow(read).await.unwrap();
        let (first, second, third) =
            (told(first).await.unwrap(), told(second).await.unwrap(), told(third).await.unwrap());
        assert_eq!((first.first, first.events, second.first, second.events), (1, 2, 3, 1));
        assert_eq!((third.first, third.events, third.read_inserts, third.read_updates), (4, 2, 1, 1));
        assert_eq!(position(&*store).as_deref(), Some("12"));

        let events = events(&*store.view().unwrap());
        let transactions = |at: usize| events[at].write.origin.clone().unwrap();
        assert!(Arc::ptr_eq(&transactions(0), &transactions(1)), "the events of a transaction share their origin");
        assert_eq!(
            (&transactions(2).transaction, transactions(2).committed_at_ms),
            (&Some("11".to_owned()), Some(1_234))
        );
        let positions: Vec<_> = events.iter().map(|event| event.write.position_text().unwrap()).collect();
        assert_eq!(positions, ["10/0", "10/1", "11/0", "12/1", "12/2"]);
        assert_eq!(
            events.iter().map(|event| transactions(event.sequence as usize - 1).snapshot).filter(|s| *s).count(),
            2
        );
        drop(ingest);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn once_a_portion_was_refused_none_behind_it_is_captured() {
        let store = MemoryStore::new();
        let (ingest, thread) = start(store.clone(), &OPTIONS);
        follow(&ingest, written(None, &[("1", 1)], "10")).await.unwrap();
        let refused = ingest.follow(written(Some("10"), &[("2", 1), ("", 1)], "11")).await.unwrap();
        let behind = ingest.follow(written(Some("11"), &[("3", 1)], "12")).await.unwrap();
        let error = told(refused).await.unwrap_err();
        assert!(
            matches!(&error, FollowError::Refused { change: 1, refusal } if refusal.code == RefusalCode::InvalidKey),
            "{error}"
        );
        let error = told(behind).await.unwrap_err();
        assert!(matches!(&error, FollowError::OutOfOrder { position: Some(at), .. } if at == "10"), "{error}");
        assert_eq!((store.head().sequence, position(&*store).as_deref()), (1, Some("10")));
        // The source goes on from where the log is.
        follow(&ingest, written(Some("10"), &[("2", 1)], "11")).await.unwrap();
        // One that comes a second time is noticed as well.
        let error = follow(&ingest, written(Some("10"), &[("2", 1)], "11")).await.unwrap_err();
        assert!(matches!(error, FollowError::OutOfOrder { .. }));
        drop(ingest);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_portion_that_is_too_large_for_the_log_is_refused_with_all_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = EmbeddedOptions::new(dir.path());
        options.batch_bytes_max = 2_000;
        let store = EmbeddedStore::open(options).unwrap();
        let (ingest, thread) = start(store.clone(), &OPTIONS);
        let rows: Vec<_> = (0..100).map(|n| ("1", n)).collect();
        let large = ingest.follow(written(None, &rows, "10")).await.unwrap();
        let behind = ingest.follow(written(Some("10"), &rows[..1], "11")).await.unwrap();
        let error = told(large).await.unwrap_err();
        assert!(matches!(error, FollowError::Ingest(IngestError::Store(StoreError::TooLarge(_)))), "{error}");
        assert!(matches!(told(behind).await.unwrap_err(), FollowError::OutOfOrder { position: None, .. }));
        follow(&ingest, written(None, &rows[..1], "10")).await.unwrap();
        assert_eq!((store.head().sequence, position(&*store).as_deref()), (1, Some("10")));
        drop(ingest);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_source_is_forgotten_by_an_empty_checkpoint() {
        let store = MemoryStore::new();
        let (ingest, thread) = start(store.clone(), &OPTIONS);
        follow(&ingest, written(None, &[("1", 1)], "10")).await.unwrap();
        let receipt = follow(&ingest, written(Some("10"), &[], "")).await.unwrap();
        assert_eq!((receipt.events, position(&*store)), (0, None));
        follow(&ingest, written(Some(""), &[("1", 2)], "1")).await.unwrap();
        assert_eq!(position(&*store).as_deref(), Some("1"));
        drop(ingest);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_portion_waits_for_room_and_takes_its_turn_among_changes_and_records() {
        let store = MemoryStore::new();
        let (ingest, thread) = start(store.clone(), &OPTIONS);
        let full = ingest.room.clone().try_acquire_many_owned(1_000).unwrap();
        let door = ingest.clone();
        // In a tuple, because the answer is awaited later.
        let waiting = tokio::spawn(async move { (door.follow(written(None, &[("1", 1)], "10")).await.unwrap(),) });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "there was no room");
        drop(full);
        let document = Document { collection: "c".into(), key: "k".into(), value: Some("v".into()) };
        let (tell, recorded) = oneshot::channel();
        ingest.record_soon(vec![document], Vec::new(), Box::new(move |outcome| tell.send(outcome).unwrap()));
        let (receipt,) = waiting.await.unwrap();
        told(receipt).await.unwrap();
        recorded.await.unwrap().unwrap();
        // The table is the database's: nobody else writes to it.
        let change =
            Change { table: "users".into(), action: Action::Insert, key: Vec::new(), image: b"{\"id\":9}".to_vec() };
        let refusal = ingest.submit(vec![change]).await.unwrap().outcomes.remove(0).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::CapturedTable);
        drop(ingest);
        thread.join().unwrap();
    }
}
