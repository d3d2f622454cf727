//! What one event of the log means.

use std::sync::Arc;

use super::bytes::{Bytes, Malformed};
use super::cascade::Written;
use super::checkpoint::Name;
use super::connection::stop;
use super::event::{self, Begin, Event, RowsKind};
use super::follow::{Follower, repair};
use super::form::Form;
use super::place::{Gtid, LogPlace, file_number};
use super::reading::Order;
use super::row::{self, Row, RowProblem};
use super::tables::{Mapped, Tracked};
use crate::change::{Action, Change, Step};
use crate::feed::{FeedError, Reason};

/// A transaction whose events are coming.
pub(super) struct Group {
    pub(super) gtid: Gtid,
    /// Its name, for positions.
    pub(super) name: Arc<str>,
    pub(super) committed_at_ms: u64,
    /// Rows so far, of all tables.
    pub(super) rows: u64,
    /// Rows that were handed out before.
    pub(super) skip: u64,
    /// It has a commit of its own; None until that is known.
    pub(super) transactional: Option<bool>,
    /// It only prepares an XA transaction of this name.
    pub(super) prepares: Option<String>,
    pub(super) touched: Vec<Name>,
    /// Ids of tables that the statement that is coming has mapped, and those whose rows it has changed so far.
    pub(super) mapped: Vec<u64>,
    pub(super) written: Vec<Written>,
}

impl Follower {
    pub(super) async fn apply(&mut self, event: &Event) -> Result<(), FeedError> {
        let Event { timestamp, kind, flags, .. } = *event;
        let body: &[u8] = &event.body;
        let real = event.end > 0 && flags & event::ARTIFICIAL == 0;
        let end = LogPlace {
            file: self.file.clone(),
            offset: if real { extend(self.place.offset, event.end) } else { self.place.offset },
        };
        match kind {
            event::ROTATE => self.rotate(body, flags & event::ARTIFICIAL != 0 || event.end == 0)?,
            event::FORMAT_DESCRIPTION => self.file_begins(timestamp, real.then_some(end))?,
            event::HEARTBEAT => {
                let name = event::heartbeat(body);
                if self.group.is_none() && event.end > 0 && file_number(&name) >= file_number(&self.place.file) {
                    let offset = if name == self.place.file { self.place.offset } else { 0 };
                    self.move_to(LogPlace { offset: extend(offset, event.end), file: name });
                }
            }
            event::MARIADB_GTID => {
                let begin = event::mariadb_gtid(body, event.server).map_err(|problem| self.malformed(problem))?;
                self.begin(begin, timestamp);
            }
            event::GTID | event::ANONYMOUS_GTID => {
                let begin = event::mysql_gtid(body, kind == event::ANONYMOUS_GTID);
                let begin = begin.map_err(|problem| self.malformed(problem))?;
                self.begin(begin, timestamp);
            }
            event::QUERY | event::QUERY_COMPRESSED => {
                let (database, text) = event::query(body, kind).map_err(|problem| self.malformed(problem))?;
                self.statement(&database, &text, end, timestamp).await?;
            }
            event::EXECUTE_LOAD_QUERY => {
                let (database, text) = event::query(body, kind).map_err(|problem| self.malformed(problem))?;
                self.statement_of_rows(&database, &text).await?;
            }
            event::TABLE_MAP => self.table_map(body).await?,
            event::XID => self.end(end),
            event::XA_PREPARE => self.prepared(body, end),
            event::TRANSACTION_PAYLOAD => {
                if let Some(group) = &mut self.group {
                    group.transactional = Some(true);
                }
                self.payload_end = Some(end);
            }
            event::TAGGED_GTID => {
                let begin = event::tagged_gtid(body).map_err(|problem| self.malformed(problem))?;
                self.begin(begin, timestamp);
            }
            event::INCIDENT => {
                let message = format!(
                    "the server reports at {} that events are missing in its log (an incident); ask for a repair",
                    self.place
                );
                return Err(repair("log-incident", message));
            }
            _ => {
                if let Some(rows) = event::rows(kind, body).map_err(|problem| self.malformed(problem))? {
                    self.rows(&rows, end.order())?;
                } else if !event::says_nothing(kind) && flags & event::IGNORABLE == 0 {
                    let message = format!(
                        "the log has an event of kind {kind} at {}, which this version does not know; exclude nothing and \
                         report it",
                        self.place
                    );
                    return Err(stop("unknown-event", message));
                } else if self.group.is_none() && real {
                    self.move_to(end);
                }
            }
        }
        Ok(())
    }

