//! Tables without a key that are captured as rows that are only ever inserted.
//!
//! Such a table is read whole, in one consistent snapshot whose place P in the log MariaDB tells: what is before P is in
//! it, and what is after P is not. So what the log tells of the table before P is passed over, and what it tells after P
//! is handed out; until P is known, what is told is kept. A restart before the end reads the table from its beginning.
//!
//! Rows are taken in as fast as the server gives them (`spool.rs`), so that no transaction stays open for a slow taker.
//!
//! MySQL, and engines without transactions, tell no place that is exact: there such a table is not read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::apply::position;
use super::catalog::{self, CatalogTable, quoted};
use super::checkpoint::{Name, Reading};
use super::event::RowsKind;
use super::follow::Follower;
use super::form::Form;
use super::reading::{Chunk, Found, Order, Reader, Request, Trouble};
use super::row::{self, Row};
use crate::change::{Action, Change, Step};
use crate::feed::{FeedError, Remedy};
use crate::keyless::{identify, rows_changed};
use crate::rules::Treatment;
use crate::spool::{Spool, Spooled};

/// How much is kept of what the log tells while the snapshot's place is not known; beyond it another one is taken.
const HELD_BYTES_MAX: usize = 32 << 20;

/// How many bytes of rows are kept in memory before they go into a file.
const MEMORY_BYTES: usize = 4 << 20;

/// How many bytes of rows are taken in between two looks at whether anybody still wants them.
const LOOK_BYTES: usize = 1 << 20;

/// The reading of a table without a key.
#[derive(Debug, Default)]
pub(super) struct Appending {
    /// Where its snapshot is in the log, once that is known.
    place: Option<Order>,
    /// That place has been reached; what ids of rows that are read begin with.
    began: Option<String>,
    /// Rows that were handed out.
    count: u64,
    /// What the log told before.
    held: Vec<(Order, Option<Change>)>,
    bytes: usize,
}

/// What becomes of what the log tells of such a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    HandedOut,
    Held,
    /// It will be read.
    PassedOver,
}

impl Appending {
    /// `None` stands for a row that was changed or deleted.
    fn hold(&mut self, order: Order, told: Option<Change>) {
        if self.place.is_some_and(|place| order <= place) {
            return;
        }
        let image = told.as_ref().and_then(|change| change.image.as_ref());
        self.bytes += size_of::<(Order, Option<Change>)>() + image.map_or(0, String::len) + 128;
        self.held.push((order, told));
    }

    /// The id of the next row that was read.
    pub(super) fn next_id(&mut self) -> String {
        self.count += 1;
        format!("{}-{:08x}", self.began.as_deref().unwrap_or_default(), self.count - 1)
    }
}

impl Follower {
    /// What ids of rows begin with that are at a place of the log: of another server, or of a log that was begun anew,
    /// they are others.
    fn id_of_place(&self, (file, offset): Order) -> String {
        let digest = Sha256::digest(&self.server.identity);
        let server = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        format!("{server:08x}-{:08x}{file:06x}-{offset:010x}", self.file_begun)
    }

    fn fate(&self, name: &Name) -> Fate {
        let reading = self.tables.get(name).map(|table| &table.line.reading);
        let active = self.active.as_ref().filter(|active| active.name == *name);
        match (reading, active.and_then(|active| active.appending.as_ref())) {
            (Some(Reading::Following), _) => Fate::HandedOut,
            (Some(Reading::After(_)), Some(appending)) if appending.began.is_some() => Fate::HandedOut,
            (Some(Reading::After(_)), Some(_)) => Fate::Held,
            _ => Fate::PassedOver,
        }
    }

    fn appending(&mut self) -> Option<&mut Appending> {
        self.active.as_mut().and_then(|active| active.appending.as_mut())
    }

    /// The log told of a row of a table without a key, with this number in its transaction. `is_old`: it was handed out before a restart.
    pub(super) fn append(
        &mut self,
        name: &Name,
        form: &Arc<Form>,
        kind: RowsKind,
        row: Row,
        (place, order): (u64, Order),
        is_old: bool,
    ) {
        let Some(group) = self.group.as_ref().filter(|group| group.prepares.is_none()) else { return };
        let position = position(&group.name, place, "");
        let fate = self.fate(name);
        if fate == Fate::PassedOver || (fate == Fate::HandedOut && is_old) {
            return;
        }
        if kind != RowsKind::Insert {
            match (fate, self.appending()) {
                (Fate::Held, Some(appending)) => appending.hold(order, None),
                _ => self.stop_table(name, rows_changed(&name.0, &name.1, &position)),
            }
            return;
        }
        // The place is still that of the transaction's beginning.
        let id = format!("{}-{place:08x}", self.id_of_place(self.place.order()));
        let mut image = row.image;
        identify(&mut image, &id);
        let change = Change {
            table: Arc::clone(&form.table),
            action: Action::Replace,
            key: vec![id],
            image: Some(image),
            unchanged: Vec::new(),
            previous_key: None,
            before: None,
            position: Some(position),
            transaction: Some(Arc::clone(&group.name)),
            committed_at_ms: Some(group.committed_at_ms),
        };
        match (fate, self.appending()) {
            (Fate::Held, Some(appending)) => appending.hold(order, Some(change)),
            _ => self.push_row(change),
        }
    }

    fn push_row(&mut self, change: Change) {
        self.step_bytes += change.image.as_ref().map_or(0, String::len) + 128;
        self.steps.push(Step::Change(change));
    }

    /// The snapshot of the table that is being read is taken; its rows follow.
    pub(super) fn snapshot_taken(&mut self, generation: u64, place: Order) {
        if self.generation == generation
            && let Some(appending) = self.appending()
        {
            appending.place = Some(place);
            appending.held.retain(|(order, _)| *order > place);
        }
        self.unread = true;
    }

