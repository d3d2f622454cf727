//! README's chapter "Run it at the edge", followed: its commands stand between `<!-- edge:begin -->` and
//! `<!-- edge:end -->`, and each block has to succeed in a shell. Port, files and the host that is built already are
//! put in their place; `curl` waits for a server that is not there yet.

use std::net::TcpListener;
use std::process::Command;

use cdc_test_edge::javascript::tool;
use cdc_test_edge::without_outer_build;
use cdc_tests::harness::repository;

#[test]
fn the_chapters_commands_work() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
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
        without_outer_build(&mut shell).current_dir(repository());
        let tools = tool("deno").parent().unwrap().to_owned();
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let done = shell.env("PATH", path).args(["-c", &script]).output().unwrap();
        assert!(done.status.success(), "{block}\n{}", String::from_utf8_lossy(&done.stderr));
    }
}
