//! Trying a component on events that are kept, without effects: what it would accept, what it would answer, how long it
//! takes, and where it differs from another version.
//!
//! It runs with the settings and limits of its subscription. What it writes into its key-value store is seen by it and
//! thrown away; its requests go nowhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cdc_rest::{ComponentName, SubscriptionId};
use serde::Serialize;

use super::error::SubscriptionError;
use super::namespace::StoreNamespace;
use super::records;
use super::subscription::Subscription;
use super::subscriptions::Subscriptions;
use super::target::{guest_limits, with_guest_events};
use crate::components::ComponentError;
use crate::guest::{
    CallError, Grants, Guest, HttpGrant, Instance, KeyValueGrant, Output, Quota, Remedy, Usage, WriteLine,
};
use crate::selection::Verdict;
use crate::store::{Event, Sequence, StoreError};

/// Events looked at in one run.
const EVENTS: u64 = 10_000;
/// Events of one call.
const BATCH: usize = 256;
/// Differences, and failures of each version, that are shown.
const SHOWN: usize = 100;
/// Log lines that are shown.
const LINES: usize = 100;

/// What to try.
#[derive(Clone, Debug)]
pub struct DryRun {
    /// The component; the subscription's own, if none.
    pub component: Option<ComponentName>,
    /// Its version; the current one, if none.
    pub version: Option<u32>,
    /// The version to compare with; the one that is live for the subscription, if none.
    pub against: Option<u32>,
    /// The first event; the oldest of the range's length, if none.
    pub from: Option<Sequence>,
    /// The last event; the newest, if none.
    pub to: Option<Sequence>,
}

/// What a run has shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DryRunReport {
    from: Sequence,
    to: Sequence,
    events: u64,
    selected: u64,
    candidate: Tried,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Tried>,
    different: u64,
    differences: Vec<Difference>,
}

/// What one version did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tried {
    component: String,
    version: u32,
    accepted: u64,
    filtered: u64,
    handled: u64,
    rejected: u64,
    retried: u64,
    crashed: u64,
    guest_ms: f64,
    us_per_event: f64,
    failures: Vec<TriedFailure>,
    output: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct TriedFailure {
    sequence: Sequence,
    answer: Answer,
}

#[derive(Clone, Debug, Serialize)]
struct Difference {
    sequence: Sequence,
    table: String,
    key: String,
    candidate: Answer,
    live: Answer,
}

/// What a version says to one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
enum Answer {
    Accepted,
    Filtered,
    Handled,
    Rejected { reason: String },
    Retried { reason: String },
    Crashed { kind: &'static str, reason: String },
}

impl Subscriptions {
    /// Tries a component for a subscription. Blocks for as long as it takes.
    pub fn dry_run(&self, id: &SubscriptionId, run: &DryRun) -> Result<DryRunReport, SubscriptionError> {
        let found = self.get(id)?;
        let own = match &found.spec.subscriber {
            cdc_rest::Subscriber::Component(component) => Some(component.clone()),
            cdc_rest::Subscriber::Builtin(_) | cdc_rest::Subscriber::Sink(_) => found.spec.filter.clone(),
        };
        let name = match (&run.component, &own) {
            (Some(name), _) => name.clone(),
            (None, Some(own)) => own.name.clone(),
            (None, None) => return Err(SubscriptionError::NothingToTry(id.clone())),
        };
        let (version, candidate) = self.deps.components.guest(&name, run.version)?;
        let live = match (&own, run.against) {
            (_, Some(against)) => Some(self.deps.components.guest(&name, Some(against))?),
            (Some(own), None) if own.name == name => Some(self.deps.components.guest(&name, own.version)?),
            _ => None,
        };
        let live = live.filter(|(live, _)| *live != version);
        let (from, to, events) = self.range(run)?;
        let selected: Vec<&Event> = events
            .iter()
            .filter(|event| {
                let images = crate::selection::Images::default();
                found.selection.judge(event, &images) == Verdict::Selected
            })
            .collect();
        let (tried, answers) = self.try_guest(&found, &name, version, &candidate, &selected)?;
        let (live_tried, live_answers) = match &live {
            Some((version, guest)) => {
                let (tried, answers) = self.try_guest(&found, &name, *version, guest, &selected)?;
                (Some(tried), answers)
            }
            None => (None, Vec::new()),
        };
        let differing = || answers.iter().zip(&live_answers).enumerate().filter(|(_, (one, other))| one != other);
        let differences = differing()
            .take(SHOWN)
            .map(|(at, (candidate, live))| Difference {
                sequence: selected[at].sequence,
                table: selected[at].write.table.to_string(),
                key: String::from_utf8_lossy(&selected[at].write.key).into_owned(),
                candidate: candidate.clone(),
                live: live.clone(),
            })
            .collect();
        Ok(DryRunReport {
            from,
            to,
            events: events.len() as u64,
            selected: selected.len() as u64,
            candidate: tried,
            live: live_tried,
            different: differing().count() as u64,
            differences,
        })
    }

