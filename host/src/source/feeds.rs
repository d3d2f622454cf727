//! The feeds that there are, behind one face. An enum and no trait object: a feed's calls are futures of its own type.

use cdc_sources::{Checkpoint, FeedError, Finding, Portion, Progress};

use super::error::SourceError;
use super::spec::SourceSpec;

/// What opens a source's feed, as often as it takes. Its options are understood, so that what is wrong with them is said
/// at the start.
pub(super) enum Opener {
    /// The feed of this kind of database is not built in.
    Missing(&'static str),
    #[cfg(test)]
    Scripted(std::sync::Arc<super::scripted::Script>),
}

/// An open feed.
pub(super) enum AnyFeed {
    #[expect(dead_code, reason = "until there is a feed")]
    None(std::convert::Infallible),
    #[cfg(test)]
    Scripted(super::scripted::ScriptedFeed),
}

impl Opener {
    pub(super) fn new(spec: &SourceSpec) -> Result<Self, SourceError> {
        Ok(Self::Missing(spec.kind().as_str()))
    }

    /// Connects, and goes on after the checkpoint. With `reads_anew` every table is read anew.
    pub(super) async fn open(&self, checkpoint: Option<Checkpoint>, reads_anew: bool) -> Result<AnyFeed, FeedError> {
        match self {
            Self::Missing(kind) => Err(missing(kind)),
            #[cfg(test)]
            Self::Scripted(script) => script.open(checkpoint, reads_anew).await.map(AnyFeed::Scripted),
        }
    }

    /// What is missing in the database before the source works.
    pub(super) async fn check(&self) -> Vec<Finding> {
        match self {
            Self::Missing(kind) => vec![Finding {
                severity: cdc_sources::Severity::Missing,
                code: "unsupported",
                message: format!("this build cannot follow {kind}"),
                remedy: None,
            }],
            #[cfg(test)]
            Self::Scripted(_) => Vec::new(),
        }
    }

    /// Drops what holds log in the database.
    pub(super) async fn drop_slot(&self) -> Result<(), FeedError> {
        match self {
            Self::Missing(kind) => Err(missing(kind)),
            #[cfg(test)]
            Self::Scripted(script) => script.drop_slot().await,
        }
    }
}

fn missing(kind: &str) -> FeedError {
    let message = format!("this build cannot follow {kind}");
    FeedError { remedy: cdc_sources::Remedy::Stop, code: "unsupported", message, source: None }
}

/// See [`cdc_sources::Feed`].
impl AnyFeed {
    pub(super) async fn next(&mut self) -> Result<Portion, FeedError> {
        match self {
            Self::None(none) => match *none {},
            #[cfg(test)]
            Self::Scripted(feed) => feed.next().await,
        }
    }

    pub(super) fn confirm(&mut self, checkpoint: &Checkpoint) {
        match self {
            Self::None(none) => match *none {},
            #[cfg(test)]
            Self::Scripted(feed) => feed.confirm(checkpoint),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        match self {
            Self::None(none) => match *none {},
            #[cfg(test)]
            Self::Scripted(feed) => feed.progress(),
        }
    }
}
