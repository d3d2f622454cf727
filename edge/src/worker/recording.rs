//! A store that remembers what was committed last, so that the answer to a write shows its event without reading it
//! back.

use std::cell::RefCell;

use cdc_engine::event::TableSchema;
use cdc_engine::store::{Batch, FoundRows, Head, Settings, Store, StoreError};
use cdc_engine::texts::{Span, Texts};

pub(super) struct Recording<'a, S> {
    store: &'a S,
    /// The first event's sequence number, and what was written.
    committed: RefCell<Option<(u64, Batch)>>,
}

impl<'a, S> Recording<'a, S> {
    pub(super) fn new(store: &'a S) -> Self {
        Self { store, committed: RefCell::new(None) }
    }

    /// The batch that was committed, if there was one.
    pub(super) fn into_committed(self) -> Option<(u64, Batch)> {
        self.committed.into_inner()
    }
}

impl<S: Store> Store for Recording<'_, S> {
    type View = S::View;

    fn settings(&self) -> Settings {
        self.store.settings()
    }

    fn head(&self) -> Result<Head, StoreError> {
        self.store.head()
    }

    fn rows(&self, table: &str, keys: Vec<Span>, texts: Texts) -> Result<FoundRows, StoreError> {
        self.store.rows(table, keys, texts)
    }

    fn schema(&self, table: &str) -> Result<Option<TableSchema>, StoreError> {
        self.store.schema(table)
    }

    fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        let first = self.store.commit(batch.clone())?;
        *self.committed.borrow_mut() = Some((first, batch));
        Ok(first)
    }

    fn save_cursor(&self, subscription: &str, acknowledged: u64) -> Result<(), StoreError> {
        self.store.save_cursor(subscription, acknowledged)
    }

    fn view(&self) -> Result<S::View, StoreError> {
        self.store.view()
    }
}
