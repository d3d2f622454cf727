//! The parts of the service that are subscribers: the reference's consumers.

use cdc_rest::{Grants, KeyValueQuota, Start, Subscriber, SubscriptionId, SubscriptionSpec};

use super::error::SubscriptionError;

/// A part of the service that can be a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// Writes a line for each event to standard output.
    Console,
    /// Publishes batches by size and time.
    Publisher,
    /// Keeps a copy of every row: a component in the sandbox, as users write them.
    Replication,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Console, Self::Publisher, Self::Replication];

    /// The name, which is the id of the subscription that stands for it by default.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Publisher => "publisher",
            Self::Replication => "replication",
        }
    }

    /// The part of this name.
    pub fn parse(name: &str) -> Result<Self, SubscriptionError> {
        let found = Self::ALL.into_iter().find(|builtin| builtin.as_str() == name);
        found.ok_or_else(|| SubscriptionError::UnknownBuiltIn(name.to_owned()))
    }

    /// The subscription that stands for it, unless it is switched off: every event of every table.
    #[must_use]
    pub fn subscription(self) -> Option<(SubscriptionId, SubscriptionSpec)> {
        let id = SubscriptionId::parse(self.as_str()).ok()?;
        let mut spec = SubscriptionSpec::new(Subscriber::Builtin(self.as_str().to_owned()));
        match self {
            // A person sees no difference, and a busy log costs one write for many lines.
            Self::Console => spec.batch.linger_ms = 20,
            Self::Publisher => {
                // By size or time, as the reference does.
                spec.batch.max_events = 100;
                spec.batch.linger_ms = 1_000;
            }
            Self::Replication => {
                // Switched on later, it has the rows from before too.
                spec.start = Start::Snapshot;
                spec.batch.max_events = 1_000;
                spec.batch.linger_ms = 50;
            }
        }
        Some((id, spec))
    }
}

/// What the component that keeps the replica gets.
pub(super) fn replication_grants() -> Grants {
    Grants { keyvalue: Some(KeyValueQuota::default()), ..Grants::default() }
}
