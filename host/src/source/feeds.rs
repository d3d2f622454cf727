//! The feeds that there are, behind one face. An enum and no trait object: a feed's calls are futures of its own type.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_sources::{
    AuditOrder, Checkpoint, Feed as _, FeedError, Finding, Portion, Progress, Remedy, Rules, Table, TableOrders, mysql,
    postgres,
};

use super::kept::{Kept, Selected};
use super::spec::{SourceSpec, TableSelection};
use super::url::{Secret, SourceKind};

/// How long a slot may take to be left by a feed that has ended.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is looked whether it has.
const RELEASE_LOOK: Duration = Duration::from_millis(200);

/// What opens a source's feed, as often as it takes. Files that hold secrets are read each time, so that a password
/// that was changed counts from the next time on.
pub(super) enum Opener {
    Database {
        spec: Box<SourceSpec>,
        /// What has to be kept for a while goes into a folder of its own below this one.
        folder: PathBuf,
    },
    #[cfg(test)]
    Scripted(Arc<super::scripted::Script>),
}

/// What a feed is opened with beside its checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Whether every table is read anew, and a log that is lost is no error.
    pub(super) repair: bool,
    /// What is wanted of single tables.
    pub(super) orders: TableOrders,
    /// Which tables somebody has chosen while the service ran.
    pub(super) selected: Option<Selected>,
    /// The tables of which there are rows here, as those look.
    pub(super) known: Vec<Arc<Table>>,
}

/// How one kind of database is followed.
enum Options {
    Postgres(Box<postgres::Options>),
    Mysql(Box<mysql::Options>),
}

/// An open feed.
pub(super) enum AnyFeed {
    Postgres(postgres::Feed),
    Mysql(mysql::Feed),
    #[cfg(test)]
    Scripted(super::scripted::ScriptedFeed),
}

impl Wanted {
    pub(super) fn of(kept: &Kept) -> Self {
        Self { repair: kept.is_repairing, orders: kept.orders(), selected: kept.selected.clone(), known: Vec::new() }
    }
}

impl Opener {
    /// What opens the feed of this source.
    pub(super) fn new(spec: &SourceSpec, folder: &Path) -> Self {
        Self::Database { spec: Box::new(spec.clone()), folder: folder.to_owned() }
    }

    /// Connects, and goes on after the checkpoint.
    pub(super) async fn open(&self, checkpoint: Option<Checkpoint>, wanted: Wanted) -> Result<AnyFeed, FeedError> {
        match self {
            Self::Database { spec, folder } => match options(spec, folder, wanted)? {
                Options::Postgres(options) => {
                    postgres::Feed::open(*options, checkpoint.as_ref()).await.map(AnyFeed::Postgres)
                }
                Options::Mysql(options) => mysql::Feed::open(*options, checkpoint.as_ref()).await.map(AnyFeed::Mysql),
            },
            #[cfg(test)]
            Self::Scripted(script) => script.open(checkpoint, wanted).await.map(AnyFeed::Scripted),
        }
    }

    /// How it is opened, for what needs no feed; none of a script.
    fn options(&self) -> Result<Option<Options>, FeedError> {
        match self {
            Self::Database { spec, folder } => options(spec, folder, Wanted::default()).map(Some),
            #[cfg(test)]
            Self::Scripted(_) => Ok(None),
        }
    }

    /// What is missing in the database before the source works.
    pub(super) async fn check(&self) -> Vec<Finding> {
        match self.options() {
            Ok(Some(Options::Postgres(options))) => postgres::check(*options).await,
            Ok(Some(Options::Mysql(options))) => mysql::check(&options).await,
            Ok(None) => Vec::new(),
            Err(error) => vec![Finding {
                severity: cdc_sources::Severity::Missing,
                code: error.code,
                message: error.message,
                remedy: None,
            }],
        }
    }

