//! What a request asks for, once its head has been understood.

use crate::{EventQuery, Limits, Problem, RowKey, TableName};

/// A request whose head is acceptable. Whether it succeeds depends on its body and on the state of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `GET /`: what there is here.
    Index,
    /// `POST /data/:table`: insert one row or many.
    Insert {
        /// Into this table.
        table: TableName,
        /// Whether a row that exists is updated instead of being refused.
        upsert: bool,
        /// How the body has the rows.
        format: InsertFormat,
    },
    /// `PUT /data/:table/:key`: merge members into a row.
    Update {
        /// The row's table.
        table: TableName,
        /// The row's key.
        key: RowKey,
        /// Whether a row that is missing is inserted instead of being refused.
        upsert: bool,
    },
    /// `DELETE /data/:table/:key`.
    Delete {
        /// The row's table.
        table: TableName,
        /// The row's key.
        key: RowKey,
    },
    /// `GET /data/:table/:key`: read a row.
    ReadRow {
        /// The row's table.
        table: TableName,
        /// The row's key.
        key: RowKey,
    },
    /// `GET /events`.
    Events(EventQuery),
    /// `GET /stats`.
    Statistics,
    /// `GET /snapshot/:table`.
    Snapshot {
        /// Of this table.
        table: TableName,
        /// As it was right after this event; as it is, if none.
        at: Option<u64>,
    },
    /// `GET /replica/:table`.
    Replica {
        /// Of this table.
        table: TableName,
    },
    /// `GET /schemas`.
    Schemas,
    /// `GET /schema/:table`.
    Schema {
        /// Of this table.
        table: TableName,
        /// This version; the one in force, if none.
        version: Option<u32>,
    },
    /// `GET /schema/:table/history`.
    SchemaHistory {
        /// Of this table.
        table: TableName,
    },
    /// `PUT /schema/:table`: declare or evolve a schema.
    DeclareSchema {
        /// Of this table.
        table: TableName,
    },
    /// `POST /replay`: rebuild tables from the log and compare.
    Replay,
    /// `GET /healthz`: is the service alive?
    Health,
    /// `GET /readyz`: does it take requests?
    Readiness,
    /// `GET /metrics`.
    Metrics,
    /// `OPTIONS` on any path: a CORS preflight, or a question which methods there are.
    Options {
        /// The value of the `Allow` header.
        allow: String,
    },
}

/// How the body of an insert has its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertFormat {
    /// A JSON object, or an array of them.
    Json,
    /// A JSON object on each line.
    Lines,
}

/// What kind of body follows, and what parses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// None; whatever is sent is not looked at.
    None,
    /// One row, for the engine as it is.
    Row,
    /// One row or an array of rows, by the first byte: [`InsertBody`](crate::InsertBody).
    RowOrRows,
    /// A row on each line, as a stream: [`LineSplitter`](crate::LineSplitter).
    RowLines,
    /// A schema's declaration: [`Declaration`](crate::Declaration).
    Declaration,
    /// What to replay, or nothing: [`ReplayRequest`](crate::ReplayRequest).
    Replay,
}

impl Request {
    /// What kind of body follows.
    pub fn body(&self) -> BodyKind {
        match self {
            Self::Insert { format: InsertFormat::Json, .. } => BodyKind::RowOrRows,
            Self::Insert { format: InsertFormat::Lines, .. } => BodyKind::RowLines,
            Self::Update { .. } => BodyKind::Row,
            Self::DeclareSchema { .. } => BodyKind::Declaration,
            Self::Replay => BodyKind::Replay,
            Self::Index
            | Self::Delete { .. }
            | Self::ReadRow { .. }
            | Self::Events(_)
            | Self::Statistics
            | Self::Snapshot { .. }
            | Self::Replica { .. }
            | Self::Schemas
            | Self::Schema { .. }
            | Self::SchemaHistory { .. }
            | Self::Health
            | Self::Readiness
            | Self::Metrics
            | Self::Options { .. } => BodyKind::None,
        }
    }
}

impl BodyKind {
    /// The most bytes to read of it; a longer body is [`too_large`](Self::too_large).
    pub fn max_bytes(self, limits: &Limits) -> u64 {
        match self {
            Self::None => 0,
            Self::Row => limits.max_row_bytes as u64,
            Self::RowOrRows | Self::Declaration | Self::Replay => limits.max_body_bytes,
            Self::RowLines => limits.max_stream_bytes,
        }
    }

    /// The body is longer than [`max_bytes`](Self::max_bytes).
    pub fn too_large(self, limits: &Limits) -> Problem {
        match self {
            Self::Row => Problem::row_too_large(limits),
            other => Problem::body_too_large(other.max_bytes(limits)),
        }
    }
}
