//! The subscriptions of the service: made, changed, looked at, stopped.
//!
//! Every change is durable before it is answered, and before a lane acts on it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use cdc_rest::{ComponentRef, Start, Subscriber, SubscriptionId, SubscriptionSpec};

use super::builtin::BuiltIn;
use super::deps::{Deps, now_ms};
use super::error::SubscriptionError;
use super::records::{self, Definition, Progress, SnapshotProgress};
use super::sink;
use super::subscription::{Control, Figures, LaneState, Subscription};
use super::threads::{self, Running};
use crate::selection::Selection;
use crate::store::{Document, Sequence, StoreError, View};

/// How long a lane may take to end when its subscription is changed.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// All subscriptions.
pub struct Subscriptions {
    pub(super) deps: Arc<Deps>,
    max_subscriptions: usize,
    entries: Mutex<BTreeMap<SubscriptionId, Entry>>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions").finish_non_exhaustive()
    }
}

struct Entry {
    subscription: Arc<Subscription>,
    running: Arc<Running>,
}

impl Subscriptions {
    /// Opens what the store has, applies what the configuration declares, and starts to deliver.
    pub(super) fn open(
        deps: Arc<Deps>,
        max_subscriptions: usize,
        declared: Vec<(SubscriptionId, SubscriptionSpec)>,
    ) -> Result<Self, SubscriptionError> {
        let this = Self { deps, max_subscriptions, entries: Mutex::default(), changing: Mutex::new(()) };
        for (id, definition) in this.read_definitions()? {
            let is_declared = declared.iter().any(|(declared, _)| *declared == id);
            if definition.is_declared && !is_declared {
                tracing::info!(subscription = id.as_str(), "no longer declared in the configuration: removed");
                this.record(this.removal(&id, &definition)?)?;
                continue;
            }
            if is_declared {
                continue;
            }
            this.reopen(&id, definition)?;
        }
        for (id, spec) in declared {
            let kept = this.read_definition(&id)?;
            this.apply(&id, spec, kept, true).map_err(|error| error.of(&id))?;
        }
        Ok(this)
    }

