//! Live streams: who reads, how many may, how they are woken, and how they are ended.
//!
//! A reader is a place in the log and a selection; it has no buffer of its own, no thread and no copy of an event. What
//! it sends next it takes from the tail when its connection can take more, so a reader that is slow reads the log at
//! its own pace, and is ended once it takes nothing for too long or retention has overtaken it.
//!
//! The log's thread wakes one task here, which wakes the readers. While events come fast it does so less often, so that
//! readers cannot take all of the CPU time from the writers that they wait for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cdc_rest::StreamQuery;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::reader::Reader;
use super::tail::Tail;
use crate::metrics::{Held, Metrics, StreamEnd, StreamKind};
use crate::schemas::Schemas;
use crate::store::{Sequence, StoreError};

/// How long events are gathered for each reader that is to be woken: several times what waking it and sending to it
/// costs, so that most of the CPU time is left to writers.
const WAKE_COST: Duration = Duration::from_micros(50);
/// The longest that an event waits because of the events before it.
const WAKE_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long readers have to take their last words when the service stops.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// Limits of streams.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// The most open streams.
    pub max_streams: usize,
    /// How often a stream shows that it is alive.
    pub heartbeat: Duration,
    /// How long a reader may take nothing of what is sent to it.
    pub stall_timeout: Duration,
}

/// Why a stream cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStreamError {
    /// As many as may be are open.
    #[error("{0} streams are open")]
    TooMany(usize),
    /// The service stops.
    #[error("the service stops")]
    Stopping,
    /// It is to begin beyond the newest event.
    #[error("the newest event is {0}")]
    InTheFuture(Sequence),
    /// The log cannot be read there.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What readers wait for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    pub(super) newest: Sequence,
    pub(super) is_stopping: bool,
}

/// Every live stream.
#[derive(Debug)]
pub struct Streams {
    tail: Arc<Tail>,
    schemas: Arc<Schemas>,
    options: StreamOptions,
    metrics: Arc<Metrics>,
    pulse: watch::Sender<Pulse>,
    stopping: Notify,
    /// What the times in seats count from.
    began: Instant,
    seats: Mutex<Seats>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: HashMap<u64, Arc<SeatState>>,
}

#[derive(Debug)]
struct SeatState {
    /// Since when something has been on its way to the client, in ms from 1; 0 when nothing is.
    sending_since_ms: AtomicU64,
    end: OnceLock<StreamEnd>,
    /// Ends the connection, where the stream has it for itself.
    cut: Option<Arc<Notify>>,
}

impl Streams {
    /// Streams of this tail, woken by a task of their own until [`stop`](Self::stop).
    pub fn start(tail: Arc<Tail>, schemas: Arc<Schemas>, options: StreamOptions, metrics: Arc<Metrics>) -> Arc<Self> {
        let mut newest = tail.newest();
        let pulse = Pulse { newest: *newest.borrow_and_update(), is_stopping: false };
        let streams = Arc::new(Self {
            tail,
            schemas,
            options,
            metrics,
            pulse: watch::Sender::new(pulse),
            stopping: Notify::new(),
            began: Instant::now(),
            seats: Mutex::default(),
            left: Notify::new(),
        });
        tokio::spawn(streams.clone().run(newest));
        streams
    }

    /// Opens a stream. `cut` ends the client's connection; without it a reader that takes nothing loses its place, and
    /// its connection is left alone because others share it.
    pub fn open(
        self: &Arc<Self>,
        query: StreamQuery,
        kind: StreamKind,
        cut: Option<Arc<Notify>>,
    ) -> Result<(Seat, Reader), OpenStreamError> {
        let pulse = self.pulse.subscribe();
        if pulse.borrow().is_stopping {
            return Err(OpenStreamError::Stopping);
        }
        let after = self.tail.place(query.after, query.since_ms)?;
        let max = self.options.max_streams;
        let state = Arc::new(SeatState { sending_since_ms: AtomicU64::new(0), end: OnceLock::new(), cut });
        let mut seats = self.lock();
        if seats.taken.len() >= max {
            return Err(OpenStreamError::TooMany(max));
        }
        seats.next += 1;
        let number = seats.next;
        seats.taken.insert(number, state.clone());
        drop(seats);
        let held = self.metrics.streams.open(kind);
        let seat = Seat { streams: self.clone(), number, kind, state, _held: held };
        Ok((seat, Reader::new(self.tail.clone(), self.schemas.clone(), pulse, query, after, self.options.heartbeat)))
    }

