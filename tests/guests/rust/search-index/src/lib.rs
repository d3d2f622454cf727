//! Search-index sync: keeps an Elasticsearch or OpenSearch index per table in step with the rows, with one `_bulk`
//! request per batch. Documents carry the event's sequence number as their version, so an event that comes again, or
//! late, changes nothing.
//!
//! Settings: `index`, the server's URL. The subscription must allow its origin.

use std::fmt::Write;

use serde_json::{Value, json};
use wstd::http::{Body, Client, Request};
use wstd::time::Duration;

wit_bindgen::generate!({ path: "../../wit", world: "handler", generate_all });

use cdc::event::types::Operation;
use exports::cdc::subscriber::handling::{Event, Failure, Guest, Remedy};
use wasi::config::store::get;

struct SearchIndex;

impl Guest for SearchIndex {
    fn handle(events: Vec<Event>) -> Result<(), Failure> {
        let Some(server) = get("index").ok().flatten() else {
            return Err(failure(0, Remedy::Retry, "the setting `index` is missing"));
        };
        // Between two truncates, everything goes in one request.
        let mut begin = 0;
        for (end, event) in events.iter().enumerate() {
            if event.operation == Operation::Truncate {
                bulk(&server, &events, begin, end)?;
                let url = format!("{server}/{}/_delete_by_query?conflicts=proceed", event.table);
                post(&url, "application/json", r#"{"query":{"match_all":{}}}"#.into(), end)?;
                begin = end + 1;
            }
        }
        bulk(&server, &events, begin, events.len())
    }
}

/// Sends `events[begin..end]`.
fn bulk(server: &str, events: &[Event], begin: usize, end: usize) -> Result<(), Failure> {
    if begin == end {
        return Ok(());
    }
    let mut body = String::new();
    for event in &events[begin..end] {
        let place = json!({
            "_index": event.table, "_id": event.key, "version": event.sequence, "version_type": "external",
        });
        // Writing to a string cannot fail.
        let _ = match &event.after {
            Some(row) => writeln!(body, r#"{{"index":{place}}}"#).and_then(|()| writeln!(body, "{row}")),
            None => writeln!(body, r#"{{"delete":{place}}}"#),
        };
    }
    let answer = post(&format!("{server}/_bulk"), "application/x-ndjson", body, begin)?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|error| failure(begin, Remedy::Retry, format!("the answer is not JSON: {error}")))?;
    if answer["errors"] == false {
        return Ok(());
    }
    for (index, item) in (begin..).zip(answer["items"].as_array().into_iter().flatten()) {
        let outcome = item.get("index").or(item.get("delete")).unwrap_or(&Value::Null);
        match outcome["status"].as_u64().unwrap_or(500) {
            // Gone already, or a newer version is there.
            200..300 | 404 | 409 => {}
            status => return Err(failure(index, remedy(status), format!("{status} {}", outcome["error"]))),
        }
    }
    Ok(())
}

/// Posts a body and answers the answer's body; `index` is the event to name if that fails.
fn post(url: &str, content_type: &str, body: String, index: usize) -> Result<Vec<u8>, Failure> {
    let sent = wstd::runtime::block_on(async {
        let request = Request::post(url).header("content-type", content_type).body(Body::from(body))?;
        let mut client = Client::new();
        client.set_connect_timeout(Duration::from_secs(2));
        client.set_first_byte_timeout(Duration::from_secs(30));
        let mut response = client.send(request).await?;
        let status = response.status();
        let body = response.body_mut().contents().await?.to_vec();
        wstd::http::error::Result::Ok((status, body))
    });
    match sent {
        Ok((status, body)) if status.is_success() => Ok(body),
        Ok((status, body)) => {
            let message = format!("{url}: {status} {}", String::from_utf8_lossy(&body));
            Err(failure(index, remedy(status.as_u16().into()), message))
        }
        // No connection, no answer in time.
        Err(error) => Err(failure(index, Remedy::Retry, format!("{url}: {error:#}"))),
    }
}

/// A server in trouble recovers; a request that it does not like stays as it is.
fn remedy(status: u64) -> Remedy {
    if status >= 500 || status == 429 { Remedy::Retry } else { Remedy::Reject }
}

fn failure(index: usize, remedy: Remedy, message: impl Into<String>) -> Failure {
    Failure { remedy, index: index as u32, message: message.into() }
}

export!(SearchIndex);
