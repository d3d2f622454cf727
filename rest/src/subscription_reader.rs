//! A subscription's definition out of a JSON value: every range and every refusal.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::envelope::Format;
use crate::members::Members;
use crate::problem::excerpt;
use crate::subscription::{
    Batching, ComponentRef, DeadLetterPolicy, DeadLetters, Grants, GuestLimits, KeyValueQuota, Retry, SinkSpec, Start,
    Subscriber, SubscriptionSpec,
};
use crate::{Code, ComponentName, HttpOrigin, Operation, Problem, names};

/// The same as the engine's: a selection is matched against every event.
const MAX_PATTERN_BYTES: usize = 256;
const MAX_PATTERNS: usize = 1_000;
const MAX_SETTINGS: usize = 1_000;
const MAX_SETTING_BYTES: usize = 64 << 10;
const MAX_SETTING_NAME_BYTES: usize = 256;
const MAX_ORIGINS: usize = 100;
const CODE: Code = Code::InvalidSubscription;

impl SubscriptionSpec {
    /// Takes a definition that was read elsewhere.
    pub fn from_value(value: &Value) -> Result<Self, Problem> {
        const KNOWN: &[&str] = &[
            "tables",
            "operations",
            "where",
            "filter",
            "subscriber",
            "start",
            "batch",
            "lanes",
            "retry",
            "deadLetters",
            "grants",
            "limits",
            "paused",
        ];
        let members = Members::of(value, "", "the subscription", KNOWN, CODE)?;
        Ok(Self {
            tables: tables(&members)?,
            operations: operations(&members)?,
            condition: condition(&members)?,
            filter: members.get("filter").map(|value| filter(&members, value)).transpose()?,
            subscriber: subscriber(&members)?,
            start: start(&members)?,
            batch: members.get("batch").map(batch).transpose()?.unwrap_or_default(),
            lanes: members.integer("lanes", 1..=64)?.unwrap_or(1),
            retry: members.get("retry").map(retry).transpose()?.unwrap_or_default(),
            dead_letters: members.get("deadLetters").map(dead_letters).transpose()?.unwrap_or_default(),
            grants: members.get("grants").map(grants).transpose()?.unwrap_or_default(),
            limits: members.get("limits").map(limits).transpose()?.unwrap_or_default(),
            paused: members.flag("paused")?.unwrap_or(false),
        })
    }
}

fn tables(members: &Members<'_>) -> Result<Vec<String>, Problem> {
    const EXPECTED: &str = "an array of table names, in which `*` stands for any run of characters";
    let mut tables = Vec::new();
    for value in members.list("tables", EXPECTED, MAX_PATTERNS)? {
        let Value::String(pattern) = value else { return Err(members.wrong("tables", EXPECTED, value)) };
        if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
            let why = format!("names {}, but a name has 1 to {MAX_PATTERN_BYTES} bytes", excerpt(pattern));
            return Err(members.refuse("tables", why));
        }
        if pattern.chars().any(|character| character.is_control() || character == '/') {
            return Err(members.refuse("tables", format!("names {}, which matches no table", excerpt(pattern))));
        }
        tables.push(pattern.clone());
    }
    Ok(tables)
}

fn operations(members: &Members<'_>) -> Result<Vec<Operation>, Problem> {
    const EXPECTED: &str = "an array of `insert`, `update`, `delete` and `truncate`";
    let mut operations = Vec::new();
    for value in members.list("operations", EXPECTED, Operation::ALL.len())? {
        let operation = value.as_str().and_then(|text| {
            Operation::ALL.iter().copied().find(|operation| operation.as_str().eq_ignore_ascii_case(text))
        });
        let operation = operation.ok_or_else(|| members.wrong("operations", EXPECTED, value))?;
        if operations.contains(&operation) {
            return Err(members.refuse("operations", format!("has `{}` twice", operation.as_str().to_lowercase())));
        }
        operations.push(operation);
    }
    Ok(operations)
}

