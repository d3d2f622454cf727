//! How it behaves when it behaves: it counts the events that it did, and appends their sequence numbers to a list that a
//! server elsewhere keeps, so that a test sees what was done, how often and in which order.

use wstd::http::{Body, Client, Request};

use crate::exports::cdc::subscriber::handling::{Event, Failure, Remedy};
use crate::settings::setting;
use crate::wasi::keyvalue::store::{Error, open};

/// Posts the sequence numbers to `url`, if there is one, a line each; then adds to the number under `count`, which a
/// retried batch therefore does not do twice.
pub fn count(events: &[Event]) -> Result<(), Failure> {
    let failed = |message: String| Failure { remedy: Remedy::Retry, index: 0, message };
    if events.is_empty() {
        return Ok(());
    }
    if let Some(url) = setting::<String>("url") {
        append(&url, events).map_err(|error| failed(format!("{url}: {error:#}")))?;
    }
    add(events.len() as u64).map_err(|error| failed(format!("{error:?}")))
}

fn append(url: &str, events: &[Event]) -> wstd::http::error::Result<()> {
    let lines: String = events.iter().map(|event| format!("{}\n", event.sequence)).collect();
    wstd::runtime::block_on(async {
        let response = Client::new().send(Request::post(url).body(Body::from(lines))?).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(wstd::http::Error::msg(status));
        }
        Ok(())
    })
}

fn add(events: u64) -> Result<(), Error> {
    let bucket = open("default")?;
    let counted = bucket.get("count")?.map(|text| String::from_utf8_lossy(&text).parse());
    let counted: u64 = match counted {
        None => 0,
        Some(Ok(number)) => number,
        Some(Err(_)) => return Err(Error::Other("`count` is not a number".into())),
    };
    bucket.set("count", (counted + events).to_string().as_bytes())
}
