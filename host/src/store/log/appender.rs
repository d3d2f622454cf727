//! The end of the log: writes groups of frames, starts new segments, and takes back what could not be written whole.
//!
//! Used by one thread. Nothing here is visible to readers until `publish`.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::Sequence;
use super::super::medium::{Medium, is_full};
use super::cache::FrameCache;
use super::files::{Files, SPARE};
use super::frame::{Encoded, Frames};
use super::index::MemoryIndex;
use super::segment::{SEGMENT_HEADER, Segment, encode_header};

/// When a segment is full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RollAt {
    pub(crate) bytes: u64,
    /// With few events kept, smaller segments let retention drop some sooner: this many events are enough for one that
    /// has at least `early_bytes`.
    pub(crate) early_events: u64,
    pub(crate) early_bytes: u64,
}

/// Why a group was not written.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// No room; the log is as it was before.
    Full(String),
    /// What is on disk is unknown.
    Fatal(String),
}

/// Where the log grows.
#[derive(Debug)]
pub(crate) struct Appender {
    folder: PathBuf,
    medium: Arc<dyn Medium>,
    files: Files,
    roll_at: RollAt,
    active: Arc<Segment>,
    /// Whether readers know the active segment.
    published: bool,
    /// Where the next frame goes; 0 while the file has no header yet.
    end: u64,
    /// Up to where the active file is known to be durable.
    synced: u64,
    /// The segment before, to be sealed once the active one is durable.
    unsealed: Option<Arc<Segment>>,
    asked_for_spare: bool,
    /// Frames written but not published: (length, frame).
    pending: Vec<(u64, Frames)>,
    pub(crate) bytes_written: u64,
}

impl Appender {
    /// Goes on in an existing segment, durable up to `end`, or in a new file that has no header yet (`end` 0).
    pub(crate) fn new(
        folder: PathBuf,
        medium: Arc<dyn Medium>,
        files: Files,
        roll_at: RollAt,
        active: Arc<Segment>,
        end: u64,
    ) -> Self {
        files.make_room(&active);
        Self {
            folder,
            medium,
            files,
            roll_at,
            active,
            published: true,
            end,
            synced: end,
            unsealed: None,
            asked_for_spare: false,
            pending: Vec::new(),
            bytes_written: 0,
        }
    }

    /// Whether this many more bytes still go into the active segment.
    pub(crate) fn fits(&self, bytes: u64, first: Sequence) -> bool {
        let events = first.saturating_sub(self.active.first);
        self.end == 0
            || !(self.end + bytes > self.roll_at.bytes
                || (events >= self.roll_at.early_events && self.end >= self.roll_at.early_bytes))
    }

    /// Starts a new segment.
    pub(crate) fn roll(&mut self, first: Sequence) -> Result<(), AppendError> {
        if self.synced < self.end {
            self.sync()?;
        }
        let name = self.active.name().next(first);
        let path = self.folder.join(name.file_name());
        let made = match self.files.take_spare(|| self.medium.rename(&self.folder.join(SPARE), &path)) {
            Some(spare) => spare.map(|file| (file, self.files.room)),
            None => self.medium.create(&path).map(|file| (file, 0)),
        };
        let (file, room) = made.map_err(|error| {
            let message = format!("{} cannot be made: {error}", path.display());
            if is_full(&error) { AppendError::Full(message) } else { AppendError::Fatal(message) }
        })?;
        self.medium
            .sync_folder(&self.folder)
            .map_err(|error| AppendError::Fatal(format!("{} cannot be synced: {error}", self.folder.display())))?;
        let index = MemoryIndex::new(first, SEGMENT_HEADER as u32);
        let next = Arc::new(Segment::with_index(&self.folder, name, file, index, room));
        self.unsealed = Some(std::mem::replace(&mut self.active, next));
        self.published = false;
        self.end = 0;
        self.synced = 0;
        self.asked_for_spare = false;
        self.files.make_room(&self.active);
        Ok(())
    }

