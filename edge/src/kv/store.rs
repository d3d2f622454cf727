//! The capturing side.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use cdc_engine::event::{Operation, TableSchema};
use cdc_engine::store::{self, Batch, FoundRows, Settings, Store, StoreError, TableCount};
use cdc_engine::texts::{Span, Texts};

use super::head::Head;
use super::tree::{Pages, apply, store_error};
use super::view::{KeyValueView, newest_schema};
use super::{KeyValue, records};

/// Edits of the tree, each key once and in byte order.
type Edits = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What the embedder decided.
#[derive(Clone, Debug)]
pub struct KeyValueOptions {
    /// The engine's settings.
    pub settings: Settings,
    /// The log keeps this many of the newest events, and up to a tenth more.
    pub max_events: u64,
}

/// The engine's store over a key-value store.
#[derive(Debug)]
pub struct KeyValueStore<K> {
    options: KeyValueOptions,
    pub(super) pages: Rc<Pages<K>>,
    /// What the write at hand is decided on.
    base: RefCell<Head>,
}

impl<K: KeyValue> KeyValueStore<K> {
    /// The store that the provider holds.
    pub fn new(provider: K, options: KeyValueOptions) -> Self {
        Self { options, pages: Rc::new(Pages::new(Rc::new(provider))), base: RefCell::default() }
    }

    fn provider(&self) -> &K {
        &self.pages.provider
    }

    /// The edits of a batch, and the head that it makes.
    fn edits(&self, batch: Batch, base: &Head) -> Result<(Edits, Head), StoreError> {
        let mut head = base.clone();
        if !batch.writes.is_empty() {
            head.timestamp_ms = batch.timestamp_ms;
        }
        let mut edits = Edits::new();
        for schema in batch.schemas {
            head.schema_generation += 1;
            head.tables += u64::from(schema.version == 1);
            edits.insert(records::schema_key(&schema.name, schema.version), Some(records::encode_schema(schema)));
        }
        let mut counts: BTreeMap<&str, TableCount> = BTreeMap::new();
        for write in &batch.writes {
            head.sequence += 1;
            let (table, key) = (batch.texts.text(write.table)?, batch.texts.text(write.key)?);
            let event = records::encode_event(write, batch.timestamp_ms, &batch.texts)?;
            edits.insert(records::event_key(head.sequence), Some(event));
            let image = write.after.map(|image| batch.texts.text(image)).transpose()?;
            edits.insert(records::row_key(table, key), image.map(|image| image.as_bytes().to_vec()));
            if !counts.contains_key(table) {
                let kept = self.pages.get(base.root, &records::counter_key(table))?;
                counts.insert(table, records::decode_count(table, kept.as_deref())?);
            }
            if let Some(count) = counts.get_mut(table) {
                match write.operation {
                    Operation::Insert => count.inserts += 1,
                    Operation::Update => count.updates += 1,
                    Operation::Delete => count.deletes += 1,
                    Operation::Truncate => count.truncates += 1,
                }
            }
        }
        for (table, count) in counts {
            edits.insert(records::counter_key(table), Some(records::encode_count(&count)));
        }
        if !batch.writes.is_empty() {
            head.count(batch.writes.len() as u64);
        }
        let kept = head.sequence + 1 - head.oldest;
        if kept > self.options.max_events + self.options.max_events / 10 {
            let oldest = head.sequence + 1 - self.options.max_events;
            for sequence in head.oldest..oldest {
                edits.insert(records::event_key(sequence), None);
            }
            head.oldest = oldest;
        }
        Ok((edits, head))
    }
}

impl<K: KeyValue> KeyValueStore<K> {
    /// Commits edits of the tree below `base`, with the head that they make.
    fn swap(&self, base: &Head, edits: Edits, mut head: Head) -> Result<(), StoreError> {
        let edits: Vec<_> = edits.into_iter().collect();
        let applied = apply(&self.pages, base.root, &edits)?;
        let written: Vec<_> = applied.written.iter().map(|(id, _)| *id).collect();
        head.root = applied.root;
        self.pages.forget(&applied.replaced);
        let obsolete = head.replace(applied.replaced);
        self.provider().write_pages(applied.written).map_err(store_error)?;
        match self.provider().swap_head(&head.encode()) {
            Ok(()) => {
                // It is committed. What cannot be deleted takes up room, and no more.
                let _ = self.provider().delete_pages(&obsolete);
                Ok(())
            }
            Err(error) => {
                // After any other failure the swap may have happened all the same, and then the pages are needed.
                if error == super::KeyValueError::Conflict {
                    let _ = self.provider().delete_pages(&written);
                }
                Err(store_error(error))
            }
        }
    }
}

impl<K: KeyValue> Store for KeyValueStore<K> {
    type View = KeyValueView<K>;

    fn settings(&self) -> Settings {
        self.options.settings.clone()
    }

    fn head(&self) -> Result<store::Head, StoreError> {
        let head = Head::decode(self.provider().begin_swap().map_err(store_error)?.as_deref())?;
        let shown = store::Head {
            sequence: head.sequence,
            timestamp_ms: head.timestamp_ms,
            schema_generation: head.schema_generation,
            tables: usize::try_from(head.tables).unwrap_or(usize::MAX),
        };
        *self.base.borrow_mut() = head;
        Ok(shown)
    }

    fn rows(&self, table: &str, keys: Vec<Span>, texts: Texts) -> Result<FoundRows, StoreError> {
        let root = self.base.borrow().root;
        let mut found = FoundRows::default();
        for key in keys {
            let image = self.pages.get(root, &records::row_key(table, texts.text(key)?))?;
            let image = image.as_deref().map(std::str::from_utf8).transpose();
            let image = image.map_err(|_| super::codec::damaged())?;
            found.images.push(image.map(|image| found.texts.push(image)));
        }
        Ok(found)
    }

    fn schema(&self, table: &str) -> Result<Option<TableSchema>, StoreError> {
        newest_schema(&self.pages, self.base.borrow().root, table)
    }

    fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        let base = self.base.borrow().clone();
        let (edits, head) = self.edits(batch, &base)?;
        self.swap(&base, edits, head)?;
        Ok(base.sequence + 1)
    }

    fn save_cursor(&self, subscription: &str, acknowledged: u64) -> Result<(), StoreError> {
        let base = Head::decode(self.provider().begin_swap().map_err(store_error)?.as_deref())?;
        let edits = Edits::from([(records::cursor_key(subscription), Some(records::encode_cursor(acknowledged)))]);
        self.swap(&base, edits, base.clone())
    }

    fn view(&self) -> Result<KeyValueView<K>, StoreError> {
        let head = Head::decode(self.provider().head().map_err(store_error)?.as_deref())?;
        Ok(KeyValueView::new(self.pages.clone(), head))
    }
}
