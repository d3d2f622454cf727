//! The thread that reads tables: in chunks by key, each in a transaction and a snapshot of its own, by COPY.
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

use super::Options;
use super::address::Address;
use super::catalog::{Catalog, Published, number, one_row, text};
use super::keyless::on_standby;
use super::pgoutput::Cell;
use super::portion::bytes_of;
use super::queue::{Said, Shared};
use super::shape::Shape;
use super::slot;
use super::window::Snapshot;
use super::wire::{Connection, Purpose, Row, WireError, identifier, literal};
use crate::change::{Action, Change};
use crate::feed::{FeedError, Reason, Remedy};

/// Rows go to the follower in pieces of about this size.
pub(super) const PIECE_BYTES: usize = 512 << 10;

/// A first guess at how large a row is in memory, where the catalog has none.
const ROW_BYTES_GUESS: usize = 2 << 10;

/// What to read.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// Its number: when another is the current one, this one has been called off.
    pub(super) number: u64,
    pub(super) oid: u32,
    /// Rows with keys after this one, as the database writes it.
    pub(super) after: Option<Vec<String>>,
    /// The columns of the key that `after` is of.
    pub(super) key: Vec<String>,
    /// Wait first for the transactions of now.
    pub(super) late: bool,
}

/// Reads tables.
pub(super) struct Reader {
    pub(super) options: Arc<Options>,
    address: Address,
    pub(super) shared: Arc<Shared>,
    pub(super) catalog: Catalog,
    /// What ids of rows without a key begin with.
    pub(super) id_prefix: String,
    /// Writes the messages that say where chunks are.
    beside: Connection,
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
    /// Opens its two connections.
    pub(super) fn open(options: Arc<Options>, address: Address, shared: Arc<Shared>) -> Result<Reader, FeedError> {
        let catalog = Catalog::new(
            connect(&address, &shared)?,
            &options.publication,
            &address.database,
            Arc::new(options.rules.clone()),
        )
        .without(&options.orders);
        let beside = connect(&address, &shared)?;
        Ok(Reader { options, address, shared, catalog, id_prefix: String::new(), beside })
    }

    /// The thread's whole life: one task after the other.
    pub(super) fn run(mut self, tasks: &Receiver<Task>) {
        while let Ok(task) = tasks.recv() {
            if self.shared.is_stopping() {
                break;
            }
            let number = task.number;
            let outcome = self.read(task).or_else(|error| match error.remedy {
                // Something is wrong with this table, and the others can be read all the same.
                Remedy::Stop if !self.shared.is_stopping() => {
                    self.shared
                        .say(Said::TableStopped { task: number, reason: Reason::new(error.code, error.message) });
                    self.reconnect()
                }
                _ => Err(error),
            });
            if let Err(error) = outcome {
                if !self.shared.is_stopping() {
                    self.shared.say(Said::Failed(error));
                }
                break;
            }
        }
        self.catalog.connection.terminate(false);
        self.beside.terminate(false);
    }

    fn read(&mut self, mut task: Task) -> Result<(), FeedError> {
        let number = task.number;
        let doing = |error: WireError| error.into_feed("read a table");
        if task.late && !self.wait_for_transactions(number).map_err(doing)? {
            return Ok(());
        }
        let mut rows_max = self.first_chunk(task.oid).map_err(doing)?;
        while self.shared.wait_for_room(number, self.options.read_chunk_bytes) {
            match self.chunk(&mut task, &mut rows_max)? {
                Chunk::More => {}
                Chunk::Last => {
                    self.shared.say(Said::TableEnded { task: number });
                    break;
                }
                Chunk::Gone => {
                    self.shared.say(Said::TableGone { task: number });
                    break;
                }
                Chunk::CalledOff => break,
            }
        }
        Ok(())
    }

