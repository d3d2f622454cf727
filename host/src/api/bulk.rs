//! Bulk loads: a JSON array or NDJSON, captured in batches, answered row by row.
//!
//! NDJSON is captured while it arrives: a few batches are under way at once, and reading waits for them, so a load of
//! any length holds little memory. Only the outcomes are kept until the end, in a few bytes a row, because many clients
//! read nothing before they have sent everything.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use cdc_rest::{BulkWriter, Code, Line, LineSplitter, MAX_REFUSED, Problem, TableName};
use http::header::{CONTENT_TYPE, HeaderValue};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};

use super::body::{self, AnswerBody};
use super::{Answer, Api, Outcome, problems};
use crate::ingest::{IngestError, Receipt};
use crate::sandbox::{Action, Change};

/// Batches that may be under way for one load.
const UNDER_WAY: usize = 4;
/// A batch is submitted when it has this many bytes of rows, if not before.
const BATCH_BYTES: usize = 512 << 10;
/// Pieces of the answer.
const PIECE_BYTES: usize = 64 << 10;

impl Api {
    /// `POST /data/:table` with a JSON array.
    pub(super) async fn insert_array(&self, table: &TableName, action: Action, rows: &[&str]) -> Outcome {
        let mut load = Load::new(self, table, action);
        for row in rows {
            if load.row(row.as_bytes()).await.is_err() {
                break;
            }
        }
        Ok(load.finish().await)
    }

    /// `POST /data/:table` with a JSON object on each line.
    pub(super) async fn insert_lines(&self, table: TableName, upsert: bool, mut body: Incoming) -> Outcome {
        let limits = &self.options.limits;
        let action = if upsert { Action::Upsert } else { Action::Insert };
        let mut load = Load::new(self, &table, action);
        let mut lines = LineSplitter::new(limits);
        let mut received: u64 = 0;
        loop {
            let piece = match body::next(&mut body, self.options.request_timeout).await {
                Ok(piece) => piece,
                // What broke off may be half a row, so the rest in the splitter is not taken for one.
                Err(problem) => {
                    load.interrupt(problem);
                    break;
                }
            };
            match &piece {
                Some(piece) => {
                    received += piece.len() as u64;
                    if received > limits.max_stream_bytes {
                        load.interrupt(Problem::body_too_large(limits.max_stream_bytes));
                        body::discard(&mut body).await;
                        break;
                    }
                    lines.push(piece);
                }
                None => lines.end(),
            }
            let mut going = Ok(());
            while let (Ok(()), Some(line)) = (&going, lines.next_line()) {
                going = match line {
                    Line::Row(row) => load.row(row).await,
                    Line::TooLong => load.refuse(Problem::row_too_large(limits)).await,
                };
            }
            if going.is_err() {
                // Interrupted: what is still to come is not captured.
                body::discard(&mut body).await;
                break;
            }
            if piece.is_none() {
                break;
            }
        }
        if received == 0 && load.interruption.is_none() {
            return Err(Problem::new(Code::InvalidBody, "the body is empty: send a JSON object on each line"));
        }
        Ok(load.finish().await)
    }
}

/// What became of a row.
enum RowOutcome {
    Captured { timestamp_ms: u64, sequence: u64 },
    Refused(Box<Problem>),
}

/// The load was interrupted; why is in the load.
struct Interrupted;

/// One load under way.
struct Load<'a> {
    api: &'a Api,
    table: Arc<str>,
    action: Action,
    batch: Vec<Change>,
    batch_bytes: usize,
    under_way: VecDeque<oneshot::Receiver<Result<Receipt, IngestError>>>,
    outcomes: Vec<RowOutcome>,
    refused: usize,
    interruption: Option<Problem>,
}

impl<'a> Load<'a> {
    fn new(api: &'a Api, table: &TableName, action: Action) -> Self {
        Self {
            api,
            table: table.as_str().into(),
            action,
            batch: Vec::new(),
            batch_bytes: 0,
            under_way: VecDeque::with_capacity(UNDER_WAY),
            outcomes: Vec::new(),
            refused: 0,
            interruption: None,
        }
    }

    fn interrupt(&mut self, problem: Problem) {
        self.interruption.get_or_insert(problem);
    }

