//! Opening a data folder: the lock, the checkpoint, the log's segments, the replay of what the checkpoint lacks.
//!
//! Everything a crash can leave is repaired here, once. Everything else is refused with the place and the way out, since
//! going on would hide that acknowledged events are missing.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use arc_swap::ArcSwap;

use super::checkpoint::{self, Found, Views, ViewsError};
use super::embedded::EmbeddedOptions;
use super::facts::{Facts, Retention};
use super::keeper::{Keeper, UNWRITTEN};
use super::lock::{Lock, LockError};
use super::log::appender::{Appender, RollAt};
use super::log::cache::FrameCache;
use super::log::files::{Files, SPARE};
use super::log::frame::{Damage, Frame};
use super::log::index::MemoryIndex;
use super::log::recovery::{self, ScanError, Tail};
use super::log::segment::{self, Name, SEGMENT_HEADER, Segment, SegmentHeader};
use super::medium::{Medium, MediumFile};
use super::rows::{Gathered, Rows};
use super::shared::{Durable, Gauges, HeadState, Publishing, Queue, Shared, Version, Wishes};
use super::{Batch, Sequence};

/// The log's folder in the data folder.
pub(crate) const LOG: &str = "log";
/// The lock's file in the data folder.
pub(crate) const LOCK: &str = "lock";

/// Why a store could not be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A folder or file cannot be used.
    #[error("{} cannot be used: {source}. Choose a data folder that this user may write, with room left", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("{} is in use by {}. Stop it, or choose another data folder", dir.display(), holder(*pid))]
    Locked {
        /// The data folder.
        dir: PathBuf,
        /// The other process, as far as it is known.
        pid: Option<u32>,
    },
    /// A file was written by a newer version.
    #[error(
        "{} has format version {found}; this binary reads versions up to {known}. Use the version that wrote it, or a \
         newer one", file.display()
    )]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version that this binary reads.
        known: u64,
    },
    /// Acknowledged events are damaged.
    #[error("{}", segment::corruption(file, *offset, Damage(reason)))]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// Files of the log are missing, or do not belong together with the row state.
    #[error("{}: {reason}", path.display())]
    Missing {
        /// Where they should be.
        path: PathBuf,
        /// What is missing and what to do.
        reason: String,
    },
    /// The checkpoint file cannot be read.
    #[error(
        "{} cannot be read: {reason}. If the log still reaches back to the first event, remove this file and start \
         again: it is rebuilt. Otherwise restore the data folder from a backup", path.display()
    )]
    Views {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl OpenError {
    pub(crate) fn folder(path: &Path, source: io::Error) -> Self {
        Self::Folder { path: path.to_owned(), source }
    }

    fn corrupt(file: &Path, offset: u64, Damage(reason): Damage) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, reason }
    }

    fn missing(path: &Path, reason: String) -> Self {
        Self::Missing { path: path.to_owned(), reason }
    }
}

/// Everything a running store is made of.
pub(crate) struct Opened {
    pub(crate) lock: Lock,
    pub(crate) shared: Shared,
    pub(crate) appender: Appender,
    pub(crate) keeper: Keeper,
}

/// Makes a folder that is nobody else's. One that is there, as older versions made it, is closed to others; what a group
/// was given, it keeps.
fn make_folder(folder: &Path) -> io::Result<()> {
    const OTHERS: u32 = 0o007;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = std::fs::metadata(folder)?;
    if found.mode() & OTHERS != 0 && found.uid() == rustix::process::geteuid().as_raw() {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(found.mode() & 0o7777 & !OTHERS))?;
    }
    Ok(())
}