    /// Waits until every transaction that is open now has ended: one that wrote to the table before it was published
    /// is not in the log, and may not be seen by a snapshot before it ends. False if the task was called off.
    fn wait_for_transactions(&mut self, task: u64) -> Result<bool, WireError> {
        // A snapshot's upper end is beyond the last transaction that ended, and those that began later are not told from
        // none: one that ends now makes them all be before it.
        slot::mark_place(&mut self.beside)?;
        let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())";
        let end: u64 = number(&mut one_row(self.beside.query(sql)?)?)?;
        let mut pause = Duration::from_millis(10);
        loop {
            let sql = "SELECT pg_snapshot_xmin(pg_current_snapshot())";
            let oldest: u64 = number(&mut one_row(self.beside.query(sql)?)?)?;
            if oldest >= end {
                return Ok(self.shared.goes_on(task));
            }
            if !self.shared.pause(Some(task), pause) {
                return Ok(false);
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// How many rows the first chunk may have, by what the catalog says of their size.
    fn first_chunk(&mut self, oid: u32) -> Result<usize, WireError> {
        let sql = format!(
            "SELECT coalesce((SELECT (pg_table_size(oid) / reltuples)::bigint FROM pg_class WHERE oid = {oid} \
             AND reltuples > 0), 0)"
        );
        let bytes: usize = number(&mut one_row(self.beside.query(&sql)?)?)?;
        // In memory a row is its text and a change around it.
        let bytes = if bytes == 0 { ROW_BYTES_GUESS } else { bytes * 2 + 300 };
        Ok(self.rows_for(bytes))
    }

    fn rows_for(&self, bytes_each: usize) -> usize {
        (self.options.read_chunk_bytes / bytes_each.max(1)).clamp(1, self.options.read_chunk_rows.max(1))
    }

    fn chunk(&mut self, task: &mut Task, rows_max: &mut usize) -> Result<Chunk, FeedError> {
        let found = self.catalog.published(Some(task.oid)).map_err(|error| error.into_feed("look up a table"))?.pop();
        let Some(table) = found else { return Ok(Chunk::Gone) };
        let name = format!("{}.{}", identifier(&table.namespace), identifier(&table.relation));
        let doing = format!("read the table {}.{}", table.namespace, table.relation);
        // Children of a table that is not partitioned are tables of their own.
        let source = if table.partitioned { name.clone() } else { format!("ONLY {name}") };
        let applied = slot::applied(&mut self.beside).map_err(|error| error.into_feed(&doing))?;
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
                return Ok(if self.shared.pause(Some(task.number), Duration::from_millis(100)) {
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
                        user = identifier(&self.address.user)
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
                self.shared.say(Said::TableStopped { task: task.number, reason: Reason { code, message } });
                return Ok(Chunk::CalledOff);
            }
        };
        let shape = defined.shape.clone();
        let is_append_only = shape.table.is_append_only();
        if is_append_only && applied.is_some() {
            self.catalog.connection.query("ROLLBACK").map_err(|error| error.into_feed(&doing))?;
            self.shared.say(Said::TableStopped { task: task.number, reason: on_standby(&table) });
            return Ok(Chunk::CalledOff);
        }
        let place = slot::mark_place(&mut self.beside);
        let place = place.map_err(|error| error.into_feed("write a message into the log"))?;
        let found = Box::new(table.clone());
        self.shared.say(Said::ChunkBegan { task: task.number, snapshot, place, found, defined });
        if task.key != shape.table.key {
            // Who hears that a chunk has another key has the table read anew.
            self.catalog.connection.query("COMMIT").map_err(|error| error.into_feed(&doing))?;
            return Ok(Chunk::CalledOff);
        }
        if is_append_only {
            return self.whole(task.number, &table, &shape, &source, place);
        }
        let types = key_types(&mut self.catalog, &table, &shape).map_err(|error| error.into_feed(&doing))?;
        let sql = copy_sql(&source, &table, &shape, &types, task.after.as_deref(), *rows_max);
        let read = self.rows(task, &shape, &sql, *rows_max).map_err(|error| error.into_feed(&doing))?;
        let Some((rows, bytes, cut_short)) = read else {
            self.reconnect()?;
            return Ok(Chunk::CalledOff);
        };
        self.shared.say(Said::ChunkEnded { task: task.number });
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
        self.catalog.reconnect(connect(&self.address, &self.shared)?);
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
                self.shared.say(piece.said(task.number, &last));
                task.after = Some(last.clone());
                if !self.shared.goes_on(task.number) {
                    return Ok(None);
                }
                // Rows that are far larger than those before: the rest waits for the next chunk.
                if total_bytes >= 4 * self.options.read_chunk_bytes && count < rows_max {
                    break true;
                }
            }
        };
        if !piece.rows.is_empty() {
            total_bytes += piece.bytes;
            self.shared.say(piece.said(task.number, &last));
            task.after = Some(last);
        }
        Ok(Some((count, total_bytes, cut_short)))
    }
}

fn connect(address: &Address, shared: &Shared) -> Result<Connection, FeedError> {
    super::connect(address, Purpose::Sql, Some(shared))
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

/// The COPY of one chunk: rows after a key, in the order of the key.
fn copy_sql(
    source: &str,
    table: &Published,
    shape: &Shape,
    types: &[String],
    after: Option<&[String]>,
    rows_max: usize,
) -> String {
    let columns: Vec<String> = shape.column_names().map(identifier).collect();
    let key: Vec<String> = shape.table.key.iter().map(|part| identifier(part)).collect();
    let mut conditions = Vec::new();
    if let Some(after) = after {
        let values: Vec<String> =
            after.iter().zip(types).map(|(value, name)| format!("{}::{name}", literal(value))).collect();
        conditions.push(format!("({}) > ({})", key.join(", "), values.join(", ")));
    }
    if let Some(filter) = &table.filter {
        conditions.push(format!("({filter})"));
    }
    let conditions = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
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
