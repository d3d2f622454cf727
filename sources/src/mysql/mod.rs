//! The binary log of MariaDB (10.5 and later) and MySQL (5.7 and later), followed.
//!
//! Tested on MariaDB 10.11, a real server; and on logs that real MySQL servers of 5.1 to 9.6 wrote, replayed to the
//! source by a server of the tests (`tests/mysql_replay`). A real MySQL server has not been at hand: how its tables are
//! read beside its log, and its ways of logging in, are tested by nothing but what MariaDB has in common with it.
//!
//! A feed registers as a replica and reads the log's row events; it decodes them itself, straight into JSON. A table's
//! rows are read in chunks by its key while the log is followed: each chunk stands for one place of the log, and is
//! handed out when the log has been followed that far, without the rows that the log has changed since. It needs
//! `binlog_format=ROW`, `binlog_row_image=FULL` and, to know columns as they were, `binlog_row_metadata=FULL`;
//! [`check`] tells what is missing.
//!
//! | type | in images |
//! | --- | --- |
//! | `tinyint` … `bigint`, signed or not; `boolean` | number, every digit |
//! | `decimal` | number as written, zeros after the point kept: `1.10` |
//! | `float`, `double` | number, the shortest that reads back the same: `0.1`, `1`, `1e+300` |
//! | `bit(n)`, `year` | number |
//! | `date` | string `2024-02-29`; zero dates as they are: `0000-00-00` |
//! | `datetime(n)` | string `2024-02-29T12:34:56.120`, n digits of a second |
//! | `timestamp(n)` | the same in UTC, with `Z` behind it; the zero timestamp is `0000-00-00T00:00:00Z` |
//! | `time(n)` | string `-838:59:59.5` |
//! | `char`, `varchar`, `text` of any supported character set | string |
//! | `binary`, `varbinary`, `blob` | string in base64; `binary` with its zeros |
//! | `enum` | string; the empty string for what was no member |
//! | `set` | array of strings, in the order of the type |
//! | `json` | itself, white space left out; a string if it is not JSON as the engine takes it |
//! | JSON's own null as the value of a `json` column (SQL's NULL is `null`) | `{"$json":null}`; and so that it means nothing else, an object whose only member is `$json` stands in another one: `{"$json":{"$json":1}}` |
//! | `vector` (MySQL) | array of numbers, each the shortest that reads back the same |
//! | `geometry` and its kinds | object `{"srid":4326,"wkb":"…base64…"}` |
//! | `uuid`, `inet6`, `inet4` | string |
//!
//! What happens to whole tables: `TRUNCATE` is a truncate. `DROP TABLE` is one too, after which the table is gone, and
//! so is the old name of a `RENAME`; the new name's rows are read, as are those of a new table. Of what the log does not
//! tell in rows, the table's rows are read anew beside it, and the table says why: when `ALTER TABLE` may change what
//! images look like or which rows there are (columns, partitions, exchanged or converted ones, character sets, expressions
//! of virtual columns), when a foreign key changes rows by itself, when a transaction was taken back after it was written,
//! when XA transactions commit, and when a session logs only parts of rows. The statement in the log decides, not the
//! information schema, which may be ahead of it.
//!
//! Of tables with system versioning the present rows are captured, those that `SELECT` shows; columns that the server
//! hides (theirs, and hashes of long unique values) are not. Tables whose versions are told by transactions are logged as
//! statements whatever `binlog_format` is, and are read anew after each.
//!
//! A table that can't be followed stops alone: without a key (`no-key`, unless its rows are to be captured under ids of
//! their own: `keyless.rs`), with a type, character set or key that is not
//! supported (`table-refused`), that may not be read (`privileges`), that the server can't open (`unreadable`); these are
//! taken up again by themselves. One that a statement in the log changed (`row-format`) or that holds what can't be
//! decoded (`undecodable`) is taken up when somebody orders it, or when it is emptied.
//!
//! A change's position is its transaction's name (`0-1-42`, `uuid:42`, or `file:offset` where there are no global
//! identifiers), and the number of the row in it, counted over all tables: `0-1-42/0`. When a row's key changes, the
//! removal of the old one is `0-1-42/0.old`. What happens to a whole table counts as a row.

mod address;
mod alter;
mod apply;
mod audit;
mod bytes;
mod cascade;
mod catalog;
mod cell;
mod charset;
mod check;
mod checkpoint;
mod codec;
mod connection;
mod ddl;
mod event;
mod follow;
mod form;
mod json_binary;
mod json_diff;
mod keyless;
mod mapping;
mod outlook;
mod place;
mod reading;
mod row;
mod standing;
mod statement;
mod stream;
mod table_map;
mod tables;
mod wire;
mod words;
mod writes;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::audit::Audits;
pub use self::check::check;
use self::checkpoint::Resume;
use self::connection::stop;
use self::follow::Follower;
use self::outlook::Outlook;
use crate::audit::AuditOrder;
use crate::change::{Checkpoint, Portion};
use crate::feed::{Feed as FeedContract, FeedError, Progress, Remedy, TableOrders};
use crate::rules::Rules;

