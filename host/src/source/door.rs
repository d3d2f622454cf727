//! The way of portions into the log: sent one after another, settled in the same order.

use std::collections::VecDeque;

use cdc_sources::{Action, Checkpoint, Portion, Step};
use tokio::sync::oneshot;

use super::session::Failure;
use crate::ingest::{Ingest, IngestError};

/// Portions that were sent and are not known to be durable yet, oldest first.
#[derive(Default)]
pub(super) struct InFlight(VecDeque<Waiting>);

/// A portion that was sent.
struct Waiting {
    receipt: oneshot::Receiver<Result<Stored, IngestError>>,
    about: About,
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
    pub(super) outcome: Result<Stored, Failure>,
    pub(super) checkpoint: Checkpoint,
    /// Rows of tables that were read in it.
    pub(super) rows_read: u64,
    /// When the database committed the first and the last of its transactions, in ms since 1970.
    pub(super) committed_ms: Option<(u64, u64)>,
}

/// What a portion that is durable has become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) events: u64,
    /// Of rows that were read and were not here.
    pub(super) read_inserts: u64,
    /// Of rows that were read and differed.
    pub(super) read_updates: u64,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Sends a portion, once there is room for it.
    pub(super) async fn send(&mut self, ingest: &Ingest, source: &str, portion: Portion) -> Result<(), Failure> {
        let about = About::of(&portion);
        let _ = (ingest, source);
        let (_, receipt) = oneshot::channel();
        self.0.push_back(Waiting { receipt, about });
        Ok(())
    }

    /// Waits until the oldest portion has met its fate; none if there is no portion. May be dropped while it waits.
    pub(super) async fn settle_next(&mut self) -> Option<Settled> {
        let waiting = self.0.front_mut()?;
        let outcome = (&mut waiting.receipt).await.unwrap_or(Err(IngestError::Stopping));
        let About { checkpoint, rows_read, committed_ms } = self.0.pop_front()?.about;
        Some(Settled { outcome: outcome.map_err(Failure::from), checkpoint, rows_read, committed_ms })
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

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Store(error) => error.into(),
            IngestError::EngineStore(message) => Self::retry("store-failed", &*message),
            IngestError::Engine(message) => Self::retry("engine-failed", &*message),
            IngestError::QueueFull { .. } => Self::retry("queue-full", error.to_string()),
            IngestError::Stopping => Self::retry("stopping", error.to_string()),
        }
    }
}
