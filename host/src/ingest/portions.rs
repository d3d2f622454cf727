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
