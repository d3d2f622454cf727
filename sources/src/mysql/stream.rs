//! The log as the server sends it: asked for, its events taken out of packets, their checksums compared, and compressed
//! transactions unpacked.
//!
//! A compressed transaction (`TRANSACTION_PAYLOAD_EVENT`, MySQL 8.0.20 and later) comes as one event, which is handed on
//! first, and then the events inside it, one after the other as they are unpacked: in memory is never more than one of
//! them. What is inside must have exactly the size that was told for it; more, or less, or an event of more than
//! [`EVENT_MAX`], and nothing of it counts. Source: MySQL's documentation of its source,
//! `Transaction_payload_event` (fields as type, length, value; Zstandard's frames), and
//! `Format_description_event` and `Log_event_footer` (when events end with a CRC-32).

use std::io::{Cursor, Read};

use bytes::Bytes;
use mysql_async::Error;
use zstd::stream::read::Decoder;

use super::address::Address;
use super::bytes::{self as fields, Malformed};
use super::connection::SESSION;
use super::event::{self, Event, HEADER_BYTES};
use super::place::Seen;
use super::wire::{PacketError, Wire, refused};

/// How long one event may be: as long as the server's longest packet.
const EVENT_MAX: u64 = 1 << 30;

/// The log, followed.
pub(super) struct LogStream {
    wire: Wire,
    checksums: Checksums,
    /// A compressed transaction that is being unpacked.
    payload: Option<Payload>,
}

/// From where the log is wanted.
pub(super) enum From<'a> {
    /// A file and an offset in it.
    Place(&'a str, u32),
    /// MySQL: whatever is not in this set.
    After(&'a Seen),
    /// MariaDB: what the session's variables say.
    State,
}

/// Whether events end with a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksums {
    /// Not told yet.
    Unknown,
    None,
    Crc32,
}

/// Why there is no next event.
#[derive(Debug)]
pub(super) enum StreamError {
    Connection(Error),
    Checksum,
    Malformed(Malformed),
    /// What is wrong with a compressed transaction.
    Payload(&'static str),
}

impl LogStream {
    /// Registers as a replica and asks for the log. `settings` is a statement for the session.
    pub(super) async fn open(
        address: &Address,
        settings: &str,
        server_id: u32,
        from: From<'_>,
    ) -> Result<LogStream, Error> {
        let mut wire = Wire::open(address).await?;
        wire.run(SESSION).await?;
        wire.run(settings).await?;
        let aware = "SET @master_binlog_checksum = @@GLOBAL.binlog_checksum, @source_binlog_checksum = \
            @@GLOBAL.binlog_checksum";
        match wire.run(aware).await {
            // Before 5.6 there are no checksums, nor a variable for them.
            Err(Error::Server(problem)) if problem.code == 1193 => {}
            outcome => outcome?,
        }
        // Its id; no name, user or password of ours, no port, no rank, no other server.
        let mut register = vec![0x15];
        register.extend(server_id.to_le_bytes());
        register.extend([0; 13]);
        wire.command(&register).await?;
        wire.done().await?;
        wire.command(&request(server_id, from)).await?;
        Ok(LogStream { wire, checksums: Checksums::Unknown, payload: None })
    }

    /// The next event; None if the server has ended. May be dropped while it waits; nothing is lost then.
    pub(super) async fn next(&mut self) -> Option<Result<Event, StreamError>> {
        if let Some(payload) = &mut self.payload {
            match payload.next() {
                Ok(None) => self.payload = None,
                outcome => return outcome.transpose(),
            }
        }
        let packet = match self.wire.packet().await {
            Ok(packet) => packet?,
            Err(PacketError::Broken(error)) => return Some(Err(StreamError::Connection(error))),
            Err(PacketError::TooLong) => return Some(Err(StreamError::Malformed(Malformed("a packet's length")))),
        };
        match packet.first() {
            Some(0) => Some(self.event(packet.slice(1..))),
            Some(0xfe) if packet.len() < 9 => None,
            _ => Some(Err(match refused(&packet) {
                Err(error) => StreamError::Connection(error),
                Ok(()) => StreamError::Malformed(Malformed("a packet that is no event")),
            })),
        }
    }

