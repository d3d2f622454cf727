//! A lane: the thread that takes one share of a subscription's events from the log to the subscriber.
//!
//! It looks at every event after its cursor in order, keeps those of its share that are selected, hands them over in
//! batches, and moves the cursor when a batch is acknowledged: durably, and together with what the subscriber has
//! written into its key-value store. Only then does the next batch go out, so a crash repeats one batch at the most.
//!
//! Nobody waits for a lane but the lane: capturing goes on, and what it has not seen yet waits in the log.

use std::collections::VecDeque;
use std::hash::Hasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::attempts::{Attempts, Decision};
use super::deps::{Deps, now_ms};
use super::picked::Picked;
use super::records::{self, DeadLetter, Progress};
use super::rows::Rows;
use super::slots::{self, Slot};
use super::subscription::{Job, LaneState, LastFailure, Retried, Subscription};
use super::target::{GuestTarget, Target, TargetError};
use crate::guest::{Remedy, Usage};
use crate::selection::Verdict;
use crate::store::{Document, Event, Sequence, StoreError};

/// A cursor that only passed over events is made durable this long after.
const PERSIST_EVERY: Duration = Duration::from_secs(1);
/// Chunks looked at before the lane looks up whether something else is wanted of it.
const CHUNKS_AT_ONCE: usize = 16;
/// So many lanes are woken at once for what is new; with more of them each gathers a little first.
const LANES_AT_ONCE: usize = 8;
/// How much, for each lane beyond.
const GATHER_PER_LANE: Duration = Duration::from_micros(50);
/// The pause after the store took no record: the disk is full, or a batch before failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Why a lane's thread ends.
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// The store fails: the service stops.
    Store(StoreError),
    /// Its thread has stepped back behind others, and what it does from now on is quick again: it goes on in a new one.
    NewThread(Box<Lane>),
}

