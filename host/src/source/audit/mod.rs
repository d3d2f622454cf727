//! Audits: a source proves that the rows here are the database's, table by table, while it follows.
//!
//! What an audit is to do and what it has found stands in a record of its own (`record.rs`), durable and bounded. A session
//! takes the tables of the record one after the other and has its feed compare them (`run.rs`); what a piece of rows says is
//! held against the store at exactly its place (`compare.rs`).
//!
//! Invariants:
//! - Nothing of the source is in flight while a piece is compared, so the rows here are those at the piece's place.
//! - A difference is told only with the database's row at hand, or with the certainty that there is none: sums that differ
//!   are looked at again by their rows.
//! - An audit changes nothing unless it mends. What it mends goes through the engine as a row that was read.
//! - A table whose audit was cut short is compared from its beginning, or is said to be unfinished and why.

mod compare;
mod orders;
mod record;
mod run;

pub use record::AuditSchedule;
pub(super) use record::{Audit, LastAudit};
pub(super) use run::Auditing;
