//! The chunks that readers stand at.
//!
//! Two generations instead of a list of uses: what is used moves to the young one; when that is full, it becomes the old
//! one and the old one is forgotten. The newest chunk is always kept, however large it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chunk::Chunk;
use crate::store::Sequence;

/// Chunks that do not overlap, by their first event.
#[derive(Debug)]
pub(super) struct Cache {
    /// Of one generation: the whole holds twice this and a chunk, at most.
    max_events: usize,
    max_bytes: usize,
    young: BTreeMap<Sequence, Arc<Chunk>>,
    old: BTreeMap<Sequence, Arc<Chunk>>,
    young_events: usize,
    young_bytes: usize,
}

impl Cache {
    pub(super) fn new(max_events: usize, max_bytes: usize) -> Self {
        Self {
            max_events: max_events / 2,
            max_bytes: max_bytes / 2,
            young: BTreeMap::new(),
            old: BTreeMap::new(),
            young_events: 0,
            young_bytes: 0,
        }
    }

    /// The chunk that holds this event.
    pub(super) fn find(&mut self, sequence: Sequence) -> Option<Arc<Chunk>> {
        let holding = |chunks: &BTreeMap<Sequence, Arc<Chunk>>| {
            let (_, chunk) = chunks.range(..=sequence).next_back()?;
            (chunk.last() >= sequence).then(|| chunk.clone())
        };
        if let Some(chunk) = holding(&self.young) {
            return Some(chunk);
        }
        let chunk = holding(&self.old)?;
        self.put(chunk.clone());
        Some(chunk)
    }

    /// The first event after this one that is kept.
    pub(super) fn next_kept(&self, sequence: Sequence) -> Option<Sequence> {
        let next =
            |chunks: &BTreeMap<Sequence, Arc<Chunk>>| chunks.range(sequence + 1..).next().map(|(first, _)| *first);
        [next(&self.young), next(&self.old)].into_iter().flatten().min()
    }

    /// Keeps a chunk.
    pub(super) fn put(&mut self, chunk: Arc<Chunk>) {
        let (events, bytes) = (chunk.events().len(), chunk.bytes());
        self.old.remove(&chunk.first());
        if self.young_events + events > self.max_events || self.young_bytes + bytes > self.max_bytes {
            self.old = std::mem::take(&mut self.young);
            (self.young_events, self.young_bytes) = (0, 0);
        }
        if self.young.insert(chunk.first(), chunk).is_none() {
            self.young_events += events;
            self.young_bytes += bytes;
        }
    }

    #[cfg(test)]
    pub(super) fn events(&self) -> usize {
        self.young.values().chain(self.old.values()).map(|chunk| chunk.events().len()).sum()
    }
}
