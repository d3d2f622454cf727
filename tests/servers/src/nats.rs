//! NATS with JetStream.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::binaries;
use crate::process::Process;

/// A NATS server with JetStream in its own folder. Nobody needs a password.
#[derive(Debug)]
pub struct Nats {
    process: Mutex<Process>,
    folder: PathBuf,
    port: u16,
    options: Vec<String>,
}

impl Nats {
    /// A server with JetStream.
    pub fn start() -> Nats {
        Nats::with(&[])
    }

    /// A server with these further options (such as `"--auth", "secret"`).
    pub fn with(options: &[&str]) -> Nats {
        let process = Process::new("nats", None, "KILL");
        let folder = process.folder().to_path_buf();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let nats = Nats { port: process.port(), process: Mutex::new(process), folder, options };
        nats.start_again();
        nats
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of everything that belongs to this server. Its streams are in `data`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `nats://…` of the server.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends the server cleanly. Does nothing if it does not run.
    pub fn stop(&self) {
        self.process().stop(Signal::TERM);
    }

    /// `kill -9` of the server. Does nothing if it does not run.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Starts the server that was stopped or killed, on its port and data, and waits until it greets.
    pub fn start_again(&self) {
        let mut command = Command::new(binaries::find("nats-server"));
        command.args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--jetstream"]);
        command.arg("--store_dir").arg(self.folder.join("data")).args(&self.options).current_dir(&self.folder);
        self.process().start(&mut command, |_| greets(self.port));
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

/// The server speaks first: `INFO {…}`. It listens only when JetStream has recovered its streams.
fn greets(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    let mut start = [0; 5];
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.read_exact(&mut start).is_ok()
        && start == *b"INFO "
}
