//! A real system as a subscriber: its sink is lent the events with what their envelopes tell, and waited for.

use std::sync::Arc;
use std::time::Duration;

use cdc_rest::envelope::Subject;
use cdc_rest::{SinkSpec, SubscriptionSpec};
use cdc_sinks::{AnySink, Event, InvalidSettings, Place, Remedy, Settings, Sink as _};

use super::deps::Deps;
use super::picked::Picked;
use super::records::is_row;
use super::subscription::Subscription;
use super::target::{Declined, TargetError, id};
use crate::guest;
use crate::live::event_ref;

/// How long a receiver may go on with a batch when the lane is told to stop. What it has not answered then comes again.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A sink, with its connection while it has one.
pub(super) struct SinkTarget {
    /// Settings that were fine once and are not any more say so at each attempt.
    sink: Result<AnySink, InvalidSettings>,
    subscription: Arc<Subscription>,
    deps: Arc<Deps>,
}

impl SinkTarget {
    /// Nothing is connected yet.
    pub(super) fn open(spec: &SinkSpec, subscription: &Arc<Subscription>, lane: usize, deps: &Arc<Deps>) -> Self {
        let place = Place {
            subscription: subscription.id.as_str().to_owned(),
            lane: u16::try_from(lane).unwrap_or(u16::MAX),
            epoch: subscription.definition().epoch,
        };
        let reach = deps.reach(subscription.definition().is_declared);
        let sink = settings(spec).and_then(|settings| {
            settings.fits_reach(&reach)?;
            Ok(AnySink::open_within(&settings, spec.format, place, reach))
        });
        Self { sink, subscription: subscription.clone(), deps: deps.clone() }
    }

    /// Delivers a batch and waits for the receiver. `is_late` says that they are dead letters which are tried again.
    pub(super) fn deliver(&mut self, events: &[Picked], is_late: bool) -> Result<Result<(), Declined>, TargetError> {
        let mut known = Vec::with_capacity(events.len());
        for picked in events {
            let write = &picked.event().write;
            let schema = self.deps.schemas.get(&write.table, write.schema_version).map_err(TargetError::Schema)?;
            known.push((id(picked.event()), picked.json(), schema));
        }
        let mut batch: Vec<Event<'_>> = Vec::with_capacity(events.len());
        for (picked, (id, native, schema)) in events.iter().zip(&known) {
            let stored = picked.event();
            // Keys are UTF-8: the engine made them.
            let key = std::str::from_utf8(&stored.write.key).unwrap_or_default();
            let event = event_ref(stored.sequence, stored.timestamp_ms, &stored.write);
            let subject = Subject { event, id, key, schema, subscription: Some(self.subscription.id.as_str()) };
            batch.push(Event { subject, native, is_row: is_row(stored), is_late });
        }
        let sink = match &mut self.sink {
            Ok(sink) => sink,
            Err(error) => {
                let message = format!("subscriber.{error}; define the subscription anew");
                return Ok(Err(Declined { index: 0, remedy: guest::Remedy::Retry, after: None, message }));
            }
        };
        let mut changed = self.subscription.control.changed();
        let control = &self.subscription.control;
        let given_up = async {
            while !control.is_stopping() {
                if changed.changed().await.is_err() {
                    break;
                }
            }
            tokio::time::sleep(STOP_PATIENCE).await;
        };
        let answer = self.deps.tasks.block_on(async {
            tokio::select! {
                answer = sink.deliver(&batch) => Some(answer),
                () = given_up => None,
            }
        });
        match answer {
            None => Err(TargetError::Stopping),
            Some(Ok(())) => Ok(Ok(())),
            Some(Err(failure)) => {
                let (remedy, after) = match failure.remedy {
                    Remedy::Retry { after } => (guest::Remedy::Retry, after),
                    Remedy::Reject => (guest::Remedy::Reject, None),
                };
                let index = failure.index.min(events.len() - 1);
                Ok(Err(Declined { index, remedy, after, message: failure.message }))
            }
        }
    }
}

/// What a definition says of its sink, judged by the sink.
pub(super) fn settings(spec: &SinkSpec) -> Result<Settings, InvalidSettings> {
    let mut members = spec.settings.clone();
    members.insert("sink".to_owned(), spec.kind.as_str().into());
    let settings = Settings::parse(&members.into())?;
    settings.fits(spec.format)?;
    Ok(settings)
}

/// What is missing at the receiver of a definition, in plain words; empty if all is well, or if it has no sink.
pub async fn check(id: &cdc_rest::SubscriptionId, spec: &SubscriptionSpec) -> Result<Vec<String>, InvalidSettings> {
    let cdc_rest::Subscriber::Sink(sink) = &spec.subscriber else { return Ok(Vec::new()) };
    let place = Place { subscription: id.as_str().to_owned(), lane: 0, epoch: 0 };
    Ok(AnySink::open(&settings(sink)?, sink.format, place).check().await)
}
