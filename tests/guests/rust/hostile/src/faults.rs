//! A handler with faults of all kinds, but no malice: every so many batches fail as a whole, every so many events are
//! refused, and all others are done and counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::calm;
use crate::exports::cdc::subscriber::handling::{Event, Failure, Remedy};
use crate::settings::setting;
use crate::wasi::keyvalue::store::open;

/// Calls of this instance. Kept in memory, so that the call after a trap, which a new instance gets, does better.
static BATCHES: AtomicU64 = AtomicU64::new(0);

/// - `batches`: every so many calls of an instance nothing is done; `fails_with` says whether they answer `retry` or
///   `trap`.
/// - `events`: every event whose sequence number divides by this is rejected; with `once` set to `true` only the first
///   time, which is remembered under `refused/<sequence>`, so that a person's retry succeeds.
pub fn handle(events: &[Event]) -> Result<(), Failure> {
    let calls = BATCHES.fetch_add(1, Ordering::Relaxed) + 1;
    if setting("batches").is_some_and(|every: u64| calls.is_multiple_of(every)) {
        let message = format!("call {calls} fails");
        return match setting("fails_with").unwrap_or_else(|| "retry".to_owned()).as_str() {
            "retry" => Err(Failure { remedy: Remedy::Retry, index: 0, message }),
            "trap" => panic!("{message}"),
            other => panic!("there is no way to fail called `{other}`"),
        };
    }
    let Some(every) = setting::<u64>("events") else { return calm::count(events) };
    let refused = events.iter().position(|event| event.sequence.is_multiple_of(every) && !was_refused(event.sequence));
    let Some(index) = refused else { return calm::count(events) };
    calm::count(&events[..index])?;
    let message = format!("{} divides by {every}", events[index].sequence);
    Err(Failure { remedy: Remedy::Reject, index: index as u32, message })
}

/// Whether it was refused before, if that counts; remembers that it is now.
fn was_refused(sequence: u64) -> bool {
    if !setting("once").unwrap_or(false) {
        return false;
    }
    let place = format!("refused/{sequence}");
    let bucket = open("default").expect("a key-value store is granted");
    let was = bucket.exists(&place).expect("the key-value store can be read");
    if !was {
        bucket.set(&place, b"").expect("the key-value store can be written");
    }
    was
}
