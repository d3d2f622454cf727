//! The definition of a subscription: the body of `PUT /subscriptions/:id`, and the same in `cdc.toml`.
//!
//! What is left out, or `null`, has its default. What is written back ([`SubscriptionSpec::write`]) has every member,
//! so that a definition that was read can be sent again and means the same under later defaults.
//!
//! Not decided here: whether `where` is an expression, whether components and built-ins exist, and whether the
//! sequence number to start from is still, or yet, in the log.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::{Map, Value};

use crate::envelope::Format;
use crate::members;
use crate::{ComponentName, HttpOrigin, Operation, Problem};

/// What a user declares of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionSpec {
    /// `tables`: names, `*` standing for any run of characters; empty for every table.
    pub tables: Vec<String>,
    /// `operations`, each once; empty for every operation.
    pub operations: Vec<Operation>,
    /// `where`: a CEL expression over the event, not looked at here.
    pub condition: Option<String>,
    /// `filter`: a component that says which of the selected events go on to the subscriber.
    pub filter: Option<ComponentRef>,
    /// `subscriber`: who gets the events. The one member without a default.
    pub subscriber: Subscriber,
    /// `start`: where a new subscription begins.
    pub start: Start,
    /// `batch`: how events are gathered.
    pub batch: Batching,
    /// `lanes`: how many batches may be under way at once, the events of a key always in the same lane. 1 to 64.
    pub lanes: u16,
    /// `retry`: what happens when the subscriber does not succeed.
    pub retry: Retry,
    /// `deadLetters`: what becomes of events that are given up.
    pub dead_letters: DeadLetters,
    /// `grants`: what the component may use.
    pub grants: Grants,
    /// `limits`: how much of it.
    pub limits: GuestLimits,
    /// `paused`: whether delivery waits until it is resumed.
    pub paused: bool,
}

/// A component, by name: `"name"` or `{"component": "name", "version": 3}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentRef {
    /// Its name.
    pub name: ComponentName,
    /// This version, from 1; the current one, which follows uploads, if none.
    pub version: Option<u32>,
}

/// Who gets the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscriber {
    /// `{"component": "name", "version": 3}`.
    Component(ComponentRef),
    /// `{"builtin": "name"}`: a part of the service. Which there are, the service knows.
    Builtin(String),
    /// `{"sink": "kind", …}`: a real system.
    Sink(SinkSpec),
}

/// A real system that events go to. Which kinds there are and what each takes, the service knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSpec {
    /// `sink`: its kind.
    pub kind: String,
    /// `format`: how events are written for it.
    pub format: Format,
    /// Every other member, not looked at here.
    pub settings: Map<String, Value>,
}

/// Where a new subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// `"now"`: with the next event that is captured.
    #[default]
    Now,
    /// `"beginning"`: with the oldest event that is kept.
    Beginning,
    /// `"snapshot"`: with the rows of the selected tables as they are, then with what changes.
    Snapshot,
    /// A number: with the event of this sequence number, from 1.
    At(u64),
}

/// How events are gathered for one call of the subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// `maxEvents`: the most events of a batch. 1 to 10,000.
    pub max_events: u32,
    /// `maxBytes`: a batch ends with the event that passes this size. 1 KiB to 64 MiB.
    pub max_bytes: u32,
    /// `lingerMs`: how long a batch that is not full waits for more events. 0 to 60,000.
    pub linger_ms: u32,
}

/// What happens when the subscriber does not succeed. Pauses between attempts double from `initial_ms` to `max_ms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// `initialMs`: the first pause. 1 to 3,600,000 (an hour), and at most `maxMs`.
    pub initial_ms: u32,
    /// `maxMs`: the longest pause. 1 to 86,400,000 (a day).
    pub max_ms: u32,
    /// `maxAttempts`: after so many answers that say `retry` the event is given up. 1 to 1,000,000; without end, if
    /// none.
    pub max_attempts: Option<u32>,
    /// `maxCrashes`: after so many traps, timeouts and the like the event is given up. 1 to 1,000.
    pub max_crashes: u32,
}

/// What becomes of events that are given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// `policy`.
    pub policy: DeadLetterPolicy,
    /// `max`: the most that are parked; at one more, delivery stops. 1 to 1,000,000.
    pub max: u32,
}

