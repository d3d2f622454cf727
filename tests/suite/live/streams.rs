//! `GET /events/stream`.

use std::sync::Barrier;
use std::thread;

use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::http::Request;

use super::client::{Stream, insert, sequence};

fn stream(query: &str) -> Request {
    Request::get(&format!("/events/stream{query}"))
}

#[test]
fn new_events_come_as_they_are_in_the_log() {
    let server = Server::start();
    insert(&server, "t", 0..3);
    let (mut stream, after) = Stream::open(&server, stream("").header("accept-encoding", "gzip, zstd"));
    assert_eq!(after, 3, "it begins now");
    assert_eq!(stream.head.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.head.header("cache-control"), Some("no-store"));
    assert_eq!(stream.head.header("x-accel-buffering"), Some("no"));
    assert_eq!(stream.head.header("content-encoding"), None, "a compressor would keep events back");
    server.post("/data/t", r#"{"id":"a","text":"one\ntwo"}"#).expect(200);
    server.put("/data/t/a", r#"{"n":1.10}"#).expect(200);
    server.delete("/data/t/a").expect(200);
    let seen: Vec<_> = (0..3).map(|_| stream.event()).collect();
    let ids: Vec<_> = seen.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [4, 5, 6]);
    let page = server.get("/events?after=3").expect(200);
    let events: Vec<_> = seen.iter().map(|(_, json)| json.as_str()).collect();
    assert!(page.text().starts_with(&format!("{{\"events\":[{}]", events.join(","))), "{}", page.text());
}

#[test]
fn a_reader_goes_on_exactly_where_it_was_over_breaks_and_restarts() {
    let server = Server::start();
    let (mut reader, _) = Stream::open(&server, stream("?after=0"));
    let mut seen = Vec::new();
    insert(&server, "t", 0..20);
    seen.extend(reader.sequences(7));
    drop(reader);
    insert(&server, "t", 20..30);
    let resume = |seen: &[u64]| stream("?after=0").header("last-event-id", &seen[seen.len() - 1].to_string());
    let (mut reader, after) = Stream::open(&server, resume(&seen));
    assert_eq!(after, 7, "the header is stronger than the query");
    seen.extend(reader.sequences(20));
    let server = server.kill().start();
    insert(&server, "t", 30..40);
    let (mut reader, _) = Stream::open(&server, resume(&seen));
    seen.extend(reader.sequences(13));
    assert_eq!(seen, (1..=40).collect::<Vec<_>>());
}

#[test]
fn a_stream_has_what_it_selects() {
    let server = Server::start();
    insert(&server, "a", 0..2);
    insert(&server, "b", 0..2);
    server.put("/data/a/1", r#"{"n":1}"#).expect(200);
    server.put("/data/b/1", r#"{"n":1}"#).expect(200);
    server.delete("/data/a/1").expect(200);
    for query in ["", "&table=a", "&operation=update", "&key=1", "&table=b&key=1&operation=INSERT", "&since=0"] {
        let page = server.get(&format!("/events?after=0{query}")).expect(200).json();
        let expected: Vec<u64> = page["events"].as_array().unwrap().iter().map(|e| sequence(&e.to_string())).collect();
        assert!(!expected.is_empty());
        let (mut stream, _) = Stream::open(&server, stream(&format!("?after=0{query}")));
        assert_eq!(stream.sequences(expected.len()), expected, "{query}");
    }
    // Later than a time: from the oldest such event on, without being told where that is.
    let page = server.get("/events?after=0").expect(200).json();
    let last = page["events"].as_array().unwrap().last().unwrap()["timestamp"].as_u64().unwrap();
    let (mut all, after) = Stream::open(&server, stream("?since=0"));
    assert_eq!((after, all.sequences(7)), (0, (1..=7).collect::<Vec<_>>()));
    let (_, after) = Stream::open(&server, stream(&format!("?since={last}")));
    assert_eq!(after, 7, "there is none later");
}

#[test]
fn what_cannot_be_answered_is_refused_before_the_stream_begins() {
    let server = Server::start();
    insert(&server, "t", 0..1);
    server.get("/events/stream?limit=1").expect_problem(400, "invalid-parameter");
    server.get("/events/stream?tables=t").expect_problem(400, "invalid-parameter");
    server.get("/events/stream?after=2").expect_problem(400, "in-the-future");
    server.send(&stream("").header("last-event-id", "x")).expect_problem(400, "invalid-parameter");
    server.post("/events/stream", "{}").expect_problem(405, "method-not-allowed");
    let head = server.send(&Request::new("HEAD", "/events/stream")).expect(200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
}

#[test]
fn what_retention_has_dropped_is_gone_and_no_gap() {
    let server = Launch::new().options("--retention-events 100 --segment-bytes 64KiB").start();
    for round in 0..20 {
        let rows: Vec<_> = (0..100).map(|id| format!(r#"{{"id":"{}"}}"#, round * 100 + id)).collect();
        server.post("/data/t", &format!("[{}]", rows.join(","))).expect(200);
    }
    let oldest = until("retention to drop the first events", || {
        let oldest = server.get("/events?limit=1").expect(200).json()["oldestSequence"].as_u64().unwrap();
        (oldest > 1).then_some(oldest)
    });
    for request in [stream("?after=0"), stream("").header("last-event-id", "0")] {
        let answer = server.send(&request);
        answer.expect_problem(410, "dropped");
        assert!(answer.json()["oldestSequence"].as_u64().unwrap() >= oldest);
    }
}

#[test]
fn heartbeats_carry_a_quiet_reader_along() {
    let server = Launch::new().options("--stream-heartbeat-ms 20").start();
    let (mut quiet, _) = Stream::open(&server, stream("?table=quiet"));
    insert(&server, "busy", 0..5);
    // Its place moves on although no event is for it, so that retention does not leave it behind.
    let beat = until("a heartbeat after the events", || Some(quiet.message()).filter(|beat| beat.id == Some(5)));
    assert_eq!((beat.comment.as_deref(), beat.data), (Some("heartbeat"), None));
}

#[test]
fn many_readers_all_get_everything() {
    const READERS: usize = 50;
    let server = Server::start();
    let ready = Barrier::new(READERS + 1);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = Stream::from_now(&server);
                    ready.wait();
                    stream.sequences(300)
                })
            })
            .collect();
        ready.wait();
        insert(&server, "t", 0..100);
        let rows: Vec<_> = (100..300).map(|id| format!(r#"{{"id":{id}}}"#)).collect();
        server.post("/data/t", &format!("[{}]", rows.join(","))).expect(200);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), (1..=300).collect::<Vec<_>>());
        }
    });
}

#[test]
fn streams_run_beside_each_other_over_http_2() {
    use http_body_util::{BodyExt, Empty};
    let server = Server::start();
    insert(&server, "t", 0..3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        for after in 0..3 {
            let request = hyper::Request::get(format!("http://localhost/events/stream?after={after}"))
                .body(Empty::<bytes::Bytes>::new())
                .unwrap();
            let mut body = sender.send_request(request).await.unwrap().into_body();
            let mut text = String::new();
            while !text.contains("\nid: 3\ndata: ") && !text.starts_with("id: 3\n") {
                let frame = body.frame().await.unwrap().unwrap();
                text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
            assert_eq!(text.matches("data: ").count(), 3 - after);
        }
    });
}
