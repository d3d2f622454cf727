//! The sandbox: the engine component, compiled, linked with the store and nothing else, and called.
//!
//! It knows the WIT bindings and the [`Store`](crate::store::Store) that it hands to the component, and decides
//! nothing. The engine crate is not linked: what runs is the component's bytes.
//!
//! Invariants:
//! - An instance that trapped is never called again.
//! - The component gets no file, socket, environment or argument; its output goes to the log.

mod bindings;
mod compile;
mod imports;
mod instance;
mod portion;
mod schemas;
mod texts;

pub use crate::native_code::CompileWith;
pub use bindings::cdc::engine::store::{Bounds, SchemaMode, Settings, SourcePosition, StoreError as WitStoreError};
pub use bindings::cdc::event::types::{Column, ColumnType, Event, Operation, Origin, Relation, TableSchema};
pub use bindings::exports::cdc::engine::capture::{Action, Captured, Declaration, DeclareError, Refusal, RefusalCode};
pub use bindings::exports::cdc::engine::follow::{
    Action as FollowAction, Described, FollowError as WitFollowError, Followed, RefusedChange,
};
pub use bindings::exports::cdc::engine::query::{EventQuery, Order, QueryError, Statistics};
pub use bindings::exports::cdc::engine::snapshot::{ReplayReport, SnapshotError, SnapshotInfo};
pub use bindings::exports::cdc::engine::subscribe::{Delivery, Selection, SubscribeError};
pub use compile::{COMPILE_ENGINE, Component, LoadError, built_in_component, precompile};
pub use imports::SaveCursor;
pub use instance::{EngineError, Instance, Row, Snapshot};
pub use portion::{FollowChange, Portion};
pub use schemas::{rest_schema, wit_column};
pub use texts::{Change, EventPage, EventView, OriginView};
