//! What one event of the log means.

use std::sync::Arc;

use super::bytes::{Bytes, Malformed};
use super::catalog;
use super::checkpoint::{Name, Reading};
use super::connection::stop;
use super::event::{self, Begin, Event, RowsKind};
use super::follow::{Follower, repair};
use super::form::{Form, FormProblem};
use super::place::{Gtid, LogPlace, file_number};
use super::reading::Order;
use super::row::{self, Row, RowProblem};
use super::statement::{self, Statement};
use super::table_map::{self, TableMap, code};
use super::tables::Mapped;
use crate::change::{Action, Change, Step};
use crate::feed::FeedError;

/// A transaction whose events are coming.
pub(super) struct Group {
    gtid: Gtid,
    /// Its name, for positions.
    name: Arc<str>,
    committed_at_ms: u64,
    /// Rows so far, of all tables.
    pub(super) rows: u64,
    /// Rows that were handed out before.
    pub(super) skip: u64,
    /// It has a commit of its own; None until that is known.
    transactional: Option<bool>,
    /// It only prepares an XA transaction of this name.
    prepares: Option<String>,
    touched: Vec<Name>,
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
                self.statement_of_rows(&database, &text)?;
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

    fn begin(&mut self, begin: Begin, timestamp: u32) {
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
        });
    }

    /// The transaction is complete.
    fn end(&mut self, end: LogPlace) {
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
                touched.iter().for_each(|name| self.read_anew(name));
            } else if !touched.is_empty() {
                self.prepared.insert(xid, touched);
            }
        }
        self.end(end);
    }

    /// A transaction was taken back, or a part of it may have been, after its rows were logged (tables without
    /// transactions were in it): what became of them is not in the log.
    fn taken_back(&mut self) {
        let touched = self.group.as_mut().map(|group| std::mem::take(&mut group.touched)).unwrap_or_default();
        touched.iter().for_each(|name| self.read_anew(name));
    }

    async fn statement(&mut self, database: &str, text: &str, end: LogPlace, at: u32) -> Result<(), FeedError> {
        let mut more = false;
        match statement::read(database, text) {
            Statement::Begin => {
                // Up to 5.6 nothing comes before it, unless transactions have identifiers.
                if self.group.is_none() {
                    let gtid = Gtid::None;
                    self.begin(
                        Begin { gtid, committed_at_ms: None, standalone: None, prepares: None, completes: false },
                        at,
                    );
                }
                self.transactional(None);
                return Ok(());
            }
            Statement::XaFrame => {
                let xid = text.trim_start().get("XA START".len()..).unwrap_or_default();
                let xid: String = xid.chars().filter(|character| !character.is_whitespace()).collect();
                self.transactional(Some(xid));
                return Ok(());
            }
            Statement::Commit => {
                self.end(end);
                return Ok(());
            }
            Statement::Rollback => {
                self.taken_back();
                self.end(end);
                return Ok(());
            }
            Statement::RollbackTo => {
                self.taken_back();
                return Ok(());
            }
            Statement::XaCommit(xid) => {
                let touched = self.prepared.remove(&xid).unwrap_or_default();
                touched.iter().for_each(|name| self.read_anew(name));
            }
            Statement::XaRollback(xid) => {
                self.prepared.remove(&xid);
            }
            Statement::Truncate(names) => {
                for name in names {
                    self.emptied(&name);
                    let read = self.tables.get(&name).is_some_and(|table| table.line.reading != Reading::Following);
                    if read {
                        self.read_anew(&name);
                    }
                }
            }
            Statement::Drop(names) => names.iter().for_each(|name| self.dropped(name)),
            Statement::DropDatabase(database) => {
                let names: Vec<Name> = self.tables.keys().filter(|name| name.0 == database).cloned().collect();
                names.iter().for_each(|name| self.dropped(name));
            }
            Statement::Alter { table, rows, renamed: None } => self.altered(&table, rows).await?,
            Statement::Alter { table, renamed: Some(new), .. } => self.renamed(&[(table, new)]),
            Statement::Rename(pairs) => self.renamed(&pairs),
            Statement::Create { table, replaced, more: rows } => {
                more = rows;
                if replaced && self.tables.contains_key(&table) {
                    self.read_anew(&table);
                } else if self.tables.contains_key(&table) {
                    self.altered(&table, false).await?;
                } else if self.captures(&table.0, &table.1) {
                    self.track(table);
                }
            }
            Statement::Rows => self.statement_of_rows(database, text)?,
            Statement::Other => {}
        }
        match &mut self.group {
            // One statement, without a commit after it.
            Some(group) if group.transactional != Some(true) && !more => self.end(end),
            Some(group) => group.transactional = Some(true),
            None => {}
        }
        Ok(())
    }

    fn transactional(&mut self, xid: Option<String>) {
        if let Some(group) = &mut self.group {
            group.transactional = Some(true);
            if xid.is_some() && group.prepares.is_none() && group.rows == 0 {
                group.prepares = xid;
            }
        }
    }

    /// A statement changed rows and the log does not hold them.
    fn statement_of_rows(&self, database: &str, text: &str) -> Result<(), FeedError> {
        let word = |name: &str| {
            text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
                .any(|word| word.eq_ignore_ascii_case(name))
        };
        // Triggers and functions may change tables that the statement does not name; those of the same database are
        // taken to be concerned.
        let concerned = self.tables.keys().any(|(namespace, relation)| namespace == database || word(relation));
        if !concerned {
            return Ok(());
        }
        let shown: String = text.chars().take(200).collect();
        let message = format!(
            "the log holds a statement instead of the rows that it changed, at {} in {database}: {shown}; run SET GLOBAL \
             binlog_format = 'ROW', let sessions that are open reconnect, and ask for a repair",
            self.place
        );
        Err(stop("row-format", message))
    }

    /// Every row of a table is gone.
    fn emptied(&mut self, name: &Name) {
        if !self.tables.contains_key(name) {
            return;
        }
        let table = self.known(name);
        let Some(group) = &mut self.group else { return };
        let place = group.rows;
        group.rows += 1;
        if place < group.skip {
            return;
        }
        self.steps.push(Step::Change(Change {
            table,
            action: Action::Truncate,
            key: Vec::new(),
            image: None,
            unchanged: Vec::new(),
            previous_key: None,
            before: None,
            position: Some(format!("{}/{place}", group.name)),
            transaction: Some(Arc::clone(&group.name)),
            committed_at_ms: Some(group.committed_at_ms),
        }));
        self.step_bytes += 64;
    }

    fn dropped(&mut self, name: &Name) {
        if self.tables.contains_key(name) {
            self.emptied(name);
            self.forget(name);
        }
    }

    fn renamed(&mut self, pairs: &[(Name, Name)]) {
        for (old, _) in pairs {
            // A name that another table takes keeps its rows until that one has been read.
            if !pairs.iter().any(|(_, new)| new == old) {
                self.dropped(old);
            }
        }
        for (_, new) in pairs {
            // Unless it was only passed through, as when two tables swap their names over a third one.
            let passed = pairs.iter().any(|(old, _)| old == new) && !self.tables.contains_key(new);
            if self.captures(&new.0, &new.1) && !passed {
                self.track(new.clone());
                self.read_anew(new);
                if let Some(table) = self.tables.get_mut(new) {
                    table.form = None;
                }
            }
        }
    }

    /// A table's form may have changed. If images look otherwise now, its rows are read anew.
    async fn altered(&mut self, name: &Name, rows: bool) -> Result<(), FeedError> {
        if !self.captures(&name.0, &name.1) {
            return Ok(());
        }
        self.track(name.clone()).form = None;
        let catalog = catalog::table(&mut self.catalog, self.server.mariadb, &name.0, &name.1).await?;
        // It may be gone by now; the log will come to that.
        let Some(catalog) = catalog else { return Ok(()) };
        let form = Form::of_catalog(&name.0, &name.1, &catalog, &self.rules, self.server.connector());
        let form = form.map_err(|problem| stop("table", problem.to_string()))?;
        let Some(table) = self.tables.get_mut(name) else { return Ok(()) };
        if table.line.form == form.id && !rows {
            return Ok(());
        }
        if self.options.snapshot {
            self.read_anew(name);
        } else {
            table.line.form.clone_from(&form.id);
            self.describe(name, &form);
        }
        Ok(())
    }

    async fn table_map(&mut self, body: &[u8]) -> Result<(), FeedError> {
        let (id, bytes) = table_map::split(body).map_err(|problem| self.malformed(problem))?;
        // A table's id means the same form as long as it is not given out anew.
        if let Some(Mapped::Captured { name, form }) = self.maps.get(&id)
            && let Some(table) = self.tables.get(name)
            && let Some((known, current)) = &table.form
            && known == bytes
            && Arc::ptr_eq(current, form)
        {
            return Ok(());
        }
        let map = TableMap::read(bytes, self.server.mariadb).map_err(|problem| self.malformed(problem))?;
        let name = (map.database.clone(), map.table.clone());
        if !self.captures(&name.0, &name.1) {
            self.maps.insert(id, Mapped::Other(map.columns));
            return Ok(());
        }
        if let Some((known, form)) = self.tables.get(&name).and_then(|table| table.form.as_ref())
            && known == bytes
        {
            let form = Arc::clone(form);
            self.maps.insert(id, Mapped::Captured { name, form });
            return Ok(());
        }
        // MariaDB logs its sequences like tables.
        if map.columns.first().and_then(|column| column.name.as_deref()) == Some("next_not_cached_value") {
            self.maps.insert(id, Mapped::Other(map.columns));
            return Ok(());
        }
        let catalog = catalog::table(&mut self.catalog, self.server.mariadb, &name.0, &name.1).await?;
        if catalog.is_none() && map.columns.iter().any(|column| column.name.is_none()) {
            let sequence = map.columns.len() == 8 && map.columns.first().is_some_and(|c| c.code == code::LONGLONG);
            // Dropped since; that its columns' names are not known any more does not matter, as all of its rows are
            // gone. A drop comes later in the log.
            if sequence || !self.tables.contains_key(&name) {
                self.maps.insert(id, Mapped::Other(map.columns));
                return Ok(());
            }
        }
        // The log may have columns that the table, as people see it, has not.
        let known = catalog.as_ref().map_or(map.columns.len(), |catalog| catalog.columns.len());
        let expressions = if !self.server.mariadb && known < map.columns.len() {
            catalog::expressions(&mut self.catalog, &name.0, &name.1).await?
        } else {
            0
        };
        let charsets = &self.server.charsets;
        let form = Form::of_map(&map, catalog.as_ref(), expressions, charsets, &self.rules, self.server.connector());
        let form = Arc::new(form.map_err(|problem| match &problem {
            FormProblem::Nameless(_) => stop("row-metadata", problem.to_string()),
            _ => stop("table", problem.to_string()),
        })?);
        let bytes = bytes.to_vec();
        let table = self.track(name.clone());
        table.form = Some((bytes, Arc::clone(&form)));
        if table.line.form.is_empty() && table.line.reading == Reading::Following {
            table.line.form.clone_from(&form.id);
        }
        self.maps.insert(id, Mapped::Captured { name, form });
        Ok(())
    }

    fn rows(&mut self, rows: &event::Rows<'_>, order: Order) -> Result<(), FeedError> {
        let after = (rows.kind == RowsKind::Update).then_some(rows.present_after);
        match self.maps.get(&rows.table_id) {
            None => Err(self.malformed(Malformed("rows of a table that was not mapped"))),
            Some(Mapped::Other(columns)) => {
                let counted = row::count(columns, &rows.values, rows.present, after, rows.partial);
                let counted = counted.map_err(|problem| self.malformed(problem))?;
                if let Some(group) = &mut self.group {
                    group.rows += counted;
                }
                Ok(())
            }
            Some(Mapped::Captured { name, form }) => {
                let (name, form) = (name.clone(), Arc::clone(form));
                self.changes(&name, &form, rows, order)
            }
        }
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
        let undecodable = |problem: Malformed| {
            let message = format!("a row of {}.{}: {problem}", name.0, name.1);
            stop("undecodable", message)
        };
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
            if rows.partial {
                let both = row::read_partial(form, &mut bytes, rows.present, rows.present_after, capacity);
                let (first, mut second) = both.map_err(|problem| match problem {
                    RowProblem::Malformed(problem) => undecodable(problem),
                    RowProblem::NoDocument(column) => {
                        let message = format!(
                            "the log tells only what changed in the JSON of {}.{} ({column}), and not what it was; run SET \
                             GLOBAL binlog_row_image = 'FULL', or SET GLOBAL binlog_row_value_options = '', let sessions \
                             that are open reconnect, and have the table read anew",
                            name.0, name.1
                        );
                        stop("partial-json", message)
                    }
                })?;
                capacity = first.image.len() + 16;
                if !everything {
                    second.complete_from(&first);
                }
                let Some(group) = &mut self.group else { return Ok(()) };
                let place = group.rows;
                group.rows += 1;
                let handed_out = place < group.skip;
                self.change(name, form, rows.kind, first, Some(second), place, order, handed_out || silent)?;
                continue;
            }
            let first = row::read(form, &mut bytes, rows.present, everything, capacity).map_err(undecodable)?;
            capacity = first.image.len() + 16;
            let second = match rows.kind {
                RowsKind::Update => {
                    let mut second =
                        row::read(form, &mut bytes, rows.present_after, everything, capacity).map_err(undecodable)?;
                    if !everything {
                        second.complete_from(&first);
                    }
                    Some(second)
                }
                _ => None,
            };
            let Some(group) = &mut self.group else { return Ok(()) };
            let place = group.rows;
            group.rows += 1;
            let handed_out = place < group.skip;
            self.change(name, form, rows.kind, first, second, place, order, handed_out || silent)?;
        }
        Ok(())
    }

    /// One row's change. `silent` ones are only remembered for what is being read.
    #[allow(clippy::too_many_arguments, reason = "a row's parts, passed on once")]
    fn change(
        &mut self,
        name: &Name,
        form: &Arc<Form>,
        kind: RowsKind,
        mut first: Row,
        mut second: Option<Row>,
        place: u64,
        order: Order,
        silent: bool,
    ) -> Result<(), FeedError> {
        let partial = || {
            let message = format!(
                "the log does not hold whole rows of {}.{}; run SET GLOBAL binlog_row_image = 'FULL', let sessions that \
                 are open reconnect, and ask for a repair",
                name.0, name.1
            );
            stop("row-image", message)
        };
        let old_key = first.take_key().ok_or_else(partial)?;
        let new_key = match &mut second {
            Some(second) => Some(second.take_key().ok_or_else(partial)?),
            None => None,
        };
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
            // What the log leaves out of a new row is not what it was before, but a default that is not known here.
            (RowsKind::Insert, _) if !first.missing.is_empty() => return Err(partial()),
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
                }
                change.image = Some(second.image);
            }
        }
        self.steps.push(Step::Change(change));
        Ok(())
    }
}

fn position(transaction: &str, place: u64, suffix: &str) -> String {
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