    /// Takes one more row.
    async fn row(&mut self, row: &[u8]) -> Result<(), Interrupted> {
        self.batch_bytes += row.len();
        self.batch.push(Change {
            table: self.table.clone(),
            action: self.action,
            key: Vec::new(),
            image: row.to_vec(),
        });
        if self.batch.len() >= self.api.options.max_batch || self.batch_bytes >= BATCH_BYTES {
            self.submit().await?;
        }
        Ok(())
    }

    /// A row that is refused before the engine sees it. The ones before it must have their outcomes first.
    async fn refuse(&mut self, problem: Problem) -> Result<(), Interrupted> {
        self.submit().await?;
        while !self.under_way.is_empty() {
            self.settle().await?;
        }
        self.keep(RowOutcome::Refused(Box::new(problem)))
    }

    async fn submit(&mut self) -> Result<(), Interrupted> {
        if self.batch.is_empty() {
            return Ok(());
        }
        while self.under_way.len() >= UNDER_WAY {
            self.settle().await?;
        }
        let changes = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        match self.api.ingest.submit_when_room(changes).await {
            Ok(receipt) => {
                self.under_way.push_back(receipt);
                Ok(())
            }
            Err(error) => {
                self.interrupt(problems::ingest(&error));
                Err(Interrupted)
            }
        }
    }

    /// Waits for the oldest batch under way.
    async fn settle(&mut self) -> Result<(), Interrupted> {
        let Some(receipt) = self.under_way.pop_front() else { return Ok(()) };
        let receipt = receipt.await.unwrap_or(Err(IngestError::Stopping));
        match receipt {
            Ok(receipt) => {
                let timestamp_ms = receipt.timestamp_ms;
                let mut going = Ok(());
                for outcome in receipt.outcomes {
                    let kept = self.keep(match outcome {
                        Ok(sequence) => RowOutcome::Captured { timestamp_ms, sequence },
                        Err(refusal) => RowOutcome::Refused(Box::new(problems::refused(refusal))),
                    });
                    going = going.and(kept);
                }
                going
            }
            Err(error) => {
                self.interrupt(problems::ingest(&error));
                Err(Interrupted)
            }
        }
    }

    fn keep(&mut self, outcome: RowOutcome) -> Result<(), Interrupted> {
        self.refused += usize::from(matches!(outcome, RowOutcome::Refused(_)));
        self.outcomes.push(outcome);
        if self.refused < MAX_REFUSED {
            return Ok(());
        }
        self.interrupt(Problem::too_many_refused());
        Err(Interrupted)
    }

    /// Waits for all that is under way and answers. What was submitted after a failure may still be captured, so its
    /// outcomes are in the answer too.
    async fn finish(mut self) -> Answer {
        if self.interruption.is_none() {
            let _ = self.submit().await;
        }
        while !self.under_way.is_empty() {
            let _ = self.settle().await;
        }
        let (pieces, receiver) = mpsc::channel(2);
        tokio::spawn(write(self.outcomes, self.interruption, pieces));
        let mut answer = Answer::new(AnswerBody::Stream(receiver));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(cdc_rest::JSON));
        answer
    }
}

/// Writes the answer piece by piece, as the client takes it.
async fn write(outcomes: Vec<RowOutcome>, interruption: Option<Problem>, pieces: mpsc::Sender<Option<Bytes>>) {
    let mut out = Vec::with_capacity(PIECE_BYTES + 256);
    let mut writer = BulkWriter::begin(&mut out);
    for outcome in outcomes {
        match outcome {
            RowOutcome::Captured { timestamp_ms, sequence } => writer.captured(&mut out, timestamp_ms, sequence),
            RowOutcome::Refused(problem) => writer.refused(&mut out, &problem),
        }
        if out.len() >= PIECE_BYTES {
            let piece = std::mem::replace(&mut out, Vec::with_capacity(PIECE_BYTES + 256));
            if pieces.send(Some(piece.into())).await.is_err() {
                return;
            }
        }
    }
    writer.end(&mut out, interruption.as_ref());
    if pieces.send(Some(out.into())).await.is_ok() {
        // A client that is gone needs no end.
        let _ = pieces.send(None).await;
    }
}
