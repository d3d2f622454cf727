//! One instance of the engine, and its calls.

use std::sync::Arc;

use wasmtime::component::ResourceAny;

use super::bindings::{self, exports::cdc::engine as exports};
use super::imports::{InstanceState, SaveCursor};
use super::texts::pack;
use super::{
    Captured, Change, Component, Declaration, DeclareError, Delivery, Event, EventPage, EventQuery, Followed, Portion,
    QueryError, ReplayReport, Selection, Settings, SnapshotError, SnapshotInfo, Statistics, SubscribeError,
    TableSchema, WitFollowError, WitStoreError,
};
use crate::store::{Batch, Store};

pub use bindings::cdc::engine::store::Row;

/// Why a call of the engine has no answer: not the caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No instance could be made.
    #[error("the engine cannot be instantiated: {0:#}")]
    NoInstance(wasmtime::Error),
    /// The component trapped. The instance is of no more use.
    #[error("the engine trapped in {call}: {source:#}")]
    Trapped {
        /// The function that was called.
        call: &'static str,
        /// The trap, with the component's own backtrace.
        source: wasmtime::Error,
    },
    /// The component answered what it must not. The instance is of no more use.
    #[error("the engine's answer in {call} has a span that is none of its texts")]
    WrongAnswer {
        /// The function that was called.
        call: &'static str,
    },
}

/// An instance of the engine. After an error it must be replaced.
pub struct Instance {
    store: wasmtime::Store<InstanceState>,
    engine: bindings::Engine,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

fn trapped(call: &'static str) -> impl FnOnce(wasmtime::Error) -> EngineError {
    move |source| EngineError::Trapped { call, source }
}

impl Instance {
    /// A fresh instance on a store. `save_cursor` is for instances that serve `acknowledge`.
    pub fn new(
        component: &Component,
        store: Arc<dyn Store>,
        settings: Settings,
        save_cursor: Option<SaveCursor>,
    ) -> Result<Self, EngineError> {
        let state = InstanceState::new(store, settings, save_cursor);
        let mut store = wasmtime::Store::new(&component.engine, state);
        store.limiter(|state| state);
        let engine = component.instance.instantiate(&mut store).map_err(EngineError::NoInstance)?;
        Ok(Self { store, engine })
    }

    /// How much linear memory it has, in bytes. Such memory only grows.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes
    }

    /// `capture.capture`, and the batch that it committed: to be given to the store, which makes it durable.
    pub fn capture(
        &mut self,
        changes: &[Change],
    ) -> Result<(Result<Captured, WitStoreError>, Option<Batch>), EngineError> {
        self.store.data_mut().committed = None;
        let capture = self.engine.cdc_engine_capture();
        let (changes, texts) = pack(changes);
        let captured =
            capture.call_capture(&mut self.store, &changes, &texts, &[]).map_err(trapped("capture.capture"))?;
        Ok((captured, self.store.data_mut().committed.take()))
    }

    /// `follow.follow`, and the batch that it committed: none if the portion was nothing at all.
    pub fn follow(
        &mut self,
        portion: &Portion,
    ) -> Result<(Result<Followed, WitFollowError>, Option<Batch>), EngineError> {
        self.store.data_mut().committed = None;
        let follow = self.engine.cdc_engine_follow();
        let followed = follow.call_follow(&mut self.store, portion.wit()).map_err(trapped("follow.follow"))?;
        Ok((followed, self.store.data_mut().committed.take()))
    }

    /// `capture.declare`, and the batch that it committed, if it changed anything.
    pub fn declare(
        &mut self,
        declaration: &Declaration,
    ) -> Result<(Result<TableSchema, DeclareError>, Option<Batch>), EngineError> {
        self.store.data_mut().committed = None;
        let capture = self.engine.cdc_engine_capture();
        let declared = capture.call_declare(&mut self.store, declaration).map_err(trapped("capture.declare"))?;
        Ok((declared, self.store.data_mut().committed.take()))
    }

    /// `query.events`.
    pub fn events(&mut self, query: &EventQuery) -> Result<Result<EventPage, QueryError>, EngineError> {
        let query_interface = self.engine.cdc_engine_query();
        let page = query_interface.call_events(&mut self.store, query).map_err(trapped("query.events"))?;
        match page.map(EventPage::checked) {
            Ok(Some(page)) => Ok(Ok(page)),
            Ok(None) => Err(EngineError::WrongAnswer { call: "query.events" }),
            Err(error) => Ok(Err(error)),
        }
    }

    /// `query.row`.
    pub fn row(&mut self, table: &str, key: &[String]) -> Result<Result<String, QueryError>, EngineError> {
        self.engine.cdc_engine_query().call_row(&mut self.store, table, key).map_err(trapped("query.row"))
    }

    /// `query.stats`.
    pub fn stats(&mut self) -> Result<Result<Statistics, QueryError>, EngineError> {
        self.engine.cdc_engine_query().call_stats(&mut self.store).map_err(trapped("query.stats"))
    }

