//! The arrows of ARCHITECTURE.md, held against the sources: who in the host may import whom.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the host, and the modules of the host that it may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("store", &[]),
    ("logging", &[]),
    ("metrics", &[]),
    ("native_code", &[]),
    ("client", &[]),
    ("gate", &[]),
    ("terminal", &[]),
    ("tail", &["client", "terminal"]),
    ("steering", &["client", "tail"]),
    ("authoring", &["guest", "native_code", "store", "terminal"]),
    ("check", &["delivery", "source"]),
    ("config", &["authoring", "logging", "source", "steering", "tail"]),
    ("selection", &["store"]),
    ("sandbox", &["native_code", "store"]),
    ("guest", &["native_code", "store"]),
    ("ingest", &["metrics", "sandbox", "store"]),
    ("schemas", &["store"]),
    ("live", &["metrics", "schemas", "selection", "store"]),
    ("readers", &["metrics", "sandbox", "store"]),
    ("source", &["ingest", "metrics", "sandbox", "store"]),
    ("components", &["guest", "ingest", "native_code", "store"]),
    (
        "delivery",
        &[
            "components",
            "guest",
            "ingest",
            "live",
            "metrics",
            "native_code",
            "readers",
            "sandbox",
            "schemas",
            "selection",
            "store",
            "terminal",
        ],
    ),
    (
        "api",
        &[
            "components",
            "delivery",
            "gate",
            "ingest",
            "live",
            "metrics",
            "readers",
            "sandbox",
            "schemas",
            "source",
            "store",
        ],
    ),
    ("refused_heads", &[]),
    ("server", &["api", "metrics", "refused_heads"]),
    (
        "app",
        &[
            "api",
            "components",
            "config",
            "delivery",
            "gate",
            "guest",
            "ingest",
            "live",
            "metrics",
            "readers",
            "sandbox",
            "schemas",
            "server",
            "source",
            "store",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// The modules of its crate that a source names: what follows `crate::`.
fn named(source: &str) -> BTreeSet<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn modules_of_the_host_import_only_what_the_map_allows() {
    let host = root().join("host/src");
    for (module, allowed) in ARROWS {
        let mut files = Vec::new();
        for path in [host.join(module), host.join(format!("{module}.rs"))] {
            if path.exists() {
                sources(&path, &mut files);
            }
        }
        assert!(!files.is_empty(), "host/src has no module `{module}` any more: mend the list");
        for file in files {
            for name in named(&fs::read_to_string(&file).unwrap()) {
                let known = ARROWS.iter().any(|(known, _)| *known == name);
                assert!(
                    !known || name == *module || allowed.contains(&name.as_str()),
                    "{} imports `{name}`, which `{module}` may not",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_module_of_the_host_is_on_the_map() {
    for entry in fs::read_dir(root().join("host/src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_root = ["lib", "main"].contains(&name.as_str());
        assert!(is_root || ARROWS.iter().any(|(module, _)| *module == name), "`{name}` is not in the list");
    }
}

#[test]
fn the_host_is_never_linked_with_the_engine() {
    let manifest = fs::read_to_string(root().join("host/Cargo.toml")).unwrap();
    assert!(!manifest.contains("cdc-engine"), "the host runs the component; it must not link the crate");
    let rest = fs::read_to_string(root().join("rest/Cargo.toml")).unwrap();
    assert!(!rest.contains("cdc-engine") && !rest.contains("cdc-host"));
}

#[test]
fn what_may_be_touched_is_decided_without_the_rest() {
    let manifest = fs::read_to_string(root().join("access/Cargo.toml")).unwrap();
    assert!(!manifest.contains("tokio") && manifest.matches("cdc-").count() == 1, "access decides, and knows nobody");
}

#[test]
fn the_edge_links_the_core_and_the_contract_and_nothing_of_the_host() {
    let manifest = fs::read_to_string(root().join("edge/Cargo.toml")).unwrap();
    assert!(manifest.contains("cdc-engine") && manifest.contains("cdc-rest") && !manifest.contains("cdc-host"));
    let mut files = Vec::new();
    sources(&root().join("edge/src"), &mut files);
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let is_shell = file.ends_with("edge/src/component.rs");
        // The clock and the runtime are the shell's: what is tested natively is what runs at the edge.
        assert!(is_shell || !(source.contains("SystemTime") || source.contains("wasip2")), "{}", file.display());
    }
}
