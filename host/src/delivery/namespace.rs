//! A guest's keys and values, as the store has them.

use std::sync::Arc;

use bytes::Bytes;

use crate::guest::Namespace;
use crate::store::Store;

/// How much is read at once.
const PAGE_BYTES: usize = 1 << 20;

/// One collection of the store.
pub(super) struct StoreNamespace {
    pub(super) store: Arc<dyn Store>,
    pub(super) collection: String,
}

impl Namespace for StoreNamespace {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, String> {
        let view = self.store.view().map_err(|error| error.to_string())?;
        view.document(&self.collection, key).map_err(|error| error.to_string())
    }

    fn keys(&self, after: Option<&[u8]>, max: usize) -> Result<Vec<Bytes>, String> {
        let view = self.store.view().map_err(|error| error.to_string())?;
        let mut keys: Vec<Bytes> = Vec::new();
        while keys.len() < max {
            let last = keys.last().cloned();
            let from = last.as_deref().or(after);
            let page = view.documents(&self.collection, from, max - keys.len(), PAGE_BYTES);
            let page = page.map_err(|error| error.to_string())?;
            if page.is_empty() {
                break;
            }
            keys.extend(page.into_iter().map(|row| row.key));
        }
        Ok(keys)
    }
}
