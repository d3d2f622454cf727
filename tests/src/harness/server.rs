//! One running service: asked, watched, and stopped in every way there is.

use std::net::SocketAddr;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;

use super::log::Log;
use super::{Data, Launch, Memory, until};
use crate::http::{Answer, Connection, Request};

/// A running service. Dropped, it is killed.
pub struct Server {
    launch: Launch,
    child: Option<Child>,
    address: SocketAddr,
    log: Log,
    start_took: Duration,
}

impl Server {
    pub(super) fn new(launch: Launch, child: Child, address: SocketAddr, log: Log, start_took: Duration) -> Server {
        Server { launch, child: Some(child), address, log, start_took }
    }

    /// A service with default settings on a new folder.
    pub fn start() -> Server {
        Launch::new().start()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn data(&self) -> &Data {
        self.launch.data()
    }

    pub fn process(&self) -> u32 {
        self.child.as_ref().expect("a server has a process until it is stopped").id()
    }

    pub fn memory(&self) -> Memory {
        Memory::of(self.process())
    }

    /// From the start of the process until its address was known.
    pub fn start_took(&self) -> Duration {
        self.start_took
    }

    /// What the service has written to stderr so far.
    pub fn log(&self) -> String {
        self.log.now()
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// One request on a connection of its own.
    pub fn send(&self, request: &Request) -> Answer {
        self.connect()
            .exchange(request)
            .unwrap_or_else(|error| panic!("no answer to {request}: {error}\n{}", self.log()))
    }

    pub fn get(&self, target: &str) -> Answer {
        self.send(&Request::get(target))
    }

    pub fn post(&self, target: &str, json: &str) -> Answer {
        self.send(&Request::post(target, json))
    }

    pub fn put(&self, target: &str, json: &str) -> Answer {
        self.send(&Request::put(target, json))
    }

    pub fn delete(&self, target: &str) -> Answer {
        self.send(&Request::delete(target))
    }

    /// The newest sequence number.
    pub fn current_sequence(&self) -> u64 {
        self.get("/stats").expect(200).json()["stats"]["currentSequence"].as_u64().expect("a sequence number")
    }

    /// `kill -9`: nothing is flushed, nothing is said.
    pub fn kill(mut self) -> Launch {
        let mut child = self.child.take().expect("a server has a process until it is stopped");
        child.kill().expect("the process can be killed");
        child.wait().expect("the process can be waited for");
        self.launch.clone()
    }

    /// Sends SIGTERM and goes on.
    pub fn ask_to_stop(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let process = self.child.as_ref().expect("a server has a process until it is stopped");
        rustix::process::kill_process(rustix::process::Pid::from_child(process), signal)
            .expect("the process takes signals");
    }

    /// Waits for the end and answers how it ended, with everything that was said.
    pub fn ended(mut self) -> (ExitStatus, String, Launch) {
        let mut child = self.child.take().expect("a server has a process until it is stopped");
        let status = until("the service to end", || child.try_wait().expect("the process can be waited for"));
        (status, self.log.to_the_end(), self.launch.clone())
    }

    /// SIGTERM, and exit code 0.
    pub fn stop(self) -> Launch {
        self.ask_to_stop();
        let (status, log, launch) = self.ended();
        assert!(status.success(), "the service ended with {status}:\n{log}");
        launch
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            if thread::panicking() {
                eprintln!("--- the service's log ---\n{}---", self.log.now());
            }
        }
    }
}
