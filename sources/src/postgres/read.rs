//! A thread that reads tables: in chunks by key, each in a transaction and a snapshot of its own, by COPY.
//!
//! A chunk's transaction locks the table first (ACCESS SHARE, which only stands in the way of DDL) and takes its snapshot
//! then, because what rewrites a table is invisible to snapshots from before. Chunks are as large as memory allows, so
//! that a slow taker never keeps a transaction open: the next chunk begins when there is room for it.
//!
//! A chunk's place in the log comes from a message that another connection writes into it after the snapshot was
//! taken: whatever the snapshot sees is before it. It is the only thing that reading writes to the database. On a standby,
//! which takes none, the place is what it has applied by then.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::catalog::{Catalog, Published, number, one_row, text};
use super::checkpoint::KeyRange;
use super::keyless::on_standby;
use super::lsn::Lsn;
use super::pgoutput::Cell;
use super::portion::bytes_of;
use super::queue::Said;
use super::readers::Desk;
use super::shape::Shape;
use super::slot;
use super::split::bounds;
use super::window::Snapshot;
use super::wire::{Row, WireError, identifier, literal};
use crate::change::{Action, Change};
use crate::feed::{FeedError, Reason, Remedy};

/// Rows go to the follower in pieces of about this size.
pub(super) const PIECE_BYTES: usize = 512 << 10;

/// A first guess at how large a row is in memory, where the catalog has none.
const ROW_BYTES_GUESS: usize = 2 << 10;

/// What to read.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// Its number, by which it is called off.
    pub(super) number: u64,
    pub(super) oid: u32,
    /// Which of its rows.
    pub(super) range: KeyRange,
    /// The columns of the key that the range is of.
    pub(super) key: Vec<String>,
    /// Wait first for the transactions of now.
    pub(super) late: bool,
    /// Find out first whether it is worth reading in parts.
    pub(super) splits: bool,
}

/// Reads tables.
pub(super) struct Reader {
    pub(super) desk: Arc<Desk>,
    pub(super) catalog: Catalog,
}

/// What became of a chunk.
pub(super) enum Chunk {
    /// There is more after it.
    More,
    /// It was the last.
    Last,
    /// The table is not there any more.
    Gone,
    /// It was called off.
    CalledOff,
}

impl Reader {
    fn open(desk: Arc<Desk>) -> Result<Reader, FeedError> {
        // First what all readers need: where connections are few, one of them can do without the others.
        desk.beside(|_| Ok(()))?;
        let rules = Arc::new(desk.options.rules.clone());
        let catalog = Catalog::new(desk.connect()?, &desk.options.publication, &desk.address.database, rules);
        let catalog = catalog.without(&desk.options.orders);
        Ok(Reader { desk, catalog })
    }

    /// The thread's whole life: one task after the other, until nobody gives any.
    pub(super) fn run(desk: Arc<Desk>, lane: usize, tasks: &Receiver<Task>) {
        let shared = desk.shared.clone();
        let mut reader = match Reader::open(desk) {
            Ok(reader) => reader,
            Err(error) => return shared.say(Said::NoReader { lane, error }),
        };
        while let Ok(task) = tasks.recv() {
            if shared.is_stopping() {
                break;
            }
            let number = task.number;
            let outcome = reader.read(task).or_else(|error| match error.remedy {
                // Something is wrong with this table, and the others can be read all the same.
                Remedy::Stop if !shared.is_stopping() => {
                    shared.say(Said::TableStopped { task: number, reason: Reason::new(error.code, error.message) });
                    reader.reconnect()
                }
                _ => Err(error),
            });
            if let Err(error) = outcome {
                if !shared.is_stopping() {
                    shared.say(Said::Failed(error));
                }
                break;
            }
        }
        reader.catalog.connection.terminate(false);
    }

