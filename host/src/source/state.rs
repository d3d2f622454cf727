//! One source: what is wanted of it, what it does, and its figures. Shared between its task and whoever looks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cdc_rest::{LastRepair, SourcePlace, SourceState, SourceStatus, SourceTable, SourceTableState};
use cdc_sources::{Progress, TableState};
use tokio::sync::watch;

use super::kept::Kept;
use super::spec::SourceSpec;
use crate::metrics::SourceDelay;

/// What somebody wants of a source. A change of any part ends what its task is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) goal: Goal,
    /// Raised to have a source begin again that stopped, or that is to be repaired.
    pub(super) attempt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Follow,
    Pause,
    /// The service ends.
    End,
}

/// What a source's task is at, where its feed does not say it better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    /// A feed is open: whether it reads or follows is its tables' to tell.
    Open,
    Repairing,
    Reconnecting,
    Paused,
    Stopped,
}

/// One source.
pub(super) struct Source {
    pub(super) spec: SourceSpec,
    pub(super) wishes: watch::Sender<Wish>,
    /// What is durable. One change at a time.
    pub(super) kept: tokio::sync::Mutex<Kept>,
    pub(super) counts: Counts,
    pub(super) delay: SourceDelay,
    shown: Mutex<Shown>,
}

/// What was done since the service started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) events: AtomicU64,
    pub(super) transactions: AtomicU64,
    pub(super) portions: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) rows_read: AtomicU64,
}

struct Shown {
    phase: Phase,
    state: SourceState,
    since_ms: u64,
    code: Option<String>,
    reason: Option<String>,
    progress: Progress,
    over_budget: bool,
    /// When the database committed the newest change that is durable here.
    newest_commit_ms: Option<u64>,
    last_repair: Option<LastRepair>,
}

/// A source's figures for the metrics.
#[derive(Clone, Debug)]
pub struct SourceFigures {
    /// Its name.
    pub name: String,
    /// Its state by its number in [`SourceState::ALL`].
    pub state: u8,
    /// Bytes of the database's log ahead of it.
    pub lag_bytes: Option<u64>,
    /// Bytes of log that the database keeps because of it.
    pub retained_bytes: Option<u64>,
    /// How many that may be.
    pub retained_budget: Option<u64>,
    /// Events captured.
    pub events: u64,
    /// Transactions captured.
    pub transactions: u64,
    /// Portions captured.
    pub portions: u64,
    /// Connections lost.
    pub reconnects: u64,
    /// Rows of tables read.
    pub rows_read: u64,
    /// From a commit in the database until it is durable here.
    pub(crate) delay: SourceDelay,
}

