//! Reading a table's rows beside the log, a chunk at a time.
//!
//! A chunk is a set of neighbouring rows, and two places of the log: everything up to `low` is in the rows, and nothing
//! after `high` is. Between them a row may be of either side; for tables with transactions the two are one place. How
//! the places are known depends on the server:
//!
//! - MariaDB tells the place that a consistent snapshot stands for (`binlog_snapshot_file`, `binlog_snapshot_position`).
//! - MySQL with GTIDs: the set of executed transactions names what every later snapshot sees, and the end of the log,
//!   looked at after the rows, bounds it from above.
//! - MySQL without: rows are read with share locks, which wait for transactions that are in the log but not yet visible.
//!
//! A chunk is asked for with the place that the log has been followed to, and never answered with an older one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::address::Address;
use super::catalog::{self, Look, quoted};
use super::checkpoint::Name;
use super::connection::{Server, failed, open, stop};
use super::form::Form;
use super::keyless::{Rest, Taken};
use super::place::{LogPlace, Seen};
use super::row;
use crate::feed::{FeedError, Reason, Remedy};
use crate::rules::{Rules, Treatment};

/// How often a chunk is tried again when the server is not as far as the log was followed, or the table is changed.
const ATTEMPTS: u32 = 2_000;
const PAUSE: Duration = Duration::from_millis(2);

/// A place's order: see [`LogPlace::order`].
pub(super) type Order = (u64, u64);

/// A request for the next chunk of a table.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: Name,
    /// Which reading of the table it belongs to; an answer to an older one is thrown away.
    pub(super) generation: u64,
    /// Literals of the key after which it begins; none at the beginning.
    pub(super) after: Option<Vec<String>>,
    /// How far the log has been followed.
    pub(super) since: Order,
    pub(super) since_seen: Seen,
    pub(super) limit: usize,
}

/// What was found of a table.
#[derive(Debug)]
pub(super) enum Found {
    /// A table without a key is read in the snapshot of this place. Its rows follow, as the answer to the same request.
    Snapshot,
    /// Rows of this form.
    Rows(Arc<Form>),
    /// The table is not there.
    Nothing,
    /// It can't be read, and somebody must do something about it.
    Trouble(Reason),
}

/// A chunk of a table.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) name: Name,
    pub(super) generation: u64,
    pub(super) found: Found,
    pub(super) since: Order,
    pub(super) low: Order,
    pub(super) high: Order,
    /// Images and keys, in the order of the key.
    pub(super) rows: Vec<(String, Vec<String>)>,
    /// The last row's key as literals.
    pub(super) last: Option<Vec<String>>,
    /// There are no rows after these.
    pub(super) end: bool,
    pub(super) bytes: usize,
}

/// What reads chunks, on a connection of its own.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) address: Address,
    pub(super) server: Server,
    pub(super) rules: Arc<Rules>,
    /// The reading that is wanted.
    pub(super) wanted: Arc<AtomicU64>,
    /// Where rows go that are more than memory allows.
    pub(super) spill_dir: PathBuf,
}

