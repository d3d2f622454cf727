//! Ingest: the single door for changes.
//!
//! One thread takes what has queued up, hands it to the capturing instance as one batch, gives what the engine
//! committed to the store, and answers every writer when the store says that it is durable. While the store syncs one
//! batch the next is being captured, so a client alone sees one sync and a thousand clients share it.
//!
//! Invariants:
//! - Nothing is answered before it is durable.
//! - Changes of one submission stay together and in order; submissions are captured in the order in which they came.
//! - Records (documents and cursors) take effect in the order in which they came. They pass changes that wait.
//! - A portion of a source is captured whole or not at all, in its turn, and only if the source's log has been captured up
//!   to where the portion goes on. So once a portion has failed, none behind it is captured.
//! - A batch that makes the engine trap is captured again one submission at a time, so only the guilty one fails.

mod portions;
mod records;
mod writer;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::metrics::Metrics;
use crate::sandbox::{
    Change, Component, Declaration, DeclareError, EngineError, Portion, Refusal, SaveCursor, Settings, TableSchema,
};
use crate::store::{Batch, Document, Done, Sequence, Store, StoreError, Write};
pub use portions::{FollowError, FollowReceipt};
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
    Changes { changes: Vec<Change>, reply: Reply<Receipt>, room: OwnedSemaphorePermit },
    Follow(Followed),
    Declare { declaration: Declaration, reply: Reply<Result<TableSchema, DeclareError>> },
    Record(Record),
}

/// A portion of a source.
struct Followed {
    portion: Portion,
    reply: oneshot::Sender<Result<FollowReceipt, FollowError>>,
    room: OwnedSemaphorePermit,
}

/// What a caller of `record` wants to be durable.
struct Record {
    documents: Vec<Document>,
    cursors: Vec<(String, Sequence)>,
    done: Done,
    /// Whether it may wait a little for changes, to be durable with them.
    may_wait: bool,
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
        let Ok(room) = self.room.clone().try_acquire_many_owned(self.weight(changes.len())) else {
            return Err(IngestError::QueueFull { waiting: self.waiting() });
        };
        self.send(changes, room)?.await.unwrap_or(Err(IngestError::Stopping))
    }

    /// Waits for room and submits changes; the answer can be awaited while more are submitted.
    pub async fn submit_when_room(
        &self,
        changes: Vec<Change>,
    ) -> Result<oneshot::Receiver<Result<Receipt, IngestError>>, IngestError> {
        let weight = self.weight(changes.len());
        let room = self.room.clone().acquire_many_owned(weight).await.map_err(|_| IngestError::Stopping)?;
        self.send(changes, room)
    }

    /// Waits for room and submits a portion of a source; what becomes of it can be awaited while the next are
    /// submitted. Portions are captured in the order in which they were submitted, each in one commit with its schemas
    /// and its checkpoint. When one fails, those behind it are not captured either: the source goes on from the
    /// checkpoint that the log has then ([`View::position`](crate::store::View::position)).
    pub async fn follow(
        &self,
        portion: Portion,
    ) -> Result<oneshot::Receiver<Result<FollowReceipt, FollowError>>, IngestError> {
        let weight = self.weight(portion.len());
        let room = self.room.clone().acquire_many_owned(weight).await.map_err(|_| IngestError::Stopping)?;
        let (reply, receipt) = oneshot::channel();
        let followed = Followed { portion, reply, room };
        self.queue.send(Job::Follow(followed)).map_err(|_| IngestError::Stopping)?;
        Ok(receipt)
    }

    fn weight(&self, changes: usize) -> u32 {
        // A submission that is larger than the queue waits for all of it.
        u32::try_from(changes.clamp(1, self.max_queue)).unwrap_or(u32::MAX)
    }

    fn send(
        &self,
        changes: Vec<Change>,
        room: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<Receipt, IngestError>>, IngestError> {
        let (reply, receipt) = oneshot::channel();
        self.queue.send(Job::Changes { changes, reply, room }).map_err(|_| IngestError::Stopping)?;
        Ok(receipt)
    }

    /// Declares or evolves a table's schema.
    pub async fn declare(&self, declaration: Declaration) -> Result<Result<TableSchema, DeclareError>, IngestError> {
        let (reply, declared) = oneshot::channel();
        self.queue.send(Job::Declare { declaration, reply }).map_err(|_| IngestError::Stopping)?;
        declared.await.unwrap_or(Err(IngestError::Stopping))
    }

    /// Makes documents and cursors durable, all of them together or none, after every record that came before. `done`
    /// is called once, from a thread of the store or of ingest (or from the caller's when the service is stopping), and
    /// must not block. Records that wait are committed together, without a call of the engine, beside changes and never
    /// in their way.
    ///
    /// It returns at once and refuses nothing for want of room. So that memory stays bounded, a caller has one record
    /// outstanding: it waits for `done` before it records again.
    pub fn record(&self, documents: Vec<Document>, cursors: Vec<(String, Sequence)>, done: Done) {
        self.send_record(Record { documents, cursors, done, may_wait: false });
    }

    /// The same, for what is in no hurry: it waits some milliseconds for changes, so that a service that captures a
    /// little at a time does not sync its log twice for each change.
    pub fn record_soon(&self, documents: Vec<Document>, cursors: Vec<(String, Sequence)>, done: Done) {
        self.send_record(Record { documents, cursors, done, may_wait: true });
    }

    fn send_record(&self, record: Record) {
        let job = Job::Record(record);
        if let Err(mpsc::SendError(Job::Record(refused))) = self.queue.send(job) {
            (refused.done)(Err(stopping()));
        }
    }

    /// The door for cursors, for reading instances. It blocks until the cursor is durable.
    #[must_use]
    pub fn save_cursor(&self) -> SaveCursor {
        let ingest = self.clone();
        Arc::new(move |subscription, acknowledged| {
            let (reply, saved) = mpsc::channel();
            // Whoever asked may have given up waiting.
            let done = Box::new(move |result| drop(reply.send(result)));
            ingest.record(Vec::new(), vec![(subscription, acknowledged)], done);
            saved.recv_timeout(Duration::from_secs(60)).map_err(|_| stopping())?
        })
    }

    /// How many changes wait or are being captured.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.max_queue - self.room.available_permits().min(self.max_queue)
    }
}

