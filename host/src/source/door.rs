//! The way of portions into the log: sent one after another, settled in the same order.

use std::collections::VecDeque;
use std::sync::Arc;

use cdc_sources::{Action, Checkpoint, Portion, Step, Table};
use tokio::sync::oneshot;

use super::convert::{Converted, Names};
use super::failure::Failure;
use crate::ingest::{FollowError, FollowReceipt, Ingest, IngestError};

/// Portions that may wait for the disk at once.
pub(super) const IN_FLIGHT_MAX: usize = 4;

/// Portions that were sent and are not known to be durable yet, oldest first.
#[derive(Default)]
pub(super) struct InFlight {
    waiting: VecDeque<Waiting>,
    /// Where the last portion that was sent ends, or where the feed began.
    end: Option<String>,
}

/// A portion that was sent.
struct Waiting {
    receipt: oneshot::Receiver<Result<FollowReceipt, FollowError>>,
    about: About,
    blamed: Blamed,
}

/// Which table is to blame when a portion cannot be captured.
pub(super) struct Blamed {
    /// By the place of the change in what was sent, what a person is told of it.
    pub(super) names: Names,
    /// The table that most of its bytes are of.
    pub(super) heaviest: Option<String>,
}

/// What is told of a portion beside what became of it.
#[derive(Clone, Debug)]
struct About {
    checkpoint: Checkpoint,
    rows_read: u64,
    committed_ms: Option<(u64, u64)>,
}

/// What became of a portion.
pub(super) struct Settled {
    /// Durable, or why not.
    pub(super) outcome: Result<FollowReceipt, Failure>,
    pub(super) checkpoint: Checkpoint,
    /// Rows of tables that were read in it.
    pub(super) rows_read: u64,
    /// When the database committed the first and the last of its transactions, in ms since 1970.
    pub(super) committed_ms: Option<(u64, u64)>,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A feed goes on from here. Nothing may be in flight.
    pub(super) fn begin(&mut self, position: Option<&Checkpoint>) {
        self.end = position.map(|position| position.0.clone());
    }

    /// Sends a portion, once there is room for it.
    pub(super) async fn send(&mut self, ingest: &Ingest, source: &str, portion: Portion) -> Result<(), Failure> {
        let about = About::of(&portion);
        let heaviest = heaviest(&portion);
        let Converted { portion, names } = super::convert::convert(source, self.end.as_deref(), portion);
        let receipt = ingest.follow(portion).await.map_err(Failure::from)?;
        self.end = Some(about.checkpoint.0.clone());
        let blamed = Blamed { names, heaviest };
        self.waiting.push_back(Waiting { receipt, about, blamed });
        Ok(())
    }

    /// Waits until the oldest portion has met its fate; none if there is no portion. May be dropped while it waits.
    pub(super) async fn settle_next(&mut self, source: &str) -> Option<Settled> {
        let waiting = self.waiting.front_mut()?;
        let outcome = (&mut waiting.receipt).await.unwrap_or(Err(IngestError::Stopping.into()));
        let Waiting { about: About { checkpoint, rows_read, committed_ms }, blamed, .. } = self.waiting.pop_front()?;
        let outcome = outcome.map_err(|error| Failure::of_portion(error, source, &blamed));
        Some(Settled { outcome, checkpoint, rows_read, committed_ms })
    }
}

impl About {
    fn of(portion: &Portion) -> Self {
        let changes = || {
            portion.steps.iter().filter_map(|step| match step {
                Step::Change(change) => Some(change),
                _ => None,
            })
        };
        let oldest = changes().find_map(|change| change.committed_at_ms);
        let newest = changes().rev().find_map(|change| change.committed_at_ms);
        Self {
            checkpoint: portion.checkpoint.clone(),
            rows_read: changes().filter(|change| change.action == Action::Read).count() as u64,
            committed_ms: oldest.zip(newest),
        }
    }
}

/// The table that most of a portion's bytes are of.
fn heaviest(portion: &Portion) -> Option<String> {
    let mut tables: Vec<(&Arc<Table>, usize)> = Vec::new();
    for step in &portion.steps {
        let Step::Change(change) = step else { continue };
        let bytes = [&change.image, &change.before].into_iter().flatten().map(String::len).sum();
        // Mostly the last one.
        match tables.iter_mut().rev().find(|(table, _)| Arc::ptr_eq(table, &change.table)) {
            Some((_, sum)) => *sum += bytes,
            None => tables.push((&change.table, bytes)),
        }
    }
    tables.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(table, _)| table.name.clone())
}
