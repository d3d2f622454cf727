//! What is known of a source's audits: one document per source in the collection `audits`, under its name. It holds of each
//! table the last time that it was compared, and of the rows that differed the first few.

use std::collections::BTreeMap;

use bytes::Bytes;
use cdc_rest::{AuditDifference, AuditState, DifferenceKind, SourceAudit, TableAudit};
use cdc_sources::Reason;
use serde::{Deserialize, Serialize};

use super::super::kept::Why;
use crate::store::{Document, StoreError, View};

/// The collection.
const COLLECTION: &str = "audits";

/// How many differing rows of a table are shown.
const SHOWN_MAX: usize = 20;
/// The longest image that is shown.
const IMAGE_BYTES_MAX: usize = 16 << 10;
/// How many bytes of images the record of a source holds.
const IMAGES_BYTES_MAX: usize = 1 << 20;

/// When a source compares its tables by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditSchedule {
    /// Never.
    #[default]
    Off,
    /// An hour after the last time.
    Hourly,
    /// A day after the last time.
    Daily,
    /// A week after the last time.
    Weekly,
}

impl AuditSchedule {
    fn period_ms(self) -> Option<u64> {
        const HOUR_MS: u64 = 60 * 60 * 1_000;
        match self {
            Self::Off => None,
            Self::Hourly => Some(HOUR_MS),
            Self::Daily => Some(24 * HOUR_MS),
            Self::Weekly => Some(7 * 24 * HOUR_MS),
        }
    }
}

/// A source's audits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::source) struct Audit {
    mends: bool,
    began_at_ms: Option<u64>,
    ended_at_ms: Option<u64>,
    /// When the last audit of every table began.
    whole_began_at_ms: Option<u64>,
    tables: BTreeMap<String, Compared>,
}

/// The last time that a table was compared, or is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Compared {
    state: State,
    why: Option<Why>,
    by_sums: Option<bool>,
    rows: u64,
    differences: u64,
    mended: u64,
    began_at_ms: Option<u64>,
    ended_at_ms: Option<u64>,
    shown: Vec<Difference>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    Waiting,
    Running,
    Equal,
    Different,
    Unfinished,
}

impl State {
    fn shown(self) -> AuditState {
        match self {
            Self::Waiting => AuditState::Waiting,
            Self::Running => AuditState::Running,
            Self::Equal => AuditState::Equal,
            Self::Different => AuditState::Different,
            Self::Unfinished => AuditState::Unfinished,
        }
    }
}

/// A row that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::source) struct Difference {
    /// As the store has it.
    pub(in crate::source) key: String,
    kind: Kind,
    here: Option<String>,
    there: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    Differs,
    MissingHere,
    OnlyHere,
}

impl Difference {
    /// A row of which one side or both have an image.
    pub(in crate::source) fn new(key: String, here: Option<String>, there: Option<String>) -> Self {
        let kind = match (&here, &there) {
            (None, _) => Kind::MissingHere,
            (_, None) => Kind::OnlyHere,
            _ => Kind::Differs,
        };
        Self { key, kind, here, there }
    }

    /// The row of the database.
    pub(in crate::source) fn there(&self) -> Option<&String> {
        self.there.as_ref()
    }

    /// How long its images are.
    pub(in crate::source) fn bytes(&self) -> usize {
        [&self.here, &self.there].into_iter().flatten().map(String::len).sum()
    }

    fn shown(&self) -> AuditDifference {
        AuditDifference {
            key: self.key.clone(),
            kind: match self.kind {
                Kind::Differs => DifferenceKind::Differs,
                Kind::MissingHere => DifferenceKind::MissingHere,
                Kind::OnlyHere => DifferenceKind::OnlyHere,
            },
            here: self.here.clone(),
            there: self.there.clone(),
        }
    }
}

/// How the last audit ended, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source) struct LastAudit {
    pub(in crate::source) ended_at_ms: u64,
    pub(in crate::source) is_equal: bool,
}

