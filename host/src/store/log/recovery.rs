//! What a start does with the log: finds out where it ends, cuts off what a crash left half-written, and refuses what
//! cannot be explained by a crash.
//!
//! A file is read frame by frame up to the first place that is no frame (or no whole batch). Behind it there may be:
//! - zeros: the room prepared for more. The normal case.
//! - the rest of writes that no sync had finished, in any state. They were not acknowledged; they are cut off, and kept
//!   in `<segment>.torn` for whoever wants to look.
//! - damage to what had been synced. A later frame gives it away: each says up to where the file was durable when it was
//!   written. That is corruption: acknowledged events are lost, and the start is refused with the place.
//!
//! The same holds when the next segment starts later than this one ends.

use std::path::Path;

use super::super::Sequence;
use super::frame::{DOCUMENTS, Damage, Frame, HEADER, Header, MARK, MORE};
use super::index::MemoryIndex;
use super::segment::{SEGMENT_HEADER, SegmentHeader, decode_header};

/// What was found in one segment's bytes.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The whole batches.
    pub(crate) index: MemoryIndex,
    /// What follows them.
    pub(crate) tail: Tail,
}

/// What follows the last whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing, or zeros.
    Clean,
    /// Writes that were never synced: this many bytes up to the last that is not zero.
    Torn(u64),
    /// Something that had been synced.
    Damaged(u64, Damage),
}

/// Why bytes are no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanError {
    /// Written by a newer version.
    Newer(u32),
    /// No header, or another segment's.
    Header,
}

/// Reads a segment's bytes. `each` is called with every frame of every whole batch and its offset.
pub(crate) fn scan(first: Sequence, bytes: &[u8], mut each: impl FnMut(u64, Frame)) -> Result<Scan, ScanError> {
    match decode_header(bytes) {
        SegmentHeader::First(found) if found == first => {}
        SegmentHeader::Newer(version) => return Err(ScanError::Newer(version)),
        SegmentHeader::First(_) | SegmentHeader::Damaged => return Err(ScanError::Header),
    }
    let mut index = MemoryIndex::new(first, SEGMENT_HEADER as u32);
    // The frames of the batch being read, which count only once its last one is there.
    let mut batch: Vec<(u64, Vec<Frame>)> = Vec::new();
    let mut at = SEGMENT_HEADER;
    let mut next = first;
    let damage = loop {
        let read = read_frame(bytes, at, next);
        match read {
            Ok((header, frames)) => {
                at += header.len() as usize;
                next = header.next();
                batch.push((header.len(), frames));
                if header.flags & MORE == 0 {
                    for (len, frames) in batch.drain(..) {
                        let offset = u64::from(index.end);
                        index.push(&frames, len);
                        frames.into_iter().for_each(|frame| each(offset, frame));
                    }
                }
            }
            Err(damage) => break damage,
        }
    };
    // `at` is the place that is no frame; the batch before it may be cut short.
    let bad = at as u64;
    let tail = match bytes[index.end as usize..].iter().rposition(|byte| *byte != 0) {
        None => Tail::Clean,
        Some(last) => match synced_later(bytes, at) {
            Some(synced) if synced > bad => Tail::Damaged(bad, damage),
            _ => Tail::Torn(last as u64 + 1),
        },
    };
    Ok(Scan { index, tail })
}

fn read_frame(bytes: &[u8], at: usize, next: Sequence) -> Result<(Header, Vec<Frame>), Damage> {
    let header = Header::decode(bytes.get(at..).unwrap_or_default())?;
    if header.first != next {
        return Err(Damage("a frame's sequence number does not follow"));
    }
    let stored = bytes.get(at + HEADER..at + header.len() as usize).ok_or(Damage("a frame is cut short"))?;
    let frames = Frame::decode(&header, stored)?;
    if header.flags & (MORE | DOCUMENTS) == MORE && header.events == 0 {
        return Err(Damage("a batch goes on after a frame without events"));
    }
    if at + header.len() as usize > u32::MAX as usize {
        return Err(Damage("a segment is too large"));
    }
    Ok((header, frames))
}

/// The furthest place that a frame behind `from` says was durable when it was written. The header's own checksum is
/// proof enough: the payload may be damaged too.
fn synced_later(bytes: &[u8], from: usize) -> Option<u64> {
    let mark = MARK.to_le_bytes();
    let mut furthest = None;
    let mut at = from + 1;
    while at + HEADER <= bytes.len() {
        // The mark is at bytes 4 and 5 of a header.
        let Some(found) = bytes[at + 4..].windows(2).position(|window| window == mark) else { break };
        at += found;
        if let Some(header) = bytes.get(at..).and_then(|bytes| Header::decode(bytes).ok()) {
            furthest = furthest.max(Some(u64::from(header.synced)));
        }
        at += 1;
    }
    furthest
}

/// Reads anything as a segment, for fuzzing: never panics, and takes no more memory than a multiple of the data. Answers
/// how many events whole batches hold.
pub fn recover_bytes(data: &[u8]) -> u64 {
    let first = match decode_header(data) {
        SegmentHeader::First(first) => first,
        // Most fuzzed data would end at the header's checksum, so the frames are read all the same.
        SegmentHeader::Newer(_) | SegmentHeader::Damaged => 1,
    };
    let mut bytes = super::segment::encode_header(first).to_vec();
    bytes.extend_from_slice(data.get(SEGMENT_HEADER..).unwrap_or_default());
    let mut events = 0;
    let mut total = 0usize;
    let scanned = scan(first, &bytes, |_, frame| {
        for i in 0..frame.events {
            if let Ok(event) = frame.event(i) {
                total += event.write.key.len();
                events += 1;
            }
        }
        total += frame.documents().map_or(0, |documents| documents.len());
    });
    if let Ok(scan) = scanned {
        let _ = super::footer::encode(&scan.index, false);
    }
    events
}

/// Where the torn end of a segment is kept.
pub(crate) fn torn_path(segment: &Path) -> std::path::PathBuf {
    let mut name = segment.file_name().unwrap_or_default().to_owned();
    name.push(".torn");
    segment.with_file_name(name)
}
