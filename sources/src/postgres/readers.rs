//! The threads that read tables: one for each lane, made when there is something to read, and gone with their
//! connections when there is not.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::Options;
use super::address::Address;
use super::queue::Shared;
use super::read::{Reader, Task};
use super::wire::{Connection, Purpose};
use crate::feed::FeedError;

/// What all readers have.
pub(super) struct Desk {
    pub(super) options: Arc<Options>,
    pub(super) address: Address,
    pub(super) shared: Arc<Shared>,
    /// What ids of rows without a key begin with.
    pub(super) id_prefix: String,
    /// For what is asked outside of a reader's transaction, and writes the messages that say where chunks are.
    beside: Mutex<Option<Connection>>,
}

/// Whoever reads.
pub(super) struct Readers {
    desk: Arc<Desk>,
    lanes: BTreeMap<usize, Sender<Task>>,
}

impl Desk {
    /// Opens a connection, which is cut off when everything stops.
    pub(super) fn connect(&self) -> Result<Connection, FeedError> {
        super::connect(&self.address, Purpose::Sql, Some(&self.shared))
    }

    /// Asks something over the connection that all share.
    pub(super) fn beside<T>(&self, ask: impl FnOnce(&mut Connection) -> Result<T, FeedError>) -> Result<T, FeedError> {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match &mut *beside {
            Some(connection) => connection,
            none => none.insert(self.connect()?),
        };
        let answer = ask(connection);
        if answer.is_err() {
            // It may be in the middle of an answer.
            *beside = None;
        }
        answer
    }

    /// How many bytes a chunk may have, so that all together stay within the limit.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.options.read_chunk_bytes / self.options.read_parallelism.max(1)
    }
}

impl Readers {
    pub(super) fn new(options: Arc<Options>, address: Address, shared: Arc<Shared>, id_prefix: String) -> Readers {
        let beside = Mutex::default();
        Readers { desk: Arc::new(Desk { options, address, shared, id_prefix, beside }), lanes: BTreeMap::new() }
    }

    pub(super) fn options(&self) -> &Options {
        &self.desk.options
    }

    /// Has a lane's reader do this next.
    pub(super) fn send(&mut self, lane: usize, task: Task) -> Result<(), FeedError> {
        if self.desk.options.snapshot {
            self.prepare(lane)?;
        }
        if let Some(reader) = self.lanes.get(&lane) {
            // One that died has said why.
            let _ = reader.send(task);
        }
        Ok(())
    }

    /// Has a lane's reader connect, unless it is there.
    pub(super) fn prepare(&mut self, lane: usize) -> Result<(), FeedError> {
        if let Entry::Vacant(vacant) = self.lanes.entry(lane) {
            let (reader, tasks) = channel();
            let desk = self.desk.clone();
            super::spawn("postgres-read", move || Reader::run(desk, lane, &tasks))?;
            vacant.insert(reader);
        }
        Ok(())
    }

    /// Lets those go that have nothing to read.
    pub(super) fn keep(&mut self, is_needed: impl Fn(usize) -> bool) {
        self.lanes.retain(|lane, _| is_needed(*lane));
        if self.lanes.is_empty()
            // Whoever is at it may have more to ask.
            && let Ok(mut beside) = self.desk.beside.try_lock()
            && let Some(mut connection) = beside.take()
        {
            connection.terminate(false);
        }
    }
}
