//! Group commit: batches are staged by the writer and made durable by one thread, all that wait in one write and one
//! sync. While a sync runs, the next batches are staged.
//!
//! A batch's life: staged (the head shows it, readers do not) → written → synced → published (readers see it) → `done`.
//! When a group cannot be written, it and all behind it are given up: the head goes back to the last published version.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::embedded::Durability;
use super::log::appender::{AppendError, Appender};
use super::log::frame;
use super::shared::{Durable, Shared, Staged};
use super::{Batch, Done, Sequence, StoreError, Write};

/// What one write takes at most.
const GROUP_BYTES_MAX: usize = 8 << 20;
const GROUP_BATCHES_MAX: usize = 1000;

/// Stages a batch.
pub(crate) fn append(shared: &Shared, batch: &Batch, done: Done) -> Result<Sequence, StoreError> {
    let options = &shared.options;
    let bytes = bytes_of(batch);
    if bytes > options.batch_bytes_max {
        let max = options.batch_bytes_max;
        return Err(StoreError::TooLarge(format!("a batch of {bytes} bytes, where {max} are allowed").into()));
    }
    {
        let mut queue = shared.lock_queue();
        while queue.batches >= options.queue_batches_max
            || (queue.batches > 0 && queue.bytes + bytes > options.queue_bytes_max)
        {
            shared.check()?;
            queue = shared.has_room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
    let mut head = shared.lock_head();
    // Memory is bounded too: when checkpoints cannot keep up, the writer waits for one.
    while head.version.rows.sealed.is_some()
        && (head.version.rows.active.entries >= options.overlay_entries_max
            || head.version.rows.active.bytes >= options.checkpoint_bytes * 2)
    {
        shared.check()?;
        head = shared.settled.wait(head).unwrap_or_else(PoisonError::into_inner);
    }
    shared.check()?;
    let active = &head.version.rows.active;
    if shared.no_room.load(Ordering::Relaxed)
        && (active.entries >= options.overlay_entries_max || active.bytes >= 2 * options.checkpoint_bytes)
    {
        // The keeper looks again at every wish, so room that was made is noticed.
        drop(head);
        shared.wish_checkpoint();
        return Err(StoreError::Full("no room for a checkpoint, and no more changes fit in memory".into()));
    }
    if head.is_closed {
        return Err(StoreError::Failed("it was closed".into()));
    }
    head.version.facts.check_generation(batch)?;
    let first = head.version.facts.sequence + 1;
    let encoded = frame::encode(batch, first);
    head.version.apply(batch, &options.retention);
    let version = head.version.clone();
    let overlay = &version.rows.active;
    let wants_checkpoint = overlay.entries >= options.checkpoint_entries
        || overlay.bytes >= options.checkpoint_bytes
        || version.facts.sequence.saturating_sub(head.sealed_at) >= options.checkpoint_events;
    {
        let mut queue = shared.lock_queue();
        queue.batches += 1;
        queue.bytes += encoded.bytes.len();
        queue.staged.push_back(Staged { encoded, first, version, done });
    }
    shared.queued.notify_one();
    drop(head);
    if wants_checkpoint {
        shared.wish_checkpoint();
    }
    if !shared.is_dirty.swap(true, Ordering::Relaxed) {
        // The keeper may be waiting without an end.
        drop(shared.lock_wishes());
        shared.wished.notify_all();
    }
    Ok(first)
}

/// About what a batch takes in the log.
fn bytes_of(batch: &Batch) -> usize {
    let image = |image: &Option<bytes::Bytes>| image.as_ref().map_or(0, bytes::Bytes::len);
    let texts = |write: &Write| write.key.len() + image(&write.before) + image(&write.after) + image(&write.position);
    let writes = batch.writes.iter().map(|write| 32 + texts(write));
    let schemas = batch.schemas.iter().map(|schema| 32 + schema.definition.len());
    let documents = batch.documents.iter().map(|document| 8 + document.key.len() + image(&document.value));
    writes.sum::<usize>() + schemas.sum::<usize>() + documents.sum::<usize>()
}

/// The log's thread: until the queue is closed and empty. Gives the end of the log back.
pub(crate) fn run(shared: &Shared, mut appender: Appender) -> Appender {
    let interval = match shared.options.durability {
        Durability::Interval(every) => Some(every),
        Durability::Commit | Durability::None => None,
    };
    let mut last_sync = Instant::now();
    let mut group: Vec<Staged> = Vec::new();
    loop {
        let mut queue = shared.lock_queue();
        loop {
            if !queue.staged.is_empty() {
                break;
            }
            let wait = match interval {
                Some(every) if !appender.is_synced() && shared.failed.get().is_none() => {
                    let left = every.saturating_sub(last_sync.elapsed());
                    if left.is_zero() {
                        break;
                    }
                    Some(left)
                }
                _ => None,
            };
            if queue.is_closed {
                drop(queue);
                if shared.check().is_ok() && !appender.is_synced() {
                    let _ = sync(shared, &mut appender).map_err(|error| fail(shared, &mut group, error));
                }
                return appender;
            }
            queue = match wait {
                Some(left) => shared.queued.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
                None => shared.queued.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let mut bytes = 0;
        while let Some(next) = queue.staged.front() {
            let len = next.encoded.bytes.len();
            let fits = group.is_empty() || (bytes + len <= GROUP_BYTES_MAX && group.len() < GROUP_BATCHES_MAX);
            if !fits || (!group.is_empty() && !appender.fits((bytes + len) as u64, next.first)) {
                break;
            }
            bytes += len;
            group.extend(queue.staged.pop_front());
        }
        drop(queue);

        let count = group.len();
        let written = write(shared, &mut appender, &mut group, bytes as u64, interval, &mut last_sync);
        match written {
            Ok(()) => {
                publish(shared, &mut appender, &mut group);
                leave_queue(shared, count, bytes);
            }
            Err(error) => {
                // Everything staged goes, so the queue's counts start anew.
                fail(shared, &mut group, error);
            }
        }
    }
}

fn write(
    shared: &Shared,
    appender: &mut Appender,
    group: &mut [Staged],
    bytes: u64,
    interval: Option<Duration>,
    last_sync: &mut Instant,
) -> Result<(), AppendError> {
    if let Some(first) = group.first() {
        if !appender.fits(bytes, first.first) {
            appender.roll(first.first)?;
        }
        appender.write(group.iter_mut().map(|staged| &mut staged.encoded))?;
    }
    let due = match shared.options.durability {
        Durability::Commit => true,
        Durability::Interval(_) => interval.is_some_and(|every| last_sync.elapsed() >= every),
        Durability::None => false,
    };
    if due && !appender.is_synced() {
        sync(shared, appender)?;
        *last_sync = Instant::now();
    }
    Ok(())
}

fn sync(shared: &Shared, appender: &mut Appender) -> Result<(), AppendError> {
    let start = Instant::now();
    appender.sync()?;
    shared.gauges.synced(start.elapsed());
    Ok(())
}

/// Shows a group to readers and tells its writers.
fn publish(shared: &Shared, appender: &mut Appender, group: &mut Vec<Staged>) {
    let Some(last) = group.last() else { return };
    let mut version = last.version.clone();
    let newest = version.facts.sequence;
    let has_events = {
        let publishing = shared.lock_publishing();
        let new_segment = appender.publish(&shared.cache, version.ordinal);
        let before = shared.durable.load();
        if let Some(settled) = &publishing.settled {
            version.settle(settled);
        }
        let segments = match new_segment {
            Some(segment) => Arc::new(before.segments.iter().cloned().chain([segment]).collect()),
            None => before.segments.clone(),
        };
        let dropped = before.dropped;
        shared.durable.store(Arc::new(Durable { version, segments, dropped }));
        newest > before.version.facts.sequence
    };
    if let Some(on_durable) = shared.options.on_durable.as_ref().filter(|_| has_events) {
        on_durable(newest);
    }
    if shared.keeper_waits.load(Ordering::SeqCst) {
        shared.published.notify_all();
    }
    let gauges = &shared.gauges;
    gauges.groups.fetch_add(1, Ordering::Relaxed);
    gauges.batches.fetch_add(group.len() as u64, Ordering::Relaxed);
    gauges.bytes_written.store(appender.bytes_written, Ordering::Relaxed);
    for staged in group.drain(..) {
        (staged.done)(Ok(()));
    }
}

fn leave_queue(shared: &Shared, batches: usize, bytes: usize) {
    let mut queue = shared.lock_queue();
    queue.batches = queue.batches.saturating_sub(batches);
    queue.bytes = queue.bytes.saturating_sub(bytes);
    drop(queue);
    shared.has_room.notify_one();
}

/// Gives up a group and everything staged behind it.
fn fail(shared: &Shared, group: &mut Vec<Staged>, error: AppendError) {
    let (error, is_fatal) = match error {
        AppendError::Full(message) => (StoreError::Full(message.into()), false),
        AppendError::Fatal(message) => (StoreError::Failed(message.into()), true),
    };
    let mut is_first_failure = false;
    let behind: Vec<Staged> = {
        let mut head = shared.lock_head();
        if is_fatal {
            // Set under the head's lock: whoever stages next sees it.
            is_first_failure = shared.failed.set(error.clone()).is_ok();
        }
        let mut queue = shared.lock_queue();
        queue.batches = 0;
        queue.bytes = 0;
        let generation = head.version.facts.schema_generation + 1;
        head.version = shared.durable.load().version.clone();
        head.version.facts.schema_generation = generation;
        let newest = head.version.ordinal;
        head.sealing = head.sealing.filter(|sealing| *sealing <= newest);
        queue.staged.drain(..).collect()
    };
    if is_first_failure {
        shared.announce(&error);
    }
    shared.has_room.notify_all();
    shared.settled.notify_all();
    if shared.keeper_waits.load(Ordering::SeqCst) {
        // Under the lock, so that the keeper cannot miss it between its look and its wait.
        drop(shared.lock_publishing());
        shared.published.notify_all();
    }
    let given_up = match &error {
        StoreError::Full(reason) => StoreError::GivenUp(reason.clone()),
        other => other.clone(),
    };
    for (i, staged) in group.drain(..).chain(behind).enumerate() {
        (staged.done)(Err(if i == 0 { error.clone() } else { given_up.clone() }));
    }
}
