//! A log file that a real server wrote, as events to be sent.

use std::io::Read;
use std::path::Path;

/// Databases that are the server's own are never captured, and some logs were recorded in one.
const OWN: (&[u8; 5], &[u8; 5]) = (b"mysql", b"myown");

pub struct Log {
    /// The file's name on the server.
    pub file: String,
    /// Where its server's log ended when the source came.
    pub begin: u64,
    /// Whole events with their checksums, from the description of the log on.
    pub events: Vec<Vec<u8>>,
    /// Whether they end with a CRC-32.
    pub checksums: bool,
}

impl Log {
    /// Reads one of the logs in this folder, from an offset on, at which there is a description.
    pub fn read(name: &str, from: usize) -> Log {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mysql_replay/logs").join(name);
        let mut bytes = std::fs::read(path).unwrap();
        if name.ends_with(".gz") {
            let mut whole = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut whole).unwrap();
            bytes = whole;
        }
        assert_eq!(bytes[..4], *b"\xfebin");
        let mut events = Vec::new();
        let mut rest = &bytes[from..];
        while let Some(length) = rest.get(9..13) {
            let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
            // A file that was being written may end within an event.
            let Some((event, after)) = rest.split_at_checked(length) else { break };
            events.push(event.to_vec());
            rest = after;
        }
        let description = &events[0];
        assert_eq!(description[4], 15);
        let version = String::from_utf8_lossy(&description[21..71]).into_owned();
        let old = version.starts_with("5.1") || version.starts_with("5.5");
        let checksums = !old && description[description.len() - 5] == 1;
        let mut log = Log { file: "binlog.000001".into(), begin: 4, events, checksums };
        log.rename();
        log
    }

    /// Where the transaction of the first statement with these words begins; its identifier stands before it.
    pub fn transaction_of(&self, words: &str) -> usize {
        let said = |event: &Vec<u8>| event[4] == 2 && event.windows(words.len()).any(|part| part == words.as_bytes());
        self.events.iter().position(said).unwrap() - 1
    }

    /// Puts in a transaction before an event, or at the end: it adds a row to a table of one INT in the database `test`.
    pub fn put_row(&mut self, at: usize, relation: &str, value: u8) {
        let before = u32::from_le_bytes(self.events[at - 1][13..17].try_into().unwrap());
        // Its id, which no other table has, and that the statement ends.
        let table = *b"\0\x10\0\0\0\0\x01\0";
        let name = [&[relation.len() as u8][..], relation.as_bytes(), &[0]].concat();
        let begin = [&[0; 8][..], &[4, 0, 0, 0, 0], b"test\0BEGIN"].concat();
        let map = [&table[..], b"\x04test\0", &name, &[1, 3, 0, 0]].concat();
        let row = [&table[..], &[2, 0, 1, 0xff, 0, value, 0, 0, 0]].concat();
        let bodies = [(2, begin), (19, map), (30, row), (16, vec![0; 8])];
        let events = bodies.into_iter().zip(before + 1..);
        let events: Vec<Vec<u8>> =
            events.map(|((kind, body), end)| event(kind, 0, end, &body, self.checksums)).collect();
        self.events.splice(at..at, events);
    }

    /// Gives the server's own database another name of the same length.
    fn rename(&mut self) {
        for event in &mut self.events {
            let at = match event[4] {
                // Behind the table's id and flags, and a length.
                19 => 19 + 6 + 2 + 1,
                // Behind what goes before it, and the status.
                2 => 19 + 13 + usize::from(u16::from_le_bytes([event[30], event[31]])),
                _ => continue,
            };
            if event.get(at..at + 6) == Some(&[OWN.0, &[0][..]].concat()) {
                event[at..at + 5].copy_from_slice(OWN.1);
                if self.checksums {
                    seal(event);
                }
            }
        }
    }
}

/// Puts the right checksum at an event's end.
pub fn seal(event: &mut [u8]) {
    let end = event.len() - 4;
    let mut sum = flate2::Crc::new();
    sum.update(&event[..end]);
    let sum = sum.sum().to_le_bytes();
    event[end..].copy_from_slice(&sum);
}

/// An event of our own making: its length and checksum are right.
pub fn event(kind: u8, flags: u16, end: u32, body: &[u8], checksum: bool) -> Vec<u8> {
    let mut event = vec![0; 19];
    event[4] = kind;
    event[5] = 1;
    event.extend(body);
    event.extend(&[0; 4][..if checksum { 4 } else { 0 }]);
    let length = event.len() as u32;
    event[9..13].copy_from_slice(&length.to_le_bytes());
    event[13..17].copy_from_slice(&end.to_le_bytes());
    event[17..19].copy_from_slice(&flags.to_le_bytes());
    if checksum {
        seal(&mut event);
    }
    event
}
