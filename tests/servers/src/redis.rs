//! Redis.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::binaries;
use crate::process::Process;

/// A Redis server that writes each command to its append-only file before it answers, and so keeps over a kill what it
/// has answered. Nobody needs a password.
#[derive(Debug)]
pub struct Redis {
    process: Mutex<Process>,
    folder: PathBuf,
    port: u16,
    options: Vec<String>,
}

impl Redis {
    /// A server with the options that tests want: append-only file without syncs, no snapshots.
    pub fn start() -> Redis {
        Redis::with(&[])
    }

    /// A server with these options (such as `"--requirepass", "secret"`) over the usual ones.
    pub fn with(options: &[&str]) -> Redis {
        let process = Process::new("redis", None, "KILL");
        let folder = process.folder().to_path_buf();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let redis = Redis { port: process.port(), process: Mutex::new(process), folder, options };
        redis.start_again();
        redis
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of everything that belongs to this server.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `redis://…` of the server.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs one command through `redis-cli`. Returns its raw answer, without the last line's end. Panics if the client fails;
    /// what the server complains about comes back as text, as the client shows it.
    pub fn command(&self, words: &[&str]) -> String {
        let mut command = Command::new(binaries::find("redis-cli"));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--raw"]).args(words);
        let text = crate::templates::run(&mut command);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// The entries of a stream, oldest first, each as its fields in their order.
    pub fn entries(&self, stream: &str) -> Vec<Vec<(String, String)>> {
        let lines = self.command(&["--json", "XRANGE", stream, "-", "+"]);
        let entries: Vec<(String, Vec<String>)> = serde_json::from_str(&lines).expect("an id and fields each");
        let pairs = |fields: &[String]| fields.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        entries.iter().map(|(_, fields)| pairs(fields)).collect()
    }

    /// Ends the server cleanly. Does nothing if it does not run.
    pub fn stop(&self) {
        self.process().stop(Signal::TERM);
    }

    /// `kill -9` of the server. Does nothing if it does not run.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Starts the server that was stopped or killed, on its port and data, and waits until it answers.
    pub fn start_again(&self) {
        let mut command = Command::new(binaries::find("redis-server"));
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--daemonize", "no"]);
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "no"]);
        command.arg("--dir").arg(&self.folder).args(&self.options).current_dir(&self.folder);
        self.process().start(&mut command, |_| answers(self.port));
    }

    /// The end of the server's log.
    pub fn log(&self) -> String {
        self.process().log()
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // A test that panicked while it held the lock has failed already.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that still loads its data says `-LOADING`; one that wants a password says `-NOAUTH`, and is ready.
fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    let mut start = [0; 5];
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut start).is_ok()
        && (start == *b"+PONG" || start == *b"-NOAU")
}
