//! Audit log: one JSON line per event on standard output, which is the service's log, saying who changed what and when.
//!
//! Each line is also kept in the key-value store under `entry/<sequence>` (20 digits). It holds the hash of the line
//! before it (`previous`) and ends in its own (`hash`: SHA-256, hexadecimal, of everything before the member). Who alters
//! or removes a line would have to alter all that follow; `head` holds the last hash, to be compared with a copy kept
//! elsewhere.
//!
//! Settings: `actor`, the column that says who made a change (default `updated_by`).

use std::fmt::Write;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

wit_bindgen::generate!({ path: "../../wit", world: "handler", generate_all });

use cdc::event::types::Operation;
use exports::cdc::subscriber::handling::{Event, Failure, Guest, Remedy};
use wasi::config::store::get;
use wasi::keyvalue::store::{Error, open};

struct AuditLog;

impl Guest for AuditLog {
    fn handle(events: Vec<Event>) -> Result<(), Failure> {
        write_down(&events).map_err(|error| Failure {
            remedy: Remedy::Retry,
            index: 0,
            message: format!("the chain cannot be kept: {error:?}"),
        })
    }
}

fn write_down(events: &[Event]) -> Result<(), Error> {
    let actor = get("actor").ok().flatten().unwrap_or_else(|| "updated_by".into());
    let bucket = open("default")?;
    let head = bucket.get("head")?.unwrap_or_default();
    let mut head = String::from_utf8(head).unwrap_or_default();
    for event in events {
        let place = format!("entry/{:020}", event.sequence);
        // After a rewind an event comes again: it is in the chain already.
        if bucket.exists(&place)? {
            continue;
        }
        let mut line = entry(event, &actor, &head).to_string();
        line.pop();
        head = hex(&Sha256::digest(&line));
        let _ = write!(line, r#","hash":"{head}"}}"#);
        println!("{line}");
        bucket.set(&place, line.as_bytes())?;
    }
    bucket.set("head", head.as_bytes())
}

fn entry(event: &Event, actor: &str, previous: &str) -> Value {
    let before = row(&event.before);
    let after = row(&event.after);
    let changed: Map<String, Value> = before
        .keys()
        .chain(after.keys().filter(|column| !before.contains_key(*column)))
        .filter(|column| before.get(*column) != after.get(*column))
        .map(|column| (column.clone(), json!({ "from": before.get(column), "to": after.get(column) })))
        .collect();
    json!({
        "sequence": event.sequence,
        "at": event.timestamp,
        "who": after.get(actor).or(before.get(actor)),
        "what": match event.operation {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
            Operation::Truncate => "truncate",
        },
        "table": event.table,
        "key": event.key,
        "changed": changed,
        "previous": previous,
    })
}

fn row(image: &Option<String>) -> Map<String, Value> {
    image.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

export!(AuditLog);