    /// Drops what holds log in the database. A binlog is not held by whoever reads it. Waits a while for whoever follows
    /// it: a feed that was dropped leaves its connection to the server to notice.
    pub(super) async fn drop_slot(&self) -> Result<(), FeedError> {
        #[cfg(test)]
        if let Self::Scripted(script) = self {
            return script.drop_slot().await;
        }
        let Some(Options::Postgres(options)) = self.options()? else { return Ok(()) };
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        loop {
            match postgres::drop_slot((*options).clone()).await {
                Err(error) if error.code == "slot-in-use" && Instant::now() < deadline => {
                    tokio::time::sleep(RELEASE_LOOK).await;
                }
                dropped => return dropped,
            }
        }
    }

    /// How much log the database keeps for the source while no feed is open; none where it keeps none for anybody.
    pub(super) async fn retained(&self) -> Result<Option<Progress>, FeedError> {
        #[cfg(test)]
        if let Self::Scripted(script) = self {
            return Ok(Some(script.retained()));
        }
        match self.options()? {
            Some(Options::Postgres(options)) => postgres::retained(*options).await.map(Some),
            Some(Options::Mysql(_)) | None => Ok(None),
        }
    }

    /// Drops all that the source has made in the database. Answers with the publication, if one of its is left because
    /// somebody else made it.
    pub(super) async fn leave(&self) -> Result<Option<String>, FeedError> {
        self.drop_slot().await?;
        let Some(Options::Postgres(options)) = self.options()? else { return Ok(None) };
        let publication = options.publication.clone();
        let is_left = postgres::drop_publication(*options).await?;
        Ok(is_left.then_some(publication))
    }
}

fn options(spec: &SourceSpec, folder: &Path, wanted: Wanted) -> Result<Options, FeedError> {
    let url = spec.connection_url().map_err(|(file, error)| FeedError {
        // As a refused login: whoever changes the file may be at it.
        remedy: Remedy::Stop,
        code: "authentication",
        message: format!("cannot read the password in {}: {error}", file.display()),
        source: None,
    })?;
    let url = url.reveal().to_owned();
    let Wanted { repair, orders, selected, known } = wanted;
    let rules = rules(&spec.selection, selected.as_ref());
    Ok(match spec.kind() {
        SourceKind::Postgres => {
            let slot = spec.slot_name();
            let publication = spec.publication.clone().unwrap_or_else(|| slot.clone());
            Options::Postgres(Box::new(postgres::Options {
                rules,
                publication,
                slot,
                create_slot: spec.makes_slot,
                create_publication: spec.makes_slot,
                skip_tables_without_key: spec.skips_tables_without_key,
                snapshot: spec.snapshot,
                repair,
                orders,
                known,
                spill_dir: folder.join("spill").join(spec.name.as_str()),
                read_parallelism: spec.read_parallelism as usize,
                heartbeat_write_interval: spec.heartbeat,
                ..postgres::Options::new(url)
            }))
        }
        SourceKind::Mysql | SourceKind::Mariadb => {
            let defaults = mysql::Options::default();
            let heartbeat = spec.heartbeat.map(|every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
            Options::Mysql(Box::new(mysql::Options {
                url,
                rules,
                snapshot: spec.snapshot,
                repair,
                orders,
                server_id: spec.server_id,
                heartbeat_ms: heartbeat.unwrap_or(defaults.heartbeat_ms),
                spill_dir: folder.join("spill").join(spec.name.as_str()),
                ..defaults
            }))
        }
    })
}

/// What is captured: as the configuration says, or as somebody has chosen since.
pub(super) fn rules(selection: &TableSelection, selected: Option<&Selected>) -> Rules {
    let defaults = Rules::default();
    let TableSelection { tables, exclude, append_only, exclude_columns, hash, redact, salt, table_name } =
        selection.clone();
    let Selected { tables, exclude } = selected.cloned().unwrap_or(Selected { tables, exclude });
    Rules {
        include: if tables.is_empty() { defaults.include } else { tables },
        exclude,
        exclude_columns,
        hash_columns: hash,
        redact_columns: redact,
        salt: salt.as_ref().map_or("", Secret::reveal).to_owned(),
        name: table_name.unwrap_or(defaults.name),
        append_only,
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

    pub(super) fn audit(&mut self, order: AuditOrder) {
        match self {
            Self::Postgres(feed) => feed.audit(order),
            Self::Mysql(feed) => feed.audit(order),
            #[cfg(test)]
            Self::Scripted(feed) => feed.audit(order),
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
