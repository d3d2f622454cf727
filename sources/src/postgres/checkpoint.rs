//! What a checkpoint of this feed says. Its text is one JSON object:
//!
//! ```json
//! {"format":"postgres-1","system":"7301","timeline":1,"database":"app","slot":"cdc","lsn":"0/16B3748",
//!  "transaction":{"commit":"0/16B4000","done":250},
//!  "tables":[{"oid":16385,"namespace":"shop","relation":"orders","key":["id"],"state":"reading","after":["42"]}]}
//! ```
//!
//! - `system`, `timeline`, `database`, `slot`: whose log it is.
//! - `lsn`: every transaction whose commit record begins before it has been handed out. The slot may be confirmed up to
//!   it, and never beyond a checkpoint that is stored, so a slot that is further has been moved by somebody else.
//! - `transaction`: the next one has been handed out in part: as many of its messages about rows as `done` says.
//! - `prepared`: only while a prepared transaction is open that the server has sent: the log from there on is needed
//!   again after a restart, and the slot is confirmed up to there only. What committed before `lsn` is passed over then.
//! - `tables`: how far the reading of each is. `after` is the key of the last row that was read, as the database wrote
//!   it, also where the rules hash it. `ranges`, where a table is read in parts: what is left of each, rows after a key
//!   and up to another. (Who does not know it reads the table from its beginning.) `late`: it was published while it may have been written to, so its reading waits
//!   for the transactions of that time. `again`: a row moved past
//!   the reader incomplete, so the reading begins anew after a restart. `definition`: what the rows depend on beside the
//!   log (see `definition.rs`); without it nothing is known of that, and the table is read anew. `reason`: why it is read
//!   anew or stopped. `held`: the service asked for the stop. `unnamed`: another table took its name, and its new one is
//!   not known yet.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::definition::Stamp;
use super::lsn::Lsn;
use crate::change::Checkpoint;
use crate::feed::{FeedError, Reason, Remedy, TableState};

pub(super) const FORMAT: &str = "postgres-1";

/// A checkpoint's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) format: String,
    #[serde(flatten)]
    pub(super) origin: Origin,
    lsn: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prepared: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transaction: Option<PartlyDone>,
    pub(super) tables: Vec<TableMark>,
}

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) system: String,
    pub(super) timeline: u32,
    pub(super) database: String,
    pub(super) slot: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PartlyDone {
    commit: String,
    done: u64,
}

/// How far the reading of a table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableMark {
    pub(super) oid: u32,
    pub(super) namespace: String,
    pub(super) relation: String,
    /// Names of the key's columns; another key means reading it anew.
    pub(super) key: Vec<String>,
    pub(super) state: ReadState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<KeyRange>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) late: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) again: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) definition: Option<Stamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<MarkReason>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) held: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unnamed: bool,
}

/// Rows of a table by their keys, as the database writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyRange {
    /// Those after this one; from the first on, if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Vec<String>>,
    /// Those up to this one, with it; to the last, if none. No two ranges of a table have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Vec<String>>,
}

/// Why a table is read anew, or stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MarkReason {
    pub(super) code: String,
    pub(super) message: String,
}

/// The code of a table that somebody paused.
pub(super) const PAUSED: &str = "paused";

impl From<Reason> for MarkReason {
    fn from(Reason { code, message }: Reason) -> MarkReason {
        MarkReason { code, message }
    }
}

impl TableMark {
    /// A table that is new.
    pub(super) fn new(oid: u32, namespace: &str, relation: &str, state: ReadState) -> TableMark {
        TableMark {
            oid,
            namespace: namespace.to_owned(),
            relation: relation.to_owned(),
            key: Vec::new(),
            state,
            after: None,
            ranges: Vec::new(),
            late: true,
            again: false,
            definition: None,
            reason: None,
            held: false,
            unnamed: false,
        }
    }

    /// Its rows are read from the beginning, because they may be wrong as they are.
    pub(super) fn read_anew(&mut self, reason: Option<Reason>) {
        self.state = ReadState::Waiting;
        self.begin_anew();
        self.again = false;
        self.held = false;
        // What is true now is what its reading finds.
        self.definition = None;
        self.reason = reason.map(MarkReason::from);
    }

    /// Its changes are skipped.
    pub(super) fn stop(&mut self, reason: Reason) {
        self.state = ReadState::Stopped;
        self.begin_anew();
        self.reason = Some(reason.into());
    }

    /// Whether there are rows of it to be read.
    pub(super) fn is_to_be_read(&self) -> bool {
        matches!(self.state, ReadState::Waiting | ReadState::Reading)
    }

    /// Nothing of it has been read.
    pub(super) fn begin_anew(&mut self) {
        self.after = None;
        self.ranges.clear();
    }

    /// What is left to be read.
    pub(super) fn left(&self) -> Vec<KeyRange> {
        match self.ranges.as_slice() {
            [] => vec![KeyRange { after: self.after.clone(), until: None }],
            ranges => ranges.to_vec(),
        }
    }

