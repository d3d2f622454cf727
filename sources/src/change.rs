//! What a feed says: tables as they look from here on, and what happened to their rows, in the order of the database's
//! log.

use std::sync::Arc;

use crate::audit::AuditPiece;
use crate::feed::Reason;
use crate::rewrite::Rewrite;

/// Of which JSON type a column's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text, and everything whose digits or form JSON numbers would not keep.
    String,
    /// A JSON number, written with every digit.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A JSON object.
    Object,
    /// A JSON array.
    Array,
    /// Any of them (a `json` column).
    Any,
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name in the database.
    pub name: String,
    /// Of which type its values are in images.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
    /// The database's own name of its type, for people and for envelopes: `numeric(10,2)`, `int unsigned`.
    pub native_type: String,
}

/// A table as it looks from a place of the log on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The name under which it is captured.
    pub name: String,
    /// What kind of database it is in, as consumers know it: `postgresql`, `mysql`, `mariadb`.
    pub connector: &'static str,
    /// The database that is followed (PostgreSQL); the same as the namespace for MariaDB and MySQL.
    pub database: String,
    /// Its schema (PostgreSQL) or database (MariaDB, MySQL).
    pub namespace: String,
    /// Its name in the database.
    pub relation: String,
    /// In the order of the database. Columns that the rules leave out are not among them.
    pub columns: Vec<Column>,
    /// Names of the columns of its key, in key order; never empty.
    pub key: Vec<String>,
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The row is `image` now, whatever it was: an insert or an update.
    Replace,
    /// The row is gone. That it was never seen is no error.
    Remove,
    /// Every row of the table is gone. No key, no image.
    Truncate,
    /// The row was read from the table and is `image` at this place of the log: an event only if that is news.
    Read,
}

/// One change, at its place in the database's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table as it looks at this change.
    pub table: Arc<Table>,
    /// What happened.
    pub action: Action,
    /// The key's columns as text, in key order: a string's characters, a number's digits. Empty for a truncate.
    pub key: Vec<String>,
    /// The row as a JSON object, in column order, white space left out: the columns that the log told. None for
    /// `Remove` and `Truncate`.
    pub image: Option<String>,
    /// Names of columns that `image` lacks because the log did not repeat their unchanged values (PostgreSQL's TOAST):
    /// the row keeps what it had. Columns of the table, for `Replace` only.
    pub unchanged: Vec<String>,
    /// For a `Replace` whose key is new: the key that the row had. The change before this one, in the same portion,
    /// removed that key; `unchanged` columns are taken from what it was.
    pub previous_key: Option<Vec<String>>,
    /// The whole row before, if the log told it (PostgreSQL's REPLICA IDENTITY FULL, a full binlog row image).
    pub before: Option<String>,
    /// This change's place in the database's log: unique in it, the same whenever it is read again. None for `Read`.
    pub position: Option<String>,
    /// The transaction's name in the database. None for `Read`.
    pub transaction: Option<Arc<str>>,
    /// When the transaction was committed, in ms since 1970, by the database's clock.
    pub committed_at_ms: Option<u64>,
}

impl Change {
    /// A change that the log does not tell: of a row that was read, or one that a feed or the service makes itself.
    #[must_use]
    pub fn unlogged(table: Arc<Table>, action: Action, key: Vec<String>, image: Option<String>) -> Change {
        Change {
            table,
            action,
            key,
            image,
            unchanged: Vec::new(),
            previous_key: None,
            before: None,
            position: None,
            transaction: None,
            committed_at_ms: None,
        }
    }
}

/// A step in the database's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// From here on the table looks like this. Comes before the first change of each table, and after each change of
    /// its form; may come again although nothing changed.
    Describe(Arc<Table>),
    /// A row changed.
    Change(Change),
    /// The table's rows are read from here on: because it is new, or anew because the log no longer tells everything
    /// (a repair, another key). Several tables may be read at once, and rows of one come in no order.
    ReadBegan(Arc<Table>),
    /// All of the table's rows have been read. A row that was neither read nor changed since `ReadBegan` is not there.
    ReadDone(Arc<Table>),
    /// Every row of the table is rewritten by a rule, because the database changed its columns without a word in its
    /// log. Always the first step of its portion. May come again although it was done.
    Rewrite(Arc<Rewrite>),
    /// Rows of a table as the database has them at this place, to be compared with what is stored (see
    /// [`crate::audit`]). Always the first step of its portion, and no change.
    Audited(Arc<AuditPiece>),
    /// The audit of the table of this name is called off, and why.
    AuditOff {
        /// The name under which it is captured.
        table: String,
        /// Why.
        reason: Reason,
    },
    /// The table is no longer captured (dropped, renamed, excluded); a truncate before this step removed its rows. A
    /// reading of it that began is over.
    Gone(Arc<Table>),
}

/// All that a feed needs to go on after a restart: a text of its own, whose form is documented by the feed that wrote
/// it. Bounded: a few hundred bytes and a line per table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint(pub String);

/// The next steps, and where to go on once they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    /// In the order of the log. Holds whole transactions where they fit, and several small ones together; a large one
    /// comes in several portions. Empty when the database was busy with what is not captured.
    pub steps: Vec<Step>,
    /// A feed opened with it goes on right after `steps`: nothing is missing and nothing comes twice.
    pub checkpoint: Checkpoint,
}
