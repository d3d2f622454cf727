//! `GET /events/ws`.

use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::http::Request;

use super::client::{Frame, Socket, handshake, insert, metric};

#[test]
fn each_event_is_a_message() {
    let server = Server::start();
    insert(&server, "t", 0..2);
    let mut socket = Socket::open(&server, "/events/ws");
    server.post("/data/t", r#"{"id":"a","text":"one\ntwo"}"#).expect(200);
    let event = socket.event();
    let page = server.get("/events?after=2").expect(200);
    assert!(page.text().starts_with(&format!("{{\"events\":[{event}]")), "{event}");
}

#[test]
fn a_socket_goes_on_where_it_is_told_and_has_what_it_selects() {
    let server = Server::start();
    insert(&server, "a", 0..300);
    insert(&server, "b", 300..303);
    assert_eq!(Socket::open(&server, "/events/ws?after=10").sequences(293), (11..=303).collect::<Vec<_>>());
    assert_eq!(Socket::open(&server, "/events/ws?after=0&table=b").sequences(3), [301, 302, 303]);
    let server = server.kill().start();
    assert_eq!(Socket::open(&server, "/events/ws?after=301").sequences(2), [302, 303]);
    server.send(&handshake("/events/ws?after=304")).expect_problem(400, "in-the-future");
    server.send(&handshake("/events/ws?limit=1")).expect_problem(400, "invalid-parameter");
}

#[test]
fn who_does_not_ask_for_a_websocket_is_told_how() {
    let server = Server::start();
    let plain = server.get("/events/ws");
    plain.expect_problem(426, "upgrade-required");
    assert_eq!(plain.header("upgrade"), Some("websocket"));
    let with = |name: &str, value: &str| {
        let mut request = handshake("/events/ws");
        for header in &mut request.headers {
            if header.0 == name {
                header.1 = value.into();
            }
        }
        server.send(&request)
    };
    with("connection", "close").expect_problem(426, "upgrade-required");
    with("upgrade", "h2c").expect_problem(426, "upgrade-required");
    let version = with("sec-websocket-version", "8");
    version.expect_problem(426, "upgrade-required");
    assert_eq!(version.header("sec-websocket-version"), Some("13"));
    for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25j!Q==", "dGhlIHNhbXBsZSBub25jZQdGhl=="] {
        with("sec-websocket-key", key).expect_problem(400, "malformed-request");
    }
    server.post("/events/ws", "{}").expect_problem(405, "method-not-allowed");
}

#[test]
fn pages_of_other_sites_may_not_listen() {
    let server = Launch::new().option("--cors-origin", "https://console.example").start();
    let from = |origin: &str, host: &str| handshake("/events/ws").header("origin", origin).header("host", host);
    for origin in ["https://evil.example", "null", "https://console.example.evil", "http://localhost:1"] {
        server.send(&from(origin, "localhost:8002")).expect_problem(403, "foreign-origin");
    }
    for (origin, host) in [("https://console.example", "localhost:8002"), ("http://localhost:8002", "localhost:8002")] {
        let mut connection = server.connect();
        connection.send(&from(origin, host).bytes()).unwrap();
        assert_eq!(connection.answer_without_body().unwrap().status, 101, "{origin}");
    }
}

#[test]
fn a_client_is_pinged_and_its_pings_are_answered() {
    let server = Launch::new().options("--stream-heartbeat-ms 50").start();
    let mut socket = Socket::open(&server, "/events/ws");
    for _ in 0..5 {
        assert_eq!(socket.frame(), Frame::Ping);
        socket.send(10, b"");
    }
    socket.send(9, b"hello");
    until("the answer", || (socket.frame() == Frame::Pong(b"hello".into())).then_some(()));
}

#[test]
fn a_client_that_answers_no_ping_is_let_go() {
    let server = Launch::new().options("--stream-heartbeat-ms 20").start();
    let mut socket = Socket::open(&server, "/events/ws");
    let mut pings = 0;
    let closed = loop {
        match socket.frame() {
            Frame::Ping => pings += 1,
            Frame::Close(code, reason) => break (code, reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(closed, (1008, "no answer to two pings".into()));
    assert!(pings >= 1);
    until("it to be counted", || (metric(&server, "cdc_streams_ended_total{reason=\"silent\"}") == 1).then_some(()));
}

#[test]
fn messages_from_a_client_are_not_taken() {
    let server = Server::start();
    for (opcode, payload, code) in
        [(1, vec![b'x'; 3], 1003), (2, vec![0; 3], 1003), (1, vec![b'x'; 5_000], 1009), (5, vec![], 1002)]
    {
        let mut socket = Socket::open(&server, "/events/ws");
        socket.send(opcode, &payload);
        assert_eq!(socket.close().0, code, "{opcode}");
    }
    // Control frames are, but not without end.
    let mut socket = Socket::open(&server, "/events/ws");
    for _ in 0..101 {
        socket.send(9, b"");
    }
    assert_eq!(socket.close(), (1008, "too many pings".into()));
    until("all to be counted", || (metric(&server, "cdc_streams_ended_total{reason=\"refused\"}") == 5).then_some(()));
}

#[test]
fn a_client_that_leaves_makes_room() {
    let server = Launch::new().options("--max-streams 1").start();
    let mut socket = Socket::open(&server, "/events/ws");
    let refused = server.send(&handshake("/events/ws"));
    refused.expect_problem(503, "too-many-streams");
    assert!(refused.header("retry-after").is_some());
    socket.send(8, &1000_u16.to_be_bytes());
    assert_eq!(socket.close().0, 1000);
    until("its place to be free", || {
        let mut connection = server.connect();
        connection.send(&handshake("/events/ws").bytes()).unwrap();
        (connection.answer_without_body().unwrap().status == 101).then_some(())
    });
    server.send(&Request::get("/healthz")).expect(200);
}
