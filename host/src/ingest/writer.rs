//! The ingest thread: batches, the capturing instance, and the answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::{IngestError, Job, Receipt, Reply};
use crate::metrics::{Call, Held, Metrics, Role};
use crate::sandbox::{
    Captured, Change, Component, Declaration, DeclareError, EngineError, Instance, Settings, SourcePosition,
    TableSchema, WitStoreError,
};
use crate::store::{Batch, Sequence, Store, StoreError};

/// What the thread owns.
pub(super) struct Writer {
    component: Component,
    store: Arc<dyn Store>,
    settings: Settings,
    max_batch: usize,
    instance: Instance,
    metrics: Arc<Metrics>,
    _instance: Held,
}

/// Changes that came together.
struct Submission {
    changes: Vec<Change>,
    positions: Vec<SourcePosition>,
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
        Ok(Self { component, store, settings, max_batch, instance, metrics, _instance: held })
    }

    /// Works until every door is gone and the queue is empty.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut next = VecDeque::new();
        loop {
            if next.is_empty() {
                match jobs.recv() {
                    Ok(job) => next.push_back(job),
                    Err(_) => return,
                }
            }
            // What queued up while the last batch was captured comes along, up to the limit of a batch.
            let mut batch: Vec<Submission> = Vec::new();
            let mut changes = 0;
            loop {
                let Some(job) = next.pop_front().or_else(|| jobs.try_recv().ok()) else { break };
                match job {
                    Job::Changes { changes: more, positions, reply, room } => {
                        if changes > 0 && changes + more.len() > self.max_batch {
                            next.push_front(Job::Changes { changes: more, positions, reply, room });
                            break;
                        }
                        changes += more.len();
                        batch.push(Submission { changes: more, positions, reply, room });
                    }
                    other => {
                        next.push_front(other);
                        break;
                    }
                }
            }
            if !batch.is_empty() {
                self.capture(batch);
                continue;
            }
            match next.pop_front() {
                Some(Job::Declare { declaration, reply }) => self.declare(&declaration, reply),
                Some(Job::Cursor { subscription, acknowledged, reply }) => {
                    self.save_cursor(subscription, acknowledged, reply);
                }
                Some(changes @ Job::Changes { .. }) => next.push_front(changes),
                None => {}
            }
        }
    }

    fn capture(&mut self, submissions: Vec<Submission>) {
        let mut changes = Vec::with_capacity(submissions.iter().map(|submission| submission.changes.len()).sum());
        let mut positions = Vec::new();
        let mut waiting = Vec::with_capacity(submissions.len());
        for submission in submissions {
            let count = submission.changes.len();
            changes.extend(submission.changes);
            positions.extend(submission.positions);
            waiting.push(Waiting { changes: count, reply: submission.reply, room: submission.room });
        }
        match self.call(&changes, &positions) {
            Ok((captured, batch)) => self.commit(captured, batch, waiting),
            Err(error) if waiting.len() == 1 => self.fail(&error, waiting),
            Err(_) => {
                // One of them made the engine trap, or fail; which one, shows when each is captured alone.
                let mut changes = changes.into_iter();
                for (place, waiting) in waiting.into_iter().enumerate() {
                    let own: Vec<Change> = changes.by_ref().take(waiting.changes).collect();
                    // Positions belong to sources, whose submissions come alone.
                    let positions = if place == 0 { std::mem::take(&mut positions) } else { Vec::new() };
                    match self.call(&own, &positions) {
                        Ok((captured, batch)) => self.commit(captured, batch, vec![waiting]),
                        Err(error) => self.fail(&error, vec![waiting]),
                    }
                }
            }
        }
    }

    /// Calls the engine, and replaces the instance if it trapped.
    fn call(
        &mut self,
        changes: &[Change],
        positions: &[SourcePosition],
    ) -> Result<(Captured, Option<Batch>), IngestError> {
        let start = Instant::now();
        let called = self.instance.capture(changes, positions);
        self.metrics.engine.called(Call::Capture, start.elapsed());
        match called {
            Ok((Ok(captured), batch)) if captured.outcomes.len() == changes.len() => Ok((captured, batch)),
            Ok((Ok(captured), _)) => {
                let (given, expected) = (captured.outcomes.len(), changes.len());
                Err(IngestError::Engine(format!("the engine answered {given} outcomes for {expected} changes").into()))
            }
            Ok((Err(error), _)) => Err(store_error(error)),
            Err(error) => Err(self.trapped(&error)),
        }
    }

    fn trapped(&mut self, error: &EngineError) -> IngestError {
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
    fn commit(&self, captured: Captured, batch: Option<Batch>, waiting: Vec<Waiting>) {
        let Some(batch) = batch else {
            answer(captured, None, waiting, &self.metrics);
            return;
        };
        let batch = Arc::new(batch);
        let first = self.store.head().sequence + 1;
        // The answers wait here until the store calls back, or are failed when it does not take the batch.
        let pending = Arc::new(std::sync::Mutex::new(Some((captured, waiting))));
        let taken = pending.clone();
        let shared = batch.clone();
        let metrics = self.metrics.clone();
        let done = Box::new(move |durable: Result<(), StoreError>| {
            let Some((captured, waiting)) = taken.lock().ok().and_then(|mut pending| pending.take()) else { return };
            match durable {
                Ok(()) => answer(captured, Some((shared, first)), waiting, &metrics),
                Err(error) => refuse(&IngestError::Store(error), waiting, &metrics),
            }
        });
        match self.store.append(batch, done) {
            Ok(appended) => debug_assert_eq!(appended, first),
            Err(error) => {
                let pending = pending.lock().ok().and_then(|mut pending| pending.take());
                if let Some((_, waiting)) = pending {
                    self.fail(&IngestError::Store(error), waiting);
                }
            }
        }
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

    fn save_cursor(&self, subscription: String, acknowledged: Sequence, reply: Sender<Result<(), StoreError>>) {
        let batch = Batch {
            timestamp_ms: self.store.head().timestamp_ms,
            cursors: vec![(subscription, acknowledged)],
            ..Batch::default()
        };
        let refused = reply.clone();
        // Whoever asked may have given up waiting.
        let done = Box::new(move |saved| drop(reply.send(saved)));
        if let Err(error) = self.store.append(Arc::new(batch), done) {
            let _ = refused.send(Err(error));
        }
    }
}

fn store_error(error: WitStoreError) -> IngestError {
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
