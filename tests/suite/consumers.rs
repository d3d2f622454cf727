//! Consumers that are none of ours read what the service delivers: Kafka Connect's JsonConverter with Debezium's
//! ExtractNewRecordState, and the CloudEvents SDK, which validates against the JSON schema that it carries.

use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdc_test_servers::{Postgres, Redis};
use cdc_tests::harness::{Launch, Server, repository, until};
use cdc_tests::recorder::Recorder;
use serde_json::{Value, json};

/// A captured database whose changes go where these lines of configuration say.
fn captured(postgres: &Postgres, lines: &str) -> Server {
    let url = postgres.url("postgres");
    let text = format!("builtin-subscribers = \"none\"\n[sources.shop]\nurl = \"{url}\"\n\n{lines}");
    let server = Launch::configured(&text).start();
    until("the source to follow", || {
        (server.get("/sources/shop").expect(200).json()["state"] == "following").then_some(())
    });
    server
}

/// Runs a program of `tests/peers` on this input; answers its lines.
fn peer(program: &str, arguments: &[&str], input: String) -> Vec<String> {
    let mut child = Command::new(repository().join("tests/peers").join(program))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let writing = thread::spawn(move || pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {complaints}");
    writing.join().unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

const THINGS: &str = "CREATE TABLE things (id bigint PRIMARY KEY, small smallint, whole integer, price numeric(20,4), \
    ratio double precision, note text, word varchar(20), active boolean, born date, at timestamp, seen timestamptz, \
    took interval, doc jsonb, raw bytea, token uuid, numbers int[], mood mood)";

/// A row as a consumer of Debezium's has it, by the documented mapping.
fn thing(id: u64, price: &str, note: &Value, deleted: &str, operation: &str) -> Value {
    json!({
        "id": id, "small": -3, "whole": 2147483647, "price": price, "ratio": 0.1, "note": note, "word": "ä\"\\",
        "active": true, "born": "2024-02-29Z", "at": "2024-01-02T03:04:05.12Z", "seen": "2024-01-02T01:04:05.12Z",
        "took": "P0Y0M1DT2H0M0S", "doc": "{\"a\":1.50}", "raw": "AAH/", "token": "0b3a9c1e-1d2f-4b5a-8c7d-9e0f1a2b3c4d",
        "numbers": [1, null, 3], "mood": "happy",
        "__deleted": deleted, "__op": operation, "__table": "things", "__source_db": "postgres",
    })
}

#[test]
fn a_consumer_written_for_debezium_reads_rows_keys_and_deletes() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let insert = |id: u64| {
        format!(
            "INSERT INTO things VALUES ({id}, -3, 2147483647, 1234567890123456.7800, 0.1, NULL, 'ä\"\\', true, \
             '2024-02-29', '2024-01-02 03:04:05.12', '2024-01-02 03:04:05.12+02', '1 day 2 hours', '{{\"a\": 1.50}}', \
             '\\x0001ff', '0b3a9c1e-1d2f-4b5a-8c7d-9e0f1a2b3c4d', '{{1,NULL,3}}', 'happy');"
        )
    };
    postgres.psql("postgres", &format!("CREATE TYPE mood AS ENUM ('happy', 'sad'); {THINGS}; {}", insert(1)));
    let sink = |format: &str| {
        format!(
            "[subscriptions.{format}]\nstart = \"beginning\"\n\
             subscriber = {{ sink = \"redis\", url = \"{}\", stream = \"{format}\", format = \"{format}\" }}\n",
            redis.url()
        )
    };
    let server = captured(&postgres, &format!("{}{}", sink("debezium"), sink("debezium-schema")));
    let changes = "UPDATE things SET note = 'noted', price = 0.0001 WHERE id = 1; DELETE FROM things WHERE id = 1";
    postgres.psql("postgres", &format!("{} {changes}", insert(9_007_199_254_740_993)));
    until("four events to be delivered", || {
        let done = |name: &str| server.get(&format!("/subscriptions/{name}")).expect(200).json();
        let four = |name| done(name)["acknowledgedSequence"].as_u64() == Some(4);
        (four("debezium") && four("debezium-schema")).then_some(())
    });

    let price = "1234567890123456.7800";
    let rows = [
        thing(1, price, &Value::Null, "false", "r"),
        thing(9_007_199_254_740_993, price, &Value::Null, "false", "c"),
        thing(1, "0.0001", &json!("noted"), "false", "u"),
        thing(1, "0.0001", &json!("noted"), "true", "d"),
    ];
    let keys = [1, 9_007_199_254_740_993u64, 1, 1].map(|id| json!({"id": id}));

    let read = consumed("debezium-schema", "true", &redis);
    assert_eq!(read.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), keys);
    for ((_, found), expected) in read.iter().zip(&rows) {
        assert_eq!(found, expected);
    }
    // Without schemas there is nothing that makes rows of it: what was sent is what such a consumer takes apart itself.
    let read = consumed("debezium", "false", &redis);
    assert_eq!(read.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), keys);
    for ((_, found), expected) in read.iter().zip(&rows) {
        let mut row = if found["op"] == "d" { found["before"].clone() } else { found["after"].clone() };
        let members = row.as_object_mut().expect("a row");
        members.insert("__op".into(), found["op"].clone());
        members.insert("__deleted".into(), json!((found["op"] == "d").to_string()));
        members.insert("__table".into(), found["source"]["table"].clone());
        members.insert("__source_db".into(), found["source"]["db"].clone());
        assert_eq!(&row, expected);
        assert_eq!(found["source"]["connector"], "postgresql");
        // What was read from the table has no place in the log.
        assert_eq!(found["source"]["lsn"].is_u64(), found["op"] != "r", "{found}");
    }
    server.stop();
}

