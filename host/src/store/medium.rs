//! What the log is written on: files in one folder. One implementation for the real file system; tests put another in
//! front of it that fails on demand.
//!
//! Not a virtual file system: only the calls that the log makes, each with the meaning the log relies on.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

/// A folder's worth of files.
pub(crate) trait Medium: Debug + Send + Sync {
    /// Opens an existing file.
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn MediumFile>>;
    /// Makes a new file, or empties an old one, to read and write.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediumFile>>;
    /// Gives a file another name, replacing what had it. Durable only after `sync_folder`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Those who have it open keep reading it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// The names of the files in a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// One open file.
pub(crate) trait MediumFile: Debug + Send + Sync {
    /// Fills the buffer or errs.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes every byte or errs; after an error any part of them may be there.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes what was written durable. After an error nothing is known about any earlier unsynced write.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends (with zeros).
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// In bytes.
    fn len(&self) -> io::Result<u64>;
}

/// The file system.
#[derive(Debug, Default)]
pub(crate) struct Disk;

impl Medium for Disk {
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn MediumFile>> {
        Ok(Arc::new(DiskFile(OpenOptions::new().read(true).write(write).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediumFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            // A name that is no UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }
}

#[derive(Debug)]
struct DiskFile(File);

impl MediumFile for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        // The kernel takes at most 1,024 parts at a time.
        for some in parts.chunks(1024) {
            let total: usize = some.iter().map(|part| part.len()).sum();
            let mut written = rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.0, some, offset))?;
            if written < total {
                // A short write: go on part by part, so that the reason (a full disk, as a rule) comes out as an error.
                let mut at = offset + written as u64;
                for part in some {
                    if written >= part.len() {
                        written -= part.len();
                        continue;
                    }
                    let rest = &part[written..];
                    self.0.write_all_at(rest, at)?;
                    at += rest.len() as u64;
                    written = 0;
                }
            }
            offset += total as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Whether an error means that there is no room, which passes, rather than a broken disk, which does not.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, WriteZero};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | WriteZero)
}