impl Source {
    pub(super) fn new(spec: SourceSpec, kept: Kept) -> Self {
        let (goal, phase, state) = match kept.is_paused {
            true => (Goal::Pause, Phase::Paused, SourceState::Paused),
            false => (Goal::Follow, Phase::Starting, SourceState::Starting),
        };
        let shown = Shown {
            phase,
            state,
            since_ms: now_ms(),
            code: None,
            reason: None,
            progress: Progress::default(),
            over_budget: false,
            newest_commit_ms: None,
            last_repair: None,
        };
        Self {
            spec,
            wishes: watch::Sender::new(Wish { goal, attempt: 0 }),
            kept: tokio::sync::Mutex::new(kept),
            counts: Counts::default(),
            delay: SourceDelay::default(),
            shown: Mutex::new(shown),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.spec.name.as_str()
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is doing.
    pub(super) fn state(&self) -> SourceState {
        self.shown().state
    }

    /// It is at something else, and nothing is wrong.
    pub(super) fn enter(&self, phase: Phase) {
        let mut shown = self.shown();
        (shown.code, shown.reason) = (None, None);
        shown.enter(phase);
    }

    /// It is at something else because of what a person should know.
    pub(super) fn enter_because(&self, phase: Phase, code: &str, reason: &str) {
        let mut shown = self.shown();
        (shown.code, shown.reason) = (Some(code.to_owned()), Some(reason.to_owned()));
        shown.enter(phase);
    }

    /// How far its feed is. Answers whether more is retained than may be, when that is news.
    pub(super) fn progressed(&self, progress: Progress) -> Option<bool> {
        let mut shown = self.shown();
        let over = self.spec.max_retained_bytes.zip(progress.retained_bytes).is_some_and(|(max, kept)| kept > max);
        let is_news = over != shown.over_budget;
        shown.over_budget = over;
        shown.progress = progress;
        let phase = shown.phase;
        shown.enter(phase);
        is_news.then_some(over)
    }

    /// How much log its database keeps while no feed is open. Answers whether that is more than may be.
    pub(super) fn retains(&self, found: Progress) -> bool {
        let Progress { confirmed, tables, .. } = self.shown().progress.clone();
        self.progressed(Progress { confirmed, tables, ..found });
        self.shown().over_budget
    }

    /// A change that the database committed then is durable.
    pub(super) fn captured(&self, committed_ms: u64) {
        self.shown().newest_commit_ms = Some(committed_ms);
    }

    pub(super) fn repaired(&self, repair: LastRepair) {
        self.shown().last_repair = Some(repair);
    }

    pub(super) fn status(&self) -> SourceStatus {
        let shown = self.shown();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let table = |table: &cdc_sources::TableProgress| SourceTable {
            table: table.table.clone(),
            state: match table.state {
                TableState::Waiting => SourceTableState::Waiting,
                TableState::Reading | TableState::Rereading => SourceTableState::Reading,
                TableState::Paused | TableState::Stopped | TableState::Following => SourceTableState::Following,
            },
            rows_read: table.rows_read,
        };
        SourceStatus {
            name: self.name().to_owned(),
            kind: self.spec.kind().as_str(),
            state: shown.state,
            code: shown.code.clone(),
            reason: shown.reason.clone(),
            since_ms: shown.since_ms,
            position: SourcePlace {
                committed: shown.progress.confirmed.clone(),
                newest: shown.progress.newest.clone(),
            },
            lag_bytes: shown.progress.lag_bytes,
            retained_bytes: shown.progress.retained_bytes,
            retained_budget: self.spec.max_retained_bytes,
            over_budget: shown.over_budget,
            commit_delay_ms: shown.newest_commit_ms.map(|committed| now_ms().saturating_sub(committed)),
            tables: shown.progress.tables.iter().map(table).collect(),
            events: count(&self.counts.events),
            transactions: count(&self.counts.transactions),
            portions: count(&self.counts.portions),
            reconnects: count(&self.counts.reconnects),
            last_repair: shown.last_repair.clone(),
        }
    }

    pub(super) fn figures(&self) -> SourceFigures {
        let shown = self.shown();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = SourceState::ALL.iter().position(|state| *state == shown.state).unwrap_or_default();
        SourceFigures {
            name: self.name().to_owned(),
            state: u8::try_from(state).unwrap_or_default(),
            lag_bytes: shown.progress.lag_bytes,
            retained_bytes: shown.progress.retained_bytes,
            retained_budget: self.spec.max_retained_bytes,
            events: count(&self.counts.events),
            transactions: count(&self.counts.transactions),
            portions: count(&self.counts.portions),
            reconnects: count(&self.counts.reconnects),
            rows_read: count(&self.counts.rows_read),
            delay: self.delay.clone(),
        }
    }
}

impl Shown {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        let reads = || self.progress.tables.iter().any(|table| table.state != TableState::Following);
        let state = match phase {
            Phase::Starting => SourceState::Starting,
            Phase::Open if reads() => SourceState::Reading,
            Phase::Open => SourceState::Following,
            Phase::Repairing => SourceState::Repairing,
            Phase::Reconnecting => SourceState::Reconnecting,
            Phase::Paused => SourceState::Paused,
            Phase::Stopped => SourceState::Stopped,
        };
        if state != self.state {
            self.state = state;
            self.since_ms = now_ms();
        }
    }
}

/// Now, in ms since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
