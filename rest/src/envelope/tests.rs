//! Every format of every kind of event, and what must hold for any row.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Format, Message, Subject, Tombstones, http_header_value, write_batch};
use crate::event::event_id;
use crate::golden::assert_golden;
use crate::{
    Column, ColumnType, EventRef, EventsWriter, Operation, OriginRef, Relation, TableSchema, write_event,
    write_stream_envelope,
};

fn column(name: &str, column_type: ColumnType, nullable: bool, native_type: Option<&str>) -> Column {
    Column { name: name.into(), column_type, nullable, native_type: native_type.map(str::to_owned) }
}

/// A table with rows of each kind of source.
struct Story {
    name: &'static str,
    schema: TableSchema,
    source: Option<&'static str>,
    transaction: Option<&'static str>,
    position: Option<&'static str>,
    key: &'static str,
    before: &'static str,
    after: &'static str,
}

fn postgres() -> Story {
    use ColumnType::{Any, Array, Boolean, Number, String};
    let columns = [
        ("id", Number, false, "bigint"),
        ("paid", Boolean, false, "boolean"),
        ("price", Number, true, "numeric(30,4)"),
        ("weight", Number, true, "double precision"),
        ("note", String, true, "text"),
        ("ordered_on", String, true, "date"),
        ("ordered_at", String, true, "timestamp with time zone"),
        ("packed_at", String, true, "timestamp(3) without time zone"),
        ("opens", String, true, "time with time zone"),
        ("lasts", String, true, "interval"),
        ("photo", String, true, "bytea"),
        ("flags", String, true, "bit(12)"),
        ("extra", Any, true, "jsonb"),
        ("prices", Array, true, "numeric[]"),
        ("tags", Array, true, "character varying(20)[]"),
        ("uid", String, true, "uuid"),
        ("secret", String, true, "integer"),
        ("mood", String, true, "mood"),
    ];
    Story {
        name: "postgresql",
        schema: TableSchema {
            name: "shop.orders".into(),
            columns: columns.map(|(name, kind, nullable, native)| column(name, kind, nullable, Some(native))).into(),
            primary_key: vec!["id".into()],
            version: 3,
            relation: Some(Relation {
                source: "main".into(),
                connector: "postgresql".into(),
                database: "shop".into(),
                namespace: "public".into(),
                name: "orders".into(),
            }),
        },
        source: Some("main"),
        transaction: Some("741"),
        position: Some("0/16B3748/3"),
        key: "9007199254740993",
        before: concat!(
            r#"{"id":9007199254740993,"paid":false,"price":1.10,"weight":1e-7,"note":"a\"b","ordered_on":"2024-01-02","#,
            r#""ordered_at":"2024-01-02T03:04:05.123456Z","packed_at":null,"opens":"08:00:00+02","lasts":"P1DT2H","#,
            r#""photo":"3q2+7w==","flags":"100000000001","extra":{"a":[1.10,"x"]},"prices":[1.10,null],"tags":["a"],"#,
            r#""uid":"5e2c1c7e-7c0b-4f1e-9d0b-0a4f6d9c9a11","secret":"b1946ac9","mood":"sad"}"#
        ),
        // `note` is what nobody knows.
        after: concat!(
            r#"{"id":9007199254740993,"paid":true,"price":1.1000,"weight":"NaN","ordered_on":"infinity","#,
            r#""ordered_at":"2024-01-02T03:04:05.5Z","packed_at":"2024-01-02T03:04:05.5","opens":null,"lasts":"P1DT2H","#,
            r#""photo":"3q2+7w==","flags":"100000000001","extra":"text","prices":[],"tags":["a","b"],"#,
            r#""uid":"5e2c1c7e-7c0b-4f1e-9d0b-0a4f6d9c9a11","secret":"b1946ac9","mood":"ok"}"#
        ),
    }
}

