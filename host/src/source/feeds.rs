//! The feeds that there are, behind one face. An enum and no trait object: a feed's calls are futures of its own type.

use std::path::Path;
use std::time::{Duration, Instant};

use cdc_sources::{Checkpoint, Feed as _, FeedError, Finding, Portion, Progress, Rules, mysql, postgres};

use super::spec::{SourceSpec, TableSelection};
use super::url::{Secret, SourceKind};

/// How long a slot may take to be left by a feed that has ended.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is looked whether it has.
const RELEASE_LOOK: Duration = Duration::from_millis(200);

/// What opens a source's feed, as often as it takes.
pub(super) enum Opener {
    Postgres(Box<postgres::Options>),
    Mysql(Box<mysql::Options>),
    #[cfg(test)]
    Scripted(std::sync::Arc<super::scripted::Script>),
}

/// An open feed.
pub(super) enum AnyFeed {
    Postgres(postgres::Feed),
    Mysql(mysql::Feed),
    #[cfg(test)]
    Scripted(super::scripted::ScriptedFeed),
}

impl Opener {
    /// What opens the feed of this source. What it has to keep for a while goes into a folder of its own below `folder`.
    pub(super) fn new(spec: &SourceSpec, folder: &Path) -> Self {
        let url = spec.connection_url().reveal().to_owned();
        let rules = rules(&spec.selection);
        match spec.kind() {
            SourceKind::Postgres => {
                let slot = spec.slot_name();
                let publication = spec.publication.clone().unwrap_or_else(|| slot.clone());
                Self::Postgres(Box::new(postgres::Options {
                    rules,
                    publication,
                    slot,
                    create_slot: spec.makes_slot,
                    create_publication: spec.makes_slot,
                    skip_tables_without_key: spec.skips_tables_without_key,
                    snapshot: spec.snapshot,
                    spill_dir: folder.join("spill").join(spec.name.as_str()),
                    heartbeat_write_interval: spec.heartbeat,
                    ..postgres::Options::new(url)
                }))
            }
            SourceKind::Mysql | SourceKind::Mariadb => {
                let defaults = mysql::Options::default();
                let heartbeat = spec.heartbeat.map(|every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
                Self::Mysql(Box::new(mysql::Options {
                    url,
                    rules,
                    snapshot: spec.snapshot,
                    server_id: spec.server_id,
                    heartbeat_ms: heartbeat.unwrap_or(defaults.heartbeat_ms),
                    ..defaults
                }))
            }
        }
    }

    /// Connects, and goes on after the checkpoint. With `reads_anew` every table is read anew, and a log that is lost is
    /// no error.
    pub(super) async fn open(&self, checkpoint: Option<Checkpoint>, reads_anew: bool) -> Result<AnyFeed, FeedError> {
        match self {
            Self::Postgres(options) => {
                let options = postgres::Options { repair: reads_anew, ..(**options).clone() };
                postgres::Feed::open(options, checkpoint.as_ref()).await.map(AnyFeed::Postgres)
            }
            Self::Mysql(options) => {
                let options = mysql::Options { repair: reads_anew, ..(**options).clone() };
                mysql::Feed::open(options, checkpoint.as_ref()).await.map(AnyFeed::Mysql)
            }
            #[cfg(test)]
            Self::Scripted(script) => script.open(checkpoint, reads_anew).await.map(AnyFeed::Scripted),
        }
    }

    /// What is missing in the database before the source works.
    pub(super) async fn check(&self) -> Vec<Finding> {
        match self {
            Self::Postgres(options) => postgres::check((**options).clone()).await,
            Self::Mysql(options) => mysql::check(options).await,
            #[cfg(test)]
            Self::Scripted(_) => Vec::new(),
        }
    }

    /// Drops what holds log in the database. A binlog is not held by whoever reads it. Waits a while for whoever follows
    /// it: a feed that was dropped leaves its connection to the server to notice.
    pub(super) async fn drop_slot(&self) -> Result<(), FeedError> {
        match self {
            Self::Postgres(options) => {
                let deadline = Instant::now() + RELEASE_TIMEOUT;
                loop {
                    match postgres::drop_slot((**options).clone()).await {
                        Err(error) if error.code == "slot-in-use" && Instant::now() < deadline => {
                            tokio::time::sleep(RELEASE_LOOK).await;
                        }
                        dropped => return dropped,
                    }
                }
            }
            Self::Mysql(_) => Ok(()),
            #[cfg(test)]
            Self::Scripted(script) => script.drop_slot().await,
        }
    }

    /// How much log the database keeps for the source while no feed is open; none where it keeps none for anybody.
    pub(super) async fn retained(&self) -> Result<Option<Progress>, FeedError> {
        match self {
            Self::Postgres(options) => postgres::retained((**options).clone()).await.map(Some),
            Self::Mysql(_) => Ok(None),
            #[cfg(test)]
            Self::Scripted(script) => Ok(Some(script.retained())),
        }
    }

    /// Drops all that the source has made in the database. Answers with the publication, if one of its is left because
    /// somebody else made it.
    pub(super) async fn leave(&self) -> Result<Option<&str>, FeedError> {
        self.drop_slot().await?;
        match self {
            Self::Postgres(options) => {
                let is_left = postgres::drop_publication((**options).clone()).await?;
                Ok(is_left.then_some(options.publication.as_str()))
            }
            Self::Mysql(_) => Ok(None),
            #[cfg(test)]
            Self::Scripted(_) => Ok(None),
        }
    }
}

fn rules(selection: &TableSelection) -> Rules {
    let defaults = Rules::default();
    let TableSelection { tables, exclude, exclude_columns, hash, redact, salt, table_name } = selection.clone();
    Rules {
        include: if tables.is_empty() { defaults.include } else { tables },
        exclude,
        exclude_columns,
        hash_columns: hash,
        redact_columns: redact,
        salt: salt.as_ref().map_or("", Secret::reveal).to_owned(),
        name: table_name.unwrap_or(defaults.name),
    }
}

/// See [`cdc_sources::Feed`].
impl AnyFeed {
    pub(super) async fn next(&mut self) -> Result<Portion, FeedError> {
        match self {
            Self::Postgres(feed) => feed.next().await,
            Self::Mysql(feed) => feed.next().await,
            #[cfg(test)]
            Self::Scripted(feed) => feed.next().await,
        }
    }

    pub(super) fn confirm(&mut self, checkpoint: &Checkpoint) {
        match self {
            Self::Postgres(feed) => feed.confirm(checkpoint),
            Self::Mysql(feed) => feed.confirm(checkpoint),
            #[cfg(test)]
            Self::Scripted(feed) => feed.confirm(checkpoint),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        match self {
            Self::Postgres(feed) => feed.progress(),
            Self::Mysql(feed) => feed.progress(),
            #[cfg(test)]
            Self::Scripted(feed) => feed.progress(),
        }
    }
}
