//! Tests of sources by scripted feeds, over the real ingest and engine.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod audits;
mod budget;
mod following;
mod readings;
mod selection;
mod tables;
mod without_a_key;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cdc_rest::{SourceName, SourceState, SourceStatus, SourceTable, SourceTableState, TableAction, TableChoice};
use cdc_sources::{
    Action, Change, Checkpoint, Hold, Portion, Progress, Remedy, Rewrite, Step, Table, TableProgress, TableState,
};

use super::feeds::Opener;
use super::kept::{Held, Kept};
use super::scripted::{Line, Script, change, error, following, progress, table, with_value};
use super::shown::Shown;
use super::spec::{OnMaxRetained, SourceSpec};
use super::state::Phase;
use super::{SourceError, SourceUrl, Sources};
use crate::ingest::{Ingest, IngestOptions};
use crate::metrics::{Metrics, StoreFigures};
use crate::sandbox::{CompileWith, Component, SchemaMode, Settings};
use crate::store::{EventRange, MemoryStore, Store, View};

const NAME: &str = "shop";

/// A service of nothing but a source.
struct Stage {
    store: Arc<MemoryStore>,
    ingest: Ingest,
    script: Arc<Script>,
    sources: Sources,
}

fn component() -> Component {
    static COMPONENT: OnceLock<Component> = OnceLock::new();
    COMPONENT.get_or_init(|| Component::load(None, None, &CompileWith::ThisProcess).unwrap()).clone()
}

fn spec() -> SourceSpec {
    let url = SourceUrl::parse("postgres://cdc:secret@h/d").unwrap();
    let mut spec = SourceSpec::new(SourceName::parse(NAME).unwrap(), url);
    // So are the tables of scripts named.
    spec.selection.table_name = Some("{relation}".to_owned());
    spec
}

fn door(store: &Arc<MemoryStore>) -> Ingest {
    let settings = Settings {
        schema_mode: SchemaMode::Infer,
        max_row_bytes: 1 << 10,
        max_key_bytes: 512,
        max_depth: 128,
        max_columns: 1_000,
        max_tables: 1_000,
        max_name_bytes: 128,
        max_past_keys: 1_000_000,
    };
    let metrics = Arc::new(Metrics::new("0", Box::new(StoreFigures::default)));
    let options = IngestOptions { max_batch: 1_000, max_queue: 8_192 };
    Ingest::start(component(), store.clone(), settings, &options, metrics).unwrap().0
}

impl Stage {
    fn new(scenes: Vec<Result<Vec<Line>, cdc_sources::FeedError>>) -> Self {
        Self::on(MemoryStore::new(), spec(), Script::new(scenes))
    }

    fn on(store: Arc<MemoryStore>, spec: SourceSpec, script: Arc<Script>) -> Self {
        let ingest = door(&store);
        let openers = vec![(Opener::Scripted(script.clone()), spec)];
        let sources = Sources::start_with(store.clone(), ingest.clone(), openers).unwrap();
        Self { store, ingest, script, sources }
    }

    fn name() -> SourceName {
        SourceName::parse(NAME).unwrap()
    }

    fn status(&self) -> SourceStatus {
        self.sources.status(&Self::name()).unwrap()
    }

    /// Waits until the status is as it should be.
    async fn until(&self, what: &str, is_so: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        eventually(what, || Some(self.status()).filter(&is_so), || format!("{:?}", self.status())).await
    }

    async fn until_state(&self, state: SourceState) -> SourceStatus {
        self.until(state.as_str(), |status| status.state == state).await
    }

    /// Waits until this checkpoint is confirmed to the feed.
    async fn until_confirmed(&self, checkpoint: &str) {
        let is_there = || self.script.confirmed().iter().any(|known| known == checkpoint).then_some(());
        eventually(checkpoint, is_there, || format!("{:?} {:?}", self.script.confirmed(), self.status())).await;
    }

    /// How one table fares.
    fn table(&self, table: &str) -> SourceTable {
        self.sources.table(&Self::name(), table).unwrap()
    }

    async fn steer(&self, table: &str, action: TableAction) -> Result<(), SourceError> {
        self.sources.steer(&Self::name(), table, action).await
    }

    /// Waits until the feed has been opened so often.
    async fn until_openings(&self, count: usize) {
        let is_so = || (self.script.openings().len() >= count).then_some(());
        eventually("opened", is_so, || format!("{:?} {:?}", self.script.openings(), self.status())).await;
    }

    fn view(&self) -> Arc<dyn View> {
        self.store.view().unwrap()
    }

    /// `key=image` of each row.
    fn rows(&self, table: &str) -> Vec<String> {
        let rows = self.view().scan(table, None, 10_000, 1 << 30).unwrap();
        rows.iter().map(|row| String::from_utf8_lossy(&row.image).into_owned()).collect()
    }

    fn position(&self) -> Option<String> {
        self.view().position(NAME)
    }

    /// Operation and key of each event.
    fn events(&self) -> Vec<String> {
        let view = self.view();
        let range = EventRange {
            until: view.bounds().newest,
            max_events: 100_000,
            max_bytes: 1 << 30,
            ..EventRange::default()
        };
        let shown = |event: &crate::store::Event| {
            format!("{:?} {}", event.write.operation, String::from_utf8_lossy(&event.write.key))
        };
        view.events(&range).unwrap().events.iter().map(shown).collect()
    }

    fn kept(&self) -> Kept {
        Kept::read(&*self.view(), NAME).unwrap().unwrap_or_default()
    }
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>, shown: impl Fn() -> String) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "not {what}: {}", shown());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn portion(checkpoint: &str, steps: Vec<Step>) -> Line {
    Line::Portion(Portion { steps, checkpoint: Checkpoint(checkpoint.into()) })
}

fn changes(checkpoint: &str, changes: Vec<Change>) -> Line {
    let table = changes[0].table.clone();
    let described = std::iter::once(Step::Describe(table));
    portion(checkpoint, described.chain(changes.into_iter().map(Step::Change)).collect())
}

/// A table read whole: in one portion, or cut after the rows.
fn read(table: &Arc<Table>, keys: &[&str]) -> Vec<Step> {
    let rows = keys.iter().map(|key| Step::Change(change(table, Action::Read, key)));
    let began = [Step::Describe(table.clone()), Step::ReadBegan(table.clone())];
    began.into_iter().chain(rows).chain([Step::ReadDone(table.clone())]).collect()
}
