//! Whole tables: snapshots and replicas as streams, replay as a comparison.
//!
//! Each of these has an instance of the engine of its own and runs on a thread where it may block, so a table of any
//! size and a client of any slowness hold up nobody else.

use std::time::Duration;

use bytes::Bytes;
use cdc_rest::{
    Code, Problem, ReplayRequest, ReplayedTable, ReplicaWriter, SnapshotWriter, TableName, write_replay_report,
};
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::body::AnswerBody;
use super::{Answer, Api, Outcome, json, problems};
use crate::delivery::{Replica, SubscriptionError};
use crate::sandbox::{EngineError, Instance, Snapshot, rest_schema};

/// Rows and bytes of images that are read from the engine at once: what a stream holds in memory, a few times over.
const PAGE_ROWS: u32 = 512;
const PAGE_BYTES: u32 = 64 << 10;
/// Pieces that wait for the client.
const PIECES: usize = 2;

/// How long a replica may take to have what was captured before it was asked for.
const REPLICA_WAIT: Duration = Duration::from_secs(1);

impl Api {
    /// `GET /snapshot/:table`.
    pub(super) async fn snapshot(&self, table: TableName, at: Option<u64>) -> Outcome {
        let readers = self.readers.clone();
        let open = move || match readers.instance().and_then(|instance| instance.snapshot(table.as_str(), at)) {
            Ok(Ok(snapshot)) => Ok(snapshot),
            Ok(Err(error)) => Err(problems::snapshot(error)),
            Err(error) => {
                tracing::error!(error = %format!("{error:#}"), "a snapshot failed");
                Err(problems::engine(&error))
            }
        };
        self.stream(open, write_snapshot).await
    }

    /// `GET /replica/:table`.
    pub(super) async fn replica(&self, table: TableName) -> Outcome {
        let subscriptions = self.subscriptions.clone();
        let open = move || match subscriptions.replica(table.as_str(), REPLICA_WAIT) {
            Ok(Some(replica)) => Ok((table, replica)),
            Ok(None) => Err(Problem::unknown_table(table.as_str())),
            Err(SubscriptionError::Unknown(id)) => {
                let detail = format!("the subscriber {id} is switched off: builtin-subscribers has to name it");
                Err(Problem::new(Code::UnknownSubscription, detail))
            }
            Err(error) => Err(problems::subscription(&error)),
        };
        self.stream(open, |(table, replica), client| write_replica(&table, replica, client)).await
    }

    /// Opens something that takes long to read, and writes it piece by piece as its client takes them.
    async fn stream<T: 'static>(
        &self,
        open: impl FnOnce() -> Result<T, Problem> + Send + 'static,
        write: impl FnOnce(T, &Client) + Send + 'static,
    ) -> Outcome {
        let turn = self.readers.long().ok_or_else(problems::long_calls)?;
        let timeout = self.options.snapshot_timeout;
        let (opened, opening) = oneshot::channel();
        let (pieces, receiver) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let found = match open() {
                Ok(found) => found,
                Err(problem) => return drop(opened.send(Err(problem))),
            };
            if opened.send(Ok(())).is_ok() {
                write(found, &Client { pieces, timeout, deadline: Instant::now() + timeout });
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

/// Whoever reads an answer. One that goes away, or is slower than `timeout` allows, ends it; an error in the middle cuts
/// the answer off, because its status has been sent.
struct Client {
    pieces: mpsc::Sender<Option<Bytes>>,
    timeout: Duration,
    deadline: Instant,
}

impl Client {
    /// Sends a piece, or the end. False when there is no use in going on.
    fn send(&self, piece: Option<Bytes>) -> bool {
        let sending = tokio::time::timeout_at(self.deadline, self.pieces.send(piece));
        match Handle::current().block_on(sending) {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                tracing::warn!(seconds = self.timeout.as_secs(), "a snapshot was cut off: its client is too slow");
                false
            }
        }
    }
}

fn write_snapshot(mut snapshot: Snapshot, client: &Client) {
    let room = PAGE_BYTES as usize * 2;
    let mut out = Vec::with_capacity(room);
    let info = snapshot.info();
    let mut writer = SnapshotWriter::begin(&mut out, &info.schema.name, info.timestamp);
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
            writer.row(&mut out, row.image.as_bytes());
        }
        if !client.send(Some(std::mem::replace(&mut out, Vec::with_capacity(room)).into())) {
            return;
        }
    }
    let info = snapshot.info();
    writer.end(&mut out, &rest_schema(info.schema.clone()), info.sequence);
    if client.send(Some(out.into())) {
        client.send(None);
    }
}

fn write_replica(table: &TableName, mut replica: Replica, client: &Client) {
    let room = PAGE_BYTES as usize * 2;
    let mut out = Vec::with_capacity(room);
    let mut writer = ReplicaWriter::begin(&mut out, table.as_str());
    loop {
        let rows = match replica.next(PAGE_ROWS as usize, PAGE_BYTES as usize) {
            Ok(rows) => rows,
            Err(error) => return tracing::error!(%error, "a replica was cut off: the store failed"),
        };
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            writer.row(&mut out, &row.image);
        }
        if !client.send(Some(std::mem::replace(&mut out, Vec::with_capacity(room)).into())) {
            return;
        }
    }
    writer.end(&mut out);
    if client.send(Some(out.into())) {
        client.send(None);
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