    fn read_definitions(&self) -> Result<Vec<(SubscriptionId, Definition)>, SubscriptionError> {
        let view = self.deps.store.view()?;
        let mut definitions = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = view.documents(records::DEFINITIONS, after.as_deref(), 256, 1 << 20)?;
            let Some(last) = page.last() else { return Ok(definitions) };
            after = Some(last.key.to_vec());
            for row in &page {
                let Ok(id) = SubscriptionId::parse(&String::from_utf8_lossy(&row.key)) else { continue };
                let definition = serde_json::from_slice(&row.image);
                definitions.push((id.clone(), definition.map_err(|source| SubscriptionError::damaged(&id, source))?));
            }
        }
    }

    fn read_definition(&self, id: &SubscriptionId) -> Result<Option<Definition>, SubscriptionError> {
        let found = self.deps.store.view()?.document(records::DEFINITIONS, id.as_str().as_bytes())?;
        let read = |bytes: bytes::Bytes| serde_json::from_slice(&bytes);
        found.map(read).transpose().map_err(|source| SubscriptionError::damaged(id, source))
    }

    /// Goes on with a subscription as the store has it. One that cannot go on is shown with why, and harms no other.
    fn reopen(&self, id: &SubscriptionId, definition: Definition) -> Result<(), SubscriptionError> {
        let spec = SubscriptionSpec::parse(definition.spec.get().as_bytes());
        let spec = spec
            .map_err(|problem| SubscriptionError::Unreadable { id: id.clone(), reason: problem.detail().to_owned() })?;
        let selection = compile(&spec).map_err(|error| error.of(id))?;
        self.start(id, spec, selection, definition, Arc::default())
    }

    /// Makes a subscription, or changes one. Answers whether it is new.
    pub fn put(&self, id: &SubscriptionId, spec: SubscriptionSpec) -> Result<bool, SubscriptionError> {
        let _changing = self.change();
        let kept = self.read_definition(id)?;
        if kept.as_ref().is_some_and(|kept| kept.is_declared) {
            return Err(SubscriptionError::Declared(id.clone()));
        }
        self.apply(id, spec, kept, false)
    }

    fn apply(
        &self,
        id: &SubscriptionId,
        spec: SubscriptionSpec,
        kept: Option<Definition>,
        is_declared: bool,
    ) -> Result<bool, SubscriptionError> {
        let selection = compile(&spec)?;
        self.check(&spec, is_declared)?;
        let is_new = kept.is_none();
        if is_new && self.lock().len() >= self.max_subscriptions {
            return Err(SubscriptionError::TooMany { limit: self.max_subscriptions });
        }
        let spec_json = Definition::spec_json(&spec);
        let mut documents = Vec::new();
        let mut cursors = Vec::new();
        let definition = match kept {
            Some(kept) => {
                let was_declared_so = kept.is_declared == is_declared && kept.spec.get() == spec_json.get();
                if was_declared_so && self.lock().contains_key(id) {
                    return Ok(false);
                }
                self.end_lanes(id)?;
                let lanes = self.relane(id, &kept, spec.lanes, &mut documents, &mut cursors)?;
                let is_paused = if is_declared { kept.is_paused || spec.paused } else { spec.paused };
                let is_relaned = kept.lanes != lanes;
                let mut definition =
                    Definition { spec: spec_json, is_declared, is_paused, stopped: None, lanes, ..kept };
                if is_relaned {
                    definition.raise_epoch();
                }
                definition
            }
            None => {
                let (position, snapshot) = self.beginning(spec.start)?;
                for lane in 0..spec.lanes {
                    cursors.push((records::cursor(id, lane), position));
                    let progress = Progress { snapshot: snapshot.clone(), ..Progress::default() };
                    documents.push(progress.document(&records::cursor(id, lane)));
                }
                let created_ms = now_ms();
                Definition {
                    spec: spec_json,
                    is_declared,
                    created_ms,
                    started_after: position,
                    is_paused: spec.paused,
                    stopped: None,
                    lanes: spec.lanes,
                    epoch: created_ms,
                }
            }
        };
        documents.push(definition.document(id));
        self.record((documents, cursors))?;
        let figures = self.lock().remove(id).map_or_else(Arc::default, |entry| entry.subscription.figures.clone());
        self.start(id, spec, selection, definition, figures)?;
        Ok(is_new)
    }

    /// What has to hold before a subscription can be made.
    fn check(&self, spec: &SubscriptionSpec, is_declared: bool) -> Result<(), SubscriptionError> {
        let world = |reference: &ComponentRef| {
            let version = self.deps.components.version(&reference.name, reference.version)?;
            Ok::<_, SubscriptionError>(version.world)
        };
        if let Some(filter) = &spec.filter {
            let world = world(filter)?;
            if world == "handler" {
                return Err(SubscriptionError::NotAFilter(filter.name.clone()));
            }
        }
        match &spec.subscriber {
            Subscriber::Component(component) => drop(world(component)?),
            Subscriber::Builtin(name) => drop(BuiltIn::parse(name)?),
            Subscriber::Sink(spec) => sink::settings(spec)?.fits_reach(&self.deps.reach(is_declared))?,
        }
        if spec.lanes > 1 && spec.grants.keyvalue.is_some() {
            return Err(SubscriptionError::KeyvalueInLanes);
        }
        Ok(())
    }

    /// Where a new subscription begins.
    fn beginning(&self, start: Start) -> Result<(Sequence, Option<SnapshotProgress>), SubscriptionError> {
        let bounds = self.deps.store.view()?.bounds();
        Ok(match start {
            Start::Now => (bounds.newest, None),
            Start::Beginning => (bounds.oldest.saturating_sub(1), None),
            Start::Snapshot => {
                let snapshot = SnapshotProgress { at: bounds.newest, table: String::new(), after: None };
                (bounds.newest, (bounds.newest > 0).then_some(snapshot))
            }
            Start::At(first) => {
                if first < bounds.oldest {
                    return Err(StoreError::Dropped { oldest: bounds.oldest }.into());
                }
                if first > bounds.newest + 1 {
                    return Err(SubscriptionError::InTheFuture { newest: bounds.newest });
                }
                (first - 1, None)
            }
        })
    }

    /// Cursors for another number of lanes: all begin where the slowest was.
    fn relane(
        &self,
        id: &SubscriptionId,
        kept: &Definition,
        lanes: u16,
        documents: &mut Vec<Document>,
        cursors: &mut Vec<(String, Sequence)>,
    ) -> Result<u16, SubscriptionError> {
        if kept.lanes == lanes {
            return Ok(lanes);
        }
        let view = self.deps.store.view()?;
        let names = |count: u16| (0..count).map(|lane| records::cursor(id, lane)).collect::<Vec<_>>();
        let slowest = names(kept.lanes).iter().filter_map(|name| view.cursor(name)).min().unwrap_or(kept.started_after);
        let mut snapshots = Vec::new();
        for name in names(kept.lanes) {
            snapshots.push(read_progress(&*view, &name)?.snapshot);
        }
        // Lanes that are done with the snapshot wait for those that are not, and see its rest again.
        let snapshot =
            snapshots.iter().flatten().min_by(|a, b| (&a.table, &a.after).cmp(&(&b.table, &b.after))).cloned();
        let usage = read_progress(&*view, &records::cursor(id, 0))?;
        for name in names(kept.lanes).into_iter().skip(usize::from(lanes)) {
            documents.push(records::remove(records::PROGRESS, name.as_bytes()));
            cursors.push((name, Sequence::MAX));
        }
        for name in names(lanes) {
            documents.push(Progress { snapshot: snapshot.clone(), ..usage.clone() }.document(&name));
            cursors.push((name, slowest));
        }
        Ok(lanes)
    }

    fn start(
        &self,
        id: &SubscriptionId,
        spec: SubscriptionSpec,
        selection: Selection,
        definition: Definition,
        figures: Arc<Figures>,
    ) -> Result<(), SubscriptionError> {
        let lanes = usize::from(definition.lanes);
        let subscription = Arc::new(Subscription {
            id: id.clone(),
            control: Control::new(definition.is_paused, lanes),
            definition: Mutex::new(definition),
            selection,
            figures,
            lanes: (0..lanes).map(|_| super::subscription::Lane::default()).collect(),
            refused: Mutex::new(VecDeque::new()),
            audit: Mutex::new(None),
            spec,
        });
        let running = Arc::new(Running::default());
        for lane in 0..lanes {
            let lane = threads::open(&self.deps, &subscription, lane)?;
            threads::spawn(lane, &running).map_err(SubscriptionError::Thread)?;
        }
        self.lock().insert(id.clone(), Entry { subscription, running });
        Ok(())
    }

    /// Forgets a subscription: its cursor, its dead letters, what its component keeps.
    pub fn remove(&self, id: &SubscriptionId) -> Result<(), SubscriptionError> {
        let _changing = self.change();
        let definition = self.read_definition(id)?.ok_or_else(|| SubscriptionError::Unknown(id.clone()))?;
        if definition.is_declared {
            return Err(SubscriptionError::Declared(id.clone()));
        }
        self.end_lanes(id)?;
        self.record(self.removal(id, &definition)?)?;
        self.lock().remove(id);
        Ok(())
    }

    fn removal(&self, id: &SubscriptionId, definition: &Definition) -> Result<Recorded, StoreError> {
        let mut documents = vec![records::remove(records::DEFINITIONS, id.as_str().as_bytes())];
        let collections = [records::dead_letters(id), records::keyvalue(id, false), records::keyvalue(id, true)];
        documents.extend(collections.iter().map(|collection| records::remove(collection, b"")));
        let mut cursors = Vec::new();
        for lane in 0..definition.lanes {
            let cursor = records::cursor(id, lane);
            documents.push(records::remove(records::PROGRESS, cursor.as_bytes()));
            cursors.push((cursor, Sequence::MAX));
        }
        Ok((documents, cursors))
    }

    /// Pauses or resumes. A subscription that had stopped by itself goes on.
    pub fn pause(&self, id: &SubscriptionId, is_paused: bool) -> Result<(), SubscriptionError> {
        let _changing = self.change();
        let subscription = self.get(id)?;
        let document = {
            let mut definition = subscription.definition();
            definition.is_paused = is_paused;
            if !is_paused {
                definition.stopped = None;
            }
            definition.document(id)
        };
        self.record((vec![document], Vec::new()))?;
        if !is_paused {
            for lane in &subscription.lanes {
                if matches!(lane.state(), LaneState::Stopped { .. }) {
                    lane.set(LaneState::Running);
                }
            }
        }
        subscription.control.pause(is_paused);
        Ok(())
    }

    /// Goes back, or ahead: the next event delivered is the one after `after`.
    pub fn rewind(&self, id: &SubscriptionId, to: RewindTo) -> Result<Sequence, SubscriptionError> {
        let _changing = self.change();
        let subscription = self.get(id)?;
        let start = match to {
            RewindTo::Now => Start::Now,
            RewindTo::Beginning => Start::Beginning,
            RewindTo::Event(first) => Start::At(first),
        };
        let (position, _) = self.beginning(start)?;
        self.end_lanes(id)?;
        let mut definition = subscription.definition().clone();
        definition.stopped = None;
        definition.raise_epoch();
        definition.started_after = definition.started_after.min(position);
        let view = self.deps.store.view()?;
        let mut documents = vec![definition.document(id)];
        let mut cursors = Vec::new();
        for lane in 0..definition.lanes {
            let cursor = records::cursor(id, lane);
            let progress = Progress { snapshot: None, ..read_progress(&*view, &cursor)? };
            documents.push(progress.document(&cursor));
            cursors.push((cursor, position));
        }
        self.record((documents, cursors))?;
        let figures = subscription.figures.clone();
        let selection = compile(&subscription.spec)?;
        self.lock().remove(id);
        self.start(id, subscription.spec.clone(), selection, definition, figures)?;
        Ok(position + 1)
    }

    /// Ends the lanes of a subscription and waits for it.
    fn end_lanes(&self, id: &SubscriptionId) -> Result<(), SubscriptionError> {
        let Some(running) = self.lock().get(id).map(|entry| {
            entry.subscription.control.stop();
            entry.running.clone()
        }) else {
            return Ok(());
        };
        if running.wait(CHANGE_TIMEOUT) { Ok(()) } else { Err(SubscriptionError::Busy(id.clone())) }
    }

    /// Ends every lane, each after the batch that it is at. Answers how many subscriptions were not done in time.
    pub fn stop(&self, longest: Duration) -> usize {
        let _changing = self.change();
        let entries: Vec<Arc<Running>> = self
            .lock()
            .values()
            .map(|entry| {
                entry.subscription.control.stop();
                entry.running.clone()
            })
            .collect();
        let until = Instant::now() + longest;
        entries.iter().filter(|running| !running.wait(until.saturating_duration_since(Instant::now()))).count()
    }

    pub(super) fn get(&self, id: &SubscriptionId) -> Result<Arc<Subscription>, SubscriptionError> {
        let entries = self.lock();
        let entry = entries.get(id).ok_or_else(|| SubscriptionError::Unknown(id.clone()))?;
        Ok(entry.subscription.clone())
    }

    pub(super) fn all(&self) -> Vec<Arc<Subscription>> {
        self.lock().values().map(|entry| entry.subscription.clone()).collect()
    }

    /// Who uses a component.
    #[must_use]
    pub fn users_of(&self, name: &cdc_rest::ComponentName) -> Vec<SubscriptionId> {
        let uses = |spec: &SubscriptionSpec| {
            let filters = spec.filter.as_ref().is_some_and(|filter| filter.name == *name);
            filters || matches!(&spec.subscriber, Subscriber::Component(component) if component.name == *name)
        };
        self.all().iter().filter(|found| uses(&found.spec)).map(|found| found.id.clone()).collect()
    }

    pub(super) fn record(&self, (documents, cursors): Recorded) -> Result<(), StoreError> {
        let (done, outcome) = mpsc::channel();
        self.deps.ingest.record(documents, cursors, Box::new(move |result| drop(done.send(result))));
        outcome.recv().unwrap_or_else(|_| Err(StoreError::Failed("the service is stopping".into())))
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SubscriptionId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Documents and cursors that are made durable together.
pub(super) type Recorded = (Vec<Document>, Vec<(String, Sequence)>);

/// Where to rewind to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewindTo {
    /// Behind the newest event.
    Now,
    /// Before the oldest event that is kept.
    Beginning,
    /// Before this event.
    Event(Sequence),
}

pub(super) fn read_progress(view: &dyn View, cursor: &str) -> Result<Progress, StoreError> {
    let found = view.document(records::PROGRESS, cursor.as_bytes())?;
    let read = |bytes: bytes::Bytes| {
        let damaged = |error| StoreError::Corrupt(format!("the progress of {cursor} cannot be read: {error}").into());
        serde_json::from_slice(&bytes).map_err(damaged)
    };
    found.map_or_else(|| Ok(Progress::default()), read)
}

pub(super) fn compile(spec: &SubscriptionSpec) -> Result<Selection, SubscriptionError> {
    let operations: Vec<_> = spec.operations.iter().map(|operation| super::error::operation(*operation)).collect();
    Ok(Selection::compile(&spec.tables, &operations, spec.condition.as_deref())?)
}
