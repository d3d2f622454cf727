//! PostgreSQL, followed by logical replication (version 14 and later, plugin `pgoutput`).
//!
//! # What it does
//!
//! A replication slot keeps the server's log from our position on, and a publication says of which tables it tells.
//! One thread follows the log (`follow.rs`, `decode.rs`), others read tables beside it while there is something to read
//! (`read.rs`), and one looks at the catalog and the slot now and then (`watch.rs`). [`Feed`] hands out what the first one puts together.
//!
//! - Transactions come whole where they fit into a portion. Large ones come in several; those that the server sends
//!   before they commit are kept in memory and beyond a limit in a file (`spill.rs`), and dropped if they roll back.
//! - A slot that was made with `two_phase` is followed too: rows of a prepared transaction come when it is committed
//!   (`prepared.rs`).
//! - A position is `<commit record>/<number of the message>` (`decode.rs`); a checkpoint can stand inside of a
//!   transaction (`checkpoint.rs`).
//! - The slot is confirmed only up to a checkpoint that [`crate::Feed::confirm`] was called with. An idle or unrelated
//!   database moves on by portions without steps, at most one in each `checkpoint_interval`.
//! - Tables are read while changes stream, and handed over without gap or repeat (`window.rs`). A table that is
//!   published later is noticed and read without a stop.
//! - A row's key is what the log names it by: the primary key, or the index of its REPLICA IDENTITY; with REPLICA
//!   IDENTITY FULL the primary key, or another unique index over columns that are not null. A table without one is
//!   refused, unless its rows are to be captured under ids of their own (`keyless.rs`). A row whose key changes is a `Remove` and a `Replace` in the same portion.
//! - A partitioned table is one table, under its own name. Generated columns are not in the log (before version 18, or
//!   if they are not published), and are left out of what is read too. Column lists and row filters of a publication
//!   hold for what is read too.
//! - Rows can be compared with what was handed out of them, by sums that the server computes or whole (`audit/`).
//! - How values are written: `value.rs`.
//!
//! # The role it needs
//!
//! The least that works, if an owner of the tables makes the publication; [`check()`] tells what is missing.
//!
//! ```sql
//! CREATE ROLE cdc LOGIN REPLICATION PASSWORD '…';
//! GRANT CONNECT ON DATABASE app TO cdc;
//! GRANT USAGE ON SCHEMA shop TO cdc;
//! GRANT SELECT ON ALL TABLES IN SCHEMA shop TO cdc;
//! CREATE PUBLICATION cdc FOR TABLE shop.orders, shop.items WITH (publish_via_partition_root = true);
//! ```
//!
//! Reading tables writes one empty message into the log for each chunk (`pg_logical_emit_message`, which every role may
//! call). A table with row security needs BYPASSRLS: reading it fails rather than leaving out rows.

mod address;
mod announced;
mod audit;
mod catalog;
mod check;
mod checkpoint;
mod decode;
mod definition;
mod follow;
mod keyless;
mod lacking;
mod lsn;
mod pgoutput;
mod portion;
mod prepared;
mod queue;
mod read;
mod readers;
mod reading;
mod reads;
mod shape;
mod slot;
mod spill;
mod split;
mod tables;
mod tls;
mod value;
mod watch;
mod window;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use address::Address;
use audit::Audits;
use catalog::{Catalog, number, one_row, text};
use checkpoint::{Mark, Origin, Place, TableMark, Writer};
use decode::Decoder;
use follow::Follower;
use queue::Shared;
use readers::Readers;
use reads::Reads;
use tables::give_orders;
use watch::Watcher;
use wire::{Connection, Purpose, identifier, literal};

pub use audit::{RowText, TextForm};
pub use check::check;

use crate::audit::AuditOrder;
use crate::change::{Checkpoint, Portion, Table};
use crate::feed::{FeedError, Progress, Remedy, TableOrders};
use crate::rules::Rules;

/// The oldest version whose log this feed reads: the first with `proto_version` 2.
const VERSION_MIN: u32 = 14;

