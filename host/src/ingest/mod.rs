//! Ingest: the single door for changes.
//!
//! One thread takes what has queued up, hands it to the capturing instance as one batch, gives what the engine
//! committed to the store, and answers every writer when the store says that it is durable. While the store syncs one
//! batch the next is being captured, so a client alone sees one sync and a thousand clients share it.
//!
//! Invariants:
//! - Nothing is answered before it is durable.
//! - Changes of one submission stay together and in order; submissions are captured in the order in which they came.
//! - A batch that makes the engine trap is captured again one submission at a time, so only the guilty one fails.

mod writer;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::metrics::Metrics;
use crate::sandbox::{
    Change, Component, Declaration, DeclareError, EngineError, Refusal, SaveCursor, Settings, SourcePosition,
    TableSchema,
};
use crate::store::{Batch, Sequence, Store, StoreError, Write};
use writer::Writer;

/// Why changes were not captured, none of them.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IngestError {
    /// As many changes as may wait are waiting.
    #[error("{waiting} changes are waiting already")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The store did not take them.
    #[error(transparent)]
    Store(StoreError),
    /// The engine reported that its store failed.
    #[error("{0}")]
    EngineStore(Arc<str>),
    /// The engine trapped on them.
    #[error("{0}")]
    Engine(Arc<str>),
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

/// What became of one submission.
#[derive(Debug)]
pub struct Receipt {
    /// The time of its events, in ms since 1970.
    pub timestamp_ms: u64,
    /// Per change, in order: its event's sequence number, or why it was refused.
    pub outcomes: Vec<Result<Sequence, Refusal>>,
    /// The batch that the events are in, and its first sequence number; none if every change was refused.
    batch: Option<(Arc<Batch>, Sequence)>,
}

impl Receipt {
    /// What was written as this event of the submission.
    #[must_use]
    pub fn write(&self, sequence: Sequence) -> Option<&Write> {
        let (batch, first) = self.batch.as_ref()?;
        batch.writes.get(usize::try_from(sequence.checked_sub(*first)?).ok()?)
    }
}

type Reply<T> = oneshot::Sender<Result<T, IngestError>>;

/// What waits for the ingest thread.
enum Job {
    Changes { changes: Vec<Change>, positions: Vec<SourcePosition>, reply: Reply<Receipt>, room: OwnedSemaphorePermit },
    Declare { declaration: Declaration, reply: Reply<Result<TableSchema, DeclareError>> },
    Cursor { subscription: String, acknowledged: Sequence, reply: mpsc::Sender<Result<(), StoreError>> },
}

/// How ingest is set up.
#[derive(Debug)]
pub struct IngestOptions {
    /// The most changes in one call of the engine.
    pub max_batch: usize,
    /// The most changes that may wait.
    pub max_queue: usize,
}

/// The door. Clones share it; the thread ends when the last is dropped.
#[derive(Clone)]
pub struct Ingest {
    queue: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    max_queue: usize,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").finish_non_exhaustive()
    }
}

impl Ingest {
    /// Starts the ingest thread. The handle's thread ends when every clone of the door is gone and all that had been
    /// submitted has been given to the store.
    pub fn start(
        component: Component,
        store: Arc<dyn Store>,
        settings: Settings,
        options: &IngestOptions,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, JoinHandle<()>), EngineError> {
        let (queue, jobs) = mpsc::channel();
        let writer = Writer::new(component, store, settings, options.max_batch, metrics)?;
        let thread = std::thread::Builder::new()
            .name("ingest".to_owned())
            .spawn(move || writer.run(&jobs))
            .map_err(|error| EngineError::NoInstance(error.into()))?;
        let room = Arc::new(Semaphore::new(options.max_queue));
        Ok((Self { queue, room, max_queue: options.max_queue }, thread))
    }

    /// Captures changes that came together, or refuses at once when there is no room for them in the queue.
    pub async fn submit(&self, changes: Vec<Change>) -> Result<Receipt, IngestError> {
        let Ok(room) = self.room.clone().try_acquire_many_owned(self.weight(&changes)) else {
            return Err(IngestError::QueueFull { waiting: self.waiting() });
        };
        self.send(changes, room)?.await.unwrap_or(Err(IngestError::Stopping))
    }

    /// Waits for room and submits changes; the answer can be awaited while more are submitted.
    pub async fn submit_when_room(
        &self,
        changes: Vec<Change>,
    ) -> Result<oneshot::Receiver<Result<Receipt, IngestError>>, IngestError> {
        let weight = self.weight(&changes);
        let room = self.room.clone().acquire_many_owned(weight).await.map_err(|_| IngestError::Stopping)?;
        self.send(changes, room)
    }

    fn weight(&self, changes: &[Change]) -> u32 {
        // A submission that is larger than the queue waits for all of it.
        u32::try_from(changes.len().clamp(1, self.max_queue)).unwrap_or(u32::MAX)
    }

    fn send(
        &self,
        changes: Vec<Change>,
        room: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<Receipt, IngestError>>, IngestError> {
        let (reply, receipt) = oneshot::channel();
        let job = Job::Changes { changes, positions: Vec::new(), reply, room };
        self.queue.send(job).map_err(|_| IngestError::Stopping)?;
        Ok(receipt)
    }

    /// Declares or evolves a table's schema.
    pub async fn declare(&self, declaration: Declaration) -> Result<Result<TableSchema, DeclareError>, IngestError> {
        let (reply, declared) = oneshot::channel();
        self.queue.send(Job::Declare { declaration, reply }).map_err(|_| IngestError::Stopping)?;
        declared.await.unwrap_or(Err(IngestError::Stopping))
    }

    /// The door for cursors, for reading instances. It blocks until the cursor is durable.
    #[must_use]
    pub fn save_cursor(&self) -> SaveCursor {
        let queue = self.queue.clone();
        Arc::new(move |subscription, acknowledged| {
            let gone = || StoreError::Failed("the service is stopping".into());
            let (reply, saved) = mpsc::channel();
            queue.send(Job::Cursor { subscription, acknowledged, reply }).map_err(|_| gone())?;
            saved.recv_timeout(Duration::from_secs(60)).map_err(|_| gone())?
        })
    }

    /// How many changes wait or are being captured.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.max_queue - self.room.available_permits().min(self.max_queue)
    }
}