/// How delivery goes on after an event that was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeadLetterPolicy {
    /// `"park"`: the event is put aside, and delivery goes on with the next.
    #[default]
    Park,
    /// `"stop"`: delivery stops until somebody decides.
    Stop,
}

/// What a component may use. Nothing, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// `config`: its settings, by name. At most 1,000, of 64 KiB each.
    pub config: BTreeMap<String, String>,
    /// `keyvalue`: how much it may keep in a store of its own; `true` for the default quota, `false` for none.
    pub keyvalue: Option<KeyValueQuota>,
    /// `http`: where it may send requests, each once. At most 100.
    pub http: Vec<HttpOrigin>,
}

/// How much a component may keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValueQuota {
    /// `maxBytes`: keys and values together. 1 KiB to 1 TiB.
    pub max_bytes: u64,
    /// `maxKeys`. 1 to 1,000,000,000.
    pub max_keys: u64,
}

/// How much an instance of a component may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestLimits {
    /// `memoryBytes`: all its linear memories together. 1 MiB to 4 GiB.
    pub memory_bytes: u64,
    /// `tableElements`: all its tables together. 1 to 10,000,000.
    pub table_elements: u32,
    /// `instances`: of core modules within the component. 1 to 10,000.
    pub instances: u32,
    /// `callTimeoutMs`: how long one call may take. 1 to 600,000 (ten minutes).
    pub call_timeout_ms: u32,
    /// `logBytesPerSecond`: what it writes beyond that is dropped and counted. 0 to 16 MiB.
    pub log_bytes_per_second: u32,
    /// `requestsInFlight`: HTTP requests at a time. 1 to 1,000.
    pub requests_in_flight: u32,
}

impl SubscriptionSpec {
    /// The definition with nothing but a subscriber.
    pub fn new(subscriber: Subscriber) -> Self {
        Self {
            tables: Vec::new(),
            operations: Vec::new(),
            condition: None,
            filter: None,
            subscriber,
            start: Start::default(),
            batch: Batching::default(),
            lanes: 1,
            retry: Retry::default(),
            dead_letters: DeadLetters::default(),
            grants: Grants::default(),
            limits: GuestLimits::default(),
            paused: false,
        }
    }

    /// Takes a whole body. A problem names the member that is wrong, in its detail and as its member `member`.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        Self::from_value(&members::json(body)?)
    }
}

/// For `cdc.toml`. The error is the problem's detail.
impl<'de> Deserialize<'de> for SubscriptionSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(&value).map_err(|problem| D::Error::custom(problem.detail()))
    }
}

impl Start {
    /// The word that definitions have for it; none for a sequence number.
    pub(crate) fn word(self) -> Option<&'static str> {
        match self {
            Self::Now => Some("now"),
            Self::Beginning => Some("beginning"),
            Self::Snapshot => Some("snapshot"),
            Self::At(_) => None,
        }
    }
}

impl DeadLetterPolicy {
    /// The name as definitions have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Park => "park",
            Self::Stop => "stop",
        }
    }
}

/// 256 events or 1 MiB, at once.
impl Default for Batching {
    fn default() -> Self {
        Self { max_events: 256, max_bytes: 1 << 20, linger_ms: 0 }
    }
}

/// From 100 ms to a minute, without end, but only five crashes.
impl Default for Retry {
    fn default() -> Self {
        Self { initial_ms: 100, max_ms: 60_000, max_attempts: None, max_crashes: 5 }
    }
}

/// 10,000 events are parked.
impl Default for DeadLetters {
    fn default() -> Self {
        Self { policy: DeadLetterPolicy::Park, max: 10_000 }
    }
}

/// 64 MiB in a million keys.
impl Default for KeyValueQuota {
    fn default() -> Self {
        Self { max_bytes: 64 << 20, max_keys: 1_000_000 }
    }
}

/// 64 MiB, five seconds, 16 KiB of log lines per second, eight requests at a time.
impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            table_elements: 100_000,
            instances: 100,
            call_timeout_ms: 5_000,
            log_bytes_per_second: 16 << 10,
            requests_in_flight: 8,
        }
    }
}

#[cfg(test)]
mod tests;
