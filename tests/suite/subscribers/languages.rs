//! Filters and handlers in each language, built from the templates and run.

use std::path::Path;

use cdc_tests::guests;
use cdc_tests::harness::{Launch, Server};
use cdc_tests::http::Request;
use serde_json::json;

use super::{caught_up, load, subscribe, upload};

fn server() -> Server {
    Launch::new().option("--builtin-subscribers", "none").start()
}

/// The template filters accept rows whose `status` is `active`, as their settings say.
fn filters(component: &Path) {
    let server = server();
    upload(&server, "filter", component).expect(200);
    let definition = json!({
        "filter": "filter",
        "subscriber": {"builtin": "publisher"},
        "batch": {"lingerMs": 0},
        "grants": {"config": {"column": "status", "value": "active"}},
        "limits": {"callTimeoutMs": 60_000},
    });
    subscribe(&server, "s", &definition);
    load(&server, "t", 0, 1_000);
    server.put("/data/t/0", r#"{"status":"idle"}"#).expect(200);
    server.put("/data/t/1", r#"{"status":"active"}"#).expect(200);
    server.delete("/data/t/2").expect(200);
    let status = caught_up(&server, "s");
    assert_eq!(status["sinceStart"]["delivered"], 501, "{status}");
    assert_eq!(status["sinceStart"]["filteredByComponent"], 502, "{status}");
    assert_eq!(status["deadLetters"], 0, "{status}");
}

/// The template handlers keep the balance of each account, and reject a row without one.
fn handles(component: &Path) {
    let server = server();
    upload(&server, "handler", component).expect(200);
    let definition = json!({
        "subscriber": {"component": "handler"},
        "grants": {"keyvalue": true},
        "limits": {"callTimeoutMs": 60_000},
    });
    subscribe(&server, "s", &definition);
    let rows: String = (0..300).map(|id| format!("{{\"id\":{id},\"balance\":{id}}}\n")).collect();
    server.send(&Request::new("POST", "/data/accounts").body("application/x-ndjson", rows)).expect(200);
    server.post("/data/accounts", r#"{"id":"poor"}"#).expect(200);
    let status = caught_up(&server, "s");
    assert_eq!(status["sinceStart"]["delivered"], 300, "{status}");
    let letters = server.get("/subscriptions/s/dead-letters").expect(200).json();
    assert_eq!(letters["count"], 1, "{letters}");
    assert!(letters["deadLetters"][0]["reason"].as_str().unwrap().contains("accounts/poor"), "{letters}");
}

#[test]
fn a_filter_in_rust() {
    filters(&guests::rust("filter"));
}

#[test]
fn a_filter_in_javascript() {
    filters(&guests::javascript("filter"));
}

#[test]
fn a_filter_in_python() {
    filters(&guests::python("filter"));
}

#[test]
fn a_handler_in_javascript() {
    handles(&guests::javascript("handler"));
}

#[test]
fn a_handler_in_python() {
    handles(&guests::python("handler"));
}
