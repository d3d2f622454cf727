//! Decoded frames that were used lately, so that a hot tail is served from memory.
//!
//! Two generations instead of a list of uses: what is used moves to the young one; when that is full, it becomes the old
//! one and the old one is forgotten. Between half and all of the bytes allowed are in use.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::frame::{Frame, Frames};

/// (the segment's number, offset).
type Place = (u64, u32);

/// Frames by place, bounded by bytes.
#[derive(Debug)]
pub(crate) struct FrameCache {
    bytes_max: usize,
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Place, Frames>,
    old: HashMap<Place, Frames>,
    young_bytes: usize,
}

impl FrameCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, generations: Mutex::default() }
    }

    pub(crate) fn get(&self, place: Place) -> Option<Frames> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = generations.young.get(&place) {
            return Some(frame.clone());
        }
        let frame = generations.old.remove(&place)?;
        generations.put(place, frame.clone(), self.bytes_max);
        Some(frame)
    }

    pub(crate) fn put(&self, place: Place, frames: Frames) {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).put(place, frames, self.bytes_max);
    }
}

impl Generations {
    fn put(&mut self, place: Place, frames: Frames, bytes_max: usize) {
        let bytes = frames.iter().map(Frame::memory).sum::<usize>();
        if bytes > bytes_max / 2 {
            return;
        }
        if self.young_bytes + bytes > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(place, frames).is_none() {
            self.young_bytes += bytes;
        }
    }
}