    /// The events of the range.
    fn range(&self, run: &DryRun) -> Result<(Sequence, Sequence, Vec<Event>), SubscriptionError> {
        let bounds = self.deps.store.view()?.bounds();
        let to = run.to.unwrap_or(bounds.newest).min(bounds.newest);
        let from = run.from.unwrap_or_else(|| bounds.oldest.max((to + 1).saturating_sub(EVENTS)));
        if from < bounds.oldest && bounds.newest > 0 {
            return Err(StoreError::Dropped { oldest: bounds.oldest }.into());
        }
        if to >= from && to - from >= EVENTS {
            return Err(SubscriptionError::RangeTooLong { most: EVENTS });
        }
        let mut events = Vec::new();
        let mut after = from.saturating_sub(1);
        while after < to {
            let Some(chunk) = self.deps.tail.read(after)? else { break };
            let new = chunk.events_after(after).iter().filter(|live| live.event.sequence <= to);
            events.extend(new.map(|live| live.event.clone()));
            after = chunk.last();
        }
        Ok((from, to, events))
    }

    fn try_guest(
        &self,
        found: &Subscription,
        name: &ComponentName,
        version: u32,
        guest: &Guest,
        events: &[&Event],
    ) -> Result<(Tried, Vec<Answer>), ComponentError> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let write: WriteLine = {
            let lines = lines.clone();
            Arc::new(move |_, line: &str| {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() < LINES {
                    lines.push(line.to_owned());
                }
            })
        };
        let mut trial = Trial { deps: self, found, guest, write, instance: None };
        let start = Instant::now();
        let mut answers = Vec::with_capacity(events.len());
        for batch in events.chunks(BATCH) {
            trial.batch(batch, &mut answers);
        }
        let elapsed = start.elapsed().as_secs_f64();
        drop(trial);
        let count = |wanted: fn(&Answer) -> bool| answers.iter().filter(|answer| wanted(answer)).count() as u64;
        let failures = events.iter().zip(&answers).filter_map(|(event, answer)| match answer {
            Answer::Accepted | Answer::Filtered | Answer::Handled => None,
            answer => Some(TriedFailure { sequence: event.sequence, answer: answer.clone() }),
        });
        let filtered = count(|answer| *answer == Answer::Filtered);
        let tried = Tried {
            component: name.as_str().to_owned(),
            version,
            accepted: answers.len() as u64 - filtered,
            filtered,
            handled: count(|answer| *answer == Answer::Handled),
            rejected: count(|answer| matches!(answer, Answer::Rejected { .. })),
            retried: count(|answer| matches!(answer, Answer::Retried { .. })),
            crashed: count(|answer| matches!(answer, Answer::Crashed { .. })),
            guest_ms: (elapsed * 1e6).round() / 1e3,
            us_per_event: (elapsed * 1e9 / events.len().max(1) as f64).round() / 1e3,
            failures: failures.take(SHOWN).collect(),
            output: std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        Ok((tried, answers))
    }
}

/// One version being tried.
struct Trial<'a> {
    deps: &'a Subscriptions,
    found: &'a Subscription,
    guest: &'a Guest,
    write: WriteLine,
    instance: Option<Instance>,
}

