//! The thread that reads rows to be compared: one chunk for each task, in a transaction and a snapshot of its own, by
//! COPY; as sums that the database computes, or as rows. It has two connections while an audit goes on and for a
//! short while after, and none between audits.
//!
//! What takes longer than a statement may is cancelled by the server, and tried again with fewer rows.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::super::Options;
use super::super::address::Address;
use super::super::catalog::{Catalog, Defined, Published, one_row, text};
use super::super::lsn::Lsn;
use super::super::pgoutput::Cell;
use super::super::queue::Shared;
use super::super::read::{Line, key_types};
use super::super::shape::Shape;
use super::super::slot;
use super::super::window::Snapshot;
use super::super::wire::{Connection, Purpose, WireError, identifier, literal};
use super::text::RowText;
use crate::audit::{AuditPace, AuditRows, AuditScope, Pacer};
use crate::feed::{FeedError, Reason};

/// How long to wait before a table is looked at again that was changed meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// What to read next.
#[derive(Debug)]
pub(super) struct Task {
    /// The number of the audit.
    pub(super) number: u64,
    pub(super) oid: u32,
    /// Rows with keys after this one, as the database writes it.
    pub(super) after: Option<Vec<String>>,
    /// The columns of the key that `after` is of, if there is one.
    pub(super) key: Vec<String>,
    pub(super) scope: AuditScope,
    pub(super) pace: AuditPace,
    /// How long to wait first.
    pub(super) pause: Duration,
}

/// What came of a task.
#[derive(Debug)]
pub(super) enum Answer {
    Chunk(Box<Chunk>),
    /// The table was changed between two looks, or it is not there: the log will tell.
    Again,
    /// It cannot be read.
    Off(Reason),
}

/// Rows that `snapshot` sees, true at `place` and after.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) snapshot: Snapshot,
    pub(super) place: Lsn,
    pub(super) found: Published,
    pub(super) defined: Defined,
    pub(super) rows: AuditRows,
    /// The key of the last row as the database wrote it; none if there was no row.
    pub(super) last: Option<Vec<String>>,
    pub(super) is_last: bool,
}

/// Reads rows to be compared.
pub(super) struct Reader {
    pub(super) options: Arc<Options>,
    pub(super) address: Address,
    pub(super) shared: Arc<Shared>,
}

/// What a reader has while it reads.
struct Session<'r> {
    reader: &'r Reader,
    catalog: Catalog,
    /// Writes the messages that say where chunks are.
    beside: Connection,
    pacer: Pacer,
    /// The table whose rows it goes by, and whether those are sums.
    paced_for: (u32, bool),
    /// The table as it was found with the last chunk, and the types of its key's columns: so that it is looked up only
    /// once for each chunk, under its lock.
    known: Option<(Published, Arc<Shape>, Vec<String>)>,
    /// When the next chunk may begin.
    next_at: Instant,
}

impl Reader {
    /// The thread's whole life: one task after the other, until nobody gives any.
    pub(super) fn run(self, tasks: &Receiver<Task>) {
        let mut session: Option<Session<'_>> = None;
        while let Ok(mut task) = tasks.recv() {
            // Of those before it nothing is wanted any more.
            while let Ok(newer) = tasks.try_recv() {
                task = newer;
            }
            let number = task.number;
            let answer = self.answer(&mut session, task).unwrap_or_else(|error| {
                // What is wrong with its connections is no matter of the log's.
                session = None;
                Some(Answer::Off(Reason::new(error.code, error.message)))
            });
            match answer {
                Some(answer) if !self.shared.is_stopping() => self.shared.audit.answer(number, answer),
                Some(_) | None => {}
            }
            self.shared.ring();
        }
        if let Some(mut session) = session {
            session.catalog.connection.terminate(false);
            session.beside.terminate(false);
        }
    }

    /// None if nobody wants to know any more.
    fn answer<'r>(&'r self, slot: &mut Option<Session<'r>>, task: Task) -> Result<Option<Answer>, FeedError> {
        if slot.is_none() {
            *slot = Some(Session::open(self, task.pace)?);
        }
        let Some(session) = slot else { return Ok(None) };
        let pause = task.pause.max(session.next_at.saturating_duration_since(Instant::now()));
        if !self.shared.pause(None, pause) {
            return Ok(None);
        }
        session.chunk(task).map(Some)
    }
}