    /// `query.schema`.
    pub fn schema(
        &mut self,
        table: &str,
        version: Option<u32>,
    ) -> Result<Result<TableSchema, QueryError>, EngineError> {
        self.engine.cdc_engine_query().call_schema(&mut self.store, table, version).map_err(trapped("query.schema"))
    }

    /// `query.schemas`.
    pub fn schemas(&mut self) -> Result<Result<Vec<TableSchema>, QueryError>, EngineError> {
        self.engine.cdc_engine_query().call_schemas(&mut self.store).map_err(trapped("query.schemas"))
    }

    /// `query.schema-history`.
    pub fn schema_history(&mut self, table: &str) -> Result<Result<Vec<TableSchema>, QueryError>, EngineError> {
        let query = self.engine.cdc_engine_query();
        query.call_schema_history(&mut self.store, table).map_err(trapped("query.schema-history"))
    }

    /// `subscribe.matcher`: whether each event is selected.
    pub fn matches(
        &mut self,
        selection: &Selection,
        events: &[Event],
    ) -> Result<Result<Vec<bool>, SubscribeError>, EngineError> {
        let subscribe = self.engine.cdc_engine_subscribe();
        let matcher = subscribe.matcher();
        let created = matcher.call_create(&mut self.store, selection).map_err(trapped("subscribe.matcher.create"))?;
        let matcher_resource = match created {
            Ok(resource) => resource,
            Err(error) => return Ok(Err(error)),
        };
        let matched = matcher
            .call_matches(&mut self.store, matcher_resource, events)
            .map_err(trapped("subscribe.matcher.matches"))?;
        matcher_resource.resource_drop(&mut self.store).map_err(trapped("subscribe.matcher.drop"))?;
        Ok(Ok(matched))
    }

    /// `subscribe.poll`.
    pub fn poll(
        &mut self,
        subscription: &str,
        selection: &Selection,
        max_events: u32,
    ) -> Result<Result<Delivery, SubscribeError>, EngineError> {
        let subscribe = self.engine.cdc_engine_subscribe();
        subscribe.call_poll(&mut self.store, subscription, selection, max_events).map_err(trapped("subscribe.poll"))
    }

    /// `subscribe.acknowledge`.
    pub fn acknowledge(&mut self, subscription: &str, up_to: u64) -> Result<Result<(), SubscribeError>, EngineError> {
        let subscribe = self.engine.cdc_engine_subscribe();
        subscribe.call_acknowledge(&mut self.store, subscription, up_to).map_err(trapped("subscribe.acknowledge"))
    }

    /// `snapshot.verify`.
    pub fn verify(
        &mut self,
        table: &str,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<Result<ReplayReport, SnapshotError>, EngineError> {
        let snapshot = self.engine.cdc_engine_snapshot();
        snapshot.call_verify(&mut self.store, table, from, to).map_err(trapped("snapshot.verify"))
    }

    /// `snapshot.table-snapshot.open`: takes the instance, which lives as long as the snapshot is read.
    pub fn snapshot(self, table: &str, at: Option<u64>) -> Result<Result<Snapshot, SnapshotError>, EngineError> {
        self.open(|snapshot, store| snapshot.call_open(store, table, at), "snapshot.table-snapshot.open")
    }

    /// `snapshot.table-snapshot.replay`: takes the instance, which lives as long as the snapshot is read.
    pub fn replica(self, table: &str) -> Result<Result<Snapshot, SnapshotError>, EngineError> {
        self.open(|snapshot, store| snapshot.call_replay(store, table), "snapshot.table-snapshot.replay")
    }

    fn open(
        mut self,
        open: impl FnOnce(
            exports::snapshot::GuestTableSnapshot<'_>,
            &mut wasmtime::Store<InstanceState>,
        ) -> wasmtime::Result<Result<ResourceAny, SnapshotError>>,
        call: &'static str,
    ) -> Result<Result<Snapshot, SnapshotError>, EngineError> {
        let interface = self.engine.cdc_engine_snapshot();
        let resource = match open(interface.table_snapshot(), &mut self.store).map_err(trapped(call))? {
            Ok(resource) => resource,
            Err(error) => return Ok(Err(error)),
        };
        let info = interface
            .table_snapshot()
            .call_info(&mut self.store, resource)
            .map_err(trapped("snapshot.table-snapshot.info"))?;
        Ok(Ok(Snapshot { instance: self, resource, info }))
    }
}

/// A table's rows, being read. The instance goes with it, and with the instance all that the snapshot held.
#[derive(Debug)]
pub struct Snapshot {
    instance: Instance,
    resource: ResourceAny,
    info: SnapshotInfo,
}

impl Snapshot {
    /// What it is a snapshot of.
    #[must_use]
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// The next rows; none at the end.
    pub fn next(&mut self, max_rows: u32, max_bytes: u32) -> Result<Result<Vec<Row>, WitStoreError>, EngineError> {
        let snapshot = self.instance.engine.cdc_engine_snapshot();
        snapshot
            .table_snapshot()
            .call_next(&mut self.instance.store, self.resource, max_rows, max_bytes)
            .map_err(trapped("snapshot.table-snapshot.next"))
    }
}