/// Keys and values of a stream of Redis, as Debezium's consumer reads them.
fn consumed(stream: &str, with_schemas: &str, redis: &Redis) -> Vec<(Value, Value)> {
    let records = redis.entries(stream).into_iter().map(|fields| {
        let fields: HashMap<String, String> = fields.into_iter().collect();
        format!("{} {}", STANDARD.encode(&fields["key"]), STANDARD.encode(&fields["value"]))
    });
    let records: Vec<String> = records.collect();
    let rows = peer("debezium/consume", &[with_schemas], records.join("\n"));
    let json = |text: &str| serde_json::from_str(text).unwrap();
    rows.iter().map(|line| line.split_once('\t').unwrap()).map(|(key, row)| (json(key), json(row))).collect()
}

#[test]
fn cloudevents_of_every_mode_are_valid_to_the_sdk_and_its_schema() {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE TABLE users (id text PRIMARY KEY, name text)");
    let modes = [("cloudevents", false), ("cloudevents-binary", false), ("cloudevents", true)];
    let recorders = modes.map(|_| Recorder::start());
    let mut lines = String::new();
    for (at, ((format, batch), recorder)) in modes.iter().zip(&recorders).enumerate() {
        lines += &format!(
            "[subscriptions.mode{at}]\nsubscriber = {{ sink = \"webhook\", url = \"{}\", format = \"{format}\", \
             batch = {batch} }}\n",
            recorder.origin()
        );
    }
    let server = captured(&postgres, &lines);
    postgres.psql(
        "postgres",
        "BEGIN; INSERT INTO users VALUES ('ä/1', 'Ada'), ('2', NULL); UPDATE users SET name = 'Grace' WHERE id = '2'; \
         DELETE FROM users WHERE id = '2'; COMMIT; TRUNCATE users",
    );
    until("five events to be delivered", || {
        let acknowledged = |at: usize| {
            server.get(&format!("/subscriptions/mode{at}")).expect(200).json()["acknowledgedSequence"].as_u64()
        };
        (0..modes.len()).all(|at| acknowledged(at) == Some(5)).then_some(())
    });
    let mut seen: Vec<Vec<Value>> = Vec::new();
    for recorder in &recorders {
        let requests = recorder.exchanges();
        let requests = requests.iter().map(|exchange| {
            let headers: serde_json::Map<String, Value> =
                exchange.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            json!({"headers": headers, "body": String::from_utf8(exchange.body.clone()).unwrap()}).to_string()
        });
        let input = requests.collect::<Vec<_>>().join("\n");
        let events = peer("cloudevents/run", &[], input);
        seen.push(events.iter().flat_map(|line| serde_json::from_str::<Vec<Value>>(line).unwrap()).collect());
    }
    let [structured, binary, batch] = seen.as_slice() else { panic!("three modes") };
    let types: Vec<&str> = structured.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let rows = ["row.inserted", "row.inserted", "row.updated", "row.deleted", "table.truncated"];
    assert_eq!(types, rows.map(|what| format!("dev.cdc.{what}")));
    assert_eq!(structured[2]["data"]["after"], json!({"id": "2", "name": "Grace"}));
    assert_eq!(structured[2]["data"]["before"], json!({"id": "2", "name": null}));
    assert_eq!(structured[3]["subject"], "public.users/2");
    assert_eq!(structured[0]["partitionkey"], "ä/1");
    assert_eq!(structured, batch, "a batch holds the same events");
    // Headers are percent-encoded, as CloudEvents' binding to HTTP wants it; the SDK leaves it to its caller to decode them.
    let mut binary = binary.clone();
    for event in &mut binary {
        for attribute in ["subject", "partitionkey"] {
            event[attribute] = json!(event[attribute].as_str().unwrap().replace("%C3%A4", "ä"));
        }
    }
    assert_eq!(structured, &binary, "the binary mode says the same in headers");
    server.stop();
}