    fn event(&mut self, whole: Bytes) -> Result<Event, StreamError> {
        let mut event = Event::read(&whole).map_err(StreamError::Malformed)?;
        if event.kind == event::FORMAT_DESCRIPTION {
            self.checksums = described(&event.body).map_err(StreamError::Malformed)?;
            return Ok(event);
        }
        let (content, told) = whole.split_last_chunk::<4>().unwrap_or((&[], &[0; 4]));
        let mut sum = flate2::Crc::new();
        if self.checksums != Checksums::None {
            sum.update(content);
        }
        let right = sum.sum().to_le_bytes() == *told;
        match self.checksums {
            Checksums::Crc32 if !right => return Err(StreamError::Checksum),
            Checksums::Crc32 => event.body.truncate(event.body.len().saturating_sub(4)),
            // The first event, which names the file, comes before it is told.
            Checksums::Unknown if right => event.body.truncate(event.body.len().saturating_sub(4)),
            _ => {}
        }
        if event.kind == event::TRANSACTION_PAYLOAD {
            self.payload = Some(Payload::open(&event.body)?);
        }
        Ok(event)
    }
}

/// The command that asks for the log.
fn request(server_id: u32, from: From<'_>) -> Vec<u8> {
    let by_place = |file: &str, offset: u32| {
        let mut command = vec![0x12];
        command.extend(offset.to_le_bytes());
        command.extend([0; 2]);
        command.extend(server_id.to_le_bytes());
        command.extend(file.as_bytes());
        command
    };
    match from {
        From::Place(file, offset) => by_place(file, offset),
        From::State => by_place("", 4),
        From::After(seen) => {
            /// Says that the command goes by identifiers.
            const THROUGH_GTID: u16 = 4;
            let set = seen.encode_mysql();
            let mut command = vec![0x1e];
            command.extend(THROUGH_GTID.to_le_bytes());
            command.extend(server_id.to_le_bytes());
            // No file's name, and where every file begins.
            command.extend(0_u32.to_le_bytes());
            command.extend(4_u64.to_le_bytes());
            command.extend((set.len() as u32).to_le_bytes());
            command.extend(set);
            command
        }
    }
}

/// What a FORMAT_DESCRIPTION_EVENT says of checksums: since 5.6.1 its last five bytes are their kind and its own.
fn described(body: &[u8]) -> Result<Checksums, Malformed> {
    let version = body.get(2..52).ok_or(Malformed("a description of the log"))?;
    let version = version.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut numbers = version
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0));
    let mut number = || numbers.next().unwrap_or(0);
    if (number(), number(), number()) < (5, 6, 1) {
        return Ok(Checksums::None);
    }
    match body.iter().rev().nth(4) {
        Some(0) => Ok(Checksums::None),
        Some(1) => Ok(Checksums::Crc32),
        _ => Err(Malformed("a kind of checksums that is not known")),
    }
}

/// A compressed transaction, unpacked as far as it was asked for.
struct Payload {
    content: Content,
    /// Bytes of events that are still to come.
    left: u64,
}

enum Content {
    Plain(Cursor<Bytes>),
    Zstd(Box<Decoder<'static, Cursor<Bytes>>>),
}

impl Payload {
    fn open(body: &Bytes) -> Result<Payload, StreamError> {
        const ZSTD: usize = 0;
        const PLAIN: usize = 255;
        let malformed = |_| StreamError::Payload("it does not have the documented form");
        let mut rest = fields::Bytes(body);
        let (mut size, mut method, mut unpacked) = (None, None, None);
        loop {
            let kind = rest.packed().map_err(malformed)?;
            if kind == 0 {
                break;
            }
            let mut value = fields::Bytes(rest.counted().map_err(malformed)?);
            let slot = match kind {
                1 => &mut size,
                2 => &mut method,
                3 => &mut unpacked,
                _ => continue,
            };
            *slot = Some(value.packed().map_err(malformed)?);
        }
        let size = size.filter(|size| *size == rest.0.len());
        let size = size.ok_or(StreamError::Payload("it is of another length than it says"))?;
        let packed = Cursor::new(body.slice(body.len() - size..));
        let (content, left) = match (method, unpacked) {
            (Some(PLAIN), _) => (Content::Plain(packed), size),
            (Some(ZSTD), Some(unpacked)) => {
                let decoder = Decoder::with_buffer(packed);
                let decoder = decoder.map_err(|_| StreamError::Payload("there is no memory to unpack it"))?;
                (Content::Zstd(Box::new(decoder)), unpacked)
            }
            (Some(ZSTD), None) => return Err(StreamError::Payload("it does not say how large it is")),
            _ => return Err(StreamError::Payload("its compression is not known")),
        };
        Ok(Payload { content, left: left as u64 })
    }

    /// The next event of it. These have no checksums of their own.
    fn next(&mut self) -> Result<Option<Event>, StreamError> {
        let mut whole = Vec::new();
        self.read(HEADER_BYTES as u64, &mut whole)?;
        if whole.is_empty() && self.left == 0 {
            return Ok(None);
        }
        let length = whole.get(9..13).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        let length = u64::from(length.unwrap_or_default());
        if length > EVENT_MAX {
            return Err(StreamError::Payload("an event in it has more than 1 GiB"));
        }
        if length < HEADER_BYTES as u64 || whole.len() < HEADER_BYTES {
            return Err(StreamError::Payload("it holds less than it says"));
        }
        self.left = self.left.checked_sub(length).ok_or(StreamError::Payload("it holds more than it says"))?;
        self.read(length - HEADER_BYTES as u64, &mut whole)?;
        if whole.len() as u64 != length {
            return Err(StreamError::Payload("it holds less than it says"));
        }
        Event::read(&whole.into()).map(Some).map_err(StreamError::Malformed)
    }

