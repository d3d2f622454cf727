//! The offline check behind `cdc verify`: reads a data folder that no service has open, changes nothing, and says what
//! is wrong with it, place by place.
//!
//! - Every frame's checksums and content, every footer against its frames.
//! - The sequence: no gap within or between segments, up to what the checkpoint stands for.
//! - Row state against the log: the last after-image of every key in the retained log, up to the checkpoint, is the row;
//!   and where the log has the whole history of a table (from the first event, or a truncate), there are no other rows.
//!
//! Row state newer than the log and damage are findings. A write that a crash has torn is none: the next start cuts it
//! off.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::checkpoint::{self, Found, Views, ViewsError};
use super::facts::Facts;
use super::log::footer;
use super::log::frame::{Damage, Frame, HEADER, Header, MARK};
use super::log::index::MemoryIndex;
use super::log::segment::{self, Name, SEGMENT_HEADER, Segment, SegmentHeader};
use super::medium::{Disk, Medium};
use super::open::{LOG, OpenError, segments_in, take_lock};
use super::unchanged::Unchanged;
use super::{Operation, Sequence};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Where in it, if it is a place.
    pub offset: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{} at byte {offset}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// What was checked, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segment files read.
    pub segments: u64,
    /// Events read.
    pub events: u64,
    /// The oldest event in the files; 0 for an empty log.
    pub oldest: Sequence,
    /// The newest event in the files; 0 for an empty log.
    pub newest: Sequence,
    /// What the checkpoint stands for.
    pub checkpoint: Sequence,
    /// Rows in the checkpoint.
    pub rows: u64,
    /// Rows of these that the retained log proves.
    pub rows_proven: u64,
    /// Documents in the checkpoint.
    pub documents: u64,
    /// Documents of these that the retained log proves.
    pub documents_proven: u64,
    /// Bytes at the end of the log that a crash has torn and the next start will cut off.
    pub torn_bytes: u64,
    /// What is wrong; empty when all is well.
    pub findings: Vec<Finding>,
}

/// Checks a data folder. Errs when it cannot be looked at: in use, not readable, of a newer format.
pub fn verify(dir: &Path) -> Result<Report, OpenError> {
    if !dir.is_dir() {
        return Err(OpenError::folder(dir, io::ErrorKind::NotFound.into()));
    }
    let _lock = take_lock(dir)?;
    let mut check = Check { report: Report::default(), replay: Replay::default() };
    let views_path = dir.join(checkpoint::FILE);
    let views = open_views(&views_path, &mut check.report)?;
    check.replay.checkpoint = views.as_ref().map_or(0, |(_, facts)| facts.sequence);
    check.report.checkpoint = check.replay.checkpoint;

    let log = dir.join(LOG);
    let names = segments_in(&Disk, &log)?;
    let mut next = names.first().map_or(1, |name| name.first);
    check.report.oldest = names.first().map_or(0, |name| name.first);
    check.replay.is_whole = check.report.oldest <= 1;
    for (i, &name) in names.iter().enumerate() {
        let Name { first, part } = name;
        let path = log.join(name.file_name());
        if part > 0 && i.checked_sub(1).is_none_or(|before| names[before].next(first) != name) {
            check.replay.forget_documents();
        }
        if first != next {
            let missing = format!("events {next} to {} are missing before this segment", first.saturating_sub(1));
            check.find(&path, None, missing);
        }
        next = check.segment(&path, first, names.get(i + 1).map(|next| next.first))?;
    }
    check.report.segments = names.len() as u64;
    check.report.newest = next - 1;
    if check.report.newest < check.report.oldest {
        check.report.oldest = 0;
    }
    if check.report.newest < check.report.checkpoint {
        let (newest, checkpoint) = (check.report.newest, check.report.checkpoint);
        check.find(&log, None, format!("events up to {checkpoint} were acknowledged, but the log ends with {newest}"));
    }
    if let Some((views, facts)) = views {
        check.rows(&views_path, &views, &facts)?;
    }
    Ok(check.report)
}

