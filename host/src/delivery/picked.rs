//! An event that was selected for a lane.

use std::sync::Arc;

use bytes::Bytes;

use crate::live::{Chunk, LiveEvent};
use crate::store::Event;

/// An event within the chunk that it is shared with others in.
#[derive(Clone, Debug)]
pub(super) struct Picked {
    chunk: Arc<Chunk>,
    at: usize,
}

impl Picked {
    /// The event of a chunk at a place that the chunk has.
    pub(super) fn new(chunk: &Arc<Chunk>, at: usize) -> Self {
        Self { chunk: chunk.clone(), at }
    }

    pub(super) fn live(&self) -> &LiveEvent {
        &self.chunk.events()[self.at]
    }

    pub(super) fn event(&self) -> &Event {
        &self.live().event
    }

    /// The event as `/events` shows it.
    pub(super) fn json(&self) -> Bytes {
        self.live().json()
    }

    /// About how many bytes a subscriber gets of it.
    pub(super) fn bytes(&self) -> usize {
        let write = &self.event().write;
        let image = |image: &Option<Bytes>| image.as_ref().map_or(0, Bytes::len);
        image(&write.before) + image(&write.after) + write.key.len() + write.table.len() + 64
    }
}
