//! A segment: one file of the log, `<20-digit first sequence number>.seg`.
//!
//! A segment may fill up without an event, with documents and cursors. The next one then starts with the same sequence
//! number and is the next part: `<20-digit first sequence number>-<6-digit part>.seg`, from 1. Segments without events
//! are removed as soon as a checkpoint has what they hold, so that parts before the last may be missing.
//!
//! ```text
//! header, 64 bytes, little-endian
//!    0 "cdc-log\n"    8 u32 format version    12 u32 64    16 u64 first sequence number
//!   24 zeros         60 u32 crc32c of bytes 0..60
//! frames, one after another without a gap
//! then, while the segment is written: zeros; once it is sealed: the footer, up to the end of the file
//! ```
//! Version 1 is version 2 without documents, and up to version 2 an event's position in its source's log is a part of its
//! origin: all are read, for a frame tells which it is. A file of an old version that is written on becomes version 3
//! first.
//!
//! The zeros are really written, ahead of the frames: a sync then changes no metadata, which is several times faster
//! than appending. A segment never changes once it is sealed; retention removes it as a whole.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::super::medium::MediumFile;
use super::super::{Sequence, StoreError};
use super::codec::{u32_at, u64_at};
use super::footer::{Footer, FooterError, TRAILER, Trailer};
use super::frame::{Damage, Frame, Frames, HEADER, Header};
use super::index::{Extent, MemoryIndex, Selector, Window, rebuild};

pub(crate) const SEGMENT_HEADER: usize = 64;
pub(crate) const MAGIC: &[u8; 8] = b"cdc-log\n";
/// The format this binary writes, and the newest it reads.
pub(crate) const VERSION: u32 = 3;
/// What `room` says of a segment that must not be written any more.
pub(crate) const SEALED: u64 = u64::MAX;

/// A segment's first bytes.
pub(crate) fn encode_header(first: Sequence) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(SEGMENT_HEADER as u32).to_le_bytes());
    header[16..24].copy_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What a segment's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentHeader {
    First(Sequence),
    Newer(u32),
    Damaged,
}

pub(crate) fn decode_header(bytes: &[u8]) -> SegmentHeader {
    let Some(header) = bytes.first_chunk::<SEGMENT_HEADER>() else { return SegmentHeader::Damaged };
    // The version comes before the checksum: a newer format may checksum in another way.
    if &header[..8] == MAGIC && u32_at(header, 8) > VERSION && u32_at(header, 8) < 1 << 16 {
        return SegmentHeader::Newer(u32_at(header, 8));
    }
    if &header[..8] != MAGIC || crc32c::crc32c(&header[..60]) != u32_at(header, 60) {
        return SegmentHeader::Damaged;
    }
    SegmentHeader::First(u64_at(header, 16))
}

/// What a segment's file is called after. Ordered as the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// The first sequence number.
    pub(crate) first: Sequence,
    /// 0, unless segments without events that start with the same number came before.
    pub(crate) part: u32,
}

impl Name {
    /// The name of the segment after this one, which starts with `first`.
    pub(crate) fn next(self, first: Sequence) -> Self {
        Self { first, part: if first == self.first { self.part + 1 } else { 0 } }
    }

    pub(crate) fn file_name(self) -> String {
        let Self { first, part } = self;
        if part == 0 { format!("{first:020}.seg") } else { format!("{first:020}-{part:06}.seg") }
    }

    /// What a file's name says, if it is a segment's.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let number = |digits: &str, len: usize| {
            (digits.len() >= len && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse::<u64>().ok())?
        };
        let stem = name.strip_suffix(".seg")?;
        let (first, part) = stem.split_once('-').map_or((stem, None), |(first, part)| (first, Some(part)));
        let part = part.map_or(Some(0), |part| number(part, 6)?.try_into().ok())?;
        let name_of = Self { first: number(first, 20)?, part };
        (name_of.file_name() == name).then_some(name_of)
    }
}

/// The name of the first segment that starts with a sequence number.
#[cfg(test)]
pub(crate) fn file_name(first: Sequence) -> String {
    Name { first, part: 0 }.file_name()
}

/// Where the index of a segment is.
#[derive(Debug)]
enum Index {
    Memory(MemoryIndex),
    /// In the file, not looked at yet.
    Unread(Trailer),
    Footer(Footer),
}

/// One file of the log, open for reading as long as anyone holds this.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Tells this file from any other this process has opened, one of the same name included.
    pub(crate) number: u64,
    pub(crate) first: Sequence,
    pub(crate) part: u32,
    /// The newest batch in it, counted from this start: a checkpoint that stands for it has all that the segment holds.
    pub(crate) ordinal: AtomicU64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn MediumFile>,
    index: RwLock<Index>,
    /// Up to where the file is filled with zeros or frames. Held while zeros are written, so that they never come over
    /// a frame.
    room: Mutex<u64>,
    /// Whether zeros have been asked for.
    pub(crate) wants_room: AtomicBool,
}

