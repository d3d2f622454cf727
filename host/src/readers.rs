//! Readers: instances of the engine that answer queries beside the one that captures.
//!
//! A few are kept and lent out for short calls. Whatever may take long (a snapshot, a replay) gets an instance of its
//! own, so that no query ever waits for one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{Call, Metrics};
use crate::sandbox::{Component, EngineError, Instance, SaveCursor, Settings};
use crate::store::{Bounds, Store};

/// An instance that has grown past this is not kept: linear memory never shrinks.
const KEEP_MEMORY_BYTES: usize = 8 << 20;

/// Makes instances, and keeps a few.
pub struct Readers {
    component: Component,
    store: Arc<dyn Store>,
    settings: Settings,
    save_cursor: Option<SaveCursor>,
    idle: Mutex<Vec<Instance>>,
    short: Semaphore,
    long: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

/// The right to one of the long calls.
#[derive(Debug)]
pub struct LongCall(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Readers {
    /// At most `short` queries and `long` snapshots or replays run at once.
    #[must_use]
    pub fn new(
        component: Component,
        store: Arc<dyn Store>,
        settings: Settings,
        save_cursor: Option<SaveCursor>,
        short: usize,
        long: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            component,
            store,
            settings,
            save_cursor,
            idle: Mutex::new(Vec::with_capacity(short)),
            short: Semaphore::new(short),
            long: Arc::new(Semaphore::new(long)),
            metrics,
        }
    }

    /// What the log holds now; none when that cannot be read.
    #[must_use]
    pub fn bounds(&self) -> Option<Bounds> {
        self.store.view().ok().map(|view| view.bounds())
    }

    /// A fresh instance.
    pub fn instance(&self) -> Result<Instance, EngineError> {
        Instance::new(&self.component, self.store.clone(), self.settings, self.save_cursor.clone())
    }

    /// Runs a short call on a kept instance, on this thread. An instance that trapped is dropped.
    pub async fn short<T>(&self, call: impl FnOnce(&mut Instance) -> Result<T, EngineError>) -> Result<T, EngineError> {
        // The semaphore is never closed; if it were, a query more at a time would do no harm.
        let _permit = self.short.acquire().await.ok();
        self.run(call)
    }

    /// Runs a call on a kept or fresh instance, on this thread, without waiting for a turn.
    pub fn run<T>(&self, call: impl FnOnce(&mut Instance) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut instance = match kept {
            Some(instance) => instance,
            None => self.instance()?,
        };
        let start = Instant::now();
        let outcome = call(&mut instance);
        self.metrics.engine.called(Call::Query, start.elapsed());
        match &outcome {
            Err(error) => {
                self.metrics.engine.traps.inc();
                tracing::error!(error = %format!("{error:#}"), "a reading instance failed and is dropped");
            }
            Ok(_) if instance.memory_bytes() <= KEEP_MEMORY_BYTES => {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < idle.capacity() {
                    idle.push(instance);
                }
            }
            Ok(_) => {}
        }
        outcome
    }

    /// The right to a long call, or none when as many as are allowed are under way.
    #[must_use]
    pub fn long(&self) -> Option<LongCall> {
        self.long.clone().try_acquire_owned().ok().map(LongCall)
    }
}
