//! Comparing a table with what was handed out of it: the follower's side. See `crate::audit` for what is promised.
//!
//! A chunk is asked for with a window that begins before it (`window.rs`). When the log has reached the chunk's place,
//! the rows that the window says nothing of are handed out, and the next chunk is asked for. The table goes on following:
//! nothing is noted in the checkpoint, and the window here is beside the one of a table that is being read.

mod hash;
mod read;
mod text;

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use text::{RowText, TextForm};

use super::Options;
use super::address::Address;
use super::checkpoint::{ReadState, TableMark};
use super::decode::Decoder;
use super::lsn::Lsn;
use super::queue::{Shared, lock};
use super::window::Window;
use crate::audit::{AuditOrder, AuditPiece, AuditRows, AuditScope, without_key};
use crate::change::Step;
use crate::feed::{FeedError, Reason};
use read::{Answer, Chunk, Reader, Task};

/// So many changed rows are remembered while a chunk is on its way.
const WINDOW_ROWS_MAX: usize = 100_000;

/// How often in a row a chunk may turn out to be of no use.
const ATTEMPTS_MAX: u32 = 600;

/// How long connections are kept for another audit.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// How long to wait before the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// What is ordered, and what the reader answers.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    order: Mutex<Option<AuditOrder>>,
    answers: Mutex<VecDeque<(u64, Answer)>>,
}

impl Inbox {
    /// Leaves an order for the follower.
    pub(super) fn order(&self, order: AuditOrder) {
        *lock(&self.order) = Some(order);
    }

    fn answer(&self, number: u64, answer: Answer) {
        lock(&self.answers).push_back((number, answer));
    }
}

/// The audit that goes on.
struct Current {
    order: AuditOrder,
    oid: u32,
    /// The key of the last row that was handed out, as the database writes it.
    after: Option<Vec<String>>,
    /// The columns that it is of.
    key: Vec<String>,
    attempts: u32,
}

/// The state of auditing.
pub(super) struct Audits {
    shared: Arc<Shared>,
    options: Arc<Options>,
    address: Address,
    /// The number of the audit that goes on, or was the last one.
    number: u64,
    current: Option<Current>,
    /// Whoever reads; its thread ends when this does.
    reader: Option<Sender<Task>>,
    /// When it had nothing to read any more.
    idle_since: Instant,
    /// The chunk that waits for the log to reach this place.
    awaited: Option<Lsn>,
}

impl Audits {
    pub(super) fn new(shared: Arc<Shared>, options: Arc<Options>, address: Address) -> Audits {
        let (number, current, reader, idle_since, awaited) = (0, None, None, Instant::now(), None);
        Audits { shared, options, address, number, current, reader, idle_since, awaited }
    }

    /// Whether rows wait for the log to reach their place.
    pub(super) fn wants_to_know_place(&self) -> bool {
        self.awaited.is_some()
    }

    /// Does one thing, between two transactions. False if there is nothing to do now.
    pub(super) fn take_one(&mut self, decoder: &mut Decoder) -> Result<bool, FeedError> {
        let order = lock(&self.shared.audit.order).take();
        if let Some(order) = order {
            self.begin(decoder, order)?;
            return Ok(true);
        }
        let Some(current) = &self.current else {
            self.reader.take_if(|_| self.idle_since.elapsed() > IDLE_MAX);
            return Ok(false);
        };
        if let Err(reason) = is_audited(decoder, current.oid) {
            self.end(decoder, Some(reason));
            return Ok(true);
        }
        if decoder.audit.as_ref().is_some_and(|(_, window)| window.is_full()) {
            self.again(decoder, Duration::ZERO);
            return Ok(true);
        }
        let position = decoder.position();
        let mut answers = lock(&self.shared.audit.answers);
        let is_ready = match answers.front() {
            None => return Ok(false),
            Some((number, Answer::Chunk(chunk))) if *number == self.number => chunk.place <= position,
            Some(_) => true,
        };
        if !is_ready {
            self.awaited = answers.front().and_then(|(_, answer)| match answer {
                Answer::Chunk(chunk) => Some(chunk.place),
                Answer::Again | Answer::Off(_) => None,
            });
            return Ok(false);
        }
        self.awaited = None;
        let Some((number, answer)) = answers.pop_front() else { return Ok(false) };
        drop(answers);
        match answer {
            _ if number != self.number => {}
            Answer::Chunk(chunk) => self.chunk(decoder, *chunk),
            Answer::Again => self.again(decoder, PAUSE),
            Answer::Off(reason) => self.end(decoder, Some(reason)),
        }
        Ok(true)
    }

