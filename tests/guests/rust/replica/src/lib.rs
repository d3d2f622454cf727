//! The replication consumer: keeps the present row of every key of every table in the key-value store.
//!
//! The key of a row is `<table>\n<key>`, its value the row's JSON text as it was captured. A table's name holds no line
//! feed (a control character), so the first one ends it, and the rows of a table stand together in byte order.
//!
//! A batch costs two calls of the store, however many events it has: of several changes of one row only the last one
//! counts. Doing a batch again changes nothing, so it may come any number of times.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package cdc:replica;
        world replica {
            include cdc:subscriber/handler@1.0.0;
            import wasi:keyvalue/batch@0.2.0-draft2;
        }
    ",
    generate_all,
});

use cdc::event::types::Operation;
use exports::cdc::subscriber::handling::{Event, Failure, Guest, Remedy};
use wasi::keyvalue::batch::{delete_many, set_many};
use wasi::keyvalue::store::{Bucket, Error, open};

/// How many keys of a truncated table are held in memory at once.
const KEYS_AT_ONCE: usize = 10_000;

/// What is to become of each key: its row, or none if it is gone.
type Pending = HashMap<String, Option<Vec<u8>>, FxBuildHasher>;

struct Replica;

impl Guest for Replica {
    fn handle(events: Vec<Event>) -> Result<(), Failure> {
        // Whatever keeps the store from working passes or needs a person; no event of the batch is to blame.
        apply(events).map_err(|error| Failure { remedy: Remedy::Retry, index: 0, message: explain(error) })
    }
}

fn apply(events: Vec<Event>) -> Result<(), Error> {
    let bucket = open("default")?;
    let mut pending = Pending::with_capacity_and_hasher(events.len(), FxBuildHasher);
    for event in events {
        match event.operation {
            Operation::Insert | Operation::Update => {
                pending.insert(row_key(&event), event.after.map(String::into_bytes));
            }
            Operation::Delete => {
                pending.insert(row_key(&event), None);
            }
            Operation::Truncate => {
                let prefix = event.table + "\n";
                pending.retain(|key, _| !key.starts_with(&prefix));
                remove_all(&bucket, &prefix)?;
            }
        }
    }
    let mut set = Vec::with_capacity(pending.len());
    let mut deleted = Vec::new();
    for (key, row) in pending {
        match row {
            Some(row) => set.push((key, row)),
            None => deleted.push(key),
        }
    }
    if !set.is_empty() {
        set_many(&bucket, &set)?;
    }
    if !deleted.is_empty() {
        delete_many(&bucket, &deleted)?;
    }
    Ok(())
}

fn row_key(event: &Event) -> String {
    let mut key = String::with_capacity(event.table.len() + 1 + event.key.len());
    key.push_str(&event.table);
    key.push('\n');
    key.push_str(&event.key);
    key
}

/// Removes the keys that begin with `prefix`. Removing may move what a cursor counts, so after each removal the keys
/// are listed anew.
fn remove_all(bucket: &Bucket, prefix: &str) -> Result<(), Error> {
    loop {
        let mut found = Vec::new();
        let mut cursor = None;
        let more = loop {
            let page = bucket.list_keys(cursor)?;
            // Keys come in byte order: one that is beyond the prefix ends the search.
            let beyond = page.keys.last().is_some_and(|last| last.as_str() > prefix && !last.starts_with(prefix));
            found.extend(page.keys.into_iter().filter(|key| key.starts_with(prefix)));
            cursor = page.cursor;
            if beyond || cursor.is_none() {
                break false;
            }
            if found.len() >= KEYS_AT_ONCE {
                break true;
            }
        };
        if !found.is_empty() {
            delete_many(bucket, &found)?;
        }
        if !more {
            return Ok(());
        }
    }
}

fn explain(error: Error) -> String {
    match error {
        Error::NoSuchStore => "the key-value store has no bucket `default`".into(),
        Error::AccessDenied => "the subscription does not grant a key-value store".into(),
        Error::Other(message) => message,
    }
}

export!(Replica);