    /// What streams are limited to.
    #[must_use]
    pub fn options(&self) -> &StreamOptions {
        &self.options
    }

    /// Ends every stream, and opens no more.
    pub fn stop(&self) {
        self.pulse.send_modify(|pulse| pulse.is_stopping = true);
        self.stopping.notify_one();
    }

    /// Waits until no stream is open.
    pub async fn ended(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if self.lock().taken.is_empty() {
                return;
            }
            left.await;
        }
    }

    async fn run(self: Arc<Self>, mut newest: watch::Receiver<Sequence>) {
        let every = (self.options.stall_timeout / 8).max(Duration::from_millis(1));
        let mut look = tokio::time::interval(every);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stopping.notified() => break,
                _ = look.tick() => self.cut_stalled(),
                changed = newest.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let newest = *newest.borrow_and_update();
                    self.pulse.send_modify(|pulse| pulse.newest = newest);
                    let readers = u32::try_from(self.lock().taken.len()).unwrap_or(u32::MAX);
                    let pause = WAKE_COST.saturating_mul(readers).min(WAKE_PAUSE_MAX);
                    if pause >= Duration::from_millis(1) {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
        tokio::time::sleep(STOP_PATIENCE).await;
        self.cut(StreamEnd::Stopping, |_| true);
    }

    /// Ends the streams whose clients take nothing.
    fn cut_stalled(&self) {
        let limit = u64::try_from(self.options.stall_timeout.as_millis()).unwrap_or(u64::MAX);
        let now = self.now_ms();
        let is_stalled = |state: &SeatState| match state.sending_since_ms.load(Ordering::Relaxed) {
            0 => false,
            since => now.saturating_sub(since) >= limit,
        };
        let cut = self.cut(StreamEnd::Slow, is_stalled);
        if cut > 0 {
            let timeout_ms = limit;
            tracing::warn!(readers = cut, timeout_ms, "readers of streams took nothing for too long and were cut off");
        }
    }

    /// Takes their seats from some, and answers from how many.
    fn cut(&self, why: StreamEnd, is_meant: impl Fn(&SeatState) -> bool) -> usize {
        let (mut count, mut freed) = (0, false);
        self.lock().taken.retain(|_, state| {
            if !is_meant(state) {
                return true;
            }
            count += 1;
            let _ = state.end.set(why);
            match &state.cut {
                Some(cut) => {
                    cut.notify_one();
                    // Its seat is free when the connection is gone.
                    state.sending_since_ms.store(0, Ordering::Relaxed);
                    true
                }
                None => {
                    freed = true;
                    false
                }
            }
        });
        if freed {
            self.left.notify_waiters();
        }
        count
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the streams that may be open. Dropped, it is free.
#[derive(Debug)]
#[must_use = "the stream counts as open until this is dropped"]
pub struct Seat {
    streams: Arc<Streams>,
    number: u64,
    kind: StreamKind,
    state: Arc<SeatState>,
    _held: Held,
}

impl Seat {
    /// Something is on its way to the client from now on, or nothing is: what the client takes is seen by its asking
    /// for more.
    pub fn sending(&self, is_sending: bool) {
        let since = if is_sending { self.streams.now_ms() } else { 0 };
        self.state.sending_since_ms.store(since, Ordering::Relaxed);
    }

    /// Counts events given to the client.
    pub fn sent(&self, events: u64) {
        self.streams.metrics.streams.sent(self.kind, events);
    }

    /// Says why the stream ends; what was said first counts. Without it the client has left.
    pub fn end(&self, why: StreamEnd) {
        let _ = self.state.end.set(why);
    }

    /// Why the stream has to end, once it has to.
    #[must_use]
    pub fn ended(&self) -> Option<StreamEnd> {
        self.state.end.get().copied()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.streams.metrics.streams.ended(self.ended().unwrap_or(StreamEnd::Left));
        self.streams.lock().taken.remove(&self.number);
        self.streams.left.notify_waiters();
    }
}
