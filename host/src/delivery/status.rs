//! How a subscription does, for whoever looks: the JSON of `GET /subscriptions/:id`, and figures for the metrics.

use std::sync::atomic::Ordering;

use cdc_rest::SubscriptionId;
use serde::Serialize;
use serde_json::value::RawValue;

use super::deps::now_ms;
use super::error::SubscriptionError;
use super::subscription::{Counts, LaneState, Subscription};
use super::subscriptions::Subscriptions;
use crate::metrics::DeliveryDelay;
use crate::store::Sequence;

/// A subscription as `GET /subscriptions/:id` shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its name.
    pub id: String,
    /// The worst of its lanes: `running`, `paused`, `retrying`, `stopped` or `lost`.
    pub state: &'static str,
    /// Why, unless it is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its definition.
    pub definition: Box<RawValue>,
    /// Whether the configuration declares it.
    pub declared: bool,
    /// When it was made, in ms since 1970.
    pub created_at: u64,
    /// The first event that it was made for.
    pub first_sequence: Sequence,
    /// Up to here everything is acknowledged.
    pub acknowledged_sequence: Sequence,
    /// Up to here everything was looked at.
    pub scanned_sequence: Sequence,
    /// Whether the rows that come before the events are still being delivered.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_snapshot: bool,
    /// Events in the log that it has not acknowledged or passed over.
    pub lag_events: u64,
    /// The age of the oldest of them.
    pub lag_ms: u64,
    /// Selected events that wait in memory for the next batch or its answer.
    pub waiting_events: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// The version of the component that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component_version: Option<u64>,
    /// Linear memory of its instances.
    pub memory_bytes: u64,
    /// What was done since the service started.
    pub since_start: SinceStart,
    /// The last failure since the service started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
    /// Where each lane stands.
    pub lanes: Vec<LaneStatus>,
}

/// What a subscription has done since the service started.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SinceStart {
    delivered: u64,
    batches: u64,
    retries: u64,
    traps: u64,
    timeouts: u64,
    exits: u64,
    wrong_answers: u64,
    dead: u64,
    unselected: u64,
    filtered_by_where: u64,
    where_failures: u64,
    filtered_by_component: u64,
    guest_ms: u64,
    dropped_log_lines: u64,
    instances: u64,
}

/// A failure.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    kind: &'static str,
    message: String,
    sequence: Sequence,
    at: u64,
}

/// Where a lane stands.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneStatus {
    state: &'static str,
    acknowledged_sequence: Sequence,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<RetryStatus>,
}

/// What a lane waits for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RetryStatus {
    sequence: Sequence,
    attempts: u32,
    kind: &'static str,
    message: String,
    next_attempt_at: u64,
}

/// A subscription's figures for the metrics.
#[derive(Clone, Debug)]
pub struct SubscriptionFigures {
    /// Its name.
    pub id: String,
    /// 0 running, 1 paused, 2 retrying, 3 stopped, 4 lost.
    pub state: u8,
    /// Events in the log that it has not acknowledged.
    pub lag_events: u64,
    /// The age of the oldest of them, in ms.
    pub lag_ms: u64,
    /// Linear memory of its instances.
    pub memory_bytes: u64,
    /// What it has done.
    pub counts: Counts,
    /// From a commit until the subscriber was entered.
    pub(crate) delay: DeliveryDelay,
}

impl Subscriptions {
    /// How a subscription does.
    pub fn status(&self, id: &SubscriptionId) -> Result<Status, SubscriptionError> {
        let found = self.get(id)?;
        self.status_of(&found)
    }

    /// How every subscription does, by id.
    pub fn statuses(&self) -> Result<Vec<Status>, SubscriptionError> {
        self.all().iter().map(|found| self.status_of(found)).collect()
    }

    /// The figures of every subscription, by id.
    #[must_use]
    pub fn figures(&self) -> Vec<SubscriptionFigures> {
        let figures = |found: &std::sync::Arc<Subscription>| {
            let (lag_events, lag_ms) = self.lag(found);
            let (state, _) = state(found);
            SubscriptionFigures {
                id: found.id.as_str().to_owned(),
                state: state as u8,
                lag_events,
                lag_ms,
                memory_bytes: memory_bytes(found),
                counts: found.figures.counts(),
                delay: found.figures.delay.clone(),
            }
        };
        self.all().iter().map(figures).collect()
    }

    /// Events that wait for the subscription of this name; 0 without one.
    #[must_use]
    pub fn waiting_for(&self, id: &str) -> u64 {
        let found = SubscriptionId::parse(id).ok().and_then(|id| self.get(&id).ok());
        found.map_or(0, |found| self.lag(&found).0)
    }

    /// Up to where the subscription of this name has acknowledged; none without one.
    #[must_use]
    pub fn acknowledged(&self, id: &str) -> Option<Sequence> {
        let found = SubscriptionId::parse(id).ok().and_then(|id| self.get(&id).ok())?;
        Some(found.position())
    }

