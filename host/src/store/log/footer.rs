//! The index of a sealed segment, at the end of its file.
//!
//! ```text
//! frames     8 bytes each: u32 offset, u32 first sequence number counted from the segment's
//! lists      u32 frame numbers, ascending per list; the lists in the order of the directory
//! keys       8 bytes each, sorted: u32 key hash, u32 frame number
//! directory  for all tables together, then per table: name, 4 lengths of lists (insert, update, delete, truncate);
//!            the first name is empty
//! trailer    72 bytes, the last of the file
//!    0 "cdc-foot"                 28 u64 first sequence number       60 u32 crc32c of frames … directory
//!    8 u32 format version         36 u64 last sequence number        64 u32 1 when the segment was packed
//!   12 u32 frames                 44 u64 first timestamp             68 u32 crc32c of bytes 0..68
//!   16 u32 entries of lists       52 u64 last timestamp
//!   20 u32 entries of keys
//!   24 u32 bytes of directory
//! ```
//! A footer is a convenience: when it is missing or damaged, the frames still say everything. Its checksum is checked
//! at its first use; its tables are then read where needed, so that a sealed segment takes next to no memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::Sequence;
use super::super::medium::MediumFile;
use super::codec::{Reader, put_bytes, put_number, u32_at, u64_at};
use super::frame::{Damage, HEADER, Header};
use super::index::{Extent, MemoryIndex, Selector, Window, every, in_order};

pub(crate) const TRAILER: usize = 72;
pub(crate) const MAGIC: &[u8; 8] = b"cdc-foot";
const VERSION: u32 = 1;
/// Entries read at a time.
const PAGE: u32 = 512;

/// The end of a sealed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) frames: u32,
    lists: u32,
    keys: u32,
    directory: u32,
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
    pub(crate) first_timestamp_ms: u64,
    pub(crate) last_timestamp_ms: u64,
    /// Packing has been done, with whatever gain.
    pub(crate) is_packed: bool,
    crc: u32,
}

impl Trailer {
    /// Reads a trailer from the last bytes of a file.
    pub(crate) fn decode(bytes: &[u8; TRAILER]) -> Option<Self> {
        if &bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..68]) != u32_at(bytes, 68) || u32_at(bytes, 8) != VERSION {
            return None;
        }
        Some(Self {
            frames: u32_at(bytes, 12),
            lists: u32_at(bytes, 16),
            keys: u32_at(bytes, 20),
            directory: u32_at(bytes, 24),
            first: u64_at(bytes, 28),
            last: u64_at(bytes, 36),
            first_timestamp_ms: u64_at(bytes, 44),
            last_timestamp_ms: u64_at(bytes, 52),
            is_packed: u32_at(bytes, 64) == 1,
            crc: u32_at(bytes, 60),
        })
    }

    /// Bytes of the footer, trailer included.
    pub(crate) fn footer_len(&self) -> u64 {
        u64::from(self.frames) * 8
            + u64::from(self.lists) * 4
            + u64::from(self.keys) * 8
            + u64::from(self.directory)
            + TRAILER as u64
    }
}

/// Encodes a segment's footer, trailer included.
pub(crate) fn encode(index: &MemoryIndex, is_packed: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(index.frames.len() * 24 + 4096);
    for frame in &index.frames {
        out.extend_from_slice(&frame.offset.to_le_bytes());
        out.extend_from_slice(&frame.first.to_le_bytes());
    }
    let mut tables: Vec<_> = index.tables.iter().map(|(name, lists)| (&**name, lists)).collect();
    tables.sort_unstable_by_key(|(name, _)| *name);
    tables.insert(0, ("", &index.all));
    let mut directory = Vec::new();
    let mut list_entries = 0;
    for (name, lists) in tables {
        put_bytes(&mut directory, name.as_bytes());
        for list in lists {
            put_number(&mut directory, list.len() as u64);
            list_entries += list.len();
            for frame in list {
                out.extend_from_slice(&frame.to_le_bytes());
            }
        }
    }
    let keys = index.key_frames();
    for (hash, frame) in &keys {
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&frame.to_le_bytes());
    }
    out.extend_from_slice(&directory);
    let crc = crc32c::crc32c(&out);
    let (first_timestamp, last_timestamp) = index.timestamps_ms();
    let start = out.len();
    out.extend_from_slice(MAGIC);
    for number in [VERSION, index.frames.len() as u32, list_entries as u32, keys.len() as u32, directory.len() as u32] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [index.first, index.next.saturating_sub(1), first_timestamp, last_timestamp] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&u32::from(is_packed).to_le_bytes());
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// (where it starts, how long it is), in entries, of each of a table's lists.
type Spans = [(u32, u32); 4];