fn open_views(path: &Path, report: &mut Report) -> Result<Option<(Views, Facts)>, OpenError> {
    if !path.exists() {
        return Ok(None);
    }
    let file = File::open(path).map_err(|error| OpenError::folder(path, error))?;
    let opened = Unchanged::new(file)
        .map_err(|error| ViewsError(error.to_string()))
        .and_then(|backend| Views::with_backend(path.to_owned(), backend))
        .and_then(|views| Ok((views.load()?, views)));
    match opened {
        Ok((Found::Empty, _)) => Ok(None),
        Ok((Found::Newer(found), _)) => {
            Err(OpenError::NewerFormat { file: path.to_owned(), found, known: checkpoint::VERSION })
        }
        Ok((Found::Checkpoint(found), views)) => Ok(Some((views, found.0))),
        Err(ViewsError(message)) => {
            report.findings.push(Finding { file: path.to_owned(), offset: None, message });
            Ok(None)
        }
    }
}

/// What the log says of a row, and where.
struct Said {
    image: Option<u64>,
    sequence: Sequence,
    file: Arc<PathBuf>,
    offset: u64,
}

/// Row state as the log tells it. A collection of documents is a table here, by the name that [`hidden`] gives it.
#[derive(Default)]
struct Replay {
    checkpoint: Sequence,
    /// Whether the log starts with the first event.
    is_whole: bool,
    /// Whether segments without events, which may have held documents, were removed.
    lacks_documents: bool,
    rows: HashMap<Arc<str>, HashMap<Bytes, Said>>,
    /// Tables that the log has seen empty.
    truncated: HashSet<Arc<str>>,
    /// What came after the checkpoint. A checkpoint that a crash cut short may hold some of it, so it proves nothing.
    later: HashMap<Arc<str>, HashSet<Bytes>>,
    truncated_later: HashSet<Arc<str>>,
}

impl Replay {
    fn apply(&mut self, frame: &Frame, i: u32, file: &Arc<PathBuf>, offset: u64) -> Result<(), Damage> {
        let event = frame.event(i)?;
        let write = event.write;
        let is_later = event.sequence > self.checkpoint;
        match (write.operation, is_later) {
            (Operation::Truncate, false) => {
                self.rows.remove(&write.table);
                self.truncated.insert(write.table);
            }
            (Operation::Truncate, true) => {
                self.truncated_later.insert(write.table);
            }
            (_, true) => {
                let key = Bytes::copy_from_slice(&write.key);
                self.later.entry(write.table).or_default().insert(key);
            }
            (_, false) => {
                let said = Said {
                    image: write.after.as_deref().map(fingerprint),
                    sequence: event.sequence,
                    file: file.clone(),
                    offset,
                };
                let rows = self.rows.entry(write.table).or_default();
                match rows.get_mut(&write.key) {
                    Some(known) => *known = said,
                    // A copy: the event's own key would keep the whole frame in memory.
                    None => {
                        rows.insert(Bytes::copy_from_slice(&write.key), said);
                    }
                }
            }
        }
        Ok(())
    }

    fn apply_documents(&mut self, frame: &Frame, file: &Arc<PathBuf>, offset: u64) -> Result<(), Damage> {
        // What follows the checkpoint's last event may be in it or not.
        let is_later = frame.first > self.checkpoint;
        for document in frame.documents()? {
            let name = hidden(&document.collection);
            let is_removal = document.key.is_empty() && document.value.is_none();
            match (is_removal, is_later) {
                (true, false) => {
                    self.rows.remove(&name);
                    self.truncated.insert(name);
                }
                (true, true) => {
                    self.truncated_later.insert(name);
                }
                (false, true) => {
                    self.later.entry(name).or_default().insert(Bytes::copy_from_slice(&document.key));
                }
                (false, false) => {
                    let image = document.value.as_deref().map(fingerprint);
                    let said = Said { image, sequence: frame.first, file: file.clone(), offset };
                    self.rows.entry(name).or_default().insert(Bytes::copy_from_slice(&document.key), said);
                }
            }
        }
        Ok(())
    }