pub(crate) fn open(options: EmbeddedOptions) -> Result<Opened, OpenError> {
    if !(64 << 10..=1 << 30).contains(&options.segment_bytes) {
        return Err(OpenError::Option(format!(
            "a segment of {} bytes is not possible: choose between 64 KiB and 1 GiB",
            options.segment_bytes
        )));
    }
    let log = options.dir.join(LOG);
    let had_log = log.is_dir();
    make_folder(&options.dir).map_err(|error| OpenError::folder(&options.dir, error))?;
    let lock = take_lock(&options.dir)?;
    make_folder(&log).map_err(|error| OpenError::folder(&log, error))?;
    let medium = options.medium.clone();
    for folder in [&options.dir, &log] {
        medium.sync_folder(folder).map_err(|error| OpenError::folder(folder, error))?;
    }

    let path = options.dir.join(checkpoint::FILE);
    let views = Views::open(path.clone(), options.views_cache_bytes).map_err(|error| unreadable(&path, error))?;
    let (facts, noted) = match views.load().map_err(|error| unreadable(&path, error))? {
        Found::Empty => (None, None),
        Found::Newer(found) => return Err(OpenError::NewerFormat { file: path, found, known: checkpoint::VERSION }),
        Found::Checkpoint(found) => (Some(found.0), Some(found.1)),
    };
    let names = segments_in(&*medium, &log)?;
    if names.is_empty() && facts.as_ref().is_some_and(|facts| facts.sequence > 0) {
        let what = if had_log { "the folder holds no segment" } else { "the folder is missing" };
        let newest = facts.map_or(0, |facts| facts.sequence);
        return Err(OpenError::missing(
            &log,
            format!(
                "{what}, but row state stands for events up to {newest}. Put the log's folder back, or move the whole \
                 data folder away to start anew"
            ),
        ));
    }

    let mut replay = Replay {
        retention: noted.unwrap_or(options.retention),
        checkpoint_entries: options.checkpoint_entries,
        checkpoint_bytes: options.checkpoint_bytes,
        known: facts.as_ref().map_or(0, |facts| facts.sequence),
        written: facts.clone().unwrap_or_default(),
        version: Version {
            ordinal: 0,
            rows: Rows::new(Arc::new(
                views.base(facts.as_ref().map_or(0, |f| f.sequence)).map_err(|error| unreadable(&path, error))?,
            )),
            facts: facts.clone().unwrap_or_default(),
        },
        gathered: Gathered::default(),
        views,
    };
    check_reach(&log, &names, &path, facts.as_ref())?;
    let (segments, end) = load_segments(&*medium, &log, &names, &mut replay)?;
    let Replay { mut version, views, mut written, mut gathered, .. } = replay;
    version.rows.active = gathered.take();
    if facts.as_ref().is_some_and(|facts| facts.sequence > version.facts.sequence)
        || segments.last().is_some_and(|last| last.next() != version.facts.sequence + 1)
    {
        let newest = segments.last().map_or(0, |last| last.next() - 1);
        return Err(OpenError::missing(
            &log,
            format!(
                "the log ends with event {newest}, but row state stands for events up to {}: acknowledged events are \
                 missing. Put the missing segments back or restore the data folder from a backup",
                version.facts.sequence
            ),
        ));
    }
    version.facts.retain(&options.retention);
    if noted != Some(in_force(&options.retention)) {
        // What is dropped depends on the retention in force, so a replay must know it: noted before the first event.
        let overlay = std::mem::take(&mut version.rows.active);
        let write = || -> Result<_, ViewsError> {
            views.write(&overlay, &version.facts, &written, &options.retention, |_| ())?;
            views.base(version.facts.sequence)
        };
        version.rows.base = Arc::new(write().map_err(|error| unreadable(&path, error))?);
        written = version.facts.clone();
        version.ordinal = 0;
    }
    let is_dirty = version.ordinal > 0;
    // Ordinals count from here; one that no batch has makes the keeper write what was replayed.
    let ordinal = if version.ordinal > 0 { UNWRITTEN } else { 0 };
    version.ordinal = 0;

    let files = Files::start(log.clone(), medium.clone(), options.segment_bytes)
        .map_err(|error| OpenError::folder(&log, error))?;
    // A segment that a crash kept from being sealed.
    for segment in segments.iter().rev().skip(1).take_while(|segment| segment.is_unsealed()) {
        files.seal(segment.clone());
    }
    let active = match segments.last() {
        Some(active) => active.clone(),
        None => return Err(OpenError::missing(&log, "no segment could be made".to_owned())),
    };
    let early_events = options.retention.events.unwrap_or(u64::MAX).max(1);
    let roll_at = RollAt { bytes: options.segment_bytes, early_events, early_bytes: options.segment_bytes / 8 };
    let appender = Appender::new(log, medium.clone(), files, roll_at, active, end);
    let gauges = Gauges::default();
    gauges.checkpoint_sequence.store(written.sequence, Ordering::Relaxed);
    let durable = Durable { version: version.clone(), segments: Arc::new(segments), dropped: 0 };
    let checkpointed = written.sequence;
    let keeper = Keeper { views, written, ordinal, medium };
    let shared = Shared {
        head: Mutex::new(HeadState { version, sealing: None, sealed_at: checkpointed, is_closed: false }),
        settled: Condvar::new(),
        queue: Mutex::new(Queue::default()),
        queued: Condvar::new(),
        has_room: Condvar::new(),
        durable: ArcSwap::from_pointee(durable),
        publishing: Mutex::new(Publishing::default()),
        published: Condvar::new(),
        keeper_waits: AtomicBool::new(false),
        wishes: Mutex::new(Wishes::default()),
        wished: Condvar::new(),
        is_dirty: AtomicBool::new(is_dirty),
        no_room: AtomicBool::new(false),
        failed: OnceLock::new(),
        cache: Arc::new(FrameCache::new(options.frame_cache_bytes)),
        gauges,
        options,
    };
    Ok(Opened { lock, shared, appender, keeper })
}

