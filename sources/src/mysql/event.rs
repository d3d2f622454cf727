//! The events of a binary log that matter here, taken apart.
//!
//! Sources: MariaDB's knowledge base, "Replication Protocol" (GTID_EVENT, QUERY_COMPRESSED_EVENT, rows events), and
//! MySQL's documentation of its source, `libs/mysql/binlog/event` (GTID_LOG_EVENT, GTID_TAGGED_LOG_EVENT,
//! TABLE_MAP_EVENT, rows events) and `libs/mysql/serialization/readme.md` (the form of GTID_TAGGED_LOG_EVENT).
//! Not here: values of rows, which is [`super::row`], text of statements, which is [`super::statement`], and how events
//! come from the server, with checksums and compressed transactions, which is [`super::stream`].

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{DeflateDecoder, ZlibDecoder};

use super::bytes::{Bytes, Malformed};
use super::place::{Gtid, Source, Tag};

pub(super) const QUERY: u8 = 2;
pub(super) const ROTATE: u8 = 4;
pub(super) const FORMAT_DESCRIPTION: u8 = 15;
pub(super) const XID: u8 = 16;
pub(super) const EXECUTE_LOAD_QUERY: u8 = 18;
pub(super) const TABLE_MAP: u8 = 19;
pub(super) const INCIDENT: u8 = 26;
pub(super) const HEARTBEAT: u8 = 27;
pub(super) const GTID: u8 = 33;
pub(super) const ANONYMOUS_GTID: u8 = 34;
pub(super) const XA_PREPARE: u8 = 38;
pub(super) const PARTIAL_UPDATE_ROWS: u8 = 39;
pub(super) const TRANSACTION_PAYLOAD: u8 = 40;
pub(super) const TAGGED_GTID: u8 = 42;
pub(super) const MARIADB_GTID: u8 = 162;
pub(super) const QUERY_COMPRESSED: u8 = 165;

/// How many bytes come before an event's body.
pub(super) const HEADER_BYTES: usize = 19;

/// One event: its header, and its body without a checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// In seconds since 1970.
    pub(super) timestamp: u32,
    pub(super) kind: u8,
    /// The server that wrote it first.
    pub(super) server: u32,
    /// The lower four bytes of where it ends in its file; 0 if it is in none, or inside a compressed transaction.
    pub(super) end: u32,
    pub(super) flags: u16,
    pub(super) body: bytes::Bytes,
}

impl Event {
    /// Reads an event whose bytes are all there.
    pub(super) fn read(whole: &bytes::Bytes) -> Result<Event, Malformed> {
        let mut bytes = Bytes(whole);
        let (timestamp, kind, server) = (bytes.u32()?, bytes.u8()?, bytes.u32()?);
        let (length, end, flags) = (bytes.u32()?, bytes.u32()?, bytes.u16()?);
        if length as usize != whole.len() {
            return Err(Malformed("an event's length"));
        }
        Ok(Event { timestamp, kind, server, end, flags, body: whole.slice(HEADER_BYTES..) })
    }
}

/// Flags of an event's header: the server made it up for this connection; whoever does not know it may skip it.
pub(super) const ARTIFICIAL: u16 = 0x20;
pub(super) const IGNORABLE: u16 = 0x80;

/// Flags of MariaDB's GTID event.
const STANDALONE: u8 = 1;
const GROUP_COMMIT: u8 = 2;
const PREPARED_XA: u8 = 64;
const COMPLETED_XA: u8 = 128;

/// Flags of a rows event.
const STATEMENT_END: u16 = 1;
const NO_FOREIGN_KEYS: u16 = 2;

/// How long one decompressed event may be: as long as the server's longest packet.
const DECOMPRESSED_MAX: u64 = 1 << 30;

