//! Finds, builds and runs the real binary.

mod binary;
mod data;
mod launch;
mod log;
mod memory;
mod server;

pub use binary::{cdc, companion, repository};
pub use data::{Data, Output};
pub use launch::{Launch, Refused};
pub use memory::{Memory, folder_bytes};
pub use server::Server;

use std::time::{Duration, Instant};

use binary::compiled;

/// How long anything may take before a test calls it hung. Generous, since the suite shares two cores with itself, and
/// a component that brings the runtime of its language takes a minute to compile then.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Asks again and again until there is an answer; fails the test, naming what it waited for, when there is none in time.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "still waiting after {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