    /// Segments without events were removed here: what earlier ones say of documents may be out of date.
    fn forget_documents(&mut self) {
        self.lacks_documents = true;
        self.rows.retain(|name, _| !is_hidden(name));
        self.truncated.retain(|name| !is_hidden(name));
    }
}

/// What no table is called: names of tables have no control characters.
const HIDDEN: char = '\u{1}';

fn hidden(collection: &str) -> Arc<str> {
    format!("{HIDDEN}{collection}").into()
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(HIDDEN)
}

/// How a row is called in a finding.
fn label(name: &str, key: &[u8]) -> String {
    let key = String::from_utf8_lossy(key);
    match name.strip_prefix(HIDDEN) {
        Some(collection) => format!("document {key:?} of {collection:?}"),
        None => format!("row {key:?} of {name:?}"),
    }
}

fn fingerprint(image: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish()
}

struct Check {
    report: Report,
    replay: Replay,
}

impl Check {
    fn find(&mut self, file: &Path, offset: Option<u64>, message: impl Into<String>) {
        self.report.findings.push(Finding { file: file.to_owned(), offset, message: message.into() });
    }

    /// Reads one segment, behind which another begins with `following`, if it is not the last; answers the sequence
    /// number after its last event.
    fn segment(&mut self, path: &Path, first: Sequence, following: Option<Sequence>) -> Result<Sequence, OpenError> {
        let is_last = following.is_none();
        let unusable = |error| OpenError::folder(path, error);
        let file = Disk.open(path, false).map_err(unusable)?;
        let len = file.len().map_err(unusable)?;
        let mut bytes = vec![0; len as usize];
        file.read_at(&mut bytes, 0).map_err(unusable)?;
        match segment::decode_header(&bytes) {
            SegmentHeader::First(found) if found == first => {}
            SegmentHeader::Newer(found) => {
                let (found, known) = (found.into(), segment::VERSION.into());
                return Err(OpenError::NewerFormat { file: path.to_owned(), found, known });
            }
            // The newest file may not have got its first write yet.
            _ if is_last && bytes.iter().all(|byte| *byte == 0) => return Ok(first),
            _ => self.find(path, Some(0), "the header is wrong"),
        }
        let trailer = Segment::read_trailer(&*file, len).map_err(unusable)?.filter(|trailer| trailer.first == first);
        let end = trailer.map_or(len, |trailer| len - trailer.footer_len()) as usize;
        let index = self.frames(
            path,
            first,
            &bytes[..end],
            is_last && trailer.is_none(),
            following.filter(|_| trailer.is_none()),
        );
        if let Some(trailer) = trailer {
            if index.next != trailer.last + 1 {
                let (newest, last) = (index.next - 1, trailer.last);
                self.find(path, None, format!("the segment ends with event {newest}, its footer says {last}"));
            } else if u64::from(index.end) == end as u64 && footer::encode(&index, trailer.is_packed) != bytes[end..] {
                self.find(path, Some(end as u64), "the footer does not say what the frames hold");
            }
            return Ok(trailer.last + 1);
        }
        Ok(index.next)
    }