impl Reader {
    /// Answers requests one after the other, until nobody asks any more.
    pub(super) async fn run(
        self,
        mut requests: mpsc::Receiver<Request>,
        answers: mpsc::Sender<Result<Chunk, FeedError>>,
    ) {
        let mut conn = None;
        let mut rest: Option<Rest> = None;
        while let Some(request) = requests.recv().await {
            rest = rest.take().filter(|rest| rest.is_of(&request));
            let answer = match &mut rest {
                Some(rest) => rest.piece(&request),
                None => self.answer(&mut conn, &request, &mut rest, &answers).await,
            };
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    }

    /// A chunk of a table that has a key.
    pub(super) async fn chunk(&self, slot: &mut Option<Conn>, request: &Request) -> Result<Chunk, FeedError> {
        let (nobody, _) = mpsc::channel(1);
        self.answer(slot, request, &mut None, &nobody).await
    }

    async fn answer(
        &self,
        slot: &mut Option<Conn>,
        request: &Request,
        rest: &mut Option<Rest>,
        answers: &mpsc::Sender<Result<Chunk, FeedError>>,
    ) -> Result<Chunk, FeedError> {
        for _ in 0..ATTEMPTS {
            let conn = match slot {
                Some(conn) => conn,
                None => slot.insert(open(&self.address).await?),
            };
            match self.attempt(conn, request, answers).await? {
                Answer::Chunk(chunk) => return Ok(*chunk),
                Answer::Whole(rows) => return rest.insert(rows).piece(request),
                Answer::CalledOff => {
                    *slot = None;
                    return Ok(Chunk::empty(request));
                }
                Answer::Again => sleep(PAUSE).await,
            }
        }
        let (namespace, relation) = &request.name;
        let message = format!(
            "a chunk of {namespace}.{relation} could not be read: the table is changed all the time, or the server's log \
             is behind of what it has sent"
        );
        Err(FeedError { remedy: Remedy::Retry, code: "reading", message, source: None })
    }

    async fn attempt(
        &self,
        conn: &mut Conn,
        request: &Request,
        answers: &mpsc::Sender<Result<Chunk, FeedError>>,
    ) -> Result<Answer, FeedError> {
        let (namespace, relation) = &request.name;
        let doing = |error| failed(&format!("reading rows of {namespace}.{relation}"), error);
        let mut chunk = Chunk::empty(request);
        let table = match catalog::look(conn, self.server.mariadb, &request.name).await? {
            Look::Found(table) => table,
            Look::Gone => {
                chunk.low = end_of_log(conn, &self.server).await?.order();
                chunk.high = chunk.low;
                return Ok(chunk.into());
            }
            Look::Denied(told) => return Ok(chunk.trouble(denied(&self.server, &request.name, &told))),
            Look::Unreadable(told) => return Ok(chunk.trouble(unreadable(&request.name, &told))),
        };
        let form = match Form::of_catalog(namespace, relation, &table, &self.rules, self.server.connector()) {
            Ok(form) => Arc::new(form),
            Err(problem) => return Ok(chunk.trouble(Reason::new(problem.code(), problem.to_string()))),
        };

        if self.server.mariadb {
            conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.map_err(doing)?;
            let status: Vec<(String, String)> =
                conn.query("SHOW STATUS LIKE 'binlog_snapshot_%'").await.map_err(doing)?;
            let told = |name: &str| status.iter().find(|(told, _)| told.eq_ignore_ascii_case(name));
            let file = told("binlog_snapshot_file").map(|(_, file)| file.clone()).unwrap_or_default();
            let offset = told("binlog_snapshot_position").and_then(|(_, offset)| offset.parse().ok()).unwrap_or(0);
            chunk.low = LogPlace { file, offset }.order();
            if chunk.low < request.since {
                conn.query_drop("ROLLBACK").await.map_err(doing)?;
                return Ok(Answer::Again);
            }
        } else if self.server.gtid {
            let executed: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_executed").await.map_err(doing)?;
            let executed = Seen::parse_mysql(&executed.unwrap_or_default());
            if !executed.is_some_and(|executed| request.since_seen.within(&executed)) {
                return Ok(Answer::Again);
            }
            chunk.low = request.since;
            conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.map_err(doing)?;
        } else {
            chunk.low = request.since;
            conn.query_drop("START TRANSACTION").await.map_err(doing)?;
        }

        if form.table.is_append_only() {
            let taken = self.whole(conn, &form, &table, request, chunk.low, answers).await;
            if !matches!(taken, Ok(Taken::CalledOff)) {
                conn.query_drop("COMMIT").await.map_err(doing)?;
            }
            return match taken {
                Ok(Taken::All(rows)) => Ok(Answer::Whole(rows)),
                Ok(Taken::Not) => Ok(Answer::Again),
                Ok(Taken::CalledOff) => Ok(Answer::CalledOff),
                // What was told of the snapshot may be over: from the beginning.
                Err(trouble) => Ok(self.explained(chunk, request, trouble)?.unwrap_or(Answer::CalledOff)),
            };
        }
        let locking = !self.server.mariadb && !self.server.gtid;
        let outcome = rows(conn, &form, request, locking, &mut chunk).await;
        // The table can't be changed before the transaction ends, so this is the form that the rows have.
        let same = match &outcome {
            Ok(()) => catalog::definition(conn, &request.name).await?.as_ref() == Ok(&table.stamp),
            Err(_) => false,
        };
        conn.query_drop("COMMIT").await.map_err(doing)?;
        match outcome {
            Ok(()) if same => {}
            Ok(()) => return Ok(Answer::Again),
            Err(trouble) => return Ok(self.explained(chunk, request, trouble)?.unwrap_or(Answer::Again)),
        }
        let exact = self.server.mariadb && table.transactional;
        chunk.high = if exact { chunk.low } else { end_of_log(conn, &self.server).await?.order() };
        chunk.found = Found::Rows(form);
        Ok(chunk.into())
    }

    /// What is answered where rows could not be read; None if the table was changed or removed between its form and its
    /// rows.
    fn explained(&self, chunk: Chunk, request: &Request, trouble: Trouble) -> Result<Option<Answer>, FeedError> {
        let (namespace, relation) = &request.name;
        let reason = match trouble {
            Trouble::Server(mysql_async::Error::Server(problem))
                if matches!(problem.code, 1054 | 1146 | 1412 | 1205 | 1213) =>
            {
                return Ok(None);
            }
            Trouble::Server(error) => match catalog::trouble(&error) {
                Some(Look::Denied(told)) => denied(&self.server, &request.name, &told),
                Some(Look::Unreadable(told)) => unreadable(&request.name, &told),
                _ => return Err(failed(&format!("reading rows of {namespace}.{relation}"), error)),
            },
            Trouble::Feed(error) => return Err(error),
            Trouble::Value(problem) => {
                let message = format!(
                    "a row of {namespace}.{relation} can't be read: {problem}; mend it or exclude its column, then have \
                     the table read anew"
                );
                Reason::new("undecodable", message)
            }
            Trouble::Key(column) => {
                let message = format!(
                    "{namespace}.{relation} has the column {column} in its key, whose type can't be read in order; \
                     exclude the table"
                );
                Reason::new("table-refused", message)
            }
        };
        Ok(Some(chunk.trouble(reason)))
    }
}

/// What came of a try to read.
enum Answer {
    Chunk(Box<Chunk>),
    /// All of a table without a key.
    Whole(Rest),
    /// Nobody wants it any more, and the connection may be in the middle of an answer.
    CalledOff,
    Again,
}

impl From<Chunk> for Answer {
    fn from(chunk: Chunk) -> Answer {
        Answer::Chunk(Box::new(chunk))
    }
}

impl Chunk {
    /// An answer to a request that says nothing yet.
    pub(super) fn empty(request: &Request) -> Chunk {
        Chunk {
            name: request.name.clone(),
            generation: request.generation,
            found: Found::Nothing,
            since: request.since,
            low: (0, 0),
            high: (0, 0),
            rows: Vec::new(),
            last: None,
            end: true,
            bytes: 0,
        }
    }

