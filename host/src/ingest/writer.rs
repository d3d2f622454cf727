//! The ingest thread: batches, the capturing instance, and the answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::{IngestError, Job, Receipt, Record, Reply, records};
use crate::metrics::{Call, Held, Metrics, Role};
use crate::sandbox::{
    Captured, Change, Component, Declaration, DeclareError, EngineError, Instance, Settings, TableSchema, WitStoreError,
};
use crate::store::{Batch, Done, Sequence, Store, StoreError};

/// What the thread owns.
pub(super) struct Writer {
    component: Component,
    pub(super) store: Arc<dyn Store>,
    settings: Settings,
    max_batch: usize,
    pub(super) instance: Instance,
    pub(super) metrics: Arc<Metrics>,
    /// Records that wait for the next batch of changes, and since when.
    held: Vec<Record>,
    held_since: Option<Instant>,
    _instance: Held,
}

/// How long a record waits for changes at the most.
const HOLD: Duration = Duration::from_millis(5);

/// Changes that came together.
struct Submission {
    changes: Vec<Change>,
    reply: Reply<Receipt>,
    room: OwnedSemaphorePermit,
}

/// A submission whose changes are in a batch: so many of them.
struct Waiting {
    changes: usize,
    reply: Reply<Receipt>,
    /// Given back when the answer goes out.
    room: OwnedSemaphorePermit,
}

impl Writer {
    pub(super) fn new(
        component: Component,
        store: Arc<dyn Store>,
        settings: Settings,
        max_batch: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, EngineError> {
        let instance = Instance::new(&component, store.clone(), settings, None)?;
        let held = metrics.engine.instance(Role::Writer);
        Ok(Self {
            component,
            store,
            settings,
            max_batch,
            instance,
            metrics,
            held: Vec::new(),
            held_since: None,
            _instance: held,
        })
    }

    /// Works until every door is gone and the queue is empty.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut next = VecDeque::new();
        loop {
            if next.is_empty() {
                match self.receive(jobs) {
                    Ok(Some(job)) => next.push_back(job),
                    Ok(None) => {
                        self.commit_held();
                        continue;
                    }
                    Err(_gone) => {
                        self.commit_held();
                        return;
                    }
                }
            }
            // What queued up while the last batch was captured comes along, up to the limit of a batch.
            let mut batch: Vec<Submission> = Vec::new();
            let mut is_urgent = false;
            let mut has_records = false;
            let mut changes = 0;
            loop {
                let Some(job) = next.pop_front().or_else(|| jobs.try_recv().ok()) else { break };
                match job {
                    Job::Changes { changes: more, reply, room } => {
                        if changes > 0 && changes + more.len() > self.max_batch {
                            next.push_front(Job::Changes { changes: more, reply, room });
                            break;
                        }
                        changes += more.len();
                        batch.push(Submission { changes: more, reply, room });
                    }
                    Job::Record(record) => {
                        is_urgent |= !record.may_wait;
                        has_records = true;
                        self.held_since.get_or_insert_with(Instant::now);
                        self.held.push(record);
                    }
                    alone @ (Job::Declare { .. } | Job::Follow(_)) => {
                        next.push_front(alone);
                        break;
                    }
                }
            }
            // Records that wait become durable with what is captured.
            if !batch.is_empty() {
                self.capture(batch);
            } else {
                match next.pop_front() {
                    Some(Job::Declare { declaration, reply }) => self.declare(&declaration, reply),
                    Some(Job::Follow(followed)) => self.follow(followed),
                    Some(other) => next.push_front(other),
                    None => {}
                }
            }
            let is_over = self.held_since.is_some_and(|since| since.elapsed() >= HOLD);
            if is_urgent || is_over {
                self.commit_held();
            }
        }
    }

