//! The paths of the contract, told apart by their fixed segments; the variable ones stay raw.

use crate::{Method, TableAction};

/// What is to be done with a subscription.
#[derive(Clone, Copy)]
pub(crate) enum SubscriptionAction {
    Pause,
    Resume,
    Rewind,
    Test,
}

/// What is to be done with dead letters.
#[derive(Clone, Copy)]
pub(crate) enum DeadLettersAction {
    Retry,
    Discard,
}

/// What is to be done with a source.
#[derive(Clone, Copy)]
pub(crate) enum SourceAction {
    Pause,
    Resume,
    Repair,
}

/// A path of the contract with its raw variables.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    Index,
    Rows { table: &'a str },
    Row { table: &'a str, key: &'a str },
    Events,
    EventStream,
    EventSocket,
    Statistics,
    Snapshot { table: &'a str },
    Replica { table: &'a str },
    Schemas,
    Schema { table: &'a str },
    SchemaHistory { table: &'a str },
    Replay,
    Subscriptions,
    Subscription { id: &'a str },
    SubscriptionAction { id: &'a str, action: SubscriptionAction },
    DeadLetters { id: &'a str },
    DeadLettersAction { id: &'a str, action: DeadLettersAction },
    Components,
    Component { name: &'a str },
    ComponentVersion { name: &'a str, version: &'a str },
    Rollback { name: &'a str },
    Sources,
    Source { name: &'a str },
    SourceAction { name: &'a str, action: SourceAction },
    SubscriptionAudit { id: &'a str },
    SourceAudit { name: &'a str },
    SourceSelection { name: &'a str },
    SourceTable { name: &'a str, table: &'a str },
    SourceTableAudit { name: &'a str, table: &'a str },
    SourceTableAction { name: &'a str, table: &'a str, action: TableAction },
    Trace { table: &'a str, key: &'a str },
    Health,
    Readiness,
    Metrics,
}

impl<'a> Place<'a> {
    /// Finds the place of a raw path.
    pub(crate) fn find(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        Some(match path.split_once('/') {
            None => match path {
                "" => Self::Index,
                "events" => Self::Events,
                "stats" => Self::Statistics,
                "schemas" => Self::Schemas,
                "replay" => Self::Replay,
                "subscriptions" => Self::Subscriptions,
                "components" => Self::Components,
                "sources" => Self::Sources,
                "healthz" => Self::Health,
                "readyz" => Self::Readiness,
                "metrics" => Self::Metrics,
                _ => return None,
            },
            Some(("data", rest)) => match rest.split_once('/') {
                None => Self::Rows { table: rest },
                Some((table, key)) => Self::Row { table, key },
            },
            Some(("schema", rest)) => match rest.split_once('/') {
                None => Self::Schema { table: rest },
                Some((table, "history")) => Self::SchemaHistory { table },
                Some(_) => return None,
            },
            Some(("events", "stream")) => Self::EventStream,
            Some(("events", "ws")) => Self::EventSocket,
            Some(("snapshot", table)) if !table.contains('/') => Self::Snapshot { table },
            Some(("replica", table)) if !table.contains('/') => Self::Replica { table },
            Some(("subscriptions", rest)) => return Self::of_subscription(rest),
            Some(("components", rest)) => return Self::of_component(rest),
            Some(("sources", rest)) => return Self::of_source(rest),
            Some(("trace", rest)) => {
                let (table, key) = rest.split_once('/')?;
                Self::Trace { table, key }
            }
            Some(_) => return None,
        })
    }

    fn of_subscription(rest: &'a str) -> Option<Self> {
        let Some((id, what)) = rest.split_once('/') else { return Some(Self::Subscription { id: rest }) };
        Some(match what {
            "pause" => Self::SubscriptionAction { id, action: SubscriptionAction::Pause },
            "resume" => Self::SubscriptionAction { id, action: SubscriptionAction::Resume },
            "rewind" => Self::SubscriptionAction { id, action: SubscriptionAction::Rewind },
            "test" => Self::SubscriptionAction { id, action: SubscriptionAction::Test },
            "audit" => Self::SubscriptionAudit { id },
            "dead-letters" => Self::DeadLetters { id },
            "dead-letters/retry" => Self::DeadLettersAction { id, action: DeadLettersAction::Retry },
            "dead-letters/discard" => Self::DeadLettersAction { id, action: DeadLettersAction::Discard },
            _ => return None,
        })
    }

    fn of_component(rest: &'a str) -> Option<Self> {
        let Some((name, what)) = rest.split_once('/') else { return Some(Self::Component { name: rest }) };
        match what.split_once('/') {
            None if what == "rollback" => Some(Self::Rollback { name }),
            Some(("versions", version)) if !version.contains('/') => Some(Self::ComponentVersion { name, version }),
            _ => None,
        }
    }

    fn of_source(rest: &'a str) -> Option<Self> {
        let Some((name, what)) = rest.split_once('/') else { return Some(Self::Source { name: rest }) };
        let action = match what {
            "pause" => SourceAction::Pause,
            "resume" => SourceAction::Resume,
            "repair" => SourceAction::Repair,
            "audit" => return Some(Self::SourceAudit { name }),
            "selection" => return Some(Self::SourceSelection { name }),
            _ => return Self::of_source_table(name, what.strip_prefix("tables/")?),
        };
        Some(Self::SourceAction { name, action })
    }

    fn of_source_table(name: &'a str, rest: &'a str) -> Option<Self> {
        let Some((table, what)) = rest.split_once('/') else { return Some(Self::SourceTable { name, table: rest }) };
        let action = match what {
            "pause" => TableAction::Pause,
            "resume" => TableAction::Resume,
            "reread" => TableAction::Reread,
            "drop" => TableAction::Drop,
            "audit" => return Some(Self::SourceTableAudit { name, table }),
            _ => return None,
        };
        Some(Self::SourceTableAction { name, table, action })
    }

    /// The methods that it takes.
    pub(crate) fn methods(self) -> &'static [Method] {
        match self {
            Self::Rows { .. }
            | Self::Replay
            | Self::SubscriptionAction { .. }
            | Self::DeadLettersAction { .. }
            | Self::SourceAction { .. }
            | Self::SourceTableAction { .. }
            | Self::SourceTableAudit { .. }
            | Self::Rollback { .. } => &[Method::Post],
            Self::Row { .. } | Self::Subscription { .. } | Self::Component { .. } | Self::SourceSelection { .. } => {
                &[Method::Get, Method::Put, Method::Delete]
            }
            Self::Schema { .. } => &[Method::Get, Method::Put],
            Self::SourceAudit { .. } | Self::SubscriptionAudit { .. } => &[Method::Get, Method::Post],
            Self::Index
            | Self::Events
            | Self::EventStream
            | Self::EventSocket
            | Self::Statistics
            | Self::Snapshot { .. }
            | Self::Replica { .. }
            | Self::Schemas
            | Self::SchemaHistory { .. }
            | Self::Subscriptions
            | Self::DeadLetters { .. }
            | Self::Components
            | Self::ComponentVersion { .. }
            | Self::Sources
            | Self::Source { .. }
            | Self::SourceTable { .. }
            | Self::Trace { .. }
            | Self::Health
            | Self::Readiness
            | Self::Metrics => &[Method::Get],
        }
    }
}
