//! A view file that can be opened, and repaired on the way, without being changed: what is written stays in memory. For
//! the offline check of a folder that a crash has left.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// A file that the tree may repair as it likes: what it writes stays in memory.
#[derive(Debug)]
pub(crate) struct Unchanged {
    file: File,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    len: u64,
    /// How much of the file still counts.
    file_len: u64,
    blocks: HashMap<u64, Vec<u8>>,
}

const BLOCK: u64 = 4096;

impl Unchanged {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, changed: Mutex::new(Changed { len, file_len: len, blocks: HashMap::new() }) })
    }

    fn block(&self, changed: &Changed, number: u64) -> io::Result<Vec<u8>> {
        if let Some(block) = changed.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = vec![0; BLOCK as usize];
        let from = number * BLOCK;
        let some = changed.file_len.saturating_sub(from).min(BLOCK) as usize;
        self.file.read_exact_at(&mut block[..some], from)?;
        Ok(block)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl redb::StorageBackend for Unchanged {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.lock();
        if offset + out.len() as u64 > changed.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = 0;
        while at < out.len() {
            let place = offset + at as u64;
            let block = self.block(&changed, place / BLOCK)?;
            let from = (place % BLOCK) as usize;
            let some = (BLOCK as usize - from).min(out.len() - at);
            out[at..at + some].copy_from_slice(&block[from..from + some]);
            at += some;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changed = self.lock();
        changed.file_len = changed.file_len.min(len);
        changed.blocks.retain(|number, _| number * BLOCK < len);
        changed.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.lock();
        changed.len = changed.len.max(offset + data.len() as u64);
        let mut at = 0;
        while at < data.len() {
            let place = offset + at as u64;
            let mut block = self.block(&changed, place / BLOCK)?;
            let from = (place % BLOCK) as usize;
            let some = (BLOCK as usize - from).min(data.len() - at);
            block[from..from + some].copy_from_slice(&data[at..at + some]);
            changed.blocks.insert(place / BLOCK, block);
            at += some;
        }
        Ok(())
    }
}