/// The oldest version whose standbys decode their log.
const STANDBY_VERSION_MIN: u32 = 16;

/// How a PostgreSQL database is followed.
#[derive(Clone, Debug)]
pub struct Options {
    /// `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…`. `sslmode` is `disable`, `prefer`
    /// (default), `require`, `verify-ca` or `verify-full`; without a CA file the public CAs are trusted.
    pub url: String,
    /// Which tables and columns, under which names, and what is hidden. Default: every table.
    pub rules: Rules,
    /// The replication slot. Default: `cdc`.
    pub slot: String,
    /// The publication. Default: `cdc`.
    pub publication: String,
    /// Whether the slot is made if it is missing. Default: true.
    pub create_slot: bool,
    /// Whether the publication is made if it is missing, and tables that the rules include are added to it if it is
    /// owned. Default: true.
    pub create_publication: bool,
    /// Whether a publication that is made is FOR ALL TABLES (which a superuser must do), instead of naming those that
    /// the rules include. Default: false.
    pub publish_all_tables: bool,
    /// Whether tables without a usable key are passed over instead of being an error. Default: false.
    pub skip_tables_without_key: bool,
    /// Whether rows that are there already are read. Default: true.
    pub snapshot: bool,
    /// Opens at the present instead of at the checkpoint's position, makes the slot anew if it is lost, and reads every
    /// table anew. Default: false.
    pub repair: bool,
    /// What is wanted of single tables. Default: nothing.
    pub orders: TableOrders,
    /// Tables as they were last described, of which there are rows. Default: none.
    pub known: Vec<Arc<Table>>,
    /// Where open transactions are kept that are larger than memory allows. Made if it is missing. Default: the
    /// system's folder for temporary files.
    pub spill_dir: PathBuf,
    /// How many bytes of open transactions are kept in memory. Default: 4 MiB.
    pub transaction_memory_bytes: usize,
    /// A portion with as many bytes is full. Default: 512 KiB.
    pub portion_bytes: usize,
    /// A portion with as many steps is full. Default: 4,096.
    pub portion_changes: usize,
    /// How many parts of tables are read at once: so many tables, and large ones in ranges of their keys. Each has a
    /// connection while there is something to read, and all have one more. Default: 4.
    pub read_parallelism: usize,
    /// A table with fewer rows, by a sample, is not read in ranges. Default: 100,000.
    pub read_range_rows: u64,
    /// How many rows of a table are read in one transaction at most. Default: 100,000.
    pub read_chunk_rows: usize,
    /// How many bytes of rows that were read may wait; twice as many may be in memory. All that is read at once shares
    /// them. Default: 8 MiB.
    pub read_chunk_bytes: usize,
    /// How often tables are looked for that were published or dropped. Default: 2 s.
    pub catalog_interval: Duration,
    /// How often the slot and the end of the log are looked at. Default: 5 s.
    pub status_interval: Duration,
    /// How often a checkpoint is handed out without steps, if the log moved on with nothing of ours. Default: 10 s.
    pub checkpoint_interval: Duration,
    /// How often an empty message is written into the log, for a database whose own log moves too seldom to be
    /// followed by keepalives. Default: never.
    pub heartbeat_write_interval: Option<Duration>,
}

impl Options {
    /// The defaults, for a connection URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Options {
        Options {
            url: url.into(),
            rules: Rules::default(),
            slot: "cdc".into(),
            publication: "cdc".into(),
            create_slot: true,
            create_publication: true,
            publish_all_tables: false,
            skip_tables_without_key: false,
            snapshot: true,
            repair: false,
            orders: TableOrders::default(),
            known: Vec::new(),
            spill_dir: std::env::temp_dir(),
            transaction_memory_bytes: 4 << 20,
            portion_bytes: 512 << 10,
            portion_changes: 4096,
            read_parallelism: 4,
            read_range_rows: 100_000,
            read_chunk_rows: 100_000,
            read_chunk_bytes: 8 << 20,
            catalog_interval: Duration::from_secs(2),
            status_interval: Duration::from_secs(5),
            checkpoint_interval: Duration::from_secs(10),
            heartbeat_write_interval: None,
        }
    }
}

