//! The JavaScript package in the runtimes that it is for, as its users see it.

use std::process::Command;

use cdc_test_edge::javascript::{JsServer, Runtime, package, tool};
use cdc_tests::conformance;
use cdc_tests::http::{Connection, Request};

use crate::writers;

fn conforms(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let server = JsServer::start(runtime, folder.path());
    let report = conformance::run(server.address());
    assert_eq!(report.failures, Vec::<String>::new());
    assert!(report.passed > 20, "{report:?}");
}

#[test]
fn node_conforms_to_the_contract() {
    conforms(Runtime::Node);
}

#[test]
fn deno_conforms_to_the_contract() {
    conforms(Runtime::Deno);
}

#[test]
fn a_durable_object_in_workerd_conforms_to_the_contract() {
    conforms(Runtime::Workerd);
}

#[test]
fn concurrent_writers_of_a_durable_object_lose_no_write_and_share_no_sequence_number() {
    let folder = tempfile::tempdir().unwrap();
    let server = JsServer::start(Runtime::Workerd, folder.path());
    let acknowledged = writers::write(server.address(), 25);
    assert_eq!(acknowledged.len(), writers::WRITERS * 25, "a write was given up");
    assert_eq!(writers::check(server.address(), &acknowledged), writers::WRITERS * 25);
}

#[test]
fn a_durable_object_keeps_what_it_acknowledged_over_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let server = JsServer::start(Runtime::Workerd, folder.path());
    let acknowledged = writers::write(server.address(), 10);
    // kill -9
    drop(server);
    let server = JsServer::start(Runtime::Workerd, folder.path());
    assert_eq!(writers::check(server.address(), &acknowledged), acknowledged.len());
    let next = Connection::open(server.address()).exchange(&Request::post("/data/t", r#"{"id":"next"}"#)).unwrap();
    let sequence = &next.expect(200).json()["event"]["metadata"]["sequenceNumber"];
    assert_eq!(sequence.as_u64(), Some(acknowledged.len() as u64 + 1));
}

#[test]
fn a_client_that_breaks_off_in_its_body_changes_nothing_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for runtime in [Runtime::Node, Runtime::Deno, Runtime::Workerd] {
        let server = JsServer::start(runtime, folder.path());
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        let head = "POST /data/t HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
        std::io::Write::write_all(&mut stream, format!("{head}{{\"id\":1").as_bytes()).unwrap();
        drop(stream);
        let next = Connection::open(server.address()).exchange(&Request::post("/data/t", r#"{"id":2}"#)).unwrap();
        let sequence = &next.expect(200).json()["event"]["metadata"]["sequenceNumber"];
        assert_eq!(sequence.as_u64(), Some(1), "{runtime:?}");
    }
}

#[test]
fn the_typed_api_captures_queries_subscribes_and_snapshots() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("javascript/api.mjs");
    let done = Command::new("node").arg(script).arg(package()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn the_types_say_what_the_package_does() {
    let folder = tempfile::tempdir().unwrap();
    // Beside the package, as an application's code is.
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("javascript/types.ts");
    let paths = format!(
        "{{\"compilerOptions\":{{\"strict\":true,\"noEmit\":true,\"target\":\"es2022\",\"module\":\"nodenext\",\
          \"lib\":[\"es2022\",\"dom\",\"dom.iterable\"],\"types\":[],\"skipLibCheck\":false,\
          \"paths\":{{\"cdc-edge/*\":[\"{}/*\"]}}}},\"files\":[\"{}\"]}}",
        package().display(),
        example.display()
    );
    let project = folder.path().join("tsconfig.json");
    std::fs::write(&project, paths).unwrap();
    let done = Command::new(tool("tsc")).arg("--project").arg(&project).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