fn mariadb() -> Story {
    use ColumnType::{Any, Array, Number, Object, String};
    let columns = [
        ("shop", String, false, "varchar(20)"),
        ("number", Number, false, "int(10) unsigned"),
        ("small", Number, true, "tinyint(1)"),
        ("total", Number, true, "decimal(10,2)"),
        ("huge", Number, true, "bigint(20) unsigned"),
        ("made", String, true, "datetime(6)"),
        ("seen", String, true, "timestamp"),
        ("day", String, true, "date"),
        ("lasts", String, true, "time(3)"),
        ("year", Number, true, "year(4)"),
        ("flag", Number, true, "bit(1)"),
        ("bits", Number, true, "bit(12)"),
        ("kind", String, true, "enum('a','b')"),
        ("options", Array, true, "set('x','y')"),
        ("doc", Any, true, "longtext"),
        ("raw", String, true, "varbinary(16)"),
        ("place", Object, true, "point"),
    ];
    Story {
        name: "mariadb",
        schema: TableSchema {
            name: "orders".into(),
            columns: columns.map(|(name, kind, nullable, native)| column(name, kind, nullable, Some(native))).into(),
            primary_key: vec!["shop".into(), "number".into()],
            version: 1,
            relation: Some(Relation {
                source: "maria".into(),
                connector: "mariadb".into(),
                database: "shop".into(),
                namespace: "shop".into(),
                name: "orders".into(),
            }),
        },
        source: Some("maria"),
        transaction: Some("0-7-42"),
        position: Some("0-7-42/5"),
        key: "a%2Fb%25/7",
        before: concat!(
            r#"{"shop":"a/b%","number":7,"small":1,"total":10.50,"huge":18446744073709551615,"#,
            r#""made":"2024-01-02T03:04:05.120000","seen":"2024-01-02T03:04:05Z","day":"0000-00-00","lasts":"838:59:59.000","#,
            r#""year":2024,"flag":1,"bits":2049,"kind":"a","options":["x","y"],"doc":{"a":1.0},"raw":"3q2+7w==","#,
            r#""place":{"srid":0,"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAABA"}}"#
        ),
        after: concat!(
            r#"{"shop":"a/b%","number":7,"small":1,"total":10.50,"huge":18446744073709551615,"#,
            r#""made":"2024-01-02T03:04:05.120000","seen":"2024-01-02T03:04:06Z","day":"2024-01-02","lasts":"10:00:00.500","#,
            r#""year":2024,"flag":0,"bits":2049,"kind":"b","options":[],"doc":null,"raw":"3q2+7w==","place":null}"#
        ),
    }
}

fn written_by_rest() -> Story {
    use ColumnType::{Any, Number, Object, String};
    Story {
        name: "rest",
        schema: TableSchema {
            name: "users".into(),
            columns: vec![
                column("id", String, false, None),
                column("balance", Number, false, None),
                column("address", Object, true, None),
                column("odd", Any, true, None),
            ],
            primary_key: vec!["id".into()],
            version: 2,
            relation: None,
        },
        source: None,
        transaction: None,
        position: None,
        key: "u\u{e9} \n1",
        before: r#"{"id":"ué \n1","balance":1.10}"#,
        after: r#"{"id":"ué \n1","balance":12345678901234567890.10,"address":{"street":"Long \"Street\""},"odd":[true]}"#,
    }
}

const UNKNOWN: &str = r#"["note"]"#;

impl Story {
    /// Its events: insert, update, delete, truncate, a row that was read.
    fn subjects(&self) -> Vec<(&'static str, EventRef<'_>, &str)> {
        let origin = self.source.map(|source| OriginRef {
            source,
            transaction: self.transaction,
            position: self.position,
            snapshot: false,
            committed_at_ms: Some(1_699_380_000_123),
            unavailable: None,
        });
        let read = OriginRef {
            source: self.source.unwrap_or(super::OWN_SOURCE),
            transaction: None,
            position: None,
            snapshot: true,
            committed_at_ms: None,
            unavailable: None,
        };
        let (before, after) = (Some(self.before.as_bytes()), Some(self.after.as_bytes()));
        let insert = EventRef {
            sequence: 42,
            timestamp_ms: 1_699_380_000_456,
            table: &self.schema.name,
            operation: Operation::Insert,
            before: None,
            after: before,
            schema_version: self.schema.version,
            origin,
        };
        let lacks_a_value =
            origin.map(|origin| OriginRef { unavailable: (self.name == "postgresql").then_some(UNKNOWN), ..origin });
        let update = EventRef { operation: Operation::Update, before, after, origin: lacks_a_value, ..insert };
        let delete = EventRef { operation: Operation::Delete, before, after: None, ..insert };
        let truncate = EventRef { operation: Operation::Truncate, after: None, ..insert };
        vec![
            ("insert", insert, self.key),
            ("update", update, self.key),
            ("delete", delete, self.key),
            ("truncate", truncate, ""),
            ("read", EventRef { origin: Some(read), ..insert }, self.key),
        ]
    }

