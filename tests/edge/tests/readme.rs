//! README's chapter "Run it at the edge", followed: its commands stand between `<!-- edge:begin -->` and
//! `<!-- edge:end -->`, and each block has to succeed in a shell. Port, files and the host that is built already are
//! put in their place; `curl` waits for a server that is not there yet.

use std::net::TcpListener;
use std::process::Command;

use cdc_test_edge::javascript::tool;

#[test]
fn the_chapters_commands_work() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- edge:begin -->").expect("README has the part");
    let (chapter, _) = rest.split_once("<!-- edge:end -->").expect("the part has an end");
    let blocks: Vec<&str> = chapter.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 4, "one for the component, and one for each JavaScript runtime");
    for block in blocks {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let commands = block
            .replace("cargo run --release -p cdc-test-edge --bin edge-host --", env!("CARGO_BIN_EXE_edge-host"))
            .replace(" keys ", &format!(" {}/keys ", folder.path().display()))
            .replace("objects", &format!("{}/objects", folder.path().display()))
            .replace("worker.capnp", &format!("worker.capnp --socket-addr=http=127.0.0.1:{port}"))
            .replace("8002", &port);
        let script = format!(
            "set -eu\ntrap 'kill $(jobs -p)' EXIT\n\
             curl() {{ command curl --silent --show-error --fail --retry 120 --retry-delay 1 --retry-connrefused \"$@\"; }}\n\
             {commands}"
        );
        let mut shell = Command::new("bash");
        // What the outer build wants is not meant for those in here.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_") && name != "CARGO_HOME") {
                shell.env_remove(name);
            }
        }
        let tools = tool("deno").parent().unwrap().to_owned();
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let done = shell.current_dir(&root).env("PATH", path).args(["-c", &script]).output().unwrap();
        assert!(done.status.success(), "{block}\n{}", String::from_utf8_lossy(&done.stderr));
    }
}
