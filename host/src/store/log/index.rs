//! Where a segment's events are: by sequence number, by time, by (table, operation) and by key.
//!
//! An index names frames, never events: a frame that it names may hold other events too, and a key's frame may come
//! from another key with the same hash. Whoever reads still has to look. What it does not name holds nothing of what
//! was asked for.
//!
//! The segment being written has its index in memory; a sealed one has it in the file (`footer`).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::super::{Operation, Sequence};
use super::frame::{Damage, Frame, Header};

/// What frames are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Selector<'a> {
    pub(crate) table: Option<&'a str>,
    pub(crate) operation: Option<Operation>,
    pub(crate) key_hash: Option<u32>,
}

/// Which frames to name: from `from` up to but without `to`, at most `max`, in the direction asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) newest_first: bool,
    pub(crate) max: usize,
}

/// One frame's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameAt {
    pub(crate) offset: u32,
    /// First sequence number, counted from the segment's.
    pub(crate) first: u32,
    pub(crate) timestamp_ms: u64,
}

/// Where a frame is in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u32,
    pub(crate) len: u32,
    /// A frame of documents, schemas, positions or cursors alone has none.
    pub(crate) has_events: bool,
}

/// By operation, the numbers of the frames that hold such events, ascending.
pub(crate) type Lists = [Vec<u32>; 4];

const NONE: u32 = u32::MAX;

/// The index of a segment that is being written, or whose footer is lost.
#[derive(Debug)]
pub(crate) struct MemoryIndex {
    /// The segment's first sequence number.
    pub(crate) first: Sequence,
    pub(crate) frames: Vec<FrameAt>,
    pub(crate) tables: HashMap<Arc<str>, Lists>,
    /// As in `tables`, for all tables together.
    pub(crate) all: Lists,
    /// Newest place in `chain` of each key hash.
    keys: HashMap<u32, u32, BuildHasherDefault<Already>>,
    /// (frame, the place of the same hash before this one).
    chain: Vec<(u32, u32)>,
    /// Where the next frame goes.
    pub(crate) end: u32,
    /// The sequence number after the last.
    pub(crate) next: Sequence,
}

impl MemoryIndex {
    pub(crate) fn new(first: Sequence, end: u32) -> Self {
        Self {
            first,
            frames: Vec::new(),
            tables: HashMap::new(),
            all: Lists::default(),
            keys: HashMap::default(),
            chain: Vec::new(),
            end,
            next: first,
        }
    }

