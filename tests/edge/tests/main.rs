//! The edge component as its users see it, over HTTP.
#![allow(clippy::unwrap_used, reason = "test code: a broken expectation shall stop the test at its place")]

mod javascript;
mod readme;
mod writers;

use cdc_test_edge::{EdgeServer, Provider};
use cdc_tests::conformance;
use cdc_tests::http::{Connection, Request};

fn provider(folder: &tempfile::TempDir) -> Provider {
    Provider::open(&folder.path().join("keys"))
}

#[test]
fn the_component_conforms_to_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let server = EdgeServer::start(provider(&folder), |_| None);
    let report = conformance::run(server.address());
    assert_eq!(report.failures, Vec::<String>::new());
    assert!(report.passed > 20, "{report:?}");
    eprintln!("{} stories, {} not for this runtime", report.passed, report.skipped.len());
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = EdgeServer::start(provider(&folder), |_| None);
    let inserted = Connection::open(server.address()).exchange(&Request::post("/data/t", r#"{"id":1,"n":1.10}"#));
    inserted.unwrap().expect(200);
    drop(server);
    let server = EdgeServer::start(provider(&folder), |_| None);
    let read = Connection::open(server.address()).exchange(&Request::get("/data/t/1")).unwrap().expect(200);
    assert_eq!(read.text(), r#"{"id":1,"n":1.10}"#);
}

#[test]
fn without_compare_and_swap_writes_are_refused_and_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = EdgeServer::start(provider(&folder).without_swaps(), |_| None);
    let ask = |request: &Request| Connection::open(server.address()).exchange(request).unwrap();
    let why = ask(&Request::post("/data/t", r#"{"id":1}"#)).expect_problem(501, "unsafe-store");
    assert!(why.contains("compare and swap"), "{why}");
    let declared = ask(&Request::put("/schema/t", r#"{"columns":[{"name":"id","type":"string"}]}"#));
    declared.expect_problem(501, "unsafe-store");
    ask(&Request::get("/data/t/1")).expect_problem(404, "unknown-table");
    ask(&Request::get("/events")).expect(200);
}
