//! Comparing a table with what was handed out of it. See `crate::audit` for what is promised.
//!
//! Chunks are read as those of a table that is being read (`reading.rs`), by a task and a connection of their own that are
//! there only while an audit goes on. What the log changes between a chunk's request and its place is remembered here, and
//! left out of the chunk. Rows are told by their images: no function of the server sums up what an image says.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::checkpoint::{Name, Reading};
use super::connection::{failed, open};
use super::follow::Follower;
use super::form::Form;
use super::reading::{Chunk, Found, Order, Reader, Request};
use crate::audit::{AuditOrder, AuditPace, AuditPiece, AuditRows, Pacer, without_key};
use crate::change::Step;
use crate::feed::{FeedError, Reason};

/// How many keys may change while a chunk is on its way, before it is read again.
const CHANGED_MAX: usize = 100_000;

/// How often in a row a chunk may turn out to be of no use.
const ATTEMPTS_MAX: u32 = 600;

/// How long a connection is kept for another audit.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// How long to wait before the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// What the server says of a statement that ran longer than it may: MariaDB, MySQL.
const TOO_LONG: [u16; 2] = [1969, 3024];

/// The state of auditing.
pub(super) struct Audits {
    orders: mpsc::UnboundedReceiver<AuditOrder>,
    ordered: Option<AuditOrder>,
    answer: mpsc::UnboundedSender<(u64, Answer)>,
    answers: mpsc::UnboundedReceiver<(u64, Answer)>,
    heard: VecDeque<(u64, Answer)>,
    /// What reads, once it is known how.
    reader: Option<Reader>,
    /// Whoever reads now; the task ends when this does.
    tasks: Option<mpsc::UnboundedSender<Task>>,
    /// When it had nothing to read any more.
    idle_since: Instant,
    /// The number of the request that counts.
    number: u64,
    current: Option<Current>,
}

/// The audit that goes on.
struct Current {
    order: AuditOrder,
    name: Name,
    /// Literals of the key of the last row that was handed out.
    after: Option<Vec<String>>,
    /// What has changed since the chunk on its way was asked for, and where.
    changed: HashMap<Vec<String>, Order>,
    /// The table was emptied since.
    is_disturbed: bool,
    /// A chunk that waits until the log has been followed far enough.
    chunk: Option<Chunk>,
    attempts: u32,
}

/// A chunk to read.
struct Task {
    request: Request,
    pause: Duration,
}

/// What came of it.
enum Answer {
    Chunk(Box<Chunk>),
    Again,
    Off(Reason),
}

impl Audits {
    pub(super) fn new(orders: mpsc::UnboundedReceiver<AuditOrder>) -> Audits {
        let (answer, answers) = mpsc::unbounded_channel();
        let (heard, tasks, number, current) = (VecDeque::new(), None, 0, None);
        let (reader, idle_since) = (None, Instant::now());
        Audits { orders, ordered: None, answer, answers, heard, reader, tasks, idle_since, number, current }
    }

    /// The same, with what reads.
    pub(super) fn with(self, reader: Reader) -> Audits {
        Audits { reader: Some(reader), ..self }
    }

    /// Waits for an order, or for what came of a request. May be dropped while it waits.
    pub(super) async fn hear(&mut self) {
        tokio::select! {
            Some(order) = self.orders.recv() => self.ordered = Some(order),
            Some(answer) = self.answers.recv() => self.heard.push_back(answer),
            else => std::future::pending().await,
        }
    }

    fn hear_what_waits(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            self.ordered = Some(order);
        }
        while let Ok(answer) = self.answers.try_recv() {
            self.heard.push_back(answer);
        }
    }

    /// Remembers that a row has changed.
    #[inline]
    pub(super) fn note(&mut self, name: &Name, key: &[String], order: Order) {
        if let Some(current) = &mut self.current
            && current.name == *name
        {
            current.changed.insert(key.to_vec(), order);
        }
    }

    /// A table is emptied here: what is on its way of it may be from before.
    pub(super) fn disturb(&mut self, name: &Name) {
        if let Some(current) = &mut self.current
            && current.name == *name
        {
            current.is_disturbed = true;
        }
    }
}