/// What of a retention a replay depends on.
fn in_force(retention: &Retention) -> Retention {
    Retention { age_ms: None, bytes: None, ..*retention }
}

/// Takes the lock of a data folder.
pub(crate) fn take_lock(dir: &Path) -> Result<Lock, OpenError> {
    Lock::take(&dir.join(LOCK)).map_err(|error| match error {
        LockError::Held(pid) => OpenError::Locked { dir: dir.to_owned(), pid },
        LockError::Io(error) => OpenError::folder(&dir.join(LOCK), error),
    })
}

fn unreadable(path: &Path, ViewsError(reason): ViewsError) -> OpenError {
    OpenError::Views { path: path.to_owned(), reason }
}

/// The segments in a folder, in order.
pub(crate) fn segments_in(medium: &dyn Medium, log: &Path) -> Result<Vec<Name>, OpenError> {
    let files = medium.list(log).map_err(|error| OpenError::folder(log, error))?;
    let mut names: Vec<Name> = files.iter().filter_map(|file| Name::parse(file)).collect();
    names.sort_unstable();
    Ok(names)
}

/// Whether the log starts where the checkpoint can use it.
fn check_reach(log: &Path, names: &[Name], views: &Path, facts: Option<&Facts>) -> Result<(), OpenError> {
    let Some(&Name { first, .. }) = names.first() else { return Ok(()) };
    match facts {
        None if first != 1 => Err(OpenError::missing(
            views,
            format!(
                "row state is missing and cannot be rebuilt, since the log starts with event {first}, not with the \
                 first. Put the file back, or move the whole data folder away to start anew"
            ),
        )),
        Some(facts) if first > facts.sequence + 1 => Err(OpenError::missing(
            log,
            format!(
                "the log starts with event {first}, but row state ends with event {}: what is between is missing. Put \
                 the missing segments back or restore the data folder from a backup",
                facts.sequence
            ),
        )),
        _ => Ok(()),
    }
}

/// Brings what the checkpoint says up to date.
struct Replay {
    retention: Retention,
    checkpoint_entries: usize,
    checkpoint_bytes: usize,
    /// What the checkpoint stands for; later events are replayed.
    known: Sequence,
    written: Facts,
    version: Version,
    /// Rows that the version does not have yet.
    gathered: Gathered,
    views: Views,
}