    fn lag(&self, found: &Subscription) -> (u64, u64) {
        let newest = *self.deps.tail.newest().borrow();
        // A lane that has nothing in hand is as far as it has looked; that is noted now and then only.
        let reached = |lane: &super::subscription::Lane| match lane.waiting.load(Ordering::Relaxed) {
            0 => lane.scanned.load(Ordering::Acquire).max(lane.position.load(Ordering::Acquire)),
            _ => lane.position.load(Ordering::Acquire),
        };
        let position = found.lanes.iter().map(reached).min().unwrap_or(0);
        let events = newest.saturating_sub(position);
        if events == 0 {
            return (0, 0);
        }
        let next = self.deps.tail.read(position).ok().flatten();
        let captured = next.and_then(|chunk| Some(chunk.events_after(position).first()?.event.timestamp_ms));
        (events, captured.map_or(0, |captured| now_ms().saturating_sub(captured)))
    }

    fn status_of(&self, found: &Subscription) -> Result<Status, SubscriptionError> {
        let (lag_events, lag_ms) = self.lag(found);
        let (state, reason) = state(found);
        let definition = found.definition().clone();
        let load = |lane: &super::subscription::Lane| lane.version.load(Ordering::Relaxed);
        let version = found.lanes.iter().map(load).max().filter(|version| *version > 0);
        Ok(Status {
            id: found.id.as_str().to_owned(),
            state: state.as_str(),
            reason,
            definition: definition.spec,
            declared: definition.is_declared,
            created_at: definition.created_ms,
            first_sequence: definition.started_after + 1,
            acknowledged_sequence: found.position(),
            scanned_sequence: found.lanes.iter().map(|lane| lane.scanned.load(Ordering::Relaxed)).min().unwrap_or(0),
            in_snapshot: found.lanes.iter().any(|lane| lane.is_in_snapshot.load(Ordering::Acquire)),
            lag_events,
            lag_ms,
            waiting_events: found.lanes.iter().map(|lane| lane.waiting.load(Ordering::Relaxed)).sum(),
            dead_letters: self.count_dead_letters(&found.id)?,
            component_version: version,
            memory_bytes: memory_bytes(found),
            since_start: since_start(&found.figures.counts()),
            last_failure: found.figures.last_failure().map(|failure| Failure {
                kind: failure.kind,
                message: failure.message,
                sequence: failure.sequence,
                at: failure.at_ms,
            }),
            lanes: found.lanes.iter().map(lane_status).collect(),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Running,
    Paused,
    Retrying,
    Stopped,
    Lost,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Retrying => "retrying",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
        }
    }
}

fn lane_state(state: &LaneState) -> (State, Option<String>) {
    match state {
        LaneState::Running => (State::Running, None),
        LaneState::Retrying { message, .. } => (State::Retrying, Some(message.clone())),
        LaneState::Stopped { reason } => (State::Stopped, Some(reason.clone())),
        LaneState::Lost { next, oldest } => {
            let reason = format!(
                "retention has dropped events {next} to {} before they were delivered; POST /subscriptions/…/rewind with \
                 {{\"to\":\"beginning\"}} goes on with the oldest that is kept",
                oldest - 1
            );
            (State::Lost, Some(reason))
        }
    }
}

/// The worst of a subscription's lanes.
fn state(found: &Subscription) -> (State, Option<String>) {
    let lanes = found.lanes.iter().map(|lane| lane_state(&lane.state()));
    let worst = lanes.max_by_key(|(state, _)| *state).unwrap_or((State::Running, None));
    if found.control.is_paused() && worst.0 < State::Stopped { (State::Paused, None) } else { worst }
}

fn lane_status(lane: &super::subscription::Lane) -> LaneStatus {
    let state = lane.state();
    let retry = match &state {
        LaneState::Retrying { sequence, attempts, kind, message, next_ms } => Some(RetryStatus {
            sequence: *sequence,
            attempts: *attempts,
            kind,
            message: message.clone(),
            next_attempt_at: *next_ms,
        }),
        _ => None,
    };
    LaneStatus {
        state: lane_state(&state).0.as_str(),
        acknowledged_sequence: lane.position.load(Ordering::Acquire),
        retry,
    }
}

fn memory_bytes(found: &Subscription) -> u64 {
    found.lanes.iter().map(|lane| lane.memory_bytes.load(Ordering::Relaxed)).sum()
}

fn since_start(counts: &Counts) -> SinceStart {
    SinceStart {
        delivered: counts.delivered,
        batches: counts.batches,
        retries: counts.retries,
        traps: counts.traps,
        timeouts: counts.timeouts,
        exits: counts.exits,
        wrong_answers: counts.wrong_answers,
        dead: counts.dead,
        unselected: counts.unselected,
        filtered_by_where: counts.filtered_by_condition,
        where_failures: counts.condition_failures,
        filtered_by_component: counts.filtered_by_component,
        guest_ms: counts.guest_us / 1_000,
        dropped_log_lines: counts.dropped_lines,
        instances: counts.instances,
    }
}