    pub(super) fn malformed(&self, problem: Malformed) -> FeedError {
        let message = format!("the log can't be read after {}: {problem}", self.place);
        stop("malformed", message)
    }

    /// Moves on, never back: events that the server makes up for a connection tell places that were passed before.
    fn move_to(&mut self, place: LogPlace) {
        if place.order() > self.place.order() {
            self.place = place;
            self.moved();
        }
    }

    fn rotate(&mut self, body: &[u8], artificial: bool) -> Result<(), FeedError> {
        let (offset, file) = event::rotate(body).map_err(|problem| self.malformed(problem))?;
        let begin = LogPlace { file: file.clone(), offset: 4 };
        if !artificial || begin.order() > self.place.order() {
            self.move_to(LogPlace { file: file.clone(), offset });
        }
        if self.file != file {
            self.file = file;
            self.file_begun = 0;
        }
        self.maps.clear();
        Ok(())
    }

    /// A file's first event, which is sent first wherever in the file the log is asked for.
    fn file_begins(&mut self, begun: u32, end: Option<LogPlace>) -> Result<(), FeedError> {
        self.file_begun = begun;
        self.maps.clear();
        if let Some((file, expected)) = &self.expected
            && *file == self.file
        {
            if *expected != begun {
                let message = format!(
                    "the server's log file {file} is not the one that was followed: it was begun at {begun}, and the other \
                     one at {expected} (seconds since 1970); the log was reset, or the server replaced; ask for a repair"
                );
                return Err(repair("server-replaced", message));
            }
            self.expected = None;
        }
        match end {
            Some(end) if self.group.is_none() => self.move_to(end),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, begin: Begin, timestamp: u32) {
        let name: Arc<str> = match begin.gtid {
            Gtid::None => self.place.to_string().into(),
            gtid => gtid.to_string().into(),
        };
        self.group = Some(Group {
            gtid: begin.gtid,
            name,
            committed_at_ms: begin.committed_at_ms.unwrap_or(u64::from(timestamp) * 1000),
            rows: 0,
            skip: std::mem::take(&mut self.skip),
            transactional: begin.standalone.map(|standalone| !standalone),
            prepares: begin.prepares,
            touched: Vec::new(),
            mapped: Vec::new(),
            written: Vec::new(),
        });
    }

    /// The transaction is complete.
    pub(super) fn end(&mut self, end: LogPlace) {
        let end = self.payload_end.take().unwrap_or(end);
        if let Some(group) = self.group.take() {
            self.seen.add(group.gtid);
        }
        self.place = end;
        self.moved();
    }

    /// The group prepared an XA transaction: what it changes counts once it commits.
    fn prepared(&mut self, body: &[u8], end: LogPlace) {
        let one_phase = body.first() == Some(&1) && !self.server.mariadb;
        if let Some(group) = &mut self.group
            && let Some(xid) = group.prepares.take()
        {
            let mut touched = std::mem::take(&mut group.touched);
            touched.sort();
            touched.dedup();
            if one_phase {
                touched.iter().for_each(|name| self.doubt(name, &xa_committed));
            } else if !touched.is_empty() {
                self.prepared.insert(xid, touched);
            }
        }
        self.end(end);
    }

    fn rows(&mut self, rows: &event::Rows<'_>, order: Order) -> Result<(), FeedError> {
        let mapped = self.maps.get(&rows.table_id);
        let Some(mapped) = mapped else { return Err(self.malformed(Malformed("rows of a table that was not mapped"))) };
        match mapped {
            Mapped::Captured { name, form } if self.tables.get(name).is_some_and(Tracked::is_followed) => {
                let (name, form) = (name.clone(), Arc::clone(form));
                self.changes(&name, &form, rows, order)?;
            }
            Mapped::Untold { name, reason, .. } => {
                let (name, reason) = (name.clone(), reason.clone());
                self.count(rows)?;
                self.doubt(&name, &|| reason.clone());
            }
            Mapped::Captured { .. } | Mapped::Other { .. } => self.count(rows)?,
        }
        self.wrote(rows)
    }

    /// Counts rows that are not captured, so that positions are the same whatever is.
    fn count(&mut self, rows: &event::Rows<'_>) -> Result<(), FeedError> {
        let after = (rows.kind == RowsKind::Update).then_some(rows.present_after);
        let columns = self.maps.get(&rows.table_id).map(Mapped::layout).unwrap_or_default();
        let counted = row::count(columns, &rows.values, rows.present, after, rows.partial);
        let counted = counted.map_err(|problem| self.malformed(problem))?;
        if let Some(group) = &mut self.group {
            group.rows += counted;
        }
        Ok(())
    }

    fn changes(
        &mut self,
        name: &Name,
        form: &Arc<Form>,
        rows: &event::Rows<'_>,
        order: Order,
    ) -> Result<(), FeedError> {
        if rows.columns != form.columns.len() {
            return Err(self.malformed(Malformed("rows with another number of columns than their table")));
        }
        let begun = self.group.as_ref().map_or(0, |group| group.rows);
        let whole = |present: &[u8]| (0..rows.columns).all(|at| super::bytes::bit(present, at));
        let (whole_first, whole_after) = (whole(rows.present), whole(rows.present_after));
        let everything = whole_first && whole_after;
        let silent = match &mut self.group {
            None => return Err(self.malformed(Malformed("rows outside of a transaction"))),
            Some(group) => {
                if !group.touched.contains(name) {
                    group.touched.push(name.clone());
                }
                group.prepares.is_some()
            }
        };
        if !silent {
            self.describe(name, form);
        }
        let mut bytes = Bytes(&rows.values);
        let mut capacity = rows.columns * 16;
        while !bytes.is_empty() {
            let (first, second) = match both(form, rows, &mut bytes, everything, capacity) {
                Ok(both) => both,
                Err(problem) => {
                    // The rest of the event is passed over.
                    if let Some(group) = &mut self.group {
                        group.rows = begun;
                    }
                    self.count(rows)?;
                    let reason = match problem {
                        RowProblem::Malformed(problem) => undecodable(name, problem),
                        RowProblem::NoDocument(column) => without_document(name, &column),
                    };
                    self.stop_table(name, reason);
                    return Ok(());
                }
            };
            capacity = first.image.len() + 16;
            let Some(group) = &mut self.group else { return Ok(()) };
            let place = group.rows;
            group.rows += 1;
            let handed_out = place < group.skip;
            self.change(name, form, rows.kind, first, second, place, order, handed_out || silent)?;
        }
        Ok(())
    }

    /// One row's change. What is not the present row, in a table that keeps others, is passed over. `silent` ones are only remembered for what is being read.
    #[allow(clippy::too_many_arguments, reason = "a row's parts, passed on once")]
    fn change(
        &mut self,
        name: &Name,
        form: &Arc<Form>,
        kind: RowsKind,
        first: Row,
        second: Option<Row>,
        place: u64,
        order: Order,
        silent: bool,
    ) -> Result<(), FeedError> {
        let (kind, mut first, mut second) = match (kind, second) {
            (RowsKind::Update, Some(second)) => match (first.past, second.past) {
                (true, true) => return Ok(()),
                (false, true) => (RowsKind::Delete, first, None),
                (true, false) => (RowsKind::Insert, second, None),
                (false, false) => (kind, first, Some(second)),
            },
            _ if first.past => return Ok(()),
            (_, second) => (kind, first, second),
        };
        let new_key = match &mut second {
            Some(second) => second.take_key().map(Some),
            None => Some(None),
        };
        // What the log leaves out of a new row is not what it was before, but a default that is not known here.
        let whole = kind != RowsKind::Insert || first.missing.is_empty();
        let (Some(old_key), Some(new_key), true) = (first.take_key(), new_key, whole) else {
            self.doubt(name, &|| partial(name));
            return Ok(());
        };
        if form.table.is_append_only() {
            self.append(name, form, kind, first, (place, order), silent);
            return Ok(());
        }
        self.note(name, &old_key, order);
        if let Some(new_key) = new_key.as_ref().filter(|new_key| **new_key != old_key) {
            self.note(name, new_key, order);
        }
        if silent {
            return Ok(());
        }
        let Some(group) = &self.group else { return Ok(()) };
        let mut change = Change {
            table: Arc::clone(&form.table),
            action: Action::Replace,
            key: old_key,
            image: None,
            unchanged: Vec::new(),
            previous_key: None,
            before: None,
            position: Some(position(&group.name, place, "")),
            transaction: Some(Arc::clone(&group.name)),
            committed_at_ms: Some(group.committed_at_ms),
        };
        let names = |places: &[usize]| places.iter().map(|&place| form.columns[place].name.clone()).collect::<Vec<_>>();
        let before = |row: Row| row.missing.is_empty().then_some(row.image);
        self.step_bytes += first.image.len() + 128;
        match (kind, second) {
            (RowsKind::Insert, _) => change.image = Some(first.image),
            (RowsKind::Delete, _) => {
                change.action = Action::Remove;
                change.before = before(first);
            }
            (RowsKind::Update, None) => {}
            (RowsKind::Update, Some(second)) => {
                self.step_bytes += second.image.len();
                change.unchanged = names(&second.missing);
                change.before = before(first);
                if let Some(new_key) = new_key.filter(|new_key| *new_key != change.key) {
                    let removal = Change {
                        action: Action::Remove,
                        position: Some(position(&group.name, place, ".old")),
                        unchanged: Vec::new(),
                        ..change.clone()
                    };
                    self.steps.push(Step::Change(removal));
                    change.previous_key = Some(std::mem::replace(&mut change.key, new_key));
                    // A row with another key has no row before of its own.
                    change.before = None;
                }
                change.image = Some(second.image);
            }
        }
        self.steps.push(Step::Change(change));
        Ok(())
    }
}

/// The row of an event, and for updates the one that it became.
fn both(
    form: &Form,
    rows: &event::Rows<'_>,
    bytes: &mut Bytes<'_>,
    everything: bool,
    capacity: usize,
) -> Result<(Row, Option<Row>), RowProblem> {
    if rows.partial {
        let (first, mut second) = row::read_partial(form, bytes, rows.present, rows.present_after, capacity)?;
        second.complete_from(&first);
        return Ok((first, Some(second)));
    }
    let first = row::read(form, bytes, rows.present, everything, capacity)?;
    if rows.kind != RowsKind::Update {
        return Ok((first, None));
    }
    let mut second = row::read(form, bytes, rows.present_after, everything, first.image.len() + 16)?;
    if !everything {
        second.complete_from(&first);
    }
    Ok((first, Some(second)))
}

fn undecodable((namespace, relation): &Name, problem: Malformed) -> Reason {
    let message = format!(
        "a row of {namespace}.{relation} in the log can't be read: {problem}; exclude its column, or mend the row and have \
         the table read anew"
    );
    Reason::new("undecodable", message)
}

fn without_document((namespace, relation): &Name, column: &str) -> Reason {
    let message = format!(
        "the log tells only what changed in the JSON of {namespace}.{relation} ({column}), and not what it was; run SET \
         GLOBAL binlog_row_image = 'FULL', or SET GLOBAL binlog_row_value_options = '', let sessions that are open \
         reconnect, and have the table read anew"
    );
    Reason::new("partial-json", message)
}

fn partial((namespace, relation): &Name) -> Reason {
    let message = format!(
        "the log does not hold all of a new row of {namespace}.{relation}; run SET GLOBAL binlog_row_image = 'FULL', and \
         let sessions that are open reconnect"
    );
    Reason::new("row-image", message)
}

/// Why tables are read once a prepared transaction is committed.
pub(super) fn xa_committed() -> Reason {
    Reason::new("xa", "a prepared transaction that changed it was committed")
}

pub(super) fn position(transaction: &str, place: u64, suffix: &str) -> String {
    let mut position = String::with_capacity(transaction.len() + suffix.len() + 8);
    position.push_str(transaction);
    position.push('/');
    super::cell::push_uint(&mut position, place);
    position.push_str(suffix);
    position
}

/// Events tell the lower four bytes of their offset, and files may be longer.
fn extend(before: u64, told: u32) -> u64 {
    let high = before & !u64::from(u32::MAX);
    let offset = high | u64::from(told);
    if offset < before && before - offset > u64::from(u32::MAX / 2) { offset + (1 << 32) } else { offset }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_on_beyond_four_bytes() {
        assert_eq!(extend(100, 200), 200);
        assert_eq!(extend(0xffff_fff0, 0x10), 0x1_0000_0010);
        assert_eq!(extend(0x1_0000_0010, 0x20), 0x1_0000_0020);
        assert_eq!(extend(500, 400), 400);
    }
}
