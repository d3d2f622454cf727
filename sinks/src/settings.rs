//! What a subscription says about its sink: the object with the member `sink`.

use std::fmt;
use std::path::PathBuf;

use cdc_access::Reach;
use cdc_rest::envelope::Format;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::hidden::Hidden;
use crate::secret::without_value;
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

    /// Whether whoever defines the sink may name what it names. What names lead to is seen when it connects.
    pub fn fits_reach(&self, reach: &Reach) -> Result<(), InvalidSettings> {
        if matches!(self, Self::Kafka(_)) && reach.is_of_strangers() {
            let why = "is `kafka`, which connects to whatever addresses its brokers name: since other machines can call \
                       the API, such a sink is defined in the configuration";
            return Err(InvalidSettings::new("sink", why));
        }
        for (member, file) in self.files() {
            reach.file(&file).map_err(|error| InvalidSettings::new(member, format!("cannot be used: {error}")))?;
        }
        Ok(())
    }

    /// The files that are named, with the members that name them.
    fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let ca_file = |file: &Option<PathBuf>| file.clone().map(|file| ("caFile", file));
        match self {
            Self::Webhook(options) => ca_file(&options.ca_file).into_iter().collect(),
            Self::Redis(options) => ca_file(&options.ca_file).into_iter().collect(),
            Self::Nats(options) => {
                let credentials = options.credentials_file.clone().map(|file| ("credentialsFile", file));
                ca_file(&options.ca_file).into_iter().chain(credentials).collect()
            }
            Self::Kafka(_) => Vec::new(),
            Self::Postgres(options) => {
                let of_url = options.url_ca_file().map(|file| ("url", file));
                ca_file(&options.ca_file).into_iter().chain(of_url).collect()
            }
        }
    }

    /// What no message may show.
    pub(crate) fn hidden(&self) -> Hidden {
        let hidden = Hidden::default();
        match self {
            Self::Webhook(options) => {
                hidden.with(&options.secrets).with(options.headers.values()).with_url(&options.url)
            }
            Self::Redis(options) => hidden.with(&options.password).with_url(&options.url),
            Self::Nats(options) => hidden.with(&options.password).with(&options.token).with(&options.nkey_seed),
            Self::Kafka(options) => hidden.with(options.secrets()),
            Self::Postgres(options) => hidden.with(&options.password).with_url(&options.url),
        }
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
        None => match without_value(why) {
            told if told == why => told,
            told => format!("is wrong: {told}"),
        },
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Settings {
        Settings::parse(&value).unwrap()
    }

    fn refused(value: Value) -> String {
        let refusal = Settings::parse(&value).unwrap_err().to_string();
        assert!(!refusal.contains("hunter2"), "{refusal}");
        refusal
    }

    #[test]
    fn the_least_that_a_sink_needs_is_an_address() {
        let hook = json!({"sink": "webhook", "url": "https://example.com/hook"});
        let written = json!({"sink": "webhook", "url": "https://example.com/hook", "batch": false, "timeoutMs": 30000});
        assert_eq!(parse(hook).write(), written);
        let redis = json!({"sink": "redis", "url": "redis://example.com"});
        let written =
            json!({"sink": "redis", "url": "redis://example.com", "stream": "cdc.{table}", "timeoutMs": 30000});
        assert_eq!(parse(redis).write(), written);
        let nats = json!({"sink": "nats", "servers": ["nats://example.com"]});
        let written =
            json!({"sink": "nats", "servers": ["nats://example.com"], "subject": "cdc.{table}", "timeoutMs": 30000});
        assert_eq!(parse(nats).write(), written);
        let kafka = json!({"sink": "kafka", "brokers": ["example.com:9092"]});
        let written =
            json!({"sink": "kafka", "brokers": ["example.com:9092"], "topic": "cdc.{table}", "timeoutMs": 30000});
        assert_eq!(parse(kafka).write(), written);
        let postgres = json!({"sink": "postgres", "url": "postgres://u@example.com/db"});
        let written = json!({
            "sink": "postgres", "url": "postgres://u@example.com/db", "table": "{table}", "createTables": false,
            "placesTable": "cdc_places", "timeoutMs": 30000
        });
        assert_eq!(parse(postgres).write(), written);
    }

    #[test]
    fn what_is_written_back_can_be_read_again_and_means_the_same() {
        for value in [
            json!({
                "sink": "webhook", "url": {"env": "CDC_SECRET_HOOK"}, "batch": true, "caFile": "/ca.pem",
                "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", {"env": "CDC_SECRET_NEW"}],
                "headers": {"authorization": {"env": "CDC_SECRET_TOKEN"}, "x-a": "b"}, "timeoutMs": 10
            }),
            json!({
                "sink": "redis", "url": "rediss://u@example.com/2", "password": "hunter2", "stream": "{table}",
                "maxLength": 1000, "caFile": "/ca.pem", "timeoutMs": 600_000
            }),
            json!({
                "sink": "nats", "servers": ["tls://a", "nats://b:4222"], "user": "u", "password": "hunter2",
                "subject": "x.{table}.{operation}", "stream": "CDC", "timeoutMs": 1000,
                "createStream": {"subjects": ["x.>"], "storage": "memory", "replicas": 3, "maxAgeSeconds": 60,
                    "maxBytes": 1000, "duplicateWindowSeconds": 30}
            }),
            json!({
                "sink": "kafka", "brokers": ["a:1", "b:2"], "topic": "all", "timeoutMs": 1000,
                "properties": {"compression.type": "lz4", "sasl.password": {"env": "CDC_SECRET_KAFKA"}}
            }),
            json!({
                "sink": "postgres", "url": "postgres://u:hunter2@h/db?sslmode=verify-full", "table": "copy.{table}",
                "createTables": true, "placesTable": "copy.places", "caFile": "/ca.pem", "timeoutMs": 1000
            }),
        ] {
            let settings = parse(value.clone());
            assert_eq!(settings.write(), value);
            assert!(Settings::SINKS.contains(&settings.name()));
            assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
        }
    }

    #[test]
    fn a_member_that_is_null_counts_as_left_out() {
        let value = json!({"sink": "redis", "url": "redis://h", "maxLength": null, "timeoutMs": null});
        assert_eq!(parse(value), parse(json!({"sink": "redis", "url": "redis://h"})));
    }

    #[test]
    fn a_refusal_names_the_member_and_what_is_allowed() {
        let hook = |member: &str, value: Value| {
            let mut hook = json!({"sink": "webhook", "url": "https://h"});
            hook[member] = value;
            refused(hook)
        };
        assert_eq!(refused(json!([])), "`subscriber` must be an object");
        assert!(refused(json!({"url": "x"})).starts_with("`sink` is missing: name one of webhook, redis, nats"));
        assert!(refused(json!({"sink": "fax"})).starts_with("`sink` names no sink; there are webhook"));
        assert_eq!(refused(json!({"sink": "redis"})), "`url` is missing");
        let unknown = refused(json!({"sink": "redis", "url": "redis://h", "strem": "x"}));
        assert!(
            unknown.starts_with("`strem` is no member here; expected one of `url`, `password`, `stream`"),
            "{unknown}"
        );
        let typed = hook("timeoutMs", json!("soon"));
        assert_eq!(typed, "`timeoutMs` is wrong: expected u32");
        assert_eq!(hook("caFile", json!(["hunter2"])), "`caFile` is wrong: expected path string");
        assert_eq!(hook("batch", json!("hunter2")), "`batch` is wrong: expected a boolean");
        assert_eq!(hook("timeoutMs", json!(9)), "`timeoutMs` must be from 10 to 600000, not 9");
        assert_eq!(hook("url", json!("ftp://u:hunter2@h")), "`url` must begin with http:// or https://");
        assert!(hook("url", json!("https://u:hunter2@h")).contains("`authorization` header"));
        assert!(hook("url", json!({"env": "HOME"})).contains("CDC_SECRET_"));
        assert!(hook("secrets", json!(["hunter2"])).starts_with("`secrets` must be `whsec_`"));
        assert!(hook("secrets", json!([{"env": "HOME"}])).starts_with("`secrets[0]` names the variable `HOME`"));
        assert_eq!(hook("headers", json!({"Webhook-Id": "x"})), "`headers.Webhook-Id` is set by the sink itself");
        assert_eq!(hook("headers", json!({"a: hunter2": "x"})), "`headers.a…` is no name of a header");
        assert!(hook("headers", json!({"a": "hunter2\n"})).starts_with("`headers.a` has characters"));
    }

    #[test]
    fn each_sink_checks_what_it_is_told() {
        let with = |mut value: Value, member: &str, wrong: Value| {
            value[member] = wrong;
            refused(value)
        };
        let redis = |member, wrong| with(json!({"sink": "redis", "url": "redis://h"}), member, wrong);
        assert!(redis("url", json!("h:hunter2")).starts_with("`url` must begin with redis://"));
        assert!(redis("url", json!("redis://h/x/hunter2")).starts_with("`url` must be redis://"));
        assert!(redis("caFile", json!("/x")).contains("rediss://"));
        assert!(redis("stream", json!("{tabel}")).starts_with("`stream` has `{tabel}`, which means nothing"));
        assert!(redis("maxLength", json!(0)).starts_with("`maxLength` must be from 1"));
        let nats = |member, wrong| with(json!({"sink": "nats", "servers": ["nats://h"]}), member, wrong);
        assert!(nats("servers", json!([])).starts_with("`servers` must name"));
        assert!(nats("servers", json!(["nats://u:hunter2@h"])).contains("`servers[0]` has a user in it"));
        assert!(nats("servers", json!(["http://h"])).contains("`servers[0]` must begin with nats://"));
        assert_eq!(nats("user", json!("u")), "`user` goes with `password`");
        let twice = json!({"sink": "nats", "servers": ["nats://h"], "token": "a"});
        assert!(with(twice, "nkeySeed", json!("S")).contains("`nkeySeed` does not go with `token`"));
        assert!(nats("subject", json!("a.>")).starts_with("`subject` has"));
        assert!(nats("stream", json!("a.b")).starts_with("`stream` is no name"));
        assert!(nats("createStream", json!({})).contains("`createStream` goes with `stream`"));
        let storage = nats("createStream", json!({"storage": "hunter2"}));
        assert_eq!(storage, "`createStream.storage` is wrong: expected `file` or `memory`");
        let kafka = |member, wrong| with(json!({"sink": "kafka", "brokers": ["h:1"]}), member, wrong);
        assert_eq!(kafka("brokers", json!(["h:1", "h"])), "`brokers[1]` must be host:port");
        assert_eq!(kafka("brokers", json!(["u:hunter2@h:1"])), "`brokers[0]` must be host:port");
        assert_eq!(kafka("properties", json!({"acks": "0"})), "`properties.acks` is set by the sink itself");
        let plugin = kafka("properties", json!({"plugin.library.paths": "hunter2.so"}));
        assert!(plugin.starts_with("`properties.plugin.library.paths` is not among the properties"), "{plugin}");
        assert!(
            kafka("properties", json!({"sasl.pasword": "hunter2"})).starts_with("`properties.sasl.pasword` is not")
        );
        assert!(kafka("properties", json!({"linger.ms": "hunter2"})).starts_with("`properties.linger.ms` has a value"));
        let postgres = |member, wrong| with(json!({"sink": "postgres", "url": "postgres://u@h/d"}), member, wrong);
        assert!(postgres("url", json!("mysql://u:hunter2@h/d")).starts_with("`url` must begin with postgres://"));
        assert!(postgres("placesTable", json!("")).starts_with("`placesTable` is empty"));
    }
}
