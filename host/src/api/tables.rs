//! Whole tables: snapshots and replicas as streams, replay as a comparison.
//!
//! Each of these has an instance of the engine of its own and runs on a thread where it may block, so a table of any
//! size and a client of any slowness hold up nobody else.

use std::time::Duration;

use bytes::Bytes;
use cdc_rest::{Problem, ReplayRequest, ReplayedTable, ReplicaWriter, SnapshotWriter, TableName, write_replay_report};
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::body::AnswerBody;
use super::queries::rest_schema;
use super::{Answer, Api, Outcome, json, problems};
use crate::sandbox::{EngineError, Instance, Snapshot, SnapshotError};

/// Rows and bytes of images that are read from the engine at once: what a stream holds in memory, a few times over.
const PAGE_ROWS: u32 = 512;
const PAGE_BYTES: u32 = 64 << 10;
/// Pieces that wait for the client.
const PIECES: usize = 2;

/// What is written around the rows.
enum Frame {
    Snapshot(SnapshotWriter),
    Replica(ReplicaWriter),
}

impl Api {
    /// `GET /snapshot/:table`.
    pub(super) async fn snapshot(&self, table: TableName, at: Option<u64>) -> Outcome {
        self.stream(
            move |instance| instance.snapshot(table.as_str(), at),
            |snapshot, out| {
                let info = snapshot.info();
                Frame::Snapshot(SnapshotWriter::begin(out, &info.schema.name, info.timestamp))
            },
        )
        .await
    }

    /// `GET /replica/:table`.
    pub(super) async fn replica(&self, table: TableName) -> Outcome {
        self.stream(
            move |instance| instance.replica(table.as_str()),
            |snapshot, out| Frame::Replica(ReplicaWriter::begin(out, &snapshot.info().schema.name)),
        )
        .await
    }

    async fn stream(
        &self,
        open: impl FnOnce(Instance) -> Result<Result<Snapshot, SnapshotError>, EngineError> + Send + 'static,
        begin: impl FnOnce(&Snapshot, &mut Vec<u8>) -> Frame + Send + 'static,
    ) -> Outcome {
        let turn = self.readers.long().ok_or_else(problems::long_calls)?;
        let readers = self.readers.clone();
        let timeout = self.options.snapshot_timeout;
        let (opened, opening) = oneshot::channel();
        let (pieces, receiver) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let snapshot = match readers.instance().and_then(open) {
                Ok(Ok(snapshot)) => snapshot,
                Ok(Err(error)) => return drop(opened.send(Err(problems::snapshot(error)))),
                Err(error) => {
                    tracing::error!(error = %format!("{error:#}"), "a snapshot failed");
                    return drop(opened.send(Err(problems::engine(&error))));
                }
            };
            if opened.send(Ok(())).is_ok() {
                write(snapshot, begin, &pieces, timeout);
            }
        });
        opening.await.unwrap_or_else(|_| Err(Problem::engine_failed()))?;
        let mut answer = Answer::new(AnswerBody::Stream(receiver));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(cdc_rest::JSON));
        Ok(answer)
    }

    /// `POST /replay`.
    pub(super) async fn replay(&self, body: &[u8]) -> Outcome {
        let request = ReplayRequest::parse(body, &self.options.limits)?;
        let turn = self.readers.long().ok_or_else(problems::long_calls)?;
        let readers = self.readers.clone();
        let replayed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            replay(readers.instance().map_err(|error| problems::engine(&error))?, request)
        });
        let tables = replayed.await.map_err(|_| Problem::engine_failed())??;
        Ok(json(|out| write_replay_report(out, &tables)))
    }
}

/// Reads page by page as the client takes them. A client that goes away, or is slower than `timeout` allows, ends it;
/// an error in the middle cuts the answer off, because its status has been sent.
fn write(
    mut snapshot: Snapshot,
    begin: impl FnOnce(&Snapshot, &mut Vec<u8>) -> Frame,
    pieces: &mpsc::Sender<Option<Bytes>>,
    timeout: Duration,
) {
    let runtime = Handle::current();
    let deadline = Instant::now() + timeout;
    // False when there is no use in going on.
    let send = |piece: Option<Bytes>| match runtime.block_on(tokio::time::timeout_at(deadline, pieces.send(piece))) {
        Ok(sent) => sent.is_ok(),
        Err(_) => {
            tracing::warn!(seconds = timeout.as_secs(), "a snapshot was cut off: its client is too slow");
            false
        }
    };
    let room = PAGE_BYTES as usize * 2;
    let mut out = Vec::with_capacity(room);
    let mut frame = begin(&snapshot, &mut out);
    loop {
        let rows = match snapshot.next(PAGE_ROWS, PAGE_BYTES) {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return tracing::error!(?error, "a snapshot was cut off: the store failed"),
            Err(error) => return tracing::error!(error = %format!("{error:#}"), "a snapshot was cut off"),
        };
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            match &mut frame {
                Frame::Snapshot(writer) => writer.row(&mut out, row.image.as_bytes()),
                Frame::Replica(writer) => writer.row(&mut out, row.image.as_bytes()),
            }
        }
        let piece = std::mem::replace(&mut out, Vec::with_capacity(room));
        if !send(Some(piece.into())) {
            return;
        }
    }
    match frame {
        Frame::Snapshot(writer) => {
            let info = snapshot.info();
            writer.end(&mut out, &rest_schema(info.schema.clone()), info.sequence);
        }
        Frame::Replica(writer) => writer.end(&mut out),
    }
    if send(Some(out.into())) {
        send(None);
    }
}

fn replay(mut instance: Instance, request: ReplayRequest) -> Result<Vec<ReplayedTable>, Problem> {
    let failed = |error: EngineError| {
        tracing::error!(error = %format!("{error:#}"), "a replay failed");
        problems::engine(&error)
    };
    let tables = match request.table {
        Some(table) => vec![table.into_string()],
        None => {
            let schemas = instance.schemas().map_err(failed)?.map_err(|error| problems::query(error, ""))?;
            schemas.into_iter().map(|schema| schema.name).collect()
        }
    };
    let mut reports = Vec::with_capacity(tables.len());
    for table in tables {
        let report = instance.verify(&table, request.from, request.to).map_err(failed)?.map_err(problems::snapshot)?;
        reports.push(ReplayedTable {
            table: report.table,
            from_sequence: report.from_sequence,
            to_sequence: report.to_sequence,
            events: report.events,
            replayed_rows: report.replayed_rows,
            replayed_checksum: report.replayed_checksum,
            live_rows: report.live_rows,
            live_checksum: report.live_checksum,
        });
    }
    Ok(reports)
}
