//! What a request asks for, once its head has been understood.

use crate::{
    ComponentName, DeadLetterQuery, EventQuery, Limits, Problem, RowKey, SourceName, StreamQuery, SubscriptionId,
    TableAction, TableName,
};

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
    /// `GET /events/stream`: events as they come, as Server-Sent Events.
    EventStream(StreamQuery),
    /// `GET /events/ws`: events as they come, over a WebSocket.
    EventSocket(StreamQuery),
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
    /// `GET /subscriptions`.
    Subscriptions,
    /// `GET /subscriptions/:id`: its definition and how it fares.
    Subscription(SubscriptionId),
    /// `PUT /subscriptions/:id`: define or change it.
    DefineSubscription(SubscriptionId),
    /// `DELETE /subscriptions/:id`.
    DeleteSubscription(SubscriptionId),
    /// `POST /subscriptions/:id/pause`.
    PauseSubscription(SubscriptionId),
    /// `POST /subscriptions/:id/resume`.
    ResumeSubscription(SubscriptionId),
    /// `POST /subscriptions/:id/rewind`: go on from another place in the log.
    RewindSubscription(SubscriptionId),
    /// `POST /subscriptions/:id/test`: run a component over past events, without effects.
    TestSubscription(SubscriptionId),
    /// `GET /subscriptions/:id/audit`: what was found when its replica was compared.
    SubscriptionAudit(SubscriptionId),
    /// `POST /subscriptions/:id/audit`: compare its replica with the rows here.
    AuditSubscription(SubscriptionId),
    /// `GET /subscriptions/:id/dead-letters`: a page of them.
    DeadLetters {
        /// Of this subscription.
        subscription: SubscriptionId,
        /// Which.
        query: DeadLetterQuery,
    },
    /// `POST /subscriptions/:id/dead-letters/retry`.
    RetryDeadLetters(SubscriptionId),
    /// `POST /subscriptions/:id/dead-letters/discard`.
    DiscardDeadLetters(SubscriptionId),
    /// `GET /components`.
    Components,
    /// `GET /components/:name`: what it is, with its versions.
    Component(ComponentName),
    /// `PUT /components/:name`: upload a version.
    UploadComponent(ComponentName),
    /// `DELETE /components/:name`: with all its versions.
    DeleteComponent(ComponentName),
    /// `GET /components/:name/versions/:version`.
    ComponentVersion {
        /// Of this component.
        component: ComponentName,
        /// From 1.
        version: u32,
    },
    /// `POST /components/:name/rollback`: make an earlier version the current one.
    RollbackComponent(ComponentName),
    /// `GET /sources`.
    Sources,
    /// `GET /sources/:name`: how it fares.
    Source(SourceName),
    /// `POST /sources/:name/pause`.
    PauseSource(SourceName),
    /// `POST /sources/:name/resume`: after a pause or a stop.
    ResumeSource(SourceName),
    /// `POST /sources/:name/repair`: read its tables anew and compare.
    RepairSource(SourceName),
    /// `GET /sources/:name/audit`: what the audit has found that goes on, or was the last one.
    SourceAudit(SourceName),
    /// `POST /sources/:name/audit`: compare its tables' rows with the database's.
    AuditSource(SourceName),
    /// `GET /sources/:name/selection`: which tables it captures.
    SourceSelection(SourceName),
    /// `PUT /sources/:name/selection`: choose them, in place of what the configuration says.
    SelectSourceTables(SourceName),
    /// `DELETE /sources/:name/selection`: as the configuration says.
    ResetSourceSelection(SourceName),
    /// `GET /sources/:name/tables/:table`: how one of its tables fares.
    SourceTable {
        /// The source.
        source: SourceName,
        /// The name under which the table is captured, which need not be one that can be written.
        table: String,
    },
    /// `POST /sources/:name/tables/:table/pause`, `…/resume`, `…/reread` and `…/drop`.
    SteerSourceTable {
        /// The source.
        source: SourceName,
        /// The name under which the table is captured, which need not be one that can be written.
        table: String,
        /// What is to be done.
        action: TableAction,
    },
    /// `POST /sources/:name/tables/:table/audit`: compare its rows with the database's.
    AuditSourceTable {
        /// The source.
        source: SourceName,
        /// The name under which the table is captured, which need not be one that can be written.
        table: String,
    },
    /// `GET /trace/:table/:key`: what became of a row's events at each subscription.
    Trace {
        /// The row's table.
        table: TableName,
        /// The row's key.
        key: RowKey,
    },
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
    /// A subscription's definition: [`SubscriptionSpec`](crate::SubscriptionSpec).
    Subscription,
    /// Where to go on: [`Rewind`](crate::Rewind).
    Rewind,
    /// What to run over what: [`DryRun`](crate::DryRun).
    DryRun,
    /// Which dead letters: [`DeadLetterChoice`](crate::DeadLetterChoice).
    DeadLetters,
    /// Which version, or nothing: [`Rollback`](crate::Rollback).
    Rollback,
    /// Which tables a source captures: [`TableChoice`](crate::TableChoice).
    TableChoice,
    /// Which tables are compared, or nothing: [`AuditRequest`](crate::AuditRequest).
    Audit,
    /// A WebAssembly component, as it is.
    Component,
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
            Self::DefineSubscription(_) => BodyKind::Subscription,
            Self::RewindSubscription(_) => BodyKind::Rewind,
            Self::TestSubscription(_) => BodyKind::DryRun,
            Self::RetryDeadLetters(_) | Self::DiscardDeadLetters(_) => BodyKind::DeadLetters,
            Self::RollbackComponent(_) => BodyKind::Rollback,
            Self::UploadComponent(_) => BodyKind::Component,
            Self::SelectSourceTables(_) => BodyKind::TableChoice,
            Self::AuditSource(_) | Self::AuditSourceTable { .. } | Self::AuditSubscription(_) => BodyKind::Audit,
            Self::Index
            | Self::Delete { .. }
            | Self::ReadRow { .. }
            | Self::Events(_)
            | Self::EventStream(_)
            | Self::EventSocket(_)
            | Self::Statistics
            | Self::Snapshot { .. }
            | Self::Replica { .. }
            | Self::Schemas
            | Self::Schema { .. }
            | Self::SchemaHistory { .. }
            | Self::Subscriptions
            | Self::Subscription(_)
            | Self::DeleteSubscription(_)
            | Self::PauseSubscription(_)
            | Self::ResumeSubscription(_)
            | Self::SubscriptionAudit(_)
            | Self::DeadLetters { .. }
            | Self::Components
            | Self::Component(_)
            | Self::DeleteComponent(_)
            | Self::ComponentVersion { .. }
            | Self::Sources
            | Self::Source(_)
            | Self::PauseSource(_)
            | Self::ResumeSource(_)
            | Self::RepairSource(_)
            | Self::SourceAudit(_)
            | Self::SourceSelection(_)
            | Self::ResetSourceSelection(_)
            | Self::SourceTable { .. }
            | Self::SteerSourceTable { .. }
            | Self::Trace { .. }
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
            Self::RowOrRows
            | Self::Declaration
            | Self::Replay
            | Self::Subscription
            | Self::Rewind
            | Self::DryRun
            | Self::DeadLetters
            | Self::Rollback
            | Self::TableChoice
            | Self::Audit => limits.max_body_bytes,
            Self::Component => limits.max_component_bytes,
            Self::RowLines => limits.max_stream_bytes,
        }
    }

    /// The body is longer than [`max_bytes`](Self::max_bytes).
    pub fn too_large(self, limits: &Limits) -> Problem {
        match self {
            Self::Row => Problem::row_too_large(limits),
            Self::Component => Problem::component_too_large(limits.max_component_bytes),
            other => Problem::body_too_large(other.max_bytes(limits)),
        }
    }
}
