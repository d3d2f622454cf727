//! Clients that are slow, half gone, or speak something else.

use std::thread;
use std::time::{Duration, Instant};

use super::{assert_untouched, seed, server_with_a_row};
use cdc_tests::harness::{Launch, PATIENCE};
use cdc_tests::http::{Connection, Request};

/// Sends one byte after the other, slowly, until the server has had enough; answers what it said, if anything.
fn drip(mut connection: Connection, bytes: &[u8]) -> Option<u16> {
    for byte in bytes {
        if connection.send(&[*byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let status = connection.answer().ok().map(|answer| answer.status);
    assert!(connection.is_ended_by_server(), "the server keeps a slow client's connection");
    status
}

#[test]
fn a_head_that_never_ends_is_given_up() {
    let server = Launch::new().options("--header-timeout-ms 300").start();
    seed(&server);
    let began = Instant::now();
    thread::scope(|scope| {
        let slow: Vec<_> = (0..20)
            .map(|_| {
                let head = b"GET /stats HTTP/1.1\r\nhost: localhost\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
                scope.spawn(|| drip(server.connect(), head))
            })
            .collect();
        // Others are served meanwhile.
        while slow.iter().any(|client| !client.is_finished()) {
            server.get("/stats").expect(200);
        }
        for client in slow {
            let status = client.join().unwrap();
            assert!(matches!(status, None | Some(408)), "{status:?}");
        }
    });
    assert!(began.elapsed() < PATIENCE);
    assert_untouched(&server);
}

#[test]
fn a_connection_that_says_nothing_at_all_is_given_up() {
    let server = Launch::new().options("--header-timeout-ms 300").start();
    seed(&server);
    let mut silent = server.connect();
    let status = silent.answer().ok().map(|answer| answer.status);
    assert!(matches!(status, None | Some(408)), "{status:?}");
    assert!(silent.is_ended_by_server());
    assert_untouched(&server);
}

#[test]
fn a_body_that_never_ends_is_given_up_and_captures_nothing() {
    let server = Launch::new().options("--request-timeout-ms 400").start();
    seed(&server);
    for content_type in ["application/json", "application/x-ndjson"] {
        let mut connection = server.connect();
        let head =
            Request::new("POST", "/data/t").header("content-type", content_type).header("content-length", "1000");
        connection.send(&head.head()).unwrap();
        connection.send(b"{\"id\":\"x\"").unwrap();
        let answer = connection.answer().expect("a slow request is answered");
        if content_type == "application/json" {
            answer.expect_problem(408, "request-timeout");
        } else {
            // The answer to a stream begins before the stream ends, and tells in its end how that came about.
            let outcome = answer.expect(200).json();
            assert_eq!((&outcome["success"], &outcome["captured"]), (&false.into(), &0.into()));
            assert_eq!(outcome["interruption"]["code"], "request-timeout");
        }
        assert!(connection.is_ended_by_server(), "what would follow is the rest of a body, not a request");
    }
    let mut connection = server.connect();
    let head =
        Request::new("POST", "/data/t").header("content-type", "application/json").header("content-length", "1000");
    connection.send(&head.head()).unwrap();
    assert_eq!(drip(connection, &[b' '; 60]), Some(408));
    assert_untouched(&server);
}

#[test]
fn a_client_that_never_reads_its_answers_harms_nobody() {
    let server = Launch::new().options("--request-timeout-ms 1000 --snapshot-timeout-ms 1000").start();
    seed(&server);
    let rows: String = (0..2_000).map(|id| format!("{{\"id\":{id},\"text\":\"{}\"}}\n", "x".repeat(500))).collect();
    server.send(&Request::new("POST", "/data/big").body("application/x-ndjson", rows)).expect(200);
    let deaf: Vec<Connection> = (0..20)
        .map(|_| {
            let mut connection = server.connect();
            connection.send(&Request::get("/snapshot/big").bytes().repeat(50)).unwrap();
            connection
        })
        .collect();
    let before = server.memory().resident;
    for id in 0..200 {
        server.post("/data/t", &format!("{{\"id\":{id}}}")).expect(200);
        server.get("/events?limit=10").expect(200);
        server.get("/data/t/there").expect(200);
    }
    // Snapshots are few at a time: the deaf ones hold their places no longer than a snapshot may take.
    cdc_tests::harness::until("room for a snapshot", || (server.get("/snapshot/t").status == 200).then_some(()));
    let grown = server.memory().resident.saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    drop(deaf);
    server.get("/snapshot/big").expect(200);
}

#[test]
fn a_half_closed_socket_gets_its_answer() {
    let server = server_with_a_row();
    let mut connection = server.connect();
    connection.send(&Request::get("/data/t/there").bytes()).unwrap();
    connection.finish_sending().unwrap();
    assert_eq!(connection.answer().unwrap().expect(200).text(), r#"{"id":"there","v":1}"#);
    assert!(connection.is_ended_by_server());
    assert_untouched(&server);
}

#[test]
fn a_socket_that_closes_within_a_request_captures_nothing() {
    let server = server_with_a_row();
    let whole = Request::post("/data/t", r#"{"id":"x"}"#).bytes();
    for length in 0..whole.len() {
        let mut connection = server.connect();
        connection.send(&whole[..length]).unwrap();
        connection.finish_sending().unwrap();
        // Whatever it says, it must end and must not be a success.
        if let Ok(answer) = connection.answer() {
            assert_ne!(answer.status, 200, "after {length} bytes");
        }
        drop(connection);
    }
    assert_untouched(&server);
}

#[test]
fn garbage_is_refused_and_ends_the_connection() {
    let server = server_with_a_row();
    let garbage: [&[u8]; 8] = [
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /stats HTTP/9.9\r\n\r\n",
        b"GET /stats HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET /stats HTTP/1.1\r\nhost: localhost\r\n bad: fold\r\n\r\n",
        b"GET /st\x01ats HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello \r\n\r\n",
    ];
    for bytes in garbage {
        let mut connection = server.connect();
        connection.send(bytes).unwrap();
        match connection.answer() {
            Ok(answer) => {
                let problem = answer.expect(400).problem();
                assert_eq!(problem["code"], "malformed-request", "{:?}", String::from_utf8_lossy(bytes));
            }
            // Where not even a request line can be made out, an end is an answer.
            Err(error) => {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{:?}", String::from_utf8_lossy(bytes))
            }
        }
        assert!(connection.is_ended_by_server(), "{:?} leaves the connection open", String::from_utf8_lossy(bytes));
    }
    assert_untouched(&server);
}

#[test]
fn garbage_after_a_good_request_spoils_only_itself() {
    let server = server_with_a_row();
    let mut connection = server.connect();
    let mut bytes = Request::get("/data/t/there").bytes();
    bytes.extend_from_slice(b"\x00\xff garbage \r\n\r\n");
    bytes.extend(Request::post("/data/t", r#"{"id":"smuggled"}"#).bytes());
    connection.send(&bytes).unwrap();
    assert_eq!(connection.answer().unwrap().expect(200).text(), r#"{"id":"there","v":1}"#);
    if let Ok(answer) = connection.answer() {
        assert_eq!(answer.expect(400).problem()["code"], "malformed-request");
    }
    assert!(connection.is_ended_by_server());
    assert_untouched(&server);
}

#[test]
fn connections_beyond_the_limit_are_turned_away_and_come_back_later() {
    let server = Launch::new().options("--max-connections 8").start();
    seed(&server);
    let mut held: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut held {
        connection.exchange(&Request::get("/stats")).unwrap().expect(200);
    }
    // One more is refused or waits; it must not be served beside the eight, nor take the service down.
    let mut ninth = server.connect();
    ninth.send(&Request::get("/data/t/there").bytes()).unwrap();
    for connection in &mut held {
        connection.exchange(&Request::get("/stats")).unwrap().expect(200);
    }
    drop(held);
    match ninth.answer() {
        Ok(answer) if answer.status == 200 => {}
        Ok(answer) => drop(answer.expect(503).problem()),
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the ninth waits for ever"),
    }
    cdc_tests::harness::until("room for a connection", || {
        let answer = server.connect().exchange(&Request::get("/data/t/there")).ok()?;
        (answer.status == 200).then_some(())
    });
    assert_untouched(&server);
}
