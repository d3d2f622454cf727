//! Dead letters: what subscribers refused for good, kept until somebody decides.

use std::sync::mpsc;
use std::time::Duration;

use cdc_rest::SubscriptionId;
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::SubscriptionError;
use super::lane::lane_of;
use super::records::{self, DeadLetter};
use super::subscription::{Job, Retried, Subscription};
use super::subscriptions::Subscriptions;
use crate::store::{Sequence, StoreError};

/// Dead letters of one page.
const PAGE: usize = 1_000;
/// How long a lane may take to come to a job: it finishes its batch first.
const JOB_TIMEOUT: Duration = Duration::from_secs(60);

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letters {
    /// Every one.
    All,
    /// Those of these events.
    Of(Vec<Sequence>),
}

impl Letters {
    fn names(&self, sequence: Sequence) -> bool {
        match self {
            Self::All => true,
            Self::Of(sequences) => sequences.contains(&sequence),
        }
    }
}

/// A dead letter as `GET /subscriptions/:id/dead-letters` shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    /// The event's place.
    pub sequence: Sequence,
    /// `reject`, `retry`, `trap`, `timeout`, `exit` or `wrong-answer`.
    pub kind: String,
    /// The last message.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up, in ms since 1970.
    pub given_up_at: u64,
    /// The event, as `/events` shows it.
    pub event: Box<RawValue>,
}

impl Subscriptions {
    /// Dead letters after the one of an event, oldest event first, and whether there are more.
    pub fn dead_letters(
        &self,
        id: &SubscriptionId,
        after: Option<Sequence>,
        limit: usize,
    ) -> Result<(Vec<Letter>, bool), SubscriptionError> {
        self.get(id)?;
        let mut letters = Vec::new();
        let mut has_more = false;
        self.each_dead_letter(id, after, |letter| {
            has_more = letters.len() == limit;
            if !has_more {
                letters.push(shown(&letter));
            }
            !has_more
        })?;
        Ok((letters, has_more))
    }

    /// Tries dead letters again, one by one, between two batches of their lanes. What is done is a dead letter no more.
    pub fn retry_dead_letters(&self, id: &SubscriptionId, which: &Letters) -> Result<Retried, SubscriptionError> {
        let found = self.get(id)?;
        let mut by_lane: Vec<Vec<DeadLetter>> = found.lanes.iter().map(|_| Vec::new()).collect();
        let lanes = found.lanes.len();
        self.each_dead_letter(id, None, |letter| {
            if which.names(letter.sequence) {
                by_lane[lane_of(&letter.event(), lanes)].push(letter);
            }
            true
        })?;
        let mut retried = Retried::default();
        if let Letters::Of(sequences) = which {
            let is_there = |sequence: &Sequence| by_lane.iter().flatten().any(|letter| letter.sequence == *sequence);
            let missing = sequences.iter().filter(|sequence| !is_there(sequence));
            retried.failed.extend(missing.map(|sequence| (*sequence, "there is no such dead letter".to_owned())));
        }
        for (lane, letters) in by_lane.into_iter().enumerate() {
            // In portions, so that the events that wait are not held up for long.
            for letters in letters.chunks(100) {
                let done = self.give(&found, lane, |reply| Job::Retry { letters: letters.to_vec(), reply })?;
                retried.delivered.extend(done.delivered);
                retried.failed.extend(done.failed);
            }
        }
        Ok(retried)
    }

    /// Forgets dead letters. An event that delivery had stopped at is passed over. Answers how many there were.
    pub fn discard_dead_letters(&self, id: &SubscriptionId, which: &Letters) -> Result<u64, SubscriptionError> {
        let found = self.get(id)?;
        let mut discarded = 0;
        loop {
            let mut documents = Vec::new();
            let mut stopped_at = None;
            self.each_dead_letter(id, None, |letter| {
                if which.names(letter.sequence) {
                    let event = letter.event();
                    let key = DeadLetter::document_key(&event);
                    documents.push(records::remove(&records::dead_letters(id), &key));
                    let lane = lane_of(&event, found.lanes.len());
                    let is_stopped =
                        matches!(found.lanes[lane].state(), super::subscription::LaneState::Stopped { .. });
                    if is_stopped
                        && letter.sequence > found.lanes[lane].position.load(std::sync::atomic::Ordering::Acquire)
                    {
                        stopped_at = stopped_at.or(Some((lane, letter.sequence)));
                    }
                }
                documents.len() < PAGE
            })?;
            if documents.is_empty() {
                return Ok(discarded);
            }
            if let Some((lane, sequence)) = stopped_at {
                self.give(&found, lane, |reply| Job::Skip { sequence, reply })?;
            }
            discarded += documents.len() as u64;
            self.record((documents, Vec::new()))?;
        }
    }

    /// How many there are.
    pub(super) fn count_dead_letters(&self, id: &SubscriptionId) -> Result<u64, StoreError> {
        let view = self.deps.store.view()?;
        let (mut count, mut after) = (0, None::<Vec<u8>>);
        loop {
            let page = view.documents(&records::dead_letters(id), after.as_deref(), PAGE, 4 << 20)?;
            let Some(last) = page.last() else { return Ok(count) };
            after = Some(last.key.to_vec());
            count += page.len() as u64;
        }
    }

    /// Shows each dead letter, oldest event first, until it is told to stop.
    pub(super) fn each_dead_letter(
        &self,
        id: &SubscriptionId,
        after: Option<Sequence>,
        mut show: impl FnMut(DeadLetter) -> bool,
    ) -> Result<(), SubscriptionError> {
        let view = self.deps.store.view()?;
        let mut after = after.map(|after| (after.saturating_add(1)).to_be_bytes().to_vec()).map(|mut key| {
            // Everything after the keys of that event: those of the next one are not before its number alone.
            let next = Sequence::from_be_bytes(key.first_chunk().copied().unwrap_or_default());
            key = (next - 1).to_be_bytes().to_vec();
            key.extend([0xff; 2048]);
            key
        });
        loop {
            let page = view.documents(&records::dead_letters(id), after.as_deref(), PAGE, 4 << 20)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.to_vec());
            for row in &page {
                let letter: DeadLetter =
                    serde_json::from_slice(&row.image).map_err(|source| SubscriptionError::damaged(id, source))?;
                if !show(letter) {
                    return Ok(());
                }
            }
        }
    }

    fn give<T>(
        &self,
        found: &Subscription,
        lane: usize,
        job: impl FnOnce(mpsc::Sender<T>) -> Job,
    ) -> Result<T, SubscriptionError> {
        let (reply, answer) = mpsc::channel();
        found.control.give(lane, job(reply));
        answer.recv_timeout(JOB_TIMEOUT).map_err(|_| SubscriptionError::Busy(found.id.clone()))
    }
}

fn shown(letter: &DeadLetter) -> Letter {
    let chunk = crate::live::Chunk::of(vec![letter.event()]);
    let json = chunk.events().first().map(crate::live::LiveEvent::json).unwrap_or_default();
    let text = String::from_utf8_lossy(&json).into_owned();
    Letter {
        sequence: letter.sequence,
        kind: letter.kind.clone(),
        reason: letter.reason.clone(),
        attempts: letter.attempts,
        given_up_at: letter.given_up_ms,
        event: RawValue::from_string(text).unwrap_or_default(),
    }
}
