//! What a sink has written under its place: which events are at the receiver already.

use cdc_rest::envelope::Subject;
use xxhash_rust::xxh3::xxh3_128;

use crate::Event;

/// How long a digest in `rows` is, in bytes.
pub(crate) const DIGEST_BYTES: usize = 16;

/// How far a receiver is. The rows of a snapshot share their sequence number, so digests of the ids of the rows that
/// were written last are kept too. The service is never more than one batch behind its sink, so these are enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// The last event. None: there is no place, or it is of another epoch.
    pub(crate) sequence: Option<u64>,
    /// Digests of the rows that were written last, one behind the other.
    pub(crate) rows: Vec<u8>,
}

impl Written {
    /// Whether an event is there already.
    pub(crate) fn holds(&self, event: &Event<'_>) -> bool {
        let Some(sequence) = self.sequence.filter(|_| !event.is_late) else { return false };
        match event.subject.event.sequence.cmp(&sequence) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal if event.is_row => {
                let digest = digest(&event.subject);
                self.rows.chunks(DIGEST_BYTES).any(|row| row == digest)
            }
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Greater => false,
        }
    }

    /// How far it is after these events, none of which is late.
    pub(crate) fn after(events: &[&Event<'_>]) -> Self {
        let rows = events.iter().filter(|event| event.is_row).flat_map(|event| digest(&event.subject)).collect();
        Self { sequence: events.last().map(|event| event.subject.event.sequence), rows }
    }
}

/// What stands for a row's id in a place.
pub(crate) fn digest(subject: &Subject<'_>) -> [u8; DIGEST_BYTES] {
    xxh3_128(subject.id.as_bytes()).to_be_bytes()
}
