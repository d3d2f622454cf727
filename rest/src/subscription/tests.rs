use serde_json::{Value, json};

use super::*;
use crate::Code;
use crate::golden::assert_golden;

const MINIMAL: &str = r#"{"subscriber":{"component":"indexer"}}"#;

const FULL: &str = r#"{
  "tables": ["users", "app_*"],
  "operations": ["insert", "UPDATE"],
  "where": "after.status == 'active'",
  "filter": {"component": "only-eu", "version": 2},
  "subscriber": {"component": "indexer", "version": 3},
  "start": 1234,
  "batch": {"maxEvents": 100, "maxBytes": 65536, "lingerMs": 20},
  "lanes": 4,
  "retry": {"initialMs": 50, "maxMs": 5000, "maxAttempts": 7, "maxCrashes": 2},
  "deadLetters": {"policy": "stop", "max": 10},
  "grants": {
    "config": {"index": "people", "a \"b\"": ""},
    "keyvalue": {"maxBytes": 4096},
    "http": ["HTTPS://Search.example:443", "http://[0::1]:9200", "https://search.example"]
  },
  "limits": {
    "memoryBytes": 1048576, "tableElements": 1, "instances": 2, "callTimeoutMs": 600000,
    "logBytesPerSecond": 0, "requestsInFlight": 1
  },
  "paused": true
}"#;

fn spec(text: &str) -> SubscriptionSpec {
    SubscriptionSpec::parse(text.as_bytes()).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

fn written(spec: &SubscriptionSpec) -> Vec<u8> {
    let mut out = Vec::new();
    spec.write(&mut out);
    out
}

/// The minimal definition with one more member.
fn with(member: &str, value: Value) -> String {
    let mut definition: Value = serde_json::from_str(MINIMAL).unwrap_or_default();
    definition[member] = value;
    definition.to_string()
}

#[track_caller]
fn refusal(text: &str) -> Problem {
    match SubscriptionSpec::parse(text.as_bytes()) {
        Ok(spec) => panic!("{text} became {spec:?}"),
        Err(problem) => problem,
    }
}

/// The member that a refusal names.
#[track_caller]
fn blamed(text: &str) -> String {
    let problem = refusal(text);
    assert_eq!((problem.code(), problem.status()), (Code::InvalidSubscription, 400), "{text}");
    let mut out = Vec::new();
    problem.write(&mut out);
    assert!(out.len() < 1024, "{problem}");
    let answer: Value = serde_json::from_slice(&out).unwrap_or_default();
    let member = answer["member"].as_str().unwrap_or_else(|| panic!("{text}: no member in {problem}")).to_owned();
    assert!(problem.detail().contains(member.rsplit('.').next().unwrap_or_default()), "{problem}");
    member
}

#[test]
fn what_is_left_out_is_filled_in() {
    let minimal = spec(MINIMAL);
    let name = ComponentName::parse("indexer").unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(minimal, SubscriptionSpec::new(Subscriber::Component(ComponentRef { name, version: None })));
    assert_golden("subscription-minimal.json", &written(&minimal));
    let nulls = r#"{"subscriber":{"component":"indexer","version":null,"builtin":null},"tables":null,"operations":null,
        "where":null,"filter":null,"start":null,"batch":null,"lanes":null,"retry":{"maxAttempts":null},
        "deadLetters":null,"grants":{"keyvalue":null},"limits":{},"paused":null}"#;
    assert_eq!(spec(nulls), minimal);
}

#[test]
fn everything_can_be_said_and_is_read_back_as_it_was_written() {
    let full = spec(FULL);
    let out = written(&full);
    assert_golden("subscription-full.json", &out);
    for definition in [full, spec(MINIMAL)] {
        assert_eq!(SubscriptionSpec::parse(&written(&definition)), Ok(definition));
    }
}

