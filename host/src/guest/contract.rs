//! The exports of `cdc:subscriber`, as types: borrowed where a batch goes in, so that no event is copied on its way.
//!
//! Kept by hand beside `wit/subscriber`, because generated bindings cannot borrow in calls that may wait; that they
//! agree is checked against each component's own types when it is linked.

use wasmtime::component::{ComponentType, Lift, Lower};

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub(super) enum Operation {
    #[component(name = "insert")]
    Insert,
    #[component(name = "update")]
    Update,
    #[component(name = "delete")]
    Delete,
    #[component(name = "truncate")]
    Truncate,
}

#[derive(Clone, ComponentType, Lower)]
#[component(record)]
pub(super) struct Origin<'a> {
    pub(super) source: &'a str,
    pub(super) transaction: Option<&'a str>,
    pub(super) position: Option<&'a str>,
    pub(super) snapshot: bool,
    #[component(name = "committed-at")]
    pub(super) committed_at: Option<u64>,
    /// Rarely any, so they may be copies.
    pub(super) unavailable: Vec<String>,
}

#[derive(Clone, ComponentType, Lower)]
#[component(record)]
pub(super) struct Event<'a> {
    pub(super) sequence: u64,
    pub(super) id: &'a str,
    pub(super) timestamp: u64,
    pub(super) table: &'a str,
    pub(super) key: &'a str,
    pub(super) operation: Operation,
    pub(super) before: Option<&'a str>,
    pub(super) after: Option<&'a str>,
    #[component(name = "schema-version")]
    pub(super) schema_version: u32,
    pub(super) origin: Option<Origin<'a>>,
}

#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests make them")]
pub(super) enum Remedy {
    #[component(name = "retry")]
    Retry,
    #[component(name = "reject")]
    Reject,
}

#[derive(Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct Failure {
    pub(super) remedy: Remedy,
    pub(super) index: u32,
    pub(super) message: String,
}

/// What both functions take.
pub(super) type Events<'a> = (&'a [Event<'a>],);
/// What `accept` answers.
pub(super) type Accepted = (Vec<bool>,);
/// What `handle` answers.
pub(super) type Handled = (Result<(), Failure>,);