    /// Takes in the frame that lies at `end`, with all that it holds.
    pub(crate) fn push(&mut self, frames: &[Frame], len: u64) {
        let number = self.frames.len() as u32;
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return };
        self.frames.push(FrameAt {
            offset: self.end,
            first: first.first.saturating_sub(self.first) as u32,
            timestamp_ms: last.timestamp_ms,
        });
        self.end = self.end.saturating_add(len as u32);
        self.next = last.first.saturating_add(u64::from(last.events));
        for frame in frames {
            self.push_events(frame, number);
        }
    }

    fn push_events(&mut self, frame: &Frame, number: u32) {
        // The operations seen of each of the frame's tables, as bits.
        let mut seen = vec![0u8; frame.tables.len()];
        for i in 0..frame.events {
            let entry = frame.entry(i);
            seen[usize::from(entry.table)] |= 1 << entry.operation as u8;
            let newest = self.keys.entry(entry.key_hash).or_insert(NONE);
            if *newest == NONE || self.chain[*newest as usize].0 != number {
                self.chain.push((number, *newest));
                *newest = (self.chain.len() - 1) as u32;
            }
        }
        for (table, seen) in frame.tables.iter().zip(seen) {
            if !self.tables.contains_key(table) {
                self.tables.insert(table.clone(), Lists::default());
            }
            if let Some(lists) = self.tables.get_mut(table) {
                for (operation, (list, all)) in lists.iter_mut().zip(&mut self.all).enumerate() {
                    if seen & (1 << operation) != 0 {
                        for list in [list, all] {
                            if list.last() != Some(&number) {
                                list.push(number);
                            }
                        }
                    }
                }
            }
        }
    }

    /// (key hash, frame), sorted: what the footer's key table holds.
    pub(crate) fn key_frames(&self) -> Vec<(u32, u32)> {
        let mut pairs = Vec::with_capacity(self.chain.len());
        for (&hash, &newest) in &self.keys {
            let mut at = newest;
            while at != NONE {
                let (frame, before) = self.chain[at as usize];
                pairs.push((hash, frame));
                at = before;
            }
        }
        pairs.sort_unstable();
        pairs
    }

    pub(crate) fn timestamps_ms(&self) -> (u64, u64) {
        (self.frames.first().map_or(0, |f| f.timestamp_ms), self.frames.last().map_or(0, |f| f.timestamp_ms))
    }

    /// Where a frame is.
    pub(crate) fn extent(&self, frame: u32) -> Option<Extent> {
        let at = self.frames.get(frame as usize)?;
        let behind = (self.end, self.next.saturating_sub(self.first) as u32);
        let (end, next) = self.frames.get(frame as usize + 1).map_or(behind, |next| (next.offset, next.first));
        Some(Extent { offset: at.offset, len: end - at.offset, has_events: next > at.first })
    }

    /// The frame that holds a sequence number; none when it is before the segment.
    pub(crate) fn locate(&self, sequence: Sequence) -> Option<u32> {
        let wanted = sequence.checked_sub(self.first)?;
        (self.frames.partition_point(|f| u64::from(f.first) <= wanted) as u32).checked_sub(1)
    }

    /// The first frame later than a time.
    pub(crate) fn after_time(&self, since_ms: u64) -> u32 {
        self.frames.partition_point(|f| f.timestamp_ms <= since_ms) as u32
    }

    /// Names frames that may hold what is looked for.
    pub(crate) fn candidates(&self, selector: &Selector<'_>, window: Window, out: &mut Vec<u32>) {
        if let Some(hash) = selector.key_hash {
            let mut at = self.keys.get(&hash).copied().unwrap_or(NONE);
            while at != NONE {
                let (frame, before) = self.chain[at as usize];
                if frame < window.from || (window.newest_first && out.len() >= window.max) {
                    break;
                }
                if frame < window.to {
                    out.push(frame);
                }
                at = before;
            }
            if !window.newest_first {
                out.reverse();
                out.truncate(window.max);
            }
            return;
        }
        let lists = match selector.table {
            Some(table) => match self.tables.get(table) {
                Some(lists) => lists,
                None => return,
            },
            None if selector.operation.is_some() => &self.all,
            None => return every(window, out),
        };
        for (operation, list) in lists.iter().enumerate() {
            if selector.operation.is_none_or(|wanted| wanted as usize == operation) {
                let from = list.partition_point(|&frame| frame < window.from);
                let to = list.partition_point(|&frame| frame < window.to);
                some_of(&list[from..to], window, out);
            }
        }
        in_order(window, out);
    }
}

/// Every frame of the window.
pub(crate) fn every(window: Window, out: &mut Vec<u32>) {
    if window.newest_first {
        out.extend((window.from..window.to).rev().take(window.max));
    } else {
        out.extend((window.from..window.to).take(window.max));
    }
}

/// The first or last of a list that lies within the window.
fn some_of(list: &[u32], window: Window, out: &mut Vec<u32>) {
    if window.newest_first {
        out.extend(list.iter().rev().take(window.max));
    } else {
        out.extend(list.iter().take(window.max));
    }
}

/// Puts what several lists gave into one order. Right even when each gave only its first `max`: what one left out lies
/// behind all that it gave.
pub(crate) fn in_order(window: Window, out: &mut Vec<u32>) {
    out.sort_unstable();
    out.dedup();
    if window.newest_first {
        out.reverse();
    }
    out.truncate(window.max);
}

/// Reads the frames of a segment's bytes into an index, up to the first that is none. `bytes` start at offset `from` of
/// the file. Used by recovery, and for a sealed segment whose footer is lost.
pub(crate) fn rebuild(first: Sequence, bytes: &[u8], from: u32) -> (MemoryIndex, Option<Damage>) {
    let mut index = MemoryIndex::new(first, from);
    let mut at = 0usize;
    loop {
        let step = Header::decode(&bytes[at..]).and_then(|header| {
            if header.first != index.next {
                return Err(Damage("a frame's sequence number does not follow"));
            }
            let stored = bytes[at..].get(super::frame::HEADER..header.len() as usize);
            let frames = Frame::decode(&header, stored.ok_or(Damage("a frame is cut short"))?)?;
            Ok((header, frames))
        });
        match step {
            Ok((header, frames)) => {
                index.push(&frames, header.len());
                at += header.len() as usize;
                if at == bytes.len() {
                    return (index, None);
                }
            }
            Err(damage) => return (index, Some(damage)),
        }
    }
}

/// Key hashes are hashes already.
#[derive(Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, hash: u32) {
        // The map takes its buckets from the low bits and its tags from the high ones.
        self.0 = u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
