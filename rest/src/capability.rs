//! What an embedder of the contract may lack: a native service offers all of it, an edge runtime some.
//!
//! Everything that is not named here, every embedder offers. `GET /` names what is offered, so that a client, and the
//! conformance suite, can ask before it relies on something.

use crate::Request;

/// Something that not every embedder offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Events as they come: `/events/stream` and `/events/ws`.
    Streams,
    /// Subscriptions with their dead letters, components, traces, and the replica that one of them keeps.
    Subscriptions,
    /// Databases that are followed.
    Sources,
    /// `/metrics`.
    Metrics,
    /// NDJSON is captured while it arrives, so that a load may be of any length. Where this is missing, its body is held
    /// in memory whole, and its limit is one of memory.
    StreamedLoads,
}

impl Capability {
    /// Every capability.
    pub const ALL: &[Self] = &[Self::Streams, Self::Subscriptions, Self::Sources, Self::Metrics, Self::StreamedLoads];

    /// The name that `GET /` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Subscriptions => "subscriptions",
            Self::Sources => "sources",
            Self::Metrics => "metrics",
            Self::StreamedLoads => "streamed-loads",
        }
    }

    /// What to do where it is missing.
    pub(crate) fn instead(self) -> &'static str {
        match self {
            Self::Streams => "poll GET /events?after=<nextAfter> instead, or run the native service",
            Self::Subscriptions => {
                "read GET /events?after=<nextAfter> and keep your own place in it, or run the native service"
            }
            Self::Sources => "run the native service beside the database, or write through POST /data/:table",
            Self::Metrics => "read GET /stats, or what the runtime measures itself",
            Self::StreamedLoads => "send the rows in several requests",
        }
    }

    /// The capability that a request needs, if it needs one.
    pub fn of(request: &Request) -> Option<Self> {
        match request {
            Request::EventStream(_) | Request::EventSocket(_) => Some(Self::Streams),
            Request::Subscriptions
            | Request::Subscription(_)
            | Request::DefineSubscription(_)
            | Request::DeleteSubscription(_)
            | Request::PauseSubscription(_)
            | Request::ResumeSubscription(_)
            | Request::RewindSubscription(_)
            | Request::TestSubscription(_)
            | Request::SubscriptionAudit(_)
            | Request::AuditSubscription(_)
            | Request::DeadLetters { .. }
            | Request::RetryDeadLetters(_)
            | Request::DiscardDeadLetters(_)
            | Request::Components
            | Request::Component(_)
            | Request::UploadComponent(_)
            | Request::DeleteComponent(_)
            | Request::ComponentVersion { .. }
            | Request::RollbackComponent(_)
            | Request::Trace { .. }
            | Request::Replica { .. } => Some(Self::Subscriptions),
            Request::Sources
            | Request::Source(_)
            | Request::PauseSource(_)
            | Request::ResumeSource(_)
            | Request::RepairSource(_)
            | Request::SourceAudit(_)
            | Request::AuditSource(_)
            | Request::AuditSourceTable { .. }
            | Request::SourceSelection(_)
            | Request::SelectSourceTables(_)
            | Request::ResetSourceSelection(_)
            | Request::SourceTable { .. }
            | Request::SteerSourceTable { .. } => Some(Self::Sources),
            Request::Metrics => Some(Self::Metrics),
            Request::Index
            | Request::Insert { .. }
            | Request::Update { .. }
            | Request::Delete { .. }
            | Request::ReadRow { .. }
            | Request::Events(_)
            | Request::Statistics
            | Request::Snapshot { .. }
            | Request::Schemas
            | Request::Schema { .. }
            | Request::SchemaHistory { .. }
            | Request::DeclareSchema { .. }
            | Request::Replay
            | Request::Health
            | Request::Readiness
            | Request::Options { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Code, Problem};

    #[test]
    fn what_is_missing_says_what_to_do() {
        for capability in Capability::ALL {
            let problem = Problem::not_offered(*capability);
            assert_eq!((problem.code(), problem.status()), (Code::NotOffered, 501));
            assert!(problem.detail().contains(capability.as_str()) && problem.detail().len() > 60, "{problem}");
        }
    }
}
