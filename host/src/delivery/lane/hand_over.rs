//! Handing a batch over, and what becomes of it: acknowledged, tried again, given up.

use std::time::{Duration, Instant};

use super::super::attempts::{Attempts, Decision};
use super::super::deps::now_ms;
use super::super::picked::Picked;
use super::super::records::{self, DeadLetter};
use super::super::slots::{self, Slot};
use super::super::subscription::{LaneState, LastFailure};
use super::super::target::{Declined, Target, TargetError};
use super::durable::STORE_PAUSE;
use super::{Interrupted, Lane};
use crate::guest::Remedy;
use crate::store::{Document, Event, Sequence, StoreError};

impl Lane {
    /// Hands over the first events of `ready`.
    pub(super) fn deliver(&mut self, count: usize, slot: Slot) -> Result<(), Interrupted> {
        self.observe_delay();
        let mut slot = Some(slot);
        let outcome = match &mut self.target {
            Target::Part(part) => {
                let batch: &[Picked] = &self.ready.make_contiguous()[..count];
                part.deliver(batch).map(Ok)
            }
            Target::Sink(sink) => {
                // It waits for another system, so the slot is for others.
                slot = None;
                let batch: &[Picked] = &self.ready.make_contiguous()[..count];
                sink.deliver(batch, false)
            }
            Target::Guest(guest) => match guest.refresh() {
                // A filter alone: what it accepts is done.
                Ok(world) if !world.handles() => Ok(Ok(())),
                Ok(_) => {
                    let events: Vec<&Event> = self.ready.iter().take(count).map(Picked::event).collect();
                    guest.handle(&events).map(|handled| handled.map_err(Declined::from))
                }
                Err(error) => Err(error),
            },
        };
        drop(slot);
        match outcome {
            Ok(Ok(())) => self.acknowledge(count, Vec::new()),
            Ok(Err(declined)) => {
                let picked = self.ready[declined.index].clone();
                let head = picked.event().sequence;
                if declined.index > 0 {
                    self.acknowledge(declined.index, Vec::new())?;
                }
                match declined.remedy {
                    Remedy::Reject => {
                        let attempts = self.attempts.failures(head) + 1;
                        self.give_up(&picked, "reject", declined.message, attempts, false)?;
                    }
                    Remedy::Retry => {
                        let decision = self.attempts.retry(head).not_before(declined.after);
                        if self.decide(decision, &picked, "retry", declined.message.clone())? {
                            let attempts = self.attempts.failures(head);
                            self.give_up(&picked, "retry", declined.message, attempts, false)?;
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
            Err(TargetError::Stopping) => Err(Interrupted::Control),
            Err(error) => {
                let head = self.ready[0].event().sequence;
                self.unavailable(head, &error)
            }
        }
    }

    /// Takes note of how long the first event of `ready` has waited, unless it is a row of a snapshot.
    pub(super) fn observe_delay(&self) {
        let Some(event) = self.ready.front().map(Picked::event).filter(|_| self.rows.is_none()) else { return };
        let delay = match self.deps.tail.committed_at(event.sequence) {
            Some(at) => at.elapsed(),
            None => Duration::from_millis(now_ms().saturating_sub(event.timestamp_ms)),
        };
        self.subscription.figures.delay.0.observe(delay.as_secs_f64());
    }

    /// The first events of `ready` are done: makes that durable, with what the guests have written and more.
    pub(super) fn acknowledge(&mut self, count: usize, documents: Vec<Document>) -> Result<(), Interrupted> {
        self.attempts.succeeded();
        let mut documents = documents;
        let done: Vec<Picked> = self.ready.drain(..count).collect();
        let is_done = |key: &mut Vec<u8>| done.iter().any(|picked| DeadLetter::document_key(picked.event()) == *key);
        if let Some(key) = self.stopped_at.take_if(is_done) {
            documents.push(records::remove(&records::dead_letters(&self.subscription.id), &key));
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
    pub(super) fn give_up(
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
            self.stopped_at = Some(DeadLetter::document_key(&event));
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

    pub(super) fn dead_letters(&self) -> Result<u64, StoreError> {
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
    pub(super) fn decide(
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

    pub(super) fn note(&self, picked: &Picked, kind: &'static str, message: String) {
        let sequence = picked.event().sequence;
        self.subscription.figures.failed(LastFailure { kind, message, at_ms: now_ms(), sequence });
    }

    /// The subscriber cannot be reached: a component that is not there, a closed output. Nothing is given up for that.
    pub(super) fn unavailable(&mut self, head: Sequence, error: &TargetError) -> Result<(), Interrupted> {
        let message = error.to_string();
        let kind = if matches!(self.target, Target::Sink(_)) { "sink" } else { "component" };
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

    pub(super) fn retry_later(
        &mut self,
        sequence: Sequence,
        attempts: u32,
        kind: &'static str,
        message: String,
        pause: Duration,
    ) {
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
}
