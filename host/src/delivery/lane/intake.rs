//! What a lane takes in: events of its share that are selected, and what the filter component says of them.

use std::time::Instant;

use super::super::attempts::Decision;
use super::super::deps::now_ms;
use super::super::picked::Picked;
use super::super::slots::Slot;
use super::super::subscription::LastFailure;
use super::super::target::{Target, TargetError};
use super::{Interrupted, Lane, lane_of};
use crate::selection::Verdict;
use crate::store::{Event, StoreError};

/// Chunks looked at before the lane looks up whether something else is wanted of it.
const CHUNKS_AT_ONCE: usize = 16;

impl Lane {
    /// Looks at events until a batch is there. Answers whether there is nothing more.
    pub(super) fn gather(&mut self) -> Result<bool, StoreError> {
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
    pub(super) fn gather_rows(&mut self, max: usize) -> Result<bool, StoreError> {
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

    pub(super) fn is_mine(&self, event: &Event) -> bool {
        lane_of(event, self.subscription.lanes.len()) == self.lane
    }

    /// Lets the filter component see what is new.
    pub(super) fn apply_filter(&mut self, _slot: &Slot) -> Result<(), Interrupted> {
        let filter = match (&mut self.filter, &mut self.target) {
            (Some(filter), _) => filter,
            (None, Target::Guest(guest)) => guest,
            (None, Target::Sink(_) | Target::Part(_)) => {
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
                (None, Target::Sink(_) | Target::Part(_)) => return Ok(()),
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

    pub(super) fn take_raw(&mut self) {
        self.ready.append(&mut self.raw);
        if !self.ready.is_empty() {
            self.ready_since.get_or_insert_with(Instant::now);
        }
    }
}