    fn begin(&mut self, decoder: &mut Decoder, order: AuditOrder) -> Result<(), FeedError> {
        self.number += 1;
        self.awaited = None;
        let is_it =
            |mark: &&TableMark| !mark.unnamed && decoder.captured_name(&mark.namespace, &mark.relation) == order.table;
        let oid = decoder.tables.values().find(is_it).map(|mark| mark.oid);
        // Of no table, if there is none.
        self.current = Some(Current { order, oid: oid.unwrap_or_default(), after: None, key: Vec::new(), attempts: 0 });
        if !self.options.snapshot {
            let reason = "the source does not read the rows that were there before it, so they are not here";
            self.end(decoder, Some(Reason::new("no-snapshot", reason)));
            return Ok(());
        }
        if self.reader.is_none() {
            let (sender, tasks) = channel();
            let (options, address) = (self.options.clone(), self.address.clone());
            let reader = Reader { options, address, shared: self.shared.clone() };
            super::spawn("postgres-audit", move || reader.run(&tasks))?;
            self.reader = Some(sender);
        }
        self.ask(decoder, Duration::ZERO);
        Ok(())
    }

    /// Has the next chunk read, in a new window.
    fn ask(&self, decoder: &mut Decoder, pause: Duration) {
        let (Some(current), Some(reader)) = (&self.current, &self.reader) else { return };
        // The window begins before the reader takes its snapshot.
        decoder.audit = Some((current.oid, Window::new(decoder.recent(), WINDOW_ROWS_MAX)));
        let AuditOrder { scope, pace, .. } = current.order.clone();
        let (number, oid, after, key) = (self.number, current.oid, current.after.clone(), current.key.clone());
        let task = Task { number, oid, after, key, scope, pace, pause };
        // A reader that is gone says nothing any more, and then the feed is at its end.
        let _ = reader.send(task);
    }

    /// The last chunk was of no use.
    fn again(&mut self, decoder: &mut Decoder, pause: Duration) {
        let Some(current) = &mut self.current else { return };
        // Of a chunk that is on its way nothing is wanted any more.
        self.number += 1;
        self.awaited = None;
        current.attempts += 1;
        if current.attempts < ATTEMPTS_MAX {
            self.ask(decoder, pause);
            return;
        }
        let reason = "its rows could not be compared: it is changed, or locked, all the time";
        self.end(decoder, Some(Reason::new("too-busy", reason)));
    }

    fn chunk(&mut self, decoder: &mut Decoder, chunk: Chunk) {
        let Some(current) = &self.current else { return };
        let Chunk { snapshot, place: _, found, defined, rows, last, is_last } = chunk;
        let Some((_, window)) = &decoder.audit else { return };
        if window.is_too_early(&snapshot) {
            self.again(decoder, Duration::from_millis(10));
            return;
        }
        let stamp = defined.definition.stamp(&self.options.rules);
        let is_same = decoder.tables.get(&current.oid).is_some_and(|mark| {
            (&mark.namespace, &mark.relation) == (&found.namespace, &found.relation)
                && mark.key == defined.shape.table.key
                && mark.definition.as_ref() == Some(&stamp)
        });
        if !is_same {
            // The catalog is ahead of what the log has told; a look will tell what that means.
            self.shared.ask_for_look();
            self.again(decoder, PAUSE);
            return;
        }
        let rows = match rows {
            AuditRows::Sums { text, mut rows } => {
                rows.retain(|(key, _)| window.is_untouched(&snapshot, key));
                AuditRows::Sums { text, rows }
            }
            AuditRows::Images(mut rows) => {
                rows.retain(|(key, _)| window.is_untouched(&snapshot, key));
                AuditRows::Images(rows)
            }
        };
        let is_last = is_last || matches!(current.order.scope, AuditScope::Keys(_));
        decoder.cut();
        decoder.out.push(Step::Audited(Arc::new(AuditPiece { table: defined.shape.table.clone(), rows, is_last })));
        if is_last {
            self.end(decoder, None);
            return;
        }
        if let Some(current) = &mut self.current {
            current.after = last.or_else(|| current.after.take());
            current.key.clone_from(&defined.shape.table.key);
            current.attempts = 0;
        }
        self.ask(decoder, Duration::ZERO);
    }

    /// The audit is over, or called off.
    fn end(&mut self, decoder: &mut Decoder, called_off: Option<Reason>) {
        let Some(current) = self.current.take() else { return };
        if let Some(reason) = called_off {
            decoder.out.push(Step::AuditOff { table: current.order.table, reason });
        }
        decoder.audit = None;
        self.number += 1;
        self.awaited = None;
        self.idle_since = Instant::now();
    }
}

/// Whether a table's rows are known, so that they can be compared; or what is done with it instead.
fn is_audited(decoder: &Decoder, oid: u32) -> Result<(), Reason> {
    let Some(mark) = decoder.tables.get(&oid).filter(|mark| !mark.unnamed) else {
        return Err(Reason::new("missing", "the database does not show it to the source"));
    };
    if decoder.stored.get(&oid).is_some_and(|table| table.is_append_only()) {
        return Err(without_key());
    }
    if mark.state == ReadState::Following {
        return Ok(());
    }
    let because = mark.reason.as_ref().map(|reason| format!(" ({}: {})", reason.code, reason.message));
    let because = because.unwrap_or_default();
    Err(match mark.state {
        ReadState::Stopped => Reason::new("stopped", format!("it is not followed{because}")),
        _ => Reason::new("reading", format!("its rows are being read{because}")),
    })
}
