//! Why a call about subscriptions did not do what it should.

use cdc_rest::{ComponentName, SubscriptionId};
use cdc_sinks::InvalidSettings;

use crate::components::ComponentError;
use crate::selection::SelectionError;
use crate::store::{Operation, Sequence, StoreError};

/// Why a call about subscriptions did not do what it should. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    /// There is no such subscription.
    #[error("there is no subscription {0}; PUT /subscriptions/{0} makes one")]
    Unknown(SubscriptionId),
    /// It stands in the configuration.
    #[error("subscription {0} is declared in the configuration of the service: change or remove it there")]
    Declared(SubscriptionId),
    /// As many subscriptions as may be are there.
    #[error("there are {limit} subscriptions, and limits.max-subscriptions allows no more")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The selection is none.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// There is no such part of the service.
    #[error("there is no built-in subscriber {0:?}; there are console, publisher and replication")]
    UnknownBuiltIn(String),
    /// The component cannot be used.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// The component in `filter` decides nothing.
    #[error(
        "component {0} is of the world handler: it cannot be a filter, which has to export cdc:subscriber/filtering@1.0.0"
    )]
    NotAFilter(ComponentName),
    /// Several instances would overwrite each other's values.
    #[error("grants.keyvalue needs lanes = 1: the instances of several lanes would overwrite each other's values")]
    KeyvalueInLanes,
    /// The event to begin with lies beyond the next one.
    #[error(
        "there is no such event yet: the newest is {newest}, so a subscription can begin at {next} at the latest; \
         \"now\" begins behind the newest, whichever that is",
        next = newest + 1
    )]
    InTheFuture {
        /// The newest event.
        newest: Sequence,
    },
    /// A sink cannot be set up as it is described.
    #[error("subscriber.{0}")]
    Sink(#[from] InvalidSettings),
    /// Its receiver cannot be compared with the rows here.
    #[error("subscription {id} is not audited: {reason}")]
    NotAudited {
        /// The subscription.
        id: SubscriptionId,
        /// Why, and what to do.
        reason: String,
    },
    /// A part of the service is not tried.
    #[error("subscription {0} has no component; name one in \"component\"")]
    NothingToTry(SubscriptionId),
    /// Too many events for one run.
    #[error("a run takes {most} events at the most; choose \"from\" and \"to\" nearer to each other")]
    RangeTooLong {
        /// The most.
        most: u64,
    },
    /// A lane is still at a batch.
    #[error("subscription {0} is still at a batch; try again when limits.callTimeoutMs is over")]
    Busy(SubscriptionId),
    /// What the store has of it is not what was written.
    #[error("what the store has of subscription {id} cannot be read: {reason}")]
    Unreadable {
        /// The subscription.
        id: SubscriptionId,
        /// Why.
        reason: String,
    },
    /// A declared subscription cannot be made.
    #[error("subscription {id}: {source}")]
    Of {
        /// The subscription.
        id: SubscriptionId,
        /// Why.
        source: Box<SubscriptionError>,
    },
    /// No thread can be started.
    #[error("no thread can be started for it: {0}")]
    Thread(std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SubscriptionError {
    pub(super) fn of(self, id: &SubscriptionId) -> Self {
        Self::Of { id: id.clone(), source: Box::new(self) }
    }

    pub(super) fn damaged(id: &SubscriptionId, source: serde_json::Error) -> Self {
        Self::Unreadable { id: id.clone(), reason: cdc_sinks::without_value(&source.to_string()) }
    }
}

/// An operation of the contract as the store knows it.
pub(super) fn operation(operation: cdc_rest::Operation) -> Operation {
    match operation {
        cdc_rest::Operation::Insert => Operation::Insert,
        cdc_rest::Operation::Update => Operation::Update,
        cdc_rest::Operation::Delete => Operation::Delete,
        cdc_rest::Operation::Truncate => Operation::Truncate,
    }
}
