//! Schemas: inferred, declared, evolved, remembered, and enforced where asked for.

use cdc_tests::captured::Captured;
use cdc_tests::harness::{Launch, Server};
use serde_json::{Value, json};

fn columns(schema: &Value) -> Vec<String> {
    let columns = schema["columns"].as_array().expect("a schema has columns");
    columns
        .iter()
        .map(|column| {
            let nullable = if column["nullable"] == true { "?" } else { "" };
            format!("{}:{}{nullable}", column["name"].as_str().unwrap(), column["type"].as_str().unwrap())
        })
        .collect()
}

#[test]
fn a_first_row_gives_a_table_its_schema() {
    let server = Server::start();
    server.post("/data/t", r#"{"s":"x","id":1,"b":true,"o":{},"a":[],"n":null}"#).expect(200);
    let schema = server.get("/schema/t").expect(200).json();
    assert_eq!(columns(&schema), ["s:string", "id:number", "b:boolean", "o:object", "a:array", "n:any?"]);
    assert_eq!((&schema["primaryKey"], &schema["version"]), (&json!(["id"]), &json!(1)));
}

#[test]
fn an_inferred_schema_widens_one_version_at_a_time_and_events_name_theirs() {
    let server = Server::start();
    let version = |answer: &str| Captured::of_write(answer).schema_version;
    assert_eq!(version(server.post("/data/t", r#"{"id":"a","v":1}"#).expect(200).text()), 1);
    assert_eq!(version(server.put("/data/t/a", r#"{"v":2}"#).expect(200).text()), 1);
    // A new column, nullable since rows without it exist.
    assert_eq!(version(server.put("/data/t/a", r#"{"w":"x"}"#).expect(200).text()), 2);
    assert_eq!(columns(&server.get("/schema/t").expect(200).json()), ["id:string", "v:number", "w:string?"]);
    // A null makes a column nullable.
    assert_eq!(version(server.put("/data/t/a", r#"{"v":null}"#).expect(200).text()), 3);
    // A value of another type makes it any.
    assert_eq!(version(server.put("/data/t/a", r#"{"w":7}"#).expect(200).text()), 4);
    assert_eq!(columns(&server.get("/schema/t").expect(200).json()), ["id:string", "v:number?", "w:any?"]);
    // A row that lacks a column makes it nullable.
    server.post("/data/u", r#"{"id":"a","v":1}"#).expect(200);
    assert_eq!(version(server.post("/data/u", r#"{"id":"b"}"#).expect(200).text()), 2);
    assert_eq!(columns(&server.get("/schema/u").expect(200).json()), ["id:string", "v:number?"]);
    // Nothing new: nothing changes.
    assert_eq!(version(server.post("/data/u", r#"{"id":"c","v":null}"#).expect(200).text()), 2);
    assert_eq!(version(server.delete("/data/u/a").expect(200).text()), 2);
}

#[test]
fn every_version_of_a_schema_can_be_read_again() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":"a"}"#).expect(200);
    server.put("/data/t/a", r#"{"v":1}"#).expect(200);
    server.put("/data/t/a", r#"{"w":1}"#).expect(200);
    let history = server.get("/schema/t/history").expect(200).json();
    assert_eq!((&history["name"], &history["count"]), (&json!("t"), &json!(3)));
    for version in 1..=3 {
        let schema = server.get(&format!("/schema/t?version={version}")).expect(200).json();
        assert_eq!(schema["version"], version);
        assert_eq!(schema, history["versions"][version - 1]);
        assert_eq!(columns(&schema).len(), version);
    }
    server.get("/schema/t?version=4").expect_problem(404, "unknown-version");
    server.get("/schema/nobody?version=1").expect_problem(404, "unknown-table");
    server.get("/schema/nobody/history").expect_problem(404, "unknown-table");
}

#[test]
fn a_declared_schema_is_answered_in_full_and_stays_over_a_restart() {
    let server = Server::start();
    let declared = json!({
        "columns": [{"name": "code", "type": "string", "nullable": false}, {"name": "n", "type": "number", "nullable": true}],
        "primaryKey": ["code"],
    });
    let answer = server.put("/schema/t", &declared.to_string()).expect(200);
    assert_eq!(
        answer.text(),
        r#"{"name":"t","columns":[{"name":"code","type":"string","nullable":false},{"name":"n","type":"number","nullable":true}],"primaryKey":["code"],"version":1}"#
    );
    // The same again changes nothing, also when it is sent as it was read.
    assert_eq!(server.put("/schema/t", answer.text()).expect(200).text(), answer.text());
    assert_eq!(server.put("/schema/t", &declared.to_string()).expect(200).text(), answer.text());
    assert_eq!(server.current_sequence(), 0, "a declaration is no event");
    let server = server.stop().start();
    assert_eq!(server.get("/schema/t").expect(200).text(), answer.text());
    let server = server.kill().start();
    assert_eq!(server.get("/schema/t").expect(200).text(), answer.text());
    server.post("/data/t", r#"{"code":"x"}"#).expect(200);
    assert_eq!(server.get("/data/t/x").expect(200).text(), r#"{"code":"x"}"#);
}

#[test]
fn compatible_declarations_evolve_a_schema() {
    let server = Server::start();
    let declare = |columns: Value| json!({"columns": columns, "primaryKey": ["id"]}).to_string();
    let id = || json!({"name": "id", "type": "string", "nullable": false});
    let v = |kind: &str, nullable: bool| json!({"name": "v", "type": kind, "nullable": nullable});
    server.put("/schema/t", &declare(json!([id(), v("number", false)]))).expect(200);
    server.post("/data/t", r#"{"id":"a","v":1}"#).expect(200);
    let steps = [
        declare(json!([id(), v("number", true)])),
        declare(json!([id(), v("any", true)])),
        declare(json!([id(), v("any", true), {"name": "w", "type": "array", "nullable": true}])),
    ];
    for (index, step) in steps.iter().enumerate() {
        let schema = server.put("/schema/t", step).expect(200).json();
        assert_eq!(schema["version"], index as u64 + 2, "{step}");
    }
    assert_eq!(server.get("/schema/t/history").expect(200).json()["count"], 4);
}

#[test]
fn incompatible_declarations_are_refused_naming_the_column() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":"a","v":1,"w":null}"#).expect(200);
    let before = server.get("/schema/t").expect(200).body;
    let id = r#"{"name":"id","type":"string","nullable":false}"#;
    let v = r#"{"name":"v","type":"number","nullable":false}"#;
    let w = r#"{"name":"w","type":"any","nullable":true}"#;
    let cases = [
        (
            format!(r#"{{"columns":[{id},{{"name":"v","type":"string","nullable":false}},{w}],"primaryKey":["id"]}}"#),
            "v",
        ),
        (format!(r#"{{"columns":[{id},{v},{{"name":"w","type":"any","nullable":false}}],"primaryKey":["id"]}}"#), "w"),
        (format!(r#"{{"columns":[{id},{w}],"primaryKey":["id"]}}"#), "v"),
        (
            format!(
                r#"{{"columns":[{id},{v},{w},{{"name":"x","type":"string","nullable":false}}],"primaryKey":["id"]}}"#
            ),
            "x",
        ),
    ];
    for (declaration, column) in cases {
        let answer = server.put("/schema/t", &declaration);
        let detail = answer.expect_problem(409, "schema-conflict");
        assert!(detail.contains(column), "{detail}");
        assert_eq!(answer.json()["column"], column);
    }
    let other_key = format!(r#"{{"columns":[{id},{v},{w}],"primaryKey":["v"]}}"#);
    server.put("/schema/t", &other_key).expect_problem(409, "schema-conflict");
    assert_eq!(server.get("/schema/t").expect(200).body, before);
}

#[test]
fn what_is_no_schema_is_refused() {
    let server = Server::start();
    let bodies = [
        "{}",
        "[]",
        "{",
        r#"{"columns":[],"primaryKey":[]}"#,
        r#"{"columns":[{"name":"id","type":"text","nullable":false}],"primaryKey":["id"]}"#,
        r#"{"columns":[{"name":"id","type":"string","nullable":"no"}],"primaryKey":["id"]}"#,
        r#"{"columns":[{"name":"id","type":"string","nullable":false},{"name":"id","type":"string","nullable":false}],"primaryKey":["id"]}"#,
        r#"{"columns":[{"name":"id","type":"string","nullable":false}],"primaryKey":["other"]}"#,
        r#"{"columns":[{"name":"id","type":"string","nullable":false}],"primaryKey":["id","id"]}"#,
        r#"{"columns":[{"name":"id","type":"string","nullable":true}],"primaryKey":["id"]}"#,
        r#"{"columns":[{"name":"id","type":"object","nullable":false}],"primaryKey":["id"]}"#,
        r#"{"columns":[{"name":"","type":"string","nullable":false}],"primaryKey":[""]}"#,
        r#"{"columns":[{"name":"id","type":"string","nullable":false}],"primaryKey":["id"],"name":"other"}"#,
    ];
    for body in bodies {
        let answer = server.put("/schema/t", body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        answer.problem();
    }
    assert_eq!(server.get("/schemas").expect(200).json()["count"], 0);
}

#[test]
fn strict_mode_takes_what_fits_the_declaration_and_nothing_else() {
    let server = Launch::new().options("--schema strict").start();
    server.post("/data/t", r#"{"id":"a"}"#).expect_problem(404, "unknown-table");
    let schema = r#"{"columns":[{"name":"id","type":"string","nullable":false},{"name":"n","type":"number","nullable":false},{"name":"o","type":"object","nullable":true},{"name":"x","type":"any","nullable":true}],"primaryKey":["id"]}"#;
    server.put("/schema/t", schema).expect(200);
    server.post("/data/t", r#"{"id":"a","n":1}"#).expect(200);
    server.post("/data/t", r#"{"id":"b","n":1,"o":null,"x":[1]}"#).expect(200);
    let cases = [
        (r#"{"id":"c","n":"1"}"#, "n"),
        (r#"{"id":"c"}"#, "n"),
        (r#"{"id":"c","n":null}"#, "n"),
        (r#"{"id":"c","n":1,"o":[]}"#, "o"),
        (r#"{"id":"c","n":1,"more":1}"#, "more"),
        (r#"{"id":7,"n":1}"#, "id"),
    ];
    for (row, column) in cases {
        let answer = server.post("/data/t", row);
        answer.expect_problem(422, "schema-violation");
        assert_eq!(answer.json()["column"], column, "{row}");
    }
    server.put("/data/t/a", r#"{"n":null}"#).expect_problem(422, "schema-violation");
    server.put("/data/t/a", r#"{"n":2,"x":"anything"}"#).expect(200);
    assert_eq!(server.get("/schema/t").expect(200).json()["version"], 1);
    assert_eq!(server.current_sequence(), 3);
}

#[test]
fn schemas_are_listed_by_name() {
    let server = Server::start();
    for table in ["b", "a", "c"] {
        server.post(&format!("/data/{table}"), r#"{"id":1}"#).expect(200);
    }
    let schemas = server.get("/schemas").expect(200).json();
    let names: Vec<_> = schemas["schemas"].as_array().unwrap().iter().map(|schema| schema["name"].clone()).collect();
    assert_eq!(names, [json!("a"), json!("b"), json!("c")]);
    assert_eq!(schemas["count"], 3);
}