    fn messages(&self, format: Format, tombstones: Tombstones) -> Vec<(&'static str, Vec<Message>)> {
        let all = self.subjects().into_iter().map(|(what, event, key)| {
            let id = event_id(event.timestamp_ms, event.sequence);
            let subject = Subject { event, id: &id, key, schema: &self.schema, subscription: Some("to-kafka") };
            let mut messages = Vec::new();
            format.messages(&subject, tombstones, &mut messages);
            (what, messages)
        });
        all.collect()
    }
}

fn stories() -> [Story; 3] {
    [postgres(), mariadb(), written_by_rest()]
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_else(|_| panic!("not UTF-8: {bytes:?}"))
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

#[test]
fn every_format_of_every_kind_of_event_is_as_published() {
    for story in stories() {
        for &format in Format::ALL {
            let mut shown = String::new();
            for (what, messages) in story.messages(format, Tombstones::On) {
                for message in messages {
                    let part = |bytes: &Option<Vec<u8>>| {
                        bytes
                            .as_deref()
                            .map_or_else(|| "none".to_owned(), |bytes| text(bytes).escape_debug_but_quotes())
                    };
                    let _ = writeln!(shown, "# {what}\nkey: {}", part(&message.key));
                    let _ = writeln!(shown, "content-type: {}", message.content_type);
                    for (name, value) in &message.headers {
                        let _ = writeln!(shown, "{name}: {}", http_header_value(value));
                    }
                    let _ = writeln!(shown, "value: {}", part(&message.value));
                }
            }
            assert_golden(&format!("../envelope/{}-{}.txt", story.name, format.as_str()), shown.as_bytes());
        }
    }
}

trait EscapeLines {
    fn escape_debug_but_quotes(&self) -> String;
}

impl EscapeLines for str {
    /// A key may hold a line break, which would tear the file apart.
    fn escape_debug_but_quotes(&self) -> String {
        self.replace('\n', "\\n")
    }
}

#[test]
fn names_are_read_back_and_others_are_unknown() {
    for &format in Format::ALL {
        assert_eq!(Format::parse(format.as_str()), Some(format));
    }
    assert_eq!(Format::default(), Format::Native);
    for name in ["", "Native", "debezium ", "cloudevents-batch"] {
        assert_eq!(Format::parse(name), None, "{name}");
    }
}

#[test]
fn native_is_what_get_events_shows() {
    for story in stories() {
        for (_, event, key) in story.subjects() {
            let subject = Subject { event, id: "evt_1_1", key, schema: &story.schema, subscription: None };
            let (mut written, mut expected) = (Vec::new(), Vec::new());
            Format::Native.write(&mut written, &subject);
            write_event(&mut expected, &event);
            assert_eq!(text(&written), text(&expected));
        }
    }
}

#[test]
fn streams_and_pages_hold_the_value_and_are_otherwise_the_same() {
    let story = written_by_rest();
    let (_, event, key) = story.subjects()[0];
    let subject = Subject { event, id: "evt_1_1", key, schema: &story.schema, subscription: None };
    for &format in Format::READABLE {
        let (mut value, mut stream, mut page) = (Vec::new(), Vec::new(), Vec::new());
        format.write(&mut value, &subject);
        let begin = write_stream_envelope(&mut stream, format, &subject);
        assert_eq!(text(&stream), format!("id: 42\ndata: {}\n\n", text(&value)));
        assert_eq!(stream[begin..stream.len() - 2], value);
        let mut writer = EventsWriter::begin(&mut page);
        writer.envelope(&mut page, format, &subject);
        writer.envelope(&mut page, format, &subject);
        writer.end(&mut page, 42, 1);
        let value = text(&value);
        let rest = r#""count":2,"nextAfter":42,"oldestSequence":1"#;
        assert_eq!(text(&page), format!("{{\"events\":[{value},{value}],{rest}}}"));
    }
}

#[test]
fn a_value_that_nobody_knows_is_no_change_for_sequin() {
    let story = postgres();
    let (_, messages) = &story.messages(Format::Sequin, Tombstones::Off)[1];
    let changes = &json(messages[0].value.as_deref().unwrap_or_default())["changes"];
    assert!(changes.get("note").is_none() && changes["paid"] == false, "{changes}");
    let story = written_by_rest();
    let event = EventRef {
        before: Some(br#"{"id":1,"gone":2,"b":3}"#),
        after: Some(br#"{"\u0062":3,"id":1}"#),
        ..story.subjects()[1].1
    };
    let mut out = Vec::new();
    let subject = Subject { event, id: "evt_1_1", key: "1", schema: &story.schema, subscription: None };
    Format::Sequin.write(&mut out, &subject);
    assert_eq!(json(&out)["changes"], json(br#"{"gone":2}"#));
    assert_eq!(json(&out)["metadata"]["consumer"], Value::Null);
}

#[test]
fn rows_of_a_first_snapshot_name_the_tables_source_as_later_events_do() {
    let name = |story: &Story, origin| {
        let (_, event, key) = story.subjects()[4];
        let event = EventRef { origin, ..event };
        let subject = Subject { event, id: "evt_1_1", key, schema: &story.schema, subscription: Some("s") };
        let mut out = Vec::new();
        Format::Debezium.write(&mut out, &subject);
        json(&out)["source"]["name"].clone()
    };
    for (story, source) in stories().iter().zip(["main", "maria", "cdc-engine"]) {
        let (_, event, _) = story.subjects()[4];
        let row = event.origin.map(|origin| OriginRef { source: "snapshot", ..origin });
        assert_eq!(name(story, row), source);
        assert_eq!(name(story, None), source);
    }
}

#[test]
fn only_a_delete_of_debezium_has_a_tombstone_and_only_if_asked_for() {
    for story in stories() {
        for &format in Format::ALL {
            for tombstones in [Tombstones::Off, Tombstones::On] {
                for (what, messages) in story.messages(format, tombstones) {
                    let is_debezium = matches!(format, Format::Debezium | Format::DebeziumSchema);
                    let expected = what == "delete" && is_debezium && tombstones == Tombstones::On;
                    assert_eq!(messages.len(), 1 + usize::from(expected), "{format:?} {what}");
                    assert!(messages[0].value.is_some());
                    if let Some(tombstone) = messages.get(1) {
                        assert_eq!((&tombstone.key, &tombstone.value), (&messages[0].key, &None));
                    }
                    assert_eq!(messages[0].key.is_none(), what == "truncate", "{format:?} {what}");
                }
            }
        }
    }
}

/// What a consumer that was written for Debezium's JSON does: it keeps a copy of the table by key, from `op`, `before`
/// and `after`, and forgets with tombstones.
#[test]
fn a_consumer_of_debezium_keeps_a_copy_of_the_table() {
    for (story, format) in
        stories().iter().flat_map(|story| [Format::Debezium, Format::DebeziumSchema].map(|format| (story, format)))
    {
        let mut copy = BTreeMap::new();
        for (what, messages) in story.messages(format, Tombstones::On) {
            for message in messages {
                let payload = |bytes: &[u8]| match (format, json(bytes)) {
                    (Format::DebeziumSchema, Value::Object(mut both)) => both.remove("payload").unwrap_or_default(),
                    (_, value) => value,
                };
                let key = message.key.as_deref().map(payload);
                let Some(value) = message.value.as_deref().map(payload) else {
                    assert!(!copy.contains_key(&key.map(|key| key.to_string()).unwrap_or_default()), "already deleted");
                    continue;
                };
                assert!(value["source"]["ts_ms"].is_u64() && value["ts_ms"].is_u64());
                let key = key.unwrap_or_default().to_string();
                match value["op"].as_str() {
                    Some("c" | "r" | "u") => {
                        for column in &story.schema.columns {
                            assert!(value["after"].get(&column.name).is_some(), "{what} lacks {}", column.name);
                        }
                        assert_eq!(value["before"].is_null(), value["op"] != "u");
                        copy.insert(key, value["after"].clone());
                    }
                    Some("d") => assert!(value["after"].is_null() && copy.remove(&key).is_some()),
                    Some("t") => copy.clear(),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(copy.len(), 1, "the row that was read last");
    }
}

/// Kafka Connect reads a payload by its schema: every value must be of the type that is promised for its field.
#[test]
fn payloads_are_what_their_schemas_say() {
    fn check(schema: &Value, value: &Value, path: &str) {
        if value.is_null() {
            assert_eq!(schema["optional"], true, "{path} is null");
            return;
        }
        let is_right = match schema["type"].as_str() {
            Some("struct") => {
                let fields = schema["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
                let object = value.as_object().unwrap_or_else(|| panic!("{path} is no object"));
                assert_eq!(object.len(), fields.len(), "{path}: {value} for {schema}");
                for field in fields {
                    let name = field["field"].as_str().unwrap_or_default();
                    let member = object.get(name).unwrap_or_else(|| panic!("{path} lacks {name}"));
                    check(field, member, &format!("{path}.{name}"));
                }
                true
            }
            Some("array") => value.as_array().is_some_and(|items| {
                items.iter().for_each(|item| check(&schema["items"], item, path));
                true
            }),
            Some("string") => value.is_string(),
            Some("bytes") => {
                use base64::Engine;
                value.as_str().is_some_and(|text| base64::engine::general_purpose::STANDARD.decode(text).is_ok())
            }
            Some("boolean") => value.is_boolean(),
            // Java's converter takes what JSON has no number for as a string.
            Some("float" | "double") => value.is_number() || value == "NaN",
            Some("int16" | "int32") => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            Some("int64") => value.is_i64() || value.is_u64(),
            _ => false,
        };
        assert!(is_right, "{path} is {value} for {schema}");
    }
    for story in stories() {
        for (what, messages) in story.messages(Format::DebeziumSchema, Tombstones::Off) {
            for part in [&messages[0].key, &messages[0].value].into_iter().flatten() {
                let both = json(part);
                check(&both["schema"], &both["payload"], what);
            }
        }
    }
}

/// The public JSON schema of CloudEvents and what the specification says beside it.
#[test]
fn cloudevents_keep_the_specification() {
    for story in stories() {
        for (what, messages) in story.messages(Format::CloudEvents, Tombstones::Off) {
            let event = json(messages[0].value.as_deref().unwrap_or_default());
            let event = event.as_object().unwrap_or_else(|| panic!("no object"));
            assert_eq!(event["specversion"], "1.0");
            assert_eq!(event["datacontenttype"], "application/json");
            for required in ["id", "source", "type", "subject", "time", "sequence", "partitionkey"] {
                let value = event[required].as_str().unwrap_or_else(|| panic!("{what}: {required} is no string"));
                assert!(!value.is_empty(), "{what}: {required}");
                assert!(!value.chars().any(char::is_control), "{what}: {required} is {value:?}");
            }
            for name in event.keys().filter(|name| *name != "data") {
                assert!(
                    name.len() <= 20 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                );
            }
            assert!(event["data"].is_object());
            assert_eq!(event["sequence"], "00000000000000000042");
        }
    }
}

#[test]
fn binary_and_structured_events_tell_the_same() {
    for story in stories() {
        let structured = story.messages(Format::CloudEvents, Tombstones::Off);
        let binary = story.messages(Format::CloudEventsBinary, Tombstones::Off);
        for ((_, structured), (_, binary)) in structured.into_iter().zip(binary) {
            let whole: BTreeMap<String, Box<RawValue>> =
                serde_json::from_slice(structured[0].value.as_deref().unwrap_or_default()).unwrap_or_default();
            assert_eq!(text(binary[0].value.as_deref().unwrap_or_default()), whole["data"].get());
            assert_eq!(binary[0].headers.len() + 2, whole.len());
            for (name, value) in &binary[0].headers {
                let member = json(whole[name.trim_start_matches("ce-")].get().as_bytes());
                assert_eq!(member, Value::String(value.clone()));
            }
            assert_eq!(binary[0].key, structured[0].key);
        }
    }
}

#[test]
fn a_batch_is_an_array_of_what_each_would_be() {
    let story = written_by_rest();
    let messages = story.messages(Format::CloudEvents, Tombstones::Off);
    let values: Vec<&[u8]> = messages.iter().filter_map(|(_, messages)| messages[0].value.as_deref()).collect();
    let mut batch = Vec::new();
    write_batch(&mut batch, values.iter().copied());
    let read: Vec<Box<RawValue>> = serde_json::from_slice(&batch).unwrap_or_default();
    assert_eq!(read.len(), 5);
    assert!(read.iter().zip(values).all(|(read, value)| read.get().as_bytes() == value));
    assert_eq!(Format::CloudEvents.batch_content_type(), Some("application/cloudevents-batch+json"));
    assert_eq!(Format::CloudEventsBinary.batch_content_type(), None);
    batch.clear();
    write_batch(&mut batch, []);
    assert_eq!(batch, b"[]");
}

#[test]
fn header_values_are_printable() {
    assert_eq!(http_header_value("plain-1.0/x"), "plain-1.0/x");
    assert_eq!(http_header_value("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
    assert_eq!(http_header_value("50% \"x\"\n"), "50%25%20%22x%22%0A");
}

#[test]
fn a_row_of_many_columns_in_another_order_costs_no_more_than_looking_them_up() {
    // As many columns as a table may have, in the worst order.
    let names: Vec<String> = (0..1_000).map(|at| format!("c{at}")).collect();
    let columns = names.iter().map(|name| column(name, ColumnType::Number, true, Some("numeric"))).collect();
    let schema = TableSchema { columns, relation: postgres().schema.relation, ..written_by_rest().schema };
    let members: Vec<String> = names.iter().rev().map(|name| format!("\"{name}\":1.0")).collect();
    let image = format!("{{{}}}", members.join(","));
    let story = written_by_rest();
    let event = EventRef { after: Some(image.as_bytes()), ..story.subjects()[0].1 };
    let subject = Subject { event, id: "evt_1_1", key: "1", schema: &schema, subscription: None };
    let mut out = Vec::new();
    Format::Debezium.write(&mut out, &subject);
    assert_eq!(json(&out)["after"].as_object().map(serde_json::Map::len), Some(1_000));
}

/// Numbers with more digits than any machine number has, and everything else that JSON has.
fn value() -> impl Strategy<Value = String> {
    let number = "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?";
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        number.prop_map(|digits| digits),
        any::<String>().prop_map(|text| Value::String(text).to_string()),
        "[0-9T:.Z+PYMDHS -]{0,30}".prop_map(|text| Value::String(text).to_string()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let list = proptest::collection::vec(inner, 0..4);
        prop_oneof![
            list.clone().prop_map(|items| format!("[{}]", items.join(","))),
            list.prop_map(|items| {
                let members = items.iter().enumerate().map(|(at, item)| format!("\"m{at}\":{item}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

fn native_type() -> impl Strategy<Value = Option<String>> {
    const NAMES: &[&str] = &[
        "integer",
        "numeric(10,2)",
        "text",
        "jsonb",
        "date",
        "time without time zone",
        "timestamp with time zone",
        "timestamp(3) without time zone",
        "time with time zone",
        "interval",
        "bytea",
        "bit(1)",
        "bit(9)",
        "bit varying",
        "numeric[]",
        "jsonb[]",
        "set('a')",
        "mood",
        "int(10) unsigned",
        "year(4)",
        "point",
        "(",
        ")(",
        "[]",
    ];
    proptest::option::of(proptest::sample::select(NAMES).prop_map(str::to_owned))
}

fn column_type() -> impl Strategy<Value = ColumnType> {
    use ColumnType::{Any, Array, Boolean, Number, Object, String};
    proptest::sample::select(&[String, Number, Boolean, Object, Array, Any][..])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in a row, and whatever its columns are said to be: what comes out is JSON, tells every member, and
    /// changes no character of those that have no other form in the envelope.
    #[test]
    fn any_row_comes_out_whole(
        columns in proptest::collection::vec((any::<String>(), column_type(), native_type(), value(), any::<bool>()), 1..8),
        connector in proptest::sample::select(&["postgresql", "mysql", "other"][..]),
        position in proptest::option::of("[0-9A-Fa-f/:.-]{0,24}"),
    ) {
        let columns: BTreeMap<_, _> = columns.into_iter().map(|(name, a, b, c, d)| (name, (a, b, c, d))).collect();
        let names: Vec<&String> = columns.keys().collect();
        let relation = Relation { source: "s".into(), connector: connector.into(), database: "d".into(), namespace: "n".into(), name: "t".into() };
        let schema = TableSchema {
            name: "t".into(),
            columns: columns.iter().map(|(name, (kind, native, _, _))| column(name, *kind, true, native.as_deref())).collect(),
            primary_key: vec![names[0].clone()],
            version: 1,
            relation: Some(relation),
        };
        // Some of the columns are not in the image.
        let present: Vec<_> = columns.iter().filter(|(_, (_, _, _, is_there))| *is_there).collect();
        let members: Vec<_> =
            present.iter().map(|(name, (_, _, value, _))| format!("{}:{value}", Value::String((*name).clone()))).collect();
        let image = format!("{{{}}}", members.join(","));
        let origin = OriginRef {
            source: "s", transaction: position.as_deref(), position: position.as_deref(), snapshot: false,
            committed_at_ms: None, unavailable: None,
        };
        let event = EventRef {
            sequence: u64::MAX, timestamp_ms: u64::MAX, table: "t", operation: Operation::Update,
            before: Some(image.as_bytes()), after: Some(image.as_bytes()), schema_version: 1, origin: Some(origin),
        };
        let subject = Subject { event, id: "evt_1_1", key: names[0], schema: &schema, subscription: None };
        for &format in Format::ALL {
            let mut messages = Vec::new();
            format.messages(&subject, Tombstones::On, &mut messages);
            let written = messages.pop().and_then(|message| message.value).unwrap_or_default();
            let mut value: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&written)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&written)));
            prop_assert!(!written.contains(&b'\n'));
            match format {
                Format::Native | Format::CloudEventsBinary => prop_assert_eq!(value["after"].get(), &image),
                Format::Sequin => {
                    prop_assert_eq!(value["record"].get(), &image);
                    prop_assert_eq!(value["changes"].get(), "{}");
                }
                Format::CloudEvents => {
                    let data: BTreeMap<String, Box<RawValue>> = serde_json::from_str(value["data"].get()).unwrap_or_default();
                    prop_assert_eq!(data["after"].get(), &image);
                }
                Format::Debezium | Format::DebeziumSchema => {
                    if format == Format::DebeziumSchema {
                        value = serde_json::from_str(value["payload"].get()).unwrap_or_default();
                    }
                    let after: BTreeMap<String, Box<RawValue>> = serde_json::from_str(value["after"].get()).unwrap_or_default();
                    prop_assert_eq!(after.len(), columns.len());
                    for (name, (kind, native, value, is_there)) in &columns {
                        let written = after[name].get();
                        let is_number = value.starts_with(|c: char| c == '-' || c.is_ascii_digit());
                        if !is_there {
                            prop_assert_eq!(written, "null");
                        } else if is_number && matches!(kind, ColumnType::Number) {
                            // In quotes or not, the digits are all there; bits alone become bytes.
                            let is_bits = native.as_deref().is_some_and(|native| native.starts_with("bit"));
                            prop_assert!(is_bits || written.trim_matches('"') == value, "{} became {}", value, written);
                        } else if native.is_none() && matches!(kind, ColumnType::Number | ColumnType::String | ColumnType::Boolean) {
                            prop_assert_eq!(written, value);
                        } else if native.is_none() && value != "null" {
                            let inside: String = serde_json::from_str(written).unwrap_or_default();
                            prop_assert_eq!(&inside, value);
                        }
                    }
                }
            }
        }
    }
}
