//! A lane: the thread that takes one share of a subscription's events from the log to the subscriber.
//!
//! It looks at every event after its cursor in order, keeps those of its share that are selected, hands them over in
//! batches, and moves the cursor when a batch is acknowledged: durably, and together with what the subscriber has
//! written into its key-value store. Only then does the next batch go out, so a crash repeats one batch at the most.
//!
//! Nobody waits for a lane but the lane: capturing goes on, and what it has not seen yet waits in the log.

mod durable;
mod hand_over;
mod intake;
mod jobs;
mod share;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub(super) use self::share::lane_of;
use super::attempts::Attempts;
use super::deps::Deps;
use super::picked::Picked;
use super::records::{self, Progress};
use super::rows::Rows;
use super::subscription::{LaneState, Subscription};
use super::target::{GuestTarget, Target};
use super::threads::{FEW_LANES, take_place};
use crate::store::{Sequence, StoreError};

/// With many lanes, each gathers so much for each lane more than few.
const GATHER_PER_LANE: Duration = Duration::from_micros(50);
/// How often a batch that lingers is looked after.
const GATHER: Duration = Duration::from_millis(5);

/// Why a lane ends.
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// The store cannot be read or written. What is not durable is forgotten with the lane.
    Store(StoreError),
    /// Its thread has stepped back behind others, and what it does from now on is quick again: it goes on in a new one.
    NewThread(Box<Lane>),
}

/// Why the work of a moment is not done.
enum Interrupted {
    /// The lane is to stop.
    Control,
    Store(StoreError),
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A lane.
pub(super) struct Lane {
    subscription: Arc<Subscription>,
    deps: Arc<Deps>,
    /// Counts this lane while it lives.
    _counted: Arc<()>,
    lane: usize,
    cursor: String,
    newest: watch::Receiver<Sequence>,
    control: watch::Receiver<u64>,
    /// Up to here everything is acknowledged, durably.
    position: Sequence,
    /// Up to here everything was looked at.
    scanned: Sequence,
    persisted_at: Instant,
    progress: Progress,
    rows: Option<Rows>,
    /// Selected, and not seen by the filter component yet.
    raw: VecDeque<Picked>,
    /// To be delivered.
    ready: VecDeque<Picked>,
    /// Since when the first of `ready` waits.
    ready_since: Option<Instant>,
    filter: Option<GuestTarget>,
    target: Target,
    filter_attempts: Attempts,
    attempts: Attempts,
    /// Whether there was more in the log than a batch when it was last looked at.
    is_behind: bool,
    /// What a dead letter is kept under that stands for an event which is tried again because somebody resumed.
    stopped_at: Option<Vec<u8>>,
}

/// What a lane begins with.
pub(super) struct Beginning {
    pub(super) lane: usize,
    pub(super) position: Sequence,
    pub(super) progress: Progress,
    pub(super) filter: Option<GuestTarget>,
    pub(super) target: Target,
    pub(super) stopped_at: Option<Vec<u8>>,
}

impl Lane {
    pub(super) fn new(subscription: Arc<Subscription>, deps: Arc<Deps>, beginning: Beginning) -> Self {
        let Beginning { lane, position, progress, filter, target, stopped_at } = beginning;
        let shown = &subscription.lanes[lane];
        shown.position.store(position, Ordering::Release);
        shown.scanned.store(position, Ordering::Release);
        let rows = progress.snapshot.clone().map(Rows::new);
        shown.is_in_snapshot.store(rows.is_some(), Ordering::Release);
        Self {
            cursor: records::cursor(&subscription.id, u16::try_from(lane).unwrap_or(u16::MAX)),
            newest: deps.tail.newest(),
            control: subscription.control.changed(),
            filter_attempts: Attempts::new(subscription.spec.retry.clone()),
            attempts: Attempts::new(subscription.spec.retry.clone()),
            subscription,
            _counted: deps.count_lane(),
            deps,
            lane,
            position,
            scanned: position,
            persisted_at: Instant::now(),
            progress,
            rows,
            raw: VecDeque::new(),
            ready: VecDeque::new(),
            ready_since: None,
            filter,
            target,
            is_behind: false,
            stopped_at,
        }
    }

