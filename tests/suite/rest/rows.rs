//! One row at a time: read, insert, merge, upsert, delete, and the keys that address it.

use cdc_tests::captured::Captured;
use cdc_tests::harness::Server;
use cdc_tests::http::Request;

#[test]
fn a_row_is_read_back_with_its_digits_and_its_member_order() {
    let server = Server::start();
    let row = r#"{"z":1.10,"id":"a","big":123456789012345678901234567890,"tiny":1E-400,"s":"\u00e9\ud83d\ude00é","n":{"y":[1, 2.0 ],"x":null}}"#;
    server.post("/data/t", row).expect(200);
    let read = server.get("/data/t/a").expect(200);
    assert_eq!(read.header("content-type"), Some("application/json"));
    assert_eq!(read.text(), row.replace("[1, 2.0 ]", "[1,2.0]"));
    server.get("/data/t/b").expect_problem(404, "unknown-row");
    server.get("/data/nobody/a").expect_problem(404, "unknown-table");
}

#[test]
fn insignificant_white_space_goes_and_everything_else_stays() {
    let server = Server::start();
    let written = "\r\n\t{ \"id\" : \"a b\" ,\n \"text\" : \" two  spaces \\n \" , \"list\" : [ ] , \"none\" : { } }\n";
    let answer = server.post("/data/t", written).expect(200);
    let kept = r#"{"id":"a b","text":" two  spaces \n ","list":[],"none":{}}"#;
    assert_eq!(Captured::of_write(answer.text()).after.as_deref(), Some(kept));
    assert_eq!(server.get("/data/t/a%20b").expect(200).text(), kept);
}