/// Events that say nothing about rows: those of other servers' bookkeeping, and values that go with statements.
pub(super) fn says_nothing(kind: u8) -> bool {
    // STOP, INTVAR, RAND, USER_VAR, APPEND_BLOCK, DELETE_FILE, BEGIN_LOAD_QUERY, IGNORABLE, ROWS_QUERY,
    // PREVIOUS_GTIDS, TRANSACTION_CONTEXT, VIEW_CHANGE, HEARTBEAT_V2, and MariaDB's ANNOTATE_ROWS, BINLOG_CHECKPOINT,
    // GTID_LIST, START_ENCRYPTION.
    matches!(kind, 3 | 5 | 9 | 11 | 13 | 14 | 17 | 28 | 29 | 35 | 36 | 37 | 41 | 160 | 161 | 163 | 164)
}

/// What begins a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) gtid: Gtid,
    /// In ms since 1970, where the event tells it more exactly than its header does.
    pub(super) committed_at_ms: Option<u64>,
    /// One statement and no commit after it. None where the dialect does not tell beforehand.
    pub(super) standalone: Option<bool>,
    /// The name of an XA transaction that is prepared by this group, as `X'71',X'',1`.
    pub(super) prepares: Option<String>,
    /// The group commits or rolls back an XA transaction.
    pub(super) completes: bool,
}

/// GTID_EVENT of MariaDB.
pub(super) fn mariadb_gtid(body: &[u8], server: u32) -> Result<Begin, Malformed> {
    let mut bytes = Bytes(body);
    let sequence = bytes.u64()?;
    let domain = bytes.u32()?;
    let flags = bytes.u8()?;
    if flags & GROUP_COMMIT != 0 {
        bytes.u64()?;
    }
    let mut xid = None;
    if flags & (PREPARED_XA | COMPLETED_XA) != 0 {
        let format = bytes.u32()?;
        let (global, branch) = (usize::from(bytes.u8()?), usize::from(bytes.u8()?));
        let (global, branch) = (bytes.take(global)?, bytes.take(branch)?);
        xid = Some(format!("X'{}',X'{}',{format}", hex(global), hex(branch)));
    }
    Ok(Begin {
        gtid: Gtid::MariaDb { domain, server, sequence },
        committed_at_ms: None,
        standalone: Some(flags & STANDALONE != 0),
        prepares: xid.filter(|_| flags & PREPARED_XA != 0),
        completes: flags & COMPLETED_XA != 0,
    })
}

/// GTID_LOG_EVENT and ANONYMOUS_GTID_LOG_EVENT of MySQL.
pub(super) fn mysql_gtid(body: &[u8], anonymous: bool) -> Result<Begin, Malformed> {
    let mut bytes = Bytes(body);
    bytes.u8()?;
    let server = bytes.array()?;
    let number = bytes.u64()?;
    // Since 8.0: type 2, two logical clocks, and the time of the commit in µs, whose top bit says that another follows.
    let mut committed_at_ms = None;
    if bytes.u8() == Ok(2) && bytes.take(16).is_ok() {
        committed_at_ms = bytes.uint(7).ok().map(|micros| (micros & !(1 << 55)) / 1000);
    }
    let gtid = if anonymous { Gtid::None } else { Gtid::MySql { source: Source::untagged(server), number } };
    Ok(Begin { gtid, committed_at_ms, standalone: None, prepares: None, completes: false })
}