/// A footer in use: the directory in memory, the rest in the file.
#[derive(Debug)]
pub(crate) struct Footer {
    file: Arc<dyn MediumFile>,
    trailer: Trailer,
    /// Where the footer starts, which is where the frames end.
    start: u64,
    all: Spans,
    tables: HashMap<Arc<str>, Spans>,
}

/// Why a footer could not be used.
#[derive(Debug)]
pub(crate) enum FooterError {
    Io(std::io::Error),
    Damage(Damage),
}

impl From<std::io::Error> for FooterError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Damage> for FooterError {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

impl Footer {
    /// Checks a file's footer and reads its directory.
    pub(crate) fn open(file: Arc<dyn MediumFile>, trailer: Trailer) -> Result<Self, FooterError> {
        let len = file.len()?;
        let start = len.checked_sub(trailer.footer_len()).ok_or(Damage("the footer is larger than the file"))?;
        let mut bytes = vec![0; (trailer.footer_len() - TRAILER as u64) as usize];
        file.read_at(&mut bytes, start)?;
        if crc32c::crc32c(&bytes) != trailer.crc {
            return Err(Damage("the checksum of the footer is wrong").into());
        }
        let directory = &bytes[bytes.len() - trailer.directory as usize..];
        let mut reader = Reader { bytes: directory, at: 0 };
        let mut at = 0u32;
        let mut all = None;
        let mut tables = HashMap::new();
        while reader.at < directory.len() {
            let name = reader.text()?;
            let mut spans = Spans::default();
            for span in &mut spans {
                let len = reader.number32()?;
                *span = (at, len);
                at = at.checked_add(len).filter(|at| *at <= trailer.lists).ok_or(Damage("a list is too long"))?;
            }
            // The first entry stands for all tables; a table with an empty name would come after it.
            if all.is_none() {
                all = Some(spans);
            } else {
                tables.insert(Arc::from(name), spans);
            }
        }
        Ok(Self { file, trailer, start, all: all.unwrap_or_default(), tables })
    }

    pub(crate) fn frames(&self) -> u32 {
        self.trailer.frames
    }

    pub(crate) fn trailer(&self) -> Trailer {
        self.trailer
    }

    /// The sequence number after the last.
    pub(crate) fn next(&self) -> Sequence {
        self.trailer.last + 1
    }

    /// The newest frame's time.
    pub(crate) fn last_timestamp_ms(&self) -> u64 {
        self.trailer.last_timestamp_ms
    }

    /// Where a frame is.
    pub(crate) fn extent(&self, frame: u32) -> std::io::Result<Extent> {
        let mut bytes = [0; 16];
        if frame + 1 < self.trailer.frames {
            self.file.read_at(&mut bytes, self.start + u64::from(frame) * 8)?;
        } else {
            self.file.read_at(&mut bytes[..8], self.start + u64::from(frame) * 8)?;
            bytes[8..12].copy_from_slice(&(self.start as u32).to_le_bytes());
            bytes[12..].copy_from_slice(&((self.next() - self.trailer.first) as u32).to_le_bytes());
        }
        let offset = u32_at(&bytes, 0);
        let len = u32_at(&bytes, 8).saturating_sub(offset);
        Ok(Extent { offset, len, has_events: u32_at(&bytes, 12) > u32_at(&bytes, 4) })
    }

    /// The frame that holds a sequence number; none when it is before the segment.
    pub(crate) fn locate(&self, sequence: Sequence) -> std::io::Result<Option<u32>> {
        let Some(wanted) = sequence.checked_sub(self.trailer.first) else { return Ok(None) };
        let found = self.search(self.start, 8, 0, self.trailer.frames, |entry| u64::from(u32_at(entry, 4)) > wanted)?;
        Ok(found.checked_sub(1))
    }