fn condition(members: &Members<'_>) -> Result<Option<String>, Problem> {
    const EXPECTED: &str = "a CEL expression as a text";
    match members.text("where", EXPECTED)? {
        Some(text) if text.trim().is_empty() => Err(members.refuse("where", "is empty; leave it out for every event")),
        text => Ok(text.map(str::to_owned)),
    }
}

/// The filter: a component's name, or an object.
fn filter(members: &Members<'_>, value: &Value) -> Result<ComponentRef, Problem> {
    match value {
        Value::String(text) => Ok(ComponentRef { name: component_name(members, "filter", text)?, version: None }),
        Value::Object(_) => component(&Members::of(value, "filter.", "", &["component", "version"], CODE)?),
        other => Err(members.wrong("filter", r#"the name of a component, or {"component": "name"}"#, other)),
    }
}

fn component(members: &Members<'_>) -> Result<ComponentRef, Problem> {
    match members.text("component", "the name of a component")? {
        Some(text) => Ok(ComponentRef {
            name: component_name(members, "component", text)?,
            version: members.integer("version", 1..=u32::MAX)?,
        }),
        None => Err(members.refuse("component", "is missing: name the component")),
    }
}

pub(crate) fn component_name(members: &Members<'_>, member: &str, text: &str) -> Result<ComponentName, Problem> {
    names::check(text).map_err(|why| members.refuse(member, format!("is no name: {why}")))?;
    ComponentName::parse(text)
}

fn subscriber(members: &Members<'_>) -> Result<Subscriber, Problem> {
    const EXPECTED: &str = r#"{"component": "name"}, {"sink": "kind", …} or {"builtin": "name"}"#;
    let value = match members.get("subscriber") {
        Some(value @ Value::Object(_)) => value,
        Some(other) => return Err(members.wrong("subscriber", EXPECTED, other)),
        None => return Err(members.refuse("subscriber", format!("is missing: say who gets the events, as {EXPECTED}"))),
    };
    if let Some(kind) = value.get("sink").filter(|kind| !kind.is_null()) {
        return sink(members, value, kind);
    }
    let inner = Members::of(value, "subscriber.", "", &["component", "version", "builtin", "sink"], CODE)?;
    let builtin = inner.text("builtin", "the name of a part of the service")?;
    match (inner.get("component"), builtin) {
        (Some(_), None) => component(&inner).map(Subscriber::Component),
        (None, Some(_)) if inner.get("version").is_some() => {
            Err(inner.refuse("version", "goes with a component; a built-in has no versions"))
        }
        (None, Some(name)) => {
            names::check(name).map_err(|why| inner.refuse("builtin", format!("is no name: {why}")))?;
            Ok(Subscriber::Builtin(name.to_owned()))
        }
        (Some(_), Some(_)) | (None, None) => Err(members.refuse("subscriber", format!("must be one of {EXPECTED}"))),
    }
}

/// A sink's own members are judged by the service, which knows them.
fn sink(members: &Members<'_>, value: &Value, kind: &Value) -> Result<Subscriber, Problem> {
    let Value::String(kind) = kind else { return Err(members.wrong("subscriber.sink", "the kind of a sink", kind)) };
    names::check(kind).map_err(|why| members.refuse("subscriber.sink", format!("is no name: {why}")))?;
    let mut settings = value.as_object().cloned().unwrap_or_default();
    settings.retain(|name, value| name != "sink" && !value.is_null());
    let format = match settings.remove("format") {
        None => Format::default(),
        Some(Value::String(name)) => Format::parse(&name).ok_or_else(|| {
            let known: Vec<_> = Format::ALL.iter().map(|format| format.as_str()).collect();
            members.refuse("subscriber.format", format!("is none; there are {}", known.join(", ")))
        })?,
        Some(other) => return Err(members.wrong("subscriber.format", "the name of a format", &other)),
    };
    if ["component", "builtin", "version"].iter().any(|name| settings.contains_key(*name)) {
        return Err(members.refuse("subscriber", "must be a component, a sink or a built-in, not several of them"));
    }
    Ok(Subscriber::Sink(SinkSpec { kind: kind.clone(), format, settings }))
}

fn start(members: &Members<'_>) -> Result<Start, Problem> {
    match members.get("start") {
        None => Ok(Start::default()),
        Some(value) => position(members, "start", value, &[Start::Now, Start::Beginning, Start::Snapshot]),
    }
}

/// A place in the log: a sequence number, or one of the given words.
pub(crate) fn position(members: &Members<'_>, name: &str, value: &Value, words: &[Start]) -> Result<Start, Problem> {
    // What TOML can write; no log gets there.
    const MAX_SEQUENCE: u64 = i64::MAX as u64;
    let found = match value {
        Value::String(text) => words.iter().copied().find(|word| word.word() == Some(text)),
        value => value.as_u64().filter(|sequence| (1..=MAX_SEQUENCE).contains(sequence)).map(Start::At),
    };
    found.ok_or_else(|| {
        let words: Vec<_> = words.iter().filter_map(|word| word.word()).map(|word| format!("\"{word}\"")).collect();
        members.wrong(name, &format!("{} or a sequence number from 1", words.join(", ")), value)
    })
}

fn batch(value: &Value) -> Result<Batching, Problem> {
    let members = Members::of(value, "batch.", "", &["maxEvents", "maxBytes", "lingerMs"], CODE)?;
    let default = Batching::default();
    Ok(Batching {
        max_events: members.integer("maxEvents", 1..=10_000)?.unwrap_or(default.max_events),
        max_bytes: members.integer("maxBytes", 1 << 10..=64 << 20)?.unwrap_or(default.max_bytes),
        linger_ms: members.integer("lingerMs", 0..=60_000)?.unwrap_or(default.linger_ms),
    })
}

fn retry(value: &Value) -> Result<Retry, Problem> {
    let members = Members::of(value, "retry.", "", &["initialMs", "maxMs", "maxAttempts", "maxCrashes"], CODE)?;
    let default = Retry::default();
    let initial_ms = members.integer("initialMs", 1..=3_600_000)?;
    let max_ms = members.integer("maxMs", 1..=86_400_000)?;
    // Whoever gives one of the two need not know the other's default.
    let retry = Retry {
        initial_ms: initial_ms.unwrap_or(default.initial_ms.min(max_ms.unwrap_or(u32::MAX))),
        max_ms: max_ms.unwrap_or(default.max_ms.max(initial_ms.unwrap_or(0))),
        max_attempts: members.integer("maxAttempts", 1..=1_000_000)?,
        max_crashes: members.integer("maxCrashes", 1..=1_000)?.unwrap_or(default.max_crashes),
    };
    if retry.initial_ms > retry.max_ms {
        let why = format!("is {}, more than `retry.maxMs`, which is {}", retry.initial_ms, retry.max_ms);
        return Err(members.refuse("initialMs", why));
    }
    Ok(retry)
}

fn dead_letters(value: &Value) -> Result<DeadLetters, Problem> {
    let members = Members::of(value, "deadLetters.", "", &["policy", "max"], CODE)?;
    const EXPECTED: &str = "`park` or `stop`";
    let policy = match members.text("policy", EXPECTED)? {
        None => DeadLetterPolicy::default(),
        Some("park") => DeadLetterPolicy::Park,
        Some("stop") => DeadLetterPolicy::Stop,
        Some(other) => return Err(members.wrong("policy", EXPECTED, &other.into())),
    };
    Ok(DeadLetters { policy, max: members.integer("max", 1..=1_000_000)?.unwrap_or(DeadLetters::default().max) })
}

fn grants(value: &Value) -> Result<Grants, Problem> {
    let members = Members::of(value, "grants.", "", &["config", "keyvalue", "http"], CODE)?;
    Ok(Grants {
        config: members.get("config").map(|config| settings(&members, config)).transpose()?.unwrap_or_default(),
        keyvalue: keyvalue(&members)?,
        http: origins(&members)?,
    })
}

/// Settings have names of the component's choice.
fn settings(members: &Members<'_>, value: &Value) -> Result<BTreeMap<String, String>, Problem> {
    const EXPECTED: &str = "an object of texts";
    let Value::Object(map) = value else { return Err(members.wrong("config", EXPECTED, value)) };
    if map.len() > MAX_SETTINGS {
        return Err(members.refuse("config", format!("may have {MAX_SETTINGS} settings, not {}", map.len())));
    }
    let mut settings = BTreeMap::new();
    for (name, value) in map {
        let Value::String(text) = value else {
            let why = format!("has {}, which is no text, but settings are", excerpt(name));
            return Err(members.refuse("config", why));
        };
        if name.is_empty() || name.len() > MAX_SETTING_NAME_BYTES {
            let why = format!("has the name {}, but names have 1 to {MAX_SETTING_NAME_BYTES} bytes", excerpt(name));
            return Err(members.refuse("config", why));
        }
        if text.len() > MAX_SETTING_BYTES {
            let why = format!("has {} with more than {MAX_SETTING_BYTES} bytes", excerpt(name));
            return Err(members.refuse("config", why));
        }
        settings.insert(name.clone(), text.clone());
    }
    Ok(settings)
}

fn keyvalue(members: &Members<'_>) -> Result<Option<KeyValueQuota>, Problem> {
    let value = match members.get("keyvalue") {
        None | Some(Value::Bool(false)) => return Ok(None),
        Some(Value::Bool(true)) => return Ok(Some(KeyValueQuota::default())),
        Some(value @ Value::Object(_)) => value,
        Some(other) => return Err(members.wrong("keyvalue", "`true`, `false` or an object", other)),
    };
    let members = Members::of(value, "grants.keyvalue.", "", &["maxBytes", "maxKeys"], CODE)?;
    let default = KeyValueQuota::default();
    Ok(Some(KeyValueQuota {
        max_bytes: members.integer("maxBytes", 1 << 10..=1 << 40)?.unwrap_or(default.max_bytes),
        max_keys: members.integer("maxKeys", 1..=1_000_000_000)?.unwrap_or(default.max_keys),
    }))
}

fn origins(members: &Members<'_>) -> Result<Vec<HttpOrigin>, Problem> {
    const EXPECTED: &str = "an array of origins such as `https://search.example:9200`";
    let mut origins = Vec::new();
    for value in members.list("http", EXPECTED, MAX_ORIGINS)? {
        let Value::String(text) = value else { return Err(members.wrong("http", EXPECTED, value)) };
        // Not quoted: there may be a password in it.
        let origin =
            HttpOrigin::parse(text).map_err(|error| members.refuse("http", format!("has one that {error}")))?;
        // The same origin in two notations is no mistake.
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    Ok(origins)
}

fn limits(value: &Value) -> Result<GuestLimits, Problem> {
    const KNOWN: &[&str] =
        &["memoryBytes", "tableElements", "instances", "callTimeoutMs", "logBytesPerSecond", "requestsInFlight"];
    let members = Members::of(value, "limits.", "", KNOWN, CODE)?;
    let default = GuestLimits::default();
    Ok(GuestLimits {
        memory_bytes: members.integer("memoryBytes", 1 << 20..=4 << 30)?.unwrap_or(default.memory_bytes),
        table_elements: members.integer("tableElements", 1..=10_000_000)?.unwrap_or(default.table_elements),
        instances: members.integer("instances", 1..=10_000)?.unwrap_or(default.instances),
        call_timeout_ms: members.integer("callTimeoutMs", 1..=600_000)?.unwrap_or(default.call_timeout_ms),
        log_bytes_per_second: members
            .integer("logBytesPerSecond", 0..=16 << 20)?
            .unwrap_or(default.log_bytes_per_second),
        requests_in_flight: members.integer("requestsInFlight", 1..=1_000)?.unwrap_or(default.requests_in_flight),
    })
}