    /// Writes a group of batches at the end. After `Full` none of it is in the file.
    pub(crate) fn write<'a>(&mut self, group: impl Iterator<Item = &'a mut Encoded>) -> Result<(), AppendError> {
        let header = encode_header(self.active.first);
        let mut parts = Vec::new();
        let start = self.end;
        let mut end = start;
        if start == 0 {
            parts.push(IoSlice::new(&header));
            end = header.len() as u64;
        }
        let pending = self.pending.len();
        for encoded in group {
            encoded.finish(self.synced as u32);
            let encoded = &*encoded;
            for (i, (at, frame)) in encoded.frames.iter().enumerate() {
                let next = encoded.frames.get(i + 1).map_or(encoded.bytes.len(), |(next, _)| *next);
                self.pending.push(((next - at) as u64, frame.clone()));
            }
            end += encoded.bytes.len() as u64;
            parts.push(IoSlice::new(&encoded.bytes));
        }
        let result = {
            let mut room = self.active.room();
            if end <= *room {
                // There are zeros already: nobody else writes here.
                drop(room);
                self.active.file.write_at(&parts, start)
            } else {
                let result = self.active.file.write_at(&parts, start);
                *room = end;
                result
            }
        };
        if let Err(error) = result {
            self.pending.truncate(pending);
            return Err(self.take_back(&error));
        }
        self.end = end;
        self.bytes_written += end - start;
        if self.end + self.files.room / 2 > *self.active.room() && self.end < self.roll_at.bytes {
            self.files.make_room(&self.active);
        }
        if !self.asked_for_spare && self.end > self.roll_at.bytes / 2 {
            self.asked_for_spare = true;
            self.files.make_spare();
        }
        Ok(())
    }

    /// Makes all that was written durable.
    pub(crate) fn sync(&mut self) -> Result<(), AppendError> {
        self.active.file.sync().map_err(|error| {
            AppendError::Fatal(format!(
                "{} could not be synced: {error}. What was written last may or may not be on disk. Check the disk, then \
                 start again: every acknowledged event is read back from the log",
                self.active.path.display()
            ))
        })?;
        self.synced = self.end;
        Ok(())
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.synced == self.end
    }

    /// Lets readers see what was written, up to the batch with this ordinal: fills the index and the cache. Answers a
    /// segment that they do not know yet.
    pub(crate) fn publish(&mut self, cache: &FrameCache, ordinal: u64) -> Option<Arc<Segment>> {
        self.active.ordinal.store(ordinal, Ordering::Relaxed);
        self.active.push(&self.pending);
        // Only the newest are worth their memory, and all of them may be more than the cache holds.
        let mut at = self.end;
        for (len, frame) in self.pending.drain(..).rev() {
            at -= len;
            // Nobody reads a frame without events again before the next start.
            if frame.iter().any(|frame| frame.events > 0) {
                cache.put((self.active.number, at as u32), frame);
            }
        }
        if let Some(before) = self.unsealed.take() {
            self.files.seal(before);
        }
        (!std::mem::replace(&mut self.published, true)).then(|| self.active.clone())
    }

    /// Cuts the file after the last event and ends the helper. What is not needed of the file is given back.
    pub(crate) fn close(self) -> std::io::Result<()> {
        let Self { folder, medium, files, active, end, .. } = self;
        // The last of its jobs may still make one.
        drop(files);
        let mut room = active.room();
        if *room > end {
            *room = end;
            active.file.set_len(end)?;
            active.file.sync()?;
        }
        if medium.list(&folder)?.iter().any(|name| name == SPARE) {
            medium.remove(&folder.join(SPARE))?;
        }
        Ok(())
    }

    /// Removes what a failed write left, so that it cannot come back at the next start.
    fn take_back(&mut self, error: &std::io::Error) -> AppendError {
        let message = format!("{}: {error}", self.active.path.display());
        if !is_full(error) {
            return AppendError::Fatal(format!(
                "{message}. Check the disk, then start again: every acknowledged event is read back from the log"
            ));
        }
        let mut room = self.active.room();
        *room = self.end;
        match self.active.file.set_len(self.end).and_then(|()| self.active.file.sync()) {
            Ok(()) => AppendError::Full(message),
            Err(second) => AppendError::Fatal(format!("{message}; taking back what was written failed too: {second}")),
        }
    }
}