impl Follower {
    /// Goes on comparing, as far as that does not have to wait. Only between transactions. Answers whether there is more
    /// to do at once.
    pub(super) async fn auditing(&mut self) -> Result<bool, FeedError> {
        self.audits.hear_what_waits();
        if let Some(order) = self.audits.ordered.take() {
            self.begin_audit(order);
            return Ok(true);
        }
        let Some(current) = &self.audits.current else {
            self.audits.heard.clear();
            if self.audits.idle_since.elapsed() > IDLE_MAX {
                self.audits.tasks = None;
            }
            return Ok(false);
        };
        if let Err(reason) = self.is_audited(&current.name) {
            self.end_audit(Some(reason));
            return Ok(true);
        }
        if current.is_disturbed || current.changed.len() > CHANGED_MAX {
            self.audit_again(Duration::ZERO);
            return Ok(true);
        }
        if let Some((number, answer)) = self.audits.heard.pop_front() {
            match answer {
                _ if number != self.audits.number => {}
                Answer::Chunk(chunk) => {
                    if let Some(current) = &mut self.audits.current {
                        current.chunk = Some(*chunk);
                    }
                }
                Answer::Again => self.audit_again(PAUSE),
                Answer::Off(reason) => self.end_audit(Some(reason)),
            }
            return Ok(true);
        }
        let place = self.place.order();
        let is_reached = |chunk: &mut Chunk| place >= chunk.high;
        let chunk = self.audits.current.as_mut().and_then(|current| current.chunk.take_if(is_reached));
        match chunk {
            Some(chunk) => self.hand_out_audited(chunk).await.map(|()| true),
            None => Ok(false),
        }
    }

    fn begin_audit(&mut self, order: AuditOrder) {
        let is_it = |name: &&Name| self.rules.captured_name(&name.0, &name.0, &name.1) == order.table;
        // Of no table, if there is none.
        let name = self.tables.keys().find(is_it).cloned().unwrap_or_default();
        let pace = order.pace;
        let (changed, is_disturbed, chunk, attempts) = (HashMap::new(), false, None, 0);
        self.audits.current = Some(Current { order, name, after: None, changed, is_disturbed, chunk, attempts });
        if !self.options.snapshot {
            let reason = "the source does not read the rows that were there before it, so they are not here";
            self.end_audit(Some(Reason::new("no-snapshot", reason)));
            return;
        }
        if let (None, Some(reader)) = (&self.audits.tasks, &self.audits.reader) {
            let (sender, tasks) = mpsc::unbounded_channel();
            let bytes_max = self.options.chunk_bytes;
            tokio::spawn(read(reader.clone(), pace, bytes_max, tasks, self.audits.answer.clone()));
            self.audits.tasks = Some(sender);
        }
        self.ask_to_audit(Duration::ZERO);
    }

    /// Has the next chunk read.
    fn ask_to_audit(&mut self, pause: Duration) {
        let (since, since_seen) = (self.place.order(), self.seen.clone());
        let Audits { current: Some(current), tasks: Some(tasks), number, .. } = &mut self.audits else { return };
        *number += 1;
        current.changed.clear();
        current.is_disturbed = false;
        current.chunk = None;
        let (name, after) = (current.name.clone(), current.after.clone());
        let request = Request { name, generation: *number, after, since, since_seen, limit: 0 };
        // A reader that is gone says nothing any more, and then so is this.
        let _ = tasks.send(Task { request, pause });
    }

    /// The last chunk was of no use.
    fn audit_again(&mut self, pause: Duration) {
        let Some(current) = &mut self.audits.current else { return };
        current.attempts += 1;
        if current.attempts < ATTEMPTS_MAX {
            self.ask_to_audit(pause);
            return;
        }
        let reason = "its rows could not be compared: it is changed, or locked, all the time";
        self.end_audit(Some(Reason::new("too-busy", reason)));
    }

    /// Hands out a chunk whose place in the log has been reached, but for rows that the log has changed since.
    async fn hand_out_audited(&mut self, chunk: Chunk) -> Result<(), FeedError> {
        let is_current = |form: &Form| self.tables.get(&chunk.name).is_some_and(|table| table.line.form == form.id);
        let form = match &chunk.found {
            Found::Rows(form) if is_current(form) => form.clone(),
            Found::Snapshot | Found::Nothing if self.rules.appends(&chunk.name.0, &chunk.name.1) => {
                self.end_audit(Some(without_key()));
                return Ok(());
            }
            // The catalog is ahead of what the log has told.
            Found::Rows(_) | Found::Nothing | Found::Snapshot => {
                self.audit_again(PAUSE);
                return Ok(());
            }
            Found::Trouble(reason) => {
                let reason = reason.clone();
                self.end_audit(Some(reason));
                return Ok(());
            }
        };
        let Some(current) = &mut self.audits.current else { return Ok(()) };
        let Chunk { since, low, rows, last, end, bytes, .. } = chunk;
        let is_untouched = |key: &Vec<String>| current.changed.get(key).is_none_or(|&at| at <= since || at <= low);
        let rows: Vec<_> =
            rows.into_iter().filter(|(_, key)| is_untouched(key)).map(|(image, key)| (key, image)).collect();
        current.after = last.or_else(|| current.after.take());
        current.attempts = 0;
        if !self.steps.is_empty() {
            self.flush().await?;
        }
        let piece = AuditPiece { table: form.table.clone(), rows: AuditRows::Images(rows), is_last: end };
        self.steps.push(Step::Audited(piece.into()));
        self.step_bytes += bytes;
        if end {
            self.end_audit(None);
        } else {
            self.ask_to_audit(Duration::ZERO);
        }
        Ok(())
    }