impl<'r> Session<'r> {
    fn open(reader: &'r Reader, pace: AuditPace) -> Result<Session<'r>, FeedError> {
        let Reader { options, address, shared } = reader;
        let connect = || super::super::connect(address, Purpose::Sql, Some(shared));
        let rules = Arc::new(options.rules.clone());
        let catalog = Catalog::new(connect()?, &options.publication, &address.database, rules);
        let catalog = catalog.without(&options.orders);
        let (pacer, paced_for, known, next_at) = (Pacer::new(pace), (0, false), None, Instant::now());
        Ok(Session { reader, catalog, beside: connect()?, pacer, paced_for, known, next_at })
    }

    fn chunk(&mut self, task: Task) -> Result<Answer, FeedError> {
        let doing = |error: WireError| error.into_feed("read rows to compare");
        let paced_for = (task.oid, task.scope == AuditScope::Sums);
        if self.paced_for != paced_for {
            // Nothing is known of how large its rows are.
            (self.pacer, self.paced_for) = (Pacer::new(task.pace), paced_for);
        }
        let table = match &self.known {
            Some((table, ..)) if table.oid == task.oid => Some(table.clone()),
            _ => self.catalog.published(Some(task.oid)).map_err(doing)?.pop(),
        };
        let Some(table) = table else {
            self.next_at = Instant::now() + PAUSE;
            return Ok(Answer::Again);
        };
        let applied = slot::applied(&mut self.beside).map_err(doing)?;
        let began = Instant::now();
        match self.read(&task, &table) {
            Ok(Some((mut chunk, Size { rows, bytes }))) => {
                if let Some(applied) = applied {
                    chunk.snapshot = chunk.snapshot.on_standby(applied);
                }
                let most = self.reader.options.read_chunk_bytes;
                self.next_at = began + self.pacer.read(rows, bytes, most, began.elapsed());
                Ok(Answer::Chunk(Box::new(chunk)))
            }
            Ok(None) => {
                self.catalog.connection.query("ROLLBACK").map_err(doing)?;
                self.known = None;
                self.next_at = Instant::now() + PAUSE;
                Ok(Answer::Again)
            }
            Err(error) => self.failed(error),
        }
    }

    /// A chunk, and how much was read for it; none if the table was changed meanwhile.
    fn read(&mut self, task: &Task, table: &Published) -> Result<Option<(Chunk, Size)>, WireError> {
        let source = source_of(table);
        let connection = &mut self.catalog.connection;
        connection.query(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {}",
            task.pace.statement_ms_max
        ))?;
        let sql = format!("LOCK TABLE {source} IN ACCESS SHARE MODE; SELECT pg_current_snapshot()");
        let snapshot = text(&mut one_row(connection.query(&sql)?)?)?;
        let snapshot = Snapshot::parse(&snapshot).ok_or(WireError::Protocol("a snapshot of another form"))?;
        // As it is under the lock.
        let Some(found) = self.catalog.find(task.oid)? else { return Ok(None) };
        let is_same = (&found.published.namespace, &found.published.relation) == (&table.namespace, &table.relation);
        let (found, Ok(defined)) = (found.published, found.form) else { return Ok(None) };
        if !is_same || task.after.is_some() && task.key != defined.shape.table.key {
            return Ok(None);
        }
        let place = slot::mark_place(&mut self.beside)?;
        let shape = defined.shape.clone();
        let types = match self.known.take() {
            Some((_, known, types)) if Arc::ptr_eq(&known, &shape) => types,
            _ => key_types(&mut self.catalog, &found, &shape)?,
        };
        let query = Query::new(task, &found, &shape, &types, self);
        self.known = Some((found.clone(), shape.clone(), types));
        let read = rows(&mut self.catalog.connection, &shape, &query, 4 * self.reader.options.read_chunk_bytes)?;
        let Read { rows, last, size, is_cut_short } = read;
        if is_cut_short {
            // There is no way to end a COPY early but to wait for it, or to go.
            let Reader { address, shared, .. } = self.reader;
            self.catalog.connection.terminate(false);
            let connection = Connection::open(address, Purpose::Sql)?;
            shared.cut_at_stop(connection.closer()?);
            self.catalog.reconnect(connection);
        } else {
            self.catalog.connection.query("COMMIT")?;
        }
        let is_last = !is_cut_short && query.limit.is_none_or(|limit| size.rows < limit);
        Ok(Some((Chunk { snapshot, place, found, defined, rows, last, is_last }, size)))
    }

    fn failed(&mut self, error: WireError) -> Result<Answer, FeedError> {
        let Some(code) = error.code().map(str::to_owned) else { return Err(error.into_feed("read rows to compare")) };
        self.catalog.connection.query("ROLLBACK").map_err(|error| error.into_feed("read rows to compare"))?;
        self.known = None;
        self.next_at = Instant::now() + PAUSE;
        match code.as_str() {
            // Dropped or renamed since we looked.
            "42P01" | "3F000" | "42703" => Ok(Answer::Again),
            // It took too long: with so many rows, or behind somebody's lock.
            "57014" => {
                let goes_on = self.pacer.timed_out();
                Ok(if goes_on { Answer::Again } else { Answer::Off(self.pacer.too_slow()) })
            }
            _ => {
                let error = error.into_feed("read rows to compare");
                Ok(Answer::Off(Reason::new(error.code, error.message)))
            }
        }
    }
}

/// The COPY of one chunk.
struct Query {
    sql: String,
    limit: Option<usize>,
    /// What the sums are over; none if rows are read.
    sums: Option<RowText>,
}

