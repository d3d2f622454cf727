//! One source: what is wanted of it, what it does, and its figures. Shared between its task and whoever looks.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cdc_rest::{LastRepair, SourcePlace, SourceSelection, SourceState, SourceStatus, SourceTable, SourceTableState};
use cdc_sources::Progress;
use tokio::sync::{MutexGuard as KeptGuard, Notify, watch};

use super::audit::{Audit, LastAudit};
use super::kept::{Kept, Selected};
use super::shown::Shown;
use super::spec::{OnMaxRetained, SourceSpec};
use crate::ingest::Ingest;
use crate::metrics::SourceDelay;
use crate::store::{Counters, StoreError};

/// What somebody wants of a source. A change of any part ends what its task is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) goal: Goal,
    /// Raised to have a source begin again that stopped, or that is to be repaired.
    pub(super) attempt: u64,
    /// Raised when something else is wanted of its tables: a feed that is open is opened anew. Nothing to a source that
    /// rests.
    pub(super) orders: u64,
}

impl Wish {
    /// Whether a source that rests goes on resting, although the wish is another one than `before`.
    pub(super) fn rests_on(self, before: Self) -> bool {
        (self.goal, self.attempt) == (before.goal, before.attempt)
    }
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
    kept: tokio::sync::Mutex<Kept>,
    pub(super) counts: Counts,
    pub(super) delay: SourceDelay,
    audit: Mutex<Audit>,
    /// Rung when there is something to compare.
    pub(super) audits: Notify,
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
    /// Tables that stopped.
    pub(super) table_stops: AtomicU64,
    /// Tables that began to be read anew.
    pub(super) table_rereads: AtomicU64,
    /// Rows that were compared with the database's.
    pub(super) audit_rows: AtomicU64,
    /// Rows that differed.
    pub(super) audit_differences: AtomicU64,
    /// Rows of those that were mended.
    pub(super) audit_mended: AtomicU64,
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
    /// How many tables are in each state.
    pub tables: [(&'static str, u64); SourceTableState::ALL.len()],
    /// Tables that stopped.
    pub table_stops: u64,
    /// Tables that began to be read anew.
    pub table_rereads: u64,
    /// Rows that were compared with the database's.
    pub audit_rows: u64,
    /// Rows that differed.
    pub audit_differences: u64,
    /// Rows of those that were mended.
    pub audit_mended: u64,
    /// When the last audit ended, in ms since 1970, and whether every row was the database's; over restarts.
    pub last_audit: Option<(u64, bool)>,
    /// From a commit in the database until it is durable here.
    pub(crate) delay: SourceDelay,
}

impl Source {
    pub(super) fn new(spec: SourceSpec, kept: Kept, audit: Audit) -> Self {
        let (goal, phase, state) = match kept.is_paused {
            true => (Goal::Pause, Phase::Paused, SourceState::Paused),
            false => (Goal::Follow, Phase::Starting, SourceState::Starting),
        };
        let shown = Shown::new(spec.name.as_str(), phase, state, &kept);
        Self {
            spec,
            wishes: watch::Sender::new(Wish { goal, attempt: 0, orders: 0 }),
            kept: tokio::sync::Mutex::new(kept),
            counts: Counts::default(),
            delay: SourceDelay::default(),
            audit: Mutex::new(audit),
            audits: Notify::new(),
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

    /// What is known of its audits.
    pub(super) fn audit(&self) -> MutexGuard<'_, Audit> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every table of it follows that can.
    pub(super) fn is_following(&self) -> bool {
        self.state() == SourceState::Following
    }

    /// The tables that it has.
    pub(super) fn table_names(&self) -> Vec<String> {
        let is_there = |table: &SourceTable| table.state != SourceTableState::Dropped;
        self.shown().tables().into_iter().filter(is_there).map(|table| table.table).collect()
    }

    /// What is kept, while nobody changes it.
    pub(super) async fn kept(&self) -> KeptGuard<'_, Kept> {
        self.kept.lock().await
    }

    /// Changes what is kept, durably.
    pub(super) async fn change(
        &self,
        kept: &mut Kept,
        ingest: &Ingest,
        change: impl FnOnce(&mut Kept),
    ) -> Result<(), StoreError> {
        let mut changed = kept.clone();
        change(&mut changed);
        changed.record(self.name(), ingest).await?;
        self.shown().keep(&changed);
        *kept = changed;
        Ok(())
    }

    /// It is at something else, and nothing is wrong.
    pub(super) fn enter(&self, phase: Phase) {
        self.shown().enter(phase, None);
    }

    /// It is at something else because of what a person should know.
    pub(super) fn enter_because(&self, phase: Phase, code: &str, reason: &str) {
        self.shown().enter(phase, Some((code.to_owned(), reason.to_owned())));
    }

    /// How far its feed is. Answers whether more is retained than may be, when that is news.
    pub(super) fn progressed(&self, progress: Progress) -> Option<bool> {
        let mut shown = self.shown();
        // What is not known yet is no reason to believe that it is less.
        let over = match progress.retained_bytes {
            Some(retained) => self.spec.max_retained_bytes.is_some_and(|max| retained > max),
            None => shown.over_budget,
        };
        let is_news = over != shown.over_budget;
        shown.over_budget = over;
        let (stops, rereads) = shown.progressed(progress, std::time::Instant::now());
        self.counts.table_stops.fetch_add(stops, Ordering::Relaxed);
        self.counts.table_rereads.fetch_add(rereads, Ordering::Relaxed);
        is_news.then_some(over)
    }

    /// How much log its database keeps while no feed is open. Answers whether that is more than may be.
    pub(super) fn retains(&self, found: Progress) -> bool {
        let Progress { confirmed, tables, .. } = self.shown().progress.clone();
        self.progressed(Progress { confirmed, tables, ..found });
        self.shown().over_budget
    }

    /// These tables have rows here, and the feed does not know them. Answers those of which that is news.
    pub(super) fn miss(&self, missing: BTreeSet<String>) -> Vec<String> {
        self.shown().miss(missing)
    }

    /// A change that the database committed then is durable.
    pub(super) fn captured(&self, committed_ms: u64) {
        self.shown().newest_commit_ms = Some(committed_ms);
    }

    pub(super) fn repaired(&self, repair: LastRepair) {
        self.shown().last_repair = Some(repair);
    }

    /// How one of its tables fares.
    pub(super) fn table(&self, name: &str, counters: Option<&Counters>) -> Option<SourceTable> {
        let mut table = self.shown().tables().into_iter().find(|table| table.table == name)?;
        count_events(&mut table, counters);
        Some(table)
    }

    /// Which tables it captures.
    pub(super) fn selection(&self) -> SourceSelection {
        let selection = &self.spec.selection;
        match self.shown().selected.clone() {
            Some(Selected { tables, exclude }) => SourceSelection { tables, exclude, is_chosen: true },
            None => SourceSelection {
                tables: selection.tables.clone(),
                exclude: selection.exclude.clone(),
                is_chosen: false,
            },
        }
    }

    pub(super) fn status(&self, counters: Option<&Counters>) -> SourceStatus {
        let selection = self.selection();
        let shown = self.shown();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut tables = shown.tables();
        tables.iter_mut().for_each(|table| count_events(table, counters));
        let (code, reason) = match &shown.because {
            Some((code, reason)) => (Some(code.clone()), Some(reason.clone())),
            None => self.still_over_budget(&shown).unzip(),
        };
        SourceStatus {
            name: self.name().to_owned(),
            kind: self.spec.kind().as_str(),
            state: shown.state,
            code,
            reason,
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
            selection,
            tables,
            events: count(&self.counts.events),
            transactions: count(&self.counts.transactions),
            portions: count(&self.counts.portions),
            reconnects: count(&self.counts.reconnects),
            last_repair: shown.last_repair.clone(),
        }
    }

    /// Why it follows although more is retained than it stops for: somebody resumed it.
    fn still_over_budget(&self, shown: &Shown) -> Option<(String, String)> {
        let follows = matches!(shown.state, SourceState::Reading | SourceState::Following | SourceState::Repairing);
        if !(shown.over_budget && follows && self.spec.on_max_retained == OnMaxRetained::Stop) {
            return None;
        }
        let budget = self.spec.max_retained_bytes.unwrap_or_default();
        let reason = format!(
            "the database keeps more log for the source than max-retained-bytes ({budget}) allows; it follows until that \
             is less, and stops when it is more again"
        );
        Some((super::budget::OVER.to_owned(), reason))
    }

    pub(super) fn figures(&self) -> SourceFigures {
        let shown = self.shown();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = SourceState::ALL.iter().position(|state| *state == shown.state).unwrap_or_default();
        let all = shown.tables();
        let in_state = |state: SourceTableState| all.iter().filter(|table| table.state == state).count() as u64;
        let tables = SourceTableState::ALL.map(|state| (state.as_str(), in_state(state)));
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
            tables,
            table_stops: count(&self.counts.table_stops),
            table_rereads: count(&self.counts.table_rereads),
            audit_rows: count(&self.counts.audit_rows),
            audit_differences: count(&self.counts.audit_differences),
            audit_mended: count(&self.counts.audit_mended),
            last_audit: self.audit().last().map(|LastAudit { ended_at_ms, is_equal }| (ended_at_ms, is_equal)),
            delay: self.delay.clone(),
        }
    }
}

fn count_events(table: &mut SourceTable, counters: Option<&Counters>) {
    let Some(counters) = counters else { return };
    // By name, ascending.
    let found = counters.tables.binary_search_by(|count| (*count.table).cmp(&table.table));
    table.events = Some(found.map_or(0, |at| counters.tables[at].by_operation.iter().sum()));
}

/// Now, in ms since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