fn stopping() -> StoreError {
    StoreError::Failed("the service is stopping".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

    use super::*;
    use crate::metrics::StoreFigures;
    use crate::sandbox::{CompileWith, SchemaMode};
    use crate::store::MemoryStore;

    #[test]
    fn records_pass_a_queue_that_is_full_of_changes() {
        let component = Component::load(None, None, &CompileWith::ThisProcess).unwrap();
        let settings = Settings {
            schema_mode: SchemaMode::Infer,
            max_row_bytes: 1 << 20,
            max_key_bytes: 512,
            max_depth: 128,
            max_columns: 1_000,
            max_tables: 1_000,
            max_name_bytes: 128,
            max_past_keys: 1_000_000,
        };
        let store = MemoryStore::new();
        let metrics = Arc::new(Metrics::new("0", Box::new(StoreFigures::default)));
        let options = IngestOptions { max_batch: 10, max_queue: 3 };
        let (ingest, thread) = Ingest::start(component, store.clone(), settings, &options, metrics).unwrap();
        // As if three changes waited.
        let full = ingest.room.clone().try_acquire_many_owned(3).unwrap();
        assert_eq!(ingest.waiting(), 3);
        let (tell, told) = mpsc::channel();
        for i in 0..10u8 {
            let tell = tell.clone();
            let document = Document { collection: "c".into(), key: "k".into(), value: Some(vec![i].into()) };
            let done = Box::new(move |outcome: Result<(), StoreError>| tell.send((i, outcome)).unwrap());
            ingest.record(vec![document], vec![("s".into(), u64::from(i))], done);
        }
        for i in 0..10 {
            let (which, outcome) = told.recv_timeout(Duration::from_secs(60)).unwrap();
            outcome.unwrap();
            assert_eq!(which, i);
        }
        ingest.save_cursor()("r".to_owned(), 7).unwrap();
        let view = store.view().unwrap();
        assert_eq!(view.document("c", b"k").unwrap().unwrap(), vec![9]);
        assert_eq!((view.cursor("s"), view.cursor("r"), store.head().timestamp_ms), (Some(9), Some(7), 0));
        drop((full, ingest));
        thread.join().unwrap();
    }
}