#[test]
fn short_forms_mean_what_the_long_ones_do() {
    assert_eq!(spec(&with("filter", json!("f"))), spec(&with("filter", json!({"component": "f"}))));
    let granted = |keyvalue: Value| spec(&with("grants", json!({ "keyvalue": keyvalue }))).grants.keyvalue;
    assert_eq!(granted(json!(true)), Some(KeyValueQuota::default()));
    assert_eq!(granted(json!({})), Some(KeyValueQuota::default()));
    assert_eq!(granted(json!(false)), None);
    let builtin = spec(r#"{"subscriber":{"builtin":"console"}}"#);
    assert_eq!(builtin.subscriber, Subscriber::Builtin("console".into()));
    for (word, start) in [("now", Start::Now), ("beginning", Start::Beginning), ("snapshot", Start::Snapshot)] {
        assert_eq!(spec(&with("start", json!(word))).start, start);
    }
    // One pause of the two moves the other's default, so that it need not be known.
    let retry = spec(&with("retry", json!({"maxMs": 10}))).retry;
    assert_eq!((retry.initial_ms, retry.max_ms), (10, 10));
    let retry = spec(&with("retry", json!({"initialMs": 100_000}))).retry;
    assert_eq!((retry.initial_ms, retry.max_ms), (100_000, 100_000));
}

#[test]
fn a_sink_keeps_the_members_that_the_service_judges() {
    let text = r#"{"subscriber":{"sink":"nats","format":"debezium","url":"nats://broker","subject":null,"n":1.10}}"#;
    let sink = spec(text);
    let Subscriber::Sink(found) = &sink.subscriber else { panic!("{sink:?}") };
    assert_eq!((found.kind.as_str(), found.format), ("nats", Format::Debezium));
    assert_eq!(found.settings.keys().collect::<Vec<_>>(), ["n", "url"]);
    assert_golden("subscription-sink.json", &written(&sink));
    assert_eq!(SubscriptionSpec::parse(&written(&sink)), Ok(sink));
    let plain = spec(r#"{"subscriber":{"sink":"webhook","component":null}}"#);
    assert!(matches!(plain.subscriber, Subscriber::Sink(sink) if sink.format == Format::Native));
}

#[test]
fn a_definition_can_come_from_another_format_through_serde() {
    let value: Value = serde_json::from_str(FULL).unwrap_or_default();
    assert_eq!(serde_json::from_value::<SubscriptionSpec>(value).ok(), Some(spec(FULL)));
    let error = serde_json::from_str::<SubscriptionSpec>(&with("lanes", json!(65))).err();
    let message = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(message.starts_with("`lanes` must be an integer from 1 to 64, not `65`"), "{message}");
}

#[test]
fn unknown_members_are_refused_by_name_with_the_one_that_was_meant() {
    let problem = refusal(&with("batch", json!({"max_events": 5})));
    assert_eq!(problem.detail(), "`batch` has no member `max_events`; did you mean `maxEvents`?");
    let mut out = Vec::new();
    problem.write(&mut out);
    assert_golden("problem-subscription-unknown-member.json", &out);
    for (definition, member) in [
        (with("table", json!([])), "table"),
        (with("retry", json!({"jitter": 1})), "retry.jitter"),
        (with("deadLetters", json!({"maximum": 1})), "deadLetters.maximum"),
        (with("grants", json!({"files": true})), "grants.files"),
        (with("grants", json!({"keyvalue": {"bytes": 1}})), "grants.keyvalue.bytes"),
        (with("limits", json!({"memory": 1})), "limits.memory"),
        (with("filter", json!({"component": "f", "builtin": "g"})), "filter.builtin"),
        (r#"{"subscriber":{"component":"c","url":"x"}}"#.to_owned(), "subscriber.url"),
    ] {
        assert_eq!(blamed(&definition), member);
    }
    assert!(refusal(&with(&"x".repeat(100_000), json!(1))).detail().len() < 400);
}

#[test]
fn every_number_has_a_range_at_both_ends() {
    let nested = |object: &str, member: &str, value: &Value| match object {
        "" => with(member, value.clone()),
        "grants.keyvalue" => with("grants", json!({"keyvalue": {member: value}})),
        object => with(object, json!({member: value})),
    };
    for (object, member, least, most) in [
        ("", "lanes", 1, 64),
        ("batch", "maxEvents", 1, 10_000),
        ("batch", "maxBytes", 1 << 10, 64 << 20),
        ("batch", "lingerMs", 0, 60_000),
        ("retry", "initialMs", 1, 3_600_000),
        ("retry", "maxMs", 1, 86_400_000),
        ("retry", "maxAttempts", 1, 1_000_000),
        ("retry", "maxCrashes", 1, 1_000),
        ("deadLetters", "max", 1, 1_000_000),
        ("grants.keyvalue", "maxBytes", 1 << 10, 1 << 40),
        ("grants.keyvalue", "maxKeys", 1, 1_000_000_000),
        ("limits", "memoryBytes", 1 << 20, 4_u64 << 30),
        ("limits", "tableElements", 1, 10_000_000),
        ("limits", "instances", 1, 10_000),
        ("limits", "callTimeoutMs", 1, 600_000),
        ("limits", "logBytesPerSecond", 0, 16 << 20),
        ("limits", "requestsInFlight", 1, 1_000),
        ("", "start", 1, i64::MAX as u64),
    ] {
        let path = if object.is_empty() { member.to_owned() } else { format!("{object}.{member}") };
        for fine in [least, most] {
            spec(&nested(object, member, &json!(fine)));
        }
        for wrong in [json!(-1), json!(most + 1), json!(1.5), json!("7x"), json!(true), json!([]), json!({})] {
            assert_eq!(blamed(&nested(object, member, &wrong)), path, "{wrong}");
        }
        if least > 0 {
            assert_eq!(blamed(&nested(object, member, &json!(least - 1))), path);
        }
    }
    assert_eq!(blamed(&with("retry", json!({"initialMs": 11, "maxMs": 10}))), "retry.initialMs");
}

#[test]
fn what_makes_no_sense_is_refused_by_its_member() {
    let problem = refusal("{}");
    let mut out = Vec::new();
    problem.write(&mut out);
    assert_golden("problem-subscription-no-subscriber.json", &out);
    for (member, value) in [
        ("tables", json!("users")),
        ("tables", json!([1])),
        ("tables", json!([""])),
        ("tables", json!(["a/b"])),
        ("tables", json!(["a\n"])),
        ("tables", json!(["x".repeat(257)])),
        ("tables", json!(vec!["x"; 1_001])),
        ("operations", json!("insert")),
        ("operations", json!(["upsert"])),
        ("operations", json!(["insert", "INSERT"])),
        ("where", json!(true)),
        ("where", json!(" \n")),
        ("filter", json!(1)),
        ("filter", json!("")),
        ("filter", json!("../x")),
        ("subscriber", json!("indexer")),
        ("subscriber", json!({})),
        ("subscriber", json!({"component": "c", "builtin": "console"})),
        ("subscriber", json!({"sink": "nats", "component": "c"})),
        ("start", json!("then")),
        ("batch", json!(256)),
        ("retry", json!([])),
        ("deadLetters", json!("park")),
        ("grants", json!(true)),
        ("limits", json!("none")),
        ("paused", json!("yes")),
    ] {
        assert_eq!(blamed(&with(member, value.clone())), member, "{value}");
    }
    for (member, value, blame) in [
        ("filter", json!({}), "filter.component"),
        ("filter", json!({"component": ".."}), "filter.component"),
        ("filter", json!({"component": "f", "version": 0}), "filter.version"),
        ("subscriber", json!({"component": 1}), "subscriber.component"),
        ("subscriber", json!({"component": "c", "version": "latest"}), "subscriber.version"),
        ("subscriber", json!({"builtin": "console", "version": 1}), "subscriber.version"),
        ("subscriber", json!({"builtin": "a b"}), "subscriber.builtin"),
        ("subscriber", json!({"sink": 1}), "subscriber.sink"),
        ("subscriber", json!({"sink": "a b"}), "subscriber.sink"),
        ("subscriber", json!({"sink": "nats", "format": "avro"}), "subscriber.format"),
        ("subscriber", json!({"sink": "nats", "format": 1}), "subscriber.format"),
        ("deadLetters", json!({"policy": "drop"}), "deadLetters.policy"),
        ("grants", json!({"config": ["a"]}), "grants.config"),
        ("grants", json!({"config": {"a": 1}}), "grants.config"),
        ("grants", json!({"config": {"": "x"}}), "grants.config"),
        ("grants", json!({"config": {"a": "x".repeat((64 << 10) + 1)}}), "grants.config"),
        ("grants", json!({"keyvalue": 1}), "grants.keyvalue"),
        ("grants", json!({"http": "https://a"}), "grants.http"),
        ("grants", json!({"http": [true]}), "grants.http"),
        ("grants", json!({"http": ["https://*.example.com"]}), "grants.http"),
        ("grants", json!({"http": (0..101).map(|n| format!("http://h{n}")).collect::<Vec<_>>()}), "grants.http"),
    ] {
        assert_eq!(blamed(&with(member, value.clone())), blame, "{value}");
    }
    let many: Map<_, _> = (0..1_001).map(|n| (n.to_string(), json!(""))).collect();
    assert_eq!(blamed(&with("grants", json!({ "config": many }))), "grants.config");
    for body in ["[]", "null", "7", "\"x\""] {
        assert_eq!(refusal(body).code(), Code::InvalidSubscription, "{body}");
    }
    for body in ["", "{", "x", r#"{"subscriber":{"builtin":"console"}} {}"#, r#"{"lanes":1,"lanes":1}"#] {
        assert_eq!(refusal(body).code(), Code::InvalidJson, "{body}");
    }
}
