//! Following the log: opening it at the right place, its events in order, and the portions that come of them.
//!
//! One task owns everything here and does one thing at a time. At the borders between transactions it may put in what
//! was read of tables; what one event means is in [`super::apply`], what tables are known in [`super::tables`].

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::unconstrained;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::Options;
use super::address::Address;
use super::apply::Group;
use super::audit::Audits;
use super::checkpoint::{Name, Resume};
use super::connection::{self, Server, failed, open, stop};
use super::event::Event;
use super::outlook::Outlook;
use super::place::{LogPlace, Seen, file_number};
use super::reading::{Chunk, Found, Reader, Request, log_status};
use super::stream::{From, LogStream, StreamError};
use super::tables::{Active, Mapped, Tracked};
use crate::change::{Checkpoint, Portion, Step};
use crate::feed::{FeedError, Reason, Remedy};
use crate::rules::Rules;

/// How long the log may say nothing that is captured before a portion without steps moves the checkpoint on.
const QUIET: Duration = Duration::from_secs(10);

/// The task that follows a log.
pub(super) struct Follower {
    pub(super) options: Options,
    pub(super) rules: Arc<Rules>,
    rules_id: String,
    pub(super) server: Server,
    stream: LogStream,
    /// For what the information schema says.
    pub(super) catalog: Conn,
    portions: mpsc::Sender<Result<Portion, FeedError>>,
    outlook: Arc<Mutex<Outlook>>,
    pub(super) requests: mpsc::Sender<Request>,
    /// The reading that is wanted, for whoever reads.
    pub(super) wanted: Arc<AtomicU64>,
    chunks: mpsc::Receiver<Result<Chunk, FeedError>>,

    /// Where the next transaction begins.
    pub(super) place: LogPlace,
    pub(super) seen: Seen,
    /// The name of the file that events come from, and when it was begun.
    pub(super) file: String,
    pub(super) file_begun: u32,
    /// What the checkpoint's file must be: its name and when it was begun.
    pub(super) expected: Option<(String, u32)>,
    /// Rows of the next transaction that were handed out before.
    pub(super) skip: u64,
    pub(super) group: Option<Group>,
    pub(super) prepared: BTreeMap<String, Vec<Name>>,
    pub(super) tables: BTreeMap<Name, Tracked>,
    pub(super) maps: HashMap<u64, Mapped>,
    /// Where a compressed transaction ends, as its own events do not tell.
    pub(super) payload_end: Option<LogPlace>,
    /// The table that is being read.
    pub(super) active: Option<Active>,
    /// How many readings were begun.
    pub(super) generation: u64,
    /// Requests that were not answered yet: at most one, so that neither side waits for the other.
    pub(super) asked: usize,
    pub(super) audits: Audits,
    /// Some table may have to be read.
    pub(super) unread: bool,

    pub(super) steps: Vec<Step>,
    pub(super) step_bytes: usize,
    /// The place has moved on since the last portion.
    moved: bool,
    /// Nothing has been handed out yet, and there was no checkpoint.
    fresh: bool,
    last_portion: tokio::time::Instant,
    looks: Interval,
    pub(super) looked: u64,
}

/// What there is to do.
enum Work {
    Event(Option<Result<Event, StreamError>>),
    Chunk(Option<Result<Chunk, FeedError>>),
    /// Something about an audit came.
    Audit,
    Look,
    Room,
    Silence,
    Gone,
}

