//! What is shown of a source: what it is at, how far its feed is, and how each of its tables fares, put together from
//! what the feed says and from what is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use cdc_rest::{LastRepair, SourceState, SourceTable, SourceTableState, path_segment};
use cdc_sources::{Progress, TableProgress, TableState};

use super::kept::{Held, Kept, Selected, Why};
use super::state::{Phase, now_ms};

/// The code of a table that the feed does not know.
pub(super) const MISSING: &str = "missing";

pub(super) struct Shown {
    name: String,
    phase: Phase,
    pub(super) state: SourceState,
    pub(super) since_ms: u64,
    /// Code and reason.
    pub(super) because: Option<(String, String)>,
    pub(super) progress: Progress,
    pub(super) over_budget: bool,
    /// When the database committed the newest change that is durable here.
    pub(super) newest_commit_ms: Option<u64>,
    pub(super) last_repair: Option<LastRepair>,
    pub(super) selected: Option<Selected>,
    held: BTreeMap<String, Held>,
    reread: BTreeMap<String, Why>,
    /// Tables that have rows here and that the feed does not know.
    missing: BTreeSet<String>,
    /// Each table's state when the feed listed it last, over reconnections.
    seen: HashMap<String, TableState>,
    /// When tables that are being read were first seen so, and how many rows had been read then.
    begun: HashMap<String, (Instant, u64)>,
    /// Rows a second of those, where there is something to go by.
    rates: HashMap<String, f64>,
}

impl Shown {
    pub(super) fn new(name: &str, phase: Phase, state: SourceState, kept: &Kept) -> Self {
        let mut shown = Self {
            name: name.to_owned(),
            phase,
            state,
            since_ms: now_ms(),
            because: None,
            progress: Progress::default(),
            over_budget: false,
            newest_commit_ms: None,
            last_repair: None,
            selected: None,
            held: BTreeMap::new(),
            reread: BTreeMap::new(),
            missing: BTreeSet::new(),
            seen: HashMap::new(),
            begun: HashMap::new(),
            rates: HashMap::new(),
        };
        shown.keep(kept);
        shown
    }

    /// Something else is kept.
    pub(super) fn keep(&mut self, kept: &Kept) {
        self.selected.clone_from(&kept.selected);
        self.held.clone_from(&kept.held);
        self.reread.clone_from(&kept.reread);
        self.settle();
    }

    /// It is at something else.
    pub(super) fn enter(&mut self, phase: Phase, because: Option<(String, String)>) {
        (self.phase, self.because) = (phase, because);
        self.settle();
    }

    /// The feed has come so far. Answers how many tables stopped, and how many began to be read anew.
    pub(super) fn progressed(&mut self, progress: Progress, now: Instant) -> (u64, u64) {
        let (mut stops, mut rereads) = (0, 0);
        for TableProgress { table, state, .. } in &progress.tables {
            let before = self.seen.insert(table.clone(), *state);
            // What is held stopped when it was put there.
            if before == Some(*state) || self.held.contains_key(table) {
                continue;
            }
            stops += u64::from(*state == TableState::Stopped);
            rereads += u64::from(*state == TableState::Rereading);
        }
        self.clock(&progress.tables, now);
        self.progress = progress;
        self.settle();
        (stops, rereads)
    }

    /// Takes the time of tables that are being read.
    fn clock(&mut self, tables: &[TableProgress], now: Instant) {
        let is_read = |table: &TableProgress| matches!(table.state, TableState::Reading | TableState::Rereading);
        self.rates.clear();
        let mut begun = HashMap::new();
        for table in tables.iter().filter(|table| is_read(table)) {
            let earlier = self.begun.remove(&table.table).filter(|(_, rows)| *rows <= table.rows_read);
            let (since, rows) = earlier.unwrap_or((now, table.rows_read));
            let seconds = now.saturating_duration_since(since).as_secs_f64();
            if seconds >= 1.0 && table.rows_read > rows {
                self.rates.insert(table.table.clone(), (table.rows_read - rows) as f64 / seconds);
            }
            begun.insert(table.table.clone(), (since, rows));
        }
        self.begun = begun;
    }

