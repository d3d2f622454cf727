//! Reading events: finds the segments, asks their indexes for frames, picks the events out of the frames.

use std::sync::Arc;

use super::super::{Bounds, EventRange, EventSlice, StoreError};
use super::cache::FrameCache;
use super::frame::{Frame, key_hash};
use super::index::{Extent, Selector, Window};
use super::segment::Segment;

/// Frames asked for at a time: few at first, since the newest ten events are in the last of them as a rule.
const FRAMES_FIRST: usize = 16;
const FRAMES_MAX: usize = 1024;

/// Reads a range of events from segments, which are in order and have no gap.
pub(crate) fn events(
    segments: &[Arc<Segment>],
    cache: &FrameCache,
    bounds: &Bounds,
    range: &EventRange<'_>,
) -> Result<EventSlice, StoreError> {
    if range.after < bounds.newest && range.after.saturating_add(1) < bounds.oldest {
        return Err(StoreError::Dropped { oldest: bounds.oldest });
    }
    let (low, high) = (range.after.saturating_add(1), range.until.min(bounds.newest));
    let mut picker = Picker {
        range,
        low,
        high,
        hash: range.key.map(|key| key_hash(key.as_bytes())),
        slice: EventSlice { events: Vec::new(), complete: true },
        bytes: 0,
        is_full: false,
    };
    if low > high {
        return Ok(picker.slice);
    }
    let from = segments.partition_point(|segment| segment.first <= low).saturating_sub(1);
    let to = segments.partition_point(|segment| segment.first <= high);
    for i in 0..to.saturating_sub(from) {
        let segment = if range.newest_first { &segments[to - 1 - i] } else { &segments[from + i] };
        if range.since_ms.is_some_and(|since_ms| segment.last_timestamp_ms() <= since_ms) {
            // Older than asked for, and so is everything before it.
            if range.newest_first {
                break;
            }
            continue;
        }
        if picker.read_segment(segment, cache)? {
            break;
        }
    }
    Ok(picker.slice)
}

/// One read on its way.
struct Picker<'a> {
    range: &'a EventRange<'a>,
    low: u64,
    high: u64,
    hash: Option<u32>,
    slice: EventSlice,
    bytes: usize,
    /// As much as was asked for is found; what is left is to see whether there is more.
    is_full: bool,
}

impl Picker<'_> {
    /// Answers whether the read is over.
    fn read_segment(&mut self, segment: &Segment, cache: &FrameCache) -> Result<bool, StoreError> {
        let selector = Selector { table: self.range.table, operation: self.range.operation, key_hash: self.hash };
        let (count, at, later) = segment.bounds(self.low, self.range.since_ms)?;
        let mut window =
            Window { from: at.max(later), to: count, newest_first: self.range.newest_first, max: FRAMES_FIRST };
        if self.high < segment.next() - 1 {
            window.to = segment.bounds(self.high, None)?.1 + 1;
        }
        let mut frames = Vec::new();
        while window.from < window.to {
            frames.clear();
            segment.candidates(&selector, window, &mut frames)?;
            let Some(&last) = frames.last() else { break };
            for &number in &frames {
                let Extent { offset, len, has_events } = segment.extent(number)?;
                if !has_events {
                    continue;
                }
                let place = (segment.number, offset);
                let frames = match cache.get(place) {
                    Some(frames) => frames,
                    None => {
                        let frames = Arc::new(segment.read_frames(offset, len)?);
                        cache.put(place, frames.clone());
                        frames
                    }
                };
                for i in 0..frames.len() {
                    let frame = &frames[if self.range.newest_first { frames.len() - 1 - i } else { i }];
                    let over = self.read_frame(frame);
                    if over.map_err(|damage| segment.corrupt(u64::from(offset), damage))? {
                        return Ok(true);
                    }
                }
            }
            if frames.len() < window.max {
                break;
            }
            if window.newest_first {
                window.to = last;
            } else {
                window.from = last + 1;
            }
            window.max = (window.max * 4).min(FRAMES_MAX);
        }
        Ok(false)
    }

    fn read_frame(&mut self, frame: &Frame) -> Result<bool, super::frame::Damage> {
        let range = self.range;
        if range.since_ms.is_some_and(|since_ms| frame.timestamp_ms <= since_ms) {
            return Ok(false);
        }
        let table = match range.table {
            Some(table) => match frame.tables.iter().position(|name| &**name == table) {
                Some(number) => Some(number as u16),
                None => return Ok(false),
            },
            None => None,
        };
        let from = self.low.saturating_sub(frame.first).min(u64::from(frame.events)) as u32;
        let to = (self.high + 1).saturating_sub(frame.first).min(u64::from(frame.events)) as u32;
        for i in 0..to.saturating_sub(from) {
            let number = if range.newest_first { to - 1 - i } else { from + i };
            let entry = frame.entry(number);
            let is_wanted = table.is_none_or(|table| table == entry.table)
                && range.operation.is_none_or(|operation| operation == entry.operation)
                && self.hash.is_none_or(|hash| hash == entry.key_hash);
            if !is_wanted {
                continue;
            }
            if let Some(key) = range.key
                && frame.key(&entry)? != key.as_bytes()
            {
                continue;
            }
            if self.is_full {
                self.slice.complete = false;
                return Ok(true);
            }
            let event = frame.event(number)?;
            let image = |image: &Option<bytes::Bytes>| image.as_ref().map_or(0, bytes::Bytes::len);
            self.bytes += image(&event.write.before) + image(&event.write.after);
            self.slice.events.push(event);
            self.is_full = self.slice.events.len() >= range.max_events || self.bytes > range.max_bytes;
        }
        Ok(false)
    }
}
