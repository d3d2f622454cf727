//! The benchmark's yardstick: hyper with nothing behind it.
//!
//! `POST /data/:table` parses the row with `serde_json` and answers the bytes that the service would answer; any GET
//! answers the bytes of the file named as the first argument. Nothing is kept. It prints its address and ends when its
//! standard input does, so that it never outlives the benchmark.
#![allow(
    clippy::unwrap_used,
    reason = "a yardstick for measurements: it has one user, who wants it to stop when it fails"
)]

use std::convert::Infallible;
use std::fmt::Write;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, server};
use hyper_util::rt::TokioIo;

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

#[tokio::main]
async fn main() {
    let page = std::env::args().nth(1).map_or_else(Bytes::new, |file| std::fs::read(file).unwrap().into());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let page = page.clone();
        let service = service_fn(move |request| answer(request, page.clone()));
        tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, page: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = if request.method() == Method::POST {
        let table = request.uri().path().strip_prefix("/data/").unwrap_or_default().to_string();
        let row = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        match serde_json::from_slice::<serde_json::Value>(&row) {
            Ok(value) if value.is_object() => event(&table, std::str::from_utf8(&row).unwrap()).into(),
            _ => {
                let mut refused = Response::new(Full::new(Bytes::from_static(b"not an object")));
                *refused.status_mut() = hyper::StatusCode::BAD_REQUEST;
                return Ok(refused);
            }
        }
    } else {
        page
    };
    Ok(Response::builder().header(CONTENT_TYPE, "application/json").body(Full::new(body)).unwrap())
}

fn event(table: &str, row: &str) -> String {
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed) + 1;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let mut id = String::new();
    let mut rest = sequence;
    while rest > 0 {
        id.insert(0, char::from_digit((rest % 36) as u32, 36).unwrap());
        rest /= 36;
    }
    let mut text = String::with_capacity(row.len() + 256);
    write!(
        text,
        r#"{{"success":true,"event":{{"id":"evt_{now}_{id}","operation":"INSERT","table":"{table}","timestamp":{now},"after":{row},"metadata":{{"sequenceNumber":{sequence},"source":"cdc-engine","schemaVersion":1}}}}}}"#
    )
    .unwrap();
    text
}
