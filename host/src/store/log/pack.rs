//! Packing: rewrites a sealed segment of many small frames so that they compress.
//!
//! A batch of one event is a frame of its own, and too small to shrink. Packed by the hundred, such events take less
//! than half. What is acknowledged is never touched in place: the packed segment is a new file that takes the old one's
//! name in one step.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::medium::Medium;
use super::frame::{Damage, Frame, HEADER, Header, MORE, PACK, put_pack, put_packed};
use super::index::MemoryIndex;
use super::segment::{SEGMENT_HEADER, Segment, corruption, encode_header};

/// The packed segment's name until it is whole.
pub(crate) const PACKING: &str = "pack.tmp";
/// Segments whose frames are smaller than this on average are worth it.
const FRAME_SMALL: u64 = 4 << 10;
const FRAMES_MIN: u32 = 32;
/// How much goes into one pack: more compresses better, less reads faster.
const PACK_BYTES: usize = 48 << 10;

/// Whether a segment is sealed and of small frames.
pub(crate) fn is_worth_it(segment: &Segment) -> bool {
    // One without events is removed before long.
    segment.trailer().filter(|_| segment.has_events()).is_some_and(|trailer| {
        let len = segment.file.len().unwrap_or(0).saturating_sub(trailer.footer_len());
        !trailer.is_packed && trailer.frames >= FRAMES_MIN && len / u64::from(trailer.frames) < FRAME_SMALL
    })
}

/// Packs a sealed segment; answers what takes its place, once that is durable.
pub(crate) fn pack(segment: &Segment, folder: &Path, medium: &dyn Medium) -> io::Result<Option<Segment>> {
    let Some(trailer) = segment.trailer() else { return Ok(None) };
    let len = segment.file.len()?.saturating_sub(trailer.footer_len()) as usize;
    let mut bytes = vec![0; len];
    segment.file.read_at(&mut bytes, 0)?;
    let (mut out, index) = repack(segment.first, &bytes).map_err(|(at, damage)| damaged(&segment.path, at, damage))?;
    if index.next != trailer.last + 1 {
        return Err(damaged(&segment.path, len, Damage("frames are missing")));
    }
    out.extend_from_slice(&super::footer::encode(&index, true));
    let path = folder.join(PACKING);
    let file = medium.create(&path)?;
    file.write_at(&[IoSlice::new(&out)], 0)?;
    file.sync()?;
    medium.rename(&path, &segment.path)?;
    medium.sync_folder(folder)?;
    let trailer = Segment::read_trailer(&*file, out.len() as u64)?;
    Ok(trailer.map(|trailer| {
        let packed = Segment::sealed(folder, segment.name(), file, trailer);
        packed.ordinal.store(segment.ordinal.load(Ordering::Relaxed), Ordering::Relaxed);
        packed
    }))
}

fn damaged(path: &Path, at: usize, damage: Damage) -> io::Error {
    io::Error::other(corruption(path, at as u64, damage))
}

/// A segment's bytes, up to the end of its frames, in packed form.
pub(crate) fn repack(first: u64, bytes: &[u8]) -> Result<(Vec<u8>, MemoryIndex), (usize, Damage)> {
    let mut out = encode_header(first).to_vec();
    let mut packed = Vec::with_capacity(PACK_BYTES * 2);
    let mut starts: Option<Header> = None;
    let mut last: Option<Header> = None;
    let mut at = SEGMENT_HEADER;
    let mut is_inside = false;
    while at < bytes.len() {
        let header = Header::decode(&bytes[at..]).map_err(|damage| (at, damage))?;
        let end = at + header.len() as usize;
        let stored = bytes.get(at + HEADER..end).ok_or((at, Damage("a frame is cut short")))?;
        // Frames of a batch that takes several stay as they are, and so do large ones.
        let is_small = header.flags & (MORE | PACK) == 0 && !is_inside && (header.raw as usize) < PACK_BYTES / 2;
        is_inside = header.flags & MORE != 0;
        if !is_small || packed.len() + HEADER + header.raw as usize > PACK_BYTES {
            finish(&mut out, &mut packed, &mut starts, last);
        }
        if is_small {
            put_packed(&mut packed, &header, stored).map_err(|damage| (at, damage))?;
            starts.get_or_insert(header);
            last = Some(header);
        } else {
            out.extend_from_slice(&bytes[at..end]);
        }
        at = end;
    }
    finish(&mut out, &mut packed, &mut starts, last);
    let mut index = MemoryIndex::new(first, SEGMENT_HEADER as u32);
    let mut at = SEGMENT_HEADER;
    while at < out.len() {
        let read = Header::decode(&out[at..])
            .and_then(|header| Ok((Frame::decode(&header, &out[at + HEADER..at + header.len() as usize])?, header)));
        let (frames, header) = read.map_err(|damage| (at, damage))?;
        index.push(&frames, header.len());
        at += header.len() as usize;
    }
    Ok((out, index))
}

fn finish(out: &mut Vec<u8>, packed: &mut Vec<u8>, first: &mut Option<Header>, last: Option<Header>) {
    if let (Some(first), Some(last)) = (first.take(), last) {
        put_pack(out, first.first, (last.next() - first.first) as u32, last.timestamp_ms, packed);
        packed.clear();
    }
}

/// Replaces a segment in a list.
pub(crate) fn replace(segments: &[Arc<Segment>], old: &Arc<Segment>, new: &Arc<Segment>) -> Vec<Arc<Segment>> {
    segments.iter().map(|segment| if Arc::ptr_eq(segment, old) { new.clone() } else { segment.clone() }).collect()
}
