//! What a lane does between two batches because somebody asked: dead letters again, an event passed over.

use std::sync::Arc;

use super::super::deps::now_ms;
use super::super::picked::Picked;
use super::super::records::{self, DeadLetter};
use super::super::subscription::{Job, Retried};
use super::super::target::{Target, TargetError};
use super::{Interrupted, Lane};
use crate::guest::Remedy;
use crate::store::Event;

impl Lane {
    pub(super) fn do_job(&mut self, job: Job) -> Result<(), Interrupted> {
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
    pub(super) fn redeliver(&mut self, event: &Event) -> Result<(), (&'static str, String)> {
        match &mut self.target {
            Target::Part(part) => {
                let chunk = Arc::new(crate::live::Chunk::of(vec![event.clone()]));
                part.deliver(&[Picked::new(&chunk, 0)]).map_err(|error| ("component", error.to_string()))
            }
            Target::Sink(sink) => {
                let chunk = Arc::new(crate::live::Chunk::of(vec![event.clone()]));
                match sink.deliver(&[Picked::new(&chunk, 0)], true) {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(declined)) => Err((kind(declined.remedy), declined.message)),
                    Err(error) => Err(("sink", error.to_string())),
                }
            }
            Target::Guest(guest) => match guest.handle(&[event]) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(failure)) => Err((kind(failure.remedy), failure.message)),
                Err(TargetError::Call(error)) => {
                    self.subscription.figures.crashed(&error);
                    Err((error.kind(), error.to_string()))
                }
                Err(error) => Err(("component", error.to_string())),
            },
        }
    }
}

/// What a dead letter says of an answer.
fn kind(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Retry => "retry",
        Remedy::Reject => "reject",
    }
}
