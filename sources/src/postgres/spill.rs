//! Transactions that the server sends while they are still open, kept until they commit or are rolled back.
//!
//! Each has its messages in the order of the log, in memory up to a limit that all share, and beyond it in a file
//! without a name, which is gone with the transaction or the process. A record is the length of the message (4 bytes),
//! the id of its subtransaction (4 bytes), and the message. Records of subtransactions that were rolled back are passed
//! over when the transaction is read. Descriptions of relations are kept whoever sent them: the server does not repeat
//! them although the subtransaction with which they came was rolled back.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

/// No message of the log is longer than PostgreSQL lets one be.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// All open transactions.
#[derive(Debug)]
pub(super) struct Spills {
    folder: PathBuf,
    memory_bytes_max: usize,
    memory_bytes: usize,
    open: HashMap<u32, Spill>,
}

#[derive(Debug, Default)]
struct Spill {
    memory: Vec<u8>,
    file: Option<File>,
    rolled_back: HashSet<u32>,
}

impl Spills {
    pub(super) fn new(folder: PathBuf, memory_bytes_max: usize) -> Spills {
        Spills { folder, memory_bytes_max, memory_bytes: 0, open: HashMap::new() }
    }

    /// Adds a message, with its letter, to an open transaction.
    pub(super) fn add(&mut self, xid: u32, subtransaction: u32, letter: u8, rest: &[u8]) -> io::Result<()> {
        let spill = self.open.entry(xid).or_default();
        let length = u32::try_from(rest.len() + 1).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let before = spill.memory.len();
        spill.memory.extend_from_slice(&length.to_be_bytes());
        // What describes a relation belongs to the whole, whose own roll-back drops everything anyway.
        let owner = if letter == b'R' { xid } else { subtransaction };
        spill.memory.extend_from_slice(&owner.to_be_bytes());
        spill.memory.push(letter);
        spill.memory.extend_from_slice(rest);
        self.memory_bytes += spill.memory.len() - before;
        if self.memory_bytes > self.memory_bytes_max {
            self.spill_largest()?;
        }
        Ok(())
    }

    fn spill_largest(&mut self) -> io::Result<()> {
        let Some(spill) = self.open.values_mut().max_by_key(|spill| spill.memory.len()) else { return Ok(()) };
        let file = match &mut spill.file {
            Some(file) => file,
            none => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
                none.insert(tempfile::tempfile_in(&self.folder)?)
            }
        };
        file.write_all(&spill.memory)?;
        self.memory_bytes -= spill.memory.len();
        spill.memory = Vec::new();
        Ok(())
    }

    /// A subtransaction was rolled back, or the whole if they are the same.
    pub(super) fn roll_back(&mut self, xid: u32, subtransaction: u32) {
        if xid == subtransaction {
            if let Some(spill) = self.open.remove(&xid) {
                self.memory_bytes -= spill.memory.len();
            }
        } else if let Some(spill) = self.open.get_mut(&xid) {
            spill.rolled_back.insert(subtransaction);
        }
    }

    /// The transaction committed: what is left of it, from its beginning. Empty if nothing was ever added.
    pub(super) fn commit(&mut self, xid: u32) -> io::Result<Replay> {
        let spill = self.open.remove(&xid).unwrap_or_default();
        self.memory_bytes -= spill.memory.len();
        let file = match spill.file {
            Some(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                Some(BufReader::with_capacity(256 << 10, file))
            }
            None => None,
        };
        Ok(Replay { file, memory: io::Cursor::new(spill.memory), rolled_back: spill.rolled_back, record: Vec::new() })
    }

    #[cfg(test)]
    fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}

/// A committed transaction's messages, one after the other.
#[derive(Debug)]
pub(super) struct Replay {
    file: Option<BufReader<File>>,
    memory: io::Cursor<Vec<u8>>,
    rolled_back: HashSet<u32>,
    record: Vec<u8>,
}

impl Replay {
    /// The next message: its letter and what follows. None at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<(u8, &[u8])>> {
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            let [l0, l1, l2, l3, owner @ ..] = head;
            let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            if !(1..=MAX_MESSAGE_BYTES).contains(&length) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.record.resize(length, 0);
            match &mut self.file {
                Some(file) => file.read_exact(&mut self.record)?,
                None => self.memory.read_exact(&mut self.record)?,
            }
            if !self.rolled_back.contains(&u32::from_be_bytes(owner)) {
                break;
            }
        }
        Ok(self.record.split_first().map(|(&letter, rest)| (letter, rest)))
    }

    fn head(&mut self) -> io::Result<Option<[u8; 8]>> {
        let mut head = [0; 8];
        if let Some(file) = &mut self.file {
            match file.read_exact(&mut head) {
                Ok(()) => return Ok(Some(head)),
                // Whole records are written at a time, so the file ends between two.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.file = None,
                Err(error) => return Err(error),
            }
        }
        match self.memory.read_exact(&mut head) {
            Ok(()) => Ok(Some(head)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn spills(memory_bytes_max: usize) -> (tempfile::TempDir, Spills) {
        let folder = tempfile::tempdir().unwrap();
        let spills = Spills::new(folder.path().join("spill"), memory_bytes_max);
        (folder, spills)
    }

    fn all(mut replay: Replay) -> Vec<String> {
        let mut messages = Vec::new();
        while let Some((letter, rest)) = replay.next().unwrap() {
            messages.push(format!("{}{}", char::from(letter), String::from_utf8_lossy(rest)));
        }
        messages
    }

    #[test]
    fn two_open_transactions_are_kept_apart_beyond_the_memory_limit() {
        let (_folder, mut spills) = spills(100);
        let mut expected = Vec::new();
        for number in 0..50 {
            for xid in [7, 8] {
                spills.add(xid, xid, b'I', format!("{xid}-{number}").as_bytes()).unwrap();
                assert!(spills.memory_bytes() <= 100);
            }
            expected.push(format!("I7-{number}"));
        }
        assert_eq!(all(spills.commit(7).unwrap()), expected);
        assert_eq!(all(spills.commit(8).unwrap()).len(), 50);
        assert_eq!(spills.memory_bytes(), 0);
        assert!(all(spills.commit(9).unwrap()).is_empty());
    }

    #[test]
    fn a_subtransaction_that_was_rolled_back_leaves_its_relations_only() {
        for limit in [0, 1 << 20] {
            let (_folder, mut spills) = spills(limit);
            spills.add(7, 7, b'I', b"1").unwrap();
            spills.add(7, 8, b'R', b"t").unwrap();
            spills.add(7, 8, b'I', b"2").unwrap();
            spills.add(7, 9, b'I', b"3").unwrap();
            spills.roll_back(7, 8);
            assert_eq!(all(spills.commit(7).unwrap()), ["I1", "Rt", "I3"]);
        }
    }

    #[test]
    fn what_was_rolled_back_as_a_whole_is_gone_and_so_is_its_file() {
        let (folder, mut spills) = spills(0);
        spills.add(7, 7, b'I', b"1").unwrap();
        spills.roll_back(7, 7);
        assert!(all(spills.commit(7).unwrap()).is_empty());
        assert_eq!(std::fs::read_dir(folder.path().join("spill")).unwrap().count(), 0);
    }
}
