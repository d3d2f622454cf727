//! Event sourcing: turns row changes into what they mean for an account, and keeps two things in the key-value store:
//!
//! - `journal/<table>/<key>/<sequence>`: what happened, one entry per event, only ever added to. The sequence has 20
//!   digits, so that byte order is time order.
//! - `account/<table>/<key>`: the account as it is now, which is nothing but its journal added up.
//!
//! Rows need an integer column `balance` (cents, say). An event that comes twice is counted once: by itself after a
//! crash, because the store keeps what acknowledged events wrote and nothing else, and after a rewind, because an account
//! remembers the last event that it has seen.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasi::keyvalue::store::{Bucket, Error, open};

wit_bindgen::generate!({ path: "../../wit", world: "handler", generate_all });

use cdc::event::types::Operation;
use exports::cdc::subscriber::handling::{Event, Failure, Guest, Remedy};

/// What happened to an account.
#[derive(Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
enum Entry {
    Opened { balance: i64 },
    Deposited { amount: i64 },
    Withdrew { amount: i64 },
    Closed,
}

/// An account, as its journal adds up.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    open: bool,
    balance: i64,
    entries: u64,
    last_sequence: u64,
}

impl Account {
    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Opened { balance } => (self.open, self.balance) = (true, *balance),
            Entry::Deposited { amount } => self.balance += amount,
            Entry::Withdrew { amount } => self.balance -= amount,
            Entry::Closed => (self.open, self.balance) = (false, 0),
        }
        self.entries += 1;
    }
}

struct EventSourcing;

impl Guest for EventSourcing {
    fn handle(events: Vec<Event>) -> Result<(), Failure> {
        let bucket = open("default").map_err(|error| retry(0, error))?;
        for (index, event) in (0..).zip(&events) {
            let entry = match meaning(event) {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                // It will be as wrong the next time.
                Err(message) => return Err(Failure { remedy: Remedy::Reject, index, message }),
            };
            record(&bucket, event, &entry).map_err(|error| retry(index, error))?;
        }
        Ok(())
    }
}

/// What an event means for the account of its row, if anything.
fn meaning(event: &Event) -> Result<Option<Entry>, String> {
    let change = match event.operation {
        Operation::Insert => return Ok(Some(Entry::Opened { balance: balance(&event.after)? })),
        Operation::Update => balance(&event.after)? - balance(&event.before)?,
        Operation::Delete => return Ok(Some(Entry::Closed)),
        Operation::Truncate => return Err("emptying a table of accounts is not something that accounts do".into()),
    };
    Ok(match change {
        0 => None,
        amount if amount > 0 => Some(Entry::Deposited { amount }),
        amount => Some(Entry::Withdrew { amount: -amount }),
    })
}

fn balance(image: &Option<String>) -> Result<i64, String> {
    let row: Value = serde_json::from_str(image.as_deref().unwrap_or("null")).map_err(|error| error.to_string())?;
    row["balance"].as_i64().ok_or_else(|| format!("`balance` must be an integer, but is {}", row["balance"]))
}

fn record(bucket: &Bucket, event: &Event, entry: &Entry) -> Result<(), Error> {
    let place = format!("account/{}/{}", event.table, event.key);
    let stored = bucket.get(&place)?;
    let mut account: Account = stored.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    if account.last_sequence >= event.sequence {
        return Ok(());
    }
    account.apply(entry);
    account.last_sequence = event.sequence;
    let journal = format!("journal/{}/{}/{:020}", event.table, event.key, event.sequence);
    bucket.set(&journal, &json(entry))?;
    bucket.set(&place, &json(&account))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn retry(index: u32, error: Error) -> Failure {
    Failure { remedy: Remedy::Retry, index, message: format!("{error:?}") }
}

export!(EventSourcing);
