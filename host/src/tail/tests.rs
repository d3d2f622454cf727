//! A tail against a small service that answers from a script.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;

/// Answers in turn and remembers what it was asked.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<std::collections::VecDeque<(u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Script {
    async fn start(answers: &[(u16, &str)]) -> (Self, SocketAddr) {
        let script = Self::default();
        let owned = answers.iter().map(|(status, body)| (*status, (*body).to_owned()));
        script.answers.lock().expect("unpoisoned").extend(owned);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let script = serving.clone();
                let answer = service_fn(move |request| std::future::ready(script.answer(&request)));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        (script, address)
    }

    fn answer(&self, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        self.asked.lock().expect("unpoisoned").push(request.uri().to_string());
        let next = self.answers.lock().expect("unpoisoned").pop_front();
        let (status, body) = next.unwrap_or((410, r#"{"detail":"the script is over"}"#.to_owned()));
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        Ok(response)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("unpoisoned").clone()
    }
}

fn event(sequence: u64) -> String {
    format!(
        r#"{{"id":"evt_{sequence}","operation":"INSERT","table":"t","timestamp":0,"after":{{"id":{sequence},"n":1.00}},"metadata":{{"sequenceNumber":{sequence},"source":"cdc-engine","schemaVersion":1}}}}"#
    )
}

fn page(sequences: &[u64], next_after: u64, oldest: u64) -> String {
    let events: Vec<_> = sequences.iter().map(|sequence| event(*sequence)).collect();
    let (count, events) = (events.len(), events.join(","));
    format!(r#"{{"events":[{events}],"count":{count},"nextAfter":{next_after},"oldestSequence":{oldest}}}"#)
}

async fn tail(arguments: &[&str], address: SocketAddr, out: &mut impl Write) -> (Result<(), TailError>, String) {
    let url = format!("http://{address}");
    let arguments: Vec<_> = ["--url", &url, "--interval-ms", "1"].iter().chain(arguments).copied().collect();
    let mut notes = Vec::new();
    let settings = settings::tests::settings(&arguments);
    let ended = follow(&settings, Style::Plain, out, &mut notes).await;
    (ended, String::from_utf8(notes).expect("UTF-8").replace(&address.to_string(), "HOST"))
}

#[tokio::test]
async fn events_come_in_order_over_one_connection() {
    let pages = [page(&[2], 2, 1), page(&[], 2, 1), page(&[3, 4], 4, 1), page(&[5], 5, 1)];
    let (script, address) = Script::start(&pages.each_ref().map(|page| (200, page.as_str()))).await;
    let mut out = Vec::new();
    let (ended, notes) = tail(&["--limit", "3"], address, &mut out).await;
    ended.expect("the limit ends it");
    assert_eq!(notes, "");
    assert_eq!(script.asked(), ["/events?limit=1", "/events?after=2", "/events?after=2", "/events?after=4"]);
    assert_eq!(script.connections.load(Ordering::Relaxed), 1);
    let text = String::from_utf8(out).expect("UTF-8");
    assert_eq!(text.lines().next(), Some("#3 1970-01-01T00:00:00.000Z INSERT t 3  n: 1.00"));
    assert_eq!(text.lines().count(), 3);
}

#[tokio::test]
async fn json_is_printed_as_it_came() {
    let pages = [page(&[2], 2, 1), page(&[1, 2], 2, 1)];
    let (_script, address) = Script::start(&pages.each_ref().map(|page| (200, page.as_str()))).await;
    let mut out = Vec::new();
    tail(&["--json", "--once"], address, &mut out).await.0.expect("once ends it");
    assert_eq!(String::from_utf8(out).expect("UTF-8"), format!("{}\n{}\n", event(1), event(2)));
}

#[tokio::test]
async fn a_gap_made_by_retention_is_said() {
    let (all, rest) = (page(&[9], 9, 1), page(&[9], 9, 8));
    let gone = r#"{"status":410,"code":"dropped","detail":"the oldest event that is kept is 8","oldestSequence":8}"#;
    let (script, address) = Script::start(&[(200, &all), (410, gone), (200, &rest)]).await;
    let (ended, notes) = tail(&["--after", "4", "--limit", "1"], address, &mut Vec::new()).await;
    ended.expect("the limit ends it");
    assert_eq!(notes, "cdc tail: 3 events were dropped by retention before being read; going on from #8\n");
    assert_eq!(script.asked().last().map(String::as_str), Some("/events?after=7"));
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_waited_for() {
    let (first, second) = (page(&[1], 1, 1), page(&[1], 1, 1));
    let busy = r#"{"detail":"the service is starting","code":"not-ready"}"#;
    let (_script, address) = Script::start(&[(503, busy), (200, &first), (200, &second)]).await;
    let (ended, notes) = tail(&["--from-start", "--limit", "1"], address, &mut Vec::new()).await;
    ended.expect("the limit ends it");
    assert_eq!(
        notes,
        "cdc tail: http://HOST/: the service is starting; trying again until it answers\n\
         cdc tail: http://HOST/ answers again\n"
    );
}

#[tokio::test]
async fn what_the_service_refuses_ends_the_tail_with_its_reason() {
    let problem = r#"{"type":"about:blank","status":400,"code":"invalid-table-name","detail":"no such name"}"#;
    let (_script, address) = Script::start(&[(400, problem)]).await;
    let error = tail(&[], address, &mut Vec::new()).await.0.expect_err("a refusal").to_string();
    assert_eq!(error, format!("http://{address}/: no such name"));

    let (_script, address) = Script::start(&[(200, "<html>")]).await;
    let error = tail(&[], address, &mut Vec::new()).await.0.expect_err("no service").to_string();
    assert!(error.contains("the answer is no page of events"), "{error}");
}

#[tokio::test]
async fn once_does_not_wait_for_a_service_that_is_not_there() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let error = tail(&["--once"], free, &mut Vec::new()).await.0.expect_err("nobody there").to_string();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn it_ends_quietly_when_the_reader_has_gone() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let pages = [page(&[1], 1, 1), page(&[1], 1, 1)];
    let (_script, address) = Script::start(&pages.each_ref().map(|page| (200, page.as_str()))).await;
    let (ended, notes) = tail(&["--from-start"], address, &mut Closed).await;
    ended.expect("quietly");
    assert_eq!(notes, "");
}
