//! HTTP itself: methods, reuse of connections, compression, origins, HTTP/2.

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use cdc_tests::harness::{Launch, Server};
use cdc_tests::http::{Answer, Request};
use http_body_util::{BodyExt, Full};
use tokio::io::AsyncReadExt;

#[test]
fn a_connection_serves_many_requests() {
    let server = Server::start();
    let mut connection = server.connect();
    for id in 0..100 {
        connection.exchange(&Request::post("/data/t", format!(r#"{{"id":{id}}}"#))).unwrap().expect(200);
        connection.exchange(&Request::post("/data/t", "{")).unwrap().expect(400);
        connection.exchange(&Request::get(&format!("/data/t/{id}"))).unwrap().expect(200);
    }
    assert_eq!(server.current_sequence(), 100);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut bytes = Vec::new();
    for id in 0..50 {
        bytes.extend(Request::post("/data/t", format!(r#"{{"id":{id}}}"#)).bytes());
        bytes.extend(Request::get(&format!("/data/t/{id}")).bytes());
    }
    connection.send(&bytes).unwrap();
    for id in 0..50 {
        let written = connection.answer().unwrap().expect(200);
        assert_eq!(written.json()["event"]["metadata"]["sequenceNumber"], id + 1);
        let read = connection.answer().unwrap().expect(200);
        assert_eq!(read.text(), format!(r#"{{"id":{id}}}"#));
    }
}

#[test]
fn who_asks_to_close_is_closed() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.exchange(&Request::get("/stats").header("connection", "close")).unwrap().expect(200);
    assert!(connection.is_ended_by_server());
    let mut old = server.connect();
    old.send(b"GET /stats HTTP/1.0\r\n\r\n").unwrap();
    old.answer().unwrap().expect(200);
    assert!(old.is_ended_by_server());
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let server = Server::start();
    let mut connection = server.connect();
    let request = Request::post("/data/t", r#"{"id":1}"#).header("expect", "100-continue");
    connection.send(&request.head()).unwrap();
    assert_eq!(connection.answer().unwrap().status, 100);
    connection.send(&request.body).unwrap();
    connection.answer().unwrap().expect(200);
}

#[test]
fn head_answers_as_get_does_without_the_body() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    for target in ["/stats", "/events", "/schemas", "/data/t/1", "/snapshot/t", "/healthz", "/nowhere", "/data/t/2"] {
        let get = server.get(target);
        let mut connection = server.connect();
        let head = connection.exchange(&Request::new("HEAD", target)).unwrap();
        assert_eq!((head.status, head.header("content-type")), (get.status, get.header("content-type")), "{target}");
        // Nothing stands between this answer and the next.
        connection.exchange(&Request::get("/schemas")).unwrap().expect(200);
    }
}

#[test]
fn methods_that_a_path_does_not_take_are_named_with_those_it_takes() {
    let server = Server::start();
    let cases = [
        ("GET", "/data/t", "POST"),
        ("POST", "/data/t/1", "PUT"),
        ("PATCH", "/data/t/1", "DELETE"),
        ("POST", "/events", "GET"),
        ("DELETE", "/schema/t", "PUT"),
        ("GET", "/replay", "POST"),
        ("BREW", "/stats", "GET"),
    ];
    for (method, target, allowed) in cases {
        let answer = server.send(&Request::new(method, target));
        answer.expect_problem(405, "method-not-allowed");
        let allow = answer.header("allow").expect("405 names the methods");
        assert!(allow.split(", ").any(|method| method == allowed), "{method} {target}: {allow}");
    }
    let options = server.send(&Request::new("OPTIONS", "/data/t/1"));
    assert!(options.status == 200 || options.status == 204, "{}", options.status);
    assert_eq!(options.header("allow"), Some("GET, HEAD, PUT, DELETE, OPTIONS"));
}

#[test]
fn origins_are_answered_only_where_configured() {
    let preflight = || {
        Request::new("OPTIONS", "/data/t/1")
            .header("origin", "https://app.example")
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "content-type")
    };
    let allowed = |answer: &Answer| answer.header("access-control-allow-origin").map(String::from);

    let closed = Server::start();
    assert_eq!(allowed(&closed.send(&preflight())), None);
    assert_eq!(allowed(&closed.send(&Request::get("/stats").header("origin", "https://app.example"))), None);

    let open = Launch::new().options("--cors-origin https://app.example,https://other.example").start();
    let answer = open.send(&preflight());
    assert!(answer.status == 200 || answer.status == 204);
    assert_eq!(allowed(&answer).as_deref(), Some("https://app.example"));
    let has = |name: &str, wanted: &str| {
        answer.header(name).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted)))
    };
    assert!(has("access-control-allow-methods", "PUT"), "{:?}", answer.headers);
    assert!(has("access-control-allow-headers", "content-type"), "{:?}", answer.headers);
    let simple = open.send(&Request::get("/nowhere").header("origin", "https://other.example"));
    assert_eq!(allowed(&simple).as_deref(), Some("https://other.example"), "errors are readable too");
    assert!(simple.header("vary").is_some_and(|vary| vary.to_ascii_lowercase().contains("origin")));
    assert_eq!(allowed(&open.send(&Request::get("/stats").header("origin", "https://evil.example"))), None);

    let any = Launch::new().options("--cors-origin *").start();
    assert_eq!(allowed(&any.send(&preflight())).as_deref(), Some("*"));
}

#[test]
fn answers_are_compressed_when_asked_for() {
    let server = Server::start();
    let rows: Vec<String> =
        (0..500).map(|id| format!(r#"{{"id":{id},"text":"the same words again and again"}}"#)).collect();
    server.post("/data/t", &format!("[{}]", rows.join(","))).expect(200);
    for target in ["/events", "/snapshot/t"] {
        let plain = server.get(target).expect(200);
        assert_eq!(plain.header("content-encoding"), None);
        for coding in ["gzip", "zstd"] {
            let packed = server.send(&Request::get(target).header("accept-encoding", coding)).expect(200);
            assert_eq!(packed.header("content-encoding"), Some(coding), "{target}");
            assert!(packed.header("vary").is_some_and(|vary| vary.to_ascii_lowercase().contains("accept-encoding")));
            assert!(packed.body.len() * 2 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
            assert!(unpack(coding, &packed.body) == plain.body, "{coding} of {target} is not the same");
        }
    }
    let refused = server.send(&Request::get("/events").header("accept-encoding", "gzip;q=0, identity")).expect(200);
    assert_eq!(refused.header("content-encoding"), None);
}

fn unpack(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = async {
        match coding {
            "gzip" => GzipDecoder::new(bytes).read_to_end(&mut plain).await,
            _ => ZstdDecoder::new(bytes).read_to_end(&mut plain).await,
        }
    };
    runtime.block_on(read).unwrap();
    plain
}

#[test]
fn http_2_is_spoken_without_encryption_to_who_begins_with_it() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        // Many at once over one connection, each with its own answer.
        let mut answers = Vec::new();
        for id in 0..100 {
            let request = hyper::Request::post(format!("http://localhost/data/t{}", id % 3))
                .header("content-type", "application/json")
                .body(Full::new(bytes::Bytes::from(format!(r#"{{"id":{id}}}"#))))
                .unwrap();
            sender.ready().await.unwrap();
            answers.push((id, sender.send_request(request)));
        }
        for (id, answer) in answers {
            let answer = answer.await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, hyper::Version::HTTP_2));
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(answer["event"]["after"]["id"], id);
        }
        drop(sender);
        connection.await.unwrap().unwrap();
    });
    assert_eq!(server.current_sequence(), 100);
}
