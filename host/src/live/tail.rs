//! The tail: the newest durable event, and the log in chunks that readers standing near each other share.
//!
//! - Every event is in at most one chunk that is kept, so it is read and decoded once for all readers near it.
//! - A chunk ends where the log ended when it was read, where a kept chunk begins, or at a multiple of the chunk's
//!   size, so that readers who began at different places soon read the same chunks. A chunk never grows: what comes
//!   later is in the next one.
//! - A chunk is read by one reader; whoever wants it meanwhile waits for that one.
//! - What is kept may outlive retention in the log; it is what happened all the same.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::cache::Cache;
use super::chunk::Chunk;
use super::streams::OpenStreamError;
use crate::store::{EventRange, Sequence, Store, StoreError, View};

/// Commits whose time is remembered.
const COMMITS: usize = 1024;

/// How large chunks are and how many are kept.
#[derive(Clone, Copy, Debug)]
pub struct TailOptions {
    /// The most events of a chunk.
    pub chunk_events: u64,
    /// A chunk ends once its images pass this many bytes.
    pub chunk_bytes: usize,
    /// The most events that are kept.
    pub cache_events: usize,
    /// About the most memory that is kept.
    pub cache_bytes: usize,
}

impl Default for TailOptions {
    fn default() -> Self {
        Self { chunk_events: 256, chunk_bytes: 128 << 10, cache_events: 16_384, cache_bytes: 8 << 20 }
    }
}

/// The tail of the log. Any thread may read it; reading blocks as long as a read of the log does.
#[derive(Debug)]
pub struct Tail {
    store: Arc<dyn Store>,
    options: TailOptions,
    newest: watch::Sender<Sequence>,
    /// When the newest commits became durable, each with its last event.
    commits: Mutex<VecDeque<(Sequence, Instant)>>,
    state: Mutex<State>,
    read: Condvar,
}

#[derive(Debug)]
struct State {
    cache: Cache,
    /// First and last event of what is being read from the log.
    under_way: Vec<(Sequence, Sequence)>,
}

impl Tail {
    /// The tail of this store's log. Somebody has to [`notify`](Self::notify) it.
    pub fn new(store: Arc<dyn Store>, options: TailOptions) -> Arc<Self> {
        let newest = store.view().map_or(0, |view| view.bounds().newest);
        let cache = Cache::new(options.cache_events, options.cache_bytes);
        Arc::new(Self {
            store,
            options,
            newest: watch::Sender::new(newest),
            commits: Mutex::default(),
            state: Mutex::new(State { cache, under_way: Vec::new() }),
            read: Condvar::new(),
        })
    }

    /// Events up to this one are durable. Wakes every [`newest`](Self::newest) receiver; never blocks on a reader.
    pub fn notify(&self, newest: Sequence) {
        {
            let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
            if commits.len() == COMMITS {
                commits.pop_front();
            }
            commits.push_back((newest, Instant::now()));
        }
        self.newest.send_if_modified(|known| {
            let is_newer = newest > *known;
            *known = newest.max(*known);
            is_newer
        });
    }

    /// When this event became durable, if that was one of the last commits.
    pub(crate) fn committed_at(&self, sequence: Sequence) -> Option<Instant> {
        let commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let place = commits.partition_point(|(last, _)| *last < sequence);
        // What lies before the first that is known may have been durable long before it.
        if place == 0 { None } else { commits.get(place).map(|(_, at)| *at) }
    }

    /// The newest durable event, as it changes; 0 while there is none. Each receiver costs the log's thread a wake-up:
    /// thousands share one.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<Sequence> {
        self.newest.subscribe()
    }

    /// The chunk that holds the event after this one; none when nothing newer is durable. Its first event may lie
    /// before: [`Chunk::events_after`] has the new ones. `Dropped` when retention was faster than the reader.
    pub fn read(&self, after: Sequence) -> Result<Option<Arc<Chunk>>, StoreError> {
        let Some(first) = after.checked_add(1) else { return Ok(None) };
        let mut state = self.lock();
        loop {
            if let Some(chunk) = state.cache.find(first) {
                return Ok(Some(chunk));
            }
            let is_under_way = state.under_way.iter().any(|(from, to)| (*from..=*to).contains(&first));
            if !is_under_way {
                break;
            }
            state = self.read.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let view = self.store.view()?;
        let bounds = view.bounds();
        if first > bounds.newest {
            return Ok(None);
        }
        let last = self.end(&state, first).min(bounds.newest);
        state.under_way.push((first, last));
        drop(state);
        let mut under_way = UnderWay { tail: self, first, chunk: None };
        under_way.chunk = self.read_log(&*view, first, last)?.map(Arc::new);
        Ok(under_way.chunk.clone())
    }

    /// Where a stream begins that is to have what comes after this event, or the oldest event later than this time, or
    /// what comes from now on.
    pub(super) fn place(&self, after: Option<Sequence>, since_ms: Option<u64>) -> Result<Sequence, OpenStreamError> {
        let view = self.store.view()?;
        let bounds = view.bounds();
        match (after, since_ms) {
            (Some(after), _) if after > bounds.newest => Err(OpenStreamError::InTheFuture(bounds.newest)),
            (Some(after), _) if after < bounds.newest && after + 1 < bounds.oldest => {
                Err(StoreError::Dropped { oldest: bounds.oldest }.into())
            }
            (Some(after), _) => Ok(after),
            (None, Some(since_ms)) => {
                let range = EventRange {
                    after: bounds.oldest.saturating_sub(1),
                    until: bounds.newest,
                    since_ms: Some(since_ms),
                    max_events: 1,
                    ..EventRange::default()
                };
                let first = view.events(&range)?.events.first().map(|event| event.sequence - 1);
                Ok(first.unwrap_or(bounds.newest))
            }
            (None, None) => Ok(bounds.newest),
        }
    }

    /// Where a chunk that begins here ends at the latest.
    fn end(&self, state: &State, first: Sequence) -> Sequence {
        let size = self.options.chunk_events.max(1);
        let block = (first - 1).checked_div(size).unwrap_or(0).saturating_add(1).saturating_mul(size);
        let kept = state.cache.next_kept(first);
        let under_way = state.under_way.iter().map(|(from, _)| *from).filter(|from| *from > first).min();
        let next = [kept, under_way].into_iter().flatten().min();
        next.map_or(block, |next| block.min(next - 1))
    }

    fn read_log(&self, view: &dyn View, first: Sequence, last: Sequence) -> Result<Option<Chunk>, StoreError> {
        let range = EventRange {
            after: first - 1,
            until: last,
            max_events: usize::try_from(last - first + 1).unwrap_or(usize::MAX),
            max_bytes: self.options.chunk_bytes,
            ..EventRange::default()
        };
        Ok(Chunk::new(view.events(&range)?.events))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn kept_events(&self) -> usize {
        self.lock().cache.events()
    }
}

/// A chunk being read. However the read ends, whoever waits for it goes on.
struct UnderWay<'a> {
    tail: &'a Tail,
    first: Sequence,
    chunk: Option<Arc<Chunk>>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.tail.lock();
        state.under_way.retain(|(first, _)| *first != self.first);
        if let Some(chunk) = self.chunk.take() {
            state.cache.put(chunk);
        }
        drop(state);
        self.tail.read.notify_all();
    }
}