impl Query {
    fn new(task: &Task, table: &Published, shape: &Shape, types: &[String], session: &Session<'_>) -> Query {
        let by_sums = task.scope == AuditScope::Sums && session.catalog.connection.writes_utf8();
        let sums = by_sums.then(|| shape.row_text()).flatten();
        let key: Vec<String> = shape.table.key.iter().map(|part| identifier(part)).collect();
        let typed = |values: &[String]| {
            let values = values.iter().zip(types).map(|(value, name)| format!("{}::{name}", literal(value)));
            format!("({})", values.collect::<Vec<_>>().join(", "))
        };
        let (mut conditions, mut limit) = (Vec::new(), Some(session.pacer.rows()));
        if let Some(after) = &task.after {
            conditions.push(format!("({}) > {}", key.join(", "), typed(after)));
        }
        if let AuditScope::Keys(keys) = &task.scope {
            limit = None;
            let keys: Vec<String> = keys.iter().filter_map(|key| shape.raw(key)).map(|key| typed(&key)).collect();
            let none = || "false".to_owned();
            let among = |keys: String| format!("({}) IN ({keys})", key.join(", "));
            conditions.push(if keys.is_empty() { none() } else { among(keys.join(", ")) });
        }
        if let Some(filter) = &table.filter {
            conditions.push(format!("({filter})"));
        }
        let columns = match &sums {
            Some(_) => {
                let columns: Vec<String> = shape.captured_names().map(identifier).collect();
                // Every byte counts, whatever the database's collation makes of it.
                let sum = format!("hashtextextended(ROW({})::text COLLATE \"C\", 0)", columns.join(", "));
                key.iter().cloned().chain([sum]).collect::<Vec<_>>()
            }
            None => shape.column_names().map(identifier).collect(),
        };
        let mut sql = format!("COPY (SELECT {} FROM {}", columns.join(", "), source_of(table));
        if !conditions.is_empty() {
            sql.push_str(&format!(" WHERE {}", conditions.join(" AND ")));
        }
        if let Some(limit) = limit {
            sql.push_str(&format!(" ORDER BY {} LIMIT {limit}", key.join(", ")));
        }
        sql.push_str(") TO STDOUT");
        Query { sql, limit, sums }
    }
}

/// Where its rows are. Children of a table that is not partitioned are tables of their own.
fn source_of(table: &Published) -> String {
    let name = format!("{}.{}", identifier(&table.namespace), identifier(&table.relation));
    if table.partitioned { name } else { format!("ONLY {name}") }
}

/// How much was read.
#[derive(Clone, Copy)]
struct Size {
    rows: usize,
    bytes: usize,
}

/// What was read of a chunk.
struct Read {
    rows: AuditRows,
    last: Option<Vec<String>>,
    size: Size,
    is_cut_short: bool,
}

fn rows(connection: &mut Connection, shape: &Shape, query: &Query, bytes_max: usize) -> Result<Read, WireError> {
    const NO_KEY: WireError = WireError::Protocol("a row without its key");
    connection.copy_out(&query.sql)?;
    let (mut sums, mut images, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut line = Line::default();
    let mut last: Option<Vec<String>> = None;
    let mut is_cut_short = false;
    while let Some(copied) = connection.copied()? {
        let kept = last.get_or_insert_with(|| vec![String::new(); shape.table.key.len()]);
        let keep = |kept: &mut Vec<String>, parts: &mut dyn Iterator<Item = &str>| {
            for (kept, part) in kept.iter_mut().zip(parts) {
                kept.clear();
                kept.push_str(part);
            }
        };
        if query.sums.is_some() {
            let cells = line.cells(copied, shape.table.key.len() + 1)?;
            let (Some((Cell::Text(sum), key)), true) = (cells.split_last(), cells.len() > 1) else {
                return Err(NO_KEY);
            };
            let sum: i64 = sum.parse().map_err(|_| WireError::Protocol("a sum that is no number"))?;
            keep(kept, &mut key.iter().filter_map(|cell| if let Cell::Text(text) = cell { Some(*text) } else { None }));
            sums.push((shape.key_of_raw(kept), sum.cast_unsigned()));
        } else {
            let cells = line.cells(copied, shape.width())?;
            let key = shape.key(&cells, None).ok_or(NO_KEY)?;
            keep(kept, &mut shape.raw_key(&cells));
            let image = shape.image(&cells, None, &mut Vec::new());
            bytes += image.len();
            images.push((key, image));
            if bytes >= bytes_max && query.limit.is_some() {
                is_cut_short = true;
                break;
            }
        }
    }
    let size = Size { rows: sums.len() + images.len(), bytes };
    let rows = match &query.sums {
        Some(text) => AuditRows::Sums { text: Arc::new(text.clone()), rows: sums },
        None => AuditRows::Images(images),
    };
    Ok(Read { rows, last, size, is_cut_short })
}
