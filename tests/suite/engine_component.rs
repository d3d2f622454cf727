//! The engine is a component, and only that: what it exports and imports, and that nothing stands in for it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cdc_tests::harness::{Data, Launch, Output, cdc};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

/// The component that is built into the binary, as the binary hands it out.
fn embedded() -> Vec<u8> {
    let folder = Data::new();
    let file = folder.beside("engine.wasm");
    Output::of(Command::new(cdc()).arg("engine").arg(&file)).expect_success();
    fs::read(file).unwrap()
}

/// The names of the outermost component's imports and exports.
fn imports_and_exports(component: &[u8]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut imports, mut exports) = (BTreeSet::new(), BTreeSet::new());
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) if depth > 0 => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().map(|import| import.unwrap().name.name.to_string()));
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(section.into_iter().map(|export| export.unwrap().name.name.to_string()));
            }
            _ => {}
        }
    }
    (imports, exports)
}

#[test]
fn the_engine_exports_its_five_interfaces_and_imports_the_store_and_wasi_only() {
    let component = embedded();
    Validator::new_with_features(WasmFeatures::default()).validate_all(&component).expect("it is a valid component");
    let (imports, exports) = imports_and_exports(&component);
    let expected =
        ["capture", "follow", "query", "snapshot", "subscribe"].map(|name| format!("cdc:engine/{name}@1.0.0"));
    assert_eq!(exports, BTreeSet::from(expected));
    assert!(imports.contains("cdc:engine/store@1.0.0"), "{imports:?}");
    for import in &imports {
        let is_ours = ["cdc:engine/store@1.0.0", "cdc:event/types@1.0.0"].contains(&import.as_str());
        assert!(is_ours || import.starts_with("wasi:"), "{import}");
    }
    // It decides; it opens no files, no sockets, and starts nothing.
    for forbidden in ["wasi:sockets", "wasi:http", "wasi:filesystem"] {
        let found: Vec<_> = imports.iter().filter(|import| import.starts_with(forbidden)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn a_binary_without_its_component_refuses_to_start() {
    let component = embedded();
    let mut binary = fs::read(cdc()).unwrap();
    let places = wipe(&mut binary, &component);
    assert!(places > 0, "the component's bytes are not in the binary");
    let launch = Launch::new().compile_cache_as_configured();
    let copy = launch.data().beside("cdc-without-engine");
    fs::write(&copy, binary).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();

    let refused = launch.clone().binary(&copy).refused();
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("engine"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
    // Neither does code compiled from the real component stand in for the missing one.
    launch.start().stop();
    launch.binary(&copy).refused();
}

/// Zeros every occurrence of the component within the binary.
fn wipe(binary: &mut [u8], component: &[u8]) -> usize {
    let mut places = 0;
    let mut from = 0;
    while let Some(at) = find(&binary[from..], component) {
        binary[from + at..from + at + component.len()].fill(0);
        from += at + component.len();
        places += 1;
    }
    places
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    // A component's magic and layer are rare enough in a binary for a plain search to be quick.
    let head = &wanted[..8];
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(head.len()).position(|window| window == head) {
        if bytes[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[test]
fn another_component_can_be_run_in_its_place_and_what_is_none_is_refused() {
    let launch = Launch::new();
    let file = launch.data().beside("engine.wasm");
    fs::write(&file, embedded()).unwrap();
    let server = launch.clone().option("--engine", file.display()).start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    server.stop();

    for wrong in [&b"not a component"[..], b"", b"\0asm\x01\0\0\0", &embedded()[..1_000]] {
        fs::write(&file, wrong).unwrap();
        let refused = launch.clone().option("--engine", file.display()).refused();
        assert!(refused.stderr.contains("engine.wasm"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
    }
    // An empty component is a component, but no engine.
    fs::write(&file, b"\0asm\x0d\0\x01\0").unwrap();
    let refused = launch.option("--engine", file.display()).refused();
    assert!(refused.stderr.contains("engine.wasm"), "{}", refused.stderr);
}
