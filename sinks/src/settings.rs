//! What a subscription says about its sink: the object with the member `sink`.

use std::fmt;

use cdc_rest::envelope::Format;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{kafka, nats, postgres, redis, webhook};

/// Which sink, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// `{"sink": "webhook", …}`.
    Webhook(webhook::Options),
    /// `{"sink": "redis", …}`.
    Redis(redis::Options),
    /// `{"sink": "nats", …}`.
    Nats(nats::Options),
    /// `{"sink": "kafka", …}`.
    Kafka(kafka::Options),
    /// `{"sink": "postgres", …}`.
    Postgres(postgres::Options),
}

/// Settings that are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{member}` {why}")]
pub struct InvalidSettings {
    /// The member that is wrong, with what leads to it: `createStream.storage`.
    pub member: String,
    /// What is wrong and what is allowed: reads on after the member's name. Holds no secret.
    pub why: String,
}

impl InvalidSettings {
    /// A member is wrong, for a reason that reads on after its name.
    pub(crate) fn new(member: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { member: member.into(), why: why.to_string() }
    }
}

/// Whether a sink's options mean something.
pub(crate) trait Checked: DeserializeOwned {
    /// What serde cannot see: ranges, addresses, members that exclude each other.
    fn checked(self) -> Result<Self, InvalidSettings>;
}

impl Settings {
    /// The names of all sinks.
    pub const SINKS: &[&str] = &["webhook", "redis", "nats", "kafka", "postgres"];

    /// Takes the object of a subscription. A member that is `null` counts as left out.
    pub fn parse(value: &Value) -> Result<Self, InvalidSettings> {
        let Value::Object(members) = value else {
            return Err(InvalidSettings::new("subscriber", "must be an object"));
        };
        let known = Self::SINKS.join(", ");
        match members.get("sink") {
            Some(Value::String(sink)) => match sink.as_str() {
                "webhook" => options(members).map(Self::Webhook),
                "redis" => options(members).map(Self::Redis),
                "nats" => options(members).map(Self::Nats),
                "kafka" => options(members).map(Self::Kafka),
                "postgres" => options(members).map(Self::Postgres),
                _ => Err(InvalidSettings::new("sink", format!("names no sink; there are {known}"))),
            },
            Some(_) => Err(InvalidSettings::new("sink", format!("must be one of {known}"))),
            None => Err(InvalidSettings::new("sink", format!("is missing: name one of {known}"))),
        }
    }

    /// The object again, with every member that means something. Secrets are shown as they were given: what is read
    /// can be sent again.
    pub fn write(&self) -> Value {
        let written = match self {
            Self::Webhook(options) => serde_json::to_value(options),
            Self::Redis(options) => serde_json::to_value(options),
            Self::Nats(options) => serde_json::to_value(options),
            Self::Kafka(options) => serde_json::to_value(options),
            Self::Postgres(options) => serde_json::to_value(options),
        };
        let mut object = Map::from_iter([("sink".to_owned(), Value::from(self.name()))]);
        // Options are plain structs of texts and numbers, which serde always writes as an object.
        if let Ok(Value::Object(members)) = written {
            object.extend(members);
        }
        Value::Object(object)
    }

    /// The sink's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Redis(_) => "redis",
            Self::Nats(_) => "nats",
            Self::Kafka(_) => "kafka",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Whether the sink can send events in this form.
    pub fn fits(&self, format: Format) -> Result<(), InvalidSettings> {
        match self {
            Self::Webhook(options) => options.fits(format),
            Self::Postgres(_) if format != Format::default() => {
                Err(InvalidSettings::new("format", "goes with other sinks: `postgres` writes rows, not messages"))
            }
            _ => Ok(()),
        }
    }
}

/// One sink's options out of the members beside `sink`.
fn options<T: Checked>(members: &Map<String, Value>) -> Result<T, InvalidSettings> {
    let rest = members.iter().filter(|(name, value)| *name != "sink" && !value.is_null());
    let rest = Value::Object(rest.map(|(name, value)| (name.clone(), value.clone())).collect());
    let options: T = serde_path_to_error::deserialize(rest).map_err(|error| {
        let path = error.path().to_string();
        let why = error.into_inner().to_string();
        // Of the whole object serde says which member is missing or unknown, and that alone.
        match why.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
            Some((name, _)) if path == "." => InvalidSettings::new(name, "is missing"),
            Some((name, _)) => InvalidSettings::new(format!("{path}.{name}"), "is missing"),
            None => InvalidSettings::new(if path == "." { "subscriber".to_owned() } else { path }, spoken(&why)),
        }
    })?;
    options.checked()
}

/// serde's message so that it reads on after a name.
fn spoken(why: &str) -> String {
    match why.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, ")) {
        Some((_, expected)) => format!("is no member here; {expected}"),
        None if why.starts_with("invalid ") => format!("is wrong: {why}"),
        None => why.to_owned(),
    }
}

/// A number must lie within a range.
pub(crate) fn in_range<T>(member: &str, value: T, range: std::ops::RangeInclusive<T>) -> Result<(), InvalidSettings>
where
    T: PartialOrd + fmt::Display,
{
    if range.contains(&value) {
        return Ok(());
    }
    let why = format!("must be from {} to {}, not {value}", range.start(), range.end());
    Err(InvalidSettings::new(member, why))
}

/// How long one operation at a receiver may take, in ms: a second to ten minutes would do, a test wants less.
pub(crate) const TIMEOUT_MS: std::ops::RangeInclusive<u32> = 10..=600_000;

/// The default of every `timeoutMs`.
pub(crate) fn default_timeout_ms() -> u32 {
    30_000
}