    /// The next job; none when records have waited long enough.
    fn receive(&self, jobs: &Receiver<Job>) -> Result<Option<Job>, RecvError> {
        let Some(since) = self.held_since else { return jobs.recv().map(Some) };
        match jobs.recv_timeout(HOLD.saturating_sub(since.elapsed())) {
            Ok(job) => Ok(Some(job)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(RecvError),
        }
    }

    fn commit_held(&mut self) {
        self.held_since = None;
        records::commit(&*self.store, std::mem::take(&mut self.held));
    }

    fn capture(&mut self, submissions: Vec<Submission>) {
        let mut changes = Vec::with_capacity(submissions.iter().map(|submission| submission.changes.len()).sum());
        let mut waiting = Vec::with_capacity(submissions.len());
        for submission in submissions {
            let count = submission.changes.len();
            changes.extend(submission.changes);
            waiting.push(Waiting { changes: count, reply: submission.reply, room: submission.room });
        }
        match self.call(&changes) {
            Ok((captured, batch)) => self.commit(captured, batch, waiting),
            Err(error) if waiting.len() == 1 => self.fail(&error, waiting),
            Err(_) => {
                // One of them made the engine trap, or fail; which one, shows when each is captured alone.
                let mut changes = changes.into_iter();
                for waiting in waiting {
                    let own: Vec<Change> = changes.by_ref().take(waiting.changes).collect();
                    match self.call(&own) {
                        Ok((captured, batch)) => self.commit(captured, batch, vec![waiting]),
                        Err(error) => self.fail(&error, vec![waiting]),
                    }
                }
            }
        }
    }

    /// Calls the engine, and replaces the instance if it trapped.
    fn call(&mut self, changes: &[Change]) -> Result<(Captured, Option<Batch>), IngestError> {
        let generation = self.store.head().schema_generation;
        let start = Instant::now();
        let called = self.instance.capture(changes);
        self.metrics.engine.called(Call::Capture, start.elapsed());
        match called {
            Ok((Ok(captured), mut batch)) if captured.outcomes.len() == changes.len() => {
                if let Some(batch) = &mut batch {
                    batch.generation = Some(generation);
                }
                Ok((captured, batch))
            }
            Ok((Ok(captured), _)) => {
                let (given, expected) = (captured.outcomes.len(), changes.len());
                Err(IngestError::Engine(format!("the engine answered {given} outcomes for {expected} changes").into()))
            }
            Ok((Err(error), _)) => Err(store_error(error)),
            Err(error) => Err(self.trapped(&error)),
        }
    }

    pub(super) fn trapped(&mut self, error: &EngineError) -> IngestError {
        self.metrics.engine.traps.inc();
        tracing::error!(error = %format!("{error:#}"), "the capturing instance failed and is replaced");
        match Instance::new(&self.component, self.store.clone(), self.settings, None) {
            Ok(instance) => self.instance = instance,
            // The failed one stays in place: its next call fails too, and this is tried again.
            Err(error) => tracing::error!(%error, "no new instance can be made"),
        }
        IngestError::Engine(error.to_string().into())
    }

    /// Gives a batch to the store, and the answers to whoever waits once it is durable.
    fn commit(&mut self, captured: Captured, batch: Option<Batch>, waiting: Vec<Waiting>) {
        let Some(mut batch) = batch else {
            answer(captured, None, waiting, &self.metrics);
            return;
        };
        let recorded = self.join_held(&mut batch);
        let batch = Arc::new(batch);
        let first = self.store.head().sequence + 1;
        // The answers wait here until the store calls back, or are failed when it does not take the batch.
        let pending = Arc::new(std::sync::Mutex::new(Some((captured, waiting, recorded))));
        let taken = pending.clone();
        let shared = batch.clone();
        let metrics = self.metrics.clone();
        let done = Box::new(move |durable: Result<(), StoreError>| {
            let taken = taken.lock().ok().and_then(|mut pending| pending.take());
            let Some((captured, waiting, recorded)) = taken else { return };
            recorded.into_iter().for_each(|done| done(durable.clone()));
            match durable {
                Ok(()) => answer(captured, Some((shared, first)), waiting, &metrics),
                Err(error) => refuse(&IngestError::Store(error), waiting, &metrics),
            }
        });
        match self.store.append(batch, done) {
            Ok(appended) => debug_assert_eq!(appended, first),
            Err(error) => {
                let pending = pending.lock().ok().and_then(|mut pending| pending.take());
                if let Some((_, waiting, recorded)) = pending {
                    recorded.into_iter().for_each(|done| done(Err(error.clone())));
                    self.fail(&IngestError::Store(error), waiting);
                }
            }
        }
    }

    /// Puts records that wait into a batch; answers whom to tell of it.
    pub(super) fn join_held(&mut self, batch: &mut Batch) -> Vec<Done> {
        let recorded = records::join(batch, &mut self.held);
        self.held_since = self.held_since.filter(|_| !self.held.is_empty());
        recorded
    }

    fn fail(&self, error: &IngestError, waiting: Vec<Waiting>) {
        refuse(error, waiting, &self.metrics);
    }

    fn declare(&mut self, declaration: &Declaration, reply: Reply<Result<TableSchema, DeclareError>>) {
        match self.instance.declare(declaration) {
            Err(error) => {
                let error = self.trapped(&error);
                let _ = reply.send(Err(error));
            }
            Ok((Ok(schema), Some(batch))) => {
                let reply = Arc::new(std::sync::Mutex::new(Some((schema, reply))));
                let taken = reply.clone();
                let finish = move |outcome: Result<(), StoreError>| {
                    if let Some((schema, reply)) = taken.lock().ok().and_then(|mut reply| reply.take()) {
                        let _ = reply.send(outcome.map(|()| Ok(schema)).map_err(IngestError::Store));
                    }
                };
                let done = finish.clone();
                if let Err(error) = self.store.append(Arc::new(batch), Box::new(done)) {
                    finish(Err(error));
                }
            }
            Ok((declared, _)) => {
                let _ = reply.send(Ok(declared));
            }
        }
    }
}

pub(super) fn store_error(error: WitStoreError) -> IngestError {
    match error {
        WitStoreError::Full(message) => IngestError::Store(StoreError::Full(message.into())),
        WitStoreError::Failed(message) => IngestError::EngineStore(message.into()),
        WitStoreError::Dropped(oldest) => IngestError::Store(StoreError::Dropped { oldest }),
    }
}

/// Each submission its part of the outcomes. A writer that is gone needs no answer.
fn answer(captured: Captured, batch: Option<(Arc<Batch>, Sequence)>, waiting: Vec<Waiting>, metrics: &Metrics) {
    let accepted = captured.outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
    metrics.ingest.batch_done(accepted, captured.outcomes.len() as u64 - accepted, 0);
    let timestamp_ms = captured.timestamp;
    let mut outcomes = captured.outcomes.into_iter();
    for Waiting { changes, reply, room } in waiting {
        let outcomes = outcomes.by_ref().take(changes).collect();
        drop(room);
        let _ = reply.send(Ok(Receipt { timestamp_ms, outcomes, batch: batch.clone() }));
    }
}

fn refuse(error: &IngestError, waiting: Vec<Waiting>, metrics: &Metrics) {
    metrics.ingest.batch_done(0, 0, waiting.iter().map(|waiting| waiting.changes as u64).sum());
    for Waiting { reply, room, .. } in waiting {
        drop(room);
        let _ = reply.send(Err(error.clone()));
    }
}