#[test]
fn an_update_merges_members_shallowly_and_keeps_their_places() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":"a","one":1,"deep":{"x":1,"y":2},"two":2}"#).expect(200);
    let answer = server.put("/data/t/a", r#"{"new":true,"deep":{"z":3},"one":null}"#).expect(200);
    let event = Captured::of_write(answer.text());
    assert_eq!(event.operation, "UPDATE");
    assert_eq!(event.before.as_deref(), Some(r#"{"id":"a","one":1,"deep":{"x":1,"y":2},"two":2}"#));
    assert_eq!(event.after.as_deref(), Some(r#"{"id":"a","one":null,"deep":{"z":3},"two":2,"new":true}"#));
}

#[test]
fn an_update_that_changes_nothing_is_captured_all_the_same() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":"a","v":1}"#).expect(200);
    for body in [r#"{"v":1}"#, "{}", r#"{"id":"a"}"#] {
        let event = Captured::of_write(server.put("/data/t/a", body).expect(200).text());
        assert_eq!(event.before, event.after, "{body}");
    }
    assert_eq!(server.current_sequence(), 4);
}

#[test]
fn a_key_is_given_once_and_cannot_be_changed() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":"a","v":1}"#).expect(200);
    server.post("/data/t", r#"{"id":"a","v":2}"#).expect_problem(409, "row-exists");
    server.put("/data/t/a", r#"{"id":"b"}"#).expect_problem(400, "key-mismatch");
    server.put("/data/t/b", r#"{"v":2}"#).expect_problem(404, "unknown-row");
    server.delete("/data/t/b").expect_problem(404, "unknown-row");
    assert_eq!(server.current_sequence(), 1);
    assert_eq!(server.get("/data/t/a").expect(200).text(), r#"{"id":"a","v":1}"#);
}

#[test]
fn a_deleted_key_is_free_again() {
    let server = Server::start();
    for round in 1..=3 {
        server.post("/data/t", &format!(r#"{{"id":"a","round":{round}}}"#)).expect(200);
        let event = Captured::of_write(server.delete("/data/t/a").expect(200).text());
        assert_eq!(event.before, Some(format!(r#"{{"id":"a","round":{round}}}"#)));
        assert_eq!(event.after, None);
        server.get("/data/t/a").expect_problem(404, "unknown-row");
    }
    assert_eq!(server.current_sequence(), 6);
}

#[test]
fn an_upsert_inserts_what_is_missing_and_updates_what_is_there() {
    let server = Server::start();
    let first = Captured::of_write(server.put("/data/t/a?upsert=true", r#"{"id":"a","v":1}"#).expect(200).text());
    assert_eq!((first.operation.as_str(), first.after.as_deref()), ("INSERT", Some(r#"{"id":"a","v":1}"#)));
    let second = Captured::of_write(server.put("/data/t/a?upsert=true", r#"{"w":2}"#).expect(200).text());
    assert_eq!((second.operation.as_str(), second.after.as_deref()), ("UPDATE", Some(r#"{"id":"a","v":1,"w":2}"#)));
    let third = Captured::of_write(server.post("/data/t?upsert=true", r#"{"id":"a","v":3}"#).expect(200).text());
    assert_eq!((third.operation.as_str(), third.after.as_deref()), ("UPDATE", Some(r#"{"id":"a","v":3,"w":2}"#)));
    server.put("/data/t/b?upsert=true", r#"{"id":"c"}"#).expect_problem(400, "key-mismatch");
    server.put("/data/t/a?upsert=false", r#"{"v":4}"#).expect(200);
    server.put("/data/t/z?upsert=false", r#"{"v":4}"#).expect_problem(404, "unknown-row");
    assert_eq!(server.current_sequence(), 4);
}

#[test]
fn a_number_and_its_digits_are_the_same_key() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":42,"v":1}"#).expect(200);
    assert_eq!(server.get("/data/t/42").expect(200).text(), r#"{"id":42,"v":1}"#);
    server.post("/data/t", r#"{"id":"42","v":2}"#).expect_problem(409, "row-exists");
    let event = Captured::of_write(server.put("/data/t/42", r#"{"v":3}"#).expect(200).text());
    assert_eq!(event.after.as_deref(), Some(r#"{"id":42,"v":3}"#));
    server.delete("/data/t/42").expect(200);
}

#[test]
fn keys_of_any_characters_are_addressed_percent_encoded() {
    let server = Server::start();
    let keys = [
        ("a/b", "a%2Fb"),
        ("50%", "50%25"),
        ("späße 🎉", "sp%C3%A4%C3%9Fe%20%F0%9F%8E%89"),
        ("a?b#c&d=e", "a%3Fb%23c%26d%3De"),
        ("..", "%2e%2e"),
        ("+", "+"),
        ("\u{1}\t", "%01%09"),
        ("history", "history"),
    ];
    for (key, path) in keys {
        let row = format!("{{\"id\":{}}}", serde_json::to_string(key).unwrap());
        server.post("/data/t", &row).expect(200);
        assert_eq!(server.get(&format!("/data/t/{path}")).expect(200).json()["id"], key);
        let updated = server.put(&format!("/data/t/{path}"), r#"{"seen":true}"#).expect(200);
        assert_eq!(updated.json()["event"]["after"]["id"], key);
        let found = server.get(&format!("/events?key={}", path.replace('+', "%2B"))).expect(200);
        assert_eq!(found.json()["count"], 2, "{key:?}");
        server.delete(&format!("/data/t/{path}")).expect(200);
    }
}

#[test]
fn a_composite_key_is_one_path_segment_per_column() {
    let server = Server::start();
    let schema = r#"{"columns":[{"name":"order","type":"number","nullable":false},{"name":"line","type":"string","nullable":false}],"primaryKey":["order","line"]}"#;
    server.put("/schema/lines", schema).expect(200);
    server.post("/data/lines", r#"{"order":7,"line":"a/b","qty":1}"#).expect(200);
    server.post("/data/lines", r#"{"order":7,"line":"c","qty":2}"#).expect(200);
    server.post("/data/lines", r#"{"order":7,"line":"c","qty":3}"#).expect_problem(409, "row-exists");
    assert_eq!(server.get("/data/lines/7/a%2Fb").expect(200).json()["qty"], 1);
    let event = Captured::of_write(server.put("/data/lines/7/c", r#"{"qty":5}"#).expect(200).text());
    assert_eq!(event.after.as_deref(), Some(r#"{"order":7,"line":"c","qty":5}"#));
    server.put("/data/lines/7/c", r#"{"line":"d"}"#).expect_problem(400, "key-mismatch");
    // Too few or too many segments name no row of this table.
    for path in ["/data/lines/7", "/data/lines/7/c/d"] {
        let status = server.get(path).status;
        assert!(status == 400 || status == 404, "{path}: {status}");
        server.get(path).problem();
    }
    let found = server.get("/events?table=lines&key=7%2Fc").expect(200);
    assert_eq!(found.json()["count"], 2);
    // Within a part, `/` is told from the `/` between parts.
    assert_eq!(server.get("/events?table=lines&key=7%2Fa%252Fb").expect(200).json()["count"], 1);
    server.delete("/data/lines/7/a%2Fb").expect(200);
    server.get("/data/lines/7/a%2Fb").expect_problem(404, "unknown-row");
}

#[test]
fn concurrent_inserts_of_one_key_have_one_winner() {
    let server = Server::start();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|number| {
                let server = &server;
                scope.spawn(move || server.post("/data/t", &format!(r#"{{"id":"one","writer":{number}}}"#)).status)
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 15, "{statuses:?}");
    assert_eq!(server.current_sequence(), 1);
}

#[test]
fn a_row_at_the_size_limit_is_taken_and_one_byte_more_is_not() {
    let server = Server::start();
    let row_of = |bytes: usize| {
        let frame = r#"{"id":"a","v":""}"#.len();
        format!(r#"{{"id":"a","v":"{}"}}"#, "x".repeat(bytes - frame))
    };
    let over = server.send(&Request::post("/data/t", row_of((1 << 20) + 1)));
    assert_eq!(over.status, 413);
    over.problem();
    server.send(&Request::post("/data/t", row_of(1 << 20))).expect(200);
    assert_eq!(server.get("/data/t/a").expect(200).body.len(), 1 << 20);
}
