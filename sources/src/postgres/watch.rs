//! The thread that looks at the database from time to time: how much log is kept, whether the slot is still there,
//! which tables are published; and that writes heartbeats where they were asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Options;
use super::catalog::Catalog;
use super::queue::{Said, Shared, lock};
use super::slot;
use crate::feed::{FeedError, Remedy};

/// Looks until everything stops.
pub(super) struct Watcher {
    pub(super) options: Arc<Options>,
    pub(super) shared: Arc<Shared>,
    pub(super) catalog: Catalog,
    pub(super) may_add_tables: bool,
}

impl Watcher {
    /// The thread's whole life.
    pub(super) fn run(mut self) {
        if let Err(error) = self.watch()
            && !self.shared.is_stopping()
        {
            self.shared.say(Said::Failed(error));
        }
        self.catalog.connection.terminate(false);
    }

    fn watch(&mut self) -> Result<(), FeedError> {
        let began = Instant::now();
        let (mut status_at, mut catalog_at) = (began, began + self.options.catalog_interval);
        let mut beat_at = self.options.heartbeat_write_interval.map(|interval| began + interval);
        loop {
            let now = Instant::now();
            if now >= status_at {
                self.look_at_slot()?;
                status_at = now + self.options.status_interval;
            }
            if now >= catalog_at {
                self.look_at_tables()?;
                catalog_at = now + self.options.catalog_interval;
            }
            if let (Some(at), Some(interval)) = (beat_at, self.options.heartbeat_write_interval)
                && now >= at
            {
                let sql = "SELECT pg_logical_emit_message(true, 'cdc.heartbeat', '')";
                self.catalog.connection.query(sql).map_err(|error| error.into_feed("write a heartbeat"))?;
                beat_at = Some(now + interval);
            }
            let next = beat_at.map_or(status_at.min(catalog_at), |at| at.min(status_at).min(catalog_at));
            let pause = next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            if !self.shared.pause(None, pause) {
                return Ok(());
            }
        }
    }

    fn look_at_slot(&mut self) -> Result<(), FeedError> {
        let name = &self.options.slot;
        let found = slot::find(&mut self.catalog.connection, name)
            .map_err(|error| error.into_feed("look up the replication slot"))?;
        let Some(found) = found else {
            return Err(FeedError {
                remedy: Remedy::Repair,
                code: "slot-lost",
                message: format!(
                    "the replication slot `{name}` was dropped. Repair this source: the slot is made anew, and its \
                     tables are read and compared"
                ),
                source: None,
            });
        };
        if found.is_lost() {
            return Err(slot::invalidated(name));
        }
        let confirmed = self.shared.confirmed();
        found.note_in(&mut lock(&self.shared.progress), confirmed);
        Ok(())
    }

    fn look_at_tables(&mut self) -> Result<(), FeedError> {
        if self.may_add_tables {
            slot::add_tables(&mut self.catalog.connection, &self.options)
                .map_err(|error| error.into_feed("add tables to the publication"))?;
        }
        let tables = self.catalog.published(None).map_err(|error| error.into_feed("look up tables"))?;
        self.shared.say(Said::Tables(tables));
        Ok(())
    }
}
