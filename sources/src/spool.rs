//! Rows of one reading on their way out: taken in as fast as the database gives them, so that nothing there waits for
//! whoever takes them, and given out one after the other. In memory up to a limit, and beyond it in a file without a
//! name, which is gone with the reading or the process.
//!
//! A record is its length (4 bytes) and its bytes.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Rows that are being taken in.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    memory_bytes_max: usize,
    memory: Vec<u8>,
    file: Option<File>,
}

impl Spool {
    pub(crate) fn new(folder: &Path, memory_bytes_max: usize) -> Spool {
        Spool { folder: folder.to_owned(), memory_bytes_max, memory: Vec::new(), file: None }
    }

    pub(crate) fn push(&mut self, record: &[u8]) -> io::Result<()> {
        let length = u32::try_from(record.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.memory.extend_from_slice(&length.to_be_bytes());
        self.memory.extend_from_slice(record);
        if self.memory.len() > self.memory_bytes_max {
            let file = match &mut self.file {
                Some(file) => file,
                none => {
                    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
                    none.insert(tempfile::tempfile_in(&self.folder)?)
                }
            };
            file.write_all(&self.memory)?;
            self.memory.clear();
        }
        Ok(())
    }

    /// All of it is there: from its beginning.
    pub(crate) fn give_out(self) -> io::Result<Spooled> {
        let file = match self.file {
            Some(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                Some(BufReader::with_capacity(256 << 10, file))
            }
            None => None,
        };
        Ok(Spooled { file, memory: Cursor::new(self.memory), record: Vec::new() })
    }
}

/// Rows that are given out.
#[derive(Debug)]
pub(crate) struct Spooled {
    file: Option<BufReader<File>>,
    memory: Cursor<Vec<u8>>,
    record: Vec<u8>,
}

impl Spooled {
    /// The next one; None at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut length = [0; 4];
        if let Some(file) = &mut self.file {
            match file.read_exact(&mut length) {
                Ok(()) => {
                    self.record.resize(u32::from_be_bytes(length) as usize, 0);
                    file.read_exact(&mut self.record)?;
                    return Ok(Some(&self.record));
                }
                // Whole records are written at a time, so the file ends between two.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.file = None,
                Err(error) => return Err(error),
            }
        }
        match self.memory.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        self.record.resize(u32::from_be_bytes(length) as usize, 0);
        self.memory.read_exact(&mut self.record)?;
        Ok(Some(&self.record))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_come_out_as_they_went_in_whether_they_fit_into_memory_or_not() {
        let folder = tempfile::tempdir().unwrap();
        for memory_bytes_max in [0, 100, 1 << 20] {
            let mut spool = Spool::new(&folder.path().join("spool"), memory_bytes_max);
            let rows: Vec<String> = (0..50).map(|number| "x".repeat(number)).collect();
            rows.iter().for_each(|row| spool.push(row.as_bytes()).unwrap());
            let mut spooled = spool.give_out().unwrap();
            for row in &rows {
                assert_eq!(spooled.next().unwrap(), Some(row.as_bytes()));
            }
            assert_eq!(spooled.next().unwrap(), None);
        }
        assert_eq!(std::fs::read_dir(folder.path().join("spool")).unwrap().count(), 0);
    }
}