impl Trial<'_> {
    fn instance(&mut self) -> Result<&mut Instance, CallError> {
        let instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                let spec = &self.found.spec;
                let limits = guest_limits(&spec.limits);
                let keyvalue = spec.grants.keyvalue.as_ref().map(|quota| KeyValueGrant {
                    namespace: Arc::new(StoreNamespace {
                        store: self.deps.deps.store.clone(),
                        collection: records::keyvalue(&self.found.id, false),
                    }),
                    quota: Some(Quota { bytes: quota.max_bytes, keys: quota.max_keys }),
                    usage: Usage::default(),
                });
                let grants = Grants {
                    config: Arc::new(spec.grants.config.clone()),
                    keyvalue,
                    http: Arc::new(HttpGrant::default()),
                    output: Output::new(limits.log_bytes_per_second, self.write.clone()),
                };
                Instance::new(self.guest, grants, limits, || crate::native_code::lower_priority(10))?
            }
        };
        Ok(self.instance.insert(instance))
    }

    fn batch(&mut self, events: &[&Event], answers: &mut Vec<Answer>) {
        let world = self.guest.world();
        let mut accepted: Vec<bool> = vec![true; events.len()];
        let first = answers.len();
        answers.extend(events.iter().map(|_| Answer::Accepted));
        if world.filters() {
            match self.call(|instance| with_guest_events(events, |events| instance.accept(events))) {
                Ok(answer) => accepted = answer,
                Err(error) if events.len() > 1 => {
                    answers.truncate(first);
                    self.halves(events, answers, &error);
                    return;
                }
                Err(error) => {
                    answers[first] = crashed(&error);
                    return;
                }
            }
            for (at, is_accepted) in accepted.iter().enumerate() {
                if !is_accepted {
                    answers[first + at] = Answer::Filtered;
                }
            }
        }
        if !world.handles() {
            return;
        }
        let places: Vec<usize> = (0..events.len()).filter(|at| accepted[*at]).collect();
        let mut next = 0;
        while next < places.len() {
            let rest: Vec<&Event> = places[next..].iter().map(|at| events[*at]).collect();
            match self.call(|instance| with_guest_events(&rest, |events| instance.handle(events))) {
                Ok(Ok(())) => {
                    for place in &places[next..] {
                        answers[first + place] = Answer::Handled;
                    }
                    return;
                }
                Ok(Err(failure)) => {
                    for place in &places[next..next + failure.index] {
                        answers[first + place] = Answer::Handled;
                    }
                    let reason = failure.message;
                    answers[first + places[next + failure.index]] = match failure.remedy {
                        Remedy::Reject => Answer::Rejected { reason },
                        Remedy::Retry => Answer::Retried { reason },
                    };
                    next += failure.index + 1;
                }
                Err(error) if events.len() > 1 => {
                    answers.truncate(first);
                    self.halves(events, answers, &error);
                    return;
                }
                Err(error) => {
                    answers[first + places[next]] = crashed(&error);
                    return;
                }
            }
        }
    }

    /// Which event crashes it shows in smaller company. A timeout is not looked for: it would take too long.
    fn halves(&mut self, events: &[&Event], answers: &mut Vec<Answer>, error: &CallError) {
        if matches!(error, CallError::Timeout { .. }) {
            answers.extend(events.iter().map(|_| crashed(error)));
            return;
        }
        let (left, right) = events.split_at(events.len() / 2);
        self.batch(left, answers);
        self.batch(right, answers);
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Instance) -> Result<T, CallError>) -> Result<T, CallError> {
        let outcome = self.instance().and_then(call);
        if outcome.is_err() {
            self.instance = None;
        }
        outcome
    }
}

fn crashed(error: &CallError) -> Answer {
    Answer::Crashed { kind: error.kind(), reason: error.to_string() }
}
