//! What the threads of an embedded store share.
//!
//! Three threads work beside the callers: the log's (`commit`), the checkpoint's (`keeper`) and the one that prepares
//! files (`log::files`). Locks are taken in the order head, queue, durable; nobody waits for a disk while holding one.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::checkpoint::Base;
use super::embedded::EmbeddedOptions;
use super::facts::{Facts, Retention};
use super::log::cache::FrameCache;
use super::log::frame::Encoded;
use super::log::segment::Segment;
use super::rows::{Overlay, Rows};
use super::{Batch, Done, Row, Sequence, StoreError};

/// Everything but the events, as of one batch. A clone is a few pointers.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// How many batches this start has seen.
    pub(crate) ordinal: u64,
    pub(crate) facts: Facts,
    pub(crate) rows: Rows,
}

impl Version {
    pub(crate) fn apply(&mut self, batch: &Batch, retention: &Retention) {
        let Self { ordinal, facts, rows } = self;
        facts.apply(batch, retention, |table, change| rows.apply(table, batch, change));
        *ordinal += 1;
    }

    /// A document's value.
    pub(crate) fn document(&self, collection: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.facts.collections.get(collection) {
            Some(&collection) => self.rows.get(collection, key),
            None => Ok(None),
        }
    }

    /// A collection's documents in the order of their keys, after the given one.
    pub(crate) fn documents(
        &self,
        collection: &str,
        after: Option<&[u8]>,
        max_documents: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, StoreError> {
        match self.facts.collections.get(collection) {
            Some(&collection) => self.rows.scan(collection, after, max_documents, max_bytes),
            None => Ok(Vec::new()),
        }
    }

    /// Reads what the checkpoint has written so far, and once it is whole, no longer what it was made from.
    pub(crate) fn settle(&mut self, settled: &Settled) {
        if self.rows.sealed.as_ref().is_some_and(|sealed| std::ptr::eq(Arc::as_ptr(sealed), settled.tier.as_ptr())) {
            self.rows.base = settled.base.clone();
            if settled.is_whole {
                self.rows.sealed = None;
            }
        }
    }
}

/// What readers see.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) version: Version,
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    /// What retention by age and bytes has dropped, beside what the version says.
    pub(crate) dropped: Sequence,
}

/// What the writer sees.
#[derive(Debug)]
pub(crate) struct HeadState {
    pub(crate) version: Version,
    /// The batch that the tier being checkpointed ends with. None when there is none, or when that batch was given up.
    pub(crate) sealing: Option<u64>,
    /// The newest event when the last checkpoint began.
    pub(crate) sealed_at: Sequence,
    pub(crate) is_closed: bool,
}

/// A batch that is not durable yet.
pub(crate) struct Staged {
    pub(crate) encoded: Encoded,
    pub(crate) first: Sequence,
    pub(crate) version: Version,
    pub(crate) done: Done,
}

impl Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged").field("first", &self.first).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) staged: VecDeque<Staged>,
    /// Batches and bytes staged, those being written included.
    pub(crate) batches: usize,
    pub(crate) bytes: usize,
    pub(crate) is_closed: bool,
}

/// What the keeper is asked to do.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) checkpoint: bool,
    pub(crate) stop: bool,
}

/// How far a checkpoint has come.
#[derive(Debug)]
pub(crate) struct Settled {
    /// The tier that it is made from.
    pub(crate) tier: Weak<Overlay>,
    pub(crate) base: Arc<Base>,
    pub(crate) is_whole: bool,
}

/// The newest checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Publishing {
    pub(crate) settled: Option<Settled>,
}

/// The shared state.
pub(crate) struct Shared {
    pub(crate) options: EmbeddedOptions,
    pub(crate) head: Mutex<HeadState>,
    /// A checkpoint has made room in memory.
    pub(crate) settled: Condvar,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) queued: Condvar,
    pub(crate) has_room: Condvar,
    pub(crate) durable: ArcSwap<Durable>,
    /// Held by whoever replaces `durable`.
    pub(crate) publishing: Mutex<Publishing>,
    pub(crate) published: Condvar,
    pub(crate) keeper_waits: AtomicBool,
    pub(crate) wishes: Mutex<Wishes>,
    pub(crate) wished: Condvar,
    /// Whether anything has been staged since the last checkpoint began.
    pub(crate) is_dirty: AtomicBool,
    /// Whether checkpoints wait for room on the disk.
    pub(crate) no_room: AtomicBool,
    pub(crate) failed: OnceLock<StoreError>,
    pub(crate) cache: Arc<FrameCache>,
    pub(crate) gauges: Gauges,
}

impl Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("dir", &self.options.dir).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn lock_head(&self) -> MutexGuard<'_, HeadState> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_publishing(&self) -> MutexGuard<'_, Publishing> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the store takes more writes.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// No more writes from here on: says so to whoever has to stop the service, once. Not to be called with a lock.
    pub(crate) fn fail(&self, error: &StoreError) {
        if self.failed.set(error.clone()).is_ok() {
            self.announce(error);
        }
    }

    /// The second half of `fail`, for who had to set the failure under a lock.
    pub(crate) fn announce(&self, error: &StoreError) {
        tracing::error!(%error, "the store takes no more writes");
        if let Some(on_fatal) = &self.options.on_fatal {
            on_fatal(error);
        }
        self.has_room.notify_all();
        self.settled.notify_all();
        self.published.notify_all();
        self.wished.notify_all();
    }

    /// Asks for a checkpoint.
    pub(crate) fn wish_checkpoint(&self) {
        let mut wishes = self.lock_wishes();
        if !wishes.checkpoint {
            wishes.checkpoint = true;
            self.wished.notify_all();
        }
    }
}

/// The upper bounds of the histogram of sync times, in µs. Longer ones fall into a last bucket without a bound.
pub const SYNC_BUCKETS_US: [u64; 13] =
    [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 1_000_000];

/// Counts that threads write and `metrics` reads.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_us: AtomicU64,
    pub(crate) sync_buckets: [AtomicU64; SYNC_BUCKETS_US.len() + 1],
    pub(crate) groups: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) checkpoint_us: AtomicU64,
    pub(crate) checkpoint_sequence: AtomicU64,
}

impl Gauges {
    pub(crate) fn synced(&self, took: Duration) {
        let us = took.as_micros() as u64;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_us.fetch_add(us, Ordering::Relaxed);
        let bucket = SYNC_BUCKETS_US.iter().position(|bound| us <= *bound).unwrap_or(SYNC_BUCKETS_US.len());
        self.sync_buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }
}
