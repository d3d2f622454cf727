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
//! that was heard of a row, the chunk's row has them, and completes it, if it is the same row for certain: keys change
//! hands. What may be lacking all the same is known to `lacking.rs`.
//!
//! What was handed out before the window began and is not seen by S all the same (a commit that still waits for its
//! synchronous standby) is known from the last transactions before the window: S is then too early, and another is
//! taken.

use std::collections::HashMap;

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

/// What the log told of a key, last.
#[derive(Debug)]
struct Touched {
    by: Committed,
    /// How the row that is (or was last) at this key came to it; None if it was there when the window began.
    arrived: Option<Committed>,
    /// The number of that row: the same at every key that it has had.
    row: u64,
    told: Told,
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
    rows_numbered: u64,
    /// What was known of the row that the change before removed, which may come under another key now.
    removed: Option<Touched>,
}

impl Window {
    /// `earlier` are the last transactions that were handed out before; about more rows than `rows_max` nothing is
    /// remembered.
    pub(super) fn new(earlier: Vec<Committed>, rows_max: usize) -> Window {
        Window { earlier, touched: HashMap::new(), emptied: None, rows_max, rows_numbered: 0, removed: None }
    }

    /// Whether more rows were changed than can be remembered: the chunk must be read anew, with a new window.
    pub(super) fn is_full(&self) -> bool {
        self.touched.len() > self.rows_max
    }

    /// How many rows are remembered.
    pub(super) fn rows(&self) -> usize {
        self.touched.len()
    }

    /// The log told of a row, or of all of them.
    pub(super) fn note(&mut self, by: Committed, change: &Change) {
        let removed = self.removed.take();
        match change.action {
            Action::Truncate => {
                self.emptied = Some(by);
                self.touched.clear();
            }
            Action::Remove => {
                let before = self.touched.remove(&change.key);
                let (arrived, row) = self.same_row(before.as_ref());
                self.touched.insert(change.key.clone(), Touched { by, arrived, row, told: Told::Gone(None) });
                self.removed = before;
            }
            Action::Replace => self.replaced(by, change, removed),
            Action::Read => {}
        }
    }

    fn replaced(&mut self, by: Committed, change: &Change, removed: Option<Touched>) {
        let (arrived, row, known) = match &change.previous_key {
            Some(previous) => {
                let row = match self.touched.get_mut(previous) {
                    Some(left) => {
                        left.told = Told::Gone(Some(change.key.clone()));
                        left.row
                    }
                    None => self.number(),
                };
                let removed = removed.filter(|removed| removed.row == row);
                (Some(by), row, removed.map(|removed| removed.told))
            }
            None => {
                let before = self.touched.remove(&change.key);
                let is_gone = before.as_ref().is_some_and(|before| matches!(before.told, Told::Gone(_)));
                let (arrived, row) = if is_gone { (Some(by), self.number()) } else { self.same_row(before.as_ref()) };
                (arrived, row, before.map(|before| before.told))
            }
        };
        let told = match known {
            _ if change.unchanged.is_empty() => Told::Whole,
            // What was told whole before, is still known whole.
            Some(Told::Whole) => Told::Whole,
            Some(Told::Lacking(before)) => Told::Lacking(Box::new(over(change, &before))),
            Some(Told::Gone(_)) | None => Told::Lacking(Box::new(change.clone())),
        };
        self.touched.insert(change.key.clone(), Touched { by, arrived, row, told });
    }

    /// How the row came that the log told of before, and its number.
    fn same_row(&mut self, before: Option<&Touched>) -> (Option<Committed>, u64) {
        before.map_or_else(|| (None, self.number()), |before| (before.arrived, before.row))
    }

    fn number(&mut self) -> u64 {
        self.rows_numbered += 1;
        self.rows_numbered
    }

    /// Whether the snapshot misses something that was handed out before the window began.
    pub(super) fn is_too_early(&self, snapshot: &Snapshot) -> bool {
        self.earlier.iter().any(|&by| !snapshot.sees(by))
    }

    /// Whether a row that was read in this snapshot is still as it was read: the log has told nothing of it that the
    /// snapshot does not see.
    pub(super) fn is_untouched(&self, snapshot: &Snapshot, key: &[String]) -> bool {
        let is_unseen = |by: Committed| !snapshot.sees(by);
        !self.emptied.is_some_and(is_unseen) && !self.touched.get(key).is_some_and(|touched| is_unseen(touched.by))
    }