impl Follower {
    pub(super) async fn open(
        options: Options,
        resume: Option<Resume>,
        portions: mpsc::Sender<Result<Portion, FeedError>>,
        outlook: Arc<Mutex<Outlook>>,
        audits: Audits,
    ) -> Result<Follower, FeedError> {
        let address = Address::parse(&options.url).map_err(|problem| {
            let message = format!(
                "the connection URL cannot be used: {problem}; it looks like \
                 mysql://user:password@host:3306?ssl-mode=verify-identity"
            );
            stop("configuration", message)
        })?;
        let rules = Arc::new(options.rules.clone());
        let mut catalog = open(&address).await?;
        let server = connection::server(&mut catalog).await?;
        require_rows(&mut catalog).await?;
        let rules_id = hash(&of_all_tables(&rules));
        let (end, end_seen) = log_status(&mut catalog, &server).await?;

        let resume = match resume {
            Some(resume) if resume.mariadb != server.mariadb => {
                let message =
                    "the checkpoint is of the other kind of server (MariaDB, MySQL); give the source another \
                    name, or ask for a repair"
                        .to_owned();
                if !options.repair {
                    return Err(repair("server-replaced", message));
                }
                None
            }
            other => other,
        };
        let fresh = resume.is_none();
        let mut start = Start::at(end.clone(), end_seen);
        let mut known = BTreeMap::new();
        let mut because = None;
        let mut prepared = BTreeMap::new();
        if let Some(resume) = resume {
            if options.repair {
                because = Some(Reason::new("repair", "the log between was lost: every table is read anew"));
            } else if resume.rules != rules_id {
                because = Some(Reason::new("rules-changed", "other rules were in force when it was captured"));
            }
            known = resume.tables;
            if !options.repair {
                verify(&mut catalog, &server, &resume.server, &resume.place, &resume.seen, &end).await?;
                let same_server = resume.server == server.identity;
                start = Start {
                    // Another server's files say nothing; its identifiers do.
                    place: if same_server { resume.place.clone() } else { LogPlace::default() },
                    seen: resume.seen,
                    skip: resume.skip,
                    expected: (same_server && resume.file_begun != 0)
                        .then(|| (resume.place.file.clone(), resume.file_begun)),
                    file_begun: resume.file_begun,
                };
                prepared = resume.prepared;
            }
        }

        let stream = request(&address, &server, &options, &start).await?;
        let (requests, waiting) = mpsc::channel(1);
        let (answers, chunks) = mpsc::channel(1);
        let wanted = Arc::new(AtomicU64::new(0));
        let reader = Reader {
            address,
            server: server.clone(),
            rules: Arc::clone(&rules),
            wanted: Arc::clone(&wanted),
            spill_dir: options.spill_dir.clone(),
        };
        // Ends when the follower goes, with its requests.
        tokio::spawn(reader.clone().run(waiting, answers));
        let audits = audits.with(reader);
        let mut looks = interval(Duration::from_millis(options.look_ms.max(10)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut follower = Follower {
            options,
            rules,
            rules_id,
            server,
            stream,
            catalog,
            portions,
            outlook,
            requests,
            wanted,
            chunks,
            file: start.place.file.clone(),
            place: start.place,
            seen: start.seen,
            file_begun: start.file_begun,
            expected: start.expected,
            skip: start.skip,
            group: None,
            prepared,
            tables: BTreeMap::new(),
            maps: HashMap::new(),
            payload_end: None,
            active: None,
            generation: 0,
            asked: 0,
            audits,
            unread: true,
            steps: Vec::new(),
            step_bytes: 0,
            // The first portion of a new feed is the checkpoint to begin with.
            moved: fresh,
            fresh,
            last_portion: tokio::time::Instant::now(),
            looks,
            looked: 0,
        };
        follower.take_up(known, because.as_ref());
        follower.find_tables().await?;
        Ok(follower)
    }

    /// Follows until something is wrong.
    pub(super) async fn run(mut self) -> Result<Infallible, FeedError> {
        loop {
            if self.group.is_none() {
                while self.reading().await? || self.auditing().await? {
                    self.flush_if_full().await?;
                }
            }
            // What the connection has read already, without looking at anything else.
            let next = unconstrained(self.stream.next()).now_or_never();
            let work = match next {
                Some(event) => Work::Event(event),
                None => self.wait().await,
            };
            match work {
                Work::Event(Some(Ok(event))) => {
                    self.apply(&event).await?;
                    self.flush_if_full().await?;
                    if self.group.is_none() {
                        self.take_chunk()?;
                    }
                }
                Work::Event(Some(Err(error))) => return Err(self.stream_failed(error)),
                Work::Event(None) => return Err(away("the server ended the log's connection")),
                Work::Chunk(chunk) => self.chunk(chunk)?,
                Work::Audit => {}
                Work::Look => self.look().await?,
                Work::Room => self.flush().await?,
                Work::Silence => return Err(away("the server has said nothing for too long")),
                Work::Gone => return Err(away("nobody takes portions any more")),
            }
        }
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self) -> Work {
        let between = self.group.is_none();
        let quiet = self.steps.is_empty() && self.last_portion.elapsed() < QUIET;
        let due = between && (!self.steps.is_empty() || (self.moved && !quiet) || self.fresh);
        let silence = Duration::from_millis(self.options.heartbeat_ms * 3) + Duration::from_secs(5);
        tokio::select! {
            room = self.portions.reserve(), if due => if room.is_ok() { Work::Room } else { Work::Gone },
            event = self.stream.next() => Work::Event(event),
            chunk = self.chunks.recv(), if self.wants_chunk() => Work::Chunk(chunk),
            () = self.audits.hear() => Work::Audit,
            _ = self.looks.tick() => Work::Look,
            () = sleep(silence) => Work::Silence,
        }
    }

    fn wants_chunk(&self) -> bool {
        self.asked > 0
    }

    /// Takes a chunk that has been read, while the log has more to say.
    fn take_chunk(&mut self) -> Result<(), FeedError> {
        if self.wants_chunk()
            && let Ok(chunk) = self.chunks.try_recv()
        {
            self.chunk(Some(chunk))?;
        }
        Ok(())
    }

    fn chunk(&mut self, chunk: Option<Result<Chunk, FeedError>>) -> Result<(), FeedError> {
        let chunk = chunk.ok_or_else(|| away("the reader of tables has ended"))??;
        if let Found::Snapshot = chunk.found {
            self.snapshot_taken(chunk.generation, chunk.low);
            return Ok(());
        }
        self.asked -= 1;
        self.unread = true;
        self.accept(chunk);
        Ok(())
    }

    pub(super) async fn flush_if_full(&mut self) -> Result<(), FeedError> {
        if self.step_bytes >= self.options.portion_bytes {
            return self.flush().await;
        }
        // While the log has much to say that is not captured, the checkpoint moves on all the same.
        if self.steps.is_empty() && self.moved && self.group.is_none() && self.last_portion.elapsed() > QUIET {
            return self.flush().await;
        }
        Ok(())
    }

    /// Hands out a portion; waits until there is room for it.
    pub(super) async fn flush(&mut self) -> Result<(), FeedError> {
        let checkpoint = Checkpoint(self.resume().write());
        let capacity = self.steps.len();
        let steps = std::mem::replace(&mut self.steps, Vec::with_capacity(capacity.min(16_384)));
        self.step_bytes = 0;
        self.moved = false;
        self.fresh = false;
        if let Some(name) = self.active.as_ref().map(|active| active.name.clone()) {
            self.show(&name);
        }
        let sent = self.portions.send(Ok(Portion { steps, checkpoint })).await;
        self.last_portion = tokio::time::Instant::now();
        sent.map_err(|_| away("nobody takes portions any more"))
    }

    pub(super) fn outlook(&self) -> MutexGuard<'_, Outlook> {
        self.outlook.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place, or the events at it, have moved on.
    pub(super) fn moved(&mut self) {
        self.moved = true;
    }

    /// What it means that the next event can't be had.
    fn stream_failed(&self, error: StreamError) -> FeedError {
        let place = &self.place;
        match error {
            StreamError::Connection(error) => log_failed(error),
            StreamError::Checksum => {
                let message = format!(
                    "an event's checksum is wrong after {place}: it was damaged on its way, or, if this comes again, in the \
                     server's file, and then a repair is what helps"
                );
                FeedError { remedy: Remedy::Retry, code: "checksum", message, source: None }
            }
            StreamError::Malformed(problem) => self.malformed(problem),
            StreamError::Payload(problem) => {
                let message = format!(
                    "the compressed transaction after {place} can't be unpacked: {problem}; run SET GLOBAL \
                     binlog_transaction_compression = OFF, let sessions that are open reconnect, and ask for a repair"
                );
                repair("compressed", message)
            }
        }
    }

    fn resume(&self) -> Resume {
        Resume {
            mariadb: self.server.mariadb,
            server: self.server.identity.clone(),
            rules: self.rules_id.clone(),
            place: self.place.clone(),
            file_begun: if self.file == self.place.file { self.file_begun } else { 0 },
            seen: self.seen.clone(),
            skip: self.group.as_ref().map_or(self.skip, |group| group.rows.max(group.skip)),
            prepared: self.prepared.clone(),
            tables: self.tables.iter().map(|(name, table)| (name.clone(), table.line.clone())).collect(),
        }
    }

    /// Looks at the end of the log, and now and then for tables that are new.
    async fn look(&mut self) -> Result<(), FeedError> {
        let (place, seen) = log_status(&mut self.catalog, &self.server).await?;
        let rows: Vec<mysql_async::Row> =
            self.catalog.query("SHOW BINARY LOGS").await.map_err(|error| failed("listing log files", error))?;
        let files = rows.iter().filter_map(|row| Some((row.get_opt(0)?.ok()?, row.get_opt(1)?.ok()?))).collect();
        self.outlook().look(&seen.to_string(), place, files);
        // Tables that rest, or that are missed, may be due.
        self.unread = true;
        self.looked += 1;
        if self.looked.is_multiple_of(6) {
            self.find_tables().await?;
        }
        Ok(())
    }
}

/// Where to begin.
struct Start {
    place: LogPlace,
    seen: Seen,
    skip: u64,
    expected: Option<(String, u32)>,
    file_begun: u32,
}

impl Start {
    fn at(place: LogPlace, seen: Seen) -> Start {
        Start { place, seen, skip: 0, expected: None, file_begun: 0 }
    }
}

/// Refuses a server whose log can't tell what happens to rows.
async fn require_rows(conn: &mut Conn) -> Result<(), FeedError> {
    let sql = "SELECT @@GLOBAL.log_bin, @@GLOBAL.binlog_format, @@GLOBAL.binlog_row_image";
    let row: Option<(u8, String, String)> =
        conn.query_first(sql).await.map_err(|error| failed("asking for the log's settings", error))?;
    let (log, format, image) = row.unwrap_or_default();
    if log == 0 {
        let message = "the server writes no binary log; set log_bin in its configuration and restart it".to_owned();
        return Err(stop("log-bin", message));
    }
    if format != "ROW" {
        let message = format!(
            "binlog_format is {format}, so that the log holds statements instead of rows; run SET GLOBAL binlog_format = \
             'ROW', and let sessions that are open reconnect"
        );
        return Err(stop("row-format", message));
    }
    if image == "MINIMAL" {
        let message = "binlog_row_image is MINIMAL, so that the log does not hold whole rows; run SET GLOBAL \
            binlog_row_image = 'FULL', and let sessions that are open reconnect"
            .to_owned();
        return Err(stop("row-image", message));
    }
    Ok(())
}

/// Whether the server can go on where a checkpoint ends, as far as it can be told beforehand.
async fn verify(
    conn: &mut Conn,
    server: &Server,
    was: &str,
    place: &LogPlace,
    seen: &Seen,
    end: &LogPlace,
) -> Result<(), FeedError> {
    if was != server.identity && (!server.gtid || *seen == Seen::Nameless) {
        let message = format!(
            "this is not the server that was followed (its identity is {}, and was {was}), and without global transaction \
             identifiers the place in its log is not known; ask for a repair",
            server.identity
        );
        return Err(repair("server-replaced", message));
    }
    if was == server.identity && file_number(&place.file) > file_number(&end.file) {
        let message = format!(
            "the server's log ends at {end}, before {place}, which was followed already: it was reset, or the server \
             replaced; ask for a repair"
        );
        return Err(repair("server-replaced", message));
    }
    if was == server.identity && place.file == end.file && place.offset > end.offset {
        let message = format!(
            "the server's log ends at {end}, before {place}, which was followed already: it lost transactions in a \
             crash, was reset or replaced; ask for a repair"
        );
        return Err(repair("server-replaced", message));
    }
    if !server.mariadb && server.gtid {
        let doing = |error| failed("comparing transactions", error);
        let sql = "SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged";
        let row: Option<(String, String)> = conn.query_first(sql).await.map_err(doing)?;
        let (executed, purged) = row.unwrap_or_default();
        let executed = Seen::parse_mysql(&executed);
        if !executed.is_some_and(|executed| seen.within(&executed)) {
            let message = format!(
                "the server does not know all the transactions that were followed ({seen}): it was reset, or replaced by \
                 one that had not received them; ask for a repair"
            );
            return Err(repair("server-replaced", message));
        }
        if !Seen::parse_mysql(&purged).is_some_and(|purged| purged.within(seen)) {
            let message = format!("the server has purged transactions after our position ({seen}); ask for a repair");
            return Err(repair("binlog-purged", message));
        }
    }
    Ok(())
}

/// Asks for the log from a place on.
async fn request(address: &Address, server: &Server, options: &Options, start: &Start) -> Result<LogStream, FeedError> {
    let heartbeat = options.heartbeat_ms.max(1).saturating_mul(1_000_000);
    let mut settings = format!("SET @master_heartbeat_period = {heartbeat}, @source_heartbeat_period = {heartbeat}");
    if server.mariadb {
        // Capability 4: events of GTIDs as they are. Strict: an identifier that is not in the log is an error.
        let seen = &start.seen;
        settings.push_str(&format!(
            ", @mariadb_slave_capability = 4, @slave_connect_state = '{seen}', @slave_gtid_strict_mode = 1, \
             @slave_gtid_ignore_duplicates = 0"
        ));
    } else {
        let uuid = hash(&format!("{}{:?}", server_id(options), address));
        let (one, other) = (&uuid[..8], &uuid[8..12]);
        settings.push_str(&format!(", @slave_uuid = '{one}-{other}-4000-8000-{}'", &uuid[..12]));
    }
    let from = if server.mariadb {
        From::State
    } else if server.gtid {
        From::After(&start.seen)
    } else {
        let offset = u32::try_from(start.place.offset.max(4)).map_err(|_| {
            let message = format!(
                "the position {} lies beyond 4 GiB in its file, where a server without global transaction identifiers \
                 can't be asked to begin; ask for a repair",
                start.place
            );
            repair("position", message)
        })?;
        From::Place(&start.place.file, offset)
    };
    LogStream::open(address, &settings, server_id(options), from).await.map_err(log_failed)
}

/// The id to register with.
fn server_id(options: &Options) -> u32 {
    options.server_id.unwrap_or_else(|| {
        let machine = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        // Without the account, so that a new password changes nothing.
        let place = options.url.rsplit('@').next().unwrap_or_default();
        let digest = Sha256::digest(format!("{machine}{place}{:?}", options.rules));
        // Large, away from the small numbers that people give.
        1_000_000_000 + u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) % 3_000_000_000
    })
}

/// The rules that every table is captured by, as text. Which tables without a key are captured is seen by their forms.
fn of_all_tables(rules: &Rules) -> String {
    let Rules { include, exclude, exclude_columns, hash_columns, redact_columns, salt, name, append_only: _ } = rules;
    // As stored checkpoints have it.
    format!(
        "Rules {{ include: {include:?}, exclude: {exclude:?}, exclude_columns: {exclude_columns:?}, hash_columns: \
         {hash_columns:?}, redact_columns: {redact_columns:?}, salt: {salt:?}, name: {name:?} }}"
    )
}

fn hash(text: &str) -> String {
    super::event::hex(&Sha256::digest(text)[..8])
}

/// What an error of the log's connection means.
fn log_failed(error: mysql_async::Error) -> FeedError {
    if let mysql_async::Error::Server(problem) = &error
        && problem.code == 1236
    {
        let said = problem.message.to_ascii_lowercase();
        if said.contains("same server_uuid/server_id") || said.contains("same server_id") {
            let message = format!(
                "{}: another replica has the same server id; give this source another one by its option server_id, or \
                 end the other",
                problem.message
            );
            return FeedError { remedy: Remedy::Stop, code: "server-id", message, source: Some(Box::new(error)) };
        }
        // What a server says while it goes down, or could not read once.
        if said.contains("shutdown") || said.contains("shutting down") {
            let message = format!("{} (while following the log)", problem.message);
            return FeedError { remedy: Remedy::Retry, code: "server", message, source: Some(Box::new(error)) };
        }
    }
    failed("following the log", error)
}

pub(super) fn away(what: &str) -> FeedError {
    let message = format!("{what}; it is tried again");
    FeedError { remedy: Remedy::Retry, code: "connection", message, source: None }
}

pub(super) fn repair(code: &'static str, message: String) -> FeedError {
    FeedError { remedy: Remedy::Repair, code, message, source: None }
}