impl Replay {
    fn apply(&mut self, frame: &Frame, place: impl Fn(Damage) -> OpenError) -> Result<(), OpenError> {
        if frame.first <= self.known {
            return Ok(());
        }
        let mut writes = Vec::with_capacity(frame.events as usize);
        for i in 0..frame.events {
            writes.push(frame.event(i).map_err(&place)?.write);
        }
        let batch = Batch {
            timestamp_ms: frame.timestamp_ms,
            writes,
            schemas: frame.notes.schemas.clone(),
            positions: frame.notes.positions.clone(),
            cursors: frame.notes.cursors.clone(),
            documents: frame.documents().map_err(&place)?,
            generation: None,
        };
        let Self { version, gathered, .. } = self;
        version.facts.apply(&batch, &self.retention, |table, change| gathered.apply(table, &batch, change));
        version.ordinal += 1;
        Ok(())
    }

    /// Writes down what was replayed when it gets too much for memory: happens only when row state is rebuilt.
    fn relieve(&mut self, path: &Path) -> Result<(), OpenError> {
        if self.gathered.entries < self.checkpoint_entries * 8 && self.gathered.bytes < self.checkpoint_bytes * 8 {
            return Ok(());
        }
        let overlay = self.gathered.take();
        let facts = self.version.facts.clone();
        let write = || -> Result<_, ViewsError> {
            self.views.write(&overlay, &facts, &self.written, &self.retention, |_| ())?;
            self.views.base(facts.sequence)
        };
        self.version.rows.base = Arc::new(write().map_err(|error| unreadable(path, error))?);
        self.written = facts;
        Ok(())
    }
}

/// Opens the segments and replays what is new; answers them and where the last one ends.
fn load_segments(
    medium: &dyn Medium,
    log: &Path,
    names: &[Name],
    replay: &mut Replay,
) -> Result<(Vec<Arc<Segment>>, u64), OpenError> {
    let views = log.with_file_name(checkpoint::FILE);
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(names.len() + 1);
    let mut end = None;
    for (i, &name) in names.iter().enumerate() {
        let first = name.first;
        let path = log.join(name.file_name());
        let next = names.get(i + 1).map(|next| next.first);
        if let Some(before) = segments.last()
            && before.next() != first
        {
            let reason = format!(
                "events {} to {} are missing before this segment. Put the missing segment back or restore the data \
                 folder from a backup",
                before.next(),
                first.saturating_sub(1)
            );
            return Err(OpenError::missing(&path, reason));
        }
        let unusable = |error| OpenError::folder(&path, error);
        let file = medium.open(&path, true).map_err(unusable)?;
        let len = file.len().map_err(unusable)?;
        let trailer = Segment::read_trailer(&*file, len).map_err(unusable)?.filter(|trailer| trailer.first == first);
        if let Some(trailer) = trailer {
            check_version(&path, &*file)?;
            // Behind the last event that the checkpoint knows there may be batches without events that it does not.
            if trailer.last >= replay.known {
                let bytes = read(&*file, len - trailer.footer_len()).map_err(unusable)?;
                let (index, _) = scan(&path, first, bytes, next.is_none(), replay)?;
                if index.next != trailer.last + 1 {
                    let damage = Damage("a frame is damaged");
                    return Err(OpenError::corrupt(&path, u64::from(index.end), damage));
                }
                replay.relieve(&views)?;
            }
            segments.push(Arc::new(Segment::sealed(log, name, file, trailer)));
            continue;
        }
        let bytes = read(&*file, len).map_err(unusable)?;
        let header = segment::encode_header(first);
        let has_header = bytes.starts_with(&header);
        let (index, torn) = scan(&path, first, bytes, next.is_none(), replay)?;
        replay.relieve(&views)?;
        if let Some(next) = next
            && index.next != next
        {
            return Err(OpenError::corrupt(&path, u64::from(index.end), Damage("acknowledged events end here")));
        }
        let mut at = u64::from(index.end);
        if next.is_none() {
            if let Some(torn) = torn {
                keep_torn(medium, log, &path, &index, &torn)?;
                file.set_len(at).map_err(unusable)?;
            }
            if index.frames.is_empty() {
                // Without an event, the header may be torn as well: it is written anew with the first.
                file.set_len(0).map_err(unusable)?;
                at = 0;
            } else if !has_header {
                // Of an older format, which what is written from here on may go beyond; or torn.
                file.write_at(&[io::IoSlice::new(&header)], 0).map_err(unusable)?;
            }
            // What was read and not synced before the crash is acknowledged from here on.
            file.sync().map_err(unusable)?;
            end = Some(at);
        }
        let room = file.len().map_err(unusable)?;
        segments.push(Arc::new(Segment::with_index(log, name, file, index, room)));
    }
    if let Some(end) = end {
        return Ok((segments, end));
    }
    // The first start, or a crash just before a new segment was made durable.
    let first = segments.last().map_or(1, |last| last.next());
    let name = segments.last().map_or(Name { first, part: 0 }, |last| last.name().next(first));
    let path = log.join(name.file_name());
    let unusable = |error| OpenError::folder(&path, error);
    let _ = medium.remove(&log.join(SPARE));
    let file = medium.create(&path).map_err(unusable)?;
    medium.sync_folder(log).map_err(unusable)?;
    let index = MemoryIndex::new(first, SEGMENT_HEADER as u32);
    segments.push(Arc::new(Segment::with_index(log, name, file, index, 0)));
    Ok((segments, 0))
}