    /// What becomes of a row that was read in this snapshot: it is handed out, completed, or dropped.
    pub(super) fn judge(&self, snapshot: &Snapshot, read: Change) -> Option<Change> {
        if self.emptied.is_some_and(|by| !snapshot.sees(by)) {
            return None;
        }
        let Some(mut touched) = self.touched.get(&read.key).filter(|touched| !snapshot.sees(touched.by)) else {
            return Some(read);
        };
        if touched.arrived.is_some_and(|by| !snapshot.sees(by)) {
            // It was another row that was read. Where that went, it counts as lacking what the log did not tell.
            return None;
        }
        let row = touched.row;
        // A row may have moved on several times, but never in a circle that only we would run in.
        for _ in 0..16 {
            match &touched.told {
                Told::Whole | Told::Gone(None) => return None,
                Told::Gone(Some(next)) => touched = self.touched.get(next).filter(|touched| touched.row == row)?,
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
    let image = completed(told, read.image.as_deref()?)?;
    Some(Change::unlogged(told.table.clone(), Action::Read, told.key.clone(), Some(image)))
}

/// What the log told of a row, over what it had told of it before.
fn over(change: &Change, before: &Change) -> Change {
    let mut change = change.clone();
    if let Some(image) = before.image.as_deref().and_then(|before| completed(&change, before)) {
        change.image = Some(image);
        let is_known = |column: &String| {
            before.table.columns.iter().any(|known| known.name == *column) && !before.unchanged.contains(column)
        };
        change.unchanged.retain(|column| !is_known(column));
    }
    change
}

/// The image of a change, with columns that it does not tell taken from another image of its row.
fn completed(told: &Change, other: &str) -> Option<String> {
    let (told_members, other_members) = (json::members(told.image.as_deref()?)?, json::members(other)?);
    let mut image = String::from("{");
    for column in &told.table.columns {
        let mut name = String::new();
        json::push_string(&mut name, &column.name);
        let find = |members: &[(&str, &str)]| members.iter().position(|member| member.0 == name);
        let value = match (find(&told_members), find(&other_members)) {
            (Some(at), _) => told_members[at].1,
            (None, Some(at)) => other_members[at].1,
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
    Some(image)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::change::{Column, Kind, Table};

    pub(in super::super) fn change(action: Action, key: &str, image: &str, unchanged: &[&str]) -> Change {
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

    pub(in super::super) fn read(key: &str) -> Change {
        change(Action::Read, key, &format!(r#"{{"id":{key},"big":"a,\"}}","n":1}}"#), &[])
    }

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).unwrap()
    }

    fn by(xid: u32) -> Committed {
        Committed { xid, commit: Lsn(u64::from(xid) * 10) }
    }

    fn window() -> Window {
        Window::new(Vec::new(), 10)
    }

    /// The two changes of a row that gets another key, and keeps `big`.
    pub(in super::super) fn moved(from: &str, to: &str) -> [Change; 2] {
        let mut moved = change(Action::Replace, to, &format!(r#"{{"id":{to},"n":2}}"#), &["big"]);
        moved.previous_key = Some(vec![from.into()]);
        [change(Action::Remove, from, "", &[]), moved]
    }

    fn image(judged: Option<Change>) -> Option<String> {
        judged.and_then(|change| change.image)
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
    }

    #[test]
    fn a_value_that_was_told_once_is_not_taken_from_an_older_row() {
        let mut window = window();
        window.note(by(20), &change(Action::Replace, "1", r#"{"id":1,"big":"new"}"#, &["n"]));
        window.note(by(21), &change(Action::Replace, "1", r#"{"id":1}"#, &["big", "n"]));
        let blind = snapshot("20:20:");
        assert_eq!(image(window.judge(&blind, read("1"))).as_deref(), Some(r#"{"id":1,"big":"new","n":1}"#));
        // The same where the row moves on.
        let mut on = change(Action::Replace, "9", r#"{"id":9}"#, &["big", "n"]);
        on.previous_key = Some(vec!["1".into()]);
        window.note(by(22), &change(Action::Remove, "1", "", &[]));
        window.note(by(22), &on);
        assert_eq!(image(window.judge(&blind, read("1"))).as_deref(), Some(r#"{"id":9,"big":"new","n":1}"#));
        // What was told whole stays so under another key.
        window.note(by(23), &change(Action::Replace, "5", r#"{"id":5,"big":"new","n":1}"#, &[]));
        moved("5", "6").iter().for_each(|change| window.note(by(24), change));
        assert_eq!(window.judge(&blind, read("5")), None);
    }

    #[test]
    fn a_row_is_not_completed_by_another_that_had_its_key() {
        let mut swapped = window();
        for (from, to) in [("9", "1"), ("5", "9")] {
            moved(from, to).iter().for_each(|change| swapped.note(by(20), change));
        }
        let blind = snapshot("20:20:");
        // Read was the row that is 1 now, and of it nothing is known but that.
        assert_eq!(swapped.judge(&blind, read("9")), None);
        assert_eq!(image(swapped.judge(&blind, read("5"))).as_deref(), Some(r#"{"id":9,"big":"a,\"}","n":2}"#));
        // The row that came to a key goes on, and the one before it is not followed there.
        moved("9", "2").iter().for_each(|change| swapped.note(by(21), change));
        assert_eq!(swapped.judge(&blind, read("9")), None);
        assert_eq!(image(swapped.judge(&blind, read("5"))).as_deref(), Some(r#"{"id":2,"big":"a,\"}","n":2}"#));
        let between = snapshot("21:21:");
        assert_eq!(image(swapped.judge(&between, read("9"))).as_deref(), Some(r#"{"id":2,"big":"a,\"}","n":2}"#));
        // Another row is where one went that has gone on since.
        let mut chased = window();
        for (from, to) in [("9", "1"), ("1", "2"), ("5", "1")] {
            moved(from, to).iter().for_each(|change| chased.note(by(20), change));
        }
        assert_eq!(chased.judge(&blind, read("9")), None);
        assert_eq!(image(chased.judge(&blind, read("5"))).as_deref(), Some(r#"{"id":1,"big":"a,\"}","n":2}"#));
    }

    #[test]
    fn a_row_that_moved_is_completed_under_its_new_key() {
        let mut window = window();
        moved("1", "9").iter().for_each(|change| window.note(by(20), change));
        let completed = window.judge(&snapshot("20:20:"), read("1")).unwrap();
        assert_eq!(completed.key, ["9"]);
        assert_eq!(completed.image.as_deref(), Some(r#"{"id":9,"big":"a,\"}","n":2}"#));
    }

    #[test]
    fn a_snapshot_that_misses_what_was_handed_out_before_is_too_early() {
        let mut window = Window::new([18, 19].map(by).into(), 10);
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
