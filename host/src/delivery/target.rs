//! Who a lane delivers to: a guest, a real system, or a part of the service.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cdc_access::Reach;
use cdc_rest::{ComponentRef, SubscriptionId, event_id};

use super::deps::Deps;
use super::namespace::StoreNamespace;
use super::picked::Picked;
use super::records::{self, is_row};
use super::sink::SinkTarget;
use super::slots;
use super::subscription::Figures;
use crate::components::ComponentError;
use crate::guest::{
    CallError, Failure, Grants, Guest, GuestEvent, GuestLimits, HttpGrant, Instance, KeyValueGrant, Output, Quota,
    Remedy, Stream, Usage, WriteLine,
};
use crate::store::{Document, Event, StoreError};
use crate::terminal::plain;

/// Why nothing could be delivered: not for what the subscriber did.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error(transparent)]
    Component(#[from] ComponentError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("standard output cannot be written: {0}")]
    Console(std::io::Error),
    /// An event's schema cannot be read.
    #[error(transparent)]
    Schema(StoreError),
    /// The lane was told to stop while the subscriber had not answered.
    #[error("the service stops, and the subscriber has not answered yet: the batch comes again")]
    Stopping,
}

/// Where a guest's code comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A component by name, which may follow its current version.
    Named(ComponentRef),
    /// A part of the service.
    BuiltIn(Guest),
}

/// What a guest gets, as its subscription says.
#[derive(Clone)]
pub(super) struct GuestSetup {
    pub(super) id: SubscriptionId,
    pub(super) source: Source,
    pub(super) is_filter: bool,
    pub(super) grants: cdc_rest::Grants,
    /// What whoever wrote the grants may name.
    pub(super) reach: Reach,
    /// A part of the service keeps as much as there is.
    pub(super) is_unlimited: bool,
    pub(super) limits: GuestLimits,
    pub(super) write_line: WriteLine,
    pub(super) figures: Arc<Figures>,
}

/// A guest, with its instance while it does well.
pub(super) struct GuestTarget {
    setup: GuestSetup,
    deps: Arc<Deps>,
    guest: Option<(u32, Guest)>,
    /// The registry's changes that `guest` was looked up at.
    seen: u64,
    instance: Option<Instance>,
    output: Output,
    usage: Usage,
    counted_lines: u64,
}

impl GuestTarget {
    pub(super) fn new(setup: GuestSetup, deps: Arc<Deps>, usage: Usage) -> Self {
        let output = Output::new(setup.limits.log_bytes_per_second, setup.write_line.clone());
        let guest = match &setup.source {
            Source::BuiltIn(guest) => Some((0, guest.clone())),
            Source::Named(_) => None,
        };
        Self { setup, deps, guest, seen: 0, instance: None, output, usage, counted_lines: 0 }
    }

    /// The version that runs.
    pub(super) fn version(&self) -> u32 {
        self.guest.as_ref().map_or(0, |(version, _)| *version)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.instance.as_ref().map_or(0, Instance::memory_bytes)
    }

    /// The world of what runs next. Looks whether the name means another version by now.
    pub(super) fn refresh(&mut self) -> Result<crate::guest::World, TargetError> {
        if let Source::Named(reference) = &self.setup.source {
            let changes = self.deps.components.changes();
            if self.guest.is_none() || self.seen != changes {
                let (version, guest) = self.deps.components.guest(&reference.name, reference.version)?;
                if self.version() != version || self.guest.is_none() {
                    // Between two batches: what the old instance did is acknowledged, or comes again.
                    self.instance = None;
                    self.guest = Some((version, guest));
                }
                self.seen = changes;
            }
        }
        match &self.guest {
            Some((_, guest)) => Ok(guest.world()),
            None => Err(CallError::WrongAnswer { call: "the start", reason: "there is no component".into() }.into()),
        }
    }

    fn instance(&mut self) -> Result<&mut Instance, TargetError> {
        self.refresh()?;
        let instance = match (self.instance.take(), &self.guest) {
            (Some(instance), _) => instance,
            (None, Some((_, guest))) => {
                self.setup.figures.add(|figures| &figures.instances, 1);
                Instance::new(guest, self.grants(), self.setup.limits, step_back)?
            }
            (None, None) => {
                return Err(CallError::WrongAnswer { call: "the start", reason: "there is no component".into() }.into());
            }
        };
        Ok(self.instance.insert(instance))
    }

    fn grants(&self) -> Grants {
        let setup = &self.setup;
        let origins: Vec<String> = setup.grants.http.iter().map(ToString::to_string).collect();
        // The contract has checked each; what does not parse would grant nothing.
        let http = HttpGrant::parse(origins.iter().map(String::as_str)).unwrap_or_default();
        let http = http.within(setup.reach.clone());
        let namespace = || {
            let collection = records::keyvalue(&setup.id, setup.is_filter);
            Arc::new(StoreNamespace { store: self.deps.store.clone(), collection })
        };
        let keyvalue = match &setup.grants.keyvalue {
            Some(quota) => {
                let quota = Quota { bytes: quota.max_bytes, keys: quota.max_keys };
                let quota = (!setup.is_unlimited).then_some(quota);
                Some(KeyValueGrant { namespace: namespace(), quota, usage: self.usage })
            }
            None => None,
        };
        let config = Arc::new(setup.grants.config.clone());
        Grants { config, keyvalue, http: Arc::new(http), output: self.output.clone() }
    }