    /// Appends up to so many bytes, fewer only where it ends. Memory is taken as they come.
    fn read(&mut self, bytes: u64, out: &mut Vec<u8>) -> Result<(), StreamError> {
        let read = match &mut self.content {
            Content::Plain(content) => content.take(bytes).read_to_end(out),
            Content::Zstd(content) => content.take(bytes).read_to_end(out),
        };
        read.map(drop).map_err(|_| StreamError::Payload("its bytes are damaged"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn event(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut event = vec![0; HEADER_BYTES];
        event[4] = kind;
        event[9..13].copy_from_slice(&((HEADER_BYTES + body.len()) as u32).to_le_bytes());
        event.extend(body);
        event
    }

    /// A length of the protocol, in its longest form.
    fn long(number: u64) -> Vec<u8> {
        [&[254][..], &number.to_le_bytes()].concat()
    }

    fn field(kind: u8, value: u64) -> Vec<u8> {
        [&[kind, 9][..], &long(value)].concat()
    }

    fn payload(content: &[u8], method: u64, unpacked: u64) -> Bytes {
        let head = [field(2, method), field(3, unpacked), field(1, content.len() as u64), vec![0]].concat();
        [head, content.to_vec()].concat().into()
    }

    /// All of its events, or what is wrong with it.
    fn events(body: &Bytes) -> Result<Vec<Event>, &'static str> {
        let outcome = Payload::open(body).and_then(|mut payload| {
            let mut events = Vec::new();
            while let Some(event) = payload.next()? {
                events.push(event);
            }
            Ok(events)
        });
        outcome.map_err(|error| match error {
            StreamError::Payload(problem) => problem,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_events_of_a_compressed_transaction_come_one_by_one() {
        let content = [event(19, b"map"), event(30, &[7; 5000]), event(16, b"")].concat();
        let packed = zstd::encode_all(&content[..], 3).unwrap();
        for body in [payload(&packed, 0, content.len() as u64), payload(&content, 255, 0)] {
            let events = events(&body).unwrap();
            let told: Vec<_> = events.iter().map(|event| (event.kind, event.body.len())).collect();
            assert_eq!(told, [(19, 3), (30, 5000), (16, 0)]);
            assert_eq!(&events[0].body[..], b"map");
        }
    }

    #[test]
    fn a_compressed_transaction_is_only_as_large_as_it_says() {
        let content = [event(30, &[0; 100_000]), event(16, b"")].concat();
        let packed = zstd::encode_all(&content[..], 3).unwrap();
        let length = content.len() as u64;
        assert_eq!(events(&payload(&packed, 0, length - 1)), Err("it holds more than it says"));
        assert_eq!(events(&payload(&packed, 0, length + 1)), Err("it holds less than it says"));
        // Nothing is set aside for what is only claimed.
        assert_eq!(events(&payload(&packed, 0, u64::MAX)), Err("it holds less than it says"));
        let mut huge = event(30, &[0; 10]);
        huge[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
        let packed = zstd::encode_all(&huge[..], 3).unwrap();
        assert_eq!(events(&payload(&packed, 0, 1 << 40)), Err("an event in it has more than 1 GiB"));
    }

    #[test]
    fn a_compressed_transaction_that_is_damaged_is_an_error_and_never_left_out() {
        let content = event(30, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let packed = zstd::encode_all(&content[..], 3).unwrap();
        let whole = payload(&packed, 0, content.len() as u64);
        assert_eq!(events(&payload(&packed, 1, content.len() as u64)), Err("its compression is not known"));
        for end in 0..whole.len() {
            assert!(events(&whole.slice(..end)).is_err(), "cut at {end}");
        }
        assert_eq!(events(&payload(b"what", 0, 30)), Err("its bytes are damaged"));
    }

    #[test]
    fn the_description_of_a_log_tells_of_checksums_since_they_are() {
        let describe = |version: &str, tail: &[u8]| {
            let mut body = vec![4, 0];
            body.extend(version.as_bytes());
            body.resize(100, 0);
            body.extend(tail);
            described(&body)
        };
        assert_eq!(describe("5.5.27-log", &[1; 5]), Ok(Checksums::None));
        assert_eq!(describe("5.6.24-log", &[1, 0, 0, 0, 0]), Ok(Checksums::Crc32));
        assert_eq!(describe("9.6.0", &[0, 9, 9, 9, 9]), Ok(Checksums::None));
        assert_eq!(describe("10.11.6-MariaDB", &[1, 0, 0, 0, 0]), Ok(Checksums::Crc32));
        assert!(describe("9.6.0", &[2, 0, 0, 0, 0]).is_err());
        assert!(described(&[0; 20]).is_err());
    }

    #[test]
    fn the_log_is_asked_for_by_what_was_seen() {
        let seen = Seen::parse_mysql("").unwrap();
        let command = request(7, From::After(&seen));
        let expected = [&[0x1e, 4, 0, 7, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0][..], &[0; 8]];
        assert_eq!(command, expected.concat());
        assert_eq!(request(7, From::Place("b.1", 258)), [&[0x12, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0][..], b"b.1"].concat());
    }
}