/// A PostgreSQL database, followed. Its threads end when it is dropped.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

impl Feed {
    /// Connects, makes or checks publication and slot, and begins at the checkpoint; without one, at the slot's
    /// position, and with reading every table. May be called from any runtime.
    ///
    /// # Errors
    /// `configuration`, `connection`, `authentication`, `privileges`, `version`, `settings`, `publication`, `no-key`,
    /// `table-refused`, `encoding`, `pooler`, `standby`, `slot-room`, `slot-missing`, `slot-in-use`, `slot-foreign`,
    /// `slot-lost`, `another-database`, `checkpoint`.
    pub async fn open(options: Options, checkpoint: Option<&Checkpoint>) -> Result<Feed, FeedError> {
        let checkpoint = checkpoint.cloned();
        off_the_runtime("postgres-open", move || open(options, checkpoint.as_ref())).await
    }
}

impl crate::feed::Feed for Feed {
    async fn next(&mut self) -> Result<Portion, FeedError> {
        self.shared.take().await
    }

    fn confirm(&mut self, checkpoint: &Checkpoint) {
        if let Some(lsn) = checkpoint::confirmed_by(checkpoint) {
            self.shared.confirm(lsn);
        }
    }

    fn progress(&self) -> Progress {
        queue::lock(&self.shared.progress).clone()
    }

    fn audit(&mut self, order: AuditOrder) {
        self.shared.audit.order(order);
        self.shared.ring();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// Drops the replication slot, so that the server keeps no log for it any more. That it is not there is no error.
///
/// # Errors
/// As [`Feed::open`]; `slot-in-use` while a feed follows it.
pub async fn drop_slot(options: Options) -> Result<(), FeedError> {
    in_passing("postgres-drop", options, |sql, options| slot::drop(sql, &options.slot)).await
}

/// How much log the server keeps for the slot although nothing follows it: a [`Progress`] without tables, and of nothing
/// if there is no slot.
///
/// # Errors
/// As [`Feed::open`].
pub async fn retained(options: Options) -> Result<Progress, FeedError> {
    in_passing("postgres-retained", options, |sql, options| {
        let found = slot::find(sql, &options.slot);
        let found = found.map_err(|error| error.into_feed("look up the replication slot"))?;
        let mut progress = Progress::default();
        if let Some(found) = found {
            found.note_in(&mut progress, found.confirmed);
        }
        Ok(progress)
    })
    .await
}

/// Drops the publication, if a feed made it. Answers whether it is left, because somebody else did.
///
/// # Errors
/// As [`Feed::open`]; `privileges` if it is not the user's.
pub async fn drop_publication(options: Options) -> Result<bool, FeedError> {
    in_passing("postgres-drop", options, |sql, options| slot::drop_publication(sql, &options.publication)).await
}

/// Does something over a connection of its own, which is closed then.
async fn in_passing<T: Send + 'static>(
    name: &str,
    options: Options,
    work: impl FnOnce(&mut Connection, &Options) -> Result<T, FeedError> + Send + 'static,
) -> Result<T, FeedError> {
    off_the_runtime(name, move || {
        let mut sql = connect(&Address::parse(&options.url)?, Purpose::Sql, None)?;
        let done = work(&mut sql, &options);
        sql.terminate(false);
        done
    })
    .await
}

/// Does something that blocks on a thread of its own.
async fn off_the_runtime<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, FeedError> + Send + 'static,
) -> Result<T, FeedError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    spawn(name, move || {
        // Nobody waits any more: what was opened is dropped again.
        let _ = sender.send(work());
    })?;
    receiver.await.unwrap_or_else(|error| {
        Err(FeedError {
            remedy: Remedy::Retry,
            code: "ended",
            message: "the thread that talks to the database panicked".into(),
            source: Some(error.into()),
        })
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), FeedError> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(|_| ()).map_err(|error| FeedError {
        remedy: Remedy::Retry,
        code: "threads",
        message: format!("no thread could be started: {error}"),
        source: Some(error.into()),
    })
}

