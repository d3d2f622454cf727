//! What is remembered of a source over restarts, beside its checkpoint, which is committed with what it is of.
//!
//! One document per source in the collection `sources`, under its name.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::ingest::Ingest;
use crate::store::{Document, StoreError, View};

/// The collection.
pub(super) const COLLECTION: &str = "sources";

/// A source's document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Kept {
    /// The database, without a password: for whoever finds the source gone from the configuration.
    pub(super) url: String,
    /// The slot, if it has a name of its own.
    pub(super) slot: Option<String>,
    /// The publication, if it has a name of its own.
    pub(super) publication: Option<String>,
    /// Whether somebody paused it.
    pub(super) is_paused: bool,
    /// Whether all its tables are to be read anew and compared, until that is done.
    pub(super) is_repairing: bool,
    /// Tables whose rows are being read although there are rows here: those that are not read have to go.
    pub(super) unswept: BTreeSet<String>,
    /// Tables that were not here before the source told of them, and have not been read yet, with their keys: whatever
    /// rows of them are here, the log has told from the beginning, so none is stale.
    pub(super) unread: BTreeMap<String, Vec<String>>,
}

impl Kept {
    /// Whether reading has to start over, because what was read before a restart is not known any more.
    pub(super) fn needs_reading(&self) -> bool {
        self.is_repairing || !self.unswept.is_empty()
    }

    pub(super) fn read(view: &dyn View, name: &str) -> Result<Option<Self>, StoreError> {
        let found = view.document(COLLECTION, name.as_bytes())?;
        found.map(|bytes| Self::decode(name, &bytes)).transpose()
    }

    /// Every source that is remembered, by name.
    pub(super) fn read_all(view: &dyn View) -> Result<Vec<(String, Self)>, StoreError> {
        let mut all = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = view.documents(COLLECTION, after.as_deref(), 256, 1 << 20)?;
            let Some(last) = page.last() else { return Ok(all) };
            after = Some(last.key.to_vec());
            for row in &page {
                let name = String::from_utf8_lossy(&row.key).into_owned();
                let kept = Self::decode(&name, &row.image)?;
                all.push((name, kept));
            }
        }
    }

    fn decode(name: &str, bytes: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| {
            StoreError::Corrupt(format!("what is kept of source {name} cannot be read: {error}").into())
        })
    }

    pub(super) fn document(&self, name: &str) -> Document {
        // Texts and truth values: there is nothing that cannot be written.
        let value = serde_json::to_vec(self).unwrap_or_default();
        Document {
            collection: COLLECTION.into(),
            key: Bytes::copy_from_slice(name.as_bytes()),
            value: Some(value.into()),
        }
    }

    /// The document's removal.
    pub(super) fn removal(name: &str) -> Document {
        Document { collection: COLLECTION.into(), key: Bytes::copy_from_slice(name.as_bytes()), value: None }
    }

    /// Makes it durable.
    pub(super) async fn record(&self, name: &str, ingest: &Ingest) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        // Whoever asked may have given up waiting.
        ingest.record(vec![self.document(name)], Vec::new(), Box::new(move |outcome| drop(tell.send(outcome))));
        told.await.unwrap_or_else(|_| Err(StoreError::Failed("the service is stopping".into())))
    }
}