/// Why the work of a moment is not done.
enum Interrupted {
    /// Something else is wanted.
    Control,
    Store(StoreError),
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A lane.
pub(super) struct Lane {
    subscription: Arc<Subscription>,
    deps: Arc<Deps>,
    /// Counts this lane while it lives.
    _counted: Arc<()>,
    lane: usize,
    cursor: String,
    newest: watch::Receiver<Sequence>,
    control: watch::Receiver<u64>,
    /// Up to here everything is acknowledged, durably.
    position: Sequence,
    /// Up to here everything was looked at.
    scanned: Sequence,
    persisted_at: Instant,
    progress: Progress,
    rows: Option<Rows>,
    /// Selected, and not seen by the filter component yet.
    raw: VecDeque<Picked>,
    /// To be delivered.
    ready: VecDeque<Picked>,
    /// Since when the first of `ready` waits.
    ready_since: Option<Instant>,
    filter: Option<GuestTarget>,
    target: Target,
    filter_attempts: Attempts,
    attempts: Attempts,
    /// Whether there was more in the log than a batch when it was last looked at.
    is_behind: bool,
    /// A dead letter that stands for an event which is tried again because somebody resumed.
    stopped_at: Option<Sequence>,
}

/// What a lane begins with.
pub(super) struct Beginning {
    pub(super) lane: usize,
    pub(super) position: Sequence,
    pub(super) progress: Progress,
    pub(super) filter: Option<GuestTarget>,
    pub(super) target: Target,
    pub(super) stopped_at: Option<Sequence>,
}

impl Lane {
    pub(super) fn new(subscription: Arc<Subscription>, deps: Arc<Deps>, beginning: Beginning) -> Self {
        let Beginning { lane, position, progress, filter, target, stopped_at } = beginning;
        let shown = &subscription.lanes[lane];
        shown.position.store(position, Ordering::Release);
        shown.scanned.store(position, Ordering::Release);
        let rows = progress.snapshot.clone().map(Rows::new);
        shown.is_in_snapshot.store(rows.is_some(), Ordering::Release);
        Self {
            cursor: records::cursor(&subscription.id, u16::try_from(lane).unwrap_or(u16::MAX)),
            newest: deps.tail.newest(),
            control: subscription.control.changed(),
            filter_attempts: Attempts::new(subscription.spec.retry.clone()),
            attempts: Attempts::new(subscription.spec.retry.clone()),
            subscription,
            _counted: deps.count_lane(),
            deps,
            lane,
            position,
            scanned: position,
            persisted_at: Instant::now(),
            progress,
            rows,
            raw: VecDeque::new(),
            ready: VecDeque::new(),
            ready_since: None,
            filter,
            target,
            is_behind: false,
            stopped_at,
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self: Box<Self>) -> Ended {
        loop {
            if self.subscription.control.is_stopping() {
                // What was passed over is noted, so that the next start does not look at it again.
                return match self.persist() {
                    Err(Interrupted::Store(error)) => Ended::Store(error),
                    _ => Ended::Stopped,
                };
            }
            if let Some(job) = self.subscription.control.take_job(self.lane)
                && let Err(Interrupted::Store(error)) = self.do_job(job)
            {
                return Ended::Store(error);
            }
            let step = match self.shown().state() {
                LaneState::Stopped { .. } | LaneState::Lost { .. } => {
                    self.wait_for_control(None);
                    Ok(())
                }
                _ if self.subscription.control.is_paused() => {
                    self.wait_for_control(None);
                    Ok(())
                }
                _ => self.step(),
            };
            if let Err(Interrupted::Store(error)) = step {
                return Ended::Store(error);
            }
            if crate::native_code::has_stepped_back() {
                return Ended::NewThread(self);
            }
        }
    }

    fn shown(&self) -> &super::subscription::Lane {
        &self.subscription.lanes[self.lane]
    }

    /// One round: takes events in, hands a batch over.
    fn step(&mut self) -> Result<(), Interrupted> {
        let slot = self.deps.slots.acquire();
        let is_at_end = match self.gather() {
            Ok(is_at_end) => is_at_end,
            Err(StoreError::Dropped { oldest }) => {
                let next = self.scanned + 1;
                tracing::error!(
                    subscription = self.subscription.id.as_str(),
                    next,
                    oldest,
                    "retention has dropped events that this subscription had not seen; it stands still until it is rewound"
                );
                self.shown().set(LaneState::Lost { next, oldest });
                return Ok(());
            }
            Err(error) if self.rows.is_some() => {
                let reason = format!("the snapshot cannot go on: {error}");
                tracing::error!(subscription = self.subscription.id.as_str(), reason, "delivery stops");
                self.shown().set(LaneState::Stopped { reason });
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.is_behind = !is_at_end;
        self.apply_filter(&slot)?;
        self.show();
        let batch = &self.subscription.spec.batch;
        let max = self.attempts.max_events().min(batch.max_events as usize);
        if self.ready.is_empty() {
            drop(slot);
            if self.raw.is_empty() {
                self.passed_over(is_at_end)?;
            }
            return Ok(());
        }
        let linger = Duration::from_millis(u64::from(batch.linger_ms));
        let waited = self.ready_since.map_or(linger, |since| since.elapsed());
        if is_at_end && self.ready.len() < max && waited < linger && self.rows.is_none() {
            drop(slot);
            self.wait(Some(linger - waited));
            return Ok(());
        }
        let bytes_max = batch.max_bytes as usize;
        let mut bytes = 0;
        let fits = |picked: &&Picked| {
            let fits = bytes < bytes_max;
            bytes += picked.bytes();
            fits
        };
        let count = self.ready.iter().take(max).take_while(fits).count().max(1);
        self.deliver(count, slot)
    }

    /// Looks at events until a batch is there. Answers whether there is nothing more.
    fn gather(&mut self) -> Result<bool, StoreError> {
        let max = self.subscription.spec.batch.max_events as usize;
        if self.rows.is_some() {
            return self.gather_rows(max);
        }
        let (mut unselected, mut filtered, mut failures) = (0, 0, 0);
        let mut is_at_end = false;
        for _ in 0..CHUNKS_AT_ONCE {
            if self.ready.len() + self.raw.len() >= max {
                break;
            }
            let Some(chunk) = self.deps.tail.read(self.scanned)? else {
                is_at_end = true;
                break;
            };
            let new = chunk.events_after(self.scanned).len();
            for at in chunk.events().len() - new..chunk.events().len() {
                let picked = Picked::new(&chunk, at);
                self.scanned = picked.event().sequence;
                if !self.is_mine(picked.event()) {
                    continue;
                }
                let live = picked.live();
                match self.subscription.selection.judge(&live.event, &live.images) {
                    Verdict::Selected => self.raw.push_back(picked),
                    Verdict::Table | Verdict::Operation => unselected += 1,
                    Verdict::Where => filtered += 1,
                    Verdict::Failed(reason) => {
                        failures += 1;
                        self.subscription.figures.failed(LastFailure {
                            kind: "condition",
                            message: reason,
                            at_ms: now_ms(),
                            sequence: live.event.sequence,
                        });
                    }
                }
                if self.ready.len() + self.raw.len() >= max {
                    break;
                }
            }
        }
        let figures = &self.subscription.figures;
        figures.add(|figures| &figures.unselected, unselected);
        figures.add(|figures| &figures.filtered_by_condition, filtered);
        figures.add(|figures| &figures.condition_failures, failures);
        Ok(is_at_end)
    }

    /// Takes in rows of the snapshot. Answers whether there is nothing more.
    fn gather_rows(&mut self, max: usize) -> Result<bool, StoreError> {
        let Some(rows) = &mut self.rows else { return Ok(true) };
        while self.raw.len() + self.ready.len() < max {
            let Some(chunk) = rows.next(&self.deps, &self.subscription.selection)? else { return Ok(true) };
            for at in 0..chunk.events().len() {
                let picked = Picked::new(&chunk, at);
                let live = picked.live();
                let lanes = self.subscription.lanes.len();
                if lane_of(&live.event, lanes) == self.lane
                    && self.subscription.selection.judge(&live.event, &live.images) == Verdict::Selected
                {
                    self.raw.push_back(picked);
                }
            }
        }
        Ok(false)
    }

    fn is_mine(&self, event: &Event) -> bool {
        lane_of(event, self.subscription.lanes.len()) == self.lane
    }

    /// Lets the filter component see what is new.
    fn apply_filter(&mut self, _slot: &Slot) -> Result<(), Interrupted> {
        let filter = match (&mut self.filter, &mut self.target) {
            (Some(filter), _) => filter,
            (None, Target::Guest(guest)) => guest,
            (None, Target::Sink(_)) => {
                self.take_raw();
                return Ok(());
            }
        };
        match filter.refresh() {
            Ok(world) if world.filters() => {}
            Ok(_) => {
                self.take_raw();
                return Ok(());
            }
            Err(error) => {
                let Some(head) = self.raw.front().or(self.ready.front()).map(|picked| picked.event().sequence) else {
                    return Ok(());
                };
                return self.unavailable(head, &error);
            }
        }
        while !self.raw.is_empty() {
            let count = self.raw.len().min(self.filter_attempts.max_events());
            let events: Vec<&Event> = self.raw.iter().take(count).map(Picked::event).collect();
            let filter = match (&mut self.filter, &mut self.target) {
                (Some(filter), _) => filter,
                (None, Target::Guest(guest)) => &mut **guest,
                (None, Target::Sink(_)) => return Ok(()),
            };
            let outcome = filter.accept(&events);
            drop(events);
            match outcome {
                Ok(accepted) => {
                    self.filter_attempts.succeeded();
                    let mut refused = Vec::new();
                    for (picked, is_accepted) in self.raw.drain(..count).zip(accepted) {
                        if is_accepted {
                            self.ready.push_back(picked);
                        } else {
                            refused.push(picked.event().sequence);
                        }
                    }
                    self.subscription.figures.add(|figures| &figures.filtered_by_component, refused.len() as u64);
                    self.subscription.remember_refused(refused.into_iter());
                }
                Err(TargetError::Call(error)) => {
                    let picked = self.raw[0].clone();
                    self.subscription.figures.crashed(&error);
                    let decision = self.filter_attempts.crash(picked.event().sequence, count);
                    if !self.ready.is_empty() && matches!(decision, Decision::Again { .. }) {
                        // What was accepted before goes first.
                        self.note(&picked, error.kind(), error.to_string());
                        return Ok(());
                    }
                    let given_up = self.decide(decision, &picked, error.kind(), error.to_string())?;
                    if given_up {
                        self.give_up(
                            &picked,
                            error.kind(),
                            error.to_string(),
                            self.filter_attempts.failures(picked.event().sequence).max(1),
                            true,
                        )?;
                    }
                    return Ok(());
                }
                Err(error) => {
                    let head = self.raw[0].event().sequence;
                    return self.unavailable(head, &error);
                }
            }
        }
        if !self.ready.is_empty() {
            self.ready_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn take_raw(&mut self) {
        self.ready.append(&mut self.raw);
        if !self.ready.is_empty() {
            self.ready_since.get_or_insert_with(Instant::now);
        }
    }

    /// Hands over the first events of `ready`.
    fn deliver(&mut self, count: usize, slot: Slot) -> Result<(), Interrupted> {
        let outcome = match &mut self.target {
            Target::Sink(sink) => {
                let batch: &[Picked] = &self.ready.make_contiguous()[..count];
                sink.deliver(batch).map(Ok)
            }
            Target::Guest(guest) => match guest.refresh() {
                // A filter alone: what it accepts is done.
                Ok(world) if !world.handles() => Ok(Ok(())),
                Ok(_) => {
                    let events: Vec<&Event> = self.ready.iter().take(count).map(Picked::event).collect();
                    guest.handle(&events)
                }
                Err(error) => Err(error),
            },
        };
        drop(slot);
        match outcome {
            Ok(Ok(())) => self.acknowledge(count, Vec::new()),
            Ok(Err(failure)) => {
                let picked = self.ready[failure.index].clone();
                let head = picked.event().sequence;
                if failure.index > 0 {
                    self.acknowledge(failure.index, Vec::new())?;
                }
                match failure.remedy {
                    Remedy::Reject => {
                        let attempts = self.attempts.failures(head) + 1;
                        self.give_up(&picked, "reject", failure.message, attempts, false)?;
                    }
                    Remedy::Retry => {
                        let decision = self.attempts.retry(head);
                        if self.decide(decision, &picked, "retry", failure.message.clone())? {
                            let attempts = self.attempts.failures(head);
                            self.give_up(&picked, "retry", failure.message, attempts, false)?;
                        }
                    }
                }
                Ok(())
            }
            Err(TargetError::Call(error)) => {
                let picked = self.ready[0].clone();
                let head = picked.event().sequence;
                self.subscription.figures.crashed(&error);
                let decision = self.attempts.crash(head, count);
                if self.decide(decision, &picked, error.kind(), error.to_string())? {
                    let attempts = self.attempts.failures(head);
                    self.give_up(&picked, error.kind(), error.to_string(), attempts, false)?;
                }
                Ok(())
            }
            Err(error) => {
                let head = self.ready[0].event().sequence;
                self.unavailable(head, &error)
            }
        }
    }

    /// The first events of `ready` are done: makes that durable, with what the guests have written and more.
    fn acknowledge(&mut self, count: usize, documents: Vec<Document>) -> Result<(), Interrupted> {
        self.attempts.succeeded();
        let mut documents = documents;
        let done: Vec<Picked> = self.ready.drain(..count).collect();
        if let Some(stopped) = self.stopped_at
            && let Some(picked) = done.iter().find(|picked| picked.event().sequence == stopped)
        {
            let key = DeadLetter::document_key(picked.event());
            documents.push(records::remove(&records::dead_letters(&self.subscription.id), &key));
            self.stopped_at = None;
        }
        self.commit(done.last().map(Picked::event), documents)?;
        let figures = &self.subscription.figures;
        figures.add(|figures| &figures.delivered, done.len() as u64);
        figures.add(|figures| &figures.batches, 1);
        self.shown().set(LaneState::Running);
        self.ready_since = (!self.ready.is_empty()).then(Instant::now);
        self.show();
        Ok(())
    }

    /// The first event of `ready` (or of `raw`) is given up.
    fn give_up(
        &mut self,
        picked: &Picked,
        kind: &'static str,
        reason: String,
        attempts: u32,
        is_raw: bool,
    ) -> Result<(), Interrupted> {
        let event = picked.event().clone();
        let letter = DeadLetter::new(&event, kind, reason.clone(), attempts, now_ms());
        let document = letter.document(&self.subscription.id);
        let sequence = event.sequence;
        self.note(picked, kind, reason.clone());
        let policy = &self.subscription.spec.dead_letters;
        let is_full = self.dead_letters()? >= u64::from(policy.max);
        let stops = is_full || policy.policy == cdc_rest::DeadLetterPolicy::Stop;
        if stops {
            let reason = if is_full {
                format!(
                    "its dead letters are full ({} of deadLetters.max): retry or discard some; event {sequence}: {reason}",
                    policy.max
                )
            } else {
                format!("event {sequence} was given up ({kind}): {reason}")
            };
            tracing::error!(subscription = self.subscription.id.as_str(), sequence, kind, reason, "delivery stops");
            let mut documents = if is_full { Vec::new() } else { vec![document] };
            {
                let mut definition = self.subscription.definition();
                definition.stopped = Some(reason.clone());
                documents.push(definition.document(&self.subscription.id));
            }
            self.stopped_at = Some(sequence);
            self.record(documents, Vec::new())?;
            self.shown().set(LaneState::Stopped { reason });
            return Ok(());
        }
        tracing::warn!(
            subscription = self.subscription.id.as_str(),
            sequence,
            kind,
            reason,
            "an event was given up and is kept with the dead letters"
        );
        self.subscription.figures.add(|figures| &figures.dead, 1);
        if is_raw {
            self.raw.pop_front();
            self.filter_attempts.succeeded();
        } else {
            self.ready.pop_front();
            self.attempts.succeeded();
        }
        self.commit(Some(&event), vec![document])?;
        self.shown().set(LaneState::Running);
        self.show();
        Ok(())
    }

    fn dead_letters(&self) -> Result<u64, StoreError> {
        let collection = records::dead_letters(&self.subscription.id);
        let max = self.subscription.spec.dead_letters.max as usize;
        let view = self.deps.store.view()?;
        // Counting pages of keys is quick as long as there are few, and there are few as long as all is well.
        let (mut count, mut after) = (0, None::<Vec<u8>>);
        loop {
            let page = view.documents(&collection, after.as_deref(), 1_000, 4 << 20)?;
            let Some(last) = page.last() else { return Ok(count as u64) };
            after = Some(last.key.to_vec());
            count += page.len();
            if count >= max {
                return Ok(count as u64);
            }
        }
    }

    /// Waits as decided; answers whether the event is to be given up instead.
    fn decide(
        &mut self,
        decision: Decision,
        picked: &Picked,
        kind: &'static str,
        message: String,
    ) -> Result<bool, Interrupted> {
        self.note(picked, kind, message.clone());
        let Decision::Again { pause, .. } = decision else { return Ok(true) };
        let sequence = picked.event().sequence;
        let attempts = self.attempts.failures(sequence).max(self.filter_attempts.failures(sequence)).max(1);
        self.retry_later(sequence, attempts, kind, message, pause);
        Ok(false)
    }

    fn note(&self, picked: &Picked, kind: &'static str, message: String) {
        let sequence = picked.event().sequence;
        self.subscription.figures.failed(LastFailure { kind, message, at_ms: now_ms(), sequence });
    }

    /// The subscriber cannot be reached: a component that is not there, a closed output. Nothing is given up for that.
    fn unavailable(&mut self, head: Sequence, error: &TargetError) -> Result<(), Interrupted> {
        let message = error.to_string();
        let kind = "component";
        if let TargetError::Call(error) = error {
            self.subscription.figures.crashed(error);
        }
        self.subscription.figures.failed(LastFailure {
            kind,
            message: message.clone(),
            at_ms: now_ms(),
            sequence: head,
        });
        let Decision::Again { pause, .. } = Attempts::new(self.subscription.spec.retry.clone()).retry(head) else {
            self.retry_later(head, 1, kind, message, STORE_PAUSE);
            return Ok(());
        };
        self.retry_later(head, 1, kind, message, pause.max(STORE_PAUSE));
        Ok(())
    }

    fn retry_later(&mut self, sequence: Sequence, attempts: u32, kind: &'static str, message: String, pause: Duration) {
        // Whoever waits works not: the slot is for others.
        slots::give_away();
        let first = message.lines().next().unwrap_or_default();
        tracing::warn!(
            subscription = self.subscription.id.as_str(),
            sequence,
            attempts,
            kind,
            reason = first,
            pause_ms = pause.as_millis() as u64,
            "delivery failed and is tried again"
        );
        self.subscription.figures.add(|figures| &figures.retries, 1);
        let next_ms = now_ms() + u64::try_from(pause.as_millis()).unwrap_or(0);
        self.shown().set(LaneState::Retrying { sequence, attempts, kind, message, next_ms });
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let control = &self.subscription.control;
            if left.is_zero() || control.is_stopping() || control.is_paused() {
                break;
            }
            self.wait_for_control(Some(left));
        }
    }

    /// Nothing was selected: notes now and then how far it has looked, and waits for more.
    fn passed_over(&mut self, is_at_end: bool) -> Result<(), Interrupted> {
        if self.rows.is_some() {
            if is_at_end {
                self.rows = None;
                self.progress.snapshot = None;
                let done = self.progress.document(&self.cursor);
                self.commit(None, vec![done])?;
                self.shown().is_in_snapshot.store(false, Ordering::Release);
            }
            return Ok(());
        }
        if self.persisted_at.elapsed() >= PERSIST_EVERY {
            self.persist()?;
        }
        if is_at_end {
            let left =
                (self.scanned > self.position).then(|| PERSIST_EVERY.saturating_sub(self.persisted_at.elapsed()));
            self.wait(left);
        }
        Ok(())
    }

    fn persist(&mut self) -> Result<(), Interrupted> {
        if self.rows.is_none() && self.raw.is_empty() && self.ready.is_empty() && self.scanned > self.position {
            self.commit(None, Vec::new())?;
        }
        Ok(())
    }

    /// Makes durable how far everything is done, with what the guests have written.
    fn commit(&mut self, done: Option<&Event>, mut documents: Vec<Document>) -> Result<(), Interrupted> {
        let before = self.progress.clone();
        if let Some(filter) = &mut self.filter {
            documents.extend(filter.take_writes().0);
        }
        if let Target::Guest(guest) = &mut self.target {
            let (writes, Usage { bytes, keys }) = guest.take_writes();
            documents.extend(writes);
            (self.progress.keyvalue_bytes, self.progress.keyvalue_keys) = (bytes, keys);
        }
        let mut cursors = Vec::new();
        let mut position = self.position;
        if let Some(rows) = &mut self.rows {
            if let Some(done) = done {
                rows.acknowledge(done);
            }
            self.progress.snapshot = Some(rows.progress().clone());
        } else {
            let first = self.ready.front().or(self.raw.front()).map(|picked| picked.event().sequence - 1);
            position = first.unwrap_or(self.scanned);
            if position != self.position {
                cursors.push((self.cursor.clone(), position));
            }
        }
        if self.progress != before {
            documents.push(self.progress.document(&self.cursor));
        }
        if documents.is_empty() && cursors.is_empty() {
            return Ok(());
        }
        self.record(documents, cursors)?;
        self.position = position;
        self.persisted_at = Instant::now();
        self.shown().position.store(position, Ordering::Release);
        Ok(())
    }

    /// Makes documents and cursors durable, however long the disk is full.
    fn record(&self, documents: Vec<Document>, cursors: Vec<(String, Sequence)>) -> Result<(), Interrupted> {
        slots::give_away();
        loop {
            let (done, outcome) = mpsc::channel();
            let tell = Box::new(move |result| drop(done.send(result)));
            // A full batch means that more is waiting; a small one is in no hurry.
            if self.is_behind {
                self.deps.ingest.record(documents.clone(), cursors.clone(), tell);
            } else {
                self.deps.ingest.record_soon(documents.clone(), cursors.clone(), tell);
            }
            match outcome.recv() {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error @ (StoreError::Full(_) | StoreError::GivenUp(_)))) => {
                    tracing::warn!(
                        subscription = self.subscription.id.as_str(), %error,
                        "what was delivered cannot be noted: delivery waits"
                    );
                    if self.subscription.control.is_stopping() {
                        return Err(Interrupted::Control);
                    }
                    std::thread::sleep(STORE_PAUSE);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_gone) => return Err(StoreError::Failed("the service is stopping".into()).into()),
            }
        }
    }

    fn do_job(&mut self, job: Job) -> Result<(), Interrupted> {
        match job {
            Job::Skip { sequence, reply } => {
                let head = self.ready.front().or(self.raw.front()).cloned();
                let is_head = head.as_ref().is_some_and(|picked| picked.event().sequence == sequence);
                if let Some(picked) = head.filter(|_| is_head) {
                    if self.ready.pop_front().is_none() {
                        self.raw.pop_front();
                    }
                    self.stopped_at = None;
                    self.attempts.succeeded();
                    self.commit(Some(picked.event()), Vec::new())?;
                }
                // Whoever asked may have given up waiting.
                let _ = reply.send(is_head);
            }
            Job::Retry { letters, reply } => {
                let mut retried = Retried::default();
                for letter in letters {
                    let event = letter.event();
                    match self.redeliver(&event) {
                        Ok(()) => {
                            let key = DeadLetter::document_key(&event);
                            let gone = records::remove(&records::dead_letters(&self.subscription.id), &key);
                            self.commit_apart(vec![gone])?;
                            retried.delivered.push(event.sequence);
                            self.subscription.figures.add(|figures| &figures.delivered, 1);
                        }
                        Err((kind, reason)) => {
                            let again = DeadLetter {
                                kind: kind.to_owned(),
                                reason: reason.clone(),
                                attempts: letter.attempts + 1,
                                given_up_ms: now_ms(),
                                ..letter
                            };
                            self.commit_apart(vec![again.document(&self.subscription.id)])?;
                            retried.failed.push((event.sequence, reason));
                        }
                    }
                }
                let _ = reply.send(retried);
            }
        }
        Ok(())
    }

    /// Tries one event by itself.
    fn redeliver(&mut self, event: &Event) -> Result<(), (&'static str, String)> {
        match &mut self.target {
            Target::Sink(sink) => {
                let chunk = Arc::new(crate::live::Chunk::of(vec![event.clone()]));
                sink.deliver(&[Picked::new(&chunk, 0)]).map_err(|error| ("component", error.to_string()))
            }
            Target::Guest(guest) => match guest.handle(&[event]) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(failure)) => {
                    let kind = if failure.remedy == Remedy::Retry { "retry" } else { "reject" };
                    Err((kind, failure.message))
                }
                Err(TargetError::Call(error)) => {
                    self.subscription.figures.crashed(&error);
                    Err((error.kind(), error.to_string()))
                }
                Err(error) => Err(("component", error.to_string())),
            },
        }
    }

