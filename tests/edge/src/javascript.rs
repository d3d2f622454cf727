//! The JavaScript package, built as the README says, and the runtimes that serve it: each a process of its own on a port
//! of its own, which ends with its value. `tests/run` installs them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::build::{repository, without_outer_build};

/// The folder of the package.
pub fn package() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let root = repository();
        let done = without_outer_build(&mut Command::new(root.join("edge/js/build"))).output();
        let done = done.expect("the repository has this script");
        assert!(done.status.success(), "the package is not built:\n{}", String::from_utf8_lossy(&done.stderr));
        root.join(String::from_utf8_lossy(&done.stdout).trim())
    })
}

/// A program that `tests/run` installs for this package, such as `tsc`.
pub fn tool(name: &str) -> PathBuf {
    let tool = repository().join("target/edge-tools/js/node_modules/.bin").join(name);
    assert!(tool.exists(), "{name} is not installed; `tests/run` installs what the tests need");
    tool
}

/// What serves the package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// node:http, in memory.
    Node,
    /// Deno, in memory.
    Deno,
    /// A Durable Object in workerd, on disk.
    Workerd,
}

/// A runtime that serves. Dropped, it is killed (-9).
#[derive(Debug)]
pub struct JsServer {
    child: Child,
    address: SocketAddr,
}

impl JsServer {
    /// Starts a runtime; what it keeps, if it keeps anything, it keeps in this folder.
    pub fn start(runtime: Runtime, folder: &Path) -> JsServer {
        let package = package();
        let mut command = match runtime {
            Runtime::Node => {
                let mut command = Command::new("node");
                command.arg(package.join("node.js")).arg("0");
                command
            }
            Runtime::Deno => {
                let mut command = Command::new(tool("deno"));
                // Nothing of it outside of its folder.
                command.env("DENO_DIR", folder.join("deno")).args(["run", "--no-remote", "--no-lock", "--quiet"]);
                command.args(["--allow-net", "--allow-read"]).arg(package.join("deno.js")).arg("0");
                command
            }
            Runtime::Workerd => {
                let mut command = Command::new(tool("workerd"));
                let objects = folder.join("objects");
                std::fs::create_dir_all(&objects).expect("the folder is ours");
                command.arg("serve").arg(package.join("worker.capnp"));
                command.arg("--socket-addr=http=127.0.0.1:0").arg("--control-fd=1");
                command.arg(format!("--directory-path=disk={}", objects.display()));
                command
            }
        };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the runtime can be run");
        let mut output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut line = String::new();
        let port = loop {
            line.clear();
            let read = output.read_line(&mut line).expect("it writes text");
            assert!(read > 0, "{runtime:?} ended before it served: {:?}", child.wait());
            if let Some(port) = port_in(&line) {
                break port;
            }
        };
        // It may write more.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        JsServer { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for JsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port in `http://127.0.0.1:8002`, or in workerd's `{"event":"listen","socket":"http","port":8002}`.
fn port_in(line: &str) -> Option<u16> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("http://") {
        return rest.rsplit(':').next()?.parse().ok();
    }
    let (_, rest) = line.split_once("\"port\":")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
