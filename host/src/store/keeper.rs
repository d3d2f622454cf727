//! The keeper: writes checkpoints and enforces retention, in the background.
//!
//! A checkpoint freezes the writer's tier of changed rows (the writer goes on in a new one), waits until all of it is
//! durable in the log, writes it to `views.redb` in one commit, and then lets everyone read it from there. It never
//! stands for more than the log durably holds.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::checkpoint::{Base, Views};
use super::embedded::Durability;
use super::facts::Facts;
use super::log::pack;
use super::log::segment::Segment;
use super::medium::Medium;
use super::shared::{Durable, Settled, Shared};
use super::{Sequence, StoreError};

/// How often retention by age looks.
const AGE_EVERY: Duration = Duration::from_secs(5);

/// No batch has this ordinal: what the start has replayed is not in a checkpoint.
pub(crate) const UNWRITTEN: u64 = u64::MAX;

/// The keeper's own state.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) views: Views,
    /// What the last checkpoint holds.
    pub(crate) written: Facts,
    /// The batch that the last checkpoint stands for, or [`UNWRITTEN`].
    pub(crate) ordinal: u64,
    pub(crate) medium: Arc<dyn Medium>,
}

impl Keeper {
    /// Until asked to stop.
    pub(crate) fn run(mut self, shared: &Shared) -> Self {
        let mut dirty_since: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let dirty = shared.is_dirty.load(Ordering::Relaxed);
            dirty_since = if dirty { dirty_since.or(Some(now)) } else { None };
            {
                let wishes = shared.lock_wishes();
                if wishes.stop || shared.failed.get().is_some() {
                    return self;
                }
                let due = dirty_since.map(|since| since + shared.options.checkpoint_every);
                if !wishes.checkpoint && due.is_none_or(|due| due > now) {
                    let look_again = shared.options.retention.age_ms.map(|_| AGE_EVERY);
                    let left = due.map(|due| due - now).into_iter().chain(look_again).min();
                    // Between the look at `is_dirty` and here a batch may have come: its writer takes this lock before
                    // it wakes the keeper.
                    if !dirty && shared.is_dirty.load(Ordering::Relaxed) {
                        continue;
                    }
                    let timed_out = match left {
                        Some(left) => {
                            let waited = shared.wished.wait_timeout(wishes, left);
                            waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
                        }
                        None => {
                            drop(shared.wished.wait(wishes).unwrap_or_else(PoisonError::into_inner));
                            false
                        }
                    };
                    if !timed_out || due.is_some_and(|due| due > Instant::now()) {
                        continue;
                    }
                }
            }
            dirty_since = None;
            if let Err(error) = self.checkpoint(shared) {
                shared.fail(&error);
                return self;
            }
            self.drop_segments(shared);
            self.pack_segments(shared);
        }
    }

    /// Writes a checkpoint of everything staged up to now, if there is anything new.
    pub(crate) fn checkpoint(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let start = Instant::now();
        shared.lock_wishes().checkpoint = false;
        let aged = aged(shared);
        let (sealed, facts, ordinal) = {
            let mut head = shared.lock_head();
            shared.is_dirty.store(false, Ordering::Relaxed);
            let dropped = aged.max(shared.durable.load().dropped);
            if head.version.ordinal == self.ordinal && dropped <= self.written.dropped.max(head.version.facts.dropped) {
                return Ok(());
            }
            if !has_room(shared, head.version.rows.active.bytes) {
                // Later: what changed stays in memory, and the log has it.
                shared.is_dirty.store(true, Ordering::Relaxed);
                return Ok(());
            }
            debug_assert!(head.version.rows.sealed.is_none(), "one checkpoint at a time");
            let sealed = Arc::new(std::mem::take(&mut head.version.rows.active));
            head.version.rows.sealed = Some(sealed.clone());
            head.sealing = Some(head.version.ordinal);
            head.sealed_at = head.version.facts.sequence;
            let mut facts = head.version.facts.clone();
            facts.dropped = facts.dropped.max(dropped).min(facts.sequence);
            (sealed, facts, head.version.ordinal)
        };
        if !wait_durable(shared, ordinal)? {
            // Given up meanwhile: the head knows nothing of this tier any more. What is left waits for the next time.
            shared.is_dirty.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if shared.options.durability != Durability::Commit {
            let segments = shared.durable.load().segments.clone();
            for segment in segments.iter().rev().take(2) {
                segment.file.sync().map_err(|error| {
                    StoreError::Failed(format!("{} could not be synced: {error}", segment.path.display()).into())
                })?;
            }
        }
        let tier = Arc::downgrade(&sealed);
        // So that readers hold no older checkpoint while this one is written: its pages are needed.
        settle(shared, Settled { tier: tier.clone(), base: sealed_base(shared), is_whole: false }, 0);
        let partly = |base| {
            settle(shared, Settled { tier: tier.clone(), base: Arc::new(base), is_whole: false }, 0);
        };
        let base = self
            .views
            .write(&sealed, &facts, &self.written, &shared.options.retention, partly)
            .and_then(|()| self.views.base(facts.sequence))
            .map_err(|error| {
                StoreError::Failed(
                    format!(
                        "row state could not be written: {}. Nothing acknowledged is lost: it is in the log. Check the \
                         disk, then start again",
                        error.0
                    )
                    .into(),
                )
            })?;
        settle(shared, Settled { tier, base: Arc::new(base), is_whole: true }, facts.dropped);
        self.ordinal = ordinal;
        self.written = facts;
        let gauges = &shared.gauges;
        gauges.checkpoints.fetch_add(1, Ordering::Relaxed);
        gauges.checkpoint_us.fetch_add(start.elapsed().as_micros() as u64, Ordering::Relaxed);
        gauges.checkpoint_sequence.store(self.written.sequence, Ordering::Relaxed);
        Ok(())
    }

    /// Removes segments that the checkpoint covers and whose events, if they have any, retention has dropped.
    pub(crate) fn drop_segments(&self, shared: &Shared) {
        let gone: Vec<Arc<Segment>> = {
            let _publishing = shared.lock_publishing();
            let before = shared.durable.load_full();
            let dropped = before.version.facts.dropped.max(before.dropped).min(self.written.sequence);
            let Some((newest, older)) = before.segments.split_last() else { return };
            // A segment may end with batches without events, so that its last event alone does not say whether the
            // checkpoint covers it. Nothing is covered while what a start has replayed is in no checkpoint yet.
            let is_gone = |segment: &&Arc<Segment>| {
                self.ordinal != UNWRITTEN
                    && segment.ordinal.load(Ordering::Relaxed) <= self.ordinal
                    && (segment.next() <= dropped + 1 || !segment.has_events())
            };
            let (gone, mut kept): (Vec<_>, Vec<_>) = older.iter().cloned().partition(|segment| is_gone(&segment));
            if gone.is_empty() {
                return;
            }
            kept.push(newest.clone());
            let version = before.version.clone();
            shared.durable.store(Arc::new(Durable { version, segments: Arc::new(kept), dropped: before.dropped }));
            gone
        };
        // Oldest first, so that a crash in between leaves no gap. Views that hold a segment keep reading it.
        for segment in &gone {
            if let Err(error) = self.medium.remove(&segment.path) {
                tracing::warn!(file = %segment.path.display(), %error, "a dropped segment could not be removed");
            }
        }
        if let Some(folder) = gone.first().and_then(|segment| segment.path.parent())
            && let Err(error) = self.medium.sync_folder(folder)
        {
            tracing::warn!(folder = %folder.display(), %error, "the removal of segments could not be synced");
        }
    }
}

