//! What the feed's threads and its owner share: portions on their way out, rows on their way in, how far things are,
//! and the bell that wakes the follower.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;

use super::audit;
use super::catalog::{Defined, Overview, Published};
use super::lsn::Lsn;
use super::window::Snapshot;
use super::wire::Closer;
use crate::change::{Change, Portion};
use crate::feed::{FeedError, Progress, Reason};

/// How many portions wait for their taker.
const PORTIONS_MAX: usize = 2;

/// What the threads beside the follower tell it.
#[derive(Debug)]
pub(super) enum Said {
    /// A chunk of rows begins that `snapshot` sees, true at `place` and after. `task` is the number of the reading.
    ChunkBegan { task: u64, snapshot: Snapshot, place: Lsn, found: Box<Published>, defined: Defined },
    /// The table is read in parts from here on: rows up to the first of these keys, up to the second, and so on, and
    /// beyond the last. This reading goes on with the first part. None, if it is not worth it.
    Split { task: u64, bounds: Vec<Vec<String>> },
    /// Rows, and the key of the last of them as the database wrote it.
    Rows { task: u64, rows: Vec<Change>, last: Vec<String>, bytes: usize },
    /// The chunk is complete.
    ChunkEnded { task: u64 },
    /// So is the table, or the part of it that was to be read.
    Ended { task: u64 },
    /// It has been dropped, or is no longer published.
    TableGone { task: u64 },
    /// It can't be read, and the others can.
    TableStopped { task: u64, reason: Reason },
    /// The reader of a lane could not connect.
    NoReader { lane: usize, error: FeedError },
    /// What a thread died of.
    Failed(FeedError),
}

impl Said {
    /// The reading that it is of.
    pub(super) fn task(&self) -> Option<u64> {
        match self {
            Said::ChunkBegan { task, .. }
            | Said::Split { task, .. }
            | Said::Rows { task, .. }
            | Said::ChunkEnded { task }
            | Said::Ended { task }
            | Said::TableGone { task }
            | Said::TableStopped { task, .. } => Some(*task),
            Said::NoReader { .. } | Said::Failed(_) => None,
        }
    }
}

/// What the catalog said, and from where to where in the log it may have been said.
#[derive(Debug)]
pub(super) struct Look {
    /// The end of the log before the catalog was looked at.
    pub(super) from: Lsn,
    /// Everything that the catalog knew is before this place.
    pub(super) to: Lsn,
    pub(super) overview: Overview,
}

/// All that is shared.
#[derive(Debug)]
pub(super) struct Shared {
    stopping: AtomicBool,
    confirmed: AtomicU64,
    tasks: Mutex<Tasks>,
    bell: OwnedFd,
    out: Mutex<Out>,
    /// There is room for portions.
    room: Condvar,
    /// There are portions, or the end.
    ready: Notify,
    inbox: Mutex<Inbox>,
    /// The inbox got emptier, the reading was called off, or everything stops.
    changed: Condvar,
    pub(super) progress: Mutex<Progress>,
    /// The last look at the catalog, until the log has reached its place.
    look: Mutex<Option<Look>>,
    /// Somebody wants the catalog to be looked at, whether or not it changed.
    wants_look: AtomicBool,
    /// Tables that are known, which nobody adds to the publication once more.
    pub(super) known: Mutex<BTreeSet<u32>>,
    closers: Mutex<Vec<Closer>>,
    /// What is said between whoever audits and whoever orders it.
    pub(super) audit: audit::Inbox,
}

