//! One reader of a stream: a place in the log, a selection, and what comes next.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cdc_rest::StreamQuery;
use tokio::sync::watch;
use tokio::time::Instant;

use super::chunk::{Chunk, LiveEvent, Piece};
use super::streams::Pulse;
use super::tail::Tail;
use crate::schemas::Schemas;
use crate::store::{Event, Operation, Sequence, StoreError};

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// Events after the reader's place, wanted and other ones. [`Reader::advance`] moves on.
    Events(Arc<Chunk>),
    /// Time for a heartbeat.
    Beat,
    /// The service stops.
    Stopping,
    /// The log cannot be read on: retention has dropped what comes next, or the store failed.
    Failed(StoreError),
}

/// A reader of a stream.
#[derive(Debug)]
pub struct Reader {
    tail: Arc<Tail>,
    schemas: Arc<Schemas>,
    pulse: watch::Receiver<Pulse>,
    query: StreamQuery,
    after: Sequence,
    heartbeat: Duration,
    beat: Instant,
}

impl Reader {
    pub(super) fn new(
        tail: Arc<Tail>,
        schemas: Arc<Schemas>,
        pulse: watch::Receiver<Pulse>,
        query: StreamQuery,
        after: Sequence,
        heartbeat: Duration,
    ) -> Self {
        Self { tail, schemas, pulse, query, after, heartbeat, beat: Instant::now() + heartbeat }
    }

    /// Waits for what comes next. May be dropped while it waits and asked again.
    pub async fn next(&mut self) -> Step {
        loop {
            let pulse = *self.pulse.borrow_and_update();
            if pulse.is_stopping {
                return Step::Stopping;
            }
            // Before events, so that a busy stream has its heartbeats too.
            if Instant::now() >= self.beat {
                self.postpone_beat();
                return Step::Beat;
            }
            if self.after < pulse.newest {
                match self.tail.read(self.after) {
                    Ok(Some(chunk)) => return Step::Events(chunk),
                    Ok(None) => {}
                    Err(error) => return Step::Failed(error),
                }
            }
            tokio::select! {
                changed = self.pulse.changed() => {
                    if changed.is_err() {
                        return Step::Stopping;
                    }
                }
                () = tokio::time::sleep_until(self.beat) => {}
            }
        }
    }

    /// The next run of wanted events of a chunk, as Server-Sent Events.
    pub fn piece(&self, chunk: &Chunk) -> Result<Piece, StoreError> {
        chunk.piece(self.after, self.query.format, &self.schemas, |event| self.wants(event))
    }

    /// An event as the reader wants it.
    pub fn envelope(&self, event: &LiveEvent) -> Result<Bytes, StoreError> {
        event.envelope(self.query.format, &self.schemas)
    }

    /// Everything up to and with this event has been sent or is not wanted.
    #[must_use]
    pub fn after(&self) -> Sequence {
        self.after
    }

    /// Moves on to after this event.
    pub fn advance(&mut self, to: Sequence) {
        self.after = self.after.max(to);
    }

    /// The next heartbeat is a whole interval away: something else has shown that the stream is alive.
    pub fn postpone_beat(&mut self) {
        self.beat = Instant::now() + self.heartbeat;
    }

    /// Whether the reader selects this event.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        let StreamQuery { table, operation, key, since_ms, after: _, format: _ } = &self.query;
        let write = &event.write;
        table.as_ref().is_none_or(|table| table.as_str() == &*write.table)
            && operation.is_none_or(|operation| stored(operation) == write.operation)
            && key.as_ref().is_none_or(|key| key.as_bytes() == &write.key[..])
            && since_ms.is_none_or(|since_ms| event.timestamp_ms > since_ms)
    }
}

fn stored(operation: cdc_rest::Operation) -> Operation {
    match operation {
        cdc_rest::Operation::Insert => Operation::Insert,
        cdc_rest::Operation::Update => Operation::Update,
        cdc_rest::Operation::Delete => Operation::Delete,
        cdc_rest::Operation::Truncate => Operation::Truncate,
    }
}