    /// The audit is over, or called off.
    fn end_audit(&mut self, called_off: Option<Reason>) {
        let Some(current) = self.audits.current.take() else { return };
        if let Some(reason) = called_off {
            self.steps.push(Step::AuditOff { table: current.order.table, reason });
        }
        self.audits.number += 1;
        self.audits.idle_since = Instant::now();
    }

    /// Whether a table's rows are known, so that they can be compared; or what is done with it instead.
    fn is_audited(&self, name: &Name) -> Result<(), Reason> {
        let Some(table) = self.tables.get(name) else {
            return Err(Reason::new("missing", "the database does not show it to the source"));
        };
        let because = table.line.reason.as_ref().map(|reason| format!(" ({}: {})", reason.code, reason.message));
        let because = because.unwrap_or_default();
        match table.line.reading {
            _ if self.known(name).is_append_only() => Err(without_key()),
            _ if table.held.is_some() => Err(Reason::new("stopped", "it is not followed")),
            Reading::Following => Ok(()),
            Reading::Stopped => Err(Reason::new("stopped", format!("it is not followed{because}"))),
            Reading::Waiting | Reading::After(_) => {
                Err(Reason::new("reading", format!("its rows are being read{because}")))
            }
        }
    }
}

/// Answers tasks one after the other, until nobody asks any more.
async fn read(
    reader: Reader,
    pace: AuditPace,
    bytes_max: usize,
    mut tasks: mpsc::UnboundedReceiver<Task>,
    answers: mpsc::UnboundedSender<(u64, Answer)>,
) {
    let mut conn = None;
    let mut pacer = Pacer::new(pace);
    let mut paced_for = Name::default();
    let mut next_at = Instant::now();
    while let Some(mut task) = tasks.recv().await {
        // Of those before it nothing is wanted any more.
        while let Ok(newer) = tasks.try_recv() {
            task = newer;
        }
        if paced_for != task.request.name {
            // Nothing is known of how large its rows are.
            pacer = Pacer::new(pace);
            paced_for.clone_from(&task.request.name);
        }
        let number = task.request.generation;
        sleep_until(next_at.max(Instant::now() + task.pause)).await;
        task.request.limit = pacer.rows();
        let began = Instant::now();
        let answer = match chunk(&reader, pace, &mut conn, task.request).await {
            Ok(chunk) => {
                next_at = began + pacer.read(chunk.rows.len(), chunk.bytes, bytes_max, began.elapsed());
                Answer::Chunk(Box::new(chunk))
            }
            Err(error) => {
                // What it was at when it failed is not known.
                conn = None;
                match is_too_long(&error) {
                    true if pacer.timed_out() => Answer::Again,
                    true => Answer::Off(pacer.too_slow()),
                    false => Answer::Off(Reason::new(error.code, error.message)),
                }
            }
        };
        if answers.send((number, answer)).is_err() {
            return;
        }
    }
}

async fn chunk(
    reader: &Reader,
    pace: AuditPace,
    slot: &mut Option<Conn>,
    request: Request,
) -> Result<Chunk, FeedError> {
    if slot.is_none() {
        let mut conn = open(&reader.address).await?;
        let limit = match reader.server.mariadb {
            true => format!("SET SESSION max_statement_time = {}", f64::from(pace.statement_ms_max) / 1_000.0),
            false => format!("SET SESSION max_execution_time = {}", pace.statement_ms_max),
        };
        conn.query_drop(limit).await.map_err(|error| failed("setting up the session", error))?;
        *slot = Some(conn);
    }
    reader.chunk(slot, &request).await
}

/// Whether the server ended a statement because it ran longer than it may.
fn is_too_long(error: &FeedError) -> bool {
    let source = error.source.as_ref().and_then(|source| source.downcast_ref::<mysql_async::Error>());
    matches!(source, Some(mysql_async::Error::Server(problem)) if TOO_LONG.contains(&problem.code))
}
