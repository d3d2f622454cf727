//! A subscription as everybody sees it: its definition, what is wanted of its lanes, and what they have done.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use cdc_rest::{SubscriptionId, SubscriptionSpec};
use tokio::sync::watch;

use super::audit::Audit;
use super::records::{DeadLetter, Definition};
use crate::guest::CallError;
use crate::metrics::DeliveryDelay;
use crate::selection::Selection;
use crate::store::Sequence;

/// Events refused by a filter component that are remembered, for traces.
const REFUSED: usize = 10_000;

/// A subscription.
pub(super) struct Subscription {
    pub(super) id: SubscriptionId,
    pub(super) spec: SubscriptionSpec,
    pub(super) selection: Selection,
    pub(super) definition: Mutex<Definition>,
    pub(super) control: Control,
    pub(super) figures: Arc<Figures>,
    pub(super) lanes: Vec<Lane>,
    /// What the filter component has refused lately.
    pub(super) refused: Mutex<VecDeque<Sequence>>,
    /// What was found when its replica was compared.
    pub(super) audit: Mutex<Option<Audit>>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Subscription {
    pub(super) fn definition(&self) -> MutexGuard<'_, Definition> {
        self.definition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to where every lane has acknowledged.
    pub(super) fn position(&self) -> Sequence {
        self.lanes.iter().map(|lane| lane.position.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    pub(super) fn remember_refused(&self, sequences: impl Iterator<Item = Sequence>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        for sequence in sequences {
            if refused.len() == REFUSED {
                refused.pop_front();
            }
            refused.push_back(sequence);
        }
    }
}

/// What is wanted of the lanes.
pub(super) struct Control {
    wanted: Mutex<Wanted>,
    changed: watch::Sender<u64>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Wanted {
    is_paused: bool,
    jobs: Vec<VecDeque<Job>>,
}

/// Something that a lane does between two batches.
pub(super) enum Job {
    /// Delivers dead letters, one by one.
    Retry { letters: Vec<DeadLetter>, reply: mpsc::Sender<Retried> },
    /// Passes over the event that delivery stopped at.
    Skip { sequence: Sequence, reply: mpsc::Sender<bool> },
}

/// What became of dead letters that were tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Those that are done now.
    pub delivered: Vec<Sequence>,
    /// Those that are not, and why.
    pub failed: Vec<(Sequence, String)>,
}

impl Control {
    pub(super) fn new(is_paused: bool, lanes: usize) -> Self {
        let jobs = (0..lanes).map(|_| VecDeque::new()).collect();
        Self {
            wanted: Mutex::new(Wanted { is_paused, jobs }),
            changed: watch::Sender::new(0),
            stop: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.tell();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn pause(&self, is_paused: bool) {
        self.lock().is_paused = is_paused;
        self.tell();
    }

    pub(super) fn is_paused(&self) -> bool {
        self.lock().is_paused
    }

    pub(super) fn give(&self, lane: usize, job: Job) {
        if let Some(jobs) = self.lock().jobs.get_mut(lane) {
            jobs.push_back(job);
        }
        self.tell();
    }

    pub(super) fn take_job(&self, lane: usize) -> Option<Job> {
        self.lock().jobs.get_mut(lane)?.pop_front()
    }
}

/// Where a lane stands.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The last event that is acknowledged, durably.
    pub(super) position: AtomicU64,
    /// The last event that was looked at.
    pub(super) scanned: AtomicU64,
    /// Whether the rows that come before the events are still being delivered.
    pub(super) is_in_snapshot: AtomicBool,
    /// Selected events that are not acknowledged.
    pub(super) waiting: AtomicU64,
    /// Linear memory of its instances.
    pub(super) memory_bytes: AtomicU64,
    /// The version of the component that it runs; 0 without any.
    pub(super) version: AtomicU64,
    pub(super) state: Mutex<LaneState>,
}

/// What a lane is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum LaneState {
    /// Delivers, or waits for events.
    #[default]
    Running,
    /// Waits before it tries again.
    Retrying { sequence: Sequence, attempts: u32, kind: &'static str, message: String, next_ms: u64 },
    /// Delivers no more until somebody decides.
    Stopped { reason: String },
    /// Retention has dropped events that it had not seen.
    Lost { next: Sequence, oldest: Sequence },
}

impl Lane {
    pub(super) fn set(&self, state: LaneState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn state(&self) -> LaneState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What was done since the service started.
        #[derive(Debug, Default)]
        pub(super) struct Figures {
            $($(#[$doc])* pub(super) $name: AtomicU64,)+
            /// From a commit until the subscriber was entered.
            pub(super) delay: DeliveryDelay,
            /// The last failure, and when it was.
            pub(super) last_failure: Mutex<Option<LastFailure>>,
        }

        /// [`Figures`], read at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Figures {
            pub(super) fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

figures! {
    /// Events that were acknowledged by the subscriber.
    delivered,
    /// Calls of the subscriber that acknowledged events.
    batches,
    /// Attempts after a failure.
    retries,
    /// Calls that trapped.
    traps,
    /// Calls that took too long.
    timeouts,
    /// Calls that ended the guest's process.
    exits,
    /// Answers that the contract does not allow.
    wrong_answers,
    /// Events that went to the dead letters.
    dead,
    /// Events of other tables or operations.
    unselected,
    /// Events that the condition did not select.
    filtered_by_condition,
    /// Events on which the condition could not be evaluated.
    condition_failures,
    /// Events that the filter component refused.
    filtered_by_component,
    /// Time in calls of guests, in µs.
    guest_us,
    /// Log lines of guests that were dropped.
    dropped_lines,
    /// Instances that were made.
    instances,
    /// Rows that were compared with a replica's.
    audited_rows,
    /// Those that differ.
    audit_differences,
}

/// A failure, for whoever looks at the subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// `retry`, `reject`, `trap`, `timeout`, `exit`, `wrong-answer`, `component` or `condition`.
    pub kind: &'static str,
    /// What happened, with the guest's backtrace.
    pub message: String,
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// The first event that was not done.
    pub sequence: Sequence,
}

impl Figures {
    pub(super) fn add(&self, figure: impl FnOnce(&Self) -> &AtomicU64, count: u64) {
        figure(self).fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn crashed(&self, error: &CallError) {
        let figure = match error {
            CallError::Timeout { .. } => &self.timeouts,
            CallError::Trapped { .. } => &self.traps,
            CallError::Exited { .. } => &self.exits,
            CallError::WrongAnswer { .. } => &self.wrong_answers,
        };
        figure.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, failure: LastFailure) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    pub(super) fn last_failure(&self) -> Option<LastFailure> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
