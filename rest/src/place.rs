//! The paths of the contract, told apart by their fixed segments; the variable ones stay raw.

use crate::Method;

/// A path of the contract with its raw variables.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    Index,
    Rows { table: &'a str },
    Row { table: &'a str, key: &'a str },
    Events,
    Statistics,
    Snapshot { table: &'a str },
    Replica { table: &'a str },
    Schemas,
    Schema { table: &'a str },
    SchemaHistory { table: &'a str },
    Replay,
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
            Some(("snapshot", table)) if !table.contains('/') => Self::Snapshot { table },
            Some(("replica", table)) if !table.contains('/') => Self::Replica { table },
            Some(_) => return None,
        })
    }

    /// The methods that it takes.
    pub(crate) fn methods(self) -> &'static [Method] {
        match self {
            Self::Rows { .. } | Self::Replay => &[Method::Post],
            Self::Row { .. } => &[Method::Get, Method::Put, Method::Delete],
            Self::Schema { .. } => &[Method::Get, Method::Put],
            Self::Index
            | Self::Events
            | Self::Statistics
            | Self::Snapshot { .. }
            | Self::Replica { .. }
            | Self::Schemas
            | Self::SchemaHistory { .. }
            | Self::Health
            | Self::Readiness
            | Self::Metrics => &[Method::Get],
        }
    }
}
