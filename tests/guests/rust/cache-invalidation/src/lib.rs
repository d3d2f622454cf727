//! Cache invalidation: when a row was changed or deleted, drops what an HTTP cache holds of it, with
//! `DELETE <cache>/<table>/<key>`; when a table was emptied, `DELETE <cache>/<table>`.
//!
//! Settings: `cache`, the URL to put in front. The subscription must allow its origin.

use std::collections::HashSet;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use wstd::http::{Body, Client, Request, StatusCode, Uri};
use wstd::time::Duration;

wit_bindgen::generate!({ path: "../../wit", world: "handler", generate_all });

use cdc::event::types::Operation;
use exports::cdc::subscriber::handling::{Event, Failure, Guest, Remedy};
use wasi::config::store::get;

struct CacheInvalidation;

impl Guest for CacheInvalidation {
    fn handle(events: Vec<Event>) -> Result<(), Failure> {
        let Some(cache) = get("cache").ok().flatten() else {
            return Err(Failure { remedy: Remedy::Retry, index: 0, message: "the setting `cache` is missing".into() });
        };
        // A row that changed often in this batch is dropped once.
        let mut dropped = HashSet::new();
        for (index, event) in (0..).zip(&events) {
            // Nothing is cached of a row that was not there.
            if event.operation == Operation::Insert {
                continue;
            }
            let url = format!("{cache}{}", path(event));
            if dropped.insert(url.clone()) {
                wstd::runtime::block_on(drop_cached(&url)).map_err(|(remedy, message)| Failure {
                    remedy,
                    index,
                    message: format!("{url}: {message}"),
                })?;
            }
        }
        Ok(())
    }
}

fn path(event: &Event) -> String {
    let table = utf8_percent_encode(&event.table, NON_ALPHANUMERIC);
    match event.operation {
        Operation::Truncate => format!("/{table}"),
        _ => format!("/{table}/{}", utf8_percent_encode(&event.key, NON_ALPHANUMERIC)),
    }
}

async fn drop_cached(url: &str) -> Result<(), (Remedy, String)> {
    let retry = |error: wstd::http::Error| (Remedy::Retry, format!("{error:#}"));
    let url = Uri::from_str(url).map_err(|error| (Remedy::Reject, error.to_string()))?;
    let request = Request::delete(url).body(Body::empty()).map_err(|error| (Remedy::Reject, error.to_string()))?;
    let mut client = Client::new();
    client.set_connect_timeout(Duration::from_secs(2));
    client.set_first_byte_timeout(Duration::from_secs(5));
    match client.send(request).await.map_err(retry)?.status() {
        // Not cached: just as well.
        StatusCode::NOT_FOUND | StatusCode::GONE => Ok(()),
        status if status.is_success() => Ok(()),
        // The cache is in trouble, or wants to be left alone for a while.
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Err((Remedy::Retry, status.to_string()))
        }
        status => Err((Remedy::Reject, status.to_string())),
    }
}

export!(CacheInvalidation);