    /// Reads the frames of a segment, and goes on behind damage. A segment that was full but not sealed yet when the
    /// process died has all events up to `unsealed_before`, and behind them zeros or an unfinished footer: no damage.
    fn frames(
        &mut self,
        path: &Path,
        first: Sequence,
        bytes: &[u8],
        may_be_torn: bool,
        unsealed_before: Option<Sequence>,
    ) -> MemoryIndex {
        let file = Arc::new(path.to_owned());
        let mut index = MemoryIndex::new(first, SEGMENT_HEADER as u32);
        let mut at = SEGMENT_HEADER;
        let mut next = first;
        while at < bytes.len() {
            let read = Header::decode(&bytes[at..]).and_then(|header| {
                let stored = bytes.get(at + HEADER..at + header.len() as usize);
                let frames = Frame::decode(&header, stored.ok_or(Damage("a frame is cut short"))?)?;
                if header.first != next {
                    return Err(Damage("a frame's sequence number does not follow"));
                }
                Ok((header, frames))
            });
            match read {
                Ok((header, frames)) => {
                    for frame in &frames {
                        for i in 0..frame.events {
                            if let Err(Damage(reason)) = self.replay.apply(frame, i, &file, at as u64) {
                                self.find(path, Some(at as u64), reason);
                            }
                        }
                        if let Err(Damage(reason)) = self.replay.apply_documents(frame, &file, at as u64) {
                            self.find(path, Some(at as u64), reason);
                        }
                        self.report.events += u64::from(frame.events);
                    }
                    index.push(&frames, header.len());
                    next = header.next();
                    at += header.len() as usize;
                }
                Err(Damage(reason)) => {
                    let rest = &bytes[at..];
                    if unsealed_before == Some(next) && next_frame(bytes, at + 1, next).is_none() {
                        break;
                    }
                    if rest.iter().all(|byte| *byte == 0) && (may_be_torn || rest.is_empty()) {
                        break;
                    }
                    let Some((place, header)) = next_frame(bytes, at + 1, next) else {
                        if may_be_torn {
                            self.report.torn_bytes =
                                rest.iter().rposition(|byte| *byte != 0).map_or(0, |i| i as u64 + 1);
                        } else {
                            self.find(path, Some(at as u64), reason);
                        }
                        break;
                    };
                    if may_be_torn && u64::from(header.synced) <= at as u64 {
                        self.report.torn_bytes = rest.len() as u64;
                        break;
                    }
                    let lost = header.first.saturating_sub(next);
                    self.find(path, Some(at as u64), format!("{reason}; {lost} events from {next} on cannot be read"));
                    // What those events did to rows is unknown.
                    self.replay.is_whole = false;
                    self.replay.rows.clear();
                    self.replay.truncated.clear();
                    next = header.first;
                    at = place;
                }
            }
        }
        index
    }

    /// Compares row state with what the log says.
    fn rows(&mut self, path: &Path, views: &Views, facts: &Facts) -> Result<(), OpenError> {
        let unreadable = |reason: String| OpenError::Views { path: path.to_owned(), reason };
        let base = views.base(facts.sequence).map_err(|error| unreadable(error.0))?;
        let tables = facts.tables.iter().map(|(name, table)| (name.clone(), table.id));
        let collections = facts.collections.iter().map(|(name, id)| (hidden(name), *id));
        for (name, id) in tables.chain(collections) {
            let mut said = self.replay.rows.remove(&name).unwrap_or_default();
            let later = self.replay.later.remove(&name).unwrap_or_default();
            let is_settled = !self.replay.truncated_later.contains(&name);
            let reaches_back = self.replay.is_whole && !(is_hidden(&name) && self.replay.lacks_documents);
            let is_whole = reaches_back || self.replay.truncated.contains(&name);
            let rows = base.scan(id, None).map_err(|error| unreadable(error.to_string()))?;
            for row in rows {
                let row = match row {
                    Ok(row) => row,
                    Err(error) => {
                        self.find(path, None, error.to_string());
                        break;
                    }
                };
                let (count, proven) = if is_hidden(&name) {
                    (&mut self.report.documents, &mut self.report.documents_proven)
                } else {
                    (&mut self.report.rows, &mut self.report.rows_proven)
                };
                *count += 1;
                let label = label(&name, &row.key);
                let is_settled = is_settled && !later.contains(&row.key);
                match said.remove(&row.key) {
                    Some(said) if said.image == Some(fingerprint(&row.image)) => *proven += 1,
                    Some(said) if is_settled => {
                        let what = if said.image.is_some() { "has another image" } else { "should be gone" };
                        let message = format!("{label} {what}, says event {} here", said.sequence);
                        self.find(&said.file, Some(said.offset), message);
                    }
                    None if is_whole && is_settled => {
                        self.find(path, None, format!("{label} has no event in the log"));
                    }
                    _ => {}
                }
            }
            for (key, said) in said {
                if said.image.is_some() && is_settled && !later.contains(&key) {
                    let message = format!("{} is missing, says event {} here", label(&name, &key), said.sequence);
                    self.find(&said.file, Some(said.offset), message);
                }
            }
        }
        // Collections that the log knows and the checkpoint does not.
        let mut lost: Vec<_> = std::mem::take(&mut self.replay.rows).into_iter().collect();
        lost.retain(|(name, _)| is_hidden(name) && !self.replay.truncated_later.contains(name));
        for (name, said) in lost {
            for (key, said) in said.into_iter().filter(|(_, said)| said.image.is_some()) {
                let message = format!("{} is missing, says event {} here", label(&name, &key), said.sequence);
                self.find(&said.file, Some(said.offset), message);
            }
        }
        Ok(())
    }
}

