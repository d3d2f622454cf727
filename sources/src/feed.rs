//! The contract of a feed, and what may go wrong in one.

use std::collections::BTreeMap;

use crate::audit::AuditOrder;
use crate::change::{Checkpoint, Portion};

/// One database, followed.
///
/// Order: portions come in the order of the database's log; a table's rows that are read beside it (a snapshot) come
/// at places where they are true. Duplicates: none, if what is stored and the checkpoint that a feed is opened with are
/// of the same moment. A feed is used by one task. After an error it is not used again.
#[allow(async_fn_in_trait, reason = "the service calls concrete feeds from one task each")]
pub trait Feed {
    /// Waits for the next portion. May be dropped while it waits; nothing is lost then.
    ///
    /// It goes on reading ahead, within bounded memory, while the caller stores what it was given.
    async fn next(&mut self) -> Result<Portion, FeedError>;

    /// Everything up to and with this checkpoint is durable: the database may forget it. Cheap, does not wait; what
    /// was never confirmed comes again when a feed is opened with an earlier checkpoint.
    fn confirm(&mut self, checkpoint: &Checkpoint);

    /// Has a table compared beside the log, in place of one that is being compared. What comes of it are steps, and they
    /// end with the last [`Step::Audited`](crate::Step::Audited) or a [`Step::AuditOff`](crate::Step::AuditOff). Does not
    /// wait. An audit ends with the feed, and nothing of it is in a checkpoint.
    fn audit(&mut self, order: AuditOrder);

    /// How far it is.
    fn progress(&self) -> Progress;
}

/// How far a feed is, for people and figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The place in the database's log up to which the database may forget, in its own notation.
    pub confirmed: Option<String>,
    /// The end of the database's log when it was last looked at.
    pub newest: Option<String>,
    /// How many bytes of log lie between them.
    pub lag_bytes: Option<u64>,
    /// How many bytes of log the database keeps because of this feed.
    pub retained_bytes: Option<u64>,
    /// Tables that are captured, by name.
    pub tables: Vec<TableProgress>,
}

/// How one table fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableProgress {
    /// The name under which it is captured.
    pub table: String,
    /// What is done with it.
    pub state: TableState,
    /// Why it is so, where there is something to say: for `Rereading`, `Paused` and `Stopped`.
    pub reason: Option<Reason>,
    /// Rows read so far, in this run.
    pub rows_read: u64,
    /// How many rows the table has by the database's own estimate, while it is being read.
    pub rows_estimated: Option<u64>,
}

/// What is done with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableState {
    /// Will be read.
    Waiting,
    /// Is being read for the first time.
    Reading,
    /// Its rows are known and may be wrong: they are read anew and compared, or will be.
    Rereading,
    /// Its rows are known, and its changes follow.
    Following,
    /// Somebody paused it: its changes are skipped.
    Paused,
    /// It can't be followed, and its changes are skipped; the others go on.
    Stopped,
}

/// Why a table is not simply followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    /// A stable word: `no-key`, `rows-changed`, `table-refused`, `privileges`, `columns-changed`, `rewritten`,
    /// `partitions`, `renamed`.
    pub code: String,
    /// For a person: what happened, and what to do if something has to be done.
    pub message: String,
}

impl Reason {
    /// A reason.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Reason {
        Reason { code: code.into(), message: message.into() }
    }
}

/// What somebody wants of single tables when a feed is opened, by the names under which they are captured. Names that
/// the feed does not have are no error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOrders {
    /// Tables that are not followed: their changes are skipped, and their rows stay as they are. One that is held no
    /// longer has to be in `reread`.
    pub held: BTreeMap<String, Hold>,
    /// Tables whose rows are read anew and compared, whatever the checkpoint says of them.
    pub reread: BTreeMap<String, Reason>,
}

/// Why a table is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Somebody paused it.
    Paused,
    /// What it holds can't be captured.
    Stopped(Reason),
    /// Somebody dropped it from the source: it is as if the rules excluded it.
    Dropped,
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Open the feed again after a pause: the database is away, restarting, or out of connections.
    Retry,
    /// Somebody must change something first; the message says what, with the SQL where there is some.
    Stop,
    /// The database no longer has the log after our position (a slot dropped, recreated, moved or invalidated; a
    /// purged binlog): stop, and let somebody ask for a repair, which reads the tables anew and compares.
    Repair,
}

/// Why a feed ended or could not begin.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct FeedError {
    /// What to do.
    pub remedy: Remedy,
    /// A stable word for what happened: `connection`, `authentication`, `slot-lost`, `binlog-purged`, `privileges`.
    pub code: &'static str,
    /// For a person: what is wrong, where, and what to do.
    pub message: String,
    /// What lies behind it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
