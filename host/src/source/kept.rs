//! What is remembered of a source over restarts, beside its checkpoint, which is committed with what it is of.
//!
//! One document per source in the collection `sources`, under its name.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cdc_sources::{Hold, Reason, TableOrders};
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
    /// Which tables somebody has chosen, in place of what the configuration says.
    pub(super) selected: Option<Selected>,
    /// What documents of before have in place of `reread`: nothing is written here any more.
    #[serde(skip_serializing)]
    unswept: BTreeSet<String>,
    /// Tables whose rows are to be read anew, or are being read although there are rows here: those that are not read
    /// have to go, and which were read is not known any more after a restart. Until that is done.
    pub(super) reread: BTreeMap<String, Why>,
    /// Tables that are not followed.
    pub(super) held: BTreeMap<String, Held>,
    /// Tables that the rules leave out and whose rows were removed for it: should they be captured again, they are read
    /// anew, whatever the feed's checkpoint says of them.
    pub(super) left_out: BTreeSet<String>,
    /// Tables that were not here before the source told of them, and have not begun to be read, with their keys: whatever
    /// rows of them are here, the log has told from the beginning, so none is stale.
    pub(super) unread: BTreeMap<String, Vec<String>>,
}

/// Which tables are captured, by patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Selected {
    /// All that are not the server's own, if none.
    pub(super) tables: Vec<String>,
    pub(super) exclude: Vec<String>,
}

/// Why a table is as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Why {
    pub(super) code: String,
    pub(super) message: String,
}

/// A table that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub(super) enum Held {
    /// Somebody paused it.
    Paused,
    /// What it holds can't be captured.
    Stopped(Why),
    /// Somebody dropped it from the source.
    Dropped,
}

impl Why {
    pub(super) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// Its rows were being read anew, for a reason that nobody knows any more.
    pub(super) fn interrupted() -> Self {
        Self::new("interrupted", "its rows were being read anew, and a restart came in between")
    }

    fn reason(&self) -> Reason {
        Reason::new(&self.code, &self.message)
    }
}

impl From<Reason> for Why {
    fn from(reason: Reason) -> Self {
        Self::new(reason.code, reason.message)
    }
}

impl Kept {
    /// What a feed is to do with single tables.
    pub(super) fn orders(&self) -> TableOrders {
        let held = self.held.iter().map(|(table, held)| {
            let hold = match held {
                Held::Paused => Hold::Paused,
                Held::Stopped(why) => Hold::Stopped(why.reason()),
                Held::Dropped => Hold::Dropped,
            };
            (table.clone(), hold)
        });
        let left_out = || Reason::new("left-out", "it was left out of the source, and its rows were removed here");
        let mut reread: BTreeMap<_, _> = self.left_out.iter().map(|table| (table.clone(), left_out())).collect();
        reread.extend(self.reread.iter().map(|(table, why)| (table.clone(), why.reason())));
        // What is held is read once it is not.
        reread.retain(|table, _| !self.held.contains_key(table));
        TableOrders { held: held.collect(), reread }
    }

    /// A table is not captured any more. What somebody wants of its name stays.
    pub(super) fn forget(&mut self, table: &str) {
        self.unread.remove(table);
        self.reread.remove(table);
        if matches!(self.held.get(table), Some(Held::Stopped(_))) {
            self.held.remove(table);
        }
    }

    /// A table is held from here on: what the log tells of it is passed over, so its rows have to be read once it is not.
    pub(super) fn hold(&mut self, table: &str, held: Held) {
        self.unread.remove(table);
        self.held.insert(table.to_owned(), held);
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
        let mut kept: Self = serde_json::from_slice(bytes).map_err(|error| {
            StoreError::Corrupt(format!("what is kept of source {name} cannot be read: {error}").into())
        })?;
        for table in std::mem::take(&mut kept.unswept) {
            kept.reread.entry(table).or_insert_with(Why::interrupted);
        }
        Ok(kept)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

    use super::*;

    #[test]
    fn a_document_of_before_has_its_unswept_tables_read_anew() {
        let kept = Kept::decode("shop", br#"{"url":"postgres://h","isRepairing":false,"unswept":["users"]}"#).unwrap();
        assert_eq!(kept.orders().reread.keys().collect::<Vec<_>>(), ["users"]);
        let written = kept.document("shop").value.unwrap();
        assert!(!String::from_utf8_lossy(&written).contains("unswept"));
        assert_eq!(Kept::decode("shop", &written).unwrap(), kept);
    }

    #[test]
    fn what_is_wanted_of_tables_is_written_and_read() {
        let mut kept = Kept::default();
        kept.hold("a", Held::Paused);
        kept.hold("b", Held::Stopped(Why::new("row-too-large", "why")));
        kept.hold("c", Held::Dropped);
        kept.reread.insert("d".to_owned(), Why::new("requested", "somebody asked"));
        kept.reread.insert("a".to_owned(), Why::new("requested", "somebody asked"));
        kept.left_out.extend(["d".to_owned(), "e".to_owned()]);
        let again = Kept::decode("shop", &kept.document("shop").value.unwrap()).unwrap();
        assert_eq!(again, kept);
        let orders = again.orders();
        assert_eq!(orders.held["b"], Hold::Stopped(Reason::new("row-too-large", "why")));
        let reread: Vec<_> = orders.reread.iter().map(|(table, why)| (table.as_str(), why.code.as_str())).collect();
        assert_eq!(reread, [("d", "requested"), ("e", "left-out")], "what is held is not read");
    }

    #[test]
    fn a_table_that_is_gone_is_forgotten_unless_somebody_wants_something_of_its_name() {
        let mut kept = Kept::default();
        kept.hold("a", Held::Paused);
        kept.hold("b", Held::Stopped(Why::default()));
        kept.reread.insert("b".to_owned(), Why::default());
        kept.forget("a");
        kept.forget("b");
        assert!(kept.held.keys().eq(["a"]) && kept.reread.is_empty(), "{kept:?}");
    }
}