impl Audit {
    /// These tables are to be compared. Whatever was found of them before is forgotten; of every table, if the audit is of
    /// all that the source has.
    pub(in crate::source) fn begin(&mut self, tables: Vec<String>, mends: bool, is_whole: bool, now_ms: u64) {
        if is_whole {
            self.whole_began_at_ms = Some(now_ms);
            self.tables.clear();
        }
        (self.mends, self.began_at_ms, self.ended_at_ms) = (mends, Some(now_ms), None);
        self.tables.extend(tables.into_iter().map(|table| (table, Compared::default())));
        if !self.is_running() {
            self.ended_at_ms = Some(now_ms);
        }
    }

    /// Whether there is something to compare.
    pub(in crate::source) fn is_running(&self) -> bool {
        self.tables.values().any(|table| !table.state.shown().is_over())
    }

    pub(in crate::source) fn mends(&self) -> bool {
        self.mends
    }

    /// Whether the source should compare its tables by itself now.
    pub(in crate::source) fn is_due(&self, schedule: AuditSchedule, now_ms: u64) -> bool {
        let Some(period) = schedule.period_ms() else { return false };
        let is_past = |began: u64| now_ms.saturating_sub(began) >= period;
        !self.is_running() && self.whole_began_at_ms.is_none_or(is_past)
    }

    /// The table that comes next: one whose audit was cut short, or one that waits.
    pub(in crate::source) fn next(&self) -> Option<&str> {
        let find = |state| self.tables.iter().find(move |(_, table)| table.state == state);
        find(State::Running).or_else(|| find(State::Waiting)).map(|(table, _)| table.as_str())
    }

    /// A table is compared from its beginning.
    pub(in crate::source) fn start(&mut self, table: &str, now_ms: u64) {
        if let Some(found) = self.tables.get_mut(table) {
            *found = Compared { state: State::Running, began_at_ms: Some(now_ms), ..Compared::default() };
        }
    }

    /// More rows of a table were compared, by their sums or whole.
    pub(in crate::source) fn compared(&mut self, table: &str, rows: u64, by_sums: bool) {
        if let Some(found) = self.tables.get_mut(table) {
            found.rows += rows;
            found.by_sums = Some(found.by_sums.unwrap_or(true) && by_sums);
        }
    }

    /// Whether a table was compared by sums alone so far.
    pub(in crate::source) fn was_by_sums(&self, table: &str) -> bool {
        self.tables.get(table).is_none_or(|found| found.by_sums != Some(false))
    }

    /// A row of a table differs.
    pub(in crate::source) fn differs(&mut self, table: &str, mut difference: Difference, is_mended: bool) {
        let kept: usize = self.tables.values().flat_map(|table| &table.shown).map(Difference::bytes).sum();
        let Some(found) = self.tables.get_mut(table) else { return };
        found.differences += 1;
        found.mended += u64::from(is_mended);
        if found.shown.len() >= SHOWN_MAX {
            return;
        }
        for image in [&mut difference.here, &mut difference.there] {
            image.take_if(|image| image.len() > IMAGE_BYTES_MAX);
        }
        if kept + difference.bytes() > IMAGES_BYTES_MAX {
            (difference.here, difference.there) = (None, None);
        }
        found.shown.push(difference);
    }

    /// A table has been compared.
    pub(in crate::source) fn finish(&mut self, table: &str, now_ms: u64) {
        if let Some(found) = self.tables.get_mut(table) {
            found.state = if found.differences == 0 { State::Equal } else { State::Different };
        }
        self.end(table, now_ms);
    }

    /// A table could not be compared to its end.
    pub(in crate::source) fn call_off(&mut self, table: &str, reason: &Reason, now_ms: u64) {
        if let Some(found) = self.tables.get_mut(table) {
            // What differs is known all the same.
            found.state = if found.differences == 0 { State::Unfinished } else { State::Different };
            found.why = Some(Why::new(&*reason.code, &*reason.message));
        }
        self.end(table, now_ms);
    }

