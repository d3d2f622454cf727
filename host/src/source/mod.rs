//! Sources: databases that are followed, each by a task of its own.
//!
//! A task opens its feed at the checkpoint that is durable, hands each portion to `ingest` as one atomic commit, and
//! tells the feed what is durable, so that the database may forget it. What a feed's error asks for (try again, stop,
//! repair) is done here. What stops is one table where it can be told which: it is held, and says why and what to do.
//!
//! Invariants:
//! - A feed is told that something is durable only after it is.
//! - A feed is opened only when every portion of the one before it has met its fate, so that its checkpoint is the one
//!   that the rows here belong to.
//! - After a table was read, its rows here are the ones that were read or changed since: others are removed, by events.
//!   While that is under way it is noted durably, and a crash in the middle makes the reading of that table start over.
//! - A table whose changes were passed over is read anew before it follows again.
//! - Rows of a whole table are removed only when the feed says that it is gone, or the rules or a person leave it out:
//!   never because the database does not show it at the moment.
//! - A source that cannot go on says why, and harms no other; so does a table.

mod audit;
mod behind;
mod budget;
mod convert;
mod door;
mod error;
mod failure;
mod farewell;
mod feeds;
mod kept;
mod matching;
mod orders;
mod reading;
mod repair;
mod rewriting;
mod runner;
mod session;
mod shown;
mod sources;
mod spec;
mod state;
mod stored;
mod url;

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;

pub use audit::AuditSchedule;
pub use error::SourceError;
pub use farewell::{Farewell, FarewellError};
pub use sources::Sources;
pub use spec::{OnMaxRetained, Password, SourceSpec, TableSelection};
pub use state::SourceFigures;
pub use url::{Secret, SourceKind, SourceUrl, without_password};

use cdc_sources::Finding;

/// Connects to a source's database and tells what is missing before it can be followed.
pub async fn check(spec: &SourceSpec) -> Vec<Finding> {
    feeds::Opener::new(spec, &std::env::temp_dir()).check().await
}
