//! How much memory a process and how much disk a folder takes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process's resident memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now (`VmRSS`).
    pub resident: u64,
    /// At most, since it started or since [`Memory::reset_peak`] (`VmHWM`).
    pub peak: u64,
}

impl Memory {
    pub fn of(process: u32) -> Memory {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
        let kib = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel names it");
            line[name.len()..].trim().trim_end_matches(" kB").parse().expect("a number of KiB")
        };
        Memory { resident: kib("VmRSS:") * 1024, peak: kib("VmHWM:") * 1024 }
    }

    /// Lets the peak start from the present size. Answers whether the kernel allows it.
    pub fn reset_peak(process: u32) -> bool {
        fs::write(format!("/proc/{process}/clear_refs"), "5").is_ok()
    }
}

/// What a folder holds: apparent bytes, and bytes of the blocks that are taken on disk.
pub fn folder_bytes(folder: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        // A file may go while we look: compaction and retention work beside us.
        let Ok(metadata) = entry.metadata() else { continue };
        let more =
            if metadata.is_dir() { folder_bytes(&entry.path()) } else { (metadata.len(), metadata.blocks() * 512) };
        sum = (sum.0 + more.0, sum.1 + more.1);
    }
    sum
}