    /// Nothing more is compared.
    pub(in crate::source) fn call_all_off(&mut self, reason: &Reason, now_ms: u64) {
        let is_open = |table: &Compared| !table.state.shown().is_over();
        let open: Vec<_> =
            self.tables.iter().filter(|(_, table)| is_open(table)).map(|(table, _)| table.clone()).collect();
        open.iter().for_each(|table| self.call_off(table, reason, now_ms));
    }

    fn end(&mut self, table: &str, now_ms: u64) {
        if let Some(found) = self.tables.get_mut(table) {
            found.ended_at_ms = Some(now_ms);
        }
        if !self.is_running() {
            self.ended_at_ms = Some(now_ms);
        }
    }

    fn state(&self) -> AuditState {
        let any = |state| self.tables.values().any(|table| table.state == state);
        match () {
            () if self.is_running() => AuditState::Running,
            () if self.began_at_ms.is_none() => AuditState::None,
            () if any(State::Different) => AuditState::Different,
            () if any(State::Unfinished) => AuditState::Unfinished,
            () => AuditState::Equal,
        }
    }

    /// How the last audit ended; none while one goes on, or if there was none.
    pub(in crate::source) fn last(&self) -> Option<LastAudit> {
        let ended_at_ms = self.ended_at_ms?;
        Some(LastAudit { ended_at_ms, is_equal: self.state() == AuditState::Equal })
    }

    /// All of it, for people.
    pub(in crate::source) fn shown(&self, source: &str) -> SourceAudit {
        let table = |(name, table): (&String, &Compared)| TableAudit {
            table: name.clone(),
            state: table.state.shown(),
            code: table.why.as_ref().map(|why| why.code.clone()),
            reason: table.why.as_ref().map(|why| why.message.clone()),
            by: table.by_sums.map(|by_sums| if by_sums { "sums" } else { "rows" }),
            rows: table.rows,
            differences: table.differences,
            mended: table.mended,
            began_at_ms: table.began_at_ms,
            ended_at_ms: table.ended_at_ms,
            shown: table.shown.iter().map(Difference::shown).collect(),
        };
        SourceAudit {
            source: source.to_owned(),
            state: self.state(),
            mends: self.mends,
            began_at_ms: self.began_at_ms,
            ended_at_ms: self.ended_at_ms,
            tables: self.tables.iter().map(table).collect(),
        }
    }

    pub(in crate::source) fn read(view: &dyn View, source: &str) -> Result<Self, StoreError> {
        let Some(bytes) = view.document(COLLECTION, source.as_bytes())? else { return Ok(Self::default()) };
        serde_json::from_slice(&bytes).map_err(|error| {
            StoreError::Corrupt(format!("the audit of source {source} cannot be read: {error}").into())
        })
    }

    pub(in crate::source) fn document(&self, source: &str) -> Document {
        // Texts and numbers: there is nothing that cannot be written.
        let value = serde_json::to_vec(self).unwrap_or_default();
        Document { collection: COLLECTION.into(), key: key(source), value: Some(value.into()) }
    }

    /// The document's removal.
    pub(in crate::source) fn removal(source: &str) -> Document {
        Document { collection: COLLECTION.into(), key: key(source), value: None }
    }
}

