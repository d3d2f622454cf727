//! Hands a table's rows over from reading to following, without gap or repeat. Pure.
//!
//! A chunk of rows is read in a snapshot S of the database and handed out at a later place P of the log, where
//! everything that S sees has been handed out before. So a row of the chunk is true at P unless a transaction that S
//! does not see changed it and was handed out before P. The window remembers which rows were changed by whom, from
//! before S was taken: those rows are dropped from the chunk, because the log has told what they are.
//!
//! Nothing is written to the database for this, and no row is compared: PostgreSQL's snapshots say which transactions
//! they see. The place alone would not do, since a transaction may be in the log before snapshots see it.
//!
//! One thing the log does not tell: values stored out of line that did not change. Where such a change is the first
//! that was heard of a row, the chunk's row has them, and completes it. If such a change gives the row another key, it
//! may pass the reader: it counts as lacking until it is told whole or read, and while a row lacks something the table
//! is read once more for its sake.
//!
//! What was handed out before the window began and is not seen by S all the same (a commit that still waits for its
//! synchronous standby) is known from the last transactions before the window: S is then too early, and another is
//! taken.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::lsn::Lsn;
use crate::change::{Action, Change};
use crate::json;

/// A transaction that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) xid: u32,
    /// Its commit record.
    pub(super) commit: Lsn,
}