impl Segment {
    /// A segment to be written, or whose index was rebuilt.
    pub(crate) fn with_index(
        folder: &Path,
        name: Name,
        file: Arc<dyn MediumFile>,
        index: MemoryIndex,
        room: u64,
    ) -> Self {
        Self {
            number: next_number(),
            first: name.first,
            part: name.part,
            ordinal: AtomicU64::new(0),
            path: folder.join(name.file_name()),
            file,
            index: RwLock::new(Index::Memory(index)),
            room: Mutex::new(room),
            wants_room: AtomicBool::new(false),
        }
    }

    /// A sealed segment.
    pub(crate) fn sealed(folder: &Path, name: Name, file: Arc<dyn MediumFile>, trailer: Trailer) -> Self {
        Self {
            number: next_number(),
            first: name.first,
            part: name.part,
            ordinal: AtomicU64::new(0),
            path: folder.join(name.file_name()),
            file,
            index: RwLock::new(Index::Unread(trailer)),
            room: Mutex::new(SEALED),
            wants_room: AtomicBool::new(false),
        }
    }

    /// Opens what retention needs to know of a file: its trailer, if it is sealed.
    pub(crate) fn read_trailer(file: &dyn MediumFile, len: u64) -> io::Result<Option<Trailer>> {
        let Some(at) = len.checked_sub(TRAILER as u64) else { return Ok(None) };
        let mut bytes = [0; TRAILER];
        file.read_at(&mut bytes, at)?;
        Ok(Trailer::decode(&bytes).filter(|trailer| trailer.footer_len() + SEGMENT_HEADER as u64 <= len))
    }

    pub(crate) fn name(&self) -> Name {
        Name { first: self.first, part: self.part }
    }

    /// Whether it holds an event.
    pub(crate) fn has_events(&self) -> bool {
        self.next() > self.first
    }

    /// The sequence number after the last.
    pub(crate) fn next(&self) -> Sequence {
        match &*self.read() {
            Index::Memory(index) => index.next,
            Index::Unread(trailer) => trailer.last + 1,
            Index::Footer(footer) => footer.next(),
        }
    }

    /// The trailer of a sealed segment.
    pub(crate) fn trailer(&self) -> Option<Trailer> {
        match &*self.read() {
            Index::Memory(_) => None,
            Index::Unread(trailer) => Some(*trailer),
            Index::Footer(footer) => Some(footer.trailer()),
        }
    }

    /// Whether the index is in memory only.
    pub(crate) fn is_unsealed(&self) -> bool {
        matches!(&*self.read(), Index::Memory(_))
    }

    /// The newest event's time.
    pub(crate) fn last_timestamp_ms(&self) -> u64 {
        match &*self.read() {
            Index::Memory(index) => index.timestamps_ms().1,
            Index::Unread(trailer) => trailer.last_timestamp_ms,
            Index::Footer(footer) => footer.last_timestamp_ms(),
        }
    }

    /// Up to where the file is filled; holding the guard keeps others from filling it.
    pub(crate) fn room(&self) -> MutexGuard<'_, u64> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks once for more zeros: whether the caller has to pass the question on.
    pub(crate) fn ask_for_room(&self) -> bool {
        !self.wants_room.swap(true, Ordering::Relaxed)
    }

    /// Takes in a frame that has become durable.
    pub(crate) fn push(&self, frames: &[(u64, Frames)]) {
        if let Index::Memory(index) = &mut *self.index.write().unwrap_or_else(PoisonError::into_inner) {
            for (len, frames) in frames {
                index.push(frames, *len);
            }
        }
    }

    /// The footer for this segment and where it goes; none when it has one already.
    pub(crate) fn footer(&self) -> Option<(u64, Vec<u8>)> {
        match &*self.read() {
            Index::Memory(index) if !index.frames.is_empty() => {
                Some((u64::from(index.end), super::footer::encode(index, false)))
            }
            _ => None,
        }
    }

