//! What a source is to follow, and how.

use std::path::PathBuf;
use std::time::Duration;

use cdc_rest::SourceName;

use super::url::{Secret, SourceKind, SourceUrl};

/// A source as the configuration has it: checked as far as that goes without the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// Its name: the one of its events' `source`.
    pub name: SourceName,
    /// Where the database is.
    pub url: SourceUrl,
    /// The password, when it does not stand in the address.
    pub password: Option<Secret>,
    /// Which tables and columns are captured, and what of them is hidden.
    pub selection: TableSelection,
    /// Whether the rows that are there when a table is first seen are read.
    pub snapshot: bool,
    /// The certificates that the server's has to come from, PEM; what the address says, if none.
    pub tls_ca_file: Option<PathBuf>,
    /// The time between signs of life in the database's log, so that an idle one does not hold log back.
    pub heartbeat: Option<Duration>,
    /// How much log the database may keep because of this source.
    pub max_retained_bytes: Option<u64>,
    /// What happens above that.
    pub on_max_retained: OnMaxRetained,
    /// The slot's name (PostgreSQL).
    pub slot: Option<String>,
    /// The publication's name (PostgreSQL).
    pub publication: Option<String>,
    /// The number under which the source registers as a replica (MySQL, MariaDB).
    pub server_id: Option<u32>,
}

/// Which tables and columns are captured, by patterns in which `*` stands for any characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSelection {
    /// `namespace.relation`; all that are not the server's own, if none.
    pub tables: Vec<String>,
    /// The same, of tables that are left out.
    pub exclude: Vec<String>,
    /// `namespace.relation.column`, of columns that are left out.
    pub exclude_columns: Vec<String>,
    /// Of columns of which a hash is kept.
    pub hash: Vec<String>,
    /// Of columns whose values are replaced by a fixed text.
    pub redact: Vec<String>,
    /// What goes into every hash first.
    pub salt: Option<Secret>,
    /// The name under which a table is captured, with `{database}`, `{namespace}` and `{relation}` filled in.
    pub table_name: Option<String>,
}

/// What happens when the database keeps more log for a source than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMaxRetained {
    /// It is said, and nothing else: the database keeps on keeping.
    #[default]
    Warn,
    /// The source stops. The slot stays, so nothing is lost, and nothing is freed either.
    Stop,
    /// The slot is dropped, which saves the database and ends the source: a repair is the way back.
    DropSlot,
}

impl SourceSpec {
    /// A source with defaults, as a lone address asks for it.
    #[must_use]
    pub fn new(name: SourceName, url: SourceUrl) -> Self {
        Self {
            name,
            url,
            password: None,
            selection: TableSelection::default(),
            snapshot: true,
            tls_ca_file: None,
            heartbeat: None,
            max_retained_bytes: None,
            on_max_retained: OnMaxRetained::Warn,
            slot: None,
            publication: None,
            server_id: None,
        }
    }

    /// What kind of database it follows.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        self.url.kind()
    }
}
