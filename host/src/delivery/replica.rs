//! The replica, as the component that keeps it has written it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::builtin::BuiltIn;
use super::error::SubscriptionError;
use super::records;
use super::subscriptions::Subscriptions;
use crate::store::{Row, StoreError, View};

/// How often it is looked whether the replica has caught up.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A table of the replica, being read.
#[derive(Debug)]
pub struct Replica {
    view: Arc<dyn View>,
    collection: String,
    /// The table's name and a line feed, which no name has.
    prefix: Vec<u8>,
    after: Vec<u8>,
}

impl Subscriptions {
    /// A table of the replica; none of a table that there is not. Waits until it has what was captured before this
    /// call, but not longer than this: then it is what it is.
    pub fn replica(&self, table: &str, longest: Duration) -> Result<Option<Replica>, SubscriptionError> {
        let Some((id, _)) = BuiltIn::Replication.subscription() else { return Ok(None) };
        let replication = self.get(&id)?;
        let bounds = self.deps.store.view()?.bounds();
        let until = Instant::now() + longest;
        let is_behind = || {
            let in_snapshot = |lane: &super::subscription::Lane| lane.is_in_snapshot.load(Ordering::Acquire);
            replication.position() < bounds.newest || replication.lanes.iter().any(in_snapshot)
        };
        while is_behind() && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
        let view = self.deps.store.view()?;
        if view.schema(table, None).is_none() {
            return Ok(None);
        }
        let prefix = [table.as_bytes(), b"\n"].concat();
        let collection = records::keyvalue(&id, false);
        Ok(Some(Replica { view, collection, after: prefix.clone(), prefix }))
    }
}

impl Replica {
    /// The next rows, in the byte order of their keys; none at the end.
    pub fn next(&mut self, max_rows: usize, max_bytes: usize) -> Result<Vec<Row>, StoreError> {
        let mut rows = self.view.documents(&self.collection, Some(&self.after), max_rows, max_bytes)?;
        rows.retain(|row| row.key.starts_with(&self.prefix));
        if let Some(last) = rows.last() {
            self.after = last.key.to_vec();
        }
        Ok(rows)
    }
}