    fn trouble(self, reason: Reason) -> Answer {
        Chunk { found: Found::Trouble(reason), rows: Vec::new(), high: (0, 0), ..self }.into()
    }
}

/// The user may not look at a table.
pub(super) fn denied(server: &Server, name: &Name, told: &str) -> Reason {
    let (namespace, relation) = (quoted(&name.0), quoted(&name.1));
    let message = format!(
        "the user may not read {}.{} ({told}); run GRANT SELECT ON {namespace}.{relation} TO {}, or exclude the table",
        name.0, name.1, server.account
    );
    Reason::new("privileges", message)
}

/// The server can't open a table.
pub(super) fn unreadable(name: &Name, told: &str) -> Reason {
    let message = format!(
        "the server can't open {}.{} ({told}); repair it there, it is tried again now and then, or exclude it",
        name.0, name.1
    );
    Reason::new("unreadable", message)
}

/// Why a chunk's rows could not be read.
pub(super) enum Trouble {
    Feed(FeedError),
    Server(mysql_async::Error),
    Value(super::bytes::Malformed),
    Key(String),
}

async fn rows(
    conn: &mut Conn,
    form: &Form,
    request: &Request,
    locking: bool,
    chunk: &mut Chunk,
) -> Result<(), Trouble> {
    let sql = select(form, request, locking);
    let mut answer = conn.exec_iter(sql, ()).await.map_err(Trouble::Server)?;
    let mut last: Option<Vec<Value>> = None;
    let mut capacity = 64;
    while let Some(found) = answer.next().await.map_err(Trouble::Server)? {
        let values = found.unwrap();
        let (image, key) = row::take(form, &values, capacity).map_err(Trouble::Value)?;
        capacity = image.len() + 16;
        chunk.bytes += image.len();
        chunk.rows.push((image, key));
        last = Some(values);
    }
    drop(answer);
    chunk.end = chunk.rows.len() < request.limit;
    if let Some(values) = last {
        let captured: Vec<_> = form.columns.iter().filter(|column| column.treatment != Treatment::LeaveOut).collect();
        let mut literals = vec![String::new(); form.key.len()];
        for (column, value) in captured.iter().zip(&values) {
            if let Some(place) = column.key {
                let mut text = String::new();
                let cell = column.codec.take(value).map_err(Trouble::Value)?;
                column.codec.text(&cell, &mut text).map_err(Trouble::Value)?;
                let literal = column.codec.literal(&text).ok_or_else(|| Trouble::Key(column.name.clone()))?;
                literals[place] = literal;
            }
        }
        chunk.last = Some(literals);
    }
    Ok(())
}

/// The query for a chunk.
fn select(form: &Form, request: &Request, locking: bool) -> String {
    let captured = form.columns.iter().filter(|column| column.treatment != Treatment::LeaveOut);
    let columns: Vec<String> = captured.map(|column| column.codec.select(&quoted(&column.name))).collect();
    let key: Vec<String> = form.key.iter().map(|&place| quoted(&form.columns[place].name)).collect();
    let (namespace, relation) = &request.name;
    let mut sql = format!("SELECT {} FROM {}.{}", columns.join(","), quoted(namespace), quoted(relation));
    if let Some(after) = &request.after {
        // (a > 1) OR (a = 1 AND b > 2): servers find ranges of an index in this form, and not in (a, b) > (1, 2).
        let conditions = (0..key.len()).map(|at| {
            let equal = key.iter().zip(after).take(at).map(|(column, value)| format!("{column} = {value}"));
            let parts: Vec<String> = equal.chain([format!("{} > {}", key[at], after[at])]).collect();
            format!("({})", parts.join(" AND "))
        });
        sql.push_str(&format!(" WHERE {}", conditions.collect::<Vec<_>>().join(" OR ")));
    }
    sql.push_str(&format!(" ORDER BY {} LIMIT {}", key.join(","), request.limit));
    if locking {
        sql.push_str(" LOCK IN SHARE MODE");
    }
    sql
}

/// The end of the server's log.
pub(super) async fn end_of_log(conn: &mut Conn, server: &Server) -> Result<LogPlace, FeedError> {
    let (place, _) = log_status(conn, server).await?;
    Ok(place)
}

/// The end of the server's log, and the transactions up to it.
pub(super) async fn log_status(conn: &mut Conn, server: &Server) -> Result<(LogPlace, Seen), FeedError> {
    let doing = |error| failed("looking at the end of the log", error);
    let row: Option<mysql_async::Row> = match conn.query_first("SHOW MASTER STATUS").await {
        // MySQL 8.4 knows it by another name only.
        Err(mysql_async::Error::Server(problem)) if problem.code == 1064 => {
            conn.query_first("SHOW BINARY LOG STATUS").await.map_err(doing)?
        }
        outcome => outcome.map_err(doing)?,
    };
    let Some(row) = row else {
        let message = "the server writes no binary log; set log_bin in its configuration and restart it".to_owned();
        return Err(stop("log-bin", message));
    };
    let file: String = row.get_opt(0).and_then(Result::ok).unwrap_or_default();
    let offset: u64 = row.get_opt(1).and_then(Result::ok).unwrap_or_default();
    let seen = if server.mariadb {
        let sql = format!("SELECT BINLOG_GTID_POS('{}', {offset})", file.replace('\'', "''"));
        let told: Option<Option<String>> = conn.query_first(sql).await.map_err(doing)?;
        Seen::parse_mariadb(&told.flatten().unwrap_or_default())
    } else if server.gtid {
        let set: Option<String> = row.get_opt(4).and_then(Result::ok);
        Seen::parse_mysql(&set.unwrap_or_default())
    } else {
        Some(Seen::Nameless)
    };
    let seen = seen.ok_or_else(|| {
        let message = "the server's GTIDs have a form that is not known; report what SHOW BINARY LOG STATUS shows";
        stop("gtid", message.to_owned())
    })?;
    Ok((LogPlace { file, offset }, seen))
}