    /// Tables that have rows here, and that the feed does not know. Answers those of which that is news.
    pub(super) fn miss(&mut self, missing: BTreeSet<String>) -> Vec<String> {
        let news = missing.difference(&self.missing).cloned().collect();
        self.missing = missing;
        self.settle();
        news
    }

    fn settle(&mut self) {
        let is_underway = || self.is_underway();
        let state = match self.phase {
            Phase::Starting => SourceState::Starting,
            Phase::Open if is_underway() => SourceState::Reading,
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

    /// Whether the rows of some table are on their way.
    fn is_underway(&self) -> bool {
        let told = |table: &TableProgress| match table.state {
            TableState::Waiting | TableState::Reading | TableState::Rereading => true,
            TableState::Following => self.reread.contains_key(&table.table),
            TableState::Paused | TableState::Stopped => false,
        };
        if self.progress.tables.iter().any(|table| told(table) && !self.held.contains_key(&table.table)) {
            return true;
        }
        let is_told = |name: &String| self.progress.tables.iter().any(|table| table.table == *name);
        let is_settled = |name: &String| self.held.contains_key(name) || self.missing.contains(name) || is_told(name);
        self.reread.keys().any(|name| !is_settled(name))
    }

    /// How every table fares, by name.
    pub(super) fn tables(&self) -> Vec<SourceTable> {
        let mut tables: BTreeMap<&str, SourceTable> = BTreeMap::new();
        for table in &self.missing {
            tables.insert(table, self.missed(table));
        }
        // Until the feed says something of it.
        for (table, why) in &self.reread {
            tables.entry(table).or_insert_with(|| plain(table, SourceTableState::Rereading, Some(why.clone())));
        }
        for table in &self.progress.tables {
            tables.insert(&table.table, self.told(table));
        }
        for (table, held) in &self.held {
            let (state, why) = match held {
                Held::Paused => (SourceTableState::Paused, None),
                Held::Stopped(why) => (SourceTableState::Stopped, Some(why.clone())),
                Held::Dropped => (SourceTableState::Dropped, None),
            };
            tables.insert(table, plain(table, state, why));
        }
        tables.into_values().collect()
    }

    /// A table as the feed tells of it.
    fn told(&self, progress: &TableProgress) -> SourceTable {
        let TableProgress { table, state, reason, rows_read, rows_estimated } = progress;
        let mut why = reason.clone().map(Why::from);
        let state = match state {
            TableState::Paused => SourceTableState::Paused,
            TableState::Stopped => SourceTableState::Stopped,
            state => match (self.reread.get(table), state) {
                // Its rows are here, so they may be wrong until they have been compared.
                (Some(wanted), _) => {
                    why = why.or_else(|| Some(wanted.clone()));
                    SourceTableState::Rereading
                }
                (None, TableState::Waiting) => SourceTableState::Waiting,
                (None, TableState::Reading) => SourceTableState::Reading,
                (None, TableState::Rereading) => SourceTableState::Rereading,
                (None, _) => SourceTableState::Following,
            },
        };
        let rate = self.rates.get(table);
        let rest = rows_estimated.and_then(|rows| rows.checked_sub(*rows_read));
        let seconds_left = rate.zip(rest).map(|(rate, rest)| (rest as f64 / rate).ceil() as u64);
        SourceTable { rows_read: *rows_read, rows_estimated: *rows_estimated, seconds_left, ..plain(table, state, why) }
    }

    fn missed(&self, table: &str) -> SourceTable {
        let message = format!(
            "the database no longer shows it to the source: it was dropped or renamed while nobody looked, or the role may \
             not see it, or the publication lacks it. Its rows here stay as they were; POST /sources/{}/tables/{}/drop \
             removes them",
            self.name,
            path_segment(table)
        );
        plain(table, SourceTableState::Stopped, Some(Why::new(MISSING, message)))
    }
}

fn plain(table: &str, state: SourceTableState, why: Option<Why>) -> SourceTable {
    let (code, reason) = why.map(|why| (why.code, why.message)).unzip();
    SourceTable {
        table: table.to_owned(),
        state,
        code,
        reason,
        rows_read: 0,
        rows_estimated: None,
        seconds_left: None,
        events: None,
    }
}
