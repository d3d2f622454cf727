//! The way of portions into the log: sent one after another, settled in the same order.

use std::collections::VecDeque;

use cdc_sources::{Action, Checkpoint, Portion, Step};
use tokio::sync::oneshot;

use super::convert::{Converted, Names};
use super::session::Failure;
use crate::ingest::{FollowError, FollowReceipt, Ingest, IngestError};
use crate::sandbox::RefusalCode;

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
    /// By the place of the change in what was sent, what a person is told of it.
    names: Names,
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
        let Converted { portion, names } = super::convert::convert(source, self.end.as_deref(), portion);
        let receipt = ingest.follow(portion).await.map_err(Failure::from)?;
        self.end = Some(about.checkpoint.0.clone());
        self.waiting.push_back(Waiting { receipt, about, names });
        Ok(())
    }

    /// Waits until the oldest portion has met its fate; none if there is no portion. May be dropped while it waits.
    pub(super) async fn settle_next(&mut self) -> Option<Settled> {
        let waiting = self.waiting.front_mut()?;
        let outcome = (&mut waiting.receipt).await.unwrap_or(Err(IngestError::Stopping.into()));
        let Waiting { about: About { checkpoint, rows_read, committed_ms }, names, .. } = self.waiting.pop_front()?;
        let outcome = outcome.map_err(|error| failure(error, &names));
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

/// What a portion that was not captured means for its source.
fn failure(error: FollowError, names: &Names) -> Failure {
    match error {
        FollowError::Refused { change, refusal } => {
            let what = names.of(change);
            Failure::stop(code(refusal.code), format!("{what} cannot be captured: {}", refusal.message))
        }
        FollowError::OutOfOrder { .. } => Failure::retry("out-of-order", error.to_string()),
        FollowError::Ingest(error) => error.into(),
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

/// The refusal's name, as the contract of the engine has it.
fn code(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::InvalidJson => "invalid-json",
        RefusalCode::NotAnObject => "not-an-object",
        RefusalCode::DuplicateMember => "duplicate-member",
        RefusalCode::MissingKey => "missing-key",
        RefusalCode::InvalidKey => "invalid-key",
        RefusalCode::KeyMismatch => "key-mismatch",
        RefusalCode::KeyTooLong => "key-too-long",
        RefusalCode::RowTooLarge => "row-too-large",
        RefusalCode::TooDeep => "too-deep",
        RefusalCode::TooManyColumns => "too-many-columns",
        RefusalCode::TooManyTables => "too-many-tables",
        RefusalCode::InvalidTableName => "invalid-table-name",
        RefusalCode::InvalidColumnName => "invalid-column-name",
        RefusalCode::UnknownTable => "unknown-table",
        RefusalCode::UnknownRow => "unknown-row",
        RefusalCode::RowExists => "row-exists",
        RefusalCode::SchemaViolation => "schema-violation",
        RefusalCode::SchemaConflict => "schema-conflict",
        RefusalCode::InvalidSchema => "invalid-schema",
        RefusalCode::CapturedTable => "captured-table",
    }
}
