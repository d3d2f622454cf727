//! The REST contract, pure: the head of a request becomes a typed [`Request`] or a [`Problem`], bodies become rows,
//! declarations and replay requests, and outcomes become JSON bytes. Nothing here reads, writes or waits, so the native
//! host and the edge worker answer alike.
//!
//! How a request goes through:
//! 1. [`route`] decides on the head alone (method, path, query, `Content-Type`, `Content-Encoding`), so that a request
//!    that cannot succeed is refused before its body is read.
//! 2. [`Request::body`] says which [`BodyKind`] follows and [`BodyKind::max_bytes`] how much of it to read.
//! 3. The body is parsed by what its kind names: [`InsertBody`], [`LineSplitter`], [`Declaration`], [`SubscriptionSpec`]…
//! 4. The outcome is written into the caller's buffer by one of the writers, or as a [`Problem`].
//!
//! Invariants:
//! - Row images pass through byte for byte, in and out: they are never parsed into values and never re-serialized. The
//!   engine alone judges a row.
//! - What a client sent never panics here, and never makes us hold more than the [`Limits`] allow.
//! - Every status that is not 200 or 204 comes from the one table in [`Code`].
//!
//! `HEAD` is routed as `GET`: whoever serves it leaves the body out.

mod bulk;
mod capability;
mod cors;
mod declaration;
mod event;
mod event_query;
mod failure;
mod health;
mod http_origin;
mod index;
mod insert_body;
mod json;
mod key;
mod limits;
mod line_splitter;
mod media_type;
mod members;
mod names;
mod percent;
mod place;
mod problem;
mod problem_code;
mod query;
mod replay;
mod request;
mod route;
mod schema;
mod source;
mod source_action;
mod source_audit;
mod statistics;
mod stream;
mod stream_query;
mod subscription;
mod subscription_action;
mod subscription_reader;
mod subscription_writer;
mod table_data;
mod table_name;

pub mod envelope;
pub mod fuzz;

#[cfg(test)]
mod golden;

pub use bulk::{BulkWriter, MAX_REFUSED};
pub use capability::Capability;
pub use cors::{Cors, InvalidOrigin};
pub use declaration::Declaration;
pub use event::{EventRef, EventsWriter, Operation, OriginRef, event_id, write_captured, write_event};
pub use event_query::{EventQuery, Order};
pub use failure::{Failure, LATER_SECONDS, SOON_SECONDS};
pub use health::write_health;
pub use http_origin::{HttpOrigin, HttpScheme, NotAnOrigin, OriginHost};
pub use index::{Method, PathEntry, write_index};
pub use insert_body::InsertBody;
pub use key::{RowKey, joined_key};
pub use limits::Limits;
pub use line_splitter::{Line, LineSplitter};
pub use media_type::refuse_form;
pub use names::{ComponentName, SourceName, SubscriptionId};
pub use percent::path_segment;
pub use problem::Problem;
pub use problem_code::Code;
pub use replay::{ReplayRequest, ReplayedTable, write_replay_report};
pub use request::{BodyKind, InsertFormat, Request};
pub use route::{RequestHead, route};
pub use schema::{Column, ColumnType, Relation, TableSchema, write_schema, write_schema_history, write_schemas};
pub use source::{
    LastRepair, SourcePlace, SourceSelection, SourceState, SourceStatus, SourceTable, SourceTableState, write_source,
    write_source_selection, write_source_table, write_sources,
};
pub use source_action::{TableAction, TableChoice};
pub use source_audit::{
    AuditDifference, AuditRequest, AuditState, DifferenceKind, SourceAudit, TableAudit, write_source_audit,
    write_subscription_audit,
};
pub use statistics::{Statistics, write_statistics};
pub use stream::{EVENT_STREAM, write_stream_envelope, write_stream_error, write_stream_event, write_stream_position};
pub use stream_query::StreamQuery;
pub use subscription::{
    Batching, ComponentRef, DeadLetterPolicy, DeadLetters, Grants, GuestLimits, KeyValueQuota, Retry, SinkSpec, Start,
    Subscriber, SubscriptionSpec,
};
pub use subscription_action::{DeadLetterChoice, DeadLetterQuery, DryRun, Rewind, Rollback};
pub use table_data::{ReplicaWriter, SnapshotWriter};
pub use table_name::TableName;

/// The `Content-Type` of every answer but problems and metrics.
pub const JSON: &str = "application/json";

/// The `Content-Type` of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";