    /// From now on the index is read from the file.
    pub(crate) fn use_footer(&self, trailer: Trailer) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Index::Unread(trailer);
    }

    /// The number of frames, of the frame that holds a sequence number (or the next), and of the first frame later than
    /// a time.
    pub(crate) fn bounds(&self, sequence: Sequence, since_ms: Option<u64>) -> Result<(u32, u32, u32), StoreError> {
        let (count, at, later) = match &*self.opened()? {
            Index::Memory(index) => (
                index.frames.len() as u32,
                index.locate(sequence),
                since_ms.map_or(0, |since_ms| index.after_time(since_ms)),
            ),
            Index::Footer(footer) => (
                footer.frames(),
                footer.locate(sequence).map_err(|error| self.unreadable(&error))?,
                match since_ms {
                    Some(since_ms) => footer.after_time(since_ms).map_err(|error| self.unreadable(&error))?,
                    None => 0,
                },
            ),
            Index::Unread(_) => (0, None, 0),
        };
        Ok((count, at.unwrap_or(0), later))
    }

    /// The newest event older than a time; the one before the segment when there is none.
    pub(crate) fn older_than(&self, oldest_ms: u64) -> Result<Sequence, StoreError> {
        let Some(since_ms) = oldest_ms.checked_sub(1) else { return Ok(self.first - 1) };
        let (count, _, later) = self.bounds(self.first, Some(since_ms))?;
        if later >= count {
            return Ok(self.next() - 1);
        }
        let Extent { offset, len, .. } = self.extent(later)?;
        // In a pack, only its last batches may be later.
        let frames = self.read_frames(offset, len)?;
        let later = frames.iter().find(|frame| frame.timestamp_ms > since_ms).or(frames.first());
        Ok(later.map_or(self.first, |frame| frame.first) - 1)
    }

    /// Names frames that may hold what is looked for.
    pub(crate) fn candidates(
        &self,
        selector: &Selector<'_>,
        window: Window,
        out: &mut Vec<u32>,
    ) -> Result<(), StoreError> {
        match &*self.opened()? {
            Index::Memory(index) => index.candidates(selector, window, out),
            Index::Footer(footer) => {
                footer.candidates(selector, window, out).map_err(|error| self.unreadable(&error))?;
            }
            Index::Unread(_) => {}
        }
        Ok(())
    }

    /// Where a frame is.
    pub(crate) fn extent(&self, frame: u32) -> Result<Extent, StoreError> {
        let extent = match &*self.opened()? {
            Index::Memory(index) => index.extent(frame),
            Index::Footer(footer) if frame < footer.frames() => {
                Some(footer.extent(frame).map_err(|error| self.unreadable(&error))?)
            }
            _ => None,
        };
        extent.ok_or_else(|| self.corrupt(0, Damage("the footer names a frame that is not there")))
    }

    /// Reads and checks one frame.
    pub(crate) fn read_frames(&self, offset: u32, len: u32) -> Result<Vec<Frame>, StoreError> {
        if (len as usize) < HEADER {
            return Err(self.corrupt(u64::from(offset), Damage("a frame is cut short")));
        }
        let mut bytes = vec![0; len as usize];
        self.file.read_at(&mut bytes, u64::from(offset)).map_err(|error| self.unreadable(&error))?;
        Header::decode(&bytes)
            .and_then(|header| {
                if header.len() != bytes.len() as u64 {
                    return Err(Damage("a frame has another length than the index says"));
                }
                Frame::decode(&header, &bytes[HEADER..])
            })
            .map_err(|damage| self.corrupt(u64::from(offset), damage))
    }

    /// A damaged place of this file, as an error that says what to do.
    pub(crate) fn corrupt(&self, offset: u64, damage: Damage) -> StoreError {
        StoreError::Corrupt(corruption(&self.path, offset, damage).into())
    }

    fn unreadable(&self, error: &io::Error) -> StoreError {
        StoreError::Corrupt(format!("{} cannot be read: {error}", self.path.display()).into())
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index, which somebody may just have moved from memory to the file.
    fn opened(&self) -> Result<RwLockReadGuard<'_, Index>, StoreError> {
        loop {
            let index = self.read();
            if !matches!(*index, Index::Unread(_)) {
                return Ok(index);
            }
            drop(index);
            self.open_index()?;
        }
    }

    /// Reads the footer at its first use; without a good one, the frames are read instead.
    fn open_index(&self) -> Result<(), StoreError> {
        let Index::Unread(trailer) = *self.read() else { return Ok(()) };
        let mut state = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, Index::Unread(_)) {
            return Ok(());
        }
        match Footer::open(self.file.clone(), trailer) {
            Ok(footer) => *state = Index::Footer(footer),
            Err(FooterError::Io(error)) => return Err(self.unreadable(&error)),
            Err(FooterError::Damage(Damage(reason))) => {
                tracing::warn!(file = %self.path.display(), reason, "a segment's footer is lost; reading its frames");
                let len = self.file.len().map_err(|error| self.unreadable(&error))?;
                let end = len.saturating_sub(trailer.footer_len());
                let mut bytes = vec![0; end.saturating_sub(SEGMENT_HEADER as u64) as usize];
                self.file.read_at(&mut bytes, SEGMENT_HEADER as u64).map_err(|error| self.unreadable(&error))?;
                let (index, damage) = rebuild(self.first, &bytes, SEGMENT_HEADER as u32);
                if index.next != trailer.last + 1 {
                    let damage = damage.unwrap_or(Damage("frames are missing"));
                    return Err(self.corrupt(u64::from(index.end), damage));
                }
                *state = Index::Memory(index);
            }
        }
        Ok(())
    }
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What is said of damage, wherever it is found.
pub(crate) fn corruption(path: &Path, offset: u64, Damage(reason): Damage) -> String {
    format!(
        "{} is damaged at byte {offset}: {reason}. Events there were acknowledged and cannot be read. Restore the data \
         folder from a backup; `cdc verify` lists every damaged place",
        path.display()
    )
}
