//! Which lane an event belongs to.

use std::hash::Hasher;

use crate::store::Event;

/// The lane of an event: of all events of a row the same.
pub(in crate::delivery) fn lane_of(event: &Event, lanes: usize) -> usize {
    if lanes <= 1 {
        return 0;
    }
    // Stays the same over restarts, because cursors are by lane.
    let mut hash = Fnv::default();
    hash.write(event.write.table.as_bytes());
    hash.write(b"\n");
    hash.write(&event.write.key);
    usize::try_from(hash.finish() % lanes as u64).unwrap_or(0)
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        // The lowest bits of this hash are poor, and a lane is a remainder.
        self.0 ^ (self.0 >> 32)
    }
}
