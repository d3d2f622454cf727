//! Bulk loads: a JSON array or NDJSON, captured in batches, answered row by row. Each batch is one commit.

use cdc_engine::capture::{Action, Change};
use cdc_engine::store::Store;
use cdc_rest::{BulkWriter, Code, Line, LineSplitter, MAX_REFUSED, Problem, TableName};

use super::{Outcome, Worker, explain};

/// A batch is committed when it has this many bytes of rows, if not before.
const BATCH_BYTES: usize = 512 << 10;
/// So much of a body is cut into lines at a time.
const PIECE_BYTES: usize = 64 << 10;

impl Worker {
    /// `POST /data/:table` with a JSON object on each line.
    pub(super) fn insert_lines<S: Store>(
        &mut self,
        store: &S,
        now_ms: u64,
        table: &TableName,
        upsert: bool,
        body: &[u8],
    ) -> Outcome {
        if body.is_empty() {
            return Err(Problem::new(Code::InvalidBody, "the body is empty: send a JSON object on each line"));
        }
        let action = if upsert { Action::Upsert } else { Action::Insert };
        let mut load = Load::new(self, store, now_ms, table, action);
        let mut lines = LineSplitter::new(&load.worker.options.limits);
        // The splitter copies what it is given: never all of it at once.
        for piece in body.chunks(PIECE_BYTES).map(Some).chain([None]) {
            match piece {
                Some(piece) => lines.push(piece),
                None => lines.end(),
            }
            let mut going = Ok(());
            while let (Ok(()), Some(line)) = (&going, lines.next_line()) {
                going = match line {
                    Line::Row(row) => load.row(row),
                    Line::TooLong => load.refuse_too_long(),
                };
            }
            if going.is_err() {
                break;
            }
        }
        Ok(load.finish())
    }

    /// `POST /data/:table` with a JSON array.
    pub(super) fn insert_rows<S: Store>(
        &mut self,
        store: &S,
        now_ms: u64,
        table: &TableName,
        action: Action,
        rows: Vec<&[u8]>,
    ) -> Vec<u8> {
        let mut load = Load::new(self, store, now_ms, table, action);
        for row in rows {
            if load.row(row).is_err() {
                break;
            }
        }
        load.finish()
    }
}

/// The load was interrupted; why is in the load.
struct Interrupted;

/// One load under way.
struct Load<'a, S> {
    worker: &'a mut Worker,
    store: &'a S,
    now_ms: u64,
    table: &'a str,
    action: Action,
    batch: Vec<Vec<u8>>,
    batch_bytes: usize,
    out: Vec<u8>,
    writer: BulkWriter,
    refused: usize,
    interruption: Option<Problem>,
}

impl<'a, S: Store> Load<'a, S> {
    fn new(worker: &'a mut Worker, store: &'a S, now_ms: u64, table: &'a TableName, action: Action) -> Self {
        let mut out = Vec::new();
        let writer = BulkWriter::begin(&mut out);
        Self {
            worker,
            store,
            now_ms,
            table: table.as_str(),
            action,
            batch: Vec::new(),
            batch_bytes: 0,
            out,
            writer,
            refused: 0,
            interruption: None,
        }
    }

    fn row(&mut self, row: &[u8]) -> Result<(), Interrupted> {
        self.batch_bytes += row.len();
        self.batch.push(row.to_vec());
        if self.batch.len() >= self.worker.options.max_batch || self.batch_bytes >= BATCH_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    /// A row that is refused before the engine sees it. The ones before it must have their outcomes first.
    fn refuse_too_long(&mut self) -> Result<(), Interrupted> {
        self.commit()?;
        let problem = Problem::row_too_large(&self.worker.options.limits);
        self.writer.refused(&mut self.out, &problem);
        self.count_refused()
    }

    fn count_refused(&mut self) -> Result<(), Interrupted> {
        self.refused += 1;
        if self.refused < MAX_REFUSED {
            return Ok(());
        }
        self.interruption.get_or_insert_with(Problem::too_many_refused);
        Err(Interrupted)
    }

    fn commit(&mut self) -> Result<(), Interrupted> {
        let rows = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if rows.is_empty() {
            return Ok(());
        }
        let (table, action, store, now_ms) = (self.table, self.action, self.store, self.now_ms);
        let change = |image| Change { table, action, key: Vec::new(), image, origin: None };
        let captured = self.worker.until_first(|capture| {
            let changes = rows.iter().map(|row| change(row.as_slice())).collect();
            capture.capture(store, now_ms, changes, Vec::new())
        });
        let captured = match captured {
            Ok(captured) => captured,
            Err(problem) => {
                self.interruption.get_or_insert(problem);
                return Err(Interrupted);
            }
        };
        let mut going = Ok(());
        for outcome in captured.outcomes {
            match outcome {
                Ok(sequence) => self.writer.captured(&mut self.out, captured.timestamp_ms, sequence),
                Err(refusal) => {
                    self.writer.refused(&mut self.out, &explain::refused(refusal));
                    let counted = self.count_refused();
                    going = going.and(counted);
                }
            }
        }
        going
    }

    fn finish(mut self) -> Vec<u8> {
        if self.interruption.is_none() {
            // An interruption is in the answer.
            let _ = self.commit();
        }
        let Self { mut out, writer, interruption, .. } = self;
        writer.end(&mut out, interruption.as_ref());
        out
    }
}
