//! How many lanes work at once: so few that capturing never has to share its cores with dozens of them.
//!
//! A lane holds a slot while it selects events and calls its subscriber. A call that turns out to be a long one gives
//! its slot away, so nobody waits for a slow guest, and its thread steps back behind all others.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The slots.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

thread_local! {
    static HELD: RefCell<Option<Arc<Slots>>> = const { RefCell::new(None) };
}

impl Slots {
    pub(super) fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(slots.max(1)), freed: Condvar::new() })
    }

    /// Waits for a slot, for this thread.
    pub(super) fn acquire(self: &Arc<Self>) -> Slot {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        HELD.set(Some(self.clone()));
        Slot
    }

    fn release(&self) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.freed.notify_one();
    }
}

/// The slot of this thread, given back when this is dropped, unless it was given away before.
#[must_use = "the slot is given back when this is dropped"]
pub(super) struct Slot;

impl Drop for Slot {
    fn drop(&mut self) {
        give_away();
    }
}

/// Gives away the slot of this thread, if it has one.
pub(super) fn give_away() {
    if let Some(slots) = HELD.take() {
        slots.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_given_back_once() {
        let slots = Slots::new(2);
        let first = slots.acquire();
        assert_eq!(*slots.free.lock().unwrap_or_else(PoisonError::into_inner), 1);
        give_away();
        drop(first);
        assert_eq!(*slots.free.lock().unwrap_or_else(PoisonError::into_inner), 2);
    }

    #[test]
    fn whoever_finds_no_slot_waits_for_one() {
        let slots = Slots::new(1);
        let held = slots.acquire();
        let waiting = std::thread::spawn({
            let slots = slots.clone();
            move || drop(slots.acquire())
        });
        drop(held);
        assert!(waiting.join().is_ok());
    }
}
