//! The contract of an audit: what a feed is asked for, and what it tells, so that whoever stores rows can compare them
//! with the database's as of the same place in the log.
//!
//! An audit is a reading beside the log that changes nothing: the table goes on following, and no checkpoint speaks of
//! it. Rows come in pieces ([`crate::Step::Audited`]), each true at its place. A row that the log has changed since the
//! snapshot which the piece was read in is not in it: the log has told what it is. So after the last piece every row of
//! the table has been in a piece, or has been changed since the audit was ordered, or is not there.

use std::sync::Arc;
use std::time::Duration;

use crate::change::Table;
use crate::feed::Reason;
pub use crate::postgres::{RowText, TextForm};

/// Which table is compared, and how. One at a time: an order calls off the one before it without a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOrder {
    /// The name under which it is captured.
    pub table: String,
    /// What is told of its rows.
    pub scope: AuditScope,
    /// The most that it may cost the database.
    pub pace: AuditPace,
}

/// What is told of a table's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditScope {
    /// Sums that the database computes, if it can compute the very sums that [`RowText::sum`] makes of what is stored;
    /// images, if not.
    Sums,
    /// Images, as reading the table would give them.
    Images,
    /// The same of the rows with these keys only, in one piece.
    Keys(Vec<Vec<String>>),
}

/// How much an audit may ask of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPace {
    /// Rows a second, over all chunks.
    pub rows_per_second: u32,
    /// How long one statement may run, in ms: chunks are made so small that none comes near it, and one that runs longer
    /// is cancelled.
    pub statement_ms_max: u32,
}

impl Default for AuditPace {
    fn default() -> AuditPace {
        AuditPace { rows_per_second: 20_000, statement_ms_max: 1_000 }
    }
}

/// Rows of a table, as they are in the database at this place of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPiece {
    /// The table as it looks here.
    pub table: Arc<Table>,
    /// What is told of the rows.
    pub rows: AuditRows,
    /// Whether there are no more.
    pub is_last: bool,
}

/// Rows by their keys, which are as in [`crate::Change::key`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditRows {
    /// The sums of their texts.
    Sums {
        /// What makes a row's text of its image.
        text: Arc<RowText>,
        /// Keys and sums.
        rows: Vec<(Vec<String>, u64)>,
    },
    /// Their images, as in [`crate::Change::image`].
    Images(Vec<(Vec<String>, String)>),
}

impl AuditRows {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            AuditRows::Sums { rows, .. } => rows.len(),
            AuditRows::Images(rows) => rows.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a table is not compared whose rows have ids of ours only.
pub(crate) fn without_key() -> Reason {
    Reason::new("no-key", "it has no key, by which its rows could be told apart and compared")
}

/// How often a single row may take too long before its table is given up.
const TIMEOUTS_MAX: u32 = 3;

/// How many rows the first chunk has.
const FIRST_ROWS: usize = 1_000;

/// Decides how large chunks are, and how long to wait between them. A chunk has as many rows as the database can be
/// expected to read in a quarter of the time that a statement may take, no more than a quarter of those that may be read
/// in a second, and no more than memory allows.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    pace: AuditPace,
    rows: usize,
    timeouts: u32,
}

impl Pacer {
    pub(crate) fn new(pace: AuditPace) -> Pacer {
        let mut pacer = Pacer { pace, rows: FIRST_ROWS, timeouts: 0 };
        pacer.rows = pacer.rows.min(pacer.rows_max());
        pacer
    }

    fn rows_max(&self) -> usize {
        (self.pace.rows_per_second as usize / 4).max(1)
    }

    /// How many rows the next chunk has.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// So many rows were read in this time, of this size in memory. Answers how long after the beginning of that chunk the
    /// next one may begin.
    pub(crate) fn read(&mut self, rows: usize, bytes: usize, bytes_max: usize, took: Duration) -> Duration {
        self.timeouts = 0;
        let target = Duration::from_millis(u64::from(self.pace.statement_ms_max / 4).max(1));
        let next = if took > target {
            let share = target.as_secs_f64() / took.as_secs_f64();
            (rows.max(1) as f64 * share) as usize
        } else if took * 2 < target {
            self.rows.saturating_mul(2)
        } else {
            self.rows
        };
        let fitting = bytes.checked_div(rows).and_then(|each| bytes_max.checked_div(each)).unwrap_or(usize::MAX);
        self.rows = next.min(fitting).clamp(1, self.rows_max());
        Duration::from_secs_f64(rows as f64 / f64::from(self.pace.rows_per_second.max(1)))
    }

    /// A chunk took longer than a statement may. Answers whether it is tried again, with fewer rows.
    pub(crate) fn timed_out(&mut self) -> bool {
        self.timeouts += u32::from(self.rows == 1);
        self.rows = (self.rows / 4).max(1);
        self.timeouts < TIMEOUTS_MAX
    }

    /// Why a table is given up whose rows take too long.
    pub(crate) fn too_slow(&self) -> Reason {
        let message = format!(
            "a single row could not be read within {} ms: the table is locked, or the database too busy",
            self.pace.statement_ms_max
        );
        Reason::new("too-slow", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer(rows_per_second: u32) -> Pacer {
        Pacer::new(AuditPace { rows_per_second, statement_ms_max: 1_000 })
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn chunks_grow_up_to_a_quarter_of_the_rate_and_come_at_the_rate() {
        let mut pacer = pacer(20_000);
        assert_eq!(pacer.rows(), 1_000);
        for expected in [2_000, 4_000, 5_000, 5_000] {
            assert_eq!(pacer.read(1_000, 0, 1 << 20, 3 * MS), 50 * MS);
            assert_eq!(pacer.rows(), expected);
        }
        assert_eq!(self::pacer(1).rows(), 1);
    }

    #[test]
    fn chunks_shrink_to_what_fits_into_a_quarter_of_a_statements_time_and_into_memory() {
        let mut pacer = pacer(20_000);
        pacer.read(1_000, 0, 1 << 20, 500 * MS);
        assert_eq!(pacer.rows(), 500);
        pacer.read(500, 0, 1 << 20, 200 * MS);
        assert_eq!(pacer.rows(), 500, "it fits");
        pacer.read(500, 500 << 20, 8 << 20, 200 * MS);
        assert_eq!(pacer.rows(), 8);
    }

    #[test]
    fn what_takes_too_long_is_tried_with_fewer_rows_and_given_up_at_last() {
        let mut pacer = pacer(20_000);
        let tries = (0..20).take_while(|_| pacer.timed_out()).count();
        assert_eq!((pacer.rows(), tries), (1, 7), "five times smaller, and then with one row");
        pacer.read(1, 0, 1, MS);
        assert!(pacer.timed_out());
    }
}
