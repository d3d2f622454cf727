//! Work on segment files that nobody should wait for, on a thread of its own: writing zeros ahead of the frames, making
//! the next file ready, sealing a finished segment.
//!
//! Nothing here is needed for correctness: a writer that outruns it appends to the bare file, and what it fails to do is
//! done at the next start.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::super::medium::{Medium, MediumFile};
use super::segment::{SEALED, Segment};

/// Zeros are written this much at a time: small enough for an idle log to stay small.
const ROOM_MAX: u64 = 1 << 20;
/// The next segment's name until it has one.
pub(crate) const SPARE: &str = "spare.tmp";

#[derive(Debug)]
enum Job {
    Room(Arc<Segment>),
    Spare,
    Seal(Arc<Segment>),
}

type SpareSlot = Arc<Mutex<Option<Arc<dyn MediumFile>>>>;

/// The helper and its thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Files {
    jobs: Option<Sender<Job>>,
    spare: SpareSlot,
    thread: Option<JoinHandle<()>>,
    /// How many zeros are written at a time.
    pub(crate) room: u64,
}

impl Files {
    pub(crate) fn start(folder: PathBuf, medium: Arc<dyn Medium>, segment_bytes: u64) -> std::io::Result<Self> {
        let room = ROOM_MAX.min(segment_bytes / 2);
        let (jobs, queue) = channel();
        let spare = SpareSlot::default();
        let slot = spare.clone();
        let thread = std::thread::Builder::new()
            .name("cdc-log-files".into())
            .spawn(move || work(&queue, &folder, &*medium, &slot, room))?;
        Ok(Self { jobs: Some(jobs), spare, thread: Some(thread), room })
    }

    /// Writes zeros behind what a segment has.
    pub(crate) fn make_room(&self, segment: &Arc<Segment>) {
        if segment.ask_for_room() {
            self.send(Job::Room(segment.clone()));
        }
    }

    /// Makes the next segment's file ready.
    pub(crate) fn make_spare(&self) {
        self.send(Job::Spare);
    }

    /// Gives a finished segment its footer.
    pub(crate) fn seal(&self, segment: Arc<Segment>) {
        self.send(Job::Seal(segment));
    }

    /// The file made ready, if there is one yet, `room` zeros long, under the name that `rename` gives it. The thread
    /// makes no other under the old name before it has the new one.
    pub(crate) fn take_spare(
        &self,
        rename: impl FnOnce() -> std::io::Result<()>,
    ) -> Option<std::io::Result<Arc<dyn MediumFile>>> {
        let mut slot = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take().map(|file| rename().map(|()| file))
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The thread is gone only when it panicked, and then the log goes on without it.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(queue: &Receiver<Job>, folder: &Path, medium: &dyn Medium, spare: &SpareSlot, room: u64) {
    while let Ok(job) = queue.recv() {
        let (what, result) = match job {
            Job::Room(segment) => {
                let result = make_room(&segment, room);
                segment.wants_room.store(false, Ordering::Relaxed);
                ("making room for events", result)
            }
            Job::Spare => {
                let mut slot = spare.lock().unwrap_or_else(PoisonError::into_inner);
                if slot.is_some() {
                    continue;
                }
                drop(slot);
                let made = make_spare(folder, medium, room);
                slot = spare.lock().unwrap_or_else(PoisonError::into_inner);
                ("preparing the next segment", made.map(|file| *slot = Some(file)))
            }
            Job::Seal(segment) => ("sealing a segment", seal(&segment)),
        };
        if let Err(error) = result {
            tracing::warn!(folder = %folder.display(), %error, "{what} failed; the log goes on without");
        }
    }
}

fn zeros(file: &dyn MediumFile, from: u64, len: u64) -> std::io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < from + len {
        let some = ZEROS.len().min((from + len - at) as usize);
        file.write_at(&[IoSlice::new(&ZEROS[..some])], at)?;
        at += some as u64;
    }
    Ok(())
}

fn make_room(segment: &Segment, more: u64) -> std::io::Result<()> {
    let mut room = segment.room();
    if *room == SEALED {
        return Ok(());
    }
    zeros(&*segment.file, *room, more)?;
    *room += more;
    drop(room);
    // So that the next sync of events finds no metadata to write.
    segment.file.sync()
}

fn make_spare(folder: &Path, medium: &dyn Medium, room: u64) -> std::io::Result<Arc<dyn MediumFile>> {
    let file = medium.create(&folder.join(SPARE))?;
    zeros(&*file, 0, room)?;
    file.sync()?;
    Ok(file)
}

/// Writes a segment's footer and cuts the file after it.
pub(crate) fn seal(segment: &Segment) -> std::io::Result<()> {
    let Some((end, footer)) = segment.footer() else { return Ok(()) };
    let mut room = segment.room();
    *room = SEALED;
    let len = end + footer.len() as u64;
    segment.file.write_at(&[IoSlice::new(&footer)], end)?;
    segment.file.set_len(len)?;
    segment.file.sync()?;
    if let Some(trailer) = Segment::read_trailer(&*segment.file, len)? {
        segment.use_footer(trailer);
    }
    Ok(())
}