    fn read(&mut self, mut task: Task) -> Result<(), FeedError> {
        let number = task.number;
        if task.late && !self.wait_for_transactions(number)? {
            return Ok(());
        }
        let mut rows_max = self.first_chunk(task.oid)?;
        while self.desk.shared.wait_for_room(number, self.desk.options.read_chunk_bytes) {
            match self.chunk(&mut task, &mut rows_max)? {
                Chunk::More => {}
                Chunk::Last => {
                    self.desk.shared.say(Said::Ended { task: number });
                    break;
                }
                Chunk::Gone => {
                    self.desk.shared.say(Said::TableGone { task: number });
                    break;
                }
                Chunk::CalledOff => break,
            }
        }
        Ok(())
    }

    /// Waits until every transaction that is open now has ended: one that wrote to the table before it was published
    /// is not in the log, and may not be seen by a snapshot before it ends. False if the task was called off.
    fn wait_for_transactions(&mut self, task: u64) -> Result<bool, FeedError> {
        let ask = |sql: &str| {
            self.desk.beside(|connection| {
                let found = connection.query(sql).and_then(|rows| number::<u64>(&mut one_row(rows)?));
                found.map_err(|error| error.into_feed("look at transactions"))
            })
        };
        // A snapshot's upper end is beyond the last transaction that ended, and those that began later are not told from
        // none: one that ends now makes them all be before it.
        self.mark_place()?;
        let end = ask("SELECT pg_snapshot_xmax(pg_current_snapshot())")?;
        let mut pause = Duration::from_millis(10);
        loop {
            if ask("SELECT pg_snapshot_xmin(pg_current_snapshot())")? >= end {
                return Ok(self.desk.shared.goes_on(task));
            }
            if !self.desk.shared.pause(Some(task), pause) {
                return Ok(false);
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn mark_place(&self) -> Result<Lsn, FeedError> {
        let doing = |error: WireError| error.into_feed("write a message into the log");
        self.desk.beside(|connection| slot::mark_place(connection).map_err(doing))
    }

    /// How many rows the first chunk may have, by what the catalog says of their size.
    fn first_chunk(&mut self, oid: u32) -> Result<usize, FeedError> {
        let sql = format!(
            "SELECT coalesce((SELECT (pg_table_size(oid) / reltuples)::bigint FROM pg_class WHERE oid = {oid} \
             AND reltuples > 0), 0)"
        );
        let bytes: usize = self.desk.beside(|connection| {
            let found = connection.query(&sql).and_then(|rows| number(&mut one_row(rows)?));
            found.map_err(|error| error.into_feed("look up a table"))
        })?;
        // In memory a row is its text and a change around it.
        let bytes = if bytes == 0 { ROW_BYTES_GUESS } else { bytes * 2 + 300 };
        Ok(self.rows_for(bytes))
    }

    fn rows_for(&self, bytes_each: usize) -> usize {
        (self.desk.chunk_bytes() / bytes_each.max(1)).clamp(1, self.desk.options.read_chunk_rows.max(1))
    }

    fn chunk(&mut self, task: &mut Task, rows_max: &mut usize) -> Result<Chunk, FeedError> {
        let found = self.catalog.published(Some(task.oid)).map_err(|error| error.into_feed("look up a table"))?.pop();
        let Some(table) = found else { return Ok(Chunk::Gone) };
        let name = format!("{}.{}", identifier(&table.namespace), identifier(&table.relation));
        let doing = format!("read the table {}.{}", table.namespace, table.relation);
        // Children of a table that is not partitioned are tables of their own.
        let source = if table.partitioned { name.clone() } else { format!("ONLY {name}") };
        let applied =
            self.desk.beside(|connection| slot::applied(connection).map_err(|error| error.into_feed(&doing)))?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE {source} IN ACCESS SHARE MODE; \
             SELECT pg_current_snapshot()"
        );
        let snapshot = match self.catalog.connection.query(&begin) {
            Ok(rows) => text(&mut one_row(rows).map_err(|error| error.into_feed(&doing))?)
                .ok()
                .and_then(|text| Snapshot::parse(&text)),
            // Dropped or renamed since we looked.
            Err(error) if matches!(error.code(), Some("42P01" | "3F000")) => {
                self.catalog.connection.query("ROLLBACK").map_err(|error| error.into_feed(&doing))?;
                return Ok(if self.desk.shared.pause(Some(task.number), Duration::from_millis(100)) {
                    Chunk::More
                } else {
                    Chunk::CalledOff
                });
            }
            Err(error) => {
                let mut error = error.into_feed(&doing);
                if error.code == "privileges" {
                    error.message.push_str(&format!(
                        "; GRANT USAGE ON SCHEMA {} TO {user}; GRANT SELECT ON {name} TO {user}",
                        identifier(&table.namespace),
                        user = identifier(&self.desk.address.user)
                    ));
                }
                return Err(error);
            }
        };
        let snapshot = snapshot.ok_or_else(|| WireError::Protocol("a snapshot of another form").into_feed(&doing))?;
        let snapshot = match applied {
            Some(applied) => snapshot.on_standby(applied),
            None => snapshot,
        };
        // As it is under the lock.
        let found = self.catalog.find(task.oid).map_err(|error| error.into_feed(&doing))?;
        let Some(found) = found.filter(|found| {
            (&found.published.namespace, &found.published.relation) == (&table.namespace, &table.relation)
        }) else {
            // Gone, or another table has the name that was locked.
            self.catalog.connection.query("ROLLBACK").map_err(|error| error.into_feed(&doing))?;
            return Ok(Chunk::Gone);
        };
        let table = found.published;
        let defined = match found.form {
            Ok(defined) => defined,
            Err(Reason { code, message }) => {
                self.catalog.connection.query("ROLLBACK").map_err(|error| error.into_feed(&doing))?;
                self.desk.shared.say(Said::TableStopped { task: task.number, reason: Reason { code, message } });
                return Ok(Chunk::CalledOff);
            }
        };
        let shape = defined.shape.clone();
        let is_append_only = shape.table.is_append_only();
        if is_append_only && applied.is_some() {
            self.catalog.connection.query("ROLLBACK").map_err(|error| error.into_feed(&doing))?;
            self.desk.shared.say(Said::TableStopped { task: task.number, reason: on_standby(&table) });
            return Ok(Chunk::CalledOff);
        }
        let place = self.mark_place()?;
        let found = Box::new(table.clone());
        self.desk.shared.say(Said::ChunkBegan { task: task.number, snapshot, place, found, defined });
        if task.key != shape.table.key {
            // Who hears that a chunk has another key has the table read anew.
            self.catalog.connection.query("COMMIT").map_err(|error| error.into_feed(&doing))?;
            return Ok(Chunk::CalledOff);
        }
        if is_append_only {
            return self.whole(task.number, &table, &shape, &source, place);
        }
        let types = key_types(&mut self.catalog, &table, &shape).map_err(|error| error.into_feed(&doing))?;
        let key = &shape.table.key;
        if std::mem::take(&mut task.splits) {
            let conditions = conditions(&table, key, &types, &task.range);
            let bounds = bounds(&mut self.catalog, &self.desk.options, &table, &source, key, &conditions);
            let bounds = bounds.map_err(|error| error.into_feed(&doing))?;
            if let Some(first) = bounds.first() {
                task.range.until = Some(first.clone());
            }
            self.desk.shared.say(Said::Split { task: task.number, bounds });
        }
        let conditions = conditions(&table, key, &types, &task.range);
        let sql = copy_sql(&source, &shape, &conditions, *rows_max);
        let read = self.rows(task, &shape, &sql, *rows_max).map_err(|error| error.into_feed(&doing))?;
        let Some((rows, bytes, cut_short)) = read else {
            self.reconnect()?;
            return Ok(Chunk::CalledOff);
        };
        self.desk.shared.say(Said::ChunkEnded { task: task.number });
        if cut_short {
            // There is no way to end a COPY early but to wait for it, or to go.
            self.reconnect()?;
        } else {
            self.catalog.connection.query("COMMIT").map_err(|error| error.into_feed(&doing))?;
        }
        let last = !cut_short && rows < *rows_max;
        if let Some(bytes_each) = bytes.checked_div(rows) {
            *rows_max = self.rows_for(bytes_each);
        }
        Ok(if last { Chunk::Last } else { Chunk::More })
    }

    pub(super) fn reconnect(&mut self) -> Result<(), FeedError> {
        self.catalog.connection.terminate(false);
        self.catalog.reconnect(self.desk.connect()?);
        Ok(())
    }

    /// Reads a chunk's rows: how many, how many bytes, and whether it was ended because there was no more memory for
    /// it. None if it was called off.
    fn rows(
        &mut self,
        task: &mut Task,
        shape: &Shape,
        sql: &str,
        rows_max: usize,
    ) -> Result<Option<(usize, usize, bool)>, WireError> {
        let connection = &mut self.catalog.connection;
        connection.copy_out(sql)?;
        let (mut count, mut total_bytes) = (0, 0);
        let mut piece = Piece::default();
        let mut line = Line::default();
        let mut last: Vec<String> = vec![String::new(); shape.table.key.len()];
        let cut_short = loop {
            let Some(bytes) = connection.copied()? else { break false };
            let cells = match line.cells(bytes, shape.width()) {
                Ok(cells) => cells,
                Err(error) => return Err(not_utf8(bytes, shape).unwrap_or(error)),
            };
            let key = shape.key(&cells, None).ok_or(WireError::Protocol("a row without its key"))?;
            let mut change = Change::unlogged(shape.table.clone(), Action::Read, key, None);
            change.image = Some(shape.image(&cells, None, &mut change.unchanged));
            for (kept, part) in last.iter_mut().zip(shape.raw_key(&cells)) {
                kept.clear();
                kept.push_str(part);
            }
            piece.push(change);
            count += 1;
            if piece.bytes >= PIECE_BYTES {
                total_bytes += piece.bytes;
                self.desk.shared.say(piece.said(task.number, &last));
                task.range.after = Some(last.clone());
                if !self.desk.shared.goes_on(task.number) {
                    return Ok(None);
                }
                // Rows that are far larger than those before: the rest waits for the next chunk.
                if total_bytes >= 4 * self.desk.options.read_chunk_bytes && count < rows_max {
                    break true;
                }
            }
        };
        if !piece.rows.is_empty() {
            total_bytes += piece.bytes;
            self.desk.shared.say(piece.said(task.number, &last));
            task.range.after = Some(last);
        }
        Ok(Some((count, total_bytes, cut_short)))
    }
}

#[derive(Default)]
pub(super) struct Piece {
    pub(super) rows: Vec<Change>,
    pub(super) bytes: usize,
}

impl Piece {
    pub(super) fn push(&mut self, change: Change) {
        self.bytes += bytes_of(&change);
        self.rows.push(change);
    }

    pub(super) fn said(&mut self, task: u64, last: &[String]) -> Said {
        let rows = std::mem::take(&mut self.rows);
        Said::Rows { task, rows, last: last.to_vec(), bytes: std::mem::take(&mut self.bytes) }
    }
}

/// The types of the key's columns, to compare with.
pub(super) fn key_types(catalog: &mut Catalog, table: &Published, shape: &Shape) -> Result<Vec<String>, WireError> {
    let rows: Vec<Row> = catalog.connection.query(&format!(
        "SELECT attname, format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = {} AND attnum > 0 \
         AND NOT attisdropped",
        table.oid
    ))?;
    let find = |name: &String| {
        rows.iter().find(|row| row.first().is_some_and(|cell| cell.as_ref() == Some(name)))?.get(1)?.clone()
    };
    let types = shape.table.key.iter().map(find).collect::<Option<_>>();
    types.ok_or(WireError::Protocol("a key whose columns the catalog does not know"))
}

/// What rows of a range satisfy: the publication's filter too.
fn conditions(table: &Published, key: &[String], types: &[String], range: &KeyRange) -> String {
    let columns: Vec<String> = key.iter().map(|part| identifier(part)).collect();
    let compared = |order: &str, to: &Vec<String>| {
        let values: Vec<String> =
            to.iter().zip(types).map(|(value, name)| format!("{}::{name}", literal(value))).collect();
        format!("({}) {order} ({})", columns.join(", "), values.join(", "))
    };
    let after = range.after.as_ref().map(|after| compared(">", after));
    let until = range.until.as_ref().map(|until| compared("<=", until));
    let filter = table.filter.as_ref().map(|filter| format!("({filter})"));
    let conditions: Vec<String> = [after, until, filter].into_iter().flatten().collect();
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

/// The COPY of one chunk, in the order of the key.
fn copy_sql(source: &str, shape: &Shape, conditions: &str, rows_max: usize) -> String {
    let columns: Vec<String> = shape.column_names().map(identifier).collect();
    let key: Vec<String> = shape.table.key.iter().map(|part| identifier(part)).collect();
    format!(
        "COPY (SELECT {} FROM {source}{conditions} ORDER BY {} LIMIT {rows_max}) TO STDOUT",
        columns.join(", "),
        key.join(", ")
    )
}

/// What is said of a line with a text that is no UTF-8, if it has one.
pub(super) fn not_utf8(line: &[u8], shape: &Shape) -> Option<WireError> {
    let fields = line.strip_suffix(b"\n").unwrap_or(line).split(|&byte| byte == b'\t');
    let cells: Vec<Cell<'_>> =
        fields.map(|field| std::str::from_utf8(field).map_or(Cell::NotUtf8(field), Cell::Text)).collect();
    shape.not_utf8(&cells).map(|reason| WireError::NotUtf8(reason.message))
}

/// One line of COPY's text format: fields between tabs, `\N` for null, and escapes.
#[derive(Default)]
pub(super) struct Line {
    unescaped: String,
    fields: Vec<Option<(usize, usize)>>,
}

impl Line {
    pub(super) fn cells<'l>(&'l mut self, bytes: &'l [u8], width: usize) -> Result<Vec<Cell<'l>>, WireError> {
        const NO_TEXT: WireError = WireError::Protocol("a line that is no UTF-8");
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let line = std::str::from_utf8(bytes).map_err(|_| NO_TEXT)?;
        let cells: Vec<Cell<'l>> = if !line.contains('\\') {
            // A table without columns has empty lines and not one empty field.
            if width == 0 { Vec::new() } else { line.split('\t').map(Cell::Text).collect() }
        } else {
            self.unescape(line);
            let Line { unescaped, fields } = self;
            let cell = |field: &Option<(usize, usize)>| match *field {
                Some((from, to)) => Cell::Text(&unescaped[from..to]),
                None => Cell::Null,
            };
            fields.iter().map(cell).collect()
        };
        if cells.len() == width { Ok(cells) } else { Err(WireError::Protocol("a line with another number of fields")) }
    }

    fn unescape(&mut self, line: &str) {
        self.unescaped.clear();
        self.fields.clear();
        for field in line.split('\t') {
            if field == "\\N" {
                self.fields.push(None);
                continue;
            }
            let from = self.unescaped.len();
            let mut rest = field;
            while let Some(at) = rest.find('\\') {
                self.unescaped.push_str(&rest[..at]);
                let mut after = rest[at + 1..].chars();
                match after.next() {
                    Some('b') => self.unescaped.push('\u{8}'),
                    Some('f') => self.unescaped.push('\u{c}'),
                    Some('n') => self.unescaped.push('\n'),
                    Some('r') => self.unescaped.push('\r'),
                    Some('t') => self.unescaped.push('\t'),
                    Some('v') => self.unescaped.push('\u{b}'),
                    Some(other) => self.unescaped.push(other),
                    None => {}
                }
                rest = after.as_str();
            }
            self.unescaped.push_str(rest);
            self.fields.push(Some((from, self.unescaped.len())));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_line_of_copy_is_split_and_unescaped() {
        let mut line = Line::default();
        assert_eq!(line.cells(b"1\tab\t\n", 3).unwrap(), [Cell::Text("1"), Cell::Text("ab"), Cell::Text("")]);
        assert_eq!(
            line.cells("\\N\ta\\tb\\\\N\\n\té\\b\n".as_bytes(), 3).unwrap(),
            [Cell::Null, Cell::Text("a\tb\\N\n"), Cell::Text("é\u{8}")]
        );
        assert!(line.cells(b"1\n", 2).is_err());
        assert!(line.cells(b"\xff\n", 1).is_err());
    }
}
