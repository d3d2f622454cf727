//! The thread that looks at the database from time to time: how much log is kept, whether the slot is still there,
//! which tables are published; and that writes heartbeats where they were asked for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Options;
use super::catalog::{Candidate, Catalog, Overview, Present, Published};
use super::queue::{Look, Said, Shared, lock};
use super::slot;
use super::wire::WireError;
use crate::feed::{FeedError, Remedy};

/// Looks until everything stops.
pub(super) struct Watcher {
    pub(super) options: Arc<Options>,
    pub(super) shared: Arc<Shared>,
    pub(super) catalog: Catalog,
    pub(super) may_add_tables: bool,
    /// What the last look showed.
    seen: Option<Seen>,
}

/// How soon the catalog is looked at when somebody asks.
const ASKED_INTERVAL: Duration = Duration::from_millis(100);

/// Looking takes one part in so many of the time at most, on a database with very many tables; but never are pauses
/// longer than this.
const LOOK_SHARE: u32 = 20;
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(30);

impl Watcher {
    pub(super) fn new(options: Arc<Options>, shared: Arc<Shared>, catalog: Catalog, may_add_tables: bool) -> Watcher {
        Watcher { options, shared, catalog, may_add_tables, seen: None }
    }

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
        let (mut status_at, mut catalog_at) = (began, began);
        let mut beat_at = self.options.heartbeat_write_interval.map(|interval| began + interval);
        loop {
            let now = Instant::now();
            if now >= status_at {
                self.look_at_slot()?;
                status_at = now + self.options.status_interval;
            }
            if now >= catalog_at {
                self.look_at_tables()?;
                let pause = (now.elapsed() * LOOK_SHARE).min(LOOK_PAUSE_MAX);
                catalog_at = Instant::now() + self.options.catalog_interval.max(pause);
            }
            if let (Some(at), Some(interval)) = (beat_at, self.options.heartbeat_write_interval)
                && now >= at
            {
                let sql = "SELECT pg_logical_emit_message(true, 'cdc.heartbeat', '') WHERE NOT pg_is_in_recovery()";
                self.catalog.connection.query(sql).map_err(|error| error.into_feed("write a heartbeat"))?;
                beat_at = Some(now + interval);
            }
            let next = beat_at.map_or(status_at.min(catalog_at), |at| at.min(status_at).min(catalog_at));
            let pause = next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            if !self.shared.pause(None, pause.min(ASKED_INTERVAL)) {
                return Ok(());
            }
            if self.shared.is_look_wanted() {
                catalog_at = catalog_at.min(Instant::now());
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
            return Err(found.lost(name));
        }
        let confirmed = self.shared.confirmed();
        found.note_in(&mut lock(&self.shared.progress), confirmed);
        Ok(())
    }

    /// Looks at the catalog, and leaves what was seen for the follower if it is news. A look that has not been taken yet
    /// is left as it is: its place is nearer.
    fn look_at_tables(&mut self) -> Result<(), FeedError> {
        if self.shared.look_waits_for().is_some() {
            return Ok(());
        }
        let doing = |error: WireError| error.into_feed("look up tables");
        if self.may_add_tables {
            let known = lock(&self.shared.known).clone();
            slot::add_tables(&mut self.catalog.connection, &self.options, &known)
                .map_err(|error| error.into_feed("add tables to the publication"))?;
        }
        let from = slot::newest(&mut self.catalog.connection).map_err(doing)?;
        let overview = self.catalog.overview().map_err(doing)?;
        let seen = Seen::of(&overview);
        if self.seen.as_ref() == Some(&seen) && !self.shared.is_look_wanted() {
            return Ok(());
        }
        let to = slot::mark_place(&mut self.catalog.connection).map_err(doing)?;
        self.seen = Some(seen);
        self.shared.show(Look { from, to, overview });
        Ok(())
    }
}

/// What would be news if it were otherwise.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    tables: Vec<Published>,
    present: HashMap<u32, Present>,
    unpublished: Vec<Candidate>,
}

impl Seen {
    fn of(overview: &Overview) -> Seen {
        Seen {
            tables: overview.tables.iter().map(|found| found.published.clone()).collect(),
            present: overview.present.clone(),
            unpublished: overview.unpublished.clone(),
        }
    }
}
