//! Bodies that are too deep or too large: refused, and never held in memory.

use std::io;
use std::thread;

use super::{assert_refused, assert_untouched, seed, server_with_a_row};
use cdc_tests::harness::{Launch, Server};
use cdc_tests::http::{Answer, Connection, Request};

const MIB: usize = 1 << 20;
const HUGE: usize = 64 * MIB;

fn nested(open: &str, close: &str, levels: usize) -> String {
    format!("{{\"id\":\"x\",\"v\":{}1{}}}", open.repeat(levels), close.repeat(levels))
}

#[test]
fn nesting_beyond_the_limit_is_refused_however_deep() {
    let server = server_with_a_row();
    for levels in [128, 1_000, 20_000, 100_000] {
        for body in [nested("[", "]", levels), nested("{\"a\":", "}", levels)] {
            assert_refused(&server, &Request::post("/data/t", body.clone()), 413, "too-deep");
            assert_refused(&server, &Request::put("/data/t/there", body), 413, "too-deep");
        }
    }
    // Even where it never closes.
    let answer = server.post("/data/t", &format!("{{\"id\":\"x\",\"v\":{}", "[".repeat(20_000)));
    assert!([400, 413].contains(&answer.status), "{}", answer.status);
    let answer = server.post("/data/t", &"[".repeat(20_000));
    assert!([400, 413].contains(&answer.status), "{}", answer.status);
    let answer = server.put("/schema/t", &format!("{{\"columns\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000)));
    assert!([400, 413].contains(&answer.status), "{}", answer.status);
    assert_untouched(&server);
}

#[test]
fn nesting_at_the_limit_is_taken() {
    let server = server_with_a_row();
    assert_untouched(&server);
    let deepest = nested("[", "]", 127);
    server.post("/data/deep", &deepest).expect(200);
    assert_eq!(server.get("/data/deep/x").expect(200).text(), deepest);
    let server = Launch::new().options("--max-depth 3").start();
    server.post("/data/t", r#"{"id":1,"v":[[1]]}"#).expect(200);
    assert_refused(&server, &Request::post("/data/t", r#"{"id":2,"v":[[[1]]]}"#), 413, "too-deep");
}

/// Sends a body piece by piece while the server lets us; answers what it said.
fn send_huge(server: &Server, head: &Request, is_chunked: bool) -> io::Result<Answer> {
    let mut connection = server.connect();
    connection.send(&head.head())?;
    let piece = vec![b'x'; MIB];
    let mut send = |bytes: &[u8]| -> io::Result<()> {
        if is_chunked {
            connection.send(format!("{:x}\r\n", bytes.len()).as_bytes())?;
            connection.send(bytes)?;
            connection.send(b"\r\n")
        } else {
            connection.send(bytes)
        }
    };
    let mut sent = send(b"{\"id\":\"x\",\"v\":\"");
    for _ in 0..HUGE / MIB {
        if sent.is_err() {
            break;
        }
        sent = send(&piece);
    }
    if is_chunked && sent.is_ok() {
        let _ = connection.send(b"0\r\n\r\n");
    }
    // A server that refuses early may close while we still write: the answer stands in our receive buffer, unless the
    // kernel threw it away with the reset, which the caller tells from the error.
    connection.answer()
}

#[test]
fn a_body_of_64_mib_is_refused_without_being_held() {
    let server = server_with_a_row();
    let before = server.memory();
    for (method, target) in [("POST", "/data/t"), ("PUT", "/data/t/there"), ("PUT", "/schema/t"), ("POST", "/replay")] {
        let declared = Request::new(method, target)
            .header("content-type", "application/json")
            .header("content-length", &(HUGE + 15).to_string());
        let answer = send_huge(&server, &declared, false).expect("an answer comes before the connection ends");
        assert_eq!(answer.status, 413, "{method} {target}");
        answer.problem();
        let chunked = Request::new(method, target)
            .header("content-type", "application/json")
            .header("transfer-encoding", "chunked");
        let answer = send_huge(&server, &chunked, true).expect("an answer comes before the connection ends");
        assert_eq!(answer.status, 413, "{method} {target}");
        answer.problem();
    }
    let grown = server.memory().peak.saturating_sub(before.resident);
    assert!(grown < 24 * MIB as u64, "memory grew by {grown} bytes");
    assert_untouched(&server);
}

#[test]
fn a_body_that_is_too_large_is_so_however_slowly_the_rest_comes() {
    let server = Launch::new().options("--request-timeout-ms 500").start();
    seed(&server);
    let mut connection = server.connect();
    let head = Request::new("POST", "/data/t")
        .header("content-type", "application/json")
        .header("transfer-encoding", "chunked");
    connection.send(&head.head()).unwrap();
    connection.send(format!("{:x}\r\n{}\r\n", 2 * MIB, "x".repeat(2 * MIB)).as_bytes()).unwrap();
    // Neither the rest nor an end of it comes.
    assert_eq!(connection.answer().unwrap().status, 413);
    assert_untouched(&server);
}

#[test]
fn many_large_bodies_at_once_keep_memory_bounded() {
    let server = server_with_a_row();
    let before = server.memory();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let head = Request::new("POST", "/data/t")
                    .header("content-type", "application/json")
                    .header("transfer-encoding", "chunked");
                let answer = send_huge(&server, &head, true).expect("an answer comes before the connection ends");
                assert_eq!(answer.status, 413);
            });
        }
    });
    let grown = server.memory().peak.saturating_sub(before.resident);
    assert!(grown < 96 * MIB as u64, "memory grew by {grown} bytes");
    assert_untouched(&server);
}