/// GTID_TAGGED_LOG_EVENT of MySQL (8.3 and later): a message of its serialization library. That is the version, the
/// size, the last field that must be understood, and fields with their numbers, all as [`Bytes::varlen`]: 0 flags, 1
/// the server's UUID (each byte a number), 2 the transaction's number (signed), 3 the tag, 4 and 5 logical clocks
/// (signed), 6 the time of the commit in µs, and others that say nothing here.
pub(super) fn tagged_gtid(body: &[u8]) -> Result<Begin, Malformed> {
    /// The last field that servers of 9.x know: a ticket of group commits.
    const LAST_KNOWN: u64 = 11;
    let mut bytes = Bytes(body);
    if bytes.varlen()? != 1 {
        return Err(Malformed("a tagged GTID of a later version"));
    }
    bytes.varlen()?;
    if bytes.varlen()? > LAST_KNOWN {
        return Err(Malformed("a tagged GTID with what must be understood and is not known"));
    }
    let (mut uuid, mut number, mut tag, mut committed_at_ms) = (None, None, Tag::default(), None);
    while !bytes.is_empty() {
        match bytes.varlen()? {
            0 => {
                bytes.varlen()?;
            }
            1 => {
                let mut whole = [0; 16];
                for byte in &mut whole {
                    *byte = u8::try_from(bytes.varlen()?).map_err(|_| Malformed("a UUID"))?;
                }
                uuid = Some(whole);
            }
            // Signed numbers have their sign in the lowest bit.
            2 => number = Some(bytes.varlen()?).filter(|number| number & 1 == 0).map(|number| number >> 1),
            3 => {
                let length = usize::try_from(bytes.varlen()?).map_err(|_| Malformed("a tag's length"))?;
                tag = Tag::read(bytes.take(length)?).ok_or(Malformed("a tag"))?;
            }
            4 | 5 => {
                bytes.varlen()?;
            }
            6 => {
                committed_at_ms = Some(bytes.varlen()? / 1000);
                break;
            }
            // Fields come in the order of their numbers, so there is none of the above behind it.
            _ => break,
        }
    }
    let (Some(uuid), Some(number)) = (uuid, number) else { return Err(Malformed("a tagged GTID without a name")) };
    let gtid = Gtid::MySql { source: Source { uuid, tag }, number };
    Ok(Begin { gtid, committed_at_ms, standalone: None, prepares: None, completes: false })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// QUERY_EVENT and EXECUTE_LOAD_QUERY_EVENT: the default database and the statement.
pub(super) fn query(body: &[u8], kind: u8) -> Result<(String, String), Malformed> {
    let mut bytes = Bytes(body);
    bytes.take(8)?;
    let database = usize::from(bytes.u8()?);
    bytes.take(2)?;
    let status = usize::from(bytes.u16()?);
    if kind == EXECUTE_LOAD_QUERY {
        bytes.take(13)?;
    }
    bytes.take(status)?;
    let database = String::from_utf8_lossy(bytes.take(database)?).into_owned();
    bytes.u8()?;
    let statement = if kind == QUERY_COMPRESSED { decompress(bytes.0)? } else { Cow::Borrowed(bytes.0) };
    // Names in statements are ASCII or UTF-8 in all but old clients; what is not is told apart by no one here.
    Ok((database, String::from_utf8_lossy(&statement).into_owned()))
}

/// ROTATE_EVENT: where the log goes on.
pub(super) fn rotate(body: &[u8]) -> Result<(u64, String), Malformed> {
    let mut bytes = Bytes(body);
    let offset = bytes.u64()?;
    let mut name = bytes.0;
    // The first one comes before the checksum's kind is known, and may have its checksum still behind it.
    let digits = |name: &[u8]| name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    if name.len() > 4 && (digits(name) < 6 || !name.is_ascii()) && digits(&name[..name.len() - 4]) >= 6 {
        name = &name[..name.len() - 4];
    }
    Ok((offset, String::from_utf8_lossy(name).into_owned()))
}

/// HEARTBEAT_EVENT: the name of the file that the server is at.
pub(super) fn heartbeat(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// What happened to the rows of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowsKind {
    Insert,
    Update,
    Delete,
}

/// A rows event, its values not yet read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows<'a> {
    pub(super) table_id: u64,
    pub(super) kind: RowsKind,
    pub(super) columns: usize,
    /// The columns of the (first) image, as a bitmap.
    pub(super) present: &'a [u8],
    /// For updates, the columns of the image after.
    pub(super) present_after: &'a [u8],
    /// An image after may hold the changed parts of JSON values only: `PARTIAL_UPDATE_ROWS_EVENT`.
    pub(super) partial: bool,
    pub(super) values: Cow<'a, [u8]>,
    /// The last event of its statement.
    pub(super) last: bool,
    /// Foreign keys were not looked at.
    pub(super) unchecked: bool,
}

