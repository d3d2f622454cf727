//! What the operating system says about this process, under the names that every Prometheus client uses.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::ConstGauge;

use super::store::metric;

#[derive(Debug)]
pub(super) struct ProcessFigures {
    start_seconds: f64,
}

impl ProcessFigures {
    /// The service builds its metrics first of all, so now is when the process started, to a few ms.
    pub(super) fn starting_now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start_seconds: since_epoch.as_secs_f64() }
    }
}

impl Collector for ProcessFigures {
    /// Where the operating system has no `/proc`, what comes from there is left out.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: f64| metric(&mut encoder, name, help, &ConstGauge::new(value));
        gauge("process_start_time_seconds", "Start of the process in seconds since 1970", self.start_seconds)?;
        if let Some(bytes) = resident_bytes() {
            gauge("process_resident_memory_bytes", "Resident memory", bytes as f64)?;
        }
        if let Some(descriptors) = open_descriptors() {
            gauge("process_open_fds", "Open file descriptors", descriptors as f64)?;
        }
        Ok(())
    }
}

/// From `status` and not `statm`, whose figures are in pages of a size that would have to be asked for.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    resident_bytes_in(&status)
}

fn resident_bytes_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Without the descriptor that counting itself opens.
fn open_descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tcdc\nVmSize:\t  900 kB\nVmRSS:\t   12345 kB\n";
        assert_eq!(resident_bytes_in(status), Some(12_345 * 1_024));
        assert_eq!(resident_bytes_in("Name:\tcdc\n"), None);
    }
}