/// Which transactions a snapshot sees: `pg_current_snapshot()`, in the 32 bits that the log has of each id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// On a standby, whose function does not tell which transactions are open: what it had applied before the snapshot
    /// was taken, and sees for certain. What came after counts as unseen; that the snapshot may see it does no harm,
    /// because the log has told it as well.
    applied: Option<Lsn>,
    /// Ids from here on had not been given, or their transactions had not ended.
    end: u32,
    /// Below `end`, and not ended.
    open: Vec<u32>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,…`.
    pub(super) fn parse(text: &str) -> Option<Snapshot> {
        let mut parts = text.split(':');
        // The log has the lower half of an id; the upper counts how often those came round.
        let id = |digits: &str| digits.parse::<u64>().ok().map(|id| id as u32);
        id(parts.next()?)?;
        let end = id(parts.next()?)?;
        let open = parts.next()?.split(',').filter(|id| !id.is_empty()).map(id).collect::<Option<_>>()?;
        Some(Snapshot { applied: None, end, open })
    }

    /// The same, taken on a standby that had applied the log up to this place before.
    pub(super) fn on_standby(self, applied: Lsn) -> Snapshot {
        Snapshot { applied: Some(applied), ..self }
    }

    /// Whether it sees what the transaction did, given that the transaction committed.
    pub(super) fn sees(&self, Committed { xid, commit }: Committed) -> bool {
        if let Some(applied) = self.applied {
            return commit < applied;
        }
        xid.wrapping_sub(self.end).cast_signed() < 0 && !self.open.contains(&xid)
    }
}

/// What the log told of a row, last.
#[derive(Debug)]
struct Touched {
    by: Committed,
    row: Told,
}

#[derive(Debug)]
enum Told {
    /// All of it.
    Whole,
    /// That it is gone, and if it is so because it has another key now, which.
    Gone(Option<Vec<String>>),
    /// Not its unchanged values, and it may be that nobody knows them.
    Lacking(Box<Change>),
}

/// The rows of one table that the log told of while the table is being read.
#[derive(Debug)]
pub(super) struct Window {
    earlier: Vec<Committed>,
    touched: HashMap<Vec<String>, Touched>,
    emptied: Option<Committed>,
    rows_max: usize,
    lacking: Lacking,
    /// The row that the change before removed was lacking.
    removed_lacking: bool,
}

/// Rows that came to keys that may have been read already, with values that nobody may know.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    rows: HashSet<Vec<String>>,
    /// Every other row is known whole: the table is read for these rows only.
    others_are_whole: bool,
}

impl Lacking {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table has been read to its end.
    pub(super) fn read_once(&mut self) {
        self.others_are_whole = true;
    }
}

impl Window {
    /// `earlier` are the last transactions that were handed out before; about more rows than `rows_max` nothing is
    /// remembered.
    pub(super) fn new(earlier: Vec<Committed>, rows_max: usize, lacking: Lacking) -> Window {
        Window { earlier, touched: HashMap::new(), emptied: None, rows_max, lacking, removed_lacking: false }
    }

    /// Whether more rows were changed than can be remembered: the chunk must be read anew, with a new window.
    pub(super) fn is_full(&self) -> bool {
        self.touched.len() > self.rows_max
    }

    /// The rows that lack something.
    pub(super) fn lacking(&self) -> &Lacking {
        &self.lacking
    }

    /// The same, for the window that follows this one.
    pub(super) fn into_lacking(self) -> Lacking {
        self.lacking
    }

    /// The log told of a row, or of all of them.
    pub(super) fn note(&mut self, by: Committed, change: &Change) {
        let removed_lacking = std::mem::take(&mut self.removed_lacking);
        match change.action {
            Action::Truncate => {
                self.emptied = Some(by);
                self.touched.clear();
                self.lacking.rows.clear();
            }
            Action::Remove => {
                self.removed_lacking = self.lacking.rows.remove(&change.key);
                self.touched.insert(change.key.clone(), Touched { by, row: Told::Gone(None) });
            }
            Action::Replace => {
                if let Some(previous) = &change.previous_key {
                    let moved = Told::Gone(Some(change.key.clone()));
                    self.touched.insert(previous.clone(), Touched { by, row: moved });
                    if !change.unchanged.is_empty() && (removed_lacking || !self.lacking.others_are_whole) {
                        self.lacking.rows.insert(change.key.clone());
                    }
                }
                if change.unchanged.is_empty() {
                    self.lacking.rows.remove(&change.key);
                }
                let lacking = !change.unchanged.is_empty();
                let told =
                    |change: &Change| if lacking { Told::Lacking(Box::new(change.clone())) } else { Told::Whole };
                match self.touched.entry(change.key.clone()) {
                    // What was told whole before, is still known whole.
                    Entry::Occupied(mut entry) if lacking && matches!(entry.get().row, Told::Whole) => {
                        entry.get_mut().by = by;
                    }
                    Entry::Occupied(mut entry) => *entry.get_mut() = Touched { by, row: told(change) },
                    Entry::Vacant(entry) => {
                        entry.insert(Touched { by, row: told(change) });
                    }
                }
            }
            Action::Read => {}
        }
    }

    /// Whether the snapshot misses something that was handed out before the window began.
    pub(super) fn is_too_early(&self, snapshot: &Snapshot) -> bool {
        self.earlier.iter().any(|&by| !snapshot.sees(by))
    }

    /// What becomes of a row that was read in this snapshot: it is handed out, completed, or dropped.
    pub(super) fn judge(&mut self, snapshot: &Snapshot, read: Change) -> Option<Change> {
        let judged = self.judge_by_log(snapshot, read)?;
        let was_lacking = !self.lacking.rows.is_empty() && self.lacking.rows.remove(&judged.key);
        (was_lacking || !self.lacking.others_are_whole).then_some(judged)
    }

    /// Whether a row that was read in this snapshot is still as it was read: the log has told nothing of it that the
    /// snapshot does not see.
    pub(super) fn is_untouched(&self, snapshot: &Snapshot, key: &[String]) -> bool {
        let is_unseen = |by: Committed| !snapshot.sees(by);
        !self.emptied.is_some_and(is_unseen) && !self.touched.get(key).is_some_and(|touched| is_unseen(touched.by))
    }

    fn judge_by_log(&self, snapshot: &Snapshot, read: Change) -> Option<Change> {
        if self.emptied.is_some_and(|by| !snapshot.sees(by)) {
            return None;
        }
        if self.touched.is_empty() {
            return Some(read);
        }
        let mut touched = self.touched.get(&read.key);
        if touched.is_none_or(|touched| snapshot.sees(touched.by)) {
            return Some(read);
        }
        // A row may have moved on several times, but never in a circle that only we would run in.
        for _ in 0..16 {
            match &touched?.row {
                Told::Whole | Told::Gone(None) => return None,
                Told::Gone(Some(next)) => touched = self.touched.get(next),
                Told::Lacking(told) => return complete(told, &read),
            }
        }
        None
    }

    /// The chunk is done: what its snapshot sees, later ones see too.
    pub(super) fn forget(&mut self, snapshot: &Snapshot) {
        self.touched.retain(|_, touched| !snapshot.sees(touched.by));
        if self.emptied.is_some_and(|by| snapshot.sees(by)) {
            self.emptied = None;
        }
        self.earlier.clear();
    }
}

/// The row as the log told it last, with the values that it did not repeat taken from the row that was read.
fn complete(told: &Change, read: &Change) -> Option<Change> {
    let (told_members, read_members) = (json::members(told.image.as_deref()?)?, json::members(read.image.as_deref()?)?);
    let mut image = String::from("{");
    for column in &told.table.columns {
        let mut name = String::new();
        json::push_string(&mut name, &column.name);
        let find = |members: &[(&str, &str)]| members.iter().position(|member| member.0 == name);
        let value = match (find(&told_members), find(&read_members)) {
            (Some(at), _) => told_members[at].1,
            (None, Some(at)) => read_members[at].1,
            (None, None) => continue,
        };
        if image.len() > 1 {
            image.push(',');
        }
        image.push_str(&name);
        image.push(':');
        image.push_str(value);
    }
    image.push('}');
    Some(Change::unlogged(told.table.clone(), Action::Read, told.key.clone(), Some(image)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::change::{Column, Kind, Table};

    fn change(action: Action, key: &str, image: &str, unchanged: &[&str]) -> Change {
        let column =
            |name: &str| Column { name: name.into(), kind: Kind::String, nullable: true, native_type: "text".into() };
        Change {
            table: Arc::new(Table {
                name: "t".into(),
                connector: "postgresql",
                database: "app".into(),
                namespace: "public".into(),
                relation: "t".into(),
                columns: vec![column("id"), column("big"), column("n")],
                key: vec!["id".into()],
            }),
            action,
            key: vec![key.into()],
            image: (!image.is_empty()).then(|| image.into()),
            unchanged: unchanged.iter().map(|&name| name.into()).collect(),
            previous_key: None,
            before: None,
            position: None,
            transaction: None,
            committed_at_ms: None,
        }
    }

    fn read(key: &str) -> Change {
        change(Action::Read, key, &format!(r#"{{"id":{key},"big":"a,\"}}","n":1}}"#), &[])
    }

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).unwrap()
    }

    fn by(xid: u32) -> Committed {
        Committed { xid, commit: Lsn(u64::from(xid) * 10) }
    }

    fn window() -> Window {
        Window::new(Vec::new(), 10, Lacking::default())
    }

    #[test]
    fn a_snapshot_of_a_standby_sees_what_had_been_applied() {
        // 12 is open on the primary, and the standby does not say so.
        let snapshot = snapshot("10:20:").on_standby(Lsn(110));
        assert!(snapshot.sees(by(10)) && !snapshot.sees(by(11)) && !snapshot.sees(by(12)));
        let mut window = window();
        window.note(by(12), &change(Action::Replace, "1", r#"{"id":1}"#, &[]));
        assert_eq!(window.judge(&snapshot, change(Action::Read, "1", r#"{"id":1,"old":1}"#, &[])), None);
    }

    #[test]
    fn a_snapshot_sees_what_had_ended() {
        let snapshot = snapshot("10:20:10,15");
        assert!(snapshot.sees(by(9)) && snapshot.sees(by(19)));
        assert!(!snapshot.sees(by(10)) && !snapshot.sees(by(15)) && !snapshot.sees(by(20)) && !snapshot.sees(by(21)));
        assert_eq!(Snapshot::parse("10:20"), None);
        assert_eq!(Snapshot::parse("10:20:x"), None);
    }

    #[test]
    fn ids_that_came_round_are_later() {
        let snapshot = snapshot("4294967290:4294967301:4294967295");
        assert!(snapshot.sees(by(4_294_967_294)) && snapshot.sees(by(4)));
        assert!(!snapshot.sees(by(4_294_967_295)) && !snapshot.sees(by(5)));
    }

    #[test]
    fn the_log_wins_over_a_snapshot_that_does_not_see_its_change() {
        let mut window = window();
        window.note(by(20), &change(Action::Replace, "1", r#"{"id":1}"#, &[]));
        window.note(by(20), &change(Action::Remove, "2", "", &[]));
        let blind = snapshot("20:20:");
        assert_eq!(window.judge(&blind, read("1")), None);
        assert_eq!(window.judge(&blind, read("2")), None);
        assert_eq!(window.judge(&blind, read("3")), Some(read("3")));
        let seeing = snapshot("21:21:");
        assert_eq!(window.judge(&seeing, read("1")), Some(read("1")));
        window.forget(&seeing);
        assert_eq!(window.judge(&blind, read("1")), Some(read("1")));
    }

    #[test]
    fn a_row_is_untouched_unless_the_log_told_what_the_snapshot_does_not_see() {
        let mut window = window();
        window.note(by(20), &change(Action::Replace, "1", r#"{"id":1,"n":2}"#, &["big"]));
        window.note(by(20), &change(Action::Remove, "2", "", &[]));
        let untouched = |window: &Window, text: &str| -> Vec<bool> {
            let snapshot = snapshot(text);
            ["1", "2", "3"].iter().map(|&key| window.is_untouched(&snapshot, &[key.into()])).collect()
        };
        assert_eq!(untouched(&window, "20:20:"), [false, false, true]);
        assert_eq!(untouched(&window, "21:21:"), [true, true, true]);
        window.note(by(21), &change(Action::Truncate, "", "", &[]));
        assert_eq!(untouched(&window, "21:21:"), [false, false, false]);
    }

    #[test]
    fn a_truncate_drops_everything_that_was_read_before_it() {
        let mut window = window();
        window.note(by(20), &change(Action::Truncate, "", "", &[]));
        assert_eq!(window.judge(&snapshot("20:20:"), read("1")), None);
        assert_eq!(window.judge(&snapshot("21:21:"), read("1")), Some(read("1")));
    }

    #[test]
    fn a_row_that_was_told_without_its_unchanged_values_is_completed() {
        let mut window = window();
        window.note(by(20), &change(Action::Replace, "1", r#"{"id":1,"n":2}"#, &["big"]));
        let blind = snapshot("20:20:");
        let completed = window.judge(&blind, read("1")).unwrap();
        assert_eq!(completed.image.as_deref(), Some(r#"{"id":1,"big":"a,\"}","n":2}"#));
        assert_eq!(completed.action, Action::Read);
        // Told whole once, it is known whole.
        window.note(by(21), &change(Action::Replace, "1", r#"{"id":1,"big":"b","n":2}"#, &[]));
        window.note(by(22), &change(Action::Replace, "1", r#"{"id":1,"n":3}"#, &["big"]));
        assert_eq!(window.judge(&blind, read("1")), None);
        assert!(window.lacking().is_empty());
    }

    #[test]
    fn a_row_that_moved_is_completed_under_its_new_key() {
        let mut window = window();
        let mut moved = change(Action::Replace, "9", r#"{"id":9,"n":2}"#, &["big"]);
        moved.previous_key = Some(vec!["1".into()]);
        window.note(by(20), &change(Action::Remove, "1", "", &[]));
        window.note(by(20), &moved);
        let completed = window.judge(&snapshot("20:20:"), read("1")).unwrap();
        assert_eq!(completed.key, ["9"]);
        assert_eq!(completed.image.as_deref(), Some(r#"{"id":9,"big":"a,\"}","n":2}"#));
        assert!(window.lacking().is_empty());
    }

    #[test]
    fn a_row_that_moved_past_the_reader_is_read_once_more_and_the_others_are_not() {
        let mut window = window();
        let moved = |from: &str, to: &str| {
            let mut moved = change(Action::Replace, to, &format!(r#"{{"id":{to},"n":2}}"#), &["big"]);
            moved.previous_key = Some(vec![from.into()]);
            [change(Action::Remove, from, "", &[]), moved]
        };
        moved("9", "1").iter().for_each(|change| window.note(by(20), change));
        assert!(!window.lacking().is_empty());
        let mut lacking = window.into_lacking();
        lacking.read_once();
        let mut window = Window::new(Vec::new(), 10, lacking);
        // It moves on, and another row moves that is known whole.
        moved("1", "2").iter().for_each(|change| window.note(by(21), change));
        moved("5", "6").iter().for_each(|change| window.note(by(21), change));
        let seeing = snapshot("22:22:");
        assert_eq!(window.judge(&seeing, read("6")), None);
        assert_eq!(window.judge(&seeing, read("2")), Some(read("2")));
        assert!(window.lacking().is_empty());
    }

    #[test]
    fn a_snapshot_that_misses_what_was_handed_out_before_is_too_early() {
        let mut window = Window::new([18, 19].map(by).into(), 10, Lacking::default());
        assert!(window.is_too_early(&snapshot("19:20:19")));
        assert!(!window.is_too_early(&snapshot("20:20:")));
        window.forget(&snapshot("20:20:"));
        assert!(!window.is_too_early(&snapshot("19:20:19")));
    }

    #[test]
    fn a_window_is_full_beyond_its_limit() {
        let mut window = window();
        for key in 0..11 {
            assert!(!window.is_full());
            window.note(by(20), &change(Action::Replace, &key.to_string(), r#"{"id":1}"#, &[]));
        }
        assert!(window.is_full());
    }
}