/// A rows event of version 1 or 2, compressed or not. None if the event is of another kind.
pub(super) fn rows(kind: u8, body: &[u8]) -> Result<Option<Rows<'_>>, Malformed> {
    let (action, second_version, compressed) = match kind {
        23 => (RowsKind::Insert, false, false),
        24 => (RowsKind::Update, false, false),
        25 => (RowsKind::Delete, false, false),
        30 => (RowsKind::Insert, true, false),
        31 => (RowsKind::Update, true, false),
        32 => (RowsKind::Delete, true, false),
        PARTIAL_UPDATE_ROWS => (RowsKind::Update, true, false),
        166 => (RowsKind::Insert, false, true),
        167 => (RowsKind::Update, false, true),
        168 => (RowsKind::Delete, false, true),
        169 => (RowsKind::Insert, true, true),
        170 => (RowsKind::Update, true, true),
        171 => (RowsKind::Delete, true, true),
        _ => return Ok(None),
    };
    let mut bytes = Bytes(body);
    let table_id = bytes.uint(6)?;
    let flags = bytes.u16()?;
    let (last, unchecked) = (flags & STATEMENT_END != 0, flags & NO_FOREIGN_KEYS != 0);
    if second_version {
        let extra = usize::from(bytes.u16()?);
        bytes.take(extra.checked_sub(2).ok_or(Malformed("extra data"))?)?;
    }
    let columns = bytes.packed()?;
    let present = bytes.take(columns.div_ceil(8))?;
    let present_after = if action == RowsKind::Update { bytes.take(columns.div_ceil(8))? } else { present };
    let values = if compressed { decompress(bytes.0)? } else { Cow::Borrowed(bytes.0) };
    let partial = kind == PARTIAL_UPDATE_ROWS;
    Ok(Some(Rows { table_id, kind: action, columns, present, present_after, partial, values, last, unchecked }))
}

/// MariaDB's compressed part of an event or value: a byte (0x80, the method in three bits, and how many bytes the
/// length has), the length, big-endian, and zlib's stream.
fn decompress(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    let mut bytes = Bytes(bytes);
    let head = bytes.u8()?;
    if head & 0x80 == 0 || head & 0x70 != 0 {
        return Err(Malformed("a compression that is not known"));
    }
    let length = bytes.uint_be(usize::from(head & 7))?;
    inflate(bytes.0, length).map(Cow::Owned)
}

/// Unpacks zlib's stream of a known length.
pub(super) fn inflate(bytes: &[u8], length: u64) -> Result<Vec<u8>, Malformed> {
    unpack(ZlibDecoder::new(bytes), length)
}

/// Unpacks a stream without zlib's wrapping.
pub(super) fn inflate_bare(bytes: &[u8], length: u64) -> Result<Vec<u8>, Malformed> {
    unpack(DeflateDecoder::new(bytes), length)
}

