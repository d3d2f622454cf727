//! What may be uploaded, and what is told of it.

use cdc_tests::guests;
use cdc_tests::harness::{Launch, Server};
use cdc_tests::http::Request;

use super::{subscribe, upload};
use serde_json::json;

#[test]
fn a_component_is_described_by_world_imports_size_and_hash() {
    let server = Server::start();
    let file = guests::rust("filter");
    let uploaded = upload(&server, "active", &file).expect(200).json();
    assert_eq!((uploaded["version"].as_u64(), uploaded["world"].as_str()), (Some(1), Some("filter")));
    assert_eq!(uploaded["size"].as_u64(), Some(std::fs::metadata(&file).unwrap().len()));
    assert_eq!(uploaded["sha256"].as_str().map(str::len), Some(64));
    let imports = uploaded["imports"].as_array().unwrap();
    assert!(imports.iter().any(|import| import == "wasi:config/store@0.2.0-rc.1"), "{imports:?}");
    assert_eq!(uploaded["new"], true);

    // The same bytes are the same version.
    let again = upload(&server, "active", &file).expect(200).json();
    assert_eq!((again["version"].as_u64(), &again["new"]), (Some(1), &json!(false)));
    let listed = server.get("/components").expect(200).json();
    assert_eq!(listed["count"], 1);
    assert_eq!(listed["components"][0]["sha256"], uploaded["sha256"]);

    // And they are there after a restart.
    let server = server.kill().start();
    assert_eq!(server.get("/components/active").expect(200).json()["sha256"], uploaded["sha256"]);
}

#[test]
fn what_cannot_be_a_subscriber_is_refused_with_what_is_wrong() {
    let server = Server::start();
    let refused = |name: &str, bytes: Vec<u8>| {
        let request = Request::new("PUT", &format!("/components/{name}")).body("application/wasm", bytes);
        server.send(&request).expect_problem(422, "unfit-component")
    };
    let detail = refused("evil", std::fs::read(guests::rust("unknown-import")).unwrap());
    assert!(detail.contains("evil:host/do@1.0.0"), "the import is named: {detail}");
    let detail = refused("evil", std::fs::read(guests::wat("no-export")).unwrap());
    assert!(detail.contains("cdc:subscriber/handling@1.0.0"), "what is missing is named: {detail}");
    let detail = refused("evil", b"\0asm\x01\0\0\0".to_vec());
    assert!(detail.contains("core module"), "{detail}");
    refused("evil", b"not wasm".to_vec());
    refused("evil", Vec::new());
    assert_eq!(server.get("/components").expect(200).json()["count"], 0);
}

#[test]
fn a_component_that_is_used_stays() {
    let server = Server::start();
    upload(&server, "noop", &guests::rust("noop")).expect(200);
    subscribe(&server, "s", &json!({"subscriber": {"component": "noop"}}));
    let detail = server.delete("/components/noop").expect_problem(409, "component-in-use");
    assert!(detail.contains(" s;"), "{detail}");
    server.delete("/subscriptions/s").expect(200);
    server.delete("/components/noop").expect(200);
    server.get("/components/noop").expect_problem(404, "unknown-component");
}

#[test]
fn too_many_and_too_large_components_are_refused() {
    let server = Launch::new().options("--max-components 1 --max-component-bytes 100KiB").start();
    upload(&server, "one", &guests::rust("noop")).expect(200);
    upload(&server, "two", &guests::rust("noop")).expect_problem(409, "limit-reached");
    let large = Request::new("PUT", "/components/one").body("application/wasm", vec![0; 200_000]);
    server.send(&large).expect_problem(413, "component-too-large");
}

#[test]
fn the_oldest_versions_beyond_the_limit_are_forgotten() {
    let server = Launch::new().options("--max-component-versions 2").start();
    for guest in ["noop", "filter", "status-filter"] {
        upload(&server, "c", &guests::rust(guest)).expect(200);
    }
    let shown = server.get("/components/c").expect(200).json();
    let versions: Vec<_> = shown["versions"].as_array().unwrap().iter().map(|v| v["version"].as_u64()).collect();
    assert_eq!(versions, [Some(2), Some(3)]);
    server.get("/components/c/versions/1").expect_problem(404, "unknown-component-version");
}
