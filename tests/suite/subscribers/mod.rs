//! Subscribers: components in the sandbox, durable subscriptions, and what is promised to both.

mod builtins;
mod declared;
mod delivery;
mod hostile;
mod kills;
mod languages;
mod tutorial;
mod uploads;
mod versions;

use std::path::Path;

use cdc_tests::harness::{Server, until};
use cdc_tests::http::{Answer, Request};
use serde_json::{Value, json};

/// Uploads a component.
fn upload(server: &Server, name: &str, component: &Path) -> Answer {
    let bytes = std::fs::read(component).unwrap();
    server.send(&Request::new("PUT", &format!("/components/{name}")).body("application/wasm", bytes))
}

/// Makes a subscription.
fn subscribe(server: &Server, id: &str, definition: &Value) -> Value {
    server.put(&format!("/subscriptions/{id}"), &definition.to_string()).expect(200).json()
}

fn status(server: &Server, id: &str) -> Value {
    server.get(&format!("/subscriptions/{id}")).expect(200).json()
}

/// Waits until a subscription has acknowledged everything.
fn caught_up(server: &Server, id: &str) -> Value {
    let newest = server.current_sequence();
    until(&format!("{id} to acknowledge {newest}"), || {
        let status = status(server, id);
        (status["acknowledgedSequence"].as_u64() >= Some(newest)).then_some(status)
    })
}

/// Inserts rows in bulk, with ids from `first`.
fn load(server: &Server, table: &str, first: u64, count: u64) {
    let lines: String = (first..first + count)
        .map(|id| {
            let status = if id % 2 == 0 { "active" } else { "idle" };
            format!("{{\"id\":{id},\"status\":\"{status}\",\"n\":{id}}}\n")
        })
        .collect();
    let request = Request::new("POST", &format!("/data/{table}")).body("application/x-ndjson", lines);
    server.send(&request).expect(200);
}

/// A subscription of the hostile component in one of its modes.
fn hostile(mode: &str, more: &[(&str, &str)]) -> Value {
    let mut config = serde_json::Map::new();
    config.insert("mode".into(), mode.into());
    for (name, value) in more {
        config.insert((*name).into(), (*value).into());
    }
    json!({
        "subscriber": {"component": "hostile"},
        "start": "beginning",
        "grants": {"config": config, "keyvalue": true},
        "retry": {"initialMs": 1, "maxMs": 20, "maxCrashes": 2},
    })
}

/// A subscription of the hostile component that behaves, and tells the recorder what it has done.
fn counter(recorder: &cdc_tests::recorder::Recorder) -> Value {
    let mut definition = hostile("counter", &[("url", &format!("{}/done", recorder.origin()))]);
    definition["grants"]["http"] = json!([recorder.origin()]);
    definition
}
