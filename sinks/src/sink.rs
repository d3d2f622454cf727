//! The contract of a sink, and what may go wrong in one.

use std::time::Duration;

use bytes::Bytes;
use cdc_rest::envelope::Subject;

/// One receiver of one lane's events.
///
/// Order: batches are delivered one after the other, and the events of a batch reach the receiver in their order
/// wherever it has one. Durability: `Ok` means that the receiver has said that every event of the batch is safe.
/// Duplicates: after a failure or a crash a batch comes again, from the first event that was not acknowledged; a sink
/// that keeps its [`Place`] at the receiver passes over what is there already. A failure leaves the sink usable: it
/// connects anew at the next batch.
#[allow(async_fn_in_trait, reason = "the service calls each sink from one task")]
pub trait Sink {
    /// Delivers a batch, at least one event. May be dropped while it waits; what became of the batch is unknown then.
    async fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), Failure>;

    /// Tells in plain words what is missing at the receiver for events to be delivered, each with what to do (the SQL
    /// or the command to run); empty if all is well. Changes nothing there.
    async fn check(&mut self) -> Vec<String>;
}

/// An event on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The event and its schema.
    pub subject: Subject<'a>,
    /// The event as `GET /events` shows it, written once for all who send it.
    pub native: &'a Bytes,
    /// Whether it is a row of the subscription's own first snapshot: all of these have one sequence number, so a
    /// [`Place`] cannot tell them apart; their ids can. They come before all others, in the same order again after a
    /// failure or a crash.
    pub is_row: bool,
    /// Whether it is a dead letter that is tried again by hand: events after it have been delivered, so a place says
    /// nothing about it, and does not move. A batch of such events has no others in it.
    pub is_late: bool,
}

/// Whose events a sink gets: what it keeps its place at the receiver under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The subscription's id: letters, digits, `_`, `-`, `.`.
    pub subscription: String,
    /// Which of its lanes, from 0. Keys stay in their lane.
    pub lane: u16,
    /// Raised when the subscription is moved back or defined anew: a place that was kept under another epoch says
    /// nothing.
    pub epoch: u64,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Try again, not before this pause if the receiver asked for one.
    Retry {
        /// How long the receiver wants to be left alone.
        after: Option<Duration>,
    },
    /// The receiver will never take this event: give it up, go on with the next.
    Reject,
}

/// Why a batch was not delivered.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The first event of the batch that is not known to be safe at the receiver.
    pub index: usize,
    /// What to do.
    pub remedy: Remedy,
    /// For a person: what is wrong, where, and what to do. Holds no secret.
    pub message: String,
    /// What lies behind it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// Try again: nothing before the event at `index` is in doubt.
    pub(crate) fn retry(index: usize, message: impl Into<String>) -> Self {
        Self { index, remedy: Remedy::Retry { after: None }, message: message.into(), source: None }
    }

    /// The event at `index` will never be taken.
    pub(crate) fn reject(index: usize, message: impl Into<String>) -> Self {
        Self { index, remedy: Remedy::Reject, message: message.into(), source: None }
    }

    /// With what lies behind it. Must hold no secret.
    pub(crate) fn because(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}