#[derive(Debug, Default)]
struct Out {
    portions: VecDeque<Portion>,
    end: Option<FeedError>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Inbox {
    said: VecDeque<Said>,
    bytes: usize,
}

/// The readings that go on. Others have been called off.
#[derive(Debug, Default)]
struct Tasks {
    last: u64,
    running: BTreeSet<u64>,
}

/// A lock whose holder panicked guards data that is whole all the same: every change of it is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new() -> std::io::Result<Shared> {
        Ok(Shared {
            stopping: AtomicBool::new(false),
            confirmed: AtomicU64::new(0),
            tasks: Mutex::default(),
            bell: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            out: Mutex::default(),
            room: Condvar::new(),
            ready: Notify::new(),
            inbox: Mutex::default(),
            changed: Condvar::new(),
            progress: Mutex::default(),
            look: Mutex::default(),
            wants_look: AtomicBool::new(true),
            known: Mutex::default(),
            closers: Mutex::default(),
            audit: audit::Inbox::default(),
        })
    }

    /// Ends all threads. What waits in a connection other than the follower's is cut off; the follower says good-bye.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.ring();
        self.room.notify_all();
        // Under the lock, so that nobody begins to wait between looking and being told.
        drop(lock(&self.inbox));
        self.changed.notify_all();
        for closer in lock(&self.closers).drain(..) {
            closer.close();
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Has a connection cut off when everything stops.
    pub(super) fn cut_at_stop(&self, closer: Closer) {
        let mut closers = lock(&self.closers);
        closers.retain(Closer::is_needed);
        closers.push(closer);
        drop(closers);
        if self.is_stopping() {
            self.stop();
        }
    }

    pub(super) fn confirm(&self, lsn: Lsn) {
        self.confirmed.fetch_max(lsn.0, Ordering::SeqCst);
    }

    pub(super) fn confirmed(&self) -> Lsn {
        Lsn(self.confirmed.load(Ordering::SeqCst))
    }

    /// The number of a reading that begins.
    pub(super) fn next_task(&self) -> u64 {
        let mut tasks = lock(&self.tasks);
        tasks.last += 1;
        let task = tasks.last;
        tasks.running.insert(task);
        task
    }

    /// A reading is over, or nothing is wanted of it any more.
    pub(super) fn call_off(&self, task: u64) {
        lock(&self.tasks).running.remove(&task);
        // Under the lock, so that nobody begins to wait between looking and being told.
        drop(lock(&self.inbox));
        self.changed.notify_all();
    }

    pub(super) fn ring(&self) {
        // It fails when it rings already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// To wait for, beside a socket.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    pub(super) fn silence(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// Whether whoever takes portions waits for one.
    pub(super) fn is_hungry(&self) -> bool {
        lock(&self.out).portions.is_empty()
    }

    /// Hands a portion out, or gives it back if there was no room in time.
    pub(super) fn offer(&self, portion: Portion, patience: Duration) -> Option<Portion> {
        let mut out = lock(&self.out);
        if out.portions.len() >= PORTIONS_MAX {
            let waited = self
                .room
                .wait_timeout_while(out, patience, |out| out.portions.len() >= PORTIONS_MAX && !self.is_stopping());
            out = waited.unwrap_or_else(PoisonError::into_inner).0;
            if out.portions.len() >= PORTIONS_MAX {
                return Some(portion);
            }
        }
        out.portions.push_back(portion);
        drop(out);
        self.ready.notify_one();
        None
    }

    /// The follower has ended; what waits is still handed out.
    pub(super) fn end(&self, error: Option<FeedError>) {
        let mut out = lock(&self.out);
        out.ended = true;
        out.end = error;
        drop(out);
        self.ready.notify_one();
    }

    /// The next portion. Cancel-safe: a portion is taken only by returning it.
    pub(super) async fn take(&self) -> Result<Portion, FeedError> {
        loop {
            let notified = self.ready.notified();
            {
                let mut out = lock(&self.out);
                if let Some(portion) = out.portions.pop_front() {
                    drop(out);
                    self.room.notify_one();
                    return Ok(portion);
                }
                if out.ended {
                    return Err(out.end.take().unwrap_or_else(|| FeedError {
                        remedy: crate::feed::Remedy::Retry,
                        code: "ended",
                        message: "the feed has ended; open it again".into(),
                        source: None,
                    }));
                }
            }
            notified.await;
        }
    }

    /// Tells the follower something.
    pub(super) fn say(&self, said: Said) {
        let mut inbox = lock(&self.inbox);
        if let Said::Rows { bytes, .. } = &said {
            inbox.bytes += bytes;
        }
        inbox.said.push_back(said);
        drop(inbox);
        self.ring();
    }

    /// Has the catalog looked at soon, even if nothing changed there.
    pub(super) fn ask_for_look(&self) {
        self.wants_look.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_look_wanted(&self) -> bool {
        self.wants_look.load(Ordering::SeqCst)
    }

    /// Leaves a look for the follower.
    pub(super) fn show(&self, look: Look) {
        self.wants_look.store(false, Ordering::SeqCst);
        *lock(&self.look) = Some(look);
        self.ring();
    }

    /// The place that the last look waits for, if it was not taken yet.
    pub(super) fn look_waits_for(&self) -> Option<Lsn> {
        lock(&self.look).as_ref().map(|look| look.to)
    }

    /// Takes the last look, if the log has reached its place.
    pub(super) fn take_look(&self, position: Lsn) -> Option<Look> {
        lock(&self.look).take_if(|look| look.to <= position)
    }

    /// The first thing that was said and not yet taken and that the follower wants now.
    pub(super) fn hear(&self, wanted: impl FnMut(&Said) -> bool) -> Option<Said> {
        let mut inbox = lock(&self.inbox);
        let at = inbox.said.iter().position(wanted)?;
        let said = inbox.said.remove(at);
        if let Some(Said::Rows { bytes, .. }) = &said {
            inbox.bytes -= bytes;
            drop(inbox);
            self.changed.notify_all();
        }
        said
    }

    /// Waits until fewer bytes of rows than that are on their way in. False if the reading was called off or all stops.
    pub(super) fn wait_for_room(&self, task: u64, bytes_max: usize) -> bool {
        let mut inbox = lock(&self.inbox);
        while inbox.bytes > bytes_max && self.goes_on(task) {
            inbox = self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        drop(inbox);
        self.goes_on(task)
    }

    /// Waits. False if the reading was called off or all stops.
    pub(super) fn pause(&self, task: Option<u64>, time: Duration) -> bool {
        let goes_on = || task.map_or(!self.is_stopping(), |task| self.goes_on(task));
        let inbox = lock(&self.inbox);
        let _ = self.changed.wait_timeout_while(inbox, time, |_| goes_on());
        goes_on()
    }

    pub(super) fn goes_on(&self, task: u64) -> bool {
        !self.is_stopping() && lock(&self.tasks).running.contains(&task)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn rows(task: u64, bytes: usize) -> Said {
        Said::Rows { task, rows: Vec::new(), last: Vec::new(), bytes }
    }

    #[test]
    fn all_readings_wait_for_the_same_room_until_they_are_called_off() {
        let shared = Shared::new().unwrap();
        let [first, second] = [shared.next_task(), shared.next_task()];
        shared.say(rows(first, 101));
        std::thread::scope(|scope| {
            let waiting = [first, second].map(|task| {
                let shared = &shared;
                scope.spawn(move || shared.wait_for_room(task, 100))
            });
            shared.call_off(first);
            assert!(!shared.goes_on(first) && shared.goes_on(second));
            assert!(shared.hear(|_| true).is_some());
            assert_eq!(waiting.map(|waiting| waiting.join().unwrap()), [false, true]);
        });
    }

    #[test]
    fn what_one_reading_says_does_not_wait_for_another() {
        let shared = Shared::new().unwrap();
        [rows(1, 1), rows(2, 1), rows(1, 1)].into_iter().for_each(|said| shared.say(said));
        let mut heard = Vec::new();
        while let Some(said) = shared.hear(|said| said.task() == Some(2) || heard == [2]) {
            heard.push(said.task().unwrap());
            if heard.len() > 1 {
                break;
            }
        }
        assert_eq!(heard, [2, 1]);
    }
}