    fn timed<T>(&mut self, call: impl FnOnce(&mut Instance) -> Result<T, CallError>) -> Result<T, TargetError> {
        let start = Instant::now();
        let outcome = match self.instance() {
            Ok(instance) => call(instance).map_err(TargetError::from),
            Err(error) => Err(error),
        };
        let elapsed = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.setup.figures.add(|figures| &figures.guest_us, elapsed);
        let dropped = self.output.dropped_lines();
        self.setup.figures.add(|figures| &figures.dropped_lines, dropped - self.counted_lines);
        self.counted_lines = dropped;
        if outcome.is_err() {
            self.instance = None;
        }
        outcome
    }

    /// Whether each event goes on.
    pub(super) fn accept(&mut self, events: &[&Event]) -> Result<Vec<bool>, TargetError> {
        with_guest_events(events, |events| self.timed(|instance| instance.accept(events)))
    }

    /// The handler's answer.
    pub(super) fn handle(&mut self, events: &[&Event]) -> Result<Result<(), Failure>, TargetError> {
        with_guest_events(events, |events| self.timed(|instance| instance.handle(events)))
    }

    /// What it wrote into its key-value store, as documents, and how much it keeps with it.
    pub(super) fn take_writes(&mut self) -> (Vec<Document>, Usage) {
        let Some(instance) = &mut self.instance else { return (Vec::new(), self.usage) };
        let (writes, usage) = instance.take_writes();
        self.usage = usage;
        if writes.is_empty() {
            return (Vec::new(), usage);
        }
        let collection: Arc<str> = records::keyvalue(&self.setup.id, self.setup.is_filter).into();
        let document = |(key, value): (Vec<u8>, Option<Bytes>)| Document {
            collection: collection.clone(),
            key: key.into(),
            value,
        };
        (writes.into_iter().map(document).collect(), usage)
    }
}

/// A call runs for long: its slot is for others, and its thread steps back behind all of them.
fn step_back() {
    slots::give_away();
    crate::native_code::step_back();
}

/// Lends events in the form that guests take.
pub(super) fn with_guest_events<T>(events: &[&Event], call: impl FnOnce(&[GuestEvent<'_>]) -> T) -> T {
    let ids: Vec<String> = events.iter().map(|event| id(event)).collect();
    let lent: Vec<GuestEvent<'_>> = events.iter().zip(&ids).map(|(event, id)| GuestEvent::of(event, id)).collect();
    call(&lent)
}

/// An event's id. The rows of a snapshot share a sequence number, so their keys tell them apart.
pub(super) fn id(event: &Event) -> String {
    if is_row(event) {
        let key = String::from_utf8_lossy(&event.write.key);
        return format!("row_{}_{}/{key}", event.sequence, event.write.table);
    }
    event_id(event.timestamp_ms, event.sequence)
}

/// A part of the service that takes events.
pub(super) enum Part {
    /// A line for each event on standard output.
    Console,
    /// Batches for whoever listens to the log of the service: what brokers take the place of.
    Publisher { published: u64 },
}

impl Part {
    pub(super) fn deliver(&mut self, events: &[Picked]) -> Result<(), TargetError> {
        match self {
            Self::Console => {
                let mut lines = Vec::with_capacity(events.len() * 128);
                for picked in events {
                    let write = &picked.event().write;
                    // Writing to a Vec cannot fail.
                    let name = records::operation_name(write.operation);
                    let json = picked.json();
                    // It is JSON, and so UTF-8.
                    let json = String::from_utf8_lossy(&json);
                    let _ = writeln!(lines, "[{name}] {}: {}", plain(&write.table), plain(&json));
                }
                let mut out = std::io::stdout().lock();
                match out.write_all(&lines).and_then(|()| out.flush()) {
                    Ok(()) => Ok(()),
                    // Nobody reads any more: as good as read.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                    Err(error) => Err(TargetError::Console(error)),
                }
            }
            Self::Publisher { published } => {
                *published += events.len() as u64;
                let first = events.first().map_or(0, |picked| picked.event().sequence);
                let last = events.last().map_or(0, |picked| picked.event().sequence);
                tracing::debug!(target: "cdc::publisher", events = events.len(), first, last, published, "batch published");
                Ok(())
            }
        }
    }
}

/// Who gets the events.
pub(super) enum Target {
    Guest(Box<GuestTarget>),
    Sink(Box<SinkTarget>),
    Part(Part),
}

/// The first event of a batch that a subscriber has not done, and what is to become of it.
#[derive(Debug)]
pub(super) struct Declined {
    /// Its place in the batch.
    pub(super) index: usize,
    pub(super) remedy: Remedy,
    /// How long the subscriber wants to be left alone.
    pub(super) after: Option<Duration>,
    pub(super) message: String,
}

impl From<Failure> for Declined {
    fn from(failure: Failure) -> Self {
        let Failure { remedy, index, message } = failure;
        Self { index, remedy, after: None, message }
    }
}

/// Writes a guest's lines to the service's log.
pub(super) fn log_lines(id: &SubscriptionId) -> WriteLine {
    let id = id.as_str().to_owned();
    Arc::new(move |stream, line| {
        let stream = match stream {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        };
        tracing::info!(target: "cdc::guest", subscription = %id, stream, "{line}");
    })
}

/// The limits of a subscription, as the sandbox takes them.
pub(super) fn guest_limits(limits: &cdc_rest::GuestLimits) -> GuestLimits {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    GuestLimits {
        memory_bytes: size(limits.memory_bytes),
        table_elements: limits.table_elements as usize,
        instances: limits.instances as usize,
        call_timeout: Duration::from_millis(u64::from(limits.call_timeout_ms)),
        log_bytes_per_second: limits.log_bytes_per_second,
        requests_in_flight: limits.requests_in_flight as usize,
    }
}
