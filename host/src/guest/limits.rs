//! What one instance may use, and what it asked for beyond that.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// What one instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestLimits {
    /// All linear memories together, in bytes.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Core instances that a component is made of.
    pub instances: usize,
    /// One call, from start to end, whatever it waits for.
    pub call_timeout: Duration,
    /// What may be written to the log over time, in bytes per second; ten seconds' worth may come at once.
    pub log_bytes_per_second: u32,
    /// HTTP requests under way at once.
    pub requests_in_flight: usize,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            table_elements: 100_000,
            instances: 100,
            call_timeout: Duration::from_secs(5),
            log_bytes_per_second: 16 << 10,
            requests_in_flight: 8,
        }
    }
}

/// Holds an instance to its limits.
#[derive(Debug)]
pub(super) struct Limiter {
    limits: GuestLimits,
    pub(super) memory_bytes: usize,
    /// The last thing that was refused: a guest that is refused memory mostly traps, and the trap does not say why.
    pub(super) refused: Option<String>,
}

impl Limiter {
    pub(super) fn new(limits: GuestLimits) -> Self {
        Self { limits, memory_bytes: 0, refused: None }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if wanted > self.limits.memory_bytes {
            let limit = self.limits.memory_bytes;
            self.refused = Some(format!("it asked for {wanted} bytes of memory, and its limit memoryBytes is {limit}"));
            return Ok(false);
        }
        self.memory_bytes = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.limits.table_elements;
        if desired > limit {
            self.refused =
                Some(format!("it asked for a table of {desired} elements, and its limit tableElements is {limit}"));
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances
    }

    // A component of many core modules has a memory or two and a few tables for each.
    fn tables(&self) -> usize {
        self.limits.instances.saturating_mul(4)
    }

    fn memories(&self) -> usize {
        self.limits.instances
    }
}
