//! The schemas that events were captured under, for whoever writes events in another form than ours.
//!
//! A version of a schema never changes, so what was read once is kept: the newest few hundred of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cdc_rest::TableSchema;

use crate::store::{Store, StoreError, View};

/// The most that are kept.
const KEEP: usize = 1_000;

type Kept = HashMap<Arc<str>, Vec<Arc<TableSchema>>>;

/// Schemas by table and version.
#[derive(Debug)]
pub struct Schemas {
    store: Arc<dyn Store>,
    kept: Mutex<(Kept, usize)>,
}

impl Schemas {
    /// Those of this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, kept: Mutex::default() }
    }

    /// The schema that an event names.
    pub fn get(&self, table: &str, version: u32) -> Result<Arc<TableSchema>, StoreError> {
        if let Some(found) = self.kept(table, version) {
            return Ok(found);
        }
        let schema = Arc::new(read(&*self.store.view()?, table, version)?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (tables, count) = &mut *kept;
        if *count >= KEEP {
            tables.clear();
            *count = 0;
        }
        *count += 1;
        tables.entry(table.into()).or_default().push(schema.clone());
        Ok(schema)
    }

    fn kept(&self, table: &str, version: u32) -> Option<Arc<TableSchema>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0.get(table)?.iter().rev().find(|schema| schema.version == version).cloned()
    }
}

fn read(view: &dyn View, table: &str, version: u32) -> Result<TableSchema, StoreError> {
    let wrong = |why: String| StoreError::Corrupt(format!("the schema of {table}, version {version}, {why}").into());
    let found = view.schema(table, Some(version)).ok_or_else(|| wrong("is not there".to_owned()))?;
    TableSchema::read(&found.definition).map_err(|error| wrong(format!("cannot be read: {error}")))
}