    /// Makes durable what a dead letter's delivery has changed, without a word on where the lane stands.
    fn commit_apart(&mut self, mut documents: Vec<Document>) -> Result<(), Interrupted> {
        if let Target::Guest(guest) = &mut self.target {
            let (writes, Usage { bytes, keys }) = guest.take_writes();
            documents.extend(writes);
            if (bytes, keys) != (self.progress.keyvalue_bytes, self.progress.keyvalue_keys) {
                (self.progress.keyvalue_bytes, self.progress.keyvalue_keys) = (bytes, keys);
                documents.push(self.progress.document(&self.cursor));
            }
        }
        self.record(documents, Vec::new())
    }

    fn show(&self) {
        let shown = self.shown();
        shown.scanned.store(self.scanned, Ordering::Release);
        shown.waiting.store((self.raw.len() + self.ready.len()) as u64, Ordering::Relaxed);
        let mut memory = self.filter.as_ref().map_or(0, GuestTarget::memory_bytes);
        let mut version = 0;
        if let Target::Guest(guest) = &self.target {
            memory += guest.memory_bytes();
            version = guest.version();
        }
        shown.memory_bytes.store(memory as u64, Ordering::Relaxed);
        shown.version.store(u64::from(version), Ordering::Relaxed);
    }

    /// Waits for newer events, or until something is wanted, or for so long.
    fn wait(&mut self, longest: Option<Duration>) {
        let scanned = self.scanned;
        let Self { newest, control, deps, .. } = self;
        // With many lanes, waking each for every commit would cost writers more than what the lanes do.
        let others = deps.lanes().saturating_sub(LANES_AT_ONCE);
        let gathering = GATHER_PER_LANE * u32::try_from(others).unwrap_or(u32::MAX);
        deps.tasks.block_on(async {
            let news = async {
                let _ = newest.wait_for(|newest| *newest > scanned).await;
                if !gathering.is_zero() {
                    tokio::time::sleep(gathering).await;
                }
            };
            tokio::select! {
                () = news => {}
                () = end(longest) => {}
                _ = control.changed() => {}
            }
        });
    }

    /// Waits until something is wanted, or for so long.
    fn wait_for_control(&mut self, longest: Option<Duration>) {
        let Self { control, deps, .. } = self;
        deps.tasks.block_on(async {
            tokio::select! {
                () = end(longest) => {}
                _ = control.changed() => {}
            }
        });
    }
}

/// Done after so long; never, if there is no end.
async fn end(longest: Option<Duration>) {
    match longest {
        Some(longest) => tokio::time::sleep(longest).await,
        None => std::future::pending().await,
    }
}

/// The lane of an event: of all events of a row the same.
pub(super) fn lane_of(event: &Event, lanes: usize) -> usize {
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