/// Opens a connection, which is cut off when everything that is shared stops.
fn connect(address: &Address, purpose: Purpose, shared: Option<&Shared>) -> Result<Connection, FeedError> {
    let doing = || format!("connect to {}:{}", address.host, address.port);
    let connection = Connection::open(address, purpose).map_err(|error| {
        // Connecting as a replication client needs an attribute of the role.
        let replication = purpose == Purpose::Replication && error.code() == Some("42501");
        let mut error = error.into_feed(&doing());
        if replication {
            error.message.push_str(&format!("; ALTER ROLE {} REPLICATION", identifier(&address.user)));
        }
        error
    })?;
    if let Some(shared) = shared {
        shared.cut_at_stop(connection.closer().map_err(|error| wire::WireError::from(error).into_feed(&doing()))?);
    }
    Ok(connection)
}

fn open(options: Options, checkpoint: Option<&Checkpoint>) -> Result<Feed, FeedError> {
    let address = Address::parse(&options.url)?;
    let resumed = checkpoint.map(Mark::read).transpose()?;
    let shared = Arc::new(Shared::new().map_err(|error| wire::WireError::from(error).into_feed("set up"))?);
    let mut sql = connect(&address, Purpose::Sql, Some(&shared))?;
    check_server(&mut sql, &options.slot)?;
    let mut stream = connect(&address, Purpose::Replication, None)?;
    let origin = identify(&mut stream, &address, &options)?;
    let mut tables = BTreeMap::new();
    if let Some((mark, _)) = resumed.as_ref().filter(|_| !options.repair) {
        tables.extend(mark.tables.iter().map(|mark| (mark.oid, mark.clone())));
    }
    // What somebody took out of the publication stays out, unless it is asked for.
    let wanted = |mark: &TableMark| {
        let name = options.rules.captured_name(&address.database, &mark.namespace, &mark.relation);
        options.orders.reread.contains_key(&name)
    };
    let known = tables.values().filter(|mark| !wanted(mark)).map(|mark| mark.oid).collect();
    give_orders(&mut tables, &options.orders, &address.database, &options.rules);
    slot::settle_publication(&mut sql, &options, &known)?;
    let history = match &resumed {
        Some((mark, _)) if mark.origin.timeline < origin.timeline => history(&mut stream, origin.timeline)?,
        _ => Vec::new(),
    };
    let (place, slot_is_new) = slot::settle(&mut sql, &options, &origin, &history, resumed.as_ref())?;
    shared.confirm(place.needed_from());

    let rules = Arc::new(options.rules.clone());
    let options = Arc::new(options);
    let begins = resumed.is_none() || options.repair;
    let look_around = |connection| {
        Catalog::new(connection, &options.publication, &address.database, rules.clone()).without(&options.orders)
    };
    let mut catalog = look_around(sql);
    let overview = begins.then(|| catalog.overview()).transpose();
    let overview = overview.map_err(|error| error.into_feed("look up tables"))?;

    let mut readers = Readers::new(options.clone(), address.clone(), shared.clone(), keyless::id_prefix(&origin));
    let mut watching = look_around(connect(&address, Purpose::Sql, Some(&shared))?);
    let publication = slot::find_publication(&mut watching.connection, &options.publication)
        .map_err(|error| error.into_feed("look up the publication"))?;
    let standby = slot::applied(&mut watching.connection).map_err(|error| error.into_feed("look at the server"))?;
    let may_add = |publication| standby.is_none() && slot::may_add_tables(&options, publication);
    let adds_tables = publication.is_some_and(may_add);
    start(&mut stream, &options, place)?;
    let watcher = Watcher::new(options.clone(), shared.clone(), watching, adds_tables);
    let audits = Audits::new(shared.clone(), options.clone(), address.clone());
    let writer = Writer::new(&origin);
    let mut decoder = Decoder::new(options, catalog, shared.clone(), place, tables, writer);
    decoder.adds_tables = adds_tables;
    decoder.id_prefix = keyless::id_prefix(&origin);
    if let Some(overview) = overview {
        decoder.begin_with(overview, !slot_is_new);
    }
    if decoder.options.snapshot && decoder.tables.values().any(TableMark::is_to_be_read) {
        // It connects while everything else begins.
        readers.prepare(0)?;
    }
    spawn("postgres-watch", move || watcher.run())?;
    let follower = Follower::new(stream, decoder, Reads::new(shared.clone(), readers), audits, shared.clone());
    spawn("postgres-log", move || follower.run())?;
    Ok(Feed { shared })
}