fn check_version(path: &Path, file: &dyn MediumFile) -> Result<(), OpenError> {
    let mut header = [0; SEGMENT_HEADER];
    file.read_at(&mut header, 0).map_err(|error| OpenError::folder(path, error))?;
    match segment::decode_header(&header) {
        SegmentHeader::Newer(found) => Err(newer(path, found)),
        _ => Ok(()),
    }
}

fn newer(path: &Path, found: u32) -> OpenError {
    OpenError::NewerFormat { file: path.to_owned(), found: found.into(), known: segment::VERSION.into() }
}

fn read(file: &dyn MediumFile, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Reads a segment's frames and replays those that are new; answers its index, and what a crash left behind them.
fn scan(
    path: &Path,
    first: Sequence,
    mut bytes: Vec<u8>,
    is_last: bool,
    replay: &mut Replay,
) -> Result<(MemoryIndex, Option<Vec<u8>>), OpenError> {
    if is_last && segment::decode_header(&bytes) == SegmentHeader::Damaged {
        // A crash can tear the header of the newest segment; the name says what it held. If there was more behind it,
        // the frames tell.
        bytes.resize(bytes.len().max(SEGMENT_HEADER), 0);
        bytes[..SEGMENT_HEADER].copy_from_slice(&segment::encode_header(first));
    }
    let mut result = Ok(());
    let scanned = recovery::scan(first, &bytes, |offset, frame| {
        if result.is_ok() {
            result = replay.apply(&frame, |damage| OpenError::corrupt(path, offset, damage));
        }
    });
    let found = scanned.map_err(|error| match error {
        ScanError::Newer(found) => newer(path, found),
        ScanError::Header => OpenError::corrupt(path, 0, Damage("the header is wrong")),
    })?;
    result?;
    match found.tail {
        Tail::Clean => Ok((found.index, None)),
        Tail::Torn(len) => {
            let start = found.index.end as usize;
            Ok((found.index, Some(bytes[start..start + len as usize].to_vec())))
        }
        Tail::Damaged(offset, damage) => Err(OpenError::corrupt(path, offset, damage)),
    }
}

/// Keeps what is cut off, and says so.
fn keep_torn(medium: &dyn Medium, log: &Path, path: &Path, index: &MemoryIndex, torn: &[u8]) -> Result<(), OpenError> {
    let kept = recovery::torn_path(path);
    let unusable = |error| OpenError::folder(&kept, error);
    let file = medium.create(&kept).map_err(unusable)?;
    file.write_at(&[io::IoSlice::new(torn)], 0).map_err(unusable)?;
    file.sync().map_err(unusable)?;
    medium.sync_folder(log).map_err(unusable)?;
    tracing::warn!(
        file = %path.display(),
        offset = index.end,
        bytes = torn.len(),
        last_event = index.next - 1,
        kept = %kept.display(),
        "the log ended in a write that a crash had cut short; nothing in it was acknowledged; it was cut off and kept"
    );
    Ok(())
}
