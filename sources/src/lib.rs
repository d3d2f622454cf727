//! Where changes come from: the logs of real databases, followed as changes to rows.
//!
//! A [`Feed`] follows one database. It knows the database's protocol, its catalog and types, and how a table's rows are
//! read beside the log; it keeps nothing that outlives it. What it needs to go on after a restart is a [`Checkpoint`],
//! which whoever stores the changes stores with them, as one.
//!
//! It is not the engine: it does not know what a row looked like before unless the database tells, and decides nothing
//! about events. It is not the service: no configuration file, no HTTP, no retries; an error ends a feed, and
//! [`FeedError::remedy`] says whether opening it anew helps.

pub mod audit;
pub mod change;
pub mod check;
pub mod feed;
pub mod json;
pub mod keyless;
pub mod mysql;
pub mod postgres;
pub mod rewrite;
pub mod rules;
mod spool;
mod tls;

pub use audit::{AuditOrder, AuditPace, AuditPiece, AuditRows, AuditScope, RowText, TextForm};
pub use change::{Action, Change, Checkpoint, Column, Kind, Portion, Step, Table};
pub use check::{Finding, Severity};
pub use feed::{Feed, FeedError, Hold, Progress, Reason, Remedy, TableOrders, TableProgress, TableState};
pub use rewrite::Rewrite;
pub use rules::Rules;
