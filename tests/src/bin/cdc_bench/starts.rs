//! Idle memory after a start on an empty folder, and how long a start takes.

use std::thread;
use std::time::{Duration, Instant};

use cdc_tests::harness::{Launch, Server};
use cdc_tests::latency::median;

use crate::Scale;
use crate::table::{Table, mib};

pub(crate) fn measure(scale: Scale, table: &mut Table) {
    // The first start ever compiles the engine; what counts is the second, as in daily life.
    drop(start_to_first_answer(&Launch::new()));
    let mut resident = Vec::new();
    let mut took = Vec::new();
    for _ in 0..scale.starts {
        let (server, start) = start_to_first_answer(&Launch::new());
        took.push(start.as_secs_f64());
        // Idle is when what a start leaves behind has settled, not the instant of the first answer.
        thread::sleep(Duration::from_millis(300));
        resident.push(server.memory().resident as f64);
    }
    let idle = median(&resident);
    let what = "resident memory, idle, after a start on an empty folder";
    table.against_bar(what, mib(idle as u64), "<= 25 MiB", idle <= 25.0 * 1024.0 * 1024.0);
    table.note("start to first answer on an empty folder", shown(median(&took)), "-");
}

/// From the start of the process to the last byte of its first answer about its data.
pub(crate) fn start_to_first_answer(launch: &Launch) -> (Server, Duration) {
    let began = Instant::now();
    let server = launch.start();
    server.get("/stats").expect(200);
    let took = began.elapsed();
    (server, took)
}

pub(crate) fn shown(seconds: f64) -> String {
    format!("{:.0} ms", seconds * 1e3)
}