fn unpack(stream: impl Read, length: u64) -> Result<Vec<u8>, Malformed> {
    if length > DECOMPRESSED_MAX {
        return Err(Malformed("a compressed length"));
    }
    let mut out = Vec::new();
    let unpacked = stream.take(length + 1).read_to_end(&mut out);
    if unpacked.is_err() || out.len() as u64 != length {
        return Err(Malformed("compressed bytes"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    #[test]
    fn mariadbs_gtid_tells_a_statement_from_a_transaction_and_names_xa() {
        let plain = bytes("03 00 00 00 00 00 00 00 02 00 00 00 0c 00 00 00 00 00 00");
        let begin = mariadb_gtid(&plain, 7).unwrap();
        assert_eq!(begin.gtid.to_string(), "2-7-3");
        assert_eq!((begin.standalone, begin.prepares, begin.completes), (Some(false), None, false));
        let statement = bytes("01 00 00 00 00 00 00 00 00 00 00 00 29 00 00 00 00 00 00");
        assert_eq!(mariadb_gtid(&statement, 1).unwrap().standalone, Some(true));
        let prepared = bytes("07 00 00 00 00 00 00 00 00 00 00 00 4c 01 00 00 00 01 00 71 01 ff");
        assert_eq!(mariadb_gtid(&prepared, 1).unwrap().prepares.as_deref(), Some("X'71',X'',1"));
        let completed = bytes("08 00 00 00 00 00 00 00 00 00 00 00 8d 01 00 00 00 01 00 71");
        assert!(mariadb_gtid(&completed, 1).unwrap().completes);
        assert_eq!(mariadb_gtid(&plain[..5], 1), Err(Malformed("it ends too early")));
    }

    #[test]
    fn mysqls_gtid_tells_the_time_of_the_commit_to_the_microsecond() {
        // As documented for Gtid_log_event since 8.0.1; 1700000000123456 µs, and an original time behind it.
        let mut body = bytes("00 3e 11 fa 47 71 ca 11 e1 9e 33 c8 0a a9 42 95 62 2a 00 00 00 00 00 00 00 02");
        body.extend([0; 16]);
        body.extend(&(1_700_000_000_123_456_u64 | 1 << 55).to_le_bytes()[..7]);
        body.extend([0; 7]);
        let begin = mysql_gtid(&body, false).unwrap();
        assert_eq!(begin.gtid.to_string(), "3e11fa47-71ca-11e1-9e33-c80aa9429562:42");
        assert_eq!(begin.committed_at_ms, Some(1_700_000_000_123));
        assert_eq!(mysql_gtid(&body, true).unwrap().gtid, Gtid::None);
        assert_eq!(mysql_gtid(&body[..25], false).unwrap().committed_at_ms, None, "5.7 tells none");
    }

    #[test]
    fn a_tagged_gtid_is_a_message_with_numbered_fields() {
        // As MySQL 9.6.0 wrote it.
        let body = bytes(
            "02 78 00 00 00 02 aa ee 25 02 08 04 65 02 22 c5 03 c5 02 e1 02 9c c1 03 11 03 55 02 de ad 03 04 0c 06 0a 6d \
             79 74 61 67 08 00 0a 04 0c 7f 1c f3 b8 14 24 4a 06 10 a1 04 12 43 0f 0b",
        );
        let begin = tagged_gtid(&body).unwrap();
        assert_eq!(begin.gtid.to_string(), "55778904-0299-11f1-b1b8-4ef0c4956feb:mytag:3");
        assert_eq!(begin.committed_at_ms, Some(1_770_368_687_207));
        for end in 0..body.len() {
            // Whatever is cut off: an error, or the name is whole; nowhere a panic.
            let _ = tagged_gtid(&body[..end]);
        }
        assert!(tagged_gtid(&body[..30]).is_err());
    }

    #[test]
    fn the_first_rotate_may_carry_a_checksum() {
        let mut body = 4_u64.to_le_bytes().to_vec();
        body.extend(b"mysql-bin.000012");
        assert_eq!(rotate(&body).unwrap(), (4, "mysql-bin.000012".into()));
        body.extend([0x31, 0xfe, 0x80, 0x05]);
        assert_eq!(rotate(&body).unwrap(), (4, "mysql-bin.000012".into()));
    }

    #[test]
    fn rows_are_of_two_versions_and_may_be_compressed() {
        let plain = bytes("16 00 00 00 00 00 01 00 01 01 fe 07 00 00 00");
        let first = rows(23, &plain).unwrap().unwrap();
        assert_eq!((first.table_id, first.columns, first.values.as_ref()), (0x16, 1, &plain[10..]));
        let second = bytes("16 00 00 00 00 00 01 00 04 00 aa bb 01 01 fe 07 00 00 00");
        assert_eq!(rows(30, &second).unwrap().unwrap().values, first.values);
        let mut packed = plain[..10].to_vec();
        packed.extend([0x81, 5]);
        let mut encoder = flate2::read::ZlibEncoder::new(&plain[10..], flate2::Compression::default());
        encoder.read_to_end(&mut packed).unwrap();
        assert_eq!(rows(166, &packed).unwrap().unwrap().values, first.values);
        packed[11] = 4;
        assert_eq!(rows(166, &packed), Err(Malformed("compressed bytes")));
        assert_eq!(rows(2, &plain), Ok(None));
    }
}