#[test]
fn a_stream_of_lines_has_a_limit_of_its_own_and_is_never_held() {
    let server = Launch::new().options("--max-bulk-bytes 4MiB --retention-events 1000000").start();
    seed(&server);
    let before = server.memory();
    let line = format!("{{\"id\":\"there\",\"v\":\"{}\"}}\n", "y".repeat(1_000));
    let body = line.repeat(8 * MIB / line.len());
    let request = Request::new("POST", "/data/t").body("application/x-ndjson", body);
    // The first rows are answered before anybody knows that the last one is too much; the end says so.
    let outcome = server.send(&request).expect(200).json();
    assert_eq!((&outcome["success"], &outcome["captured"]), (&false.into(), &0.into()));
    let interruption = &outcome["interruption"];
    assert_eq!((&interruption["status"], &interruption["code"]), (&413.into(), &"body-too-large".into()));
    let grown = server.memory().peak.saturating_sub(before.resident);
    assert!(grown < 32 * MIB as u64, "memory grew by {grown} bytes");
    assert_untouched(&server);
}

#[test]
fn a_length_that_lies_captures_nothing() {
    let server = server_with_a_row();
    // Longer than what comes: the client goes away in the middle.
    let mut connection: Connection = server.connect();
    let head =
        Request::new("POST", "/data/t").header("content-type", "application/json").header("content-length", "500");
    connection.send(&head.head()).unwrap();
    connection.send(br#"{"id":"x"}"#).unwrap();
    drop(connection);
    // Shorter: what is left over is no request.
    let mut connection = server.connect();
    let head = Request::new("POST", "/data/t").header("content-type", "application/json").header("content-length", "3");
    connection.send(&head.head()).unwrap();
    connection.send(br#"{"id":"x"}"#).unwrap();
    assert_eq!(connection.answer().unwrap().status, 400);
    // Not a length at all.
    for length in ["-1", "1e3", "18446744073709551616", "5, 6", "abc", ""] {
        let mut connection = server.connect();
        let head =
            Request::new("POST", "/data/t").header("content-type", "application/json").header("content-length", length);
        connection.send(&head.head()).unwrap();
        match connection.answer() {
            Ok(answer) => assert_eq!(answer.status, 400, "{length:?}"),
            Err(error) => panic!("{length:?} ended the connection without an answer: {error}"),
        }
    }
    // Two lengths, or a length and chunks, are how requests are smuggled past each other.
    for headers in
        ["content-length: 10\r\ncontent-length: 11\r\n", "content-length: 10\r\ntransfer-encoding: chunked\r\n"]
    {
        let mut connection = server.connect();
        let text = format!(
            "POST /data/t HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n{{\"id\":\"x\"}}"
        );
        connection.send(text.as_bytes()).unwrap();
        let answer = connection.answer().expect("an answer");
        assert_eq!(answer.status, 400, "{headers:?}");
    }
    assert_untouched(&server);
}