    /// The first frame later than a time: looked up in the frames themselves, since it is rarely asked.
    pub(crate) fn after_time(&self, since_ms: u64) -> std::io::Result<u32> {
        if since_ms >= self.trailer.last_timestamp_ms {
            return Ok(self.trailer.frames);
        }
        let (mut low, mut high) = (0, self.trailer.frames);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut bytes = [0; HEADER];
            self.file.read_at(&mut bytes, u64::from(self.extent(middle)?.offset))?;
            let later = match Header::decode(&bytes) {
                Ok(header) => header.timestamp_ms > since_ms,
                // Damage is found and named when the frame is read; here it must only not be passed over.
                Err(_) => true,
            };
            if later { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }

    /// Names frames that may hold what is looked for.
    pub(crate) fn candidates(
        &self,
        selector: &Selector<'_>,
        window: Window,
        out: &mut Vec<u32>,
    ) -> std::io::Result<()> {
        if let Some(hash) = selector.key_hash {
            let start = self.start + u64::from(self.trailer.frames) * 8 + u64::from(self.trailer.lists) * 4;
            let pair = |entry: &[u8]| (u32_at(entry, 0), u32_at(entry, 4));
            let (low, high) = self.guess(start, hash)?;
            let from = self.search(start, 8, low, high, |entry| pair(entry) >= (hash, window.from))?;
            let to = if self.trailer.keys == from {
                from
            } else {
                self.search(start, 8, from, high, |entry| pair(entry) >= (hash, window.to))?
            };
            return self.list(start, 8, 4, (from, to), window, out);
        }
        let spans = match selector.table {
            Some(table) => match self.tables.get(table) {
                Some(spans) => spans,
                None => return Ok(()),
            },
            None if selector.operation.is_some() => &self.all,
            None => {
                every(window, out);
                return Ok(());
            }
        };
        let start = self.start + u64::from(self.trailer.frames) * 8;
        for (operation, &(at, len)) in spans.iter().enumerate() {
            if len > 0 && selector.operation.is_none_or(|wanted| wanted as usize == operation) {
                let from = self.search(start, 4, at, at + len, |entry| u32_at(entry, 0) >= window.from)?;
                let to = self.search(start, 4, from, at + len, |entry| u32_at(entry, 0) >= window.to)?;
                self.list(start, 4, 0, (from, to), window, out)?;
            }
        }
        in_order(window, out);
        Ok(())
    }

    /// Where in the key table a hash can be: hashes are spread evenly, so that a guess is right within a page or so.
    fn guess(&self, start: u64, hash: u32) -> std::io::Result<(u32, u32)> {
        let keys = self.trailer.keys;
        let middle = ((u64::from(hash) * u64::from(keys)) >> 32) as u32;
        let (mut low, mut high) = (middle.saturating_sub(PAGE / 2), middle.saturating_add(PAGE / 2).min(keys));
        let mut entry = [0; 4];
        if low > 0 {
            self.file.read_at(&mut entry, start + u64::from(low) * 8)?;
            if u32_at(&entry, 0) >= hash {
                low = 0;
            }
        }
        if high < keys {
            self.file.read_at(&mut entry, start + u64::from(high) * 8)?;
            if u32_at(&entry, 0) <= hash {
                high = keys;
            }
        }
        Ok((low, high))
    }

    /// The first entry of a sorted table between two places for which `is_past` holds. Reads a page at a time.
    fn search(
        &self,
        start: u64,
        size: usize,
        mut low: u32,
        mut high: u32,
        is_past: impl Fn(&[u8]) -> bool,
    ) -> std::io::Result<u32> {
        let mut entry = [0; 8];
        while high - low > PAGE {
            let middle = low + (high - low) / 2;
            self.file.read_at(&mut entry[..size], start + u64::from(middle) * size as u64)?;
            if is_past(&entry[..size]) { high = middle } else { low = middle + 1 }
        }
        let mut page = [0; PAGE as usize * 8];
        let page = &mut page[..(high - low) as usize * size];
        self.file.read_at(page, start + u64::from(low) * size as u64)?;
        let (mut from, mut to) = (0, (high - low) as usize);
        while from < to {
            let middle = from + (to - from) / 2;
            if is_past(&page[middle * size..][..size]) { to = middle } else { from = middle + 1 }
        }
        Ok(low + from as u32)
    }

    /// Copies the first or last frame numbers between two places of a table.
    fn list(
        &self,
        start: u64,
        size: usize,
        field: usize,
        (from, to): (u32, u32),
        window: Window,
        out: &mut Vec<u32>,
    ) -> std::io::Result<()> {
        let count = ((to - from) as usize).min(window.max);
        let at = if window.newest_first { to - count as u32 } else { from };
        let mut bytes = vec![0; count * size];
        self.file.read_at(&mut bytes, start + u64::from(at) * size as u64)?;
        let numbers = bytes.chunks_exact(size).map(|entry| u32_at(entry, field));
        if window.newest_first {
            out.extend(numbers.rev());
        } else {
            out.extend(numbers);
        }
        Ok(())
    }
}
