//! What happened to a row's events at each subscription: the answer to "why did I not get row X?".

use cdc_rest::SubscriptionId;
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::SubscriptionError;
use super::lane::lane_of;
use super::subscription::{LaneState, Subscription};
use super::subscriptions::Subscriptions;
use crate::live::{Chunk, LiveEvent};
use crate::selection::Verdict;
use crate::store::EventRange;

/// Events of one trace: the newest.
const EVENTS: usize = 100;

/// What happened to one event.
#[derive(Clone, Debug, Serialize)]
pub struct EventTrace {
    /// The event, as `/events` shows it.
    pub event: Box<RawValue>,
    /// What happened to it at each subscription, by id.
    pub subscriptions: Vec<Fate>,
}

/// What happened to an event at a subscription.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fate {
    /// The subscription.
    pub subscription: String,
    /// `before-start`, `not-selected`, `filtered`, `waiting`, `attempted`, `acknowledged`, `dead` or `lost`.
    pub outcome: &'static str,
    /// By what it was not selected or filtered: `tables`, `operations`, `where` or `component`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<&'static str>,
    /// Why, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often it was tried without success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
}

impl Subscriptions {
    /// What happened to the events of a row that are kept, newest last, at most a hundred.
    pub fn trace(&self, table: &str, key: &str) -> Result<Vec<EventTrace>, SubscriptionError> {
        let view = self.deps.store.view()?;
        let bounds = view.bounds();
        let range = EventRange {
            after: bounds.oldest.saturating_sub(1),
            until: bounds.newest,
            table: Some(table),
            key: Some(key),
            max_events: EVENTS,
            max_bytes: 4 << 20,
            newest_first: true,
            ..EventRange::default()
        };
        let mut events = view.events(&range)?.events;
        events.reverse();
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let chunk = Chunk::of(events);
        let mut traces = Vec::new();
        for live in chunk.events() {
            let mut subscriptions = Vec::new();
            for found in self.all() {
                subscriptions.push(self.fate(&found, live)?);
            }
            let json = String::from_utf8_lossy(&live.json()).into_owned();
            traces.push(EventTrace { event: RawValue::from_string(json).unwrap_or_default(), subscriptions });
        }
        Ok(traces)
    }

    fn fate(&self, found: &Subscription, live: &LiveEvent) -> Result<Fate, SubscriptionError> {
        let sequence = live.event.sequence;
        let fate = |outcome| Fate {
            subscription: found.id.as_str().to_owned(),
            outcome,
            by: None,
            reason: None,
            attempts: None,
        };
        let not_selected = |by| Fate { by: Some(by), ..fate("not-selected") };
        if let Some(letter) = self.dead_letter(&found.id, live)? {
            return Ok(Fate { reason: Some(letter.1), attempts: Some(letter.0), ..fate("dead") });
        }
        if sequence <= found.definition().started_after {
            return Ok(fate("before-start"));
        }
        match found.selection.judge(&live.event, &live.images) {
            Verdict::Table => return Ok(not_selected("tables")),
            Verdict::Operation => return Ok(not_selected("operations")),
            Verdict::Where => return Ok(not_selected("where")),
            Verdict::Failed(reason) => return Ok(Fate { reason: Some(reason), ..not_selected("where") }),
            Verdict::Selected => {}
        }
        let is_refused = {
            let refused = found.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            refused.binary_search(&sequence).is_ok() || refused.contains(&sequence)
        };
        if is_refused {
            return Ok(Fate { by: Some("component"), ..fate("filtered") });
        }
        let lane = &found.lanes[lane_of(&live.event, found.lanes.len())];
        if sequence <= lane.position.load(std::sync::atomic::Ordering::Acquire) {
            let has_filter = found.spec.filter.is_some() || self.is_filtering(found);
            // What a filter refused before the service started is not remembered.
            let reason = has_filter.then(|| "or refused by the filter component before the service started".to_owned());
            let is_known = found.figures.counts().filtered_by_component > 0 || !has_filter;
            return Ok(Fate { reason: reason.filter(|_| !is_known), ..fate("acknowledged") });
        }
        Ok(match lane.state() {
            LaneState::Retrying { sequence: head, attempts, message, .. } if head == sequence => {
                Fate { reason: Some(message), attempts: Some(attempts), ..fate("attempted") }
            }
            LaneState::Lost { oldest, .. } if sequence < oldest => fate("lost"),
            LaneState::Stopped { reason } => Fate { reason: Some(reason), ..fate("waiting") },
            _ => fate("waiting"),
        })
    }

    /// Attempts and reason of an event's dead letter.
    fn dead_letter(&self, id: &SubscriptionId, live: &LiveEvent) -> Result<Option<(u32, String)>, SubscriptionError> {
        let event = &live.event;
        let mut found = None;
        self.each_dead_letter(id, Some(event.sequence.saturating_sub(1)), |letter| {
            // The rows of a snapshot have the sequence number that it was made at.
            let is_row = letter.table == *event.write.table && letter.key.as_bytes() == event.write.key;
            if letter.sequence == event.sequence && is_row {
                found = Some((letter.attempts, format!("{}: {}", letter.kind, letter.reason)));
            }
            found.is_none() && letter.sequence == event.sequence
        })?;
        Ok(found)
    }

    fn is_filtering(&self, found: &Subscription) -> bool {
        match &found.spec.subscriber {
            cdc_rest::Subscriber::Component(component) => {
                let version = self.deps.components.version(&component.name, component.version);
                version.is_ok_and(|version| version.world != "handler")
            }
            cdc_rest::Subscriber::Builtin(_) | cdc_rest::Subscriber::Sink(_) => false,
        }
    }
}