/// Refuses a server whose log could not be followed.
fn check_server(sql: &mut Connection, slot: &str) -> Result<(), FeedError> {
    let stop = |code, message| FeedError { remedy: Remedy::Stop, code, message, source: None };
    if sql.major_version() < VERSION_MIN {
        let message = format!("the server is PostgreSQL {}, and {VERSION_MIN} is the oldest", sql.server_version());
        return Err(stop("version", message));
    }
    let applied = slot::applied(sql).map_err(|error| error.into_feed("look at the server"))?;
    if applied.is_some() {
        let found = slot::find(sql, slot).map_err(|error| error.into_feed("look up the replication slot"))?;
        let synced = found.is_some_and(|found| found.synced);
        if synced || sql.major_version() < STANDBY_VERSION_MIN {
            // It may be about to take over.
            let why = if synced { "brings the slot along, which can be followed" } else { "can be followed" };
            let message =
                format!("the server is a standby, and {why} when it has taken over. Let the url name the primary");
            return Err(FeedError { remedy: Remedy::Retry, code: "standby", message, source: None });
        }
    }
    let rows = sql.query("SHOW wal_level").and_then(|rows| text(&mut one_row(rows)?));
    let level = rows.map_err(|error| error.into_feed("look at wal_level"))?;
    if level != "logical" {
        let message = format!(
            "wal_level is {level}, and the log tells no rows below logical: ALTER SYSTEM SET wal_level = logical, and \
             restart the server"
        );
        return Err(stop("settings", message));
    }
    Ok(())
}

fn identify(stream: &mut Connection, address: &Address, options: &Options) -> Result<Origin, FeedError> {
    let rows = stream.query("IDENTIFY_SYSTEM");
    let read = |rows| {
        let mut cells = one_row(rows)?;
        Ok::<_, wire::WireError>((text(&mut cells)?, number(&mut cells)?))
    };
    let (system, timeline) = rows.and_then(read).map_err(|error| error.into_feed("identify the server"))?;
    Ok(Origin { system, timeline, database: address.database.clone(), slot: options.slot.clone() })
}

/// Where the timelines before this one ended, the oldest first.
fn history(stream: &mut Connection, timeline: u32) -> Result<Vec<(u32, lsn::Lsn)>, FeedError> {
    let rows = stream.query(&format!("TIMELINE_HISTORY {timeline}"));
    let rows = rows.map_err(|error| error.into_feed("look at the database's timelines"))?;
    let content = rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten()).unwrap_or_default();
    // `1	0/3000060	no recovery target specified`, and comments
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    Ok(content.lines().filter_map(line).collect())
}

/// Begins the stream. A slot that our connection of before still holds becomes free when the server notices.
fn start(stream: &mut Connection, options: &Options, place: Place) -> Result<(), FeedError> {
    let sql = format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '{}', publication_names {}, streaming 'on')",
        identifier(&options.slot),
        place.needed_from(),
        // The third knows prepared transactions, which come if the slot was made for them, whatever is asked here.
        if stream.major_version() >= 15 { 3 } else { 2 },
        // A list of names as identifiers, in a literal of the replication grammar, which knows no E''.
        format_args!("'{}'", identifier(&options.publication).replace('\'', "''")),
    );
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match stream.start_replication(&sql) {
            Ok(()) => return Ok(()),
            Err(error) if error.code() == Some("55006") && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(slot::of_stream(error, options)),
        }
    }
}

/// A name as it stands in SQL, for messages.
fn quoted(name: &str) -> String {
    literal(name)
}