    /// Begins to hand out a table's rows if the log has reached their place. Answers whether something was done.
    pub(super) fn begin_appending(&mut self) -> bool {
        let at = self.place.order();
        let Some(active) = &mut self.active else { return false };
        let Some(appending) = &mut active.appending else { return false };
        let name = active.name.clone();
        let is_changed = |told: &(Order, Option<Change>)| told.1.is_none();
        match appending.place {
            _ if appending.began.is_some() => return false,
            // Another snapshot sees it.
            _ if appending.bytes > HELD_BYTES_MAX => return self.begin_again(&name),
            Some(place) if at >= place => {}
            _ => return false,
        }
        if appending.held.iter().any(is_changed) {
            return self.begin_again(&name);
        }
        let place = appending.place.unwrap_or(at);
        let held = std::mem::take(&mut appending.held);
        appending.bytes = 0;
        // Two readings may be at one place of a log that does not grow.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros());
        let prefix = format!("{}-r{now:014x}", self.id_of_place(place));
        if let Some(appending) = self.appending() {
            appending.began = Some(prefix);
        }
        let table = self.known(&name);
        self.steps.push(Step::ReadBegan(table));
        held.into_iter().filter_map(|(_, change)| change).for_each(|change| self.push_row(change));
        self.moved();
        true
    }

    fn begin_again(&mut self, name: &Name) -> bool {
        self.stop_reading(name);
        if let Some(table) = self.tables.get_mut(name) {
            table.line.reading = Reading::Waiting;
        }
        true
    }
}

/// A table's rows on their way to the follower, piece by piece.
#[derive(Debug)]
pub(super) struct Rest {
    generation: u64,
    form: Arc<Form>,
    place: Order,
    rows: Spooled,
}

impl Rest {
    /// Whether they are what a request asks for.
    pub(super) fn is_of(&self, request: &Request) -> bool {
        self.generation == request.generation
    }

    /// The next rows. Their ids are given when they are handed out.
    pub(super) fn piece(&mut self, request: &Request) -> Result<Chunk, FeedError> {
        let mut chunk = Chunk::empty(request);
        (chunk.low, chunk.high) = (self.place, self.place);
        chunk.found = Found::Rows(Arc::clone(&self.form));
        chunk.end = false;
        while chunk.rows.len() < request.limit {
            match self.rows.next().map_err(|error| disk(&request.name, error))? {
                Some(image) => {
                    chunk.bytes += image.len();
                    chunk.rows.push((String::from_utf8_lossy(image).into_owned(), Vec::new()));
                }
                None => {
                    chunk.end = true;
                    break;
                }
            }
        }
        Ok(chunk)
    }
}

/// How the rows of a table were taken in.
pub(super) enum Taken {
    All(Rest),
    /// Something was in the way before anybody was told of the snapshot: it may be tried again.
    Not,
    /// Nobody wants them any more, or the table is not what it was; the connection may be in the middle of an answer.
    CalledOff,
}

impl Reader {
    /// Reads a whole table in the snapshot that was begun, whose place in the log is known: says that it was, and takes
    /// its rows in.
    pub(super) async fn whole(
        &self,
        conn: &mut Conn,
        form: &Arc<Form>,
        table: &CatalogTable,
        request: &Request,
        place: Order,
        answers: &mpsc::Sender<Result<Chunk, FeedError>>,
    ) -> Result<Taken, Trouble> {
        let name = format!("{}.{}", quoted(&request.name.0), quoted(&request.name.1));
        // From here on the table can't be altered.
        conn.query_drop(format!("SELECT 1 FROM {name} LIMIT 0")).await.map_err(Trouble::Server)?;
        let definition = catalog::definition(conn, &request.name).await.map_err(Trouble::Feed)?;
        if definition.as_ref() != Ok(&table.stamp) {
            return Ok(Taken::Not);
        }
        let mut begun = Chunk::empty(request);
        (begun.found, begun.low, begun.high) = (Found::Snapshot, place, place);
        if answers.send(Ok(begun)).await.is_err() {
            return Ok(Taken::CalledOff);
        }
        let captured = form.columns.iter().filter(|column| column.treatment != Treatment::LeaveOut);
        let columns: Vec<String> = captured.map(|column| column.codec.select(&quoted(&column.name))).collect();
        let columns = if columns.is_empty() { "1".to_owned() } else { columns.join(",") };
        let mut spool = Spool::new(&self.spill_dir, MEMORY_BYTES);
        let sql = format!("SELECT {columns} FROM {name}");
        let mut answer = conn.exec_iter(sql, ()).await.map_err(Trouble::Server)?;
        let (mut capacity, mut unlooked) = (64, 0);
        while let Some(found) = answer.next().await.map_err(Trouble::Server)? {
            let (image, _) = row::take(form, &found.unwrap(), capacity).map_err(Trouble::Value)?;
            capacity = image.len() + 16;
            spool.push(image.as_bytes()).map_err(|error| Trouble::Feed(disk(&request.name, error)))?;
            unlooked += image.len();
            if unlooked > LOOK_BYTES {
                unlooked = 0;
                if self.wanted.load(Ordering::Relaxed) != request.generation {
                    return Ok(Taken::CalledOff);
                }
            }
        }
        drop(answer);
        let rows = spool.give_out().map_err(|error| Trouble::Feed(disk(&request.name, error)))?;
        Ok(Taken::All(Rest { generation: request.generation, form: Arc::clone(form), place, rows }))
    }
}

fn disk(name: &Name, error: std::io::Error) -> FeedError {
    let message = format!("rows of {}.{} could not be kept in a file: {error}", name.0, name.1);
    FeedError { remedy: Remedy::Retry, code: "disk", message, source: Some(error.into()) }
}
