//! Steps on their way into a portion.

use std::sync::Arc;
use std::time::Instant;

use super::Options;
use crate::change::{Change, Step};

/// What a step costs beside its texts.
pub(super) const STEP_BYTES: usize = size_of::<Step>();

/// The steps of the next portion.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) steps: Vec<Step>,
    bytes: usize,
    bytes_max: usize,
    steps_max: usize,
    /// When the last portion was taken.
    pub(super) taken_at: Instant,
}

impl Gathered {
    pub(super) fn new(options: &Options) -> Gathered {
        Gathered {
            steps: Vec::new(),
            bytes: 0,
            bytes_max: options.portion_bytes,
            steps_max: options.portion_changes,
            taken_at: Instant::now(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max || self.steps.len() >= self.steps_max
    }

    pub(super) fn push(&mut self, step: Step) {
        if let Step::Change(change) = &step {
            self.bytes += bytes_of(change);
        }
        self.steps.push(step);
    }

    pub(super) fn take(&mut self) -> Vec<Step> {
        self.bytes = 0;
        self.taken_at = Instant::now();
        let room = self.steps.len();
        std::mem::replace(&mut self.steps, Vec::with_capacity(room.min(self.steps_max)))
    }
}

/// About how much memory a change takes.
pub(super) fn bytes_of(change: &Change) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    STEP_BYTES + text(&change.image) + text(&change.before) + 24 * (change.key.len() + 1)
}

/// The name of a transaction in changes.
pub(super) fn transaction_name(xid: u32) -> Arc<str> {
    xid.to_string().into()
}
