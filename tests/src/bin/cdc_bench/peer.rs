//! The peers: servers that print their address and live as long as their standard input.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cdc_tests::harness::companion;

pub(crate) struct Peer {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Peer {
    /// hyper with nothing behind it; `page` is what it answers to any GET.
    pub(crate) fn bare_hyper(page: Option<&Path>) -> Peer {
        let mut command = Command::new(companion("bare-hyper"));
        command.args(page);
        Peer::start(&mut command).expect("the crate's own peer runs")
    }

    /// The hand-written in-memory server; none where there is no node.
    pub(crate) fn node() -> Option<Peer> {
        Peer::start(Command::new("node").args(["-e", include_str!("node-http.js")]))
    }

    fn start(command: &mut Command) -> Option<Peer> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        let address = line.trim().parse().ok()?;
        Some(Peer { child, address })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
