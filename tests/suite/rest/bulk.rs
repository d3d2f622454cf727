//! Many rows in one request: a JSON array or NDJSON, with an outcome for every row.

use cdc_tests::captured::read_log;
use cdc_tests::harness::{Launch, Server};
use cdc_tests::http::{Answer, Request};
use cdc_tests::json::{Members, elements};

fn lines(target: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", target).body("application/x-ndjson", body)
}

/// The answer's members after their order has been checked: results first, since they are streamed as rows are captured.
#[track_caller]
fn outcome(answer: &Answer) -> Members {
    let outcome = Members::of(answer.text());
    let captured = outcome.number("captured");
    let sequences: &[&str] = if captured > 0 { &["firstSequence", "lastSequence"] } else { &[] };
    let names = [&["results", "success", "count", "captured", "failed"], sequences].concat();
    assert_eq!(outcome.names(), names);
    assert_eq!(outcome.number("count"), captured + outcome.number("failed"));
    assert_eq!(elements(outcome.text("results")).len() as u64, outcome.number("count"));
    outcome
}

#[test]
fn an_array_is_captured_in_its_order() {
    let server = Server::start();
    let answer = server.post("/data/t", r#" [ {"id":"a"}, {"id":"b"} ,{"id":"c"}]"#).expect(200);
    let outcome = outcome(&answer);
    assert_eq!(outcome.text("success"), "true");
    assert_eq!((outcome.number("firstSequence"), outcome.number("lastSequence")), (1, 3));
    let first = Members::of(&elements(outcome.text("results"))[0]);
    assert_eq!(first.names(), ["row", "status", "id", "sequenceNumber"]);
    let log = read_log(&server, 0);
    let ids: Vec<_> = log.iter().map(|event| event.after.as_deref().unwrap()).collect();
    assert_eq!(ids, [r#"{"id":"a"}"#, r#"{"id":"b"}"#, r#"{"id":"c"}"#]);
    // What the answer calls a row's id is its event's.
    assert_eq!(first.string("id"), log[0].id);
}

#[test]
fn lines_are_captured_in_their_order_whatever_ends_them() {
    let server = Server::start();
    let body = "{\"id\":1}\n\n{\"id\":2}\r\n   \n{\"id\":3}";
    let answer = server.send(&lines("/data/t", body)).expect(200);
    let outcome = outcome(&answer);
    assert_eq!((outcome.number("captured"), outcome.number("failed")), (3, 0));
    assert_eq!(server.current_sequence(), 3);
}

#[test]
fn rows_that_fail_are_named_and_the_others_are_captured() {
    let server = Server::start();
    let body = [
        r#"{"id":"a"}"#,
        "{",
        r#"{"id":"b"}"#,
        r#"{"id":"a"}"#,
        "[1]",
        r#"{"name":"no key"}"#,
        r#"{"id":null}"#,
        r#"{"id":"c","id":"d"}"#,
        "\"text\"",
        r#"{"id":"e"}"#,
    ]
    .join("\n");
    let answer = server.send(&lines("/data/t", body)).expect(200);
    let outcome = outcome(&answer);
    assert_eq!(outcome.text("success"), "false");
    assert_eq!((outcome.number("captured"), outcome.number("failed")), (3, 7));
    assert_eq!((outcome.number("firstSequence"), outcome.number("lastSequence")), (1, 3));
    let codes: Vec<String> = elements(outcome.text("results"))
        .iter()
        .filter(|row| Members::of(row).number("status") != 200)
        .map(|row| {
            let row = Members::of(row);
            assert_eq!(row.names()[..4], ["row", "status", "code", "detail"]);
            format!("{} {} {}", row.number("row"), row.number("status"), row.string("code"))
        })
        .collect();
    let first = Members::of(&elements(outcome.text("results"))[0]).number("row");
    let expected = [
        (1, "400 invalid-json"),
        (3, "409 row-exists"),
        (4, "400 not-an-object"),
        (5, "400 missing-key"),
        (6, "400 invalid-key"),
        (7, "400 duplicate-member"),
        (8, "400 not-an-object"),
    ];
    assert_eq!(codes, expected.map(|(index, code)| format!("{} {code}", index + first)));
}

#[test]
fn a_bulk_upsert_updates_what_is_there() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":"a","v":1,"w":1}"#).expect(200);
    let answer =
        server.post("/data/t?upsert=true", r#"[{"id":"a","v":2},{"id":"b","v":3},{"id":"b","v":4}]"#).expect(200);
    assert_eq!(outcome(&answer).number("captured"), 3);
    let operations: Vec<_> = read_log(&server, 1).into_iter().map(|event| event.operation).collect();
    assert_eq!(operations, ["UPDATE", "INSERT", "UPDATE"]);
    assert_eq!(server.get("/data/t/a").expect(200).text(), r#"{"id":"a","v":2,"w":1}"#);
}

#[test]
fn nothing_in_bulk_is_nothing_captured() {
    let server = Server::start();
    let answer = server.post("/data/t", "[]").expect(200);
    assert_eq!(outcome(&answer).number("count"), 0);
    let answer = server.send(&lines("/data/t", "\n\n")).expect(200);
    assert_eq!(outcome(&answer).number("count"), 0);
    assert_eq!(server.current_sequence(), 0);
}

#[test]
fn an_array_that_breaks_off_captures_nothing() {
    let server = Server::start();
    for body in [r#"[{"id":1},{"id":2}"#, r#"[{"id":1},"#, r#"[{"id":1}] x"#, r#"[{"id":1} {"id":2}]"#, "["] {
        let answer = server.post("/data/t", body);
        assert_eq!(answer.status, 400, "{body}");
        answer.problem();
    }
    assert_eq!(server.current_sequence(), 0);
}

#[test]
fn a_stream_of_lines_may_be_far_larger_than_one_row_may_be() {
    let server = Launch::new().options("--retention-events 100000").start();
    let rows = 30_000;
    let mut body = Vec::new();
    for id in 0..rows {
        body.extend_from_slice(format!("{{\"id\":{id},\"text\":\"{}\"}}\n", "x".repeat(100)).as_bytes());
    }
    assert!(body.len() > 3 << 20);
    let answer = server.send(&lines("/data/t", body)).expect(200);
    assert_eq!(outcome(&answer).number("captured"), rows);
    assert_eq!(server.current_sequence(), rows);
}

#[test]
fn a_chunked_stream_is_taken_as_it_comes() {
    let server = Server::start();
    let mut connection = server.connect();
    let head = Request::new("POST", "/data/t")
        .header("content-type", "application/x-ndjson")
        .header("transfer-encoding", "chunked");
    connection.send(&head.head()).unwrap();
    // Rows and chunks do not share their borders.
    let text: String = (0..500).map(|id| format!("{{\"id\":{id},\"é\":\"ü\"}}\n")).collect();
    for piece in text.as_bytes().chunks(7) {
        connection.send(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
        connection.send(piece).unwrap();
        connection.send(b"\r\n").unwrap();
    }
    connection.send(b"0\r\n\r\n").unwrap();
    let answer = connection.answer().unwrap().expect(200);
    assert_eq!(outcome(&answer).number("captured"), 500);
    // The connection is good for more.
    connection.exchange(&Request::get("/stats")).unwrap().expect(200);
}

#[test]
fn a_line_longer_than_a_row_may_be_fails_alone() {
    let server = Server::start();
    let mut body = b"{\"id\":1}\n{\"id\":2,\"v\":\"".to_vec();
    body.extend(std::iter::repeat_n(b'x', 2 << 20));
    body.extend_from_slice(b"\"}\n{\"id\":3}\n");
    let answer = server.send(&lines("/data/t", body)).expect(200);
    let outcome = outcome(&answer);
    assert_eq!((outcome.number("captured"), outcome.number("failed")), (2, 1));
    let second = Members::of(&elements(outcome.text("results"))[1]);
    assert_eq!((second.number("status"), second.string("code").as_str()), (413, "row-too-large"));
}

#[test]
fn concurrent_bulk_loads_of_one_table_all_arrive() {
    let server = Launch::new().options("--retention-events 100000").start();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for part in 0..5 {
                    let rows: Vec<String> =
                        (0..200).map(|row| format!(r#"{{"id":"{writer}-{part}-{row}"}}"#)).collect();
                    let answer = server.post("/data/t", &format!("[{}]", rows.join(","))).expect(200);
                    assert_eq!(outcome(&answer).number("captured"), 200);
                }
            });
        }
    });
    assert_eq!(read_log(&server, 0).len(), 4_000);
}