    /// Whether it is read in parts.
    pub(super) fn is_split(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// What is left of the range up to this key.
    pub(super) fn range(&self, until: Option<&Vec<String>>) -> Option<KeyRange> {
        self.left().into_iter().find(|range| range.until.as_ref() == until)
    }

    /// Rows up to this key have been read of a range.
    pub(super) fn advance(&mut self, until: Option<&Vec<String>>, last: Vec<String>) {
        if self.ranges.is_empty() {
            self.after = Some(last);
        } else if let Some(range) = self.ranges.iter_mut().find(|range| range.until.as_ref() == until) {
            range.after = Some(last);
        }
    }

    /// What is left is read in parts, which end at these keys.
    pub(super) fn split(&mut self, bounds: Vec<Vec<String>>) {
        if bounds.is_empty() || !self.ranges.is_empty() {
            return;
        }
        let mut after = self.after.take();
        for until in bounds.into_iter().map(Some).chain([None]) {
            self.ranges.push(KeyRange { after: std::mem::replace(&mut after, until.clone()), until });
        }
    }

    /// A range has been read to its end. Answers whether it was the last one.
    pub(super) fn finish(&mut self, until: Option<&Vec<String>>) -> bool {
        self.after = None;
        self.ranges.retain(|range| range.until.as_ref() != until);
        self.ranges.is_empty()
    }

    /// What is said of it.
    pub(super) fn shown(&self) -> (TableState, Option<Reason>) {
        let reason = self.reason.as_ref().map(|reason| Reason::new(&*reason.code, &*reason.message));
        let state = match (self.state, &reason) {
            (ReadState::Following, _) => TableState::Following,
            (ReadState::Stopped, Some(reason)) if self.held && reason.code == PAUSED => TableState::Paused,
            (ReadState::Stopped, _) => TableState::Stopped,
            (_, Some(_)) => TableState::Rereading,
            (ReadState::Waiting, None) => TableState::Waiting,
            (ReadState::Reading, None) => TableState::Reading,
        };
        (state, reason)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReadState {
    Waiting,
    Reading,
    Following,
    /// Its changes are skipped.
    Stopped,
}

/// A place in the log: before the transaction that commits at or after `lsn`, or inside of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lsn: Lsn,
    /// Commit record and number of messages of a transaction that was handed out in part.
    pub(super) partly: Option<(Lsn, u64)>,
    /// Where the first of the prepared transactions is that are open, if any is.
    pub(super) prepared: Option<Lsn>,
}

impl Place {
    /// At a place in the log, with nothing left over.
    pub(super) fn at(lsn: Lsn) -> Place {
        Place { lsn, partly: None, prepared: None }
    }

    /// From where on the server has to keep its log.
    pub(super) fn needed_from(&self) -> Lsn {
        self.prepared.map_or(self.lsn, |prepared| prepared.min(self.lsn))
    }
}

impl Mark {
    /// Reads a checkpoint, and where in the log it is.
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<(Mark, Place), FeedError> {
        let unreadable = |source: Option<Box<dyn std::error::Error + Send + Sync>>| FeedError {
            remedy: Remedy::Stop,
            code: "checkpoint",
            message: "the stored position is not one of a PostgreSQL source of this version; was another source \
                      configured under this name?"
                .into(),
            source,
        };
        let mark: Mark = serde_json::from_str(&checkpoint.0).map_err(|error| unreadable(Some(error.into())))?;
        if mark.format != FORMAT {
            return Err(unreadable(None));
        }
        let lsn = |text: &str| text.parse::<Lsn>().map_err(|error| unreadable(Some(error.into())));
        let place = Place {
            lsn: lsn(&mark.lsn)?,
            partly: match &mark.transaction {
                Some(partly) => Some((lsn(&partly.commit)?, partly.done)),
                None => None,
            },
            prepared: mark.prepared.as_deref().map(lsn).transpose()?,
        };
        Ok((mark, place))
    }
}

/// How far the server may forget once this checkpoint is stored, without reading all of it. None if it is none of ours.
pub(super) fn confirmed_by(checkpoint: &Checkpoint) -> Option<Lsn> {
    let (_, rest) = checkpoint.0.split_once(r#","lsn":""#)?;
    let (at, rest) = rest.split_once('"')?;
    let mut place = Place::at(at.parse().ok()?);
    if let Some(rest) = rest.strip_prefix(r#","prepared":""#) {
        place.prepared = Some(rest.split_once('"')?.0.parse().ok()?);
    }
    Some(place.needed_from())
}

/// Writes checkpoints. The tables' part is written anew only when something changed there.
#[derive(Debug)]
pub(super) struct Writer {
    head: String,
    tables: String,
}

impl Writer {
    pub(super) fn new(origin: &Origin) -> Writer {
        let mut head = format!(r#"{{"format":"{FORMAT}","#);
        // A struct of texts and numbers always has a form in JSON.
        let origin = serde_json::to_string(origin).unwrap_or_default();
        head.push_str(origin.trim_start_matches('{').trim_end_matches('}'));
        Writer { head, tables: String::new() }
    }

    /// Call after any change to `tables`.
    pub(super) fn set_tables(&mut self, tables: &BTreeMap<u32, TableMark>) {
        let marks: Vec<&TableMark> = tables.values().collect();
        self.tables = serde_json::to_string(&marks).unwrap_or_default();
    }

    pub(super) fn checkpoint(&self, place: Place) -> Checkpoint {
        let mut text = String::with_capacity(self.head.len() + self.tables.len() + 100);
        text.push_str(&self.head);
        let _ = write!(text, r#","lsn":"{}""#, place.lsn);
        if let Some(prepared) = place.prepared {
            let _ = write!(text, r#","prepared":"{prepared}""#);
        }
        if let Some((commit, done)) = place.partly {
            let _ = write!(text, r#","transaction":{{"commit":"{commit}","done":{done}}}"#);
        }
        text.push_str(r#","tables":"#);
        text.push_str(&self.tables);
        text.push('}');
        Checkpoint(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn writer() -> Writer {
        let mut writer =
            Writer::new(&Origin { system: "7301".into(), timeline: 1, database: "a\"b".into(), slot: "cdc".into() });
        let table = TableMark {
            oid: 16385,
            namespace: "shop".into(),
            relation: "orders".into(),
            key: vec!["id".into()],
            state: ReadState::Reading,
            after: Some(vec!["42".into()]),
            late: true,
            ..TableMark::new(0, "", "", ReadState::Waiting)
        };
        writer.set_tables(&BTreeMap::from([(16385, table)]));
        writer
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_written() {
        let place = Place { lsn: Lsn(0x16_b374_d848), partly: Some((Lsn(0x16_b374_d900), 250)), prepared: None };
        let checkpoint = writer().checkpoint(place);
        assert_eq!(
            checkpoint.0,
            r#"{"format":"postgres-1","system":"7301","timeline":1,"database":"a\"b","slot":"cdc","lsn":"16/B374D848","transaction":{"commit":"16/B374D900","done":250},"tables":[{"oid":16385,"namespace":"shop","relation":"orders","key":["id"],"state":"reading","after":["42"],"late":true}]}"#
        );
        let (mark, read) = Mark::read(&checkpoint).unwrap();
        assert_eq!(read, place);
        assert_eq!(mark.origin.database, "a\"b");
        assert_eq!(mark.tables[0].left(), [KeyRange { after: Some(vec!["42".into()]), until: None }]);
        assert_eq!(confirmed_by(&checkpoint), Some(place.lsn));
    }

    #[test]
    fn a_checkpoint_tells_what_is_left_of_each_range() {
        let key = |key: &str| vec![key.to_owned()];
        let mut table = TableMark::new(16385, "shop", "orders", ReadState::Reading);
        table.advance(None, key("5"));
        table.split(vec![key("10"), key("20")]);
        table.advance(Some(&key("10")), key("7"));
        table.advance(None, key("30"));
        assert!(!table.finish(Some(&key("20"))));
        let mut writer = writer();
        writer.set_tables(&BTreeMap::from([(16385, table.clone())]));
        let checkpoint = writer.checkpoint(Place::default());
        let ranges = r#""state":"reading","ranges":[{"after":["7"],"until":["10"]},{"after":["30"]}],"late":true"#;
        assert!(checkpoint.0.contains(ranges), "{}", checkpoint.0);
        let read = Mark::read(&checkpoint).unwrap().0.tables.remove(0);
        assert_eq!(read, table);
        assert_eq!(read.range(None), Some(KeyRange { after: Some(key("30")), until: None }));
        assert!(!table.finish(None));
        assert!(table.finish(Some(&key("10"))));
        assert_eq!(table.left(), [KeyRange::default()], "once more, from the beginning");
    }

    #[test]
    fn the_slot_is_not_confirmed_beyond_an_open_prepared_transaction() {
        let place = Place { lsn: Lsn(20), partly: None, prepared: Some(Lsn(10)) };
        let checkpoint = writer().checkpoint(place);
        assert_eq!(Mark::read(&checkpoint).unwrap().1, place);
        assert_eq!(confirmed_by(&checkpoint), Some(Lsn(10)));
    }

    #[test]
    fn what_is_no_checkpoint_of_ours_is_refused() {
        let good = writer().checkpoint(Place::default()).0;
        assert!(Mark::read(&Checkpoint(good.clone())).is_ok());
        for text in [String::new(), "{}".into(), good.replace("postgres-1", "postgres-9"), good.replace("0/0", "0")] {
            assert_eq!(Mark::read(&Checkpoint(text)).unwrap_err().code, "checkpoint");
        }
    }
}