    /// What it works with and for, and which of the lanes it is.
    pub(super) fn belongs_to(&self) -> (Arc<Deps>, Arc<Subscription>, usize) {
        (self.deps.clone(), self.subscription.clone(), self.lane)
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self: Box<Self>) -> Ended {
        loop {
            take_place(&self.deps, &self.subscription);
            if self.subscription.control.is_stopping() {
                // What was passed over is noted, so that the next start does not look at it again.
                return match self.persist() {
                    Err(Interrupted::Store(error)) => Ended::Store(error),
                    _ => Ended::Stopped,
                };
            }
            if let Some(job) = self.subscription.control.take_job(self.lane) {
                match self.do_job(job) {
                    Ok(()) => {}
                    Err(Interrupted::Store(error)) => return Ended::Store(error),
                    Err(Interrupted::Control) => return Ended::Stopped,
                }
            }
            let step = match self.shown().state() {
                LaneState::Stopped { .. } | LaneState::Lost { .. } => {
                    self.wait_for_control(None);
                    Ok(())
                }
                _ if self.subscription.control.is_paused() => {
                    self.wait_for_control(None);
                    Ok(())
                }
                _ => self.step(),
            };
            match step {
                Ok(()) => {}
                Err(Interrupted::Store(error)) => return Ended::Store(error),
                // It is stopping, and what was just done could not be noted: it comes again.
                Err(Interrupted::Control) => return Ended::Stopped,
            }
            if crate::native_code::has_stepped_back() {
                return Ended::NewThread(self);
            }
        }
    }

    fn shown(&self) -> &super::subscription::Lane {
        &self.subscription.lanes[self.lane]
    }

    /// One round: takes events in, hands a batch over.
    fn step(&mut self) -> Result<(), Interrupted> {
        let slot = self.deps.slots.acquire();
        let is_at_end = match self.gather() {
            Ok(is_at_end) => is_at_end,
            Err(StoreError::Dropped { oldest }) => {
                let next = self.scanned + 1;
                tracing::error!(
                    subscription = self.subscription.id.as_str(),
                    next,
                    oldest,
                    "retention has dropped events that this subscription had not seen; it stands still until it is rewound"
                );
                self.shown().set(LaneState::Lost { next, oldest });
                return Ok(());
            }
            Err(error) if self.rows.is_some() => {
                let reason = format!("the snapshot cannot go on: {error}");
                tracing::error!(subscription = self.subscription.id.as_str(), reason, "delivery stops");
                self.shown().set(LaneState::Stopped { reason });
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.is_behind = !is_at_end;
        self.apply_filter(&slot)?;
        self.show();
        let batch = &self.subscription.spec.batch;
        let max = self.attempts.max_events().min(batch.max_events as usize);
        if self.ready.is_empty() {
            drop(slot);
            if self.raw.is_empty() {
                self.passed_over(is_at_end)?;
            }
            return Ok(());
        }
        let linger = Duration::from_millis(u64::from(batch.linger_ms));
        let waited = self.ready_since.map_or(linger, |since| since.elapsed());
        if is_at_end && self.ready.len() < max && waited < linger && self.rows.is_none() {
            drop(slot);
            // Being woken by every commit would cost more than what is gathered between them.
            self.wait_for_control(Some((linger - waited).min(GATHER)));
            return Ok(());
        }
        let bytes_max = batch.max_bytes as usize;
        let mut bytes = 0;
        let fits = |picked: &&Picked| {
            let fits = bytes < bytes_max;
            bytes += picked.bytes();
            fits
        };
        let count = self.ready.iter().take(max).take_while(fits).count().max(1);
        self.deliver(count, slot)
    }

    fn show(&self) {
        let shown = self.shown();
        shown.scanned.store(self.scanned, Ordering::Release);
        shown.waiting.store((self.raw.len() + self.ready.len()) as u64, Ordering::Relaxed);
        let mut memory = self.filter.as_ref().map_or(0, GuestTarget::memory_bytes);
        let mut version = 0;
        if let Target::Guest(guest) = &self.target {
            memory += guest.memory_bytes();
            version = guest.version();
        }
        shown.memory_bytes.store(memory as u64, Ordering::Relaxed);
        shown.version.store(u64::from(version), Ordering::Relaxed);
    }

    /// Waits for newer events, or until something is wanted, or for so long.
    fn wait(&mut self, longest: Option<Duration>) {
        let scanned = self.scanned;
        let Self { newest, control, deps, .. } = self;
        // With many lanes, waking each for every commit would cost writers more than what the lanes do.
        let others = deps.lanes().saturating_sub(FEW_LANES);
        let gathering = GATHER_PER_LANE * u32::try_from(others).unwrap_or(u32::MAX);
        deps.tasks.block_on(async {
            let news = async {
                let _ = newest.wait_for(|newest| *newest > scanned).await;
                if !gathering.is_zero() {
                    tokio::time::sleep(gathering).await;
                }
            };
            tokio::select! {
                () = news => {}
                () = end(longest) => {}
                _ = control.changed() => {}
            }
        });
    }

    /// Waits until something is wanted, or for so long.
    fn wait_for_control(&mut self, longest: Option<Duration>) {
        let Self { control, deps, .. } = self;
        deps.tasks.block_on(async {
            tokio::select! {
                () = end(longest) => {}
                _ = control.changed() => {}
            }
        });
    }
}

/// Done after so long; never, if there is no end.
async fn end(longest: Option<Duration>) {
    match longest {
        Some(longest) => tokio::time::sleep(longest).await,
        None => std::future::pending().await,
    }
}
