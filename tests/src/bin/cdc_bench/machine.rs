//! The machine that the figures belong to.

use std::fs;

pub(crate) fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|left| left.trim() == name));
        line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total_kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "machine: {cores} cores, {} (family {}, model {}), {} GiB memory, Linux {}",
        named("model name"),
        named("cpu family"),
        named("model"),
        total_kib / (1024 * 1024),
        kernel.trim()
    )
}