impl Keeper {
    /// Packs the segments that were sealed since the last time.
    pub(crate) fn pack_segments(&self, shared: &Shared) {
        let folder = shared.options.dir.join(super::open::LOG);
        let segments = shared.durable.load().segments.clone();
        for old in segments.iter().filter(|segment| pack::is_worth_it(segment)) {
            if shared.lock_wishes().checkpoint {
                // Checkpoints come first: writers may be waiting for one.
                return;
            }
            let new = match pack::pack(old, &folder, &*self.medium) {
                Ok(Some(new)) => Arc::new(new),
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(file = %old.path.display(), %error, "a segment was not packed; it stays as it is");
                    return;
                }
            };
            let _publishing = shared.lock_publishing();
            let before = shared.durable.load_full();
            let segments = Arc::new(pack::replace(&before.segments, old, &new));
            let version = before.version.clone();
            shared.durable.store(Arc::new(Durable { version, segments, dropped: before.dropped }));
        }
    }
}

/// The checkpoint below the tier that is sealed now.
fn sealed_base(shared: &Shared) -> Arc<Base> {
    shared.lock_head().version.rows.base.clone()
}

/// Lets the head and readers use what a checkpoint has written.
fn settle(shared: &Shared, settled: Settled, dropped: Sequence) {
    let mut head = shared.lock_head();
    let mut publishing = shared.lock_publishing();
    head.version.settle(&settled);
    if settled.is_whole {
        head.sealing = None;
    }
    let before = shared.durable.load_full();
    // With nothing staged, readers get the head's version, which has the same rows in other tiers.
    let is_same = before.version.ordinal == head.version.ordinal;
    let mut version = if is_same { head.version.clone() } else { before.version.clone() };
    version.settle(&settled);
    publishing.settled = Some(settled);
    let dropped = before.dropped.max(dropped);
    shared.durable.store(Arc::new(Durable { version, segments: before.segments.clone(), dropped }));
    drop(publishing);
    drop(head);
    shared.settled.notify_all();
}