/// The next good header with a later sequence number.
fn next_frame(bytes: &[u8], from: usize, next: Sequence) -> Option<(usize, Header)> {
    let mark = MARK.to_le_bytes();
    let mut at = from;
    while at + HEADER <= bytes.len() {
        at += bytes[at + 4..].windows(2).position(|window| window == mark)?;
        if let Some(header) = bytes.get(at..).and_then(|bytes| Header::decode(bytes).ok())
            && header.first >= next
        {
            return Some((at, header));
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

    use super::super::contract::{batch, commit, document, documents, insert, tiny, write};
    use super::super::{EmbeddedOptions, EmbeddedStore, Retention, Store};
    use super::*;

    fn filled(retention: Retention, close: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut options = EmbeddedOptions::new(dir.path());
        tiny(&mut options);
        options.retention = retention;
        let store = EmbeddedStore::open(options).unwrap();
        for i in 0..1500u64 {
            let key = format!("k{}", i % 200);
            let operation = if i % 7 == 0 { Operation::Delete } else { Operation::Update };
            let after = (operation == Operation::Update).then(|| format!("{i:0150}"));
            commit(&*store, batch(i, vec![write("t", &key, operation, after.as_deref()), insert("u", &key, "1")]))
                .unwrap();
        }
        if close {
            store.close().unwrap();
        }
        dir
    }

    fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(everything(&path));
            } else if !path.ends_with("lock") {
                files.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
        files.sort();
        files
    }

    #[test]
    fn a_healthy_store_has_no_findings_and_is_not_changed() {
        for close in [true, false] {
            for events in [None, Some(300)] {
                let dir = filled(Retention { events, ..Retention::default() }, close);
                let before = everything(dir.path());
                let report = verify(dir.path()).unwrap();
                assert_eq!(report.findings, []);
                assert_eq!(report.newest, 3000);
                assert!(!close || (report.checkpoint == 3000 && report.rows > 0 && report.rows_proven > 0));
                if events.is_none() {
                    assert!(report.segments > 1);
                    assert_eq!(report.events, 3000);
                    assert!(!close || report.rows_proven == report.rows);
                }
                assert!(everything(dir.path()) == before, "nothing was changed");
            }
        }
    }

    #[test]
    fn damage_is_named_by_file_and_offset_and_the_rest_is_read() {
        let dir = filled(Retention::unlimited(), true);
        let segment = dir.path().join(LOG).join(segment::file_name(1));
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[SEGMENT_HEADER + HEADER + 5] ^= 1;
        std::fs::write(&segment, &bytes).unwrap();
        let report = verify(dir.path()).unwrap();
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
        assert_eq!((&report.findings[0].file, report.findings[0].offset), (&segment, Some(64)));
        assert!(report.events > 2000);
    }

    #[test]
    fn rows_that_the_log_does_not_tell_are_found() {
        let dir = filled(Retention::unlimited(), true);
        let path = dir.path().join(checkpoint::FILE);
        let views = Views::open(path.clone(), 1 << 20).unwrap();
        let Found::Checkpoint(found) = views.load().unwrap() else { panic!("there is a checkpoint") };
        let facts = found.0;
        let table = facts.table_id("t").unwrap();
        let mut overlay = super::super::rows::Overlay::default();
        let row = |key: &'static str| Bytes::from_static(key.as_bytes());
        overlay.set(table, row("k1"), Some(row("another image")));
        overlay.set(table, row("k2"), None);
        overlay.set(table, row("nobody knows"), Some(row("x")));
        views.write(&overlay, &facts, &facts, &Retention::unlimited(), |_| ()).unwrap();
        drop(views);
        let report = verify(dir.path()).unwrap();
        let messages: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(messages.len(), 3, "{messages:?}");
        assert!(
            messages.iter().any(|m| m.contains("\"k1\"") && m.contains("another image") && m.contains(".seg at byte"))
        );
        assert!(messages.iter().any(|m| m.contains("\"k2\"") && m.contains("is missing")));
        assert!(messages.iter().any(|m| m.contains("nobody knows") && m.contains("no event")));
    }

    #[test]
    fn documents_that_the_log_does_not_tell_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
        let some = ["a", "b"].map(|key| document("c", key, Some("1"))).to_vec();
        commit(&*store, documents(&*store, some)).unwrap();
        commit(&*store, batch(1, vec![insert("t", "k", "1")])).unwrap();
        store.close().unwrap();
        drop(store);
        let report = verify(dir.path()).unwrap();
        assert_eq!((report.findings, report.documents, report.documents_proven), (vec![], 2, 2));
        let path = dir.path().join(checkpoint::FILE);
        let views = Views::open(path.clone(), 1 << 20).unwrap();
        let Found::Checkpoint(found) = views.load().unwrap() else { panic!("there is a checkpoint") };
        let mut facts = found.0;
        let collection = facts.collections["c"];
        let mut overlay = super::super::rows::Overlay::default();
        overlay.set(collection, "a".into(), Some("2".into()));
        overlay.set(collection, "b".into(), None);
        overlay.set(collection, "n".into(), Some("3".into()));
        views.write(&overlay, &facts, &facts, &Retention::unlimited(), |_| ()).unwrap();
        drop(views);
        let messages: Vec<_> = verify(dir.path()).unwrap().findings.iter().map(ToString::to_string).collect();
        assert_eq!(messages.len(), 3, "{messages:?}");
        assert!(messages.iter().any(|m| m.contains("document \"a\" of \"c\" has another image")));
        assert!(messages.iter().any(|m| m.contains("document \"b\" of \"c\" is missing")));
        assert!(messages.iter().any(|m| m.contains("document \"n\" of \"c\" has no event")));

        // The whole collection.
        let views = Views::open(path, 1 << 20).unwrap();
        let before = facts.clone();
        facts.collections.remove("c");
        views.write(&super::super::rows::Overlay::default(), &facts, &before, &Retention::unlimited(), |_| ()).unwrap();
        drop(views);
        let messages: Vec<_> = verify(dir.path()).unwrap().findings.iter().map(ToString::to_string).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert!(messages.iter().all(|m| m.contains("of \"c\" is missing")));
    }

    #[test]
    fn a_missing_segment_and_a_used_folder_are_told() {
        let dir = filled(Retention::unlimited(), true);
        let names = segments_in(&Disk, &dir.path().join(LOG)).unwrap();
        std::fs::remove_file(dir.path().join(LOG).join(names[1].file_name())).unwrap();
        let report = verify(dir.path()).unwrap();
        assert!(report.findings.iter().any(|finding| finding.message.contains("are missing")));
        let store = EmbeddedStore::open(EmbeddedOptions::new(tempfile::tempdir().unwrap().path())).unwrap();
        drop(store);
        let _lock = take_lock(dir.path()).unwrap();
        assert!(matches!(verify(dir.path()).unwrap_err(), OpenError::Locked { .. }));
    }
}