fn key(source: &str) -> Bytes {
    Bytes::copy_from_slice(source.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

    use super::*;

    fn begun(tables: &[&str], is_whole: bool) -> Audit {
        let mut audit = Audit::default();
        audit.begin(tables.iter().map(|&table| table.to_owned()).collect(), false, is_whole, 1_000);
        audit
    }

    #[test]
    fn a_whole_audit_is_due_a_period_after_the_last_one_began() {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        let none = Audit::default();
        assert!(none.is_due(AuditSchedule::Daily, 0) && !none.is_due(AuditSchedule::Off, u64::MAX));
        let mut audit = begun(&["a"], true);
        assert!(!audit.is_due(AuditSchedule::Daily, 1_000 + DAY_MS), "it goes on");
        audit.finish("a", 2_000);
        assert!(!audit.is_due(AuditSchedule::Daily, 999 + DAY_MS));
        assert!(audit.is_due(AuditSchedule::Daily, 1_000 + DAY_MS));
        assert!(!audit.is_due(AuditSchedule::Weekly, 1_000 + DAY_MS) && audit.is_due(AuditSchedule::Hourly, DAY_MS));
        audit.begin(vec!["a".to_owned()], false, false, 5_000);
        audit.finish("a", 6_000);
        assert!(audit.is_due(AuditSchedule::Daily, 1_000 + DAY_MS), "one of a single table does not count");
    }

    #[test]
    fn the_worst_table_says_how_an_audit_ended() {
        let mut audit = begun(&["a", "b"], true);
        assert_eq!((audit.state(), audit.next(), audit.last()), (AuditState::Running, Some("a"), None));
        audit.start("b", 1_001);
        assert_eq!(audit.next(), Some("b"), "what was cut short comes first");
        audit.finish("b", 1_002);
        audit.start("a", 1_003);
        audit.compared("a", 10, true);
        audit.finish("a", 1_004);
        assert_eq!(audit.last(), Some(LastAudit { ended_at_ms: 1_004, is_equal: true }));
        audit.begin(vec!["a".to_owned()], true, false, 2_000);
        audit.call_all_off(&Reason::new("paused", "why"), 2_001);
        assert_eq!(
            (audit.state(), audit.shown("s").tables[0].code.as_deref()),
            (AuditState::Unfinished, Some("paused"))
        );
        audit.begin(vec!["b".to_owned()], true, false, 3_000);
        audit.differs("b", Difference::new("1".to_owned(), None, Some("{}".to_owned())), true);
        audit.finish("b", 3_001);
        assert_eq!(audit.state(), AuditState::Different);
        assert_eq!(Audit::default().state(), AuditState::None);
        assert_eq!(begun(&[], true).state(), AuditState::Equal, "of nothing");
    }

    #[test]
    fn what_is_shown_of_differences_is_bounded_and_all_are_counted() {
        let mut audit = begun(&["a"], true);
        let long = "x".repeat(IMAGE_BYTES_MAX + 1);
        for key in 0..100 {
            let (here, there) = (Some(long.clone()), Some(long[..IMAGE_BYTES_MAX].to_owned()));
            audit.differs("a", Difference::new(key.to_string(), here, there), false);
        }
        let table = &audit.shown("s").tables[0];
        assert_eq!((table.differences, table.shown.len()), (100, SHOWN_MAX));
        assert!(table.shown.iter().all(|row| row.kind == DifferenceKind::Differs && row.here.is_none()));
        let mut audit = begun(&["a", "b", "c", "d", "e"], true);
        for table in ["a", "b", "c", "d", "e"] {
            for key in 0..SHOWN_MAX {
                let image = Some(long[1..].to_owned());
                audit.differs(table, Difference::new(key.to_string(), image.clone(), image), false);
            }
        }
        assert!(audit.document("s").value.unwrap().len() < IMAGES_BYTES_MAX + (64 << 10));
    }

    #[test]
    fn a_record_is_written_and_read() {
        let mut audit = begun(&["a", "b"], true);
        audit.start("a", 1_001);
        audit.compared("a", 7, false);
        audit.differs("a", Difference::new("1/2".to_owned(), Some("{}".to_owned()), None), true);
        audit.call_off("b", &Reason::new("reading", "why"), 1_002);
        let again: Audit = serde_json::from_slice(&audit.document("s").value.unwrap()).unwrap();
        assert_eq!(again, audit);
    }
}