/// Waits until the sealed tier's last batch is published; answers false when it was given up.
fn wait_durable(shared: &Shared, ordinal: u64) -> Result<bool, StoreError> {
    shared.keeper_waits.store(true, Ordering::SeqCst);
    let result = loop {
        // Given up, and others may have its ordinal by now: the head says.
        if shared.lock_head().sealing.is_none() {
            break Ok(false);
        }
        let publishing = shared.lock_publishing();
        if let Some(error) = shared.failed.get() {
            break Err(error.clone());
        }
        if shared.durable.load().version.ordinal >= ordinal {
            drop(publishing);
            break Ok(shared.lock_head().sealing.is_some());
        }
        // A look now and then besides, since a batch that was given up publishes nothing.
        drop(shared.published.wait_timeout(publishing, Duration::from_millis(100)));
    };
    shared.keeper_waits.store(false, Ordering::SeqCst);
    result
}

/// Whether a checkpoint of this many bytes of rows will fit on the disk. It is not begun when it may not, because a
/// database that ran out of room in the middle of a write has to be opened anew, while a log that has none just waits.
fn has_room(shared: &Shared, bytes: usize) -> bool {
    // Pages are written beside the ones that they replace.
    const BESIDE: u64 = 4 << 20;
    let Ok(disk) = rustix::fs::statvfs(&shared.options.dir) else { return true };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let has_room = free >= (bytes as u64).saturating_mul(2) + BESIDE;
    if !has_room && !shared.no_room.swap(true, Ordering::Relaxed) {
        let folder = shared.options.dir.display();
        tracing::warn!(%folder, free_bytes = free, "too little room for a checkpoint of the row state: it waits");
    }
    if has_room && shared.no_room.swap(false, Ordering::Relaxed) {
        tracing::info!("there is room for checkpoints again");
    }
    has_room
}

/// Up to where retention by age and bytes drops.
fn aged(shared: &Shared) -> Sequence {
    let retention = &shared.options.retention;
    let durable = shared.durable.load_full();
    let mut dropped = 0;
    if let Some(age_ms) = retention.age_ms {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
        let oldest_ms = now_ms.saturating_sub(age_ms);
        for segment in durable.segments.iter() {
            match segment.older_than(oldest_ms) {
                Ok(older) => dropped = dropped.max(older),
                Err(error) => {
                    tracing::warn!(%error, "retention by age passes over a segment");
                    break;
                }
            }
            if segment.last_timestamp_ms() >= oldest_ms {
                break;
            }
        }
    }
    if let Some(bytes_max) = retention.bytes {
        let sizes: Vec<u64> = durable.segments.iter().map(|segment| segment.file.len().unwrap_or(0)).collect();
        let mut total: u64 = sizes.iter().sum();
        for (size, next) in sizes.iter().zip(durable.segments.iter().skip(1)) {
            if total <= bytes_max {
                break;
            }
            total -= size;
            dropped = dropped.max(next.first - 1);
        }
    }
    dropped.min(durable.version.facts.held(retention))
}