/// How a database is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it is: `mysql://user:password@host:port?ssl-mode=…&ssl-ca=…`. Parts are percent-encoded; the port is 3306
    /// unless said. `ssl-mode` is `disabled`, `preferred` (the default: encrypted if the server can, nothing
    /// verified), `required` or `verify-identity`; `ssl-ca` names a PEM file of the CAs to trust instead of the public
    /// ones, `ssl-name` the name that the certificate is for, if it is not the host's. No default.
    pub url: String,
    /// Which tables and columns are captured. Default: every table that is not the server's own.
    pub rules: Rules,
    /// Whether tables' rows are read before their changes follow. Without it only changes from now on are captured.
    /// Default: true.
    pub snapshot: bool,
    /// Go on although the log after the checkpoint is lost: follow from the present and read every table anew.
    /// Default: false.
    pub repair: bool,
    /// What is wanted of single tables. Default: nothing.
    pub orders: TableOrders,
    /// The id under which the feed registers as a replica; no other replica of the server may have it. Default: derived
    /// from the machine's name, the URL and the rules, so that it stays the same over restarts.
    pub server_id: Option<u32>,
    /// How often an idle server says that it is alive, in ms. After three of them and 5 s of silence the connection
    /// counts as dead. Default: 5,000.
    pub heartbeat_ms: u64,
    /// About how many bytes of images one portion holds. Default: 512 KiB.
    pub portion_bytes: usize,
    /// At most how many rows of a table are read at once. Default: 20,000.
    pub chunk_rows: usize,
    /// About how many bytes of rows are read at once. Default: 4 MiB.
    pub chunk_bytes: usize,
    /// How often the end of the log is looked at, for [`Progress`], in ms; new tables are looked for six times less
    /// often. Default: 5,000.
    pub look_ms: u64,
    /// Where rows of tables without a key are kept while they are read, if they are more than memory allows. Made if it is
    /// missing. Default: the system's folder for temporary files.
    pub spill_dir: PathBuf,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            url: String::new(),
            rules: Rules::default(),
            snapshot: true,
            repair: false,
            orders: TableOrders::default(),
            server_id: None,
            heartbeat_ms: 5_000,
            portion_bytes: 512 << 10,
            chunk_rows: 20_000,
            chunk_bytes: 4 << 20,
            look_ms: 5_000,
            spill_dir: std::env::temp_dir(),
        }
    }
}

/// A MariaDB or MySQL server, followed. Dropping it ends its connections.
#[derive(Debug)]
pub struct Feed {
    portions: mpsc::Receiver<Result<Portion, FeedError>>,
    outlook: Arc<Mutex<Outlook>>,
    orders: mpsc::UnboundedSender<AuditOrder>,
    task: JoinHandle<()>,
}

impl Feed {
    /// Connects, and goes on after a checkpoint, or begins at the present. Needs a runtime of tokio with time and I/O.
    ///
    /// Errors: everything that keeps a feed from beginning; `binlog-purged` may also come from the first
    /// [`FeedContract::next`].
    pub async fn open(options: Options, checkpoint: Option<&Checkpoint>) -> Result<Feed, FeedError> {
        let resume = match checkpoint {
            None => None,
            Some(checkpoint) => Some(Resume::read(&checkpoint.0).ok_or_else(|| {
                let message = "the stored checkpoint is not one of this kind of source; give the source another name, \
                    or ask for a repair"
                    .to_owned();
                stop("checkpoint", message)
            })?),
        };
        let outlook = Arc::new(Mutex::new(Outlook::default()));
        // One portion waits here while the caller stores another and the next is being built.
        let (sender, portions) = mpsc::channel(1);
        let (orders, ordered) = mpsc::unbounded_channel();
        let audits = Audits::new(ordered);
        let follower = Follower::open(options, resume, sender.clone(), Arc::clone(&outlook), audits).await?;
        let task = tokio::spawn(async move {
            let Err(error) = follower.run().await;
            // Whoever would want to know has gone if this fails.
            let _ = sender.send(Err(error)).await;
        });
        Ok(Feed { portions, outlook, orders, task })
    }
}

impl FeedContract for Feed {
    async fn next(&mut self) -> Result<Portion, FeedError> {
        self.portions.recv().await.unwrap_or_else(|| {
            let message = "the feed has ended already".to_owned();
            Err(FeedError { remedy: Remedy::Retry, code: "ended", message, source: None })
        })
    }

    fn confirm(&mut self, checkpoint: &Checkpoint) {
        if let Some(resume) = Resume::read(&checkpoint.0) {
            self.outlook.lock().unwrap_or_else(PoisonError::into_inner).confirm(&resume);
        }
    }

    fn audit(&mut self, order: AuditOrder) {
        // A follower that is gone has said why.
        let _ = self.orders.send(order);
    }

    fn progress(&self) -> Progress {
        self.outlook.lock().unwrap_or_else(PoisonError::into_inner).progress()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}
