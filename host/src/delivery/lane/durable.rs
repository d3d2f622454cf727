//! What a lane makes durable: how far it is, what its guests have written, what was given up.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::super::slots;
use super::super::target::Target;
use super::{Interrupted, Lane};
use crate::guest::Usage;
use crate::store::{Document, Event, Sequence, StoreError};

/// A cursor that only passed over events is made durable this long after.
const PERSIST_EVERY: Duration = Duration::from_secs(1);
/// The pause after the store took no record: the disk is full, or a batch before failed.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);

impl Lane {
    /// Nothing was selected: notes now and then how far it has looked, and waits for more.
    pub(super) fn passed_over(&mut self, is_at_end: bool) -> Result<(), Interrupted> {
        if self.rows.is_some() {
            if is_at_end {
                self.rows = None;
                self.progress.snapshot = None;
                let done = self.progress.document(&self.cursor);
                self.commit(None, vec![done])?;
                self.shown().is_in_snapshot.store(false, Ordering::Release);
            }
            return Ok(());
        }
        if self.persisted_at.elapsed() >= PERSIST_EVERY {
            self.persist()?;
        }
        if is_at_end {
            let left =
                (self.scanned > self.position).then(|| PERSIST_EVERY.saturating_sub(self.persisted_at.elapsed()));
            self.wait(left);
        }
        Ok(())
    }

    pub(super) fn persist(&mut self) -> Result<(), Interrupted> {
        if self.rows.is_none() && self.raw.is_empty() && self.ready.is_empty() && self.scanned > self.position {
            self.commit(None, Vec::new())?;
        }
        Ok(())
    }

    /// Makes durable how far everything is done, with what the guests have written.
    pub(super) fn commit(&mut self, done: Option<&Event>, mut documents: Vec<Document>) -> Result<(), Interrupted> {
        let before = self.progress.clone();
        if let Some(filter) = &mut self.filter {
            let (writes, Usage { bytes, keys }) = filter.take_writes();
            documents.extend(writes);
            (self.progress.filter_keyvalue_bytes, self.progress.filter_keyvalue_keys) = (bytes, keys);
        }
        if let Target::Guest(guest) = &mut self.target {
            let (writes, Usage { bytes, keys }) = guest.take_writes();
            documents.extend(writes);
            (self.progress.keyvalue_bytes, self.progress.keyvalue_keys) = (bytes, keys);
        }
        let mut cursors = Vec::new();
        let mut position = self.position;
        if let Some(rows) = &mut self.rows {
            if let Some(done) = done {
                rows.acknowledge(done);
            }
            self.progress.snapshot = Some(rows.progress().clone());
        } else {
            let first = self.ready.front().or(self.raw.front()).map(|picked| picked.event().sequence - 1);
            position = first.unwrap_or(self.scanned);
            if position != self.position {
                cursors.push((self.cursor.clone(), position));
            }
        }
        if self.progress != before {
            documents.push(self.progress.document(&self.cursor));
        }
        if documents.is_empty() && cursors.is_empty() {
            return Ok(());
        }
        self.record(documents, cursors)?;
        self.position = position;
        self.persisted_at = Instant::now();
        self.shown().position.store(position, Ordering::Release);
        Ok(())
    }

    /// Makes documents and cursors durable, however long the disk is full.
    pub(super) fn record(&self, documents: Vec<Document>, cursors: Vec<(String, Sequence)>) -> Result<(), Interrupted> {
        slots::give_away();
        loop {
            let (done, outcome) = mpsc::channel();
            let tell = Box::new(move |result| drop(done.send(result)));
            // A full batch means that more is waiting; a small one is in no hurry.
            if self.is_behind {
                self.deps.ingest.record(documents.clone(), cursors.clone(), tell);
            } else {
                self.deps.ingest.record_soon(documents.clone(), cursors.clone(), tell);
            }
            match outcome.recv() {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error @ (StoreError::Full(_) | StoreError::GivenUp(_)))) => {
                    tracing::warn!(
                        subscription = self.subscription.id.as_str(), %error,
                        "what was delivered cannot be noted: delivery waits"
                    );
                    if self.subscription.control.is_stopping() {
                        return Err(Interrupted::Control);
                    }
                    std::thread::sleep(STORE_PAUSE);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_gone) => return Err(StoreError::Failed("the service is stopping".into()).into()),
            }
        }
    }

    /// Makes durable what a dead letter's delivery has changed, without a word on where the lane stands.
    pub(super) fn commit_apart(&mut self, mut documents: Vec<Document>) -> Result<(), Interrupted> {
        if let Target::Guest(guest) = &mut self.target {
            let (writes, Usage { bytes, keys }) = guest.take_writes();
            documents.extend(writes);
            if (bytes, keys) != (self.progress.keyvalue_bytes, self.progress.keyvalue_keys) {
                (self.progress.keyvalue_bytes, self.progress.keyvalue_keys) = (bytes, keys);
                documents.push(self.progress.document(&self.cursor));
            }
        }
        self.record(documents, Vec::new())
    }
}
